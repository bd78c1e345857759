"""Errors and warnings of our own, each a subclass of the built-in a caller would expect."""


class NonFiniteLossError(ArithmeticError):
    """Training met a loss that is NaN or infinite."""


class ModelFileError(ValueError):
    """A file is not a model of ours, is truncated, or is of a newer format."""


class CheckpointError(ValueError):
    """A checkpoint is of another fit, damaged beyond use, or no checkpoint."""


class CheckpointWarning(UserWarning):
    """The last checkpoint is damaged; training goes on from the one before it."""


class DistributedError(RuntimeError):
    """A process of a fit by several was lost, or did not answer in time."""


class DistributedWarning(UserWarning):
    """Several processes were launched, but this one fits alone."""


class LatentWarning(UserWarning):
    """The codes of a fitted estimator are not what they may seem."""


class CollapsedDimensionsWarning(LatentWarning):
    """Some dimensions of the code say nothing about the row."""


class VanishedNoiseWarning(LatentWarning):
    """Posteriors are so narrow that the model is a deterministic autoencoder."""


class SaturatedInformationWarning(LatentWarning):
    """The mutual information of row and code is at its ceiling, the log of the rows."""


class MissingGenesWarning(UserWarning):
    """New cells lack some of the genes a model was fitted to."""
