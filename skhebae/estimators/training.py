"""From tables to a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae.data import Scaling
from skhebae.data.scaling import Matrix
from skhebae.engine import Schedule, resolve_device
from skhebae.estimators.collective import (
    check_same,
    processes_of,
    total_rows,
)
from skhebae.estimators.fitting import fit_noise_variance, measure_codes, noise_covariance
from skhebae.estimators.identity import parameters_of
from skhebae.estimators.latent import CodeMixture, LateMixture
from skhebae.estimators.preparing import PreparedAutoencoder, Setup
from skhebae.likelihoods import GaussianLikelihood, Likelihood, NegativeBinomialLikelihood
from skhebae.networks import global_random_state
from skhebae.processes import Processes, losses_named

#: Attributes that depend on the likelihood, or on what `fit` was given, and those that
#: `skhebae.tl` adds.
OPTIONAL_ATTRIBUTES = ("noise_variance_", "theta_", "batches_", "anndata_")


class TrainedAutoencoder(PreparedAutoencoder):
    """Training, alone or together with other processes."""

    @contextmanager
    def _together(self, checkpoint: str | os.PathLike[str] | None = None) -> Iterator[Processes]:
        """Yield the processes that fit together, and undo everything if the block raises."""
        with self._unchanged_on_failure():
            processes = processes_of(self.distributed, resolve_device(self.device))
            with losses_named(checkpoint) if processes.size > 1 else nullcontext():
                yield processes

    def _agreed_table(
        self,
        X: ArrayLike | Matrix,
        continues: bool,
        processes: Processes,
        checkpoint: str | os.PathLike[str] | None = None,
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
                "whether checkpoint= is given": checkpoint is not None,
                **parameters_of(self),
            }
            described.pop("random_state", None)  # that of rank 0 is for all
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
                lambda: (LateMixture if partial else CodeMixture.fit)(codes, setup.mixture % 2**31)
            ),
            "_seed": setup.seed,
            "_optimizer_state": trainer.optimizer.state() if partial else None,
            "latent_mean_": moments.mean,
            "latent_covariance_": moments.aggregated_covariance(posterior_noise),
            "_noise_covariance": posterior_noise,
        }

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
