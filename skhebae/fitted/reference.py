"""Rows of a fit in a few hundred points, and the distance of other rows to the nearest of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.files import check_array
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.codes import WARNING_FILTERS
from skhebae.novelty import code_of
from skhebae.process import openmp

Float32Array = NDArray[np.float32]

#: Points, at most and per row: each is the mean of two rows or more.
MOST_POINTS, ROWS_PER_POINT = 500, 2

#: Rows behind the points, at most, and their numbers, at most.
MOST_ROWS, MOST_NUMBERS = 5000, 20_000_000

#: Steps of k-means. Points only have to lie where rows are.
STEPS = 20

#: Residuals do not count where the spread of their squared lengths is so many times that of codes.
DROWNED = 10.0

#: Which of the nearest points counts, with residuals and without. Codes alone are few numbers, and
#: the nearest of many points is near by chance.
NEIGHBOUR, NEIGHBOUR_OF_CODES = 1, 5

#: Smallest scale of a code whose component decodes to nothing.
TINY = 1e-30


class Nearest(NamedTuple):
    """The point of a `Reference` nearest to each row.

    Attributes
    ----------
    point : Tensor of int of shape (n,)
        Its place among the points.
    squares : Tensor of shape (n, d + q)
        Squared differences per component and feature, in double; their sum is the squared
        distance.
    """

    point: Tensor
    squares: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Means of groups of at least two rows of a fit, as `describe` describes them.

    Attributes
    ----------
    points : ndarray of shape (m, d + q), float32
    residual_weight : float
        Factor of residuals: 1, or less where their squared length varies more from row to row of
        the fit than that of codes, and 0 where it varies ten times more.
    variances : ndarray of shape (m, d), float32, or None
        Geometric means of the posterior variances of whitened codes in each group.
    """

    points: Float32Array
    residual_weight: float = 1.0
    variances: Float32Array | None = None

    def check(self, fitted: FittedAutoencoder) -> None:
        """Check arrays that come from a file.

        Raises
        ------
        ValueError
            Naming what is wrong.
        """
        n_points, d = len(np.atleast_1d(self.points)), fitted.n_components
        single = np.dtype(np.float32)
        check_array(self.points, "the reference", (n_points, d + fitted.n_features), single)
        if n_points == 0 or not np.isfinite(self.points).all():
            raise ValueError("the reference has no points, or some that are not finite")
        if self.variances is not None:
            check_array(self.variances, "the variances of codes", (n_points, d), single)
            if not (np.isfinite(self.variances) & (self.variances > 0.0)).all():
                raise ValueError("the variances of codes are not positive numbers")

    @property
    def neighbour(self) -> int:
        """Which of the points nearest to a row counts, from 1."""
        wanted = NEIGHBOUR if self.residual_weight > 0.0 else NEIGHBOUR_OF_CODES
        return min(wanted, len(self.points))

    def nearest(self, described: Tensor, mask: Tensor | None) -> Nearest:
        """Find the nearest point to each described row, or the k-th nearest that `neighbour` says.

        Where entries are missing, the observed ones stand for all.

        Parameters
        ----------
        described : Tensor of shape (n, d + q)
        mask : Tensor of bool of shape (n, q), optional
            True where an entry is observed.
        """
        points = torch.from_numpy(np.array(self.points)).to(described)
        weight = None
        if mask is not None:
            weight = entry_weights(mask, described.shape[1]).to(described)
        return find_point(described, points, weight, self.neighbour)


def find_point(rows: Tensor, points: Tensor, weight: Tensor | None = None, k: int = 1) -> Nearest:
    """Find the k-th nearest of points (m, D) to each of rows (n, D).

    Entries of a `weight` (n, D) count by it.
    """
    if weight is None:
        gaps = points.square().sum(dim=1) - 2.0 * rows @ points.T
    else:
        gaps = weight @ points.square().T - 2.0 * (weight * rows) @ points.T
    # Differences of large numbers are exact enough to choose a point, and not to be the result.
    gaps = gaps.nan_to_num(nan=torch.inf)
    # Both find the same for k = 1, and the first is quicker.
    index = gaps.argmin(dim=1) if k == 1 else gaps.kthvalue(k, dim=1).indices
    squares = (rows.double() - points[index].double()).square()
    return Nearest(index, squares if weight is None else weight * squares)


