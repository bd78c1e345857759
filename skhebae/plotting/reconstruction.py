"""Plots of rows with their reconstructions, interpolations and samples."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from skhebae.estimators.recognise import as_table
from skhebae.plotting._common import check_estimator, check_matplotlib
from skhebae.plotting._rows import Array, Rows, draw_images, draw_profiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from skhebae.plotting._common import AxesLike


class ReconstructionDisplay:
    """Originals, reconstructions, interpolations and samples of a model.

    With `image_shape`, rows are drawn as images: one panel per kind of row, all
    on the grey or colour range of the originals. Without it, rows are drawn as
    profiles with the features along the horizontal axis: one panel per row with
    its reconstruction, one per interpolation and one for all samples. Use
    `ReconstructionDisplay.from_estimator` to create a display.

    Parameters
    ----------
    originals : array-like of shape (n_rows, n_features)
        Rows to compare with their reconstructions.
    reconstructions : array-like of shape (n_rows, n_features)
        The same rows, encoded and decoded.
    interpolations : array-like of shape (n_interpolations, n_steps, n_features), default=None
        Decoded points on the line between the codes of rows 0 and 1, of rows 2
        and 3, and so on.
    samples : array-like of shape (n_samples, n_features), default=None
        Generated rows.
    image_shape : tuple (height, width) or (height, width, 3), default=None
        Shape of the image that a row holds; None draws profiles.

    Attributes
    ----------
    ax_ : ndarray of Axes
        Axes of the panels.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    LatentDisplay : The codes of rows.

    Examples
    --------
    >>> from skhebae.plotting import ReconstructionDisplay
    >>> rows = [[0.0, 1.0, 2.0, 1.0], [2.0, 1.0, 0.0, 0.0]]
    >>> display = ReconstructionDisplay(rows, rows, image_shape=(2, 2)).plot()
    >>> [axis.get_title(loc="left") for axis in display.ax_]
    ['originals', 'reconstructions']
    """

    ax_: NDArray[np.object_]
    figure_: Figure | SubFigure

    def __init__(
        self,
        originals: ArrayLike,
        reconstructions: ArrayLike,
        interpolations: ArrayLike | None = None,
        samples: ArrayLike | None = None,
        *,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.originals = np.asarray(originals)
        self.reconstructions = np.asarray(reconstructions)
        if self.originals.ndim != 2 or self.originals.shape != self.reconstructions.shape:
            raise ValueError(
                f"originals has shape {self.originals.shape} and reconstructions "
                f"{self.reconstructions.shape}. Both must have shape (n_rows, n_features)."
            )
        n_features = self.originals.shape[1]
        none = np.empty((0, 1, n_features))
        self.interpolations = none if interpolations is None else np.asarray(interpolations)
        self.samples = none[:, 0] if samples is None else np.asarray(samples)
        for name in ("interpolations", "samples"):
            if getattr(self, name).shape[-1] != n_features:
                raise ValueError(
                    f"{name} has rows of {getattr(self, name).shape[-1]} features, but originals "
                    f"has rows of {n_features}. Pass rows with the same features."
                )
        self.image_shape = check_image_shape(image_shape, n_features)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,
        *,
        image_shape: Sequence[int] | None = None,
        n_rows: int = 10,
        n_interpolations: int = 2,
        n_samples: int = 10,
        random_state: int | np.random.RandomState | None = None,
        ax: AxesLike | None = None,
    ) -> Self:
        """Encode, decode, interpolate and sample rows, and draw them.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator. With ``n_samples=0``, any transformer with an inverse
            is accepted, for example PCA or a pipeline.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Table whose first `n_rows` rows are drawn.
        image_shape : tuple (height, width) or (height, width, 3), default=None
            Shape of the image that a row holds; None draws profiles.
        n_rows : int, default=10
            Number of rows to draw.
        n_interpolations : int, default=2
            Number of lines in code space along which to decode points: from row 0
            to row 1, from row 2 to row 3, and so on. Each line has `n_rows`
            points, and at least 5.
        n_samples : int, default=10
            Number of rows to generate.
        random_state : int, RandomState instance or None, default=None
            Seed of the samples.
        ax : array of Axes, default=None
            Axes to draw on; None creates a new figure. Images need one Axes per
            kind of row, 2 to 4 in all; profiles need ``n_rows + n_interpolations``,
            and one more for samples.

        Returns
        -------
        ReconstructionDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator lacks a method that is needed; a pipeline, for example,
            cannot sample.
        ValueError
            If a number is invalid, there are too few rows, `image_shape` does not
            match them, or `ax` holds the wrong number of axes.
        """
        check_matplotlib(cls.__name__)
        needed = ["transform", "inverse_transform", *(["sample"] if n_samples else [])]
        check_estimator(estimator, needed, cls.__name__)
        check_counts(n_rows, n_interpolations, n_samples)
        rows = first_rows(X, n_rows)
        codes = np.asarray(estimator.transform(rows))
        return cls(
            as_dense(rows),
            estimator.inverse_transform(codes),
            interpolate(estimator, codes, n_interpolations, max(n_rows, 5)),
            estimator.sample(n_samples, random_state=random_state) if n_samples else None,
            image_shape=image_shape,
        ).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : array of Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        ReconstructionDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` does not hold one Axes per panel.
        """
        check_matplotlib(type(self).__name__)
        rows = Rows(self.originals, self.reconstructions, self.interpolations, self.samples)
        if self.image_shape is None:
            self.ax_ = draw_profiles(rows, ax, type(self).__name__)
        else:
            self.ax_ = draw_images(rows, self.image_shape, ax, type(self).__name__)
        self.figure_ = self.ax_[0].figure
        return self


