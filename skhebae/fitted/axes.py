"""Principal codes: the axes in which users see codes, ordered by what they decode to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.code_map import CodeMap, CodeNoise
from skhebae.files import check_floats
from skhebae.process import cached_property

FloatArray = NDArray[np.float64]

#: Smallest scale of an unwhitened component, as a share of the largest: a component that decodes
#: to nothing can still be told from 0, and back again.
SMALLEST_SCALE = 1e-4

#: Largest deviation from orthonormal columns in a file.
ROUNDING = 1e-6


class DecoderGeometry(NamedTuple):
    """What the decoder makes of small steps from the training codes, averaged over rows.

    Attributes
    ----------
    distances : ndarray of shape (d, d)
        Metric of distances: ``B B^T`` with the slopes B (d, p) of what the encoder sees in a linear
        regression on codes, or ``E K^T K`` where the likelihood says how far codes are apart.
    information : ndarray of shape (d, d)
        ``E J^T W J`` with the likelihood's Fisher information W of its parameter.
    loadings : ndarray of shape (d, p)
        Mean change of E[x | z] per unit of each code, on the standardised scale.
    """

    distances: FloatArray
    information: FloatArray
    loadings: FloatArray

    def behind(self, code_map: CodeMap | None) -> DecoderGeometry:
        """Return the same for codes behind a map ``y = A (mu - m)``."""
        if code_map is None:
            return self
        return self.through(code_map.inverse.cpu().double().numpy())

    def through(self, back: FloatArray) -> DecoderGeometry:
        """Return the same for codes y of which ``back @ y`` are the present ones, (d, d)."""
        return DecoderGeometry(
            back.T @ self.distances @ back,
            back.T @ self.information @ back,
            back.T @ self.loadings,
        )

    def mixed(self, other: DecoderGeometry, share: float) -> DecoderGeometry:
        """Return the averages with those of other rows, which count for a `share`."""
        pairs = zip(self, other, strict=True)
        return DecoderGeometry(*((1.0 - share) * own + share * new for own, new in pairs))


@dataclass(frozen=True, eq=False)
class CodeAxes:
    """The axes of users' codes ``z = S Q^T y``, y the codes of the model.

    Q turns codes to the eigenvectors of the decoder's mean metric, by decreasing eigenvalue, as
    principal components are those of a covariance. Densities of the model are those of y. N(0, I)
    and all bounds are the same in any rotation of y, and S stays outside of them.

    Attributes
    ----------
    rotation : ndarray of shape (d, d)
        Q, orthogonal.
    scale : ndarray of shape (d,)
        Diagonal of S.
    distances, information, loadings : ndarray of shape (d, d), (d, d) and (d, p)
        The `DecoderGeometry` of whitened codes, ``S = I``.
    explained_variance_ratio : ndarray of shape (d,)
    """

    rotation: FloatArray
    scale: FloatArray
    distances: FloatArray
    information: FloatArray
    loadings: FloatArray
    explained_variance_ratio: FloatArray

    def rescaled(self, whiten: bool | str) -> Self:
        """Return the axes with the scale that the parameter `whiten` asks for."""
        metrics = (self.distances.diagonal(), self.information.diagonal())
        return replace(self, scale=choose_scale(whiten, *metrics))

    def geometry_before(self, code_map: CodeMap | None) -> DecoderGeometry:
        """Return the geometry of the encoder's own codes, before a map."""
        geometry = DecoderGeometry(self.distances, self.information, self.loadings)
        matrix = None if code_map is None else code_map.matrix.cpu().double().numpy()
        return geometry.through(self.rotation.T if matrix is None else self.rotation.T @ matrix)

    @property
    def outward(self) -> FloatArray:
        """The matrix M of ``z = y M``, (d, d)."""
        matrix: FloatArray = self.rotation * self.scale
        return matrix

    def outward_on(self, like: Tensor) -> Tensor | None:
        """Return `outward` on the device and in the precision of a tensor; None if it is I."""
        return None if self.are_trivial else torch.from_numpy(self.outward).to(like)

    def inward_on(self, like: Tensor) -> Tensor | None:
        """Return the matrix M of ``y = z M``, (d, d); None if it is I."""
        if self.are_trivial:
            return None
        return torch.from_numpy((self.rotation / self.scale).T.copy()).to(like)

    @cached_property
    def are_trivial(self) -> bool:
        """Whether users see the codes of the model."""
        return np.array_equal(self.outward, np.eye(len(self.scale)))

    @cached_property
    def whitened(self) -> Self:
        """The axes without their scale."""
        return self.rescaled(True)

    def turn(self, noise: CodeNoise) -> CodeNoise:
        """Return the noise of codes z, given that of y."""
        matrix = self.outward_on(noise.factor)
        if matrix is None:
            return noise
        return replace(noise, matrix=matrix.T if noise.matrix is None else matrix.T @ noise.matrix)

    @classmethod
    def check(cls, packed: Any, n_components: int, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError, KeyError
            Naming what is wrong.
        """
        if not isinstance(packed, dict):
            raise ValueError("the axes of the codes are not a dict")
        d = n_components
        check_floats(packed["rotation"], "the rotation of the codes", (d, d))
        check_floats(packed["scale"], "the scale of the codes", (d,), above=0.0)
        check_floats(packed["explained_variance_ratio"], "the explained variances", (d,))
        for name in ("distances", "information"):
            check_floats(packed[name], f"the {name} of the codes", (d, d))
        check_floats(packed["loadings"], "the loadings of the codes", (d, n_features))
        rotation = packed["rotation"]
        if np.abs(rotation.T @ rotation - np.eye(d)).max() > ROUNDING:
            raise ValueError("the rotation of the codes is none")


def apply_matrix(codes: Tensor, matrix: Tensor | None) -> Tensor:
    """Return codes (n, d) times a matrix (d, d), if there is one."""
    return codes if matrix is None else codes @ matrix


def principal_rotation(distances: FloatArray, loadings: FloatArray) -> FloatArray:
    """Return the eigenvectors of a metric (d, d) by decreasing eigenvalue, (d, d).

    As scikit-learn's `svd_flip` does, each sign makes the largest absolute value of the component's
    loadings (d, p) positive, on the standardised scale: it must not depend on units.
    """
    _, vectors = np.linalg.eigh(distances)
    vectors = vectors[:, ::-1]
    turned = vectors.T @ loadings
    largest = turned[np.arange(len(vectors)), np.abs(turned).argmax(axis=1)]
    rotation: FloatArray = vectors * np.where(largest < 0.0, -1.0, 1.0)
    return rotation


def choose_scale(whiten: bool | str, distances: FloatArray, information: FloatArray) -> FloatArray:
    """Return the scale of whitened codes that a `whiten` asks for, (d,).

    1 for True. ``sqrt w_k`` for False, w the metric of distances, so that distances between codes
    are those between what they decode to. ``sqrt(w_k / (1 + w_k))`` for "reliability", w the
    information: near 1 for components that a row determines, and near 0 for others.
    """
    if whiten is True:
        return np.ones_like(distances)
    information = information.clip(min=0.0)
    squares = distances if whiten is False else information / (1.0 + information)
    roots = np.sqrt(squares.clip(min=0.0))
    largest = roots.max()
    return np.maximum(roots, SMALLEST_SCALE * largest) if largest > 0.0 else np.ones_like(roots)
