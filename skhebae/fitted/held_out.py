"""Scores of rows that a fit has not seen, each with its standard error."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae.data import Matrix
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.novelty import row_value
from skhebae.novelty import ROW_SCORES
from skhebae.posterior import jacobian_numbers


class RowScore(NamedTuple):
    """Mean of a score over rows.

    Attributes
    ----------
    name, unit : str
    mean, error : float
        The error is the standard error of the mean; NaN for one row, or if the mean is infinite.
    """

    name: str
    unit: str
    mean: float
    error: float

    @classmethod
    def of(cls, name: str, unit: str, values: NDArray[Any]) -> RowScore:
        """Average the scores of rows, (n,)."""
        numbers = values.astype(np.float64)
        mean = float(numbers.mean())
        if len(numbers) < 2 or not np.isfinite(numbers).all():
            return cls(name, unit, mean, float("nan"))
        return cls(name, unit, mean, float(numbers.std(ddof=1) / len(numbers) ** 0.5))

    @property
    def text(self) -> str:
        """The mean with its standard error and unit."""
        error = "" if np.isnan(self.error) else f" ± {self.error:.2g}"
        return f"{self.mean:.4g}{error} {self.unit}".rstrip()


def held_out_scores(
    fitted: FittedAutoencoder,
    X: Matrix,
    batch: ArrayLike | None = None,
    size_factor: ArrayLike | None = None,
) -> list[RowScore]:
    """Score validated rows.

    Parameters
    ----------
    fitted : FittedAutoencoder
    X, batch, size_factor
        As of `FittedAutoencoder.score`.
    """
    sides = (batch, size_factor)
    errors = fitted.map_minibatches(
        partial(row_value, fitted, ROW_SCORES["reconstruction_error"]),
        X,
        *sides,
        numbers_per_row=jacobian_numbers(fitted.model),
    )
    nats = "nats per row"
    return [
        RowScore.of("score (lower bound of log p(x))", nats, fitted.score(X, *sides)),
        RowScore.of("ELBO", nats, fitted.elbo(X, *sides)),
        RowScore.of("reconstruction, E log p(x | z)", nats, fitted.expected_log_prob(X, *sides)),
        RowScore.of("squared reconstruction error", "per row, in standardised units", errors),
    ]
