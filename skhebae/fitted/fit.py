"""From parameters and a validated table to a fitted autoencoder."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.code_map import CodeMap, CodeNoise
from skhebae.data import Minibatch, Rows, Table, map_rows, open_rows, weight_of
from skhebae.fitted.agreement import seed_of_rank
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.axes import CodeAxes, apply_matrix
from skhebae.fitted.codes import CodeMixture, CodeMoments, LateMixture
from skhebae.fitted.gate import Trial, Verdict, try_perceptrons
from skhebae.fitted.geometry import EarlierAxes, measure_axes, regress_on_codes
from skhebae.fitted.linear_start import start_linear
from skhebae.fitted.measure import TrainedRows, measure_codes, noise_covariance
from skhebae.fitted.missing import fit_fill, regressed_fill
from skhebae.fitted.parameters import Parameters
from skhebae.fitted.plan import FitPlan, make_run, make_schedule, plan_fit, split_rows
from skhebae.fitted.progress import progress_bar
from skhebae.fitted.record import record_training
from skhebae.likelihoods import find_likelihood
from skhebae.linear_fill import LinearFill
from skhebae.model import Autoencoder
from skhebae.networks import global_random_state
from skhebae.process import in_plain_modes
from skhebae.training import Run, Schedule, Split, StateCheck, count_minibatches, train

#: How many rows, or how many times the present table, the tables before it count for in the
#: feature-wise parameters of the likelihood.
STREAM_ROWS, STREAM_TABLES = 1000, 9


@in_plain_modes
def fit_autoencoder(
    parameters: Parameters,
    table: Table,
    *,
    earlier: FittedAutoencoder | None = None,
    partial: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    codes: NDArray[np.float32] | None = None,
) -> FittedAutoencoder:
    """Fit an autoencoder to a table, together with all processes of its group.

    Parameters
    ----------
    parameters : Parameters
    table : Table
    earlier : FittedAutoencoder, optional
        A fit to continue from; it is left as it is.
    partial : bool
        Whether to train for one epoch at a constant rate, as a part of a stream.
    checkpoint : path-like, optional
        File to write the state of training to, and to resume from if it is there.
    codes : ndarray of shape (n_samples, n_components), optional
        Receives the codes of the rows.

    Raises
    ------
    ValueError, TypeError
        If parameters do not go with the table, with each other, or with `earlier`.
    CheckpointError
        If `checkpoint` belongs to another fit.
    NonFiniteLossError
        If the loss becomes NaN or infinite.
    """
    with table.group.agreement():
        plan = plan_fit(parameters, table, earlier, partial, checkpoint)
        run = make_run(parameters, plan, table, earlier, partial)
        schedule = make_schedule(parameters, table, plan, run.model, partial)
        split = split_rows(parameters, table, run.generators.order, partial)
        window_bytes = int(parameters.window_mb * 1e6)
        rows = open_rows(table.X, plan.scaling, run.model.device, plan.side, window_bytes)
    fill = run.model.fill
    fills_linearly = earlier is not None and earlier.fills_linearly
    if fill is None and table.has_missing:
        fills_linearly = run.model.n_batches == 0  # it knows nothing of them
        fill = run.model.fill = fit_fill(run, rows, split.training)
    verdict, weights = decide_linearity(
        parameters, plan, table, rows, schedule, earlier, partial, fill
    )
    run.stays_linear = verdict is Verdict.LINEAR
    if parameters.max_iter == "auto":
        schedule = verdict.shorten(schedule)
    with table.group.agreement():
        resumed = confirm_state(plan, run, schedule, split)
    if plan.architecture.linear_path and earlier is None and resumed is None:
        if weights:
            run.model.load_state_dict(weights)
        else:
            start_linear(run, rows, plan.seeds.start, split.training)
    bar = progress_bar(
        type(parameters).__name__,
        shows=shows_progress(parameters, table, partial),
        n_epochs=schedule.n_epochs,
        n_minibatches=count_minibatches(len(split.training), schedule.batch_size, run.group),
        n_done=0 if resumed is None else len(resumed["history"]["loss"]),
    )
    with random_state_of(run, plan), bar as callbacks:
        history, converged = train(
            run,
            rows,
            split,
            schedule,
            checkpoint=plan.checkpoint,
            resumed=resumed,
            **callbacks._asdict(),
        )
    if verdict is Verdict.LINEAR and run.objective.row_weight == 0.0 and earlier is None:
        # Training set the noise of codes. Components of all rows need no steps, and are exact.
        start_linear(run, rows, plan.seeds.start, split.training)
    before = earlier if partial else None
    own = len(split.training), weight_of(rows, split.training)
    n_training, weight = (sum(parts) for parts in zip(*table.group.gather(own), strict=True))
    n_minibatch: float = min(table.group.size * schedule.batch_size, n_training)
    if table.weight is not None:
        n_minibatch = max(1.0, n_minibatch * weight / n_training)
    if n_training == 1 and before is not None:
        # The step of one row stands among those of more.
        n_minibatch = min(table.group.size * schedule.batch_size, before.moments.n_rows)
    density = close_fit(
        run,
        rows,
        n_minibatch,
        plan.seeds.mixture,
        earlier=before,
        partial=partial,
        codes=codes,
        whiten=parameters.whiten if isinstance(parameters.whiten, str) else bool(parameters.whiten),
    )
    history_before = {} if earlier is None else earlier.history
    earlier_record = None if earlier is None or not partial else earlier.record
    record = record_training(parameters, table, run, schedule, earlier_record, partial=partial)
    return FittedAutoencoder(
        architecture=plan.architecture,
        model=run.model,
        objective=plan.objective,
        scaling=plan.scaling,
        moments=density.moments,
        mixture=density.mixture,
        noise_covariance=density.noise_covariance,
        axes=density.axes,
        seed=plan.seed,
        history={key: [*history_before.get(key, []), *values] for key, values in history.items()},
        batches=plan.batches,
        converged=converged,
        optimizer_state=run.optimizer.state() if partial else None,
        annotations=None if earlier is None else earlier.annotations,
        fills_linearly=fills_linearly and verdict is Verdict.LINEAR,
        record=record,
    )


def shows_progress(parameters: Parameters, table: Table, partial: bool = False) -> bool:
    """Whether this process shows a bar."""
    return bool(parameters.verbose) and not partial and table.group.rank == 0


def decide_linearity(
    parameters: Parameters,
    plan: FitPlan,
    table: Table,
    rows: Rows,
    schedule: Schedule,
    earlier: FittedAutoencoder | None,
    partial: bool,
    fill: LinearFill | None,
) -> Trial:
    """Decide what to do about perceptrons beside the linear path, if there is one.

    A resumed fit does what it did before. One that continues a linear model keeps it linear, but
    `partial_fit` does not, which may see many more rows. A family that no linear model suits has
    no trial.
    """
    family = find_likelihood(plan.architecture.likelihood)
    has_choice = plan.architecture.linear_path and family.keeps_linear_start
    if not has_choice or partial or len(parameters.hidden_layer_sizes) == 0:
        return Trial(Verdict.FULL, {})
    weights: dict[str, Tensor] = {}
    if plan.resumed is not None and "verdict" in plan.resumed:
        verdict = Verdict(plan.resumed["verdict"])
    elif earlier is not None:
        verdict = Verdict.LINEAR if earlier.model.is_linear else Verdict.FULL
    elif parameters.early_stopping:
        verdict = Verdict.FULL  # it has held-out rows of its own
    else:

        def make_trial() -> Run:
            trial = make_run(parameters, plan, table, None, False)
            trial.model.fill = deepcopy(fill)
            return trial

        verdict, weights = try_perceptrons(
            make_trial,
            rows,
            schedule,
            plan.seeds.start,
            table.group,
            shown_as=type(parameters).__name__ if shows_progress(parameters, table) else None,
        )
    if plan.checkpoint is not None:
        plan.checkpoint.facts["verdict"] = int(verdict)
    return Trial(verdict, weights)


def confirm_state(
    plan: FitPlan, run: Run, schedule: Schedule, split: Split
) -> dict[str, Any] | None:
    """Return the state to resume from, if any, after checking that it suits the run."""
    if plan.checkpoint is None or plan.resumed is None:
        return None
    n_minibatches = count_minibatches(len(split.training), schedule.batch_size, run.group)
    check = StateCheck(run, schedule.n_epochs, n_minibatches)
    return plan.checkpoint.confirm(plan.resumed, check)


class CodeDensity(NamedTuple):
    """Facts about the codes of the training rows that a fitted value keeps."""

    moments: CodeMoments
    mixture: CodeMixture | LateMixture
    noise_covariance: NDArray[np.float64]
    axes: CodeAxes


def close_fit(
    run: Run,
    rows: Rows,
    minibatch_rows: float,
    seed: int,
    *,
    earlier: FittedAutoencoder | None,
    partial: bool,
    codes: NDArray[np.float32] | None,
    whiten: bool | str,
) -> CodeDensity:
    """Measure the codes of the training rows, and let the likelihood finish.

    Parameters
    ----------
    run : Run
        With trained networks.
    rows : Rows
    minibatch_rows : float
        Rows of a minibatch in all processes, or their summed weight.
    seed : int
        Seed of the choice of codes and of the mixture.
    earlier : FittedAutoencoder, optional
        After earlier calls, whose rows count too.
    partial : bool
        Whether further calls will follow.
    codes : ndarray of shape (n_samples, n_components), optional
        Receives the codes of the rows.
    whiten : bool or "reliability"
        Scale of the codes.
    """
    group = run.group
    with group.agreement():
        run.model.eval()
        moments, chosen, encoded = measure_codes(run, rows, seed, codes)
        moments = moments if earlier is None else earlier.moments.merge(moments)
        posterior_noise = noise_covariance(run.objective, moments, minibatch_rows)
        evidence = TrainedRows(run, rows, posterior_noise, encoded, is_part=partial)
        finish_likelihood(run, evidence, earlier)
        code_map = standardising_map(run, moments)
        before = earlier_axes(evidence, earlier)
        regression = regress_on_codes(evidence)
        axes = measure_axes(evidence, regression, code_map, whiten, before)
        if run.model.fill is None:
            run.model.fill = regressed_fill(regression).to(run.model.device)
        run.model.code_map = code_map
        noise = CodeNoise.of(torch.from_numpy(posterior_noise), run.model.code_map)
        mu, spread = np.split(chosen, 2, axis=1)
        if run.model.code_map is not None:
            mu = run.model.code_map(torch.from_numpy(mu).to(run.model.device)).cpu().numpy()
        make_mixture = LateMixture if partial else CodeMixture.fit
        # Machines may round differently, which would change the mixture's steps.
        mixture = group.from_first(lambda: make_mixture(mu, seed % 2**31, spread, noise))
        if len(chosen) == 1 and earlier is not None:
            mixture = earlier.mixture  # one code has no density
    group.broadcast([*run.model.parameters(), *run.model.buffers()])
    if codes is not None and len(codes) > 0:
        map_codes(run.model, axes, codes)
    return CodeDensity(moments, mixture, posterior_noise, axes)


def standardising_map(run: Run, moments: CodeMoments) -> CodeMap | None:
    """Map codes to mean 0 and covariance I, where the objective asks for that.

    Training matches the moments of noised minibatches; those of the rows themselves differ from
    them. With the decoder behind the inverse of the map, the model stays the same.
    """
    model = run.model
    if not (run.objective.standardises_codes and model.prior.is_standard):
        return None
    mean, covariance = (torch.from_numpy(np.array(of)) for of in (moments.mean, moments.covariance))
    return CodeMap.standardising(mean, covariance, moments.n_rows).to(model.device)


def map_codes(model: Autoencoder, axes: CodeAxes, codes: NDArray[np.float32]) -> None:
    """Turn the encoder's codes of rows into those that `FittedAutoencoder.encode` returns.

    In the chunks of `encode`, whose rounding it shares.
    """
    code_map, matrix = model.code_map, axes.outward_on(model.likelihood.location)

    def outward(minibatch: Minibatch) -> Tensor:
        mu = minibatch.x
        return apply_matrix(mu if code_map is None else code_map(mu), matrix)

    codes[:] = map_rows(
        outward,
        lambda rows: Minibatch(torch.from_numpy(codes[rows]).to(model.device)),
        len(codes),
        numbers_per_row=model.n_features,
    )


def finish_likelihood(run: Run, evidence: TrainedRows, earlier: FittedAutoencoder | None) -> None:
    """Let the likelihood set its feature-wise parameters.

    In a stream they move towards the values of each table by its share of all rows.
    """
    likelihood = run.model.likelihood
    before = [parameter.detach().clone() for parameter in likelihood.parameters()]
    likelihood.finish(evidence)
    if earlier is None:
        return
    share = present_share(evidence, earlier)
    with torch.no_grad():
        for parameter, old in zip(likelihood.parameters(), before, strict=True):
            parameter.copy_(torch.lerp(old, parameter, share))


def present_share(evidence: TrainedRows, earlier: FittedAutoencoder) -> float:
    """Return the share of the present table of a stream in all rows.

    Earlier tables were seen by networks that had learned less, so they count for `STREAM_ROWS`
    rows at most, or for `STREAM_TABLES` times as many as the present one has.
    """
    most = max(STREAM_ROWS, STREAM_TABLES * evidence.n_rows)
    return evidence.n_rows / (evidence.n_rows + min(most, earlier.moments.n_rows))


def earlier_axes(evidence: TrainedRows, earlier: FittedAutoencoder | None) -> EarlierAxes | None:
    """Return what earlier tables of a stream have shown of the axes of codes, if anything."""
    if earlier is None or earlier.axes is None:
        return None
    return EarlierAxes(
        earlier.axes.geometry_before(earlier.model.code_map),
        earlier.axes.explained_variance_ratio,
        present_share(evidence, earlier),
    )


def random_state_of(run: Run, plan: FitPlan) -> AbstractContextManager[None]:
    """Seed the global random state for modules of the user, which may draw from it."""
    if not run.uses_global_state:
        return nullcontext()
    return global_random_state(seed_of_rank(plan.seeds.noise, run.group.rank), run.model.device)
