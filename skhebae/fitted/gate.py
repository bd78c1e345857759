"""Whether a table can pay for perceptrons beside the linear path: a trial on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Rows, counted_rows, take_chunks
from skhebae.distributed import Group
from skhebae.fitted.linear_start import start_linear
from skhebae.fitted.progress import progress_bar
from skhebae.noise import InputDropout
from skhebae.training import Run, Schedule, Split, count_minibatches, train

#: One row of so many is held out of the trial. In a small table it takes several, each with other
#: rows, until so many rows have been held out, but not more than so many trials.
ONE_ROW_OF, ENOUGH_HELD_OUT, MOST_TRIALS = 7, 200, 3

#: With fewer held-out rows nothing can be told, and the model stays linear.
FEWEST_HELD_OUT = 10

#: Tables with more rows have no trial: training ends before it has seen a row often enough to
#: learn it by heart.
MOST_ROWS = 20_000

#: Epochs of the trial, as a share of those of the fit.
TRIAL_SHARE = 0.4

#: By how many standard errors, and by which share, perceptrons must reduce the held-out error. For
#: less, the codes of principal components are not given up, which keep distances and neighbours.
STANDARD_ERRORS, SMALLEST_GAIN = 0.5, 0.03

#: They train for longer than in the trial, and continue from there, where it brought the error
#: under this share of that of the linear path. A smaller gain may turn with more training.
LARGE_GAIN = 0.9

#: Rows per chunk of the pass over held-out rows.
CHUNK_ROWS = 1024


class Verdict(IntEnum):
    """What a fit does about perceptrons beside its linear path."""

    #: They train for as long as the schedule says.
    FULL = 0
    #: They train for as long as in the trial.
    BRIEF = 1
    #: They add nothing.
    LINEAR = 2

    def shorten(self, schedule: Schedule) -> Schedule:
        """Return the schedule of the fit."""
        return schedule if self is Verdict.FULL else trial_schedule(schedule)


class Trial(NamedTuple):
    """Outcome of a trial.

    Attributes
    ----------
    verdict : Verdict
    weights : dict of Tensor
        State of a model that was trained on a part of the rows, to continue from if perceptrons
        gained much; else empty.
    """

    verdict: Verdict
    weights: dict[str, Tensor]


def trial_schedule(schedule: Schedule) -> Schedule:
    """Return the schedule of the trial."""
    return replace(schedule, n_epochs=max(1, round(TRIAL_SHARE * schedule.n_epochs)))


def try_perceptrons(
    make_run: Callable[[], Run],
    rows: Rows,
    schedule: Schedule,
    seed: int,
    group: Group,
    shown_as: str | None = None,
) -> Trial:
    """Train on a part of the rows from the linear start, and compare errors on the rest.

    All processes call it together, each with rows of its own.

    Parameters
    ----------
    make_run : callable
        Makes the untrained model.
    rows : Rows
        Of this process.
    schedule : Schedule
        Of the fit.
    seed : int
        Of the choice of rows and of the linear start.
    group : Group
    shown_as : str, optional
        Name on a progress bar; without one there is no bar.
    """
    counted = counted_rows(rows)
    total = sum(group.gather(len(counted)))
    if total > MOST_ROWS:
        return Trial(Verdict.FULL, {})
    order = np.random.RandomState(seed).permutation(len(counted))
    parts = np.array_split(counted[order], ONE_ROW_OF)
    n_held_out = total // ONE_ROW_OF
    if n_held_out < FEWEST_HELD_OUT:
        return Trial(Verdict.LINEAR, {})
    found = []
    trials = parts[: min(MOST_TRIALS, -(-ENOUGH_HELD_OUT // n_held_out))]
    for number, held_out in enumerate(trials, start=1):
        run = make_run()
        training = np.setdiff1d(counted, held_out)
        start_linear(run, rows, seed, training)
        with group.agreement():  # where a process cannot read its rows
            before = squared_errors(run, rows, held_out, schedule.input_dropout)
        brief = trial_schedule(schedule)
        bar = progress_bar(
            f"{shown_as}, trial {number} of {len(trials)}",
            shows=shown_as is not None,
            n_epochs=brief.n_epochs,
            n_minibatches=count_minibatches(len(training), brief.batch_size, group),
            stays=False,
        )
        with bar as callbacks:
            train(run, rows, Split(training), brief, **callbacks._asdict())
        with group.agreement():
            after = squared_errors(run, rows, held_out, schedule.input_dropout)
        counts = np.ones(len(held_out)) if rows.weight is None else rows.weight[np.sort(held_out)]
        found.append(np.stack([before, after, counts]))
    errors = np.concatenate(group.gather(np.concatenate(found, axis=1)), axis=1)
    # Machines may round differently.
    weight = None if rows.weight is None else errors[2]
    verdict = group.from_first(lambda: judge(errors[0], errors[1], weight))
    return Trial(verdict, run.model.state_dict() if verdict is Verdict.FULL else {})


def judge(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> Verdict:
    """Compare the squared errors of held-out rows before and after training, (n,) each.

    Weights (n,) say how many rows each row stands for.
    """
    gain = before - after
    mean, at_first, at_last = (np.average(of, weights=weight) for of in (gain, before, after))
    if weight is None:
        error = gain.std(ddof=1) / len(gain) ** 0.5
    else:
        total = weight.sum()
        error = (weight @ np.square(gain - mean) / (max(total - 1.0, 1.0) * total)) ** 0.5
    if not mean > max(STANDARD_ERRORS * error, SMALLEST_GAIN * at_first):
        return Verdict.LINEAR
    return Verdict.FULL if at_last < LARGE_GAIN * at_first else Verdict.BRIEF


def squared_errors(
    run: Run, rows: Rows, indices: NDArray[np.intp], input_dropout: float = 0.0
) -> NDArray[np.float64]:
    """Return the squared errors of decoding the codes of rows, in order, (n,), standardised.

    Only observed entries count. Where training hides entries from the encoder, they are hidden
    here too, the same at every call.
    """
    model = run.model.eval()
    errors = [np.empty(0)]
    dropout = None
    if input_dropout > 0.0:
        dropout = InputDropout(input_dropout, torch.Generator(model.device).manual_seed(0))
    with torch.no_grad():
        for _, minibatch in take_chunks(rows, rows.ordered(indices), CHUNK_ROWS):
            minibatch = minibatch.replace(input_dropout=dropout)
            parameter = model.decode_rows(model.encode(minibatch)[0], minibatch)
            residual = minibatch.x - model.likelihood.mean(parameter)
            if minibatch.mask is not None:
                residual = residual.where(minibatch.mask, 0.0)
            errors.append(residual.double().square().sum(dim=1).cpu().numpy())
    return np.concatenate(errors)
