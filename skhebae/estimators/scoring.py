"""What a fitted estimator says about rows, in nats."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skhebae.data.scaling import Matrix
from skhebae.divergences import cholesky_factor
from skhebae.estimators.fitting import codes_and_sigma
from skhebae.estimators.inference import FittedAutoencoder

Float32Array = NDArray[np.float32]


class Posterior(NamedTuple):
    """Approximate posterior ``N(mean, F F^T)`` of each row.

    Attributes
    ----------
    mean : ndarray of shape (n_samples, n_components)
    covariance_factor : ndarray of shape (n_samples, n_components, n_components)
        Lower triangular F.
    """

    mean: Float32Array
    covariance_factor: Float32Array


class ScoredAutoencoder(FittedAutoencoder):
    """Posteriors, bounds and likelihoods of rows."""

    def posterior(self, X: ArrayLike | Matrix, *, batch: ArrayLike | None = None) -> Posterior:
        """Approximate posterior of each row.

        For HEBAE ``N(mu_i, D_i S D_i)`` (equation 6 of arXiv:2007.10389) with
        S the covariance of all training codes, for VAE ``N(mu_i, diag
        sigma_i^2)``, for WAE a point (a factor of zeros).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch : array-like of shape (n_samples,), optional
            Labels of experimental batches, needed with `encode_batch` alone.

        Returns
        -------
        Posterior
            Named tuple of `mean` (n_samples, n_components) and
            `covariance_factor` (n_samples, n_components, n_components), F
            lower triangular with covariance ``F F^T``.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        check_is_fitted(self)
        mean, sigma = self._codes_and_sigma(X, batch)
        return Posterior(mean, (sigma[:, :, None] * self._noise_factor).astype(np.float32))

    def score_samples(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Score rows by a likelihood bound in nats; higher is more typical.

        The evidence lower bound ``E_q log p(x | z) - KL(q(z) || N(0, I))``,
        where q is the Gaussian at the row's code whose covariance follows from
        the decoder's local linearisation, ``(I + J^T W J)^-1``. It does not use
        the encoder's noise, so the three estimators (and WAE, which has none)
        are scored alike. The expectation is a deterministic cubature: exact,
        and so a true bound, for linear decoders with Gaussian likelihood;
        otherwise an approximation. See `elbo` for the bound of the posterior
        that was trained and `log_likelihood` for what both are bounds of.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        check_is_fitted(self)
        width = self._model.jacobian_numbers
        return self._map_table(X, self._model.score, width, batch=batch, size_factor=size_factor)

    def score(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> float:
        """Mean of `score_samples`, in nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        y : None
            Ignored, present for model selection.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        float
            Nats a row; higher is better.
        """
        return float(
            self.score_samples(X, batch=batch, size_factor=size_factor).mean(dtype=np.float64)
        )

    def elbo(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Compute the standard evidence lower bound of each row, in nats.

        ``E_q log p(x | z) - KL(q(z | x) || N(0, I))`` (equation 1 of
        arXiv:2007.10389) with q the posterior that the encoder was trained to
        give, as `posterior` returns it: one definition for all estimators, so
        that they can be compared. A posterior whose noise vanished (HEBAE with
        ``row_share=0``) pays for it with a low bound, a point (WAE) with minus
        infinity; `score_samples` and `log_likelihood` do not use that noise.
        The expectation is the cubature of `score_samples`; see the guide for
        its error where the decoder is curved and the noise wide.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        check_is_fitted(self)
        model, posterior_of = self._model, self._posterior_function()
        width = self._n_features_out**2
        return self._map_table(
            X,
            lambda x: model.bound(x, *posterior_of(x)),
            width,
            batch=batch,
            size_factor=size_factor,
        )

    def log_likelihood(
        self,
        X: ArrayLike | Matrix,
        *,
        n_draws: int = 100,
        random_state: int | np.random.RandomState | None = 0,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Importance-weighted estimate of ``log p(x)`` of each row, in nats.

        ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k)``, ``z_k ~ q``: in expectation
        a lower bound of ``log p(x)`` that never falls as K = `n_draws` grows
        [1]_. The proposal q is the Laplace approximation of p(z | x), found by
        a few Gauss-Newton steps from the row's code, so the value speaks of
        the decoder and hardly of the encoder. All rows share the same draws:
        a row's value does not depend on the rows it comes with.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        n_draws : int, default=100
            Draws K of the latent code.
        random_state : int, RandomState instance or None, default=0
            Of the draws.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`, and if `n_draws` is not an integer >= 1.

        References
        ----------
        .. [1] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance Weighted
           Autoencoders", arXiv:1509.00519.
        """
        check_is_fitted(self)
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws={n_draws!r} must be an integer >= 1; 100 is a good start.")
        rng = check_random_state(random_state)
        draws = rng.standard_normal((int(n_draws), self._n_features_out)).astype(np.float32)
        noise = torch.from_numpy(draws).to(self._model.device)
        width = self._model.jacobian_numbers
        return self._map_table(
            X,
            lambda x: self._model.log_likelihood(x, noise),
            width,
            batch=batch,
            size_factor=size_factor,
        )

    @property
    def _noise_factor(self) -> NDArray[np.float64]:
        """Lower factor L of C in ``N(mu_i, D_i C D_i)``, (n_components, n_components)."""
        # A copy: a memory-mapped pickle gives read-only arrays.
        covariance = torch.from_numpy(np.array(self._noise_covariance))
        factor: NDArray[np.float64] = cholesky_factor(covariance).numpy()
        return factor

    def _codes_and_sigma(
        self, X: ArrayLike | Matrix, batch: ArrayLike | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Posterior means and the diagonals of D_i, each (n_samples, n_components)."""
        objective = self._objective()
        values = self._map_codes(X, lambda x: codes_and_sigma(self._model, objective, x), batch)
        mean, sigma = np.split(values, 2, axis=1)
        return mean.copy(), sigma.copy()

    def _expected_log_prob(
        self,
        X: ArrayLike | Matrix,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """``E_q log p(x | z)`` under each row's posterior, (n_samples,)."""
        model, posterior_of = self._model, self._posterior_function()
        width = self._n_features_out**2
        return self._map_table(
            X,
            lambda x: model.expected_log_prob(x, *posterior_of(x)),
            width,
            batch=batch,
            size_factor=size_factor,
        )

    def _posterior_function(
        self,
    ) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """Map from standardised rows to means (n, d) and covariance factors (n, d, d)."""
        model, objective = self._model, self._objective()
        common = torch.from_numpy(self._noise_factor).to(model.device, torch.float32)

        def posterior_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mu, sigma = codes_and_sigma(model, objective, x).chunk(2, dim=1)
            return mu, sigma[:, :, None] * common

        return posterior_of
