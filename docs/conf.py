"""Sphinx: ``make docs``."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "skhebae"
author = "The skhebae developers"
release = version = version_of("skhebae")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "alabaster"
autosummary_generate = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
myst_heading_anchors = 3
# Links from pages to files of the repository have no target in the built pages.
suppress_warnings = ["myst.xref_missing"]
