"""All of the scikit-learn contract, shared by the three estimators."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags

from skhebae.data import is_stream
from skhebae.data.scaling import Matrix
from skhebae.engine import Schedule
from skhebae.estimators._sklearn import Interval, StrOptions, fit_context
from skhebae.estimators.assembly import LIKELIHOODS
from skhebae.estimators.streams import fit_each
from skhebae.estimators.tables import opened
from skhebae.estimators.training import TrainedAutoencoder
from skhebae.networks import ACTIVATIONS, DecoderFactory, EncoderFactory

Float32Array = NDArray[np.float32]


class BaseAutoencoder(TrainedAutoencoder):
    """Everything but the objective: a subclass gives `__init__` and `_objective`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "likelihood": [StrOptions(LIKELIHOODS)],
        "encode_batch": ["boolean"],
        "input_noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "encoder": [callable, None],
        "decoder": [callable, None],
        "image_shape": [tuple, list, None],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [StrOptions({"linear", "constant"}), callable],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": ["random_state"],
        "window_mb": [Interval(Real, 0, None, closed="neither")],
        "compile": ["boolean"],
        "distributed": ["boolean", StrOptions({"auto"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int,
        *,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        likelihood: str,
        encode_batch: bool,
        encoder: EncoderFactory | None,
        decoder: DecoderFactory | None,
        image_shape: Sequence[int] | None,
        input_noise: float | str,
        learning_rate_init: float,
        learning_rate: str | Callable[[int], float],
        weight_decay: float,
        batch_size: int | str,
        max_iter: int | str,
        early_stopping: bool,
        validation_fraction: float,
        n_iter_no_change: int,
        tol: float,
        warm_start: bool,
        device: str,
        precision: str,
        random_state: int | np.random.RandomState | None,
        window_mb: float,
        compile: bool,
        distributed: bool | str,
        verbose: int,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.encode_batch = encode_batch
        self.encoder = encoder
        self.decoder = decoder
        self.image_shape = image_shape
        self.input_noise = input_noise
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
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
        self.window_mb = window_mb
        self.compile = compile
        self.distributed = distributed
        self.verbose = verbose

    # Fitting

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Fit the networks to rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows, finite; within [0, 1] for the bernoulli likelihood,
            integers >= 0 for counts.
        y : None
            Ignored, present for pipelines.
        batch : array-like of shape (n_samples,), optional
            Label of each row's experimental batch, text or numbers. The decoder sees
            it, so that codes need not tell batches apart.
        size_factor : array-like of shape (n_samples,), optional
            Exposure of each row of counts, in any unit, by default its total.
        checkpoint : path-like, optional
            File to which the state of training is written at the end of epochs, and every
            two minutes within a long one, but at less than 5 % of the time. If it is there,
            training goes on from it, to the same result as without interruption. It stays
            when `fit` is done.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, `batch`, `size_factor` or `X` is not usable; names it and the cure.
        CheckpointError
            If `checkpoint` is a file of another fit: other rows, or other parameters.
        NonFiniteLossError
            If the loss becomes NaN or infinite. An earlier fit is kept.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is a number and was too small for the loss to settle.
        """
        with self._together(checkpoint) as processes:
            continues = self.warm_start and self.__sklearn_is_fitted__()
            X, n_rows = self._agreed_table(X, continues, processes, checkpoint)
            schedule = self._schedule(n_rows, processes.size)
            converged = self._train(
                X,
                batch,
                size_factor,
                schedule,
                processes=processes,
                continues=continues,
                partial=False,
                checkpoint=checkpoint,
            )
        if self.max_iter != "auto" and not converged:
            warnings.warn(
                f"max_iter={self.max_iter} epochs reached and the optimisation has not converged "
                "yet; increase max_iter, or set max_iter='auto'.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike | Matrix | Iterable[Any],
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Self:
        """Train one epoch on these rows, keeping what was learned before.

        The rows of the first call set the features' standardisation, so let
        them be representative. `latent_mean_` and `latent_covariance_` cover
        the rows of all calls, each with the codes it had when seen; the
        mixture of `sample` covers those of the last call. A copy or a loaded
        model goes on with the same networks but a fresh optimiser.

        A stream of tables, such as a generator or a loader, is read once, one
        table ahead by a thread. It means the same as a call for each of them:
        an error leaves what was learned from those before.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 2 rows, in minibatches of `batch_size`. Or any iterable of tables that
            is no sequence and has no shape: arrays, sparse matrices, tensors, AnnData,
            mappings with an "X", or pairs that begin with a table.
        y : None
            Ignored, present for pipelines.
        batch : array-like of shape (n_samples,), optional
            As `fit`; the rows of the first call must have all labels. Not with a stream.
        size_factor : array-like of shape (n_samples,), optional
            As `fit`. Not with a stream.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, NonFiniteLossError
            As `fit`; of a stream with a note that says at which item.
        """
        if is_stream(X):
            fit_each(X, self.partial_fit, batch, size_factor)
            return self
        # scikit-learn checks parameters on the first call only.
        self._validate_params()
        with self._together() as processes:
            continues = self.__sklearn_is_fitted__()
            X, n_rows = self._agreed_table(X, continues, processes)
            schedule = Schedule(
                n_epochs=1,
                batch_size=self._minibatch_rows(n_rows, processes.size),
                learning_rate=self.learning_rate_init,
                decay="constant",
            )
            self._train(
                X,
                batch,
                size_factor,
                schedule,
                processes=processes,
                continues=continues,
                partial=True,
            )
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Float32Array:
        """Fit to rows and return their codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            As `fit`.
        y : None
            Ignored, present for pipelines.
        batch, size_factor : array-like of shape (n_samples,), optional
            As `fit`.
        checkpoint : path-like, optional
            As `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            As `transform`.
        """
        X = opened(self, X)
        fitted = self.fit(X, y, batch=batch, size_factor=size_factor, checkpoint=checkpoint)
        if tuple(getattr(X, "shape", ()))[:1] == (0,):  # what one of several processes may have
            return np.empty((0, self._n_features_out), dtype=np.float32)
        codes: Float32Array = fitted.transform(X, batch=batch)
        return codes

    # The rest of the contract

    @property
    def _n_features_out(self) -> int:
        return int(self._architecture.n_components)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.likelihood != "gaussian"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
