"""Standardisation, measured before training one chunk of rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from skhebae.data.columns import Columns
from skhebae.data.moments import FeatureMoments
from skhebae.data.table import Matrix, Table
from skhebae.files import check_floats
from skhebae.process import cached_property

#: A feature is divided by the larger of its standard deviation and this fraction of its range.
#: The standard deviation alone would blow a rare value (a border pixel lit in one image of a
#: thousand) up to tens of units, where it dominates the encoder for every row that has it.
RANGE_FRACTION = 0.3

#: Unless the standard deviations of all features differ by less than this factor: the caller has
#: standardised the table, and says thereby how much each feature counts.
SAME_DEVIATION = 1.2

#: Standardised values beyond this have squares that float32 cannot sum.
LARGEST = 1e15

#: Largest step between two neighbouring numbers of float32, in units of a feature, that may
#: separate restored values; and how many units from the centre they may lie.
COARSEST_STEP, FURTHEST = 1e-3, 1e3

#: Offsets of up to this many units are subtracted from float32 values in float32.
SMALL_OFFSET = 16.0

#: Units that lie between this and its inverse leave single precision enough room, whose smallest
#: number with all digits is 1e-38.
SMALL_UNIT = 1e-30

#: Relative difference of a number from the same number in single precision.
SINGLE_ROUNDING = float(np.finfo(np.float32).eps)


class Scaling(ABC):
    """The map between a caller's rows and the rows that networks see.

    A frozen dataclass whose fields are arrays: a saved model holds just those.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
        Centre and unit of the encoder's input.
    constant : ndarray of int
        Features that have not varied so far, which the encoder does not see. None by default.
    may_miss : bool
        Whether `standardise` may return NaN, which then marks missing entries.
    columns : Columns or None
        Those of a mixed frame, of which rows then are the numbers.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    constant: NDArray[np.intp] = np.empty(0, dtype=np.intp)
    may_miss: ClassVar[bool] = False
    columns: Columns | None = None

    @classmethod
    @abstractmethod
    def measure(cls, table: Table) -> Self:
        """Measure a validated table, together with those of all other processes."""

    def check(self, n_features: int) -> None:
        """Check fields that come from a file; a subclass adds those of its own.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        check_floats(self.location, "location", (n_features,))
        check_floats(self.scale, "scale", (n_features,), above=0.0)
        constant = np.asarray(self.constant)
        if constant.ndim != 1 or constant.dtype.kind != "i":
            raise ValueError(f"constant has dtype {constant.dtype}, not the places of features")
        if len(constant) and not 0 <= constant.min() <= constant.max() < n_features:
            raise ValueError(f"constant names features beyond the {n_features} that there are")

    def pack(self) -> dict[str, Any]:
        """Return the fields, as JSON values and arrays."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Self:
        """Invert `pack`."""
        return cls(**packed)

    @abstractmethod
    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map rows to dense float32 rows for the networks; always return a new array."""

    @abstractmethod
    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Map rows back to the original units: float32, or float64 where that loses digits."""

    def restore_differences(self, standardised: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map differences between rows (n, p) back to the original units."""
        single = standardised.astype(np.float32)
        difference: NDArray[np.float64] = self.restore(single).astype(np.float64)
        return difference - self.restore(np.zeros_like(single))

    def take_in(self, table: Table, n_rows: float) -> tuple[Self, NDArray[np.intp]]:
        """Measure the features that varied in none of `n_rows` rows and do in those of a table.

        Returns
        -------
        scaling : Scaling
            The scaling itself, if there are none.
        features : ndarray of int
            Which they are; the same in all processes.
        """
        return self, self.constant[:0]

    def with_features(
        self, features: NDArray[np.intp], measured: Scaling, names: Sequence[str]
    ) -> Self:
        """Return a copy with other values for some features, which are no longer constant.

        Parameters
        ----------
        features : ndarray of int
        measured : Scaling
            Of these features alone.
        names : sequence of str
            Fields to take from it.
        """
        if len(features) == 0:
            return self
        parts = {name: getattr(self, name).copy() for name in names}
        for name, values in parts.items():
            values[features] = getattr(measured, name)
        parts["constant"] = np.setdiff1d(self.constant, features)
        return replace(self, **parts)  # type: ignore[type-var]

    @property
    def distance_units(self) -> NDArray[np.float64] | None:
        """What a standardised value of each feature is large in comparison with.

        In multiples of these `watched` tells which rows are far outside; of None, none are.
        """
        return None

    def log_size(
        self,
        n_rows: int,
        totals: Callable[..., NDArray[np.float64]] | None,
        size_factor: NDArray[np.float64] | None,
    ) -> NDArray[np.float64] | None:
        """Return the logarithm of each row's exposure, (n_rows,); None if rows have none.

        Parameters
        ----------
        n_rows : int
        totals : callable or None
            Returns row totals, which are the exposures where no size factors are given. It may be
            given the share of each feature in them, which missing entries are to have.
        size_factor : ndarray of shape (n_rows,) or None

        Raises
        ------
        ValueError
            If size factors are given and rows have no exposure.
        """
        if size_factor is not None:
            raise ValueError(
                "size_factor= is the exposure of counts, which this likelihood does not have. Use "
                "likelihood='negative_binomial', or leave size_factor= out."
            )
        return None

    def size_factors(
        self, totals: Callable[..., NDArray[np.float64]]
    ) -> NDArray[np.float64] | None:
        """Return size factors that decode rows at their own totals; None if rows have none."""
        return None

    def draw_size_factors(
        self, n_rows: int, rng: np.random.RandomState, batch: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64] | None:
        """Draw size factors for sampled rows of some batches; None if rows have none."""
        return None


@dataclass(frozen=True)
class FeatureScaling(Scaling):
    """The map ``x -> (x - location) / scale`` and its inverse.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
    variance : ndarray of shape (n_features,), float64
        Variance of the rows on the standardised scale; 1 for constant features.
    constant : ndarray of int
        Features that have not varied so far.
    """

    may_miss: ClassVar[bool] = True

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    variance: NDArray[np.float64]
    # Files of version 0.1 do not say.
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @classmethod
    def measure(
        cls, table: Table, transform: Callable[[Matrix], Matrix] | None = None
    ) -> FeatureScaling:
        """Measure the tables of all processes in one pass, a chunk at a time.

        Parameters
        ----------
        table : Table
        transform : callable, optional
            Applied to each chunk of rows first.

        Raises
        ------
        ValueError
            If the variance of a feature overflows, or a feature has no value at all.
        """
        own = FeatureMoments.measure(table.X, transform, weight=table.weight)
        moments = reduce(FeatureMoments.merge, table.group.gather(own))
        return cls.from_moments(moments, is_whole=transform is None)

    @classmethod
    def from_moments(
        cls,
        moments: FeatureMoments,
        columns: NDArray[np.intp] | None = None,
        *,
        is_whole: bool = False,
    ) -> FeatureScaling:
        """Choose location and scale.

        Parameters
        ----------
        moments : FeatureMoments
        columns : ndarray of int, optional
            Columns of the table, by which messages name features.
        is_whole : bool, optional
            Whether these are all features as the caller gave them, who may have standardised them.

        Raises
        ------
        ValueError
            If the variance of a feature overflows, or a feature has no value at all.
        """
        low, high = moments.low, moments.high
        if (moments.n_rows == 0.0).any():
            empty = int(np.flatnonzero(moments.n_rows == 0.0)[0])
            column = empty if columns is None else int(columns[empty])
            raise ValueError(f"X has no value in column {column}, only NaN. Remove it.")
        spread = np.sqrt(moments.variance)
        if not np.isfinite(spread).all():
            worst = int(np.flatnonzero(~np.isfinite(spread))[0])
            column = worst if columns is None else int(columns[worst])
            raise ValueError(
                f"X has values in column {column} up to {high[worst]:.4g}, whose variance "
                "overflows. Use a larger unit."
            )
        constant = moments.is_constant()
        deviation = np.where(constant, 1.0, spread)
        varying = deviation[~constant]
        scale = np.maximum(deviation, RANGE_FRACTION * (high - low))
        if is_whole and len(varying) and varying.max() <= SAME_DEVIATION * varying.min():
            scale = deviation.copy()
        # Beside a large offset one that seems constant may vary by more, which must not outweigh
        # all other features.
        scale[constant] = np.maximum(1.0, spread[constant])
        # The running mean of a constant is off by rounding.
        location = np.where(low == high, low, moments.mean)
        variance = np.where(constant, 1.0, np.square(deviation / scale))
        return cls(location, scale, variance, np.flatnonzero(constant))

    def take_in(self, table: Table, n_rows: float) -> tuple[Self, NDArray[np.intp]]:
        """Measure the features that vary for the first time, over all rows so far."""
        features, measured = first_variation(self, table, n_rows)
        return self.with_features(features, measured, ("location", "scale", "variance")), features

    @cached_property
    def distance_units(self) -> NDArray[np.float64]:
        """1, but for constant features, whose unit is not known, the largest of units."""
        units = np.ones(len(self.scale))
        others = np.delete(self.scale, self.constant)
        units[self.constant] = others.max() if len(others) else 1.0
        return units

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        check_floats(self.variance, "variance", (n_features,), above=0.0)

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map rows to dense, standardised float32 rows; always return a new array.

        Where an offset is large (a time stamp), it is subtracted in float64, so that it does not
        cost its feature the digits that vary.
        """
        # Not sparse.issparse: scipy's stubs narrow to a type without toarray.
        dense: NDArray[Any] = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        narrow = self._narrow if dense.dtype == np.float32 else None
        with np.errstate(over="ignore"):
            if narrow is None:
                wide: NDArray[Any] = (dense - self.location) / self.scale
            else:
                wide = dense - narrow[0]
                wide *= narrow[1]
            result: NDArray[np.float32] = wide.astype(np.float32, copy=False)
        if may_exceed(result, LARGEST) and (np.abs(wide) > LARGEST).any():
            row, column = np.unravel_index(np.nanargmax(np.abs(wide)), wide.shape)
            raise ValueError(
                f"X has the value {dense[row, column]:.4g} in column {column}, more than "
                f"{LARGEST:.0e} standard deviations from the rows of fit. Remove such rows."
            )
        return result

    @cached_property
    def _narrow(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Location and inverse scale in float32; None where that would cost digits."""
        scale = self.scale
        if (np.abs(self.location) > SMALL_OFFSET * scale).any():
            return None
        if scale.min() < SMALL_UNIT or scale.max() > 1.0 / SMALL_UNIT:
            return None
        return self.location.astype(np.float32), (1.0 / scale).astype(np.float32)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Map rows back to the original units, in `restored_dtype`."""
        wide: NDArray[np.float64] = standardised * self.scale + self.location
        return wide.astype(self.restored_dtype, copy=False)

    def restore_differences(self, standardised: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map differences between rows (n, p) back, with all their digits."""
        difference: NDArray[np.float64] = standardised * self.scale
        return difference

    @cached_property
    def restored_dtype(self) -> np.dtype[Any]:
        """float32, or float64 where float32 cannot hold the spread of a feature.

        Because the feature's offset is large (a time stamp in seconds, of events a minute apart),
        or because its unit is at the ends of the range of float32.
        """
        single = np.finfo(np.float32)
        magnitude = np.abs(self.location)
        steps = np.maximum(single.eps * magnitude, float(single.tiny))
        fits = (steps <= COARSEST_STEP * self.scale) & (
            magnitude + FURTHEST * self.scale <= float(single.max)
        )
        fits[self.constant] = True  # there is no spread
        return np.dtype(np.float32 if fits.all() else np.float64)


def may_exceed(values: NDArray[np.float32], bound: float) -> bool:
    """Whether some number may lie beyond `bound`, by one pass that never misses one."""
    flat = torch.from_numpy(values.reshape(-1))
    # Not numpy's product: its threads and torch's would compete for the cores.
    return not float(torch.dot(flat, flat)) <= bound * bound


def first_variation(
    scaling: Scaling,
    table: Table,
    n_rows: float,
    transform: Callable[[Matrix], Matrix] | None = None,
) -> tuple[NDArray[np.intp], FeatureScaling]:
    """Find the constant features of a scaling that vary in a table, and measure these alone.

    The `n_rows` rows before, which all had the constants, count too. The result is the same in
    all processes.
    """
    constant = scaling.constant
    at = scaling.location[constant]
    before = FeatureMoments(np.full(len(at), float(n_rows)), at, np.zeros_like(at), at, at)
    if len(constant) == 0:
        return constant, FeatureScaling.from_moments(before)
    own = FeatureMoments.measure(table.X, transform, constant, table.weight)
    new = reduce(FeatureMoments.merge, table.group.gather(own))
    moments = before.merge(new)
    # The same constant, once in single precision and once in double.
    same = (new.low == new.high) & (np.abs(new.low - at) <= SINGLE_ROUNDING * np.abs(at))
    varies = ~(moments.is_constant() | same)
    some = FeatureMoments(*(part[varies] for part in moments))
    return constant[varies], FeatureScaling.from_moments(some, constant[varies])
