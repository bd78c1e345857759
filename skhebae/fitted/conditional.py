"""Rows drawn given the values of some features, by importance resampling of codes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skhebae.data import find_code
from skhebae.exceptions import FewCodesWarning, warn_caller

if TYPE_CHECKING:
    from skhebae.fitted.autoencoder import FittedAutoencoder

FloatArray = NDArray[np.float64]

#: Codes that are drawn: at least, and for each row that is wanted.
LEAST_CODES, CODES_PER_ROW = 10_000, 100

#: With fewer codes that count, rows repeat codes, and a warning says so.
FEW_CODES = 30


def find_given(fitted: FittedAutoencoder, given: Mapping[Any, Any]) -> FloatArray:
    """Return a row with the given values, NaN elsewhere, (1, n_columns).

    Raises
    ------
    TypeError, ValueError
        If `given` is empty, or names a column or category that there is not.
    """
    if not isinstance(given, Mapping) or len(given) == 0:
        raise TypeError(f"given={given!r} must map names of columns to values: {{'age': 40}}.")
    if fitted.likelihood.needs_totals:
        raise ValueError(
            "given= is not for counts, whose features share a total. Draw rows, and select some."
        )
    columns = fitted.columns
    width = fitted.n_features if columns is None else len(columns)
    row = np.full((1, width), np.nan)
    for name, value in given.items():
        if columns is not None:
            row[0, columns.index(name)] = find_code(columns, name, value)
            continue
        if not isinstance(value, Real) or not np.isfinite(float(value)):
            raise ValueError(f"given= has {value!r} for {name!r}, which is no finite number.")
        row[0, find_feature(fitted, name)] = float(value)
    return row


def find_feature(fitted: FittedAutoencoder, name: Any) -> int:
    """Return the place of a feature by its name, or by its place.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = [] if fitted.names is None else fitted.names.tolist()
    if name in names:
        return int(names.index(name))
    if isinstance(name, int | np.integer) and 0 <= name < fitted.n_features:
        return int(name)
    known = ", ".join(map(repr, names[:10])) if names else f"0 to {fitted.n_features - 1}"
    raise ValueError(f"given= has {name!r}, which is none of the features of fit: {known}.")


def resample_codes(
    fitted: FittedAutoencoder,
    codes: NDArray[np.float32],
    row: FloatArray,
    n_samples: int,
    rng: np.random.RandomState,
    batch: ArrayLike | str | None,
) -> NDArray[np.float32]:
    """Return draws from ``p(z | given)``, out of draws from p(z), (n_samples, d).

    With weights ``p(given | z)``, and one random number for all draws, which leaves each code as
    often as its weight says, to within one.

    Warns
    -----
    FewCodesWarning
        If few codes count.
    """
    standardised = torch.from_numpy(fitted.scaling.standardise(row))
    mask = ~standardised.isnan()
    x, mask = (part.to(fitted.model.device) for part in (standardised.nan_to_num(nan=0.0), mask))

    def log_weight(parameter: Tensor) -> Tensor:
        shape = parameter.shape
        return fitted.likelihood.log_prob(x.expand(shape), parameter, mask.expand(shape))

    log_weights = fitted.map_parameters(codes, log_weight, batch).astype(np.float64)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    n_effective = 1.0 / np.square(weights).sum()
    if n_effective < FEW_CODES:
        warn_caller(
            f"Of {len(codes)} codes drawn, only about {n_effective:.0f} go with the values of "
            "given=, which are rare together under the model. Rows repeat these codes.",
            FewCodesWarning,
        )
    places = (rng.uniform() + np.arange(n_samples)) / n_samples
    chosen = np.searchsorted(np.cumsum(weights), places).clip(max=len(codes) - 1)
    drawn: NDArray[np.float32] = codes[rng.permutation(chosen)]
    return drawn
