"""Regressions of our own speed."""
