"""One epoch for training and validation alike, and the loop around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Rows
from skhebae.engine.adam import Adam
from skhebae.engine.checkpoint import Checkpoint, as_arrays, as_tensors
from skhebae.engine.chunks import rows_per_chunk
from skhebae.engine.graphs import GraphedStep, can_be_captured
from skhebae.engine.parallel import has_idle_parameters, mean_over, of_all_ranks, of_rank, split
from skhebae.engine.schedule import EarlyStopping, Schedule, is_flat
from skhebae.engine.threads import fitting_threads
from skhebae.engine.unfinished import UnfinishedEpoch
from skhebae.exceptions import NonFiniteLossError
from skhebae.likelihoods import GaussianLikelihood
from skhebae.model import Autoencoder
from skhebae.networks import (
    global_state,
    set_global_state,
)
from skhebae.noise import POOL_SIZE, NoisePool
from skhebae.objectives import Objective, Terms
from skhebae.processes import ALONE, WHOLE, Part, Processes

#: Patience counts at least this many optimiser steps: an epoch of a small
#: table is one or two, too few to call a loss flat.
PATIENCE_STEPS = 100

#: Steps between two measurements of `Trainer.code_variance_loss`, and the rows
#: each looks at.
CODE_VARIANCE_STEPS = 50
CODE_VARIANCE_ROWS = 32

History = dict[str, list[float]]
HISTORY_KEYS = ("loss", "reconstruction", "penalty", "elbo", "validation_loss", "seconds")


class LossTerms(NamedTuple):
    """Means over one minibatch, each (), nats.

    Of several processes each has numbers whose mean over processes these are.
    """

    loss: Tensor
    reconstruction: Tensor
    penalty: Tensor
    elbo: Tensor


@dataclass
class Trainer:
    """An autoencoder, its objective and its optimiser.

    Attributes
    ----------
    model : Autoencoder
    objective : Objective
    order : torch.Generator
        On the CPU, for the order of the rows.
    noise : torch.Generator
        On the model's device, for everything drawn in a step; by one of several processes,
        for what no other has to know.
    weight_decay : float
        Decoupled decay of the weight matrices (not of biases or noise variances).
    compiles : bool
        Whether the objective goes through torch's compiler.
    uses_global_state : bool
        Whether modules of the user may draw from the global random state, as dropout does.
    processes : Processes
        Those that train this model together, each on its own rows.
    shared_noise : torch.Generator, optional
        Of several processes, in the same state in all: for what is drawn for a whole minibatch.
    """

    model: Autoencoder
    objective: Objective
    order: torch.Generator
    noise: torch.Generator
    weight_decay: float = 0.0
    compiles: bool = False
    uses_global_state: bool = False
    processes: Processes = ALONE
    shared_noise: torch.Generator | None = None
    optimizer: Adam = field(init=False)
    n_steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.optimizer = Adam(self.model.parameters(), self.weight_decay)
        self._objective: Callable[..., Terms] = self.objective
        if self.compiles:
            # Not `prior_penalty`, whose cache the compiler would not keep.
            self._objective = torch.compile(self.objective.__call__, dynamic=False)
        self._forward: Callable[..., LossTerms] = self.loss_terms
        self._graphs: tuple[float, GraphedStep] | None = None

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, of arrays and numbers."""
        moments = self.optimizer.state()
        generators = {name: of.get_state() for name, of in self._generators().items()}
        if self.uses_global_state:
            generators |= global_state(self.model.device)
        return {
            "parameters": as_arrays(dict(self.model.named_parameters())),
            "buffers": as_arrays(dict(self.model.named_buffers())),
            "moments": {str(i): as_arrays(of) for i, of in moments.items()},
            "generators": of_all_ranks(self.processes, as_arrays(generators)),
            "n_steps": self.n_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        tensors = as_tensors({**state["parameters"], **state["buffers"]})
        with torch.no_grad():
            for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
                tensor.copy_(tensors[name])
        moments = {int(i): as_tensors(of) for i, of in state["moments"].items()}
        self.optimizer.restore(moments)
        generators = as_tensors(of_rank(self.processes, state["generators"]))
        for name, generator in self._generators().items():
            generator.set_state(generators[name])
        if self.uses_global_state:
            set_global_state(generators, self.model.device)
        self.n_steps = state["n_steps"]

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"order": self.order, "noise": self.noise}
        return generators | ({"shared": self.shared_noise} if self.shared_noise else {})

    def loss_terms(
        self,
        x: Tensor,
        generator: torch.Generator,
        input_noise: float = 0.0,
        part: Part = WHOLE,
    ) -> LossTerms:
        """Evaluate the objective on one minibatch, or on this process's part of it."""
        terms = self._objective(self.model, x, generator, input_noise, part)
        reconstruction = part.mean(terms.reconstruction)
        n_components = self.model.encoder.n_components
        reference = self.objective.prior_penalty(part.n_rows(len(x)), n_components)
        penalty = terms.penalty(part.mean) - reference
        loss = reconstruction + self.objective.weight * penalty
        return LossTerms(loss, reconstruction, penalty, terms.elbo(part.mean))

    @property
    def counts_code_variance(self) -> bool:
        """Whether noise variances must count what codes lack in noise."""
        gaussian = isinstance(self.model.likelihood, GaussianLikelihood)
        return gaussian and self.objective.row_weight < 1.0

    def measure_code_variance(self, x: Tensor, part: Part = WHOLE) -> None:
        """Measure on `x` what `GaussianLikelihood.code_variance_loss` counts."""
        likelihood = self.model.likelihood
        assert isinstance(likelihood, GaussianLikelihood)
        self.model.eval()
        with torch.no_grad():
            few = x[: jacobian_rows(self.model, CODE_VARIANCE_ROWS)]
            variance = torch.zeros_like(likelihood.code_variance)
            if len(few) > 0:
                mu, _ = self.model.encode(few)
                outputs = self.model.jacobian(mu, self.model.covariates(few))
                variance = self.model.code_variance(*outputs, self.objective.row_weight)
            likelihood.code_variance.copy_(part.average(variance))
        self.model.train()

    def step(self, x: Tensor, input_noise: float, part: Part = WHOLE) -> LossTerms:
        """Move the weights by one minibatch, or this process's part of it."""
        terms = self._forward(x, self.noise, input_noise, part)
        loss = terms.loss
        if self.counts_code_variance:
            # It moves the noise variances alone, and is not reported.
            likelihood = self.model.likelihood
            assert isinstance(likelihood, GaussianLikelihood)
            loss = loss + likelihood.code_variance_loss()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return terms

    def _graphed(self, input_noise: float) -> Callable[[Tensor], LossTerms] | None:
        """`step` as CUDA graphs where that can be, None elsewhere."""
        if self.processes.size > 1 or not can_be_captured(self.model):
            return None
        if self._graphs is None or self._graphs[0] != input_noise:

            def step(x: Tensor) -> Tensor:
                return torch.stack([term.detach() for term in self.step(x, input_noise)])

            self._graphs = input_noise, GraphedStep(step, [self.noise])
        graphs = self._graphs[1]
        return lambda x: LossTerms(*graphs(x).unbind())

    def train_epoch(
        self,
        rows: Rows,
        indices: NDArray[np.intp],
        schedule: Schedule,
        epoch: int,
        unfinished: UnfinishedEpoch | None = None,
    ) -> dict[str, float]:
        """One pass of optimiser steps over `indices` in a fresh order."""
        self.model.train()
        # A pool for each epoch: training can go on from the end of any without it.
        draws_much = len(indices) * self.model.n_features > 2 * POOL_SIZE
        pays = draws_much and schedule.input_noise > 0.0 and self.noise.device.type == "cpu"
        self.model.noise_pool = NoisePool(self.noise) if pays else None
        if unfinished is not None:
            unfinished.begin(self.order, self.model.noise_pool, self.model.device)
        minibatches = split(
            rows.shuffled(indices, self.order),
            schedule.batch_size,
            self.processes,
            self.shared_noise or self.noise,
        )

        graphed = self._graphed(schedule.input_noise)

        def step(x: Tensor, i: int) -> LossTerms:
            self.optimizer.learning_rate = schedule.rate(epoch, i / len(minibatches.indices))
            part = minibatches.parts[i]
            if self.counts_code_variance and self.n_steps % CODE_VARIANCE_STEPS == 0:
                self.measure_code_variance(x, part)
            self.n_steps += 1
            return graphed(x) if graphed else self.step(x, schedule.input_noise, part)

        try:
            with fitting_threads(self.model, schedule.batch_size):
                means = run_epoch(step, rows, minibatches.indices, minibatches.sizes, unfinished)
        finally:
            self.model.noise_pool = None
        self.processes.share(self.model.buffers())
        return mean_over(self.processes, means)

    def validate(self, rows: Rows, indices: NDArray[np.intp], schedule: Schedule) -> float:
        """Loss of held-out rows, of the same terms and with the same noise at every call."""
        self.model.eval()
        generator = torch.Generator(self.model.device).manual_seed(0)
        order = rows.shuffled(indices, torch.Generator().manual_seed(0))
        # All that is drawn of held-out rows is drawn for the whole minibatch.
        minibatches = split(order, schedule.batch_size, self.processes, generator)

        def terms(x: Tensor, i: int) -> LossTerms:
            return self.loss_terms(x, generator, part=minibatches.parts[i])

        with torch.no_grad():
            means = run_epoch(terms, rows, minibatches.indices, minibatches.sizes)
        return mean_over(self.processes, means)["loss"]

    def train(
        self,
        rows: Rows,
        training: NDArray[np.intp],
        validation: NDArray[np.intp] | None,
        schedule: Schedule,
        epochs: Iterable[int],
        checkpoint: Checkpoint | None = None,
        resumed: dict[str, Any] | None = None,
    ) -> tuple[History, bool]:
        """Train until a stopping rule holds or the epochs are spent.

        Parameters
        ----------
        rows : Rows
        training, validation : ndarray of int
            Which rows to learn from, and to stop on (None: on the training loss).
        schedule : Schedule
        epochs : iterable of int
            ``range(schedule.n_epochs)``, perhaps inside a progress bar.
        checkpoint : Checkpoint, optional
            Where to write the state at the end of epochs, and within long ones.
        resumed : dict, optional
            A state that was written there, to go on from.

        Returns
        -------
        history : dict of list of float
            One entry an epoch under each of `HISTORY_KEYS`.
        converged : bool
            Whether a stopping rule held.

        Raises
        ------
        NonFiniteLossError
            At the end of the first epoch whose loss is not finite.
        """
        history: History = {key: [] for key in HISTORY_KEYS}
        converged = False
        n_rows = sum(self.processes.gather(len(training)))
        n_steps = max(1, n_rows // (self.processes.size * schedule.batch_size))
        patience = max(schedule.n_iter_no_change, -(-PATIENCE_STEPS // n_steps))
        stopper = EarlyStopping(self.model, patience, schedule.tol)
        ended = False

        def state() -> dict[str, Any]:
            return {
                "trainer": self.state(),
                "stopper": stopper.state(),
                "history": history,
                "converged": converged,
                "ended": ended,
            }

        interrupted = None
        if resumed is not None:
            interrupted = resumed.get("unfinished")
            self.restore(resumed["trainer"])
            stopper.resume(resumed["stopper"])
            history, converged, ended = (resumed[k] for k in ("history", "converged", "ended"))
        if self.processes.size > 1:
            idle = has_idle_parameters(self.model)
            self._forward = self.processes.data_parallel(self.model, self.loss_terms, unused=idle)
        for epoch in epochs:
            if ended:
                break
            if epoch < len(history["loss"]):  # done before the interruption
                continue
            start, unfinished = time.perf_counter(), None
            if checkpoint is not None:
                unfinished = UnfinishedEpoch(checkpoint, state, interrupted, self.processes)
                start, interrupted = unfinished.start, None
            means = self.train_epoch(rows, training, schedule, epoch, unfinished)
            # The bound of a point is minus infinity by definition.
            check_finite({k: v for k, v in means.items() if k != "elbo"}, epoch)
            held_out = float("nan")
            if validation is not None:
                held_out = self.validate(rows, validation, schedule)
                check_finite({"validation loss": held_out}, epoch)
            seconds = max(self.processes.gather(time.perf_counter() - start))
            for key, value in {**means, "validation_loss": held_out, "seconds": seconds}.items():
                history[key].append(value)
            if hasattr(epochs, "set_postfix"):
                epochs.set_postfix(loss=f"{means['loss']:.4g}")
            if validation is not None:
                converged = stopper.update(held_out)
            else:
                converged = is_flat(history["loss"], patience, schedule.tol)
            ended = converged and (validation is not None or schedule.stop_on_plateau)
            last = ended or epoch + 1 == schedule.n_epochs
            if checkpoint is not None and (last or checkpoint.is_due()):
                checkpoint.write(state())
        self._forward = self.loss_terms
        self.processes.let_go()
        self._graphs = None
        self.optimizer.zero_grad()
        if validation is not None:
            stopper.restore()
        return history, converged


def jacobian_rows(model: Autoencoder, n_rows: int) -> int:
    """At most `n_rows`, fewer where their Jacobians would take too much memory."""
    return min(n_rows, rows_per_chunk(model.jacobian_numbers))


def run_epoch(
    step: Callable[[Tensor, int], LossTerms],
    rows: Rows,
    minibatches: Sequence[NDArray[np.intp]],
    sizes: Sequence[int] | None = None,
    unfinished: UnfinishedEpoch | None = None,
) -> dict[str, float]:
    """Apply `step` to every minibatch; means of what it returns, weighted by `sizes`.

    By default, the rows of each minibatch.

    Those that are done in an epoch that is `unfinished` are not done again.

    The numbers stay on the device until the end: no host synchronisation
    inside an epoch.
    """
    terms: list[Tensor] = [] if unfinished is None else unfinished.terms
    done = len(terms) // len(LossTerms._fields)
    for i, x in enumerate(rows.in_turn(minibatches[done:]), start=done):
        terms.extend(term.detach() for term in step(x, i))
        if unfinished is not None and i + 1 < len(minibatches):
            unfinished.save(i + 1)
    sizes = [len(indices) for indices in minibatches] if sizes is None else sizes
    weights = np.array(sizes, dtype=np.float64)
    values = torch.stack(terms).cpu().double().numpy().reshape(-1, len(LossTerms._fields))
    means = np.average(values, axis=0, weights=weights)
    return dict(zip(LossTerms._fields, means.tolist(), strict=True))


def check_finite(means: dict[str, float], epoch: int | None = None) -> None:
    """Raise `NonFiniteLossError` naming the epoch, the term and likely cures.

    An `epoch` of None is the end of training.
    """
    when = "at the end of training" if epoch is None else f"in epoch {epoch + 1}"
    # The parts before the whole: they say where it went wrong.
    for name in sorted(means, key=lambda key: key == "loss"):
        if not np.isfinite(means[name]):
            raise NonFiniteLossError(
                f"The {name} became {means[name]} {when}. Likely cures: a smaller "
                "learning_rate_init, a smaller reg_weight or beta, a larger covariance_prior, "
                "precision='float32', or removing rows with extreme values."
            )