def entry_weights(mask: Tensor, width: int) -> Tensor:
    """Return 1 for components, and for entries 0 or the share of all per observed one, (n, d + q).

    Parameters
    ----------
    mask : Tensor of bool of shape (n, q)
    width : int
        d + q.
    """
    q = mask.shape[1]
    share = q / mask.sum(dim=1, keepdim=True).clamp_min(1)
    of_codes = torch.ones(len(mask), width - q, dtype=share.dtype, device=mask.device)
    return torch.cat([of_codes, mask * share], dim=1)


def code_scale(fitted: FittedAutoencoder, residual_weight: float) -> NDArray[np.float64]:
    """Return the units of whitened principal codes in a description, (d,).

    The root of the deviation of each, so halfway between codes whose distances are those of rows
    and codes that all deviate alike. Without residuals, whose noise is the reason to leave that
    of the table, the deviation.
    """
    if fitted.axes is None:
        return np.ones(fitted.n_components)
    natural = fitted.axes.rescaled(False).scale
    scale: NDArray[np.float64] = np.sqrt(natural) if residual_weight > 0.0 else natural
    return scale.clip(min=TINY)


def code_matrix(fitted: FittedAutoencoder, residual_weight: float) -> NDArray[np.float64]:
    """Return the matrix from codes of the model to those of a description, (d, d)."""
    scale = code_scale(fitted, residual_weight)
    if fitted.axes is None:
        return np.eye(len(scale))
    return replace(fitted.axes, scale=scale).outward


def describe(
    fitted: FittedAutoencoder,
    minibatch: Minibatch,
    residual_weight: float,
    code: Tensor | None = None,
) -> Tensor:
    """Return scaled code and weighted residual of each row side by side, (n, d + q).

    `code` (n, d), of the model, is that of `code_of` by default.
    """
    if code is None:
        code = code_of(fitted.model, minibatch)
    scaled = code @ torch.from_numpy(code_matrix(fitted, residual_weight)).to(code)
    if residual_weight == 0.0:
        return torch.cat([scaled, torch.zeros_like(minibatch.x)], dim=1)
    residual = fitted.likelihood.residual(minibatch.x, fitted.model.decode_rows(code, minibatch))
    if minibatch.mask is not None:
        residual = residual.where(minibatch.mask, 0.0)
    return torch.cat([scaled, residual_weight * residual], dim=1)


def choose_weight(described: Float32Array, n_components: int) -> float:
    """Return the factor that keeps residuals from drowning codes, from 0 to 1.

    Squared lengths of residuals of thousands of features vary by their noise, and by little else.
    The factor makes those of residuals vary as those of codes, and is 0 where that would leave
    noise: counts of cells.

    Parameters
    ----------
    described : ndarray of shape (n, d + q)
        Rows of fit, with residuals of weight 1.
    n_components : int
        d.
    """
    squares = np.square(described, dtype=np.float64)
    of_codes, of_residuals = (
        part.sum(axis=1).std() for part in np.split(squares, [n_components], axis=1)
    )
    if of_residuals <= of_codes:
        return 1.0
    if of_residuals > DROWNED * of_codes:
        return 0.0
    return float(np.sqrt(of_codes / of_residuals))


def group_rows(described: Float32Array, seed: int) -> tuple[NDArray[np.intp], Float32Array]:
    """Group described rows (n, D) by k-means; return their groups (n,) and points (m, D).

    Equal rows are one row that counts as often. One that k-means leaves by itself makes a point
    with its nearest neighbour, so that no point is a row, unless all rows are equal.
    """
    _, first, place, counts = np.unique(
        described, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    # In the order of the table: that of their numbers would change with their rounding.
    order = np.argsort(first)
    distinct, counts = described[first[order]], counts[order]
    place = np.argsort(order)[place.reshape(-1)]
    n_points = max(1, min(MOST_POINTS, len(distinct) // ROWS_PER_POINT))
    with (
        config_context(array_api_dispatch=False),
        WARNING_FILTERS.held(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        means = KMeans(n_points, n_init=1, max_iter=STEPS, random_state=seed)
        with openmp().limit(limits=1):  # threads add up their parts in the order of their ends
            means.fit(distinct, sample_weight=counts)
        groups, points = means.labels_, means.cluster_centers_.astype(np.float32)
        alone = np.flatnonzero(np.bincount(groups, minlength=n_points)[groups] == 1)
        if len(alone) and len(distinct) > 1:
            neighbours = NearestNeighbors(n_neighbors=2).fit(distinct)
            pairs = neighbours.kneighbors(distinct[alone], return_distance=False)
            points[groups[alone]] = distinct[pairs].mean(axis=1)
    return groups[place], points
