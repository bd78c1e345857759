"""Errors and warnings of skhebae; each subclasses the built-in class a caller would expect."""

from __future__ import annotations

import sys
import warnings

#: Packages whose frames a warning skips on its way to the line that it points to.
SKIPPED = ("contextlib", "skhebae", "sklearn", "joblib")


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became NaN or infinite in training."""


class ModelFileError(ValueError):
    """A model file is damaged, has a newer format, or does not hold the model asked for."""


class CheckpointError(ValueError):
    """A checkpoint belongs to another fit, is damaged, or is not a checkpoint."""


class CheckpointWarning(UserWarning):
    """The latest checkpoint is damaged or cannot be written, and training continues without it."""


class DistributedError(RuntimeError):
    """One of the processes that fit a model together was lost or did not respond in time."""


class DistributedWarning(UserWarning):
    """Several processes were launched, but each fits on its own."""


class LatentWarning(UserWarning):
    """The codes of a fitted estimator may mislead. Base class of the next three warnings."""


class CollapsedDimensionsWarning(LatentWarning):
    """Some dimensions of the code hardly vary between rows."""


class VanishedNoiseWarning(LatentWarning):
    """Posteriors are so narrow that the model is in effect a deterministic autoencoder."""


class SaturatedInformationWarning(LatentWarning):
    """The mutual information of row and code is at its ceiling, the log of the row count."""


class UnreliableBoundWarning(UserWarning):
    """Few draws carry most of the importance weight of log p(x) for some rows."""


class MissingGenesWarning(UserWarning):
    """New cells lack some of the genes that the model was fitted to."""


class OutOfRangeWarning(UserWarning):
    """Rows have values far outside those that the estimator was fitted to."""


class UnknownCategoryWarning(UserWarning):
    """Rows have categories that `fit` did not see, which count as missing."""


class FewCodesWarning(UserWarning):
    """Few of the drawn codes fit the values that `sample` was given."""


class FewRowsWarning(UserWarning):
    """Too few rows were held out for p-values as small as alpha."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the user's line: the nearest one outside skhebae, scikit-learn and joblib.

    How many wrappers lie in between depends on the method, and on scikit-learn's version.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and is_skipped(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def is_skipped(module: str) -> bool:
    """Whether a module belongs to one of the `SKIPPED` packages."""
    return module.split(".")[0] in SKIPPED
