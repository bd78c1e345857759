"""A fitted autoencoder as a value, without scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skhebae.code_map import CodeMap, CodeNoise, lower_factor
from skhebae.data import (
    NO_SIDE_INFORMATION,
    Columns,
    Matrix,
    Minibatch,
    Outside,
    Scaling,
    SideInformation,
    has_missing,
    map_rows,
    row_totals,
    watched,
)
from skhebae.fitted.axes import CodeAxes, apply_matrix
from skhebae.fitted.build import FACTORIES, Architecture, build_model, factory_name, load_weights
from skhebae.fitted.codes import CodeMixture, CodeMoments, LateMixture, draw_codes
from skhebae.fitted.conditional import (
    CODES_PER_ROW,
    LEAST_CODES,
    find_given,
    resample_codes,
)
from skhebae.fitted.labels import AVERAGE, check_size_factor, resolve_batch
from skhebae.fitted.measure import encode_with_spread
from skhebae.fitted.model_file import write_model
from skhebae.fitted.record import TrainingRecord
from skhebae.fitted.summary import FitSummary, summarise
from skhebae.imputation import expected_rows, resampled_codes
from skhebae.likelihoods import Likelihood, find_likelihood
from skhebae.linear_fill import LinearFill
from skhebae.model import Autoencoder
from skhebae.objectives import Objective
from skhebae.posterior import (
    bound,
    expected_log_prob,
    jacobian_numbers,
    laplace,
    log_likelihood,
    score,
)
from skhebae.prior import Prior
from skhebae.process import cached_property, in_plain_modes
from skhebae.quadrature import Proposal, Rule
from skhebae.variational import GapParts, Gaussian, ScaledFamily, gap_parts

Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]
Finish = Callable[[Float32Array], NDArray[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class FittedAutoencoder:
    """Trained networks, with everything that is needed to apply them to rows.

    Methods take validated rows: an ndarray, CSR matrix or `StoredTable` of the right width, with
    values that the likelihood accepts. Estimators validate rows before they call them.

    Attributes
    ----------
    architecture : Architecture
    model : Autoencoder
        In evaluation mode.
    objective : Objective
    scaling : Scaling
    moments : CodeMoments
        Moments of the encoder's own codes of the training rows, before the `code_map` of the model.
    mixture : CodeMixture or LateMixture
        Density of the codes of the model, after its `code_map`.
    noise_covariance : ndarray of shape (d, d)
        C in the posterior ``N(mu_i, A D_i C D_i A^T)`` of a row; A is the matrix of the `code_map`.
    seed : int
    history : dict of list of float
    batches : ndarray
        Sorted labels of the experimental batches of `fit`. May be empty.
    converged : bool
        Whether a stopping rule ended the training.
    optimizer_state : dict or None
        State of the optimiser for the next call of `partial_fit`.
    annotations : dict or None
        What the caller stores with the model about its table, as JSON values and arrays.
    axes : CodeAxes or None
        Map from the codes of the model to those that users see. None in old files, where both are
        the same.
    feature_names : ndarray of str or None
        Names for messages, which the caller keeps.
    fills_linearly : bool
        Whether missing entries follow from the factor analysis of `fit` and not from the decoder.
        The decoder of a linear model, whose codes are principal components, has too much noise,
        because it also covers what rows of `fit` with missing entries do not say about their
        codes.
    record : TrainingRecord or None
        What `fit` was asked for and what it chose. None in older files.
    """

    architecture: Architecture
    model: Autoencoder
    objective: Objective
    scaling: Scaling
    moments: CodeMoments
    mixture: CodeMixture | LateMixture
    noise_covariance: FloatArray
    seed: int
    history: dict[str, list[float]]
    batches: NDArray[Any]
    converged: bool = False
    optimizer_state: dict[int, dict[str, Tensor]] | None = None
    annotations: dict[str, Any] | None = None
    axes: CodeAxes | None = None
    fills_linearly: bool = False
    feature_names: NDArray[Any] | None = None
    record: TrainingRecord | None = None

    # Facts

    def __repr__(self) -> str:
        shape = f"{self.n_features} features, {self.n_components} components"
        return f"FittedAutoencoder({shape}, {len(self.history['loss'])} epochs)"

    @in_plain_modes
    def summary(self) -> FitSummary:
        """Return what was fitted and what `fit` chose where parameters are "auto".

        Returns
        -------
        FitSummary
            ``print`` shows it as text, a notebook as a table; `to_dict` returns the values.
        """
        return summarise(self)

    @property
    def n_components(self) -> int:
        """Number of latent dimensions."""
        return int(self.architecture.n_components)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.architecture.n_features)

    @property
    def columns(self) -> Columns | None:
        """Columns of the mixed frame that the model was fitted to, if it was one."""
        return self.scaling.columns

    @property
    def encodes_batch(self) -> bool:
        """Whether codes depend on the experimental batch of a row."""
        return self.architecture.encode_batch

    @property
    def likelihood(self) -> Likelihood:
        """Likelihood p(x | z)."""
        return self.model.likelihood

    @property
    def prior(self) -> Prior:
        """Prior p(z)."""
        return self.model.prior

    @cached_property
    @in_plain_modes
    def code_moments(self) -> CodeMoments:
        """Moments of the training rows' codes of the model, whose prior is p(z)."""
        code_map = self.model.code_map
        return self.moments if code_map is None else self.moments.mapped(code_map)

    @property
    def latent_mean(self) -> FloatArray:
        """Mean of the training rows' aggregated posterior, (d,)."""
        mean = self.code_moments.mean
        return mean if self.axes is None else mean @ self.axes.outward

    @cached_property
    @in_plain_modes
    def latent_covariance(self) -> FloatArray:
        """Covariance of the training rows' aggregated posterior, (d, d)."""
        covariance = self._model_covariance
        if self.axes is None:
            return covariance
        turned: FloatArray = self.axes.outward.T @ covariance @ self.axes.outward
        return (turned + turned.T) / 2.0

    @property
    def _model_covariance(self) -> FloatArray:
        """Covariance of the aggregated posterior, in codes of the model."""
        return self.code_moments.aggregated_covariance(self._model_noise)

    @property
    def components(self) -> FloatArray:
        """Mean change of E[x | z] per unit of each code as users see it, (d, p), in their units."""
        axes = self.principal_axes
        loadings = self.scaling.restore_differences(axes.loadings)
        result: FloatArray = loadings / axes.scale[:, None]
        return result

    @property
    def prior_variances(self) -> FloatArray:
        """Variances of users' codes that stand for draws from N(0, I), (d,)."""
        return np.ones(self.n_components) if self.axes is None else self.axes.scale**2

    @cached_property
    @in_plain_modes
    def learned(self) -> dict[str, FloatArray]:
        """Fitted parameters of the likelihood per feature, by attribute name."""
        return self.likelihood.learned(self.scaling)

    @cached_property
    @in_plain_modes
    def noise(self) -> CodeNoise:
        """Noise of the whitened codes of `encode_with_spread`, in float64 on the CPU."""
        noise = self._model_noise
        return noise if self.axes is None else self.axes.whitened.turn(noise)

    @cached_property
    @in_plain_modes
    def _model_noise(self) -> CodeNoise:
        """Noise of the codes of the model."""
        # A copy: a memory-mapped pickle holds read-only arrays.
        covariance = torch.from_numpy(np.array(self.noise_covariance))
        return CodeNoise.of(covariance, self.model.code_map)

    @in_plain_modes
    def with_encoder_codes(self) -> Self:
        """Return a copy whose codes are the encoder's own, as training saw them."""
        model, code_map = deepcopy(self.model), self.model.code_map
        model.code_map = None
        mixture = self.mixture if code_map is None else self.mixture.now().unmapped(code_map)
        return replace(self, model=model, mixture=mixture, axes=None)

    @in_plain_modes
    def rescaled(self, whiten: bool | str) -> Self:
        """Return a copy with the codes that another value of the parameter `whiten` gives.

        Raises
        ------
        AttributeError
            If the model comes from a file of before there were principal codes.
        """
        if not self.prior.is_standard:
            return self
        return replace(self, axes=self.principal_axes.rescaled(whiten))

    @property
    def principal_axes(self) -> CodeAxes:
        """The axes, where they were measured.

        Raises
        ------
        AttributeError
            Elsewhere, in files of before there were principal codes.
        """
        if self.axes is None:
            raise AttributeError(
                "The axes of these codes were not measured: they are the encoder's own, or the "
                "model comes from a file of an earlier version. Fit again."
            )
        return self.axes

    def annotate(self, annotations: dict[str, Any]) -> Self:
        """Return a copy with other annotations."""
        return replace(self, annotations=annotations)

    @property
    def names(self) -> NDArray[Any] | None:
        """Names of the features, if they have any."""
        if self.annotations is not None:
            names: NDArray[Any] = self.annotations["var_names"]
            return names
        return self.feature_names

    def watched(self) -> AbstractContextManager[Outside]:
        """Warn once, at the end of the block, of rows in it that lie far outside those of `fit`."""
        return watched(self.scaling, self.names)

    # Rows to codes

    @in_plain_modes
    def encode(self, X: Matrix, batch: ArrayLike | None = None) -> Float32Array:
        """Return the codes of rows, the means of their posteriors, (n, d).

        `batch` (n,) is needed if `encodes_batch`, and ignored otherwise.
        """
        matrix = self._outward(self.axes)
        return self._map_codes(
            lambda minibatch: apply_matrix(self.model.encode(minibatch)[0], matrix), X, batch
        )

    def _outward(self, axes: CodeAxes | None) -> Tensor | None:
        """Return the matrix that turns codes of the model to axes, where they differ."""
        return None if axes is None else axes.outward_on(self.likelihood.location)

    @in_plain_modes
    def encode_with_spread(
        self, X: Matrix, batch: ArrayLike | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Return posterior means as whitened codes, and the diagonals of D_i, each (n, d).

        The prior of whitened codes is p(z), and `noise` is theirs.
        """
        matrix = self._outward(None if self.axes is None else self.axes.whitened)

        def evaluate(minibatch: Minibatch) -> Tensor:
            mu, spread = encode_with_spread(self.model, self.objective, minibatch).chunk(2, dim=1)
            return torch.cat([apply_matrix(mu, matrix), spread], dim=1)

        mean, spread = np.split(self._map_codes(evaluate, X, batch), 2, axis=1)
        return mean.copy(), spread.copy()

    @in_plain_modes
    def posterior(
        self, X: Matrix, batch: ArrayLike | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Return means (n, d) and lower covariance factors (n, d, d) of rows' posteriors.

        Posteriors of rows with missing entries follow from the decoder.
        """
        noise, matrix = self._model_noise, self._outward(self.axes)
        if self.axes is not None:
            noise = self.axes.turn(noise)
        noise = noise.to(self.likelihood.location)

        def evaluate(minibatch: Minibatch) -> Tensor:
            if minibatch.mask is not None:
                q = laplace(self.model, minibatch)
                factor = q.factor if matrix is None else lower_factor(matrix.T @ q.factor)
                return torch.cat([apply_matrix(q.mode, matrix)[:, None], factor], dim=1)
            mu, spread = encode_with_spread(self.model, self.objective, minibatch).chunk(2, dim=1)
            return torch.cat([apply_matrix(mu, matrix)[:, None], noise.factors(spread)], dim=1)

        if has_missing(X):
            values = self._map(evaluate, X, jacobian_numbers(self.model), batch, None)
        else:
            values = self._map_codes(evaluate, X, batch, self.n_components**2)
        return values[:, 0].copy(), values[:, 1:].copy()

    # Codes to rows

    @in_plain_modes
    def decode(
        self,
        codes: Float32Array,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Return the means of p(x | z) in the units of the rows of `fit`, (n, p)."""
        matrix = None if self.axes is None else self.axes.inward_on(self.likelihood.location)
        return self._decode(codes, self.likelihood.mean, batch, size_factor, matrix=matrix)

    @in_plain_modes
    def sample(
        self,
        n_samples: int,
        latent: str,
        rng: np.random.RandomState,
        *,
        noise: bool = False,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
        given: Mapping[Any, Any] | None = None,
    ) -> Float32Array:
        """Draw codes and decode them; with `noise`, draw from p(x | z), (n_samples, p).

        Features that `given` names have its values, and the others are drawn given these.
        """
        row = None if given is None else find_given(self, given)
        n_codes = n_samples if row is None else max(LEAST_CODES, CODES_PER_ROW * n_samples)
        codes = draw_codes(
            latent,
            n_codes,
            rng,
            mean=self.code_moments.mean,
            covariance=self._model_covariance,
            mixture=self.mixture,
            prior=self.prior,
        ).astype(np.float32)
        if row is not None:
            codes = resample_codes(self, codes, row, n_samples, rng, batch)
            rows = self._draw(codes, rng, noise, batch, size_factor)
            known = ~np.isnan(row[0])
            rows[:, known] = row[:, known]
            return rows
        return self._draw(codes, rng, noise, batch, size_factor)

    def _draw(
        self,
        codes: Float32Array,
        rng: np.random.RandomState,
        noise: bool,
        batch: ArrayLike | str | None,
        size_factor: ArrayLike | None,
    ) -> Float32Array:
        """Decode codes of the model, and draw from p(x | z) if asked to."""
        n_samples = len(codes)
        generator = torch.Generator(self.model.device).manual_seed(int(rng.randint(2**31 - 1)))
        if not noise:
            return self._decode(codes, self.likelihood.mean, batch, size_factor)
        if size_factor is None:
            labels = self._labels(batch, n_samples)
            # Rows of no batch in particular are as those of all.
            index = resolve_batch(labels[0], self.batches, n_samples) if len(labels) == 1 else None
            size_factor = self.scaling.draw_size_factors(n_samples, rng, index)

        def draw(parameter: Tensor) -> Tensor:
            return self.likelihood.sample(parameter, generator)

        return self._decode(codes, draw, batch, size_factor, drawn=True)

    @in_plain_modes
    def batch_index(self, batch: ArrayLike | None, n_rows: int) -> NDArray[np.intp] | None:
        """Check labels of rows, and return their indices in `batches`; None if there are none."""
        return resolve_batch(batch, self.batches, n_rows)

    @in_plain_modes
    def size_factors(self, X: Matrix) -> FloatArray | None:
        """Return size factors that decode rows at their own totals; None if rows have none."""
        return self.scaling.size_factors(partial(row_totals, X))

    @in_plain_modes
    def batch_labels(self, batch: ArrayLike, n_rows: int) -> NDArray[Any]:
        """Return a label, or one per row, as `fit` was given it, (n_rows,)."""
        given = batch if np.ndim(batch) else np.full(n_rows, batch)
        index = resolve_batch(given, self.batches, n_rows)
        labels: NDArray[Any] = self.batches[index]
        return labels

    # Bounds and likelihoods of rows, (n,), nats

    @in_plain_modes
    def score(
        self,
        X: Matrix,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Return the bound whose posterior follows from the decoder."""
        width = jacobian_numbers(self.model)
        return self._map(
            lambda minibatch: score(self.model, minibatch), X, width, batch, size_factor
        )

    @in_plain_modes
    def elbo(
        self,
        X: Matrix,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Return the bound of the posterior that was trained."""
        return self._map_posterior(bound, X, batch, size_factor)

    @in_plain_modes
    def expected_log_prob(
        self,
        X: Matrix,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Return ``E_q log p(x | z)`` under the posterior that was trained."""
        return self._map_posterior(expected_log_prob, X, batch, size_factor)

    @in_plain_modes
    def log_likelihood(
        self,
        X: Matrix,
        draws: Float32Array,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Estimate log p(x) by importance weights with standard normal `draws` (K, d)."""
        noise = torch.from_numpy(draws).to(self.model.device)
        return self._map(
            lambda minibatch: log_likelihood(self.model, minibatch, noise),
            X,
            jacobian_numbers(self.model),
            batch,
            size_factor,
        )

    @property
    def posterior_family(self) -> str:
        """Which Gaussians the encoder may give a row, in codes of the model.

        "diagonal" as in a VAE, "scaled" as in HEBAE (``A D C D A^T`` with a diagonal D per row and
        one C and A for all), or "point". What an encoder loses because it has no head for noise
        counts as the encoder's part.
        """
        n_scales, noise = self.objective.n_scales(self.n_components), self._model_noise
        head = self.likelihood.location.new_zeros(1, n_scales)
        if not self.objective.spread(head, self.n_components).any():
            return "point"
        matrices = [noise.factor] + ([] if noise.matrix is None else [noise.matrix])
        is_diagonal = all(bool((of == of.diagonal().diag_embed()).all()) for of in matrices)
        is_free = n_scales in (0, self.n_components)
        return "diagonal" if is_diagonal and is_free else "scaled"

    @in_plain_modes
    def bound_parts(
        self,
        X: Matrix,
        rules: tuple[Rule, Rule],
        proposal: Proposal,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> GapParts:
        """Return log p(x) and the bounds of the best Gaussians and of the encoder's, `gap_parts`.

        In codes of the model. The `rules` find and evaluate the best Gaussians; `proposal` has the
        draws behind log p(x).
        """
        noise, family = self._model_noise.to(self.likelihood.location), None
        if self.posterior_family == "scaled":
            is_scalar = self.objective.n_scales(self.n_components) != self.n_components
            family = ScaledFamily(noise, is_scalar=is_scalar)

        def evaluate(minibatch: Minibatch) -> Tensor:
            if minibatch.mask is not None:
                own = Gaussian(*laplace(self.model, minibatch))
            else:
                values = encode_with_spread(self.model, self.objective, minibatch)
                mu, spread = values.chunk(2, dim=1)
                own = Gaussian(mu, noise.factors(spread))
            return gap_parts(self.model, minibatch, own, family, rules, proposal).pack()

        width = max(jacobian_numbers(self.model), 4 * len(proposal.draws))
        columns = self._map(evaluate, X, width, batch, size_factor)
        return GapParts.unpack(torch.from_numpy(columns), self.n_components)

    # Missing entries

    @in_plain_modes
    def expected_rows(
        self,
        X: Matrix,
        noise: Float32Array,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> NDArray[np.floating[Any]]:
        """Return E[x | x_obs] of all entries in the units of the rows of `fit`, (n, p).

        By importance weights with standard normal `noise` (K, d).
        """
        draws = torch.from_numpy(noise).to(self.model.device)

        def evaluate(minibatch: Minibatch) -> Tensor:
            if self.fills_linearly:
                return self.model.encoder_input(minibatch)
            return expected_rows(self.model, minibatch, draws, self.likelihood.mean)

        return self._map(
            evaluate,
            X,
            jacobian_numbers(self.model),
            batch,
            size_factor,
            finish=lambda rows: self.likelihood.original_rows(rows, self.scaling, drawn=False),
        )

    @in_plain_modes
    def drawn_rows(
        self,
        X: Matrix,
        n_draws: int,
        noise: Float32Array,
        rng: np.random.RandomState,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> NDArray[np.floating[Any]]:
        """Draw rows given the observed entries of rows, (n_draws, n, p), in their units.

        By sampling-importance-resampling of codes among those of `noise` (K, d).
        """
        draws = torch.from_numpy(noise).to(self.model.device)
        generator = torch.Generator(self.model.device).manual_seed(int(rng.randint(2**31 - 1)))

        def evaluate(minibatch: Minibatch) -> Tensor:
            if self.fills_linearly:
                copies = (self.model.encoder_input(minibatch, generator) for _ in range(n_draws))
                return torch.stack(list(copies), dim=1)
            uniform = torch.rand(
                n_draws,
                len(minibatch),
                generator=generator,
                dtype=draws.dtype,
                device=draws.device,
            )
            codes = resampled_codes(self.model, minibatch, draws, uniform)
            return torch.stack(
                [
                    self.likelihood.sample(self.model.decode_rows(z, minibatch), generator)
                    for z in codes
                ],
                dim=1,
            )

        def finish(rows: Float32Array) -> NDArray[np.floating[Any]]:
            flat = rows.reshape(-1, rows.shape[2])
            original = self.likelihood.original_rows(flat, self.scaling, drawn=True)
            return original.reshape(len(rows), n_draws, -1)

        width = max(jacobian_numbers(self.model), n_draws * self.n_features)
        rows = self._map(evaluate, X, width, batch, size_factor, finish=finish)
        return rows.swapaxes(0, 1)

    # Chunks of rows

    @in_plain_modes
    def trained_posterior(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return means (n, d) and lower covariance factors (n, d, d) in codes of the model.

        Those of rows with missing entries follow from the decoder.
        """
        if minibatch.mask is not None:
            q = laplace(self.model, minibatch)
            return q.mode, q.factor
        noise = self._model_noise.to(self.likelihood.location)
        mu, spread = encode_with_spread(self.model, self.objective, minibatch).chunk(2, dim=1)
        return mu, noise.factors(spread)

    @in_plain_modes
    def map_minibatches(
        self,
        function: Callable[[Minibatch], Tensor],
        X: Matrix,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        *,
        numbers_per_row: int = 1,
    ) -> NDArray[np.floating[Any]]:
        """Apply a row-wise function of standardised rows to a table, chunk by chunk.

        Parameters
        ----------
        function : callable
            Minibatch of m rows to tensor (m, ...), each row independently of the others.
        X : ndarray, CSR matrix or StoredTable of shape (n, p)
        batch, size_factor : optional
            As of `score`.
        numbers_per_row : int
            Width of the widest intermediate result of `function`, to bound memory.

        Returns
        -------
        ndarray of shape (n, ...)
        """
        return self._map(function, X, numbers_per_row, batch, size_factor)

    def _map_posterior(
        self,
        function: Callable[[Autoencoder, Minibatch, Tensor, Tensor], Tensor],
        X: Matrix,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
    ) -> Float32Array:
        """Apply a function of each row's trained posterior: its mean and covariance factor."""

        def evaluate(minibatch: Minibatch) -> Tensor:
            return function(self.model, minibatch, *self.trained_posterior(minibatch))

        return self._map(evaluate, X, self.n_components**2, batch, size_factor)

    def _map(
        self,
        function: Callable[[Minibatch], Tensor],
        X: Matrix,
        numbers_per_row: int,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        finish: Finish | None = None,
    ) -> Float32Array:
        """Apply a row-wise function that decodes to rows."""
        n_rows = int(X.shape[0])
        side = self._side(n_rows, batch, size_factor, partial(row_totals, X))
        return self._map_rows(function, X, side, numbers_per_row, finish)

    def _map_codes(
        self,
        function: Callable[[Minibatch], Tensor],
        X: Matrix,
        batch: ArrayLike | None,
        numbers_per_row: int = 1,
    ) -> Float32Array:
        """Apply a row-wise function of the encoder to rows."""
        side = NO_SIDE_INFORMATION
        if self.encodes_batch:
            side = SideInformation(resolve_batch(batch, self.batches, int(X.shape[0])))
        return self._map_rows(function, X, side, numbers_per_row)

    def _map_rows(
        self,
        function: Callable[[Minibatch], Tensor],
        X: Matrix,
        side: SideInformation,
        numbers_per_row: int,
        finish: Finish | None = None,
    ) -> Float32Array:
        """Apply a row-wise function to rows with what is known about them."""
        width = max(numbers_per_row, self.n_features)
        with self.watched() as outside:

            def read(rows: slice) -> Minibatch:
                minibatch = side.read(X, rows, self.scaling)
                outside.see(minibatch.x)
                return minibatch.to(self.model.device)

            n_rows = int(X.shape[0])
            return map_rows(function, read, n_rows, numbers_per_row=width, finish=finish)

    def _side(
        self,
        n_rows: int,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        totals: Callable[..., FloatArray] | None = None,
    ) -> SideInformation:
        """Check what the user says about rows; exposures are their `totals` by default."""
        factors = None if size_factor is None else check_size_factor(size_factor, n_rows)
        index = resolve_batch(batch, self.batches, n_rows)
        return SideInformation(index, self.scaling.log_size(n_rows, totals, factors))

    def _decode(
        self,
        codes: Float32Array,
        function: Callable[[Tensor], Tensor],
        batch: ArrayLike | str | None,
        size_factor: ArrayLike | None,
        *,
        matrix: Tensor | None = None,
        drawn: bool = False,
    ) -> Float32Array:
        """Apply a function of the likelihood's parameter to codes, and restore the units.

        `matrix` turns the codes into those of the model, which they are by default.
        """
        return self.map_parameters(
            codes,
            function,
            batch,
            size_factor,
            matrix=matrix,
            finish=lambda rows: self.likelihood.original_rows(rows, self.scaling, drawn=drawn),
        )

    @in_plain_modes
    def map_parameters(
        self,
        codes: Float32Array,
        function: Callable[[Tensor], Tensor],
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
        *,
        matrix: Tensor | None = None,
        finish: Callable[[Float32Array], NDArray[np.floating[Any]]] | None = None,
    ) -> Float32Array:
        """Apply a function of the likelihood's parameter to codes of the model.

        One chunk at a time, so that little more than the result is in memory.

        Parameters
        ----------
        codes : ndarray of shape (n, d)
        function : callable
            Of the parameter (m, p) of some rows, each on its own.
        batch, size_factor : optional
            As of `decode`.
        matrix : Tensor of shape (d, d), optional
            Turns the codes into those of the model.
        finish : callable, optional
            Applied to each chunk of results.
        """
        n_rows = len(codes)
        sides = [self._side(n_rows, label, size_factor) for label in self._labels(batch, n_rows)]

        def read(rows: slice) -> Minibatch:
            # A copy: `codes` may be the caller's read-only memory map.
            return sides[0].minibatch(np.array(codes[rows]), rows).to(self.model.device)

        def decode(minibatch: Minibatch) -> Tensor:
            z = apply_matrix(minibatch.x, matrix)
            if len(sides) == 1:
                return function(self.model.decode_rows(z, minibatch))
            assert minibatch.batch is not None
            batches = (torch.full_like(minibatch.batch, index) for index in range(len(sides)))
            parameters = [
                self.model.decode_rows(z, minibatch.replace(batch=batch)) for batch in batches
            ]
            return function(self.likelihood.average(torch.stack(parameters)))

        return map_rows(
            decode,
            read,
            n_rows,
            numbers_per_row=self.n_features * len(sides),
            finish=finish,
        )

    def _labels(self, batch: ArrayLike | str | None, n_rows: int) -> list[ArrayLike | None]:
        """Return the labels of rows; those of every batch in turn for "average"."""
        averages = isinstance(batch, str) and batch == AVERAGE and batch not in self.batches
        if averages and len(self.batches) > 0:
            return [np.full(n_rows, label) for label in self.batches]
        return [batch if batch is None or np.ndim(batch) else np.full(n_rows, batch)]

    # As plain arrays

    @in_plain_modes
    def pack(self) -> dict[str, Any]:
        """Return the value as a dict of plain arrays, lists and numbers.

        A pickle or file of it holds no torch object, so it loads without a GPU, and readers
        need not trust any class of ours. Public attributes are included, for readers of files.
        """
        weights = self.model.state_dict()
        packed = {
            "_weights": {k: v.detach().cpu().numpy() for k, v in weights.items()},
            "_architecture": self.architecture.pack(),
            "_noise_covariance": self.noise_covariance,
            "_seed": self.seed,
            "latent_mean_": self.latent_mean,
            "latent_covariance_": self.latent_covariance,
            "history_": self.history,
            "n_iter_": len(self.history["loss"]),
            **self.learned,
        }
        packed["_scaling"] = self.scaling.pack()
        parts = {"_moments": self.moments, "_mixture": self.mixture.now()}
        for name, part in parts.items():
            packed[name] = {f.name: getattr(part, f.name) for f in fields(part)}  # type: ignore[arg-type]
        if self.axes is not None:
            packed["_axes"] = {f.name: getattr(self.axes, f.name) for f in fields(self.axes)}
            packed["explained_variance_ratio_"] = self.axes.explained_variance_ratio
        if len(self.batches):
            packed["batches_"] = self.batches
        if self.fills_linearly:
            packed["_fills_linearly"] = True
        if self.record is not None:
            packed["training_"] = self.record.pack()
        if self.annotations is not None:
            packed["anndata_"] = self.annotations
        return packed

    @in_plain_modes
    def save(
        self,
        path: str | os.PathLike[str],
        kind: str,
        params: dict[str, Any],
        further: dict[str, Any],
    ) -> None:
        """Write a model file, which holds no code.

        Parameters
        ----------
        path : path-like
            Overwritten if it exists.
        kind : str
            Name of the estimator class that loads the file.
        params : dict
            Its parameters, as JSON values and tuples.
        further : dict
            Its own fitted attributes, as JSON values, tuples and arrays.
        """
        write_model(path, kind, params, {**further, **self.file_state()})

    @in_plain_modes
    def file_state(self) -> dict[str, Any]:
        """Return what `pack` returns, with names in place of code of the user's."""
        packed = self.pack()
        if self.record is not None:
            packed["training_"] = self.record.saved().pack()
        architecture = packed["_architecture"]
        architecture["likelihood"] = factory_name(architecture["likelihood"])
        for name in FACTORIES:
            architecture.pop(name, None)
        if self.columns is not None:
            for item in packed["_scaling"]["columns"]["items"]:
                item["family"] = factory_name(item["family"])
        return packed

    @classmethod
    @in_plain_modes
    def unpack(
        cls, packed: dict[str, Any], objective: Objective, device: torch.device
    ) -> FittedAutoencoder:
        """Invert `pack`, with the networks rebuilt on `device`."""
        architecture = Architecture.unpack(packed["_architecture"])
        family = find_likelihood(architecture.likelihood)
        scaling = family.scaling_class.unpack(packed["_scaling"])
        model = build_model(architecture, scaling, None)
        if "code_map.matrix" in packed["_weights"]:
            model.code_map = CodeMap.empty(architecture.n_components)
        if "fill.loadings" in packed["_weights"]:
            model.fill = LinearFill.empty(*packed["_weights"]["fill.loadings"].shape)
        load_weights(model, packed["_weights"])
        return cls(
            architecture=architecture,
            model=model.to(device).eval(),
            objective=objective.suited(family),
            scaling=scaling,
            moments=CodeMoments(**packed["_moments"]),
            mixture=CodeMixture(**packed["_mixture"]),
            noise_covariance=packed["_noise_covariance"],
            seed=packed["_seed"],
            history=packed["history_"],
            batches=packed.get("batches_", np.empty(0, dtype=object)),
            annotations=packed.get("anndata_"),
            fills_linearly=packed.get("_fills_linearly", False),
            axes=CodeAxes(**packed["_axes"]) if "_axes" in packed else None,
            record=TrainingRecord.unpack(packed["training_"]) if "training_" in packed else None,
        )
