"""Errors of our own, each a subclass of the built-in a caller would expect."""


class NonFiniteLossError(ArithmeticError):
    """Training met a loss that is NaN or infinite."""


class ModelFileError(ValueError):
    """A file is not a model of ours, is truncated, or is of a newer format."""
