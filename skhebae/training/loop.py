"""Training: epochs of steps until a stopping rule holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Minibatch, Rows
from skhebae.exceptions import NonFiniteLossError
from skhebae.noise import POOL_SIZE, InputDropout, InputNoise, NoisePool
from skhebae.training.checkpoint import Checkpoint
from skhebae.training.minibatches import average_over_processes, count_minibatches, plan_epoch
from skhebae.training.run import Run
from skhebae.training.schedule import EarlyStopping, Schedule, is_flat
from skhebae.training.step import LossTerms, Step, loss_terms, open_steps
from skhebae.training.threads import fitting_threads
from skhebae.training.unfinished import UnfinishedEpoch

#: Patience counts at least this many optimiser steps: an epoch of a small
#: table has one or two, too few to call a loss flat.
PATIENCE_STEPS = 100

#: Layers of users' modules that normalise by the moments of a minibatch.
BATCH_NORMS = (
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    torch.nn.BatchNorm3d,
    torch.nn.SyncBatchNorm,
)

History = dict[str, list[float]]
HISTORY_KEYS = ("loss", "reconstruction", "penalty", "elbo", "validation_loss", "seconds")


class Split(NamedTuple):
    """The rows of this process to learn from, and those to stop on (None: the training loss)."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp] | None = None


@dataclass(eq=False)
class Progress:
    """The progress of a training.

    Attributes
    ----------
    history : dict of list of float
        One entry per epoch under each of `HISTORY_KEYS`.
    converged : bool
        Whether a stopping rule held.
    ended : bool
        Whether training ended before its last epoch.
    """

    history: History = field(default_factory=lambda: {key: [] for key in HISTORY_KEYS})
    converged: bool = False
    ended: bool = False


