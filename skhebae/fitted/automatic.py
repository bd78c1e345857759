"""The rules behind parameters that are "auto"."""

from __future__ import annotations

import torch

from skhebae.model import Autoencoder
from skhebae.networks import Encoder

#: `max_iter="auto"` takes between the first and the second of these numbers of optimiser
#: steps, and half-way at a number of rows that the likelihood knows...
AUTO_STEPS = (400, 6000)
#: ...and never shows a row to the network less often than this.
AUTO_MIN_EPOCHS = 5

#: The same for networks that start as principal component analysis, which have less to learn.
LINEAR_STEPS = (125, 1900)

#: By how many times as many where rows have missing entries: each is seen with others hidden.
MISSING_STEPS = 1.5

#: Smallest and largest minibatch of `batch_size="auto"`, and the number of minibatches per
#: epoch that it aims at between them.
AUTO_BATCH = (32, 128)
AUTO_MINIBATCHES = 8

#: The same for networks that start as principal component analysis.
LINEAR_BATCH = (64, 256)
LINEAR_MINIBATCHES = 4
#: `learning_rate_init="auto"`, and for networks that start as principal component analysis.
AUTO_RATE, LINEAR_RATE = 0.005, 0.01

#: `input_dropout="auto"` where rows of `fit` have missing entries.
AUTO_DROPOUT = 0.2

#: `weight_decay="auto"`, multiplied by the rows of the table; and its largest value beside a linear
#: path, with which the steps of tiny tables are still stable.
DECAY_ROWS, LARGEST_DECAY = 400.0, 10.0

#: Whatever the table, a minibatch has this many rows per latent dimension.
AUTO_ROWS_PER_COMPONENT = 4


def auto_epochs(
    n_rows: int,
    batch_size: int,
    half_rows: int,
    *,
    starts_linear: bool,
    n_taken: int | None = None,
    has_missing: bool = False,
) -> int:
    """Return the epochs that `max_iter="auto"` stands for.

    The number of steps rises with the number of rows and saturates: with more, a network
    over-fits a small table and learns nothing more from a large one.

    Parameters
    ----------
    n_rows, batch_size : int
        Rows of the table, and of a minibatch in all processes.
    half_rows : int
        `Likelihood.half_rows`.
    starts_linear : bool
        Whether networks start as principal component analysis.
    n_taken : int, optional
        Rows that an epoch takes, where weights make them stand for `n_rows`.
    has_missing : bool
        Whether rows have missing entries.
    """
    low, high = LINEAR_STEPS if starts_linear else AUTO_STEPS
    steps = low + (high - low) * n_rows / (n_rows + half_rows)
    if has_missing and starts_linear:
        steps = MISSING_STEPS * steps
    n_taken = n_rows if n_taken is None else n_taken
    return max(AUTO_MIN_EPOCHS, round(steps / max(1, n_taken // batch_size)))


def auto_batch_size(n_rows: int, n_components: int, *, starts_linear: bool) -> int:
    """Return the rows that `batch_size="auto"` stands for.

    Small tables gain from noisier steps. And a minibatch with fewer rows than the code has
    dimensions sees its covariance inflated in the few directions that it spans, so that the codes
    of the whole table come out too narrow.
    """
    low, high = LINEAR_BATCH if starts_linear else AUTO_BATCH
    n_minibatches = LINEAR_MINIBATCHES if starts_linear else AUTO_MINIBATCHES
    rows = min(high, max(low, n_rows // n_minibatches))
    return max(rows, AUTO_ROWS_PER_COMPONENT * n_components)


def auto_learning_rate(*, starts_linear: bool) -> float:
    """Return the rate that `learning_rate_init="auto"` stands for."""
    return LINEAR_RATE if starts_linear else AUTO_RATE


def auto_weight_decay(n_rows: int, largest: float, *, starts_linear: bool) -> float:
    """Return the decay that `weight_decay="auto"` stands for.

    A Gaussian prior on the weights: under a loss averaged over n rows its strength is
    proportional to 1/n. Beside a linear path it takes the place of input noise.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    largest : float
        `Likelihood.largest_decay`, of networks without a linear path.
    starts_linear : bool
        Whether networks start as principal component analysis.
    """
    return min(LARGEST_DECAY if starts_linear else largest, DECAY_ROWS / n_rows)


def auto_input_noise(model: Autoencoder, n_rows: int, *, starts_linear: bool) -> float:
    """Return the noise that `input_noise="auto"` stands for.

    None beside a linear path, where weight decay takes its place. Otherwise
    constant while the encoder has more weights than there are rows, so that it could learn them
    by heart, and fading in proportion beyond: with enough rows, the estimator is the plain
    method. A linear encoder learns a subspace, which needs no such help, and gets none.
    """
    if starts_linear:
        return 0.0
    linear = (torch.nn.Linear, torch.nn.Identity)
    # Nobody can tell from its layers what a user's module computes.
    if isinstance(model.encoder, Encoder) and all(
        isinstance(layer, linear) for layer in model.encoder.layers
    ):
        return 0.0
    n_weights = sum(p.numel() for p in model.encoder.parameters() if p.ndim > 1)
    return model.likelihood.input_noise * min(1.0, n_weights / n_rows)
