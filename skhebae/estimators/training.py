"""From validated rows to a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
    check_same,
    processes_of,
    seed_of_rank,
    total_rows,
)
from skhebae.estimators.covariates import as_labels, checked_size_factor, covariates_of
from skhebae.estimators.fitting import fit_noise_variance, measure_codes, noise_covariance
from skhebae.estimators.identity import identity_of, parameters_of
from skhebae.estimators.latent import CodeMixture
from skhebae.estimators.scoring import ScoredAutoencoder
from skhebae.likelihoods import GaussianLikelihood, Likelihood, NegativeBinomialLikelihood
from skhebae.model import Architecture
from skhebae.networks import DecoderFactory, EncoderFactory, global_random_state
from skhebae.objectives import Objective
from skhebae.processes import Processes, losses_named

#: Attributes that depend on the likelihood, or on what `fit` was given, and those that
#: `skhebae.tl` adds.
OPTIONAL_ATTRIBUTES = ("noise_variance_", "theta_", "batches_", "anndata_")


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
    #: In the class too, for pickles of before there was the parameter.
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

    @contextmanager
    def _together(self, checkpoint: str | os.PathLike[str] | None = None) -> Iterator[Processes]:
        """Yield the processes that fit together, and undo everything if the block raises."""
        with self._unchanged_on_failure():
            processes = processes_of(self.distributed, resolve_device(self.device))
            with losses_named(checkpoint) if processes.size > 1 else nullcontext():
                yield processes

    def _agreed_table(
        self, X: ArrayLike | Matrix, continues: bool, processes: Processes
    ) -> tuple[Matrix, int]:
        """Check the table of this process; return it, and the rows of all."""
        with processes.agreement():
            min_samples = 2 if processes.size == 1 else 0
            table = self._validated(X, reset=not continues, min_samples=min_samples)
            names = getattr(self, "feature_names_in_", None)
            described = {
                "n_features": int(table.shape[1]),
                "feature names": None if names is None else names.tolist(),
                "whether they are fitted": continues,
                "epochs before": len(self.history_["loss"]) if continues else 0,
                **parameters_of(self),
            }
            check_same(described, processes)
            return table, total_rows(table.shape[0], 2, processes)

    def _train(
        self,
        X: Matrix,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        schedule: Schedule,
        *,
        processes: Processes,
        continues: bool,
        partial: bool,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> bool:
        """Train, then assign every fitted attribute; True if training converged."""
        with processes.agreement():
            setup = self._set_up(
                X, batch, size_factor, schedule, processes, continues, partial, checkpoint
            )
        trainer, schedule = setup.trainer, setup.schedule
        custom = trainer.uses_global_state
        device = trainer.model.device
        drawing = global_random_state(setup.noise, device) if custom else nullcontext()
        shows = self.verbose and not partial and processes.rank == 0
        with drawing, self._progress(schedule.n_epochs, bool(shows)) as epochs:
            new_history, converged = trainer.train(
                setup.rows,
                setup.training,
                setup.validation,
                schedule,
                epochs,
                setup.saved,
                setup.interrupted,
            )
        with processes.agreement():
            fitted = self._measured(setup, continues=continues, partial=partial)
        processes.share([*trainer.model.parameters(), *trainer.model.buffers()])
        history = self.history_ if continues else {}
        fitted["history_"] = {k: [*history.get(k, []), *v] for k, v in new_history.items()}
        fitted["n_iter_"] = len(fitted["history_"]["loss"])
        fitted |= learned_by(trainer.model.likelihood, setup.scaling)
        if not continues:
            for name in OPTIONAL_ATTRIBUTES:
                self.__dict__.pop(name, None)
            if len(setup.batches):
                fitted["batches_"] = setup.batches
        self.__dict__.update(fitted)
        return converged

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
            labels = batches if len(batches) == 0 else batches[:0]
            labels = None if len(batches) == 0 else labels
        factors = None if size_factor is None else checked_size_factor(size_factor, n_rows)
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
        covariates = covariates_of(n_rows, labels, factors, batches, scaling, table=X)
        model = model.to(device)
        largest_layer = max(p.numel() for p in model.parameters())
        model.training_dtype = resolve_precision(self.precision, device, largest_layer)

        own_order, own_noise = (seed_of_rank(of, processes.rank) for of in (order, noise))
        trainer = Trainer(
            model,
            objective,
            order=torch.Generator().manual_seed(own_order),
            noise=torch.Generator(device).manual_seed(own_noise),
            weight_decay=self.weight_decay,
            # A user's module may draw from the global random state, as dropout does.
            uses_global_state=architecture.encoder is not None or architecture.decoder is not None,
            processes=processes,
            shared_noise=torch.Generator(device).manual_seed(noise) if processes.size > 1 else None,
        )
        optimizer_state = getattr(self, "_optimizer_state", None)
        if resumes and optimizer_state is not None:
            trainer.resume(deepcopy(optimizer_state))
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

    def _measured(self, setup: Setup, *, continues: bool, partial: bool) -> dict[str, Any]:
        """Finish the noise variances, and measure the codes: the private attributes."""
        trainer, processes = setup.trainer, setup.trainer.processes
        model, objective = trainer.model, trainer.objective
        model.eval()
        moments, codes = measure_codes(model, objective, setup.rows, setup.mixture, processes)
        if continues and partial:
            moments = self._moments.merge(moments)
        n_training = sum(processes.gather(len(setup.training)))
        batch_size = min(processes.size * setup.schedule.batch_size, n_training)
        posterior_noise = noise_covariance(objective, moments, batch_size)
        if not partial:
            fit_noise_variance(trainer, posterior_noise, setup.rows)
        return {
            "_architecture": setup.architecture,
            "_scaling": setup.scaling,
            "_model": model,
            "_moments": moments,
            # Machines may round differently, and the mixture's steps would not forgive it.
            "_mixture": processes.from_first(
                lambda: CodeMixture.fit(codes, setup.mixture % 2**31, brief=partial)
            ),
            "_seed": setup.seed,
            "_optimizer_state": trainer.optimizer.state_dict() if partial else None,
            "latent_mean_": moments.mean,
            "latent_covariance_": moments.aggregated_covariance(posterior_noise),
            "_noise_covariance": posterior_noise,
        }

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

    @contextmanager
    def _progress(self, n_epochs: int, shows: bool) -> Iterator[Any]:
        """Yield the epochs, inside a progress bar if it `shows`."""
        if not shows:
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
