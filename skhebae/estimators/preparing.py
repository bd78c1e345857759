"""From parameters and validated rows to all that training needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from math import prod
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from skhebae.data import Rows, Scaling, open_rows
from skhebae.data.scaling import Matrix
from skhebae.engine import Checkpoint, Schedule, Trainer, resolve_device, resolve_precision
from skhebae.estimators.assembly import (
    auto_batch_size,
    auto_epochs,
    auto_input_noise,
    build_model,
    measure_scaling,
)
from skhebae.estimators.collective import (
    all_labels,
    all_or_no_factors,
    seed_of_rank,
)
from skhebae.estimators.covariates import as_labels, checked_size_factor, covariates_of
from skhebae.estimators.identity import identity_of
from skhebae.estimators.scoring import ScoredAutoencoder
from skhebae.model import Architecture, Autoencoder
from skhebae.networks import DecoderFactory, EncoderFactory
from skhebae.objectives import Objective
from skhebae.processes import Processes


class Setup(NamedTuple):
    """What `fit` makes before it trains."""

    trainer: Trainer
    rows: Rows
    training: NDArray[np.intp]
    validation: NDArray[np.intp] | None
    schedule: Schedule
    saved: Checkpoint | None
    interrupted: dict[str, Any] | None
    architecture: Architecture
    scaling: Scaling
    batches: NDArray[Any]
    seed: int
    noise: int
    mixture: int


class PreparedAutoencoder(ScoredAutoencoder):
    """The parameters of an estimator, which `__init__` of a subclass assigns, and their use."""

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
    #: In the class too, for pickles of before there were these parameters.
    compile: bool = False
    distributed: bool | str = "auto"

    def _schedule(self, n_samples: int, n_processes: int) -> Schedule:
        batch_size = self._minibatch_rows(n_samples, n_processes)
        n_epochs = self.max_iter
        if isinstance(n_epochs, str):
            n_epochs = auto_epochs(n_samples, n_processes * batch_size, self.likelihood)
        return Schedule(
            n_epochs=int(n_epochs),
            batch_size=batch_size,
            learning_rate=self.learning_rate_init,
            decay=self.learning_rate,
            tol=self.tol * self.n_features_in_,
            n_iter_no_change=self.n_iter_no_change,
            stop_on_plateau=self.max_iter != "auto",
        )

    def _minibatch_rows(self, n_samples: int, n_processes: int) -> int:
        """Rows in a process's part of a minibatch."""
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            return auto_batch_size(n_samples // n_processes, self.n_components)
        return int(batch_size)

    def _set_up(
        self,
        X: Matrix,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        schedule: Schedule,
        processes: Processes,
        continues: bool,
        partial: bool,
        checkpoint: str | os.PathLike[str] | None,
    ) -> Setup:
        """Make all that is trained and that training needs."""
        device = resolve_device(self.device)
        n_done = len(self.history_["loss"]) if continues else 0
        n_rows = X.shape[0]
        labels = None if batch is None else as_labels(batch, n_rows)
        batches = self._batches if continues else all_labels(labels, n_rows, processes)
        if n_rows == 0 and processes.size > 1:
            labels = batches[:0] if len(batches) else None
        factors = None if size_factor is None else checked_size_factor(size_factor, n_rows)
        factors = all_or_no_factors(factors, n_rows, processes)
        objective = self._objective()
        architecture = self._architecture_for(objective, len(batches))
        if continues:
            self._check_same_architecture(architecture)
            scaling = self._scaling
        else:
            scaling = measure_scaling(self.likelihood, X, factors, processes)

        saved, interrupted = None, None
        if checkpoint is not None:
            identity = identity_of(self, X, scaling, n_done, processes)
            saved = Checkpoint(checkpoint, identity, processes)
            interrupted = saved.read()
        resumes = continues and partial
        seed = self._seed if resumes else self._drawn_seed(interrupted)
        seed = processes.gather(seed)[0]
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
        model = model.to(device)
        covariates = covariates_of(n_rows, labels, factors, batches, scaling, table=X)
        own_noise = seed_of_rank(noise, processes.rank)
        trainer = self._trainer(model, objective, order, noise, processes)
        optimizer_state = getattr(self, "_optimizer_state", None)
        if resumes and optimizer_state is not None:
            trainer.optimizer.restore(optimizer_state)
        input_noise = self.input_noise
        if isinstance(input_noise, str):
            input_noise = auto_input_noise(model, sum(processes.gather(n_rows)))
        training, validation = self._split(n_rows, trainer.order, partial, processes)
        window_bytes = int(self.window_mb * 1e6)
        return Setup(
            trainer=trainer,
            rows=open_rows(X, scaling, device, covariates, window_bytes=window_bytes),
            training=training,
            validation=validation,
            schedule=replace(schedule, input_noise=float(input_noise)),
            saved=saved,
            interrupted=interrupted,
            architecture=architecture,
            scaling=scaling,
            batches=batches,
            seed=seed,
            noise=own_noise,
            mixture=mixture,
        )

    def _trainer(
        self, model: Autoencoder, objective: Objective, order: int, noise: int, processes: Processes
    ) -> Trainer:
        """Make the trainer of a model from the seeds of two streams."""
        device = model.device
        largest_layer = max(p.numel() for p in model.parameters())
        model.training_dtype = resolve_precision(self.precision, device, largest_layer)
        own_order, own_noise = (seed_of_rank(seed, processes.rank) for seed in (order, noise))
        shared = torch.Generator(device).manual_seed(noise) if processes.size > 1 else None
        return Trainer(
            model,
            objective,
            order=torch.Generator().manual_seed(own_order),
            noise=torch.Generator(device).manual_seed(own_noise),
            weight_decay=self.weight_decay,
            compiles=self.compile,
            # A user's module may draw from the global random state, as dropout does.
            uses_global_state=self.encoder is not None or self.decoder is not None,
            processes=processes,
            shared_noise=shared,
        )

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
        self, n_rows: int, order: torch.Generator, partial: bool, processes: Processes
    ) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """Training and validation rows of this process."""
        if partial or not self.early_stopping:
            return np.arange(n_rows), None
        n_validation = round(self.validation_fraction * n_rows)
        if processes.size == 1:
            n_validation = max(2, n_validation)
        counts = processes.gather((n_rows, n_validation))
        total, held_out = (sum(of) for of in zip(*counts, strict=True))
        if total - held_out < 2 or held_out < 2:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction} leaves "
                f"{max(0, total - held_out)} of {total} samples to train on; use "
                "early_stopping=False or more samples."
            )
        shuffled = torch.randperm(n_rows, generator=order).numpy()
        return shuffled[n_validation:], shuffled[:n_validation]