def train(
    run: Run,
    rows: Rows,
    split: Split,
    schedule: Schedule,
    *,
    checkpoint: Checkpoint | None = None,
    resumed: dict[str, Any] | None = None,
    on_epoch: Callable[[float], object] = lambda loss: None,
    on_step: Callable[[float], object] | None = None,
) -> tuple[History, bool]:
    """Train until a stopping rule holds or the epochs are spent.

    Parameters
    ----------
    run : Run
        Its model is trained in place.
    rows : Rows
    split : Split
    schedule : Schedule
    checkpoint : Checkpoint, optional
        Where to write the state at the end of epochs, and within long ones.
    resumed : dict, optional
        A state that was written there, to resume from.
    on_epoch : callable, optional
        Receives the loss of each epoch.
    on_step : callable, optional
        Receives after each step the epochs that are done, with the part of the present one.

    Returns
    -------
    history : dict of list of float
        One entry per epoch under each of `HISTORY_KEYS`.
    converged : bool
        Whether a stopping rule held.

    Raises
    ------
    NonFiniteLossError
        At the end of the first epoch whose loss is not finite.
    """
    group = run.group
    n_steps = count_minibatches(len(split.training), schedule.batch_size, group)
    patience = max(schedule.n_iter_no_change, -(-PATIENCE_STEPS // n_steps))
    stopper = EarlyStopping(run.model, patience, schedule.tol)
    settled = run.settles_at(None if schedule.is_part else schedule.n_epochs)
    progress, unfinished_state = Progress(), None
    if resumed is not None:
        unfinished_state = resumed.get("unfinished")
        run.restore(resumed["trainer"])
        stopper.resume(resumed["stopper"])
        progress = Progress(resumed["history"], resumed["converged"], resumed["ended"])

    def state() -> dict[str, Any]:
        # "trainer" is what files have called it from the first version on.
        return {"trainer": run.state(), "stopper": stopper.state(), **vars(progress)}

    with open_steps(run) as step:
        for epoch in range(len(progress.history["loss"]), schedule.n_epochs):
            if progress.ended:
                break
            unfinished = None
            if checkpoint is not None:
                unfinished = UnfinishedEpoch(checkpoint, state, unfinished_state, group)
                unfinished_state = None
            entry = run_and_validate(run, step, rows, split, schedule, epoch, unfinished, on_step)
            for key, value in entry.items():
                progress.history[key].append(value)
            on_epoch(entry["loss"])
            if epoch < settled:
                pass  # its loss does not compare with later ones
            elif split.validation is not None:
                progress.converged = stopper.update(entry["validation_loss"])
            else:
                losses = progress.history["loss"][settled:]
                progress.converged = is_flat(losses, patience, schedule.tol)
            stops = split.validation is not None or schedule.stop_on_plateau
            progress.ended = progress.converged and stops
            last = progress.ended or epoch + 1 == schedule.n_epochs
            if checkpoint is not None and (last or checkpoint.is_due()):
                checkpoint.write(state())
    if split.validation is not None:
        stopper.restore()
    return progress.history, progress.converged


def run_and_validate(
    run: Run,
    step: Step,
    rows: Rows,
    split: Split,
    schedule: Schedule,
    epoch: int,
    unfinished: UnfinishedEpoch | None,
    on_step: Callable[[float], object] | None = None,
) -> dict[str, float]:
    """Run one epoch and return its entry in the history.

    Raises
    ------
    NonFiniteLossError
        If a loss is not finite.
    """
    start = time.perf_counter() if unfinished is None else unfinished.start
    means = train_epoch(run, step, rows, split.training, schedule, epoch, unfinished, on_step)
    # The bound of a point is minus infinity by definition.
    check_finite({k: v for k, v in means.items() if k != "elbo"}, epoch)
    held_out = float("nan")
    if split.validation is not None:
        held_out = validate(run, rows, split.validation, schedule)
        check_finite({"validation loss": held_out}, epoch)
    seconds = max(run.group.gather(time.perf_counter() - start))
    return {**means, "validation_loss": held_out, "seconds": seconds}


def train_epoch(
    run: Run,
    step: Step,
    rows: Rows,
    indices: NDArray[np.intp],
    schedule: Schedule,
    epoch: int,
    unfinished: UnfinishedEpoch | None = None,
    on_step: Callable[[float], object] | None = None,
) -> dict[str, float]:
    """Take optimiser steps over `indices` in a fresh order; return the means of their terms."""
    run.model.train()
    if run.group.size == 1 and len(indices) == 1:
        rest_batch_norm(run.model)
    generators = run.generators
    noise = input_noise(run, schedule.input_noise, len(indices))
    dropout = None
    if schedule.input_dropout > 0.0:
        dropout = InputDropout(schedule.input_dropout, generators.noise)
    if unfinished is not None:
        unfinished.begin(generators.order, noise, run.model.device)
    order = rows.shuffled(indices, generators.order)
    shared = generators.shared or generators.noise
    plan = plan_epoch(order, schedule.batch_size, run.group, shared, rows.weight)

    def move(minibatch: Minibatch, i: int) -> LossTerms:
        done = i / len(plan.indices)
        run.optimizer.learning_rate = schedule.rate(epoch, done)
        run.move_to(epoch + done)
        terms = step(
            minibatch.replace(
                shard=plan.shards[i],
                generator=generators.noise,
                input_noise=noise,
                input_dropout=dropout,
            )
        )
        if on_step is not None:
            on_step(epoch + (i + 1) / len(plan.indices))
        return terms

    with fitting_threads(run.model, schedule.batch_size):
        means = run_epoch(move, rows, plan.indices, plan.sizes, unfinished)
    run.group.broadcast(run.model.buffers())
    return average_over_processes(run.group, means)


def rest_batch_norm(model: torch.nn.Module) -> None:
    """Let layers that normalise by a minibatch use what they know: one row has no deviation."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.eval()


def input_noise(run: Run, deviation: float, n_rows: int) -> InputNoise | None:
    """Return the noise on the encoder's input during one epoch; None for a deviation of 0.

    A large table takes it from a pool. Each epoch has its own pool, so that training can resume
    at the end of any epoch without one.
    """
    if deviation == 0.0:
        return None
    generator = run.generators.noise
    draws_much = n_rows * run.model.n_features > 2 * POOL_SIZE
    pools = draws_much and generator.device.type == "cpu"
    return InputNoise(deviation, NoisePool(generator) if pools else generator)


def validate(run: Run, rows: Rows, indices: NDArray[np.intp], schedule: Schedule) -> float:
    """Return the loss of held-out rows, with the same terms and the same noise at every call."""
    run.model.eval()
    generator = torch.Generator(run.model.device).manual_seed(0)
    order = rows.shuffled(indices, torch.Generator().manual_seed(0))
    # All noise of held-out rows is drawn for the whole minibatch.
    plan = plan_epoch(order, schedule.batch_size, run.group, generator, rows.weight)

    def evaluate(minibatch: Minibatch, i: int) -> LossTerms:
        return loss_terms(run, minibatch.replace(shard=plan.shards[i], generator=generator))

    with torch.no_grad():
        means = run_epoch(evaluate, rows, plan.indices, plan.sizes)
    return average_over_processes(run.group, means)["loss"]


def run_epoch(
    step: Callable[[Minibatch, int], LossTerms],
    rows: Rows,
    minibatches: Sequence[NDArray[np.intp]],
    sizes: Sequence[float] | None = None,
    unfinished: UnfinishedEpoch | None = None,
) -> dict[str, float]:
    """Apply `step` to every minibatch; return the means of its terms, weighted by `sizes`.

    Sizes are those of the minibatches by default. Minibatches that were done before an
    interruption, in an epoch that is `unfinished`, are skipped.

    The numbers stay on the device until the end: no host synchronisation inside an epoch.
    """
    terms: list[Tensor] = [] if unfinished is None else unfinished.terms
    done = len(terms) // len(LossTerms._fields)
    for i, minibatch in enumerate(rows.in_turn(minibatches[done:]), start=done):
        terms.extend(term.detach() for term in step(minibatch, i))
        if unfinished is not None and i + 1 < len(minibatches):
            unfinished.save(i + 1)
    sizes = [len(indices) for indices in minibatches] if sizes is None else sizes
    weights = np.array(sizes, dtype=np.float64)
    values = torch.stack(terms).cpu().double().numpy().reshape(-1, len(LossTerms._fields))
    means = np.average(values, axis=0, weights=weights)
    return dict(zip(LossTerms._fields, means.tolist(), strict=True))


def check_finite(means: dict[str, float], epoch: int | None = None) -> None:
    """Raise `NonFiniteLossError` naming the epoch, the term and likely cures.

    An `epoch` of None stands for the end of training.
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
