"""All of the scikit-learn contract, shared by the three estimators."""

from __future__ import annotations

import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from skhebae.data import FeatureScaling, Rows, open_rows
from skhebae.data.scaling import Matrix
from skhebae.engine import Schedule, Trainer, resolve_device, resolve_precision
from skhebae.engine.inference import map_rows
from skhebae.estimators._sklearn import Interval, StrOptions, fit_context
from skhebae.estimators.assembly import auto_epochs, auto_input_noise, build_model
from skhebae.estimators.latent import MIXTURE_ROWS, CodeMixture, CodeMoments, draw_codes
from skhebae.estimators.persistence import pack, read, unpack, write
from skhebae.likelihoods import GaussianLikelihood
from skhebae.model import Architecture, Autoencoder
from skhebae.networks import ACTIVATIONS
from skhebae.objectives import Objective

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


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta
):
    """Everything but the objective: a subclass gives `__init__` and `_objective`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "likelihood": [StrOptions({"gaussian", "bernoulli"})],
        "input_noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int,
        *,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        likelihood: str,
        input_noise: float | str,
        learning_rate_init: float,
        weight_decay: float,
        batch_size: int,
        max_iter: int | str,
        early_stopping: bool,
        validation_fraction: float,
        n_iter_no_change: int,
        tol: float,
        warm_start: bool,
        device: str,
        precision: str,
        random_state: int | np.random.RandomState | None,
        verbose: int,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.input_noise = input_noise
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _objective(self) -> Objective:
        """Make the objective from the parameters."""

    # Fitting

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike | Matrix, y: object = None) -> Self:
        """Fit the networks to rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows, finite; within [0, 1] for the bernoulli likelihood.
        y : None
            Ignored, present for pipelines.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or `X` is not usable; names it and the cure.
        NonFiniteLossError
            If the loss becomes NaN or infinite. An earlier fit is kept.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is a number and was too small for the loss to settle.
        """
        with self._unchanged_on_failure():
            continues = self.warm_start and self.__sklearn_is_fitted__()
            X = self._validated(X, reset=not continues, min_samples=2)
            schedule = self._schedule(X.shape[0])
            converged = self._train(X, schedule, continues=continues, partial=False)
        if self.max_iter != "auto" and not converged:
            warnings.warn(
                f"max_iter={self.max_iter} epochs reached and the optimisation has not converged "
                "yet; increase max_iter, or set max_iter='auto'.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike | Matrix, y: object = None) -> Self:
        """Train one epoch on these rows, keeping what was learned before.

        The rows of the first call set the features' standardisation, so let
        them be representative. `latent_mean_` and `latent_covariance_` cover
        the rows of all calls, each with the codes it had when seen; the
        mixture of `sample` covers those of the last call.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows.
        y : None
            Ignored, present for pipelines.

        Returns
        -------
        self

        Raises
        ------
        ValueError, NonFiniteLossError
            As `fit`.
        """
        with self._unchanged_on_failure():
            continues = self.__sklearn_is_fitted__()
            X = self._validated(X, reset=not continues, min_samples=2)
            schedule = Schedule(
                n_epochs=1,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate_init,
                decay=False,
            )
            self._train(X, schedule, continues=continues, partial=True)
        return self

    def _schedule(self, n_samples: int) -> Schedule:
        n_epochs = self.max_iter
        if isinstance(n_epochs, str):
            n_epochs = auto_epochs(n_samples, self.batch_size)
        return Schedule(
            n_epochs=int(n_epochs),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate_init,
            tol=self.tol * self.n_features_in_,
            n_iter_no_change=self.n_iter_no_change,
            stop_on_plateau=self.max_iter != "auto",
        )

    def _train(self, X: Matrix, schedule: Schedule, *, continues: bool, partial: bool) -> bool:
        """Train, then assign every fitted attribute; True if training converged."""
        device = resolve_device(self.device)
        history = self.history_ if continues else {}
        n_done = len(history.get("loss", []))
        if not (continues and partial):
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        else:
            seed = self._seed
        # One stream of random numbers per call and purpose.
        streams = np.random.SeedSequence(seed, spawn_key=(n_done,)).generate_state(4)
        initial, order, noise, mixture = (int(stream) for stream in streams)

        objective = self._objective()
        architecture = self._architecture_for(objective)
        if continues:
            self._check_same_architecture(architecture)
            scaling, model = self._scaling, deepcopy(self._model)
        else:
            scaling = FeatureScaling.measure(X)
            generator = torch.Generator().manual_seed(initial)
            model = build_model(architecture, scaling, generator, objective.initial_scale)
        model = model.to(device)
        model.training_dtype = resolve_precision(self.precision, device)

        trainer = Trainer(
            model,
            objective,
            order=torch.Generator().manual_seed(order),
            noise=torch.Generator(device).manual_seed(noise),
            weight_decay=self.weight_decay,
        )
        optimizer_state = getattr(self, "_optimizer_state", None)
        if partial and continues and optimizer_state is not None:
            trainer.optimizer.load_state_dict(deepcopy(optimizer_state))
        input_noise = self.input_noise
        if isinstance(input_noise, str):
            input_noise = auto_input_noise(model, X.shape[0])
        schedule = replace(schedule, input_noise=float(input_noise))

        rows = open_rows(X, scaling, device)
        training, validation = self._split(len(rows), trainer.order, partial)
        with self._progress(schedule.n_epochs, partial) as epochs:
            new_history, converged = trainer.train(rows, training, validation, schedule, epochs)

        model.eval()
        moments, codes = measure_codes(model, objective, rows, mixture)
        if continues and partial:
            moments = self._moments.merge(moments)
        fitted: dict[str, Any] = {
            "_architecture": architecture,
            "_scaling": scaling,
            "_model": model,
            "_moments": moments,
            "_mixture": CodeMixture.fit(codes, mixture % 2**31),
            "_seed": seed,
            "_optimizer_state": trainer.optimizer.state_dict() if partial else None,
            "history_": {k: [*history.get(k, []), *v] for k, v in new_history.items()},
            "n_iter_": n_done + len(new_history["loss"]),
            "latent_mean_": moments.mean,
            "latent_covariance_": moments.aggregated_covariance(
                noise_covariance(objective, moments)
            ),
        }
        if isinstance(model.likelihood, GaussianLikelihood):
            variance = model.likelihood.noise_variance().detach().cpu().double().numpy()
            fitted["noise_variance_"] = variance * scaling.scale**2
        self.__dict__.pop("noise_variance_", None)
        self.__dict__.update(fitted)
        return converged

    def _architecture_for(self, objective: Objective) -> Architecture:
        sizes = tuple(self.hidden_layer_sizes)
        if any(not isinstance(size, Integral) or size < 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold integers >= 1, "
                "for example (128,), or nothing for linear networks."
            )
        return Architecture(
            n_features=self.n_features_in_,
            n_components=int(self.n_components),
            hidden_layer_sizes=tuple(int(size) for size in sizes),
            activation=self.activation,
            likelihood=self.likelihood,
            n_scales=objective.n_scales(int(self.n_components)),
        )

    def _check_same_architecture(self, wanted: Architecture) -> None:
        for name, new, old in zip(wanted._fields, wanted, self._architecture, strict=True):
            if new != old:
                raise ValueError(
                    f"{name} is {new!r}, but the fitted networks that warm_start or partial_fit "
                    f"would continue have {old!r}; set it back, or refit with warm_start=False."
                )

    def _split(
        self, n_rows: int, order: torch.Generator, partial: bool
    ) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Training and validation rows."""
        if partial or not self.early_stopping:
            return np.arange(n_rows), None
        n_validation = max(2, round(self.validation_fraction * n_rows))
        if n_rows - n_validation < 2:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction} leaves "
                f"{max(0, n_rows - n_validation)} of {n_rows} samples to train on; use "
                "early_stopping=False or more samples."
            )
        shuffled = torch.randperm(n_rows, generator=order).numpy()
        return shuffled[n_validation:], shuffled[:n_validation]

    @contextmanager
    def _progress(self, n_epochs: int, partial: bool) -> Iterator[Any]:
        """Yield the epochs, inside a progress bar when `verbose`."""
        if not self.verbose or partial:
            yield range(n_epochs)
            return
        from tqdm.auto import tqdm

        with tqdm(range(n_epochs), desc=type(self).__name__, unit="epoch") as bar:
            yield bar

    @contextmanager
    def _unchanged_on_failure(self) -> Iterator[None]:
        """Undo everything if the block raises, Ctrl-C included."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    # Using the fitted networks

    def transform(self, X: ArrayLike | Matrix) -> Float32Array:
        """Codes of rows: the mean of each row's approximate posterior.

        Deterministic, and the same for a row alone or among others.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `X` does not match the rows of `fit`.
        """
        return self._map_table(X, lambda x: self._model.encode(x)[0])

    def inverse_transform(self, Z: ArrayLike) -> Float32Array:
        """Rows that codes stand for: the mean of p(x | z).

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            In the units of the rows of `fit`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `Z` has not `n_components` columns or is not finite.
        """
        check_is_fitted(self)
        Z = check_array(as_numpy(Z), dtype=np.float32, order="C", input_name="Z")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, but {type(self).__name__} was fitted with "
                f"n_components={self._n_features_out}; pass codes as transform returns them."
            )
        return self._decoded(Z, lambda z: self._model.likelihood.mean(self._model.decode(z)))

    def sample(
        self,
        n_samples: int = 1,
        latent: Literal["mixture", "gaussian", "prior"] = "mixture",
        random_state: int | np.random.RandomState | None = None,
        *,
        noise: bool = False,
    ) -> Float32Array:
        """Generate rows: draw codes and decode them.

        Parameters
        ----------
        n_samples : int, default=1
        latent : {"mixture", "gaussian", "prior"}, default="mixture"
            Where codes come from: a Gaussian mixture fitted to at most 10,000
            training codes, the Gaussian with `latent_mean_` and
            `latent_covariance_`, or N(0, I). Codes that match N(0, I) in their
            moments need not be Gaussian, so the mixture is the most faithful.
        random_state : int, RandomState instance or None, default=None
            Of this draw only; None draws afresh at every call.
        noise : bool, default=False
            Draw from p(x | z) instead of returning its mean.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If `n_samples` or `latent` is not one of the above.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r} must be an integer >= 1.")
        if latent not in ("mixture", "gaussian", "prior"):
            raise ValueError(f"latent={latent!r} must be 'mixture', 'gaussian' or 'prior'.")
        rng = check_random_state(random_state)
        codes = draw_codes(
            latent,
            int(n_samples),
            rng,
            mean=self.latent_mean_,
            covariance=self.latent_covariance_,
            mixture=self._mixture,
        )
        generator = torch.Generator(self._model.device).manual_seed(int(rng.randint(2**31 - 1)))

        def decode(z: torch.Tensor) -> torch.Tensor:
            output = self._model.decode(z)
            likelihood = self._model.likelihood
            return likelihood.sample(output, generator) if noise else likelihood.mean(output)

        return self._decoded(codes.astype(np.float32), decode)

    def score_samples(self, X: ArrayLike | Matrix) -> Float32Array:
        """Evidence lower bound of each row, in nats; higher is more typical.

        ``E_q log p(x | z) - KL(q(z) || N(0, I))``, where q is the Gaussian at
        the row's code whose covariance follows from the decoder's local
        linearisation, ``(I + J^T W J)^-1``. It does not use the encoder's
        noise, so the three estimators (and WAE, which has none) are scored
        alike. The expectation is a deterministic cubature, exact for linear
        decoders with Gaussian likelihood.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), float32
            Nats, summed over features, in the units of the rows of `fit`.

        Raises
        ------
        NotFittedError, ValueError
            As `transform`.
        """
        # Jacobian, its weighted copy and the stack it is built from.
        width = 3 * getattr(self, "n_features_in_", 1) * self.n_components
        return self._map_table(X, lambda x: self._model.score(x), width)

    def score(self, X: ArrayLike | Matrix, y: object = None) -> float:
        """Mean of `score_samples`, in nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : None
            Ignored, present for model selection.

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean(dtype=np.float64))

    def posterior(self, X: ArrayLike | Matrix) -> Posterior:
        """Approximate posterior of each row.

        For HEBAE ``N(mu_i, D_i S D_i)`` (equation 6 of arXiv:2007.10389) with
        S the covariance of all training codes, for VAE ``N(mu_i, diag
        sigma_i^2)``, for WAE a point (a factor of zeros).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

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
        objective = self._objective()
        n_components = self._n_features_out

        def heads(x: torch.Tensor) -> torch.Tensor:
            mu, scales = self._model.encode(x)
            return torch.cat([mu, objective.spread(scales, n_components)], dim=1)

        values = self._map_table(X, heads)
        mean, sigma = values[:, :n_components], values[:, n_components:]
        factor = np.linalg.cholesky(noise_covariance(objective, self._moments))
        return Posterior(mean.copy(), (sigma[:, :, None] * factor).astype(np.float32))

    def _map_table(
        self,
        X: ArrayLike | Matrix,
        function: Callable[[torch.Tensor], torch.Tensor],
        numbers_per_row: int = 1,
    ) -> Float32Array:
        """Validate rows and apply a row-wise function of standardised tensors."""
        check_is_fitted(self)
        table = self._validated(X, reset=False, min_samples=1)

        def read(rows: slice) -> torch.Tensor:
            return torch.from_numpy(self._scaling.standardise(table[rows])).to(self._model.device)

        width = max(numbers_per_row, self.n_features_in_)
        return map_rows(function, read, table.shape[0], numbers_per_row=width)

    def _decoded(
        self, codes: Float32Array, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> Float32Array:
        """Apply a decoding function to codes and restore the units."""

        def read(rows: slice) -> torch.Tensor:
            # A copy: `codes` may be the caller's read-only memory map.
            return torch.from_numpy(np.array(codes[rows])).to(self._model.device)

        rows = map_rows(function, read, len(codes), numbers_per_row=self.n_features_in_)
        return self._scaling.restore(rows)

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file, whole or not at all.

        The file is safetensors with JSON metadata: small, executes nothing
        when read, and loads on any machine. A `random_state` that is not an
        integer is saved as None.

        Parameters
        ----------
        path : path-like
            Overwritten if it exists.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        params = self.get_params(deep=False)
        if not isinstance(params["random_state"], Integral):
            params["random_state"] = None
        fitted = {k: v for k, v in self.__getstate__().items() if k not in params}
        write(path, type(self).__name__, params, fitted)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator written by `save`.

        Parameters
        ----------
        path : path-like

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
        """
        params, fitted = read(path, cls.__name__)
        estimator = cls(**params)
        estimator.__setstate__({**estimator.__dict__, **fitted})
        return estimator

    def __getstate__(self) -> dict[str, Any]:
        return pack(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            device = resolve_device(state.get("device", "cpu"))
        except ValueError:
            # Fitted on a device this machine has not.
            device = torch.device("cpu")
        super().__setstate__(unpack(state, device))

    # The rest of the contract

    @property
    def _n_features_out(self) -> int:
        return self._architecture.n_components

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.likelihood == "bernoulli"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _validated(self, X: ArrayLike | Matrix, *, reset: bool, min_samples: int) -> Matrix:
        """Check a table: an ndarray or CSR matrix, finite, of the right width."""
        try:
            table = validate_data(
                self,
                as_numpy(X),
                reset=reset,
                accept_sparse="csr",
                dtype="numeric",
                ensure_min_samples=min_samples,
            )
        except ValueError as error:
            if "contains NaN" not in str(error):
                raise
            raise ValueError(
                "Input X contains NaN: missing values are not supported yet. Fill them in first, "
                f"for example make_pipeline(SimpleImputer(), {type(self).__name__}())."
            ) from error
        if self.likelihood == "bernoulli":
            low, high = table.min(), table.max()
            if low < 0 or high > 1:
                raise ValueError(
                    f"likelihood='bernoulli' needs X within [0, 1], got values from {low:.4g} to "
                    f"{high:.4g} (negative values in data are not a probability); rescale X with "
                    "MinMaxScaler(clip=True), or use likelihood='gaussian'."
                )
        return table


def as_numpy(X: ArrayLike | Matrix) -> ArrayLike | Matrix:
    """Turn a torch tensor into an array; leave anything else alone."""
    if not isinstance(X, torch.Tensor):
        return X
    tensor = X.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy()


def measure_codes(
    model: Autoencoder, objective: Objective, rows: Rows, seed: int
) -> tuple[CodeMoments, Float32Array]:
    """Moments of the codes of all rows, and at most `MIXTURE_ROWS` codes."""
    n_components = model.encoder.n_components

    def heads(x: torch.Tensor) -> torch.Tensor:
        mu, scales = model.encode(x)
        return torch.cat([mu, objective.spread(scales, n_components)], dim=1)

    def read(chunk: slice) -> torch.Tensor:
        return rows.take(np.arange(chunk.start, chunk.stop))

    width = int(model.likelihood.location.numel())
    values = map_rows(heads, read, len(rows), numbers_per_row=width)
    codes, sigma = values[:, :n_components], values[:, n_components:]
    chosen = np.random.RandomState(seed).permutation(len(codes))[:MIXTURE_ROWS]
    return CodeMoments.measure(codes, sigma), codes[chosen]


def noise_covariance(objective: Objective, moments: CodeMoments) -> NDArray[np.float64]:
    """Covariance C of the posterior ``N(mu_i, D_i C D_i)``, from the training codes."""
    covariance = torch.from_numpy(moments.covariance)
    result: NDArray[np.float64] = objective.noise_covariance(covariance, moments.n_rows).numpy()
    return result