def check_image_shape(image_shape: Sequence[int] | None, n_features: int) -> tuple[int, ...] | None:
    """Check that rows can be reshaped to grey or colour images, and return the shape."""
    if image_shape is None:
        return None
    asked = list(image_shape) if isinstance(image_shape, Sequence | np.ndarray) else []
    shape = tuple(int(size) for size in asked if isinstance(size, Integral) and size > 0)
    if len(shape) != len(asked) or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(
            f"image_shape={image_shape!r} must be (height, width) or (height, width, 3)."
        )
    if np.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} has {np.prod(shape)} values, but rows have {n_features} "
            "features. Pass a shape with as many values, or None to draw profiles."
        )
    return shape


def check_counts(n_rows: int, n_interpolations: int, n_samples: int) -> None:
    """Check the numbers of rows, interpolations and samples to draw."""
    wanted = {"n_rows": n_rows, "n_interpolations": n_interpolations, "n_samples": n_samples}
    for name, value in wanted.items():
        least = 1 if name == "n_rows" else 0
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer >= {least}.")
    if 2 * n_interpolations > n_rows:
        raise ValueError(
            f"n_interpolations={n_interpolations} needs 2 rows each, but n_rows={n_rows}. Pass "
            f"n_interpolations={n_rows // 2} or fewer, or a larger n_rows."
        )


def first_rows(X: Any, n_rows: int) -> Any:
    """Return the first rows in their own container, so that feature names can be checked."""
    table = X if hasattr(X, "shape") else np.asarray(X)
    if table.shape[0] < n_rows:
        raise ValueError(
            f"X has {table.shape[0]} rows, but n_rows={n_rows} are to be drawn. Pass more rows or "
            "a smaller n_rows, which must be at least twice n_interpolations."
        )
    if hasattr(table, "tocsr"):  # Not every sparse format can be sliced.
        table = table.tocsr()
    return table.iloc[:n_rows] if hasattr(table, "iloc") else table[:n_rows]


def as_dense(rows: Any) -> NDArray[np.float64]:
    """Convert rows in any container to a dense array."""
    dense = rows.toarray() if hasattr(rows, "toarray") else as_table(rows)
    return np.asarray(dense, dtype=np.float64)


def interpolate(
    estimator: BaseEstimator, codes: Array, n_interpolations: int, n_steps: int
) -> Array | None:
    """Decode points on the lines between codes 0 and 1, 2 and 3, and so on."""
    if not n_interpolations:
        return None
    starts, ends = codes[: 2 * n_interpolations : 2], codes[1 : 2 * n_interpolations : 2]
    weight = np.linspace(0, 1, n_steps)[:, None]
    lines = (1 - weight) * starts[:, None] + weight * ends[:, None]
    decoded = np.asarray(estimator.inverse_transform(lines.reshape(-1, codes.shape[1])))
    return decoded.reshape(n_interpolations, n_steps, -1)
