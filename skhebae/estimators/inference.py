"""What a fitted estimator does with rows, codes and files."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from skhebae.data import NO_COVARIATES, CountScaling, Covariates, Scaling
from skhebae.data.scaling import Matrix
from skhebae.engine import resolve_device
from skhebae.engine.chunks import map_rows
from skhebae.estimators.covariates import AVERAGE, checked_size_factor, covariates_of
from skhebae.estimators.latent import CodeMixture, CodeMoments, LateMixture, draw_codes
from skhebae.estimators.persistence import pack, read, unpack, write
from skhebae.estimators.tables import as_numpy, validated_table
from skhebae.exceptions import ModelFileError
from skhebae.model import Architecture, Autoencoder
from skhebae.networks import DecoderFactory, EncoderFactory
from skhebae.objectives import Objective

Float32Array = NDArray[np.float32]

#: Parameters that a file names but does not hold.
FACTORIES = ("encoder", "decoder")


class FittedAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """The methods that need no training.

    `fit` of a subclass assigns the attributes declared here.
    """

    n_features_in_: int
    latent_mean_: NDArray[np.float64]
    latent_covariance_: NDArray[np.float64]
    likelihood: str
    batches_: NDArray[Any]
    _model: Autoencoder
    _scaling: Scaling
    _architecture: Architecture
    _moments: CodeMoments
    _noise_covariance: NDArray[np.float64]
    _mixture: CodeMixture | LateMixture

    @abstractmethod
    def _objective(self) -> Objective:
        """Make the objective from the parameters."""

    def transform(self, X: ArrayLike | Matrix, *, batch: ArrayLike | None = None) -> Float32Array:
        """Map rows to codes, the means of their approximate posteriors.

        Deterministic, and the same for a row alone or among others.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch : array-like of shape (n_samples,), optional
            Labels of experimental batches, needed with `encode_batch` alone.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            One code a row; a frame if `set_output` says so.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` does not match the rows of `fit`.
        """
        return self._map_codes(X, lambda x: self._model.encode(x)[0], batch)

    def inverse_transform(
        self,
        Z: ArrayLike,
        *,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Map codes to rows, the means of p(x | z).

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.
        batch : label or array-like of shape (n_samples,), optional
            Experimental batch to decode for, one or one a row; "average" is the
            mean over all batches of `fit`. Needed where `fit` was given batches.
        size_factor : float or array-like of shape (n_samples,), optional
            For counts: total of each row, or its size factor in the unit of those
            that `fit` was given. By default the median total of the rows of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            In the units of the rows of `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `Z` has not `n_components` columns or is not finite, or `batch` or
            `size_factor` is missing or not usable.
        """
        check_is_fitted(self)
        codes: Float32Array = check_array(as_numpy(Z), dtype=np.float32, order="C", input_name="Z")
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {codes.shape[1]} columns, but {type(self).__name__} was fitted with "
                f"n_components={self._n_features_out}; pass codes as transform returns them."
            )
        return self._decoded(codes, self._model.likelihood.mean, batch, size_factor)

    def sample(
        self,
        n_samples: int = 1,
        latent: Literal["mixture", "gaussian", "prior"] = "mixture",
        random_state: int | np.random.RandomState | None = None,
        *,
        noise: bool = False,
        batch: ArrayLike | str | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Float32Array:
        """Generate rows: draw codes and decode them.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to generate.
        latent : {"mixture", "gaussian", "prior"}, default="mixture"
            Where codes come from: a Gaussian mixture fitted to at most 10,000
            training codes, the Gaussian with `latent_mean_` and
            `latent_covariance_`, or N(0, I). Codes that match N(0, I) in their
            moments need not be Gaussian, so the mixture is the most faithful.
        random_state : int, RandomState instance or None, default=None
            Of this draw only; None draws afresh at every call.
        noise : bool, default=False
            Draw from p(x | z) instead of returning its mean. For counts without a
            `size_factor` totals are drawn too, log-normal as those of `fit`.
        batch : label or array-like of shape (n_samples,), optional
            Experimental batch to decode for, one or one a row; "average" is the
            mean over all batches of `fit`. Needed where `fit` was given batches.
        size_factor : float or array-like of shape (n_samples,), optional
            For counts: total of each row, or its size factor in the unit of those
            that `fit` was given. By default the median total of the rows of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            In the units of the rows of `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `n_samples` or `latent` is not one of the above.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(
                f"n_samples={n_samples!r} must be an integer >= 1, the rows to generate."
            )
        if not isinstance(latent, str) or latent not in ("mixture", "gaussian", "prior"):
            raise ValueError(f"latent={latent!r} must be 'mixture', 'gaussian' or 'prior'.")
        rng = check_random_state(random_state)
        codes = draw_codes(
            latent,
            int(n_samples),
            rng,
            mean=self.latent_mean_,
            covariance=self.latent_covariance_,
            mixture=self._mixture.now(),
        )
        generator = torch.Generator(self._model.device).manual_seed(int(rng.randint(2**31 - 1)))
        likelihood = self._model.likelihood

        def draw(parameter: torch.Tensor) -> torch.Tensor:
            return likelihood.sample(parameter, generator)

        scaling = self._scaling
        if noise and size_factor is None and isinstance(scaling, CountScaling):
            spread = scaling.log_size_deviation * rng.standard_normal(len(codes))
            size_factor = scaling.typical_size * np.exp(spread) / scaling.size_unit
        function = draw if noise else likelihood.mean
        rows = self._decoded(codes.astype(np.float32), function, batch, size_factor)
        is_binary = noise and self._architecture.likelihood == "bernoulli"
        return rows.round() if is_binary else rows

    def _map_codes(
        self,
        X: ArrayLike | Matrix,
        function: Callable[[torch.Tensor], torch.Tensor],
        batch: ArrayLike | None,
    ) -> Float32Array:
        """`_map_table` of a function of the encoder, which may see no batches."""
        check_is_fitted(self)
        if self._architecture.encode_batch:
            return self._map_table(X, function, batch=batch)
        return self._map_table(X, function, decodes=False)

    def _map_table(
        self,
        X: ArrayLike | Matrix,
        function: Callable[[torch.Tensor], torch.Tensor],
        numbers_per_row: int = 1,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        decodes: bool = True,
    ) -> Float32Array:
        """Validate rows and apply a row-wise function of standardised tensors.

        Behind the features stand the covariates, if the function `decodes`.
        """
        check_is_fitted(self)
        table = self._validated(X, reset=False, min_samples=1)
        covariates = NO_COVARIATES
        if decodes:
            covariates = self._covariates(table.shape[0], batch, size_factor, table)
        return self._map_rows(table, function, numbers_per_row, covariates)

    def _map_rows(
        self,
        table: Matrix,
        function: Callable[[torch.Tensor], torch.Tensor],
        numbers_per_row: int = 1,
        covariates: Covariates = NO_COVARIATES,
    ) -> Float32Array:
        """Apply a row-wise function to validated rows."""

        def read(rows: slice) -> torch.Tensor:
            values = covariates.behind(self._scaling.standardise(table[rows]), rows)
            return torch.from_numpy(values).to(self._model.device)

        width = max(numbers_per_row, self.n_features_in_)
        return map_rows(function, read, table.shape[0], numbers_per_row=width)

    def _decoded(
        self,
        codes: Float32Array,
        function: Callable[[torch.Tensor], torch.Tensor],
        batch: ArrayLike | str | None,
        size_factor: ArrayLike | None,
    ) -> Float32Array:
        """Apply a function of the likelihood's parameter to codes and restore the units.

        A chunk at a time, so that beside the result there is little in memory.
        """
        n_rows, n_components = codes.shape
        labels = [batch]
        if isinstance(batch, str) and batch == AVERAGE and batch not in self._batches:
            labels = list(self._batches)
        seen = [
            self._covariates(
                n_rows,
                label if label is None or np.ndim(label) else np.full(n_rows, label),
                size_factor,
            )
            for label in labels
        ]
        width = seen[0].width
        ends = [n_components + width * k for k in range(len(seen))]

        def read(rows: slice) -> torch.Tensor:
            # A copy: `codes` may be the caller's read-only memory map.
            values = np.array(codes[rows])
            for covariates in seen:
                values = covariates.behind(values, rows)
            return torch.from_numpy(values).to(self._model.device)

        def decode(rows: torch.Tensor) -> torch.Tensor:
            z, *covariates = rows.tensor_split(ends, dim=1)
            total = function(self._model.decode(z, covariates[0]))
            for of_batch in covariates[1:]:
                total = total + function(self._model.decode(z, of_batch))
            return total / len(covariates)

        def finish(rows: Float32Array) -> Float32Array:
            table = self._scaling.restore(rows)
            # The way through standardised units may round a hair past the ends.
            return table.clip(0.0, 1.0) if self._architecture.likelihood == "bernoulli" else table

        return map_rows(decode, read, n_rows, numbers_per_row=self.n_features_in_, finish=finish)

    @property
    def _batches(self) -> NDArray[Any]:
        """Labels of the experimental batches of `fit`, perhaps none."""
        return getattr(self, "batches_", np.empty(0, dtype=object))

    def _covariates(
        self,
        n_rows: int,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        table: Matrix | None = None,
    ) -> Covariates:
        """Check what the decoder is told about rows; exposures by default those of `table`."""
        factors = None if size_factor is None else checked_size_factor(size_factor, n_rows)
        return covariates_of(n_rows, batch, factors, self._batches, self._scaling, table)

    def _validated(self, X: ArrayLike | Matrix, *, reset: bool, min_samples: int) -> Matrix:
        """Check a table: an ndarray or CSR matrix, finite, of the right width."""
        likelihood = self.likelihood if reset else self._architecture.likelihood
        return validated_table(self, X, likelihood, reset=reset, min_samples=min_samples)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file, whole or not at all.

        The file is safetensors with JSON metadata: small, executes nothing
        when read, and loads on any machine. A `random_state` that is not an
        integer is saved as None, and a `learning_rate` that is a callable as
        "linear". Of an `encoder` or `decoder` only the name is saved: `load`
        wants it again. The state of `partial_fit`'s optimiser is not
        saved, nor pickled: the next call starts Adam afresh.

        Parameters
        ----------
        path : path-like
            Overwritten if it exists.

        Raises
        ------
        NotFittedError
            Before `fit`.
        FileNotFoundError
            If the folder of `path` does not exist.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        sizes = params["hidden_layer_sizes"]
        # `fit` takes any sequence of integers; JSON has lists, and we tuples.
        kind = list if isinstance(sizes, list) else tuple
        params["hidden_layer_sizes"] = kind(int(size) for size in sizes)
        if not isinstance(params.get("random_state"), Integral):
            params["random_state"] = None
        if callable(params["learning_rate"]):
            params["learning_rate"] = "linear"
        state = self.__getstate__()
        state["_architecture"] = dict(state["_architecture"])
        for name in FACTORIES:
            params[name] = named(state["_architecture"].pop(name))
        write(path, type(self).__name__, params, state)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: EncoderFactory | None = None,
        decoder: DecoderFactory | None = None,
    ) -> Self:
        """Read an estimator written by `save`.

        Parameters
        ----------
        path : path-like
            A file written by `save`.
        encoder, decoder : callable, optional
            The factories it was fitted with, if any: a file holds weights and no code.

        Returns
        -------
        estimator
            On the device its `device` parameter names if that is here, else on the CPU.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If the file is truncated, foreign, of a newer format or another class.
        ValueError
            If `encoder` or `decoder` is missing, or superfluous.
        """
        params, fitted = read(path, cls.__name__)
        for name, factory in zip(FACTORIES, (encoder, decoder), strict=True):
            saved = params.get(name)
            if (saved is None) != (factory is None):
                raise ValueError(
                    f"{str(path)!r} was fitted with {name}={saved}; load it with "
                    f"{cls.__name__}.load(path{'' if saved is None else f', {name}={saved}'})."
                )
            params[name] = fitted["_architecture"][name] = factory
        try:
            estimator = cls(**params)
            estimator.__setstate__({**estimator.__dict__, **fitted})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{str(path)!r} does not describe a {cls.__name__} this skhebae knows ({error})."
            ) from error
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        return pack(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = torch.device("cpu")
        # A model fitted on a device this machine has not goes to the CPU.
        with suppress(ValueError, TypeError):
            device = resolve_device(state.get("device", "cpu"))
        super().__setstate__(unpack(state, device))


def named(factory: Callable[..., object] | None) -> str | None:
    """Name of a factory, for people."""
    return None if factory is None else getattr(factory, "__qualname__", repr(factory))
