"""Moments of the training codes, and a mixture to sample from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skhebae.code_map import PSEUDO_ROWS, CodeMap, CodeNoise
from skhebae.divergences import cholesky_factor, regularised_covariance
from skhebae.finite_sample import expected_prior_kl
from skhebae.prior import Prior
from skhebae.process import ForkSafeLock, cached_property

FloatArray = NDArray[np.float64]

#: Codes the mixture is fitted to, at most.
MIXTURE_ROWS = 10_000

#: Components of the mixture, at most: in general, in a stream, and multiplied by the latent
#: dimensions (each component has a covariance matrix).
MIXTURE_COMPONENTS = 50
BRIEF_COMPONENTS = 10
MIXTURE_MEANS = 2000

#: Rows that a component needs: at least, and per latent dimension.
COMPONENT_ROWS = 30
COMPONENT_ROWS_PER_DIMENSION = 3

#: Pseudo-rows without correlations that join each component, as a share of those rows.
SHRUNK_ROWS = 0.1

#: Mixtures are compared that have as many components as rows allow, this part of them, and one.
FEWER = 4

#: Degrees of freedom of what weighs less than one row: they only have to cancel.
FEWEST_DEGREES = 1e-6

#: Smallest sum of shares, of a component that no row belongs to.
TINY = 1e-300

#: EM that starts from k-means needs few steps: docs/benchmarks-defaults.md.
EM_STEPS, EM_TOL = 5, 1e-2

#: Warning filters belong to the process: two threads that fit at once would
#: restore them in the wrong order.
WARNING_FILTERS = ForkSafeLock()


@dataclass(frozen=True, eq=False)
class CodeMoments:
    """Moments of the codes of all rows seen so far; moments of further rows can be merged.

    Attributes
    ----------
    n_rows : float
        Number of rows, an int; or their summed weight.
    mean : ndarray of shape (d,)
        Mean of the posterior means.
    covariance : ndarray of shape (d, d)
        Covariance of the posterior means, with divisor ``n_rows - 1``.
    spread : ndarray of shape (d, d)
        ``mean_i sigma_i sigma_i^T`` of the posterior standard deviations.
    """

    n_rows: float
    mean: FloatArray
    covariance: FloatArray
    spread: FloatArray

    @classmethod
    def measure(
        cls,
        codes: NDArray[np.floating[Any]],
        sigma: NDArray[np.floating[Any]],
        weight: FloatArray | None = None,
    ) -> CodeMoments:
        """Measure the codes (n, d) and standard deviations (n, d) of n >= 1 rows.

        Weights (n,), positive in some row, say how many rows each row stands for.
        """
        if weight is not None:
            total = float(weight.sum())
            mean = weight @ codes / total
            centred = codes - mean
            wide = sigma.astype(np.float64)
            return cls(
                n_rows=total,
                mean=mean,
                covariance=(weight[:, None] * centred).T @ centred / degrees(total),
                spread=(weight[:, None] * wide).T @ wide / total,
            )
        mean = codes.mean(axis=0, dtype=np.float64)
        centred = codes - mean
        wide = sigma.astype(np.float64)
        return cls(
            n_rows=len(codes),
            mean=mean,
            covariance=centred.T @ centred / max(1, len(codes) - 1),
            spread=wide.T @ wide / len(codes),
        )

    def mapped(self, code_map: CodeMap) -> CodeMoments:
        """Return the moments of the codes behind a map; `spread` stays that of the encoder."""
        centre, matrix = (of.cpu().double().numpy() for of in (code_map.centre, code_map.matrix))
        return replace(
            self,
            mean=matrix @ (self.mean - centre),
            covariance=matrix @ self.covariance @ matrix.T,
        )

    def aggregated_covariance(self, noise: CodeNoise) -> FloatArray:
        """Return the aggregated posterior's covariance, ``S + mean_i A D_i C D_i A^T``, (d, d).

        Equation 9, with the codes behind the map A of `noise`.
        """
        added = noise.covariance(torch.from_numpy(np.array(self.spread)))
        result: FloatArray = self.covariance + added.numpy()
        return result

    def kl_to(self, prior: Prior) -> float:
        """Return ``KL(N(m, S) || p(z))`` in nats; one pseudo-row keeps S positive definite."""
        mean = torch.from_numpy(np.array(self.mean))
        return float(prior.gaussian_kl(mean, cholesky_factor(self._smoothed())))

    def chance_kl(self) -> float:
        """Return ``tr S / (2 n)``, the part of the divergence from N(0, I) due to chance in m."""
        return 0.5 * float(self._smoothed().trace()) / self.n_rows

    def _smoothed(self) -> torch.Tensor:
        """Return the covariance with one pseudo-row of N(0, I), (d, d)."""
        covariance = torch.from_numpy(np.array(self.covariance))
        return regularised_covariance(covariance, self.n_rows, PSEUDO_ROWS)

    def excess_kl(self, prior: Prior) -> float:
        """Return `kl_to` minus its mean over as many draws from N(0, I), if that is the prior."""
        if not prior.is_standard:
            return self.kl_to(prior)
        n_rows = max(1, round(self.n_rows))
        return self.kl_to(prior) - expected_prior_kl(n_rows, len(self.mean), PSEUDO_ROWS)

    def merge(self, other: CodeMoments) -> CodeMoments:
        """Combine with the moments of other rows (Chan, Golub and LeVeque, 1979)."""
        n_rows = self.n_rows + other.n_rows
        share = other.n_rows / n_rows
        difference = other.mean - self.mean
        scatter = (
            degrees(self.n_rows) * self.covariance
            + degrees(other.n_rows) * other.covariance
            + np.outer(difference, difference) * self.n_rows * share
        )
        return CodeMoments(
            n_rows=n_rows,
            mean=self.mean + share * difference,
            covariance=scatter / degrees(n_rows),
            spread=(1.0 - share) * self.spread + share * other.spread,
        )


@dataclass(frozen=True, eq=False)
class CodeMixture:
    """A Gaussian mixture over codes, as plain arrays.

    Attributes
    ----------
    weights : ndarray of shape (k,)
    means : ndarray of shape (k, d)
    covariances : ndarray of shape (k, d, d)
    """

    weights: FloatArray
    means: FloatArray
    covariances: FloatArray

    @classmethod
    def fit(
        cls,
        codes: NDArray[np.floating[Any]],
        seed: int,
        spread: NDArray[np.floating[Any]] | None = None,
        noise: CodeNoise | None = None,
        *,
        brief: bool = False,
    ) -> CodeMixture:
        """Fit the aggregated posterior of some rows.

        scikit-learn's full-covariance mixture is fitted to the codes and shrunk. To each of its
        components the mean covariance of its rows' posteriors is then added.

        Parameters
        ----------
        codes : ndarray of shape (n, d)
            Posterior means.
        seed : int
        spread : ndarray of shape (n, d), optional
            Diagonals of D_i of the `noise`; by default posteriors are points.
        noise : CodeNoise, optional
        brief : bool
            Whether to fit fewer components, for the many calls of a stream.
        """
        n_rows, n_components = codes.shape
        most = BRIEF_COMPONENTS if brief else MIXTURE_COMPONENTS
        needed = component_rows(n_components)
        wanted = min(most, MIXTURE_MEANS // n_components, n_rows // needed)
        most = max(1, min(wanted, len(np.unique(codes, axis=0))))
        candidates = [
            GaussianMixture(k, max_iter=EM_STEPS, tol=EM_TOL, random_state=seed)
            for k in sorted({1, max(1, most // FEWER), most})
        ]
        # scikit-learn's regularisation is absolute, so the mixture must not see units.
        mean = codes.mean(axis=0, dtype=np.float64)
        unit = codes.std(axis=0, dtype=np.float64)
        unit[unit == 0.0] = 1.0
        # Its k-means start refuses to run while array API dispatch is on.
        with (
            config_context(array_api_dispatch=False),
            WARNING_FILTERS.held(),
            warnings.catch_warnings(),
        ):
            # The mixture only has to be a good density to draw from. Whether EM has
            # converged is not the user's concern.
            warnings.simplefilter("ignore", ConvergenceWarning)
            scaled = (codes - mean) / unit
            # By Akaike's criterion: Gaussian codes are described best by one component.
            mixture = min((own.fit(scaled) for own in candidates), key=lambda own: own.aic(scaled))
            shares = mixture.predict_proba(scaled)
        covariances = shrunk_covariances(
            mixture.covariances_, mixture.weights_, n_rows, SHRUNK_ROWS * needed
        )
        covariances = np.outer(unit, unit) * covariances
        if spread is not None and noise is not None:
            wide = spread.astype(np.float64)
            products = np.stack([(wide.T * own) @ wide / max(own.sum(), TINY) for own in shares.T])
            covariances = covariances + noise.covariance(torch.from_numpy(products)).numpy()
        return cls(
            mixture.weights_,
            mean + unit * mixture.means_,
            covariances,
        )

    def now(self) -> CodeMixture:
        """Return the mixture."""
        return self

    def unmapped(self, code_map: CodeMap) -> CodeMixture:
        """Return the mixture of the codes before a map."""
        centre, inverse = (of.cpu().double().numpy() for of in (code_map.centre, code_map.inverse))
        means = self.means @ inverse.T + centre
        return CodeMixture(self.weights, means, inverse @ self.covariances @ inverse.T)

    def sample(self, n_samples: int, rng: np.random.RandomState) -> FloatArray:
        """Draw codes (n_samples, d), in random order of components."""
        mixture = GaussianMixture(len(self.weights), random_state=rng)
        mixture.weights_, mixture.means_ = self.weights, self.means
        mixture.covariances_ = self.covariances
        codes: FloatArray = mixture.sample(n_samples)[0]
        return codes[rng.permutation(n_samples)]


class LateMixture:
    """A `CodeMixture` that is fitted when it is first needed; in a stream it rarely is."""

    def __init__(
        self,
        codes: NDArray[np.floating[Any]],
        seed: int,
        spread: NDArray[np.floating[Any]] | None = None,
        noise: CodeNoise | None = None,
    ) -> None:
        self._evidence = codes, seed, spread, noise

    def now(self) -> CodeMixture:
        """Return the mixture, after fitting it."""
        return self._fitted

    @cached_property
    def _fitted(self) -> CodeMixture:
        return CodeMixture.fit(*self._evidence, brief=True)


def degrees(n_rows: float) -> float:
    """Return ``n - 1``, or a small number, as weights may add up to less than one row."""
    return max(n_rows - 1, FEWEST_DEGREES)


def component_rows(n_components: int) -> int:
    """Return the rows that a component of the mixture needs in `n_components` dimensions."""
    return max(COMPONENT_ROWS, COMPONENT_ROWS_PER_DIMENSION * n_components)


def shrunk_covariances(
    covariances: FloatArray, weights: FloatArray, n_rows: int, pseudo_rows: float
) -> FloatArray:
    """Shrink each covariance of a mixture towards its own diagonal.

    ``(n_k S_k + a diag S_k) / (n_k + a)`` with ``n_k = n_rows weights_k``. Variances
    stay; correlations shrink more, the fewer rows they were seen in (a shrinkage
    target of Schaefer and Strimmer, 2005). Positive definite even where S_k is singular.

    Parameters
    ----------
    covariances : ndarray of shape (k, d, d)
    weights : ndarray of shape (k,)
    n_rows : int
    pseudo_rows : float
        Rows ``a`` without correlations that join each component.

    Returns
    -------
    ndarray of shape (k, d, d)
    """
    rows = (n_rows * weights)[:, None, None]
    kept = rows / (rows + pseudo_rows)
    result: FloatArray = np.where(np.eye(covariances.shape[1]), covariances, kept * covariances)
    return result


def draw_codes(
    latent: str,
    n_samples: int,
    rng: np.random.RandomState,
    *,
    mean: FloatArray,
    covariance: FloatArray,
    mixture: CodeMixture | LateMixture,
    prior: Prior,
) -> FloatArray:
    """Draw latent codes from one of the three densities.

    Parameters
    ----------
    latent : {"mixture", "gaussian", "prior"}
    n_samples : int
    rng : numpy.random.RandomState
    mean, covariance : ndarray of shape (d,) and (d, d)
        Moments of the aggregated posterior, for "gaussian".
    mixture : CodeMixture or LateMixture
    prior : Prior

    Returns
    -------
    ndarray of shape (n_samples, d)
    """
    if latent == "mixture":
        return mixture.now().sample(n_samples, rng)
    if latent == "gaussian":
        return rng.multivariate_normal(mean, covariance, size=n_samples)
    return prior.sample(n_samples, rng)
