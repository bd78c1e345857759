"""Errors and warnings of skhebae; each subclasses the built-in class a caller would expect."""

from __future__ import annotations

import sys
from types import FrameType

#: Packages whose frames are not where a user's call is.
BETWEEN = {"contextlib", "sklearn", "skhebae"}


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became NaN or infinite in training."""


class ModelFileError(ValueError):
    """A file is damaged, has a newer format, or does not hold the model asked for."""


class CheckpointError(ValueError):
    """A file is a checkpoint of another fit, is unusable, or is not a checkpoint."""


class CheckpointWarning(UserWarning):
    """The latest checkpoint is damaged, and training continues from the previous one."""


class DistributedError(RuntimeError):
    """One of the processes that fit a model together was lost or did not respond in time."""


class DistributedWarning(UserWarning):
    """Several processes were launched, but each fits on its own."""


class LatentWarning(UserWarning):
    """The codes of a fitted estimator may be misleading; base class of the warnings below."""


class CollapsedDimensionsWarning(LatentWarning):
    """Some dimensions of the code hardly vary between rows."""


class VanishedNoiseWarning(LatentWarning):
    """Posteriors are so narrow that the model is in effect a deterministic autoencoder."""


class SaturatedInformationWarning(LatentWarning):
    """The mutual information of row and code is at its ceiling, the log of the row count."""


class MissingGenesWarning(UserWarning):
    """New cells lack some of the genes that the model was fitted to."""


class OutOfRangeWarning(UserWarning):
    """Rows have values far outside those that the estimator was fitted to."""


def level_of_user() -> int:
    """Return the stack level, for a warning of the caller, of the user's own call."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and package_of(frame) in BETWEEN:
        level, frame = level + 1, frame.f_back
    return level


def package_of(frame: FrameType) -> str:
    """Return the package whose code a frame runs."""
    return str(frame.f_globals.get("__name__", "")).split(".")[0]
