"""From validated rows to a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skhebae.data import Scaling, open_rows
from skhebae.data.scaling import Matrix
from skhebae.engine import Checkpoint, Schedule, Trainer, resolve_device, resolve_precision
from skhebae.estimators.assembly import (
    auto_batch_size,
    auto_epochs,
    auto_input_noise,
    build_model,
    measure_scaling,
)
from skhebae.estimators.covariates import as_labels, checked_size_factor, covariates_of
from skhebae.estimators.fitting import fit_noise_variance, measure_codes, noise_covariance
from skhebae.estimators.identity import identity_of
from skhebae.estimators.latent import CodeMixture, LateMixture
from skhebae.estimators.scoring import ScoredAutoencoder
from skhebae.likelihoods import GaussianLikelihood, Likelihood, NegativeBinomialLikelihood
from skhebae.model import Architecture
from skhebae.networks import DecoderFactory, EncoderFactory, global_random_state
from skhebae.objectives import Objective

#: Attributes that depend on the likelihood, or on what `fit` was given, and those that
#: `skhebae.tl` adds.
OPTIONAL_ATTRIBUTES = ("noise_variance_", "theta_", "batches_", "anndata_")


class TrainedAutoencoder(ScoredAutoencoder):
    """Training from the parameters of an estimator; `__init__` of a subclass assigns them."""

    n_components: int
    hidden_layer_sizes: Sequence[int]
    activation: str
    encode_batch: bool
    encoder: EncoderFactory | None
    decoder: DecoderFactory | None
    image_shape: Sequence[int] | None
    input_noise: float | str
    learning_rate_init: float
    learning_rate: str | Callable[[int], float]
    weight_decay: float
    batch_size: int | str
    max_iter: int | str
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    device: str
    precision: str
    random_state: int | np.random.RandomState | None
    window_mb: float
    verbose: int

    def _schedule(self, n_samples: int) -> Schedule:
        batch_size = self._minibatch_rows(n_samples)
        n_epochs = self.max_iter
        if isinstance(n_epochs, str):
            n_epochs = auto_epochs(n_samples, batch_size, self.likelihood)
        return Schedule(
            n_epochs=int(n_epochs),
            batch_size=batch_size,
            learning_rate=self.learning_rate_init,
            decay=self.learning_rate,
            tol=self.tol * self.n_features_in_,
            n_iter_no_change=self.n_iter_no_change,
            stop_on_plateau=self.max_iter != "auto",
        )

    def _minibatch_rows(self, n_samples: int) -> int:
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            return auto_batch_size(n_samples, self.n_components)
        return int(batch_size)

    def _train(
        self,
        X: Matrix,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        schedule: Schedule,
        *,
        continues: bool,
        partial: bool,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> bool:
        """Train, then assign every fitted attribute; True if training converged."""
        device = resolve_device(self.device)
        history = self.history_ if continues else {}
        n_done = len(history.get("loss", []))
        n_rows = X.shape[0]
        batches = self._batches
        if not continues:
            batches = np.empty(0) if batch is None else np.unique(as_labels(batch, n_rows))
        factors = None if size_factor is None else checked_size_factor(size_factor, n_rows)
        objective = self._objective()
        architecture = self._architecture_for(objective, len(batches))
        if continues:
            self._check_same_architecture(architecture)
            scaling = self._scaling
        else:
            scaling = measure_scaling(self.likelihood, X, factors)

        saved, interrupted = None, None
        if checkpoint is not None:
            saved = Checkpoint(checkpoint, identity_of(self, X, scaling, n_done))
            interrupted = saved.read()
        resumes = continues and partial
        seed = self._seed if resumes else self._drawn_seed(interrupted)
        if saved is not None:
            saved.facts["seed"] = seed
        # One stream of random numbers per call and purpose.
        streams = np.random.SeedSequence(seed, spawn_key=(n_done,)).generate_state(4)
        initial, order, noise, mixture = (int(stream) for stream in streams)
        if continues:
            model = deepcopy(self._model)
        else:
            generator = torch.Generator().manual_seed(initial)
            model = build_model(architecture, scaling, generator, objective.initial_scale)
        covariates = covariates_of(n_rows, batch, factors, batches, scaling, table=X)
        model = model.to(device)
        largest_layer = max(p.numel() for p in model.parameters())
        model.training_dtype = resolve_precision(self.precision, device, largest_layer)

        # A user's module may draw from the global random state, as dropout does.
        custom = architecture.encoder is not None or architecture.decoder is not None
        trainer = Trainer(
            model,
            objective,
            order=torch.Generator().manual_seed(order),
            noise=torch.Generator(device).manual_seed(noise),
            weight_decay=self.weight_decay,
            uses_global_state=custom,
        )
        optimizer_state = getattr(self, "_optimizer_state", None)
        if resumes and optimizer_state is not None:
            trainer.optimizer.restore(optimizer_state)
        input_noise = self.input_noise
        if isinstance(input_noise, str):
            input_noise = auto_input_noise(model, n_rows)
        schedule = replace(schedule, input_noise=float(input_noise))

        rows = open_rows(X, scaling, device, covariates, window_bytes=int(self.window_mb * 1e6))
        training, validation = self._split(len(rows), trainer.order, partial)
        drawing = global_random_state(noise, device) if custom else nullcontext()
        with drawing, self._progress(schedule.n_epochs, partial) as epochs:
            new_history, converged = trainer.train(
                rows, training, validation, schedule, epochs, saved, interrupted
            )

        model.eval()
        moments, codes = measure_codes(model, objective, rows, mixture)
        if resumes:
            moments = self._moments.merge(moments)
        batch_size = min(schedule.batch_size, len(training))
        posterior_noise = noise_covariance(objective, moments, batch_size)
        if not partial:
            fit_noise_variance(trainer, posterior_noise, rows)
        fitted: dict[str, Any] = {
            "_architecture": architecture,
            "_scaling": scaling,
            "_model": model,
            "_moments": moments,
            "_mixture": (LateMixture if partial else CodeMixture.fit)(codes, mixture % 2**31),
            "_seed": seed,
            "_optimizer_state": trainer.optimizer.state() if partial else None,
            "history_": {k: [*history.get(k, []), *v] for k, v in new_history.items()},
            "n_iter_": n_done + len(new_history["loss"]),
            "latent_mean_": moments.mean,
            "latent_covariance_": moments.aggregated_covariance(posterior_noise),
            "_noise_covariance": posterior_noise,
            **learned_by(model.likelihood, scaling),
        }
        if not continues:
            for name in OPTIONAL_ATTRIBUTES:
                self.__dict__.pop(name, None)
            if len(batches):
                fitted["batches_"] = batches
        self.__dict__.update(fitted)
        return converged

    def _drawn_seed(self, interrupted: dict[str, Any] | None) -> int:
        """Seed of a fit: that of its interrupted beginning, else one of `random_state`."""
        if interrupted is not None:
            return int(interrupted["seed"])
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _architecture_for(self, objective: Objective, n_batches: int) -> Architecture:
        sizes = tuple(self.hidden_layer_sizes)
        if any(not isinstance(size, Integral) or size < 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold integers >= 1, "
                "for example (128,), or nothing for linear networks."
            )
        encode_batch = bool(self.encode_batch and n_batches)
        if encode_batch and self.encoder is not None:
            raise ValueError(
                "encode_batch=True shows labels to the built-in encoder alone; leave it out, or "
                "leave encoder= out."
            )
        return Architecture(
            n_features=self.n_features_in_,
            n_components=int(self.n_components),
            hidden_layer_sizes=tuple(int(size) for size in sizes),
            activation=self.activation,
            likelihood=self.likelihood,
            n_scales=objective.n_scales(int(self.n_components)),
            n_batches=n_batches,
            encode_batch=encode_batch,
            encoder=self.encoder,
            decoder=self.decoder,
            image_shape=self._image_shape(),
        )

    def _image_shape(self) -> tuple[int, ...] | None:
        if self.image_shape is None:
            return None
        shape = tuple(self.image_shape)
        if any(not isinstance(size, Integral) or size < 1 for size in shape):
            raise ValueError(
                f"image_shape={self.image_shape!r} must hold integers >= 1, for example "
                "(1, 28, 28)."
            )
        if prod(shape) != self.n_features_in_:
            raise ValueError(
                f"image_shape={self.image_shape!r} has {prod(shape)} numbers, but X has "
                f"{self.n_features_in_} features; rows are images flattened in C order."
            )
        if self.encoder is None and self.decoder is None:
            raise ValueError(
                f"image_shape={self.image_shape!r} is the shape that encoder= and decoder= see, "
                "and neither is given; the built-in perceptrons see flat rows."
            )
        return tuple(int(size) for size in shape)

    def _check_same_architecture(self, wanted: Architecture) -> None:
        for field, new, old in zip(wanted._fields, wanted, self._architecture, strict=True):
            if new != old:
                name = "posterior_scale's width" if field == "n_scales" else field
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


def learned_by(likelihood: Likelihood, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
    """Public attributes of a trained likelihood, per feature, in the units of its rows."""
    if isinstance(likelihood, GaussianLikelihood):
        variance = likelihood.noise_variance().detach().cpu().double().numpy()
        return {"noise_variance_": variance * scaling.scale**2}
    if isinstance(likelihood, NegativeBinomialLikelihood):
        return {"theta_": likelihood.theta().detach().cpu().double().numpy()}
    return {}
