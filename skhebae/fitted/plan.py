"""Decisions of a fit before it trains: networks, data, schedule and seeds."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from math import prod
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from skhebae.data import Scaling, SideInformation, Table, watched
from skhebae.fitted.agreement import agree_on_batches, agree_on_size_factors, seed_of_rank
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.automatic import (
    AUTO_DROPOUT,
    auto_batch_size,
    auto_epochs,
    auto_input_noise,
    auto_learning_rate,
    auto_weight_decay,
)
from skhebae.fitted.build import Architecture, build_model, build_prior, factory_name
from skhebae.fitted.fingerprint import fingerprint
from skhebae.fitted.first_variation import start_afresh
from skhebae.fitted.labels import resolve_batch
from skhebae.fitted.linear_start import count_components
from skhebae.fitted.parameters import Parameters
from skhebae.likelihoods import Likelihood, find_likelihood, resolve_likelihood
from skhebae.model import Autoencoder
from skhebae.objectives import Objective
from skhebae.tilted_prior import TiltedPrior
from skhebae.training import (
    Checkpoint,
    Generators,
    Run,
    Schedule,
    Split,
    resolve_device,
    resolve_precision,
)


class Seeds(NamedTuple):
    """One stream of random numbers per purpose; the same in all processes."""

    weights: int
    order: int
    noise: int
    mixture: int

    @property
    def start(self) -> int:
        """Seed of the linear start, and of the rows that its trial holds out."""
        return self.weights % 2**31

    @classmethod
    def spawn(cls, seed: int, n_done: int) -> Seeds:
        """Derive the seeds of a call after `n_done` epochs from the seed of the estimator."""
        streams = np.random.SeedSequence(seed, spawn_key=(n_done,)).generate_state(4)
        return cls(*(int(stream) for stream in streams))


class FitPlan(NamedTuple):
    """Decisions that come before the networks, the same in all processes.

    `new_features` were constant in the rows of the earlier fit and vary now.
    """

    objective: Objective
    architecture: Architecture
    batches: NDArray[Any]
    scaling: Scaling
    new_features: NDArray[np.intp]
    side: SideInformation
    checkpoint: Checkpoint | None
    resumed: dict[str, Any] | None
    seed: int
    seeds: Seeds


def plan_fit(
    parameters: Parameters,
    table: Table,
    earlier: FittedAutoencoder | None,
    partial: bool,
    checkpoint: str | os.PathLike[str] | None,
) -> FitPlan:
    """Decide on everything that networks and data depend on, with all processes."""
    group = table.group
    batches = agree_on_batches(table) if earlier is None else earlier.batches
    table = replace(table, size_factor=agree_on_size_factors(table))
    if len(table) == 0 and group.size > 1:  # a process without rows need not give labels
        table = replace(table, batch=batches[:0] if len(batches) else None)
    n_components = parameters.n_components
    if earlier is not None and not isinstance(n_components, Integral):
        n_components = earlier.architecture.n_components
    likelihood = resolve_likelihood(parameters.likelihood, is_mixed=table.columns is not None)
    family = find_likelihood(likelihood)
    objective = parameters.make_objective().suited(family)
    index = resolve_batch(table.batch, batches, len(table))
    if earlier is None:
        scaling = family.scaling_class.measure(replace(table, batch=index))
        new_features = scaling.constant[:0]
        if not isinstance(n_components, Integral):
            n_components = count_components(family, scaling, table, float(n_components))
    n_features = len(scaling.location if earlier is None else earlier.scaling.location)
    architecture = make_architecture(
        parameters, likelihood, n_features, objective, len(batches), int(n_components)
    )
    if earlier is not None:
        check_same_architecture(architecture, earlier.architecture)
        scaling, new_features = earlier.scaling.take_in(table, earlier.moments.n_rows)
        with watched(scaling, earlier.names) as outside:
            outside.see_table(table.X)
    has_missing = scaling.may_miss and table.has_missing
    n_done = 0 if earlier is None else len(earlier.history["loss"])
    log_size = scaling.log_size(len(table), table.totals_at, table.size_factor)
    file, resumed = None, None
    if checkpoint is not None:
        device = resolve_device(parameters.device).type
        identity = fingerprint(parameters, table, scaling, batches, earlier, device)
        file = Checkpoint(checkpoint, identity, group)
        resumed = file.read()
    if partial and earlier is not None:
        seed = earlier.seed
    elif resumed is not None:
        seed = int(resumed["seed"])
    else:
        seed = int(check_random_state(parameters.random_state).randint(np.iinfo(np.int32).max))
    seed = group.gather(seed)[0]
    if file is not None:
        file.facts["seed"] = seed
    return FitPlan(
        objective=objective,
        architecture=architecture,
        batches=batches,
        scaling=scaling,
        new_features=new_features,
        side=SideInformation(index, log_size, table.weight, has_missing),
        checkpoint=file,
        resumed=resumed,
        seed=seed,
        seeds=Seeds.spawn(seed, n_done),
    )


def make_run(
    parameters: Parameters,
    plan: FitPlan,
    table: Table,
    earlier: FittedAutoencoder | None,
    partial: bool,
) -> Run:
    """Make the model, or copy the earlier one, on the device that trains it."""
    group = table.group
    device = resolve_device(parameters.device)
    if earlier is None:
        generator = torch.Generator().manual_seed(plan.seeds.weights)
        scale = plan.objective.initial_scale
        model = build_model(plan.architecture, plan.scaling, generator, scale)
    else:
        model = deepcopy(earlier.model)
        model.code_map = None  # training sees the encoder's own codes
    model = model.to(device)
    largest_layer = max(p.numel() for p in model.parameters())
    model.training_dtype = resolve_precision(parameters.precision, device, largest_layer)
    own_order, own_noise = (
        seed_of_rank(seed, group.rank) for seed in (plan.seeds.order, plan.seeds.noise)
    )
    shared = torch.Generator(device).manual_seed(plan.seeds.noise) if group.size > 1 else None
    run = Run(
        model,
        plan.objective,
        Generators(
            order=torch.Generator().manual_seed(own_order),
            noise=torch.Generator(device).manual_seed(own_noise),
            shared=shared,
        ),
        weight_decay=resolve_weight_decay(parameters, plan.architecture, table.rounded_weight),
        compiles=parameters.compile,
        uses_global_state=parameters.encoder is not None or parameters.decoder is not None,
        group=group,
        first_epoch=0 if earlier is None else len(earlier.history["loss"]),
    )
    if partial and earlier is not None and earlier.optimizer_state is not None:
        run.optimizer.restore(earlier.optimizer_state)
    if earlier is not None and len(plan.new_features):
        features = plan.new_features
        start_afresh(run.model, run.optimizer, plan.scaling, earlier.scaling, features)
    return run


def resolve_weight_decay(parameters: Parameters, architecture: Architecture, n_rows: int) -> float:
    """Return the decay of weights in a fit to `n_rows` rows."""
    decay = parameters.weight_decay
    if not isinstance(decay, str):
        return decay
    largest = find_likelihood(architecture.likelihood).largest_decay
    if architecture.encoder is not None or architecture.decoder is not None:
        largest = 0.0  # nobody can tell what the weights of a module of the user's are
    return auto_weight_decay(n_rows, largest, starts_linear=architecture.linear_path)


def make_schedule(
    parameters: Parameters, table: Table, plan: FitPlan, model: Autoencoder, partial: bool
) -> Schedule:
    """Resolve how long and how to train."""
    n_rows, n_processes = table.rounded_weight, table.group.size
    starts_linear = plan.architecture.linear_path
    batch_size = parameters.batch_size
    if isinstance(batch_size, str):
        # Rows, and not their weights: a covariance of few is narrow, however much they count.
        own_rows = table.total_rows // n_processes
        batch_size = auto_batch_size(
            own_rows, plan.architecture.n_components, starts_linear=starts_linear
        )
    input_noise = parameters.input_noise
    if isinstance(input_noise, str):
        input_noise = auto_input_noise(model, n_rows, starts_linear=starts_linear)
    dropout = parameters.input_dropout
    if isinstance(dropout, str):
        dropout = AUTO_DROPOUT if plan.side.has_missing else 0.0
    rate = parameters.learning_rate_init
    if isinstance(rate, str):
        rate = auto_learning_rate(starts_linear=starts_linear)
    if partial:
        return Schedule(
            n_epochs=1,
            batch_size=int(batch_size),
            learning_rate=rate,
            decay="constant",
            input_noise=float(input_noise),
            input_dropout=float(dropout),
            is_part=True,
        )
    n_epochs = parameters.max_iter
    if isinstance(n_epochs, str):
        n_epochs = auto_epochs(
            n_rows,
            n_processes * batch_size,
            model.likelihood.half_rows,
            starts_linear=starts_linear,
            n_taken=table.total_rows,
            has_missing=bool(plan.side.has_missing),
        )
    return Schedule(
        n_epochs=int(n_epochs),
        batch_size=int(batch_size),
        learning_rate=rate,
        decay=parameters.learning_rate,
        tol=parameters.tol * plan.architecture.n_features,
        n_iter_no_change=parameters.n_iter_no_change,
        stop_on_plateau=parameters.max_iter != "auto",
        input_noise=float(input_noise),
        input_dropout=float(dropout),
    )


def split_rows(
    parameters: Parameters, table: Table, order: torch.Generator, partial: bool
) -> Split:
    """Hold out rows of this process if parameters ask for early stopping.

    Raises
    ------
    ValueError
        If too few rows are left.
    """
    counted, group = table.counted, table.group
    n_rows = len(counted)
    if partial or not parameters.early_stopping:
        return Split(counted)
    n_validation = round(parameters.validation_fraction * n_rows)
    if group.size == 1:
        n_validation = max(2, n_validation)
    held_out = sum(group.gather(n_validation))
    if table.total_rows - held_out < 2 or held_out < 2:
        raise ValueError(
            f"early_stopping=True with validation_fraction={parameters.validation_fraction} leaves "
            f"{max(0, table.total_rows - held_out)} of {table.total_rows} samples to train on. Use "
            "early_stopping=False or more samples."
        )
    shuffled = counted[torch.randperm(n_rows, generator=order, device="cpu").numpy()]
    return Split(shuffled[n_validation:], shuffled[:n_validation])


def make_architecture(
    parameters: Parameters,
    likelihood: str | type[Likelihood],
    n_features: int,
    objective: Objective,
    n_batches: int,
    n_components: int,
) -> Architecture:
    """Describe the networks that parameters ask for.

    Raises
    ------
    ValueError
        If a parameter does not go with the table or with another parameter.
    TypeError
        If the objective does not support the prior.
    """
    sizes = tuple(parameters.hidden_layer_sizes)
    if any(not isinstance(size, Integral) or size < 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes={parameters.hidden_layer_sizes!r} must hold integers >= 1, "
            "for example (128,), or nothing for linear networks."
        )
    encode_batch = bool(parameters.encode_batch and n_batches)
    if encode_batch and parameters.encoder is not None:
        raise ValueError(
            "encode_batch=True shows labels to the built-in encoder only. Leave it out, or leave "
            "encoder= out."
        )
    prior = build_prior(parameters.prior_factory, n_components, parameters.prior_tilt)
    if not objective.supports(prior):
        raise TypeError(
            f"{type(objective).__name__} cannot regularise codes towards {type(prior).__name__}. "
            "Use another prior= or objective=."
        )
    return Architecture(
        n_features=n_features,
        n_components=n_components,
        hidden_layer_sizes=tuple(int(size) for size in sizes),
        activation=parameters.activation,
        likelihood=likelihood,
        n_scales=objective.n_scales(n_components),
        n_batches=n_batches,
        encode_batch=encode_batch,
        encoder=parameters.encoder,
        decoder=parameters.decoder,
        image_shape=check_image_shape(parameters, n_features),
        prior=parameters.prior_factory,
        linear_path=resolve_linear_path(parameters, find_likelihood(likelihood)),
        tilt=prior.tilt if parameters.prior_tilt and isinstance(prior, TiltedPrior) else None,
    )


def resolve_linear_path(parameters: Parameters, family: type[Likelihood]) -> bool:
    """Return whether networks have a linear path, and start as principal component analysis.

    Raises
    ------
    ValueError
        If `linear_path` is True with networks of the user's.
    """
    own = [name for name in ("encoder", "decoder") if getattr(parameters, name) is not None]
    if isinstance(parameters.linear_path, str):
        perceptrons = not own and len(parameters.hidden_layer_sizes) > 0
        return perceptrons and family.starts_linear
    if parameters.linear_path and own:
        raise ValueError(
            f"linear_path=True is for the built-in networks, but {own[0]}= is given. Leave out one "
            "of the two; a module of your own can add a linear layer to its output."
        )
    return bool(parameters.linear_path)


def check_image_shape(parameters: Parameters, n_features: int) -> tuple[int, ...] | None:
    """Check the shape in which the user's networks see a row.

    Raises
    ------
    ValueError
        If it is not a shape of rows, or nobody sees it.
    """
    if parameters.image_shape is None:
        return None
    shape = tuple(parameters.image_shape)
    if any(not isinstance(size, Integral) or size < 1 for size in shape):
        raise ValueError(
            f"image_shape={parameters.image_shape!r} must hold integers >= 1, for example "
            "(1, 28, 28)."
        )
    if prod(shape) != n_features:
        raise ValueError(
            f"image_shape={parameters.image_shape!r} has {prod(shape)} numbers, but X has "
            f"{n_features} features. Rows are images flattened in C order."
        )
    if parameters.encoder is None and parameters.decoder is None:
        raise ValueError(
            f"image_shape={parameters.image_shape!r} is the shape that encoder= and decoder= see, "
            "and neither is given. The built-in perceptrons see flat rows."
        )
    return tuple(int(size) for size in shape)


def check_same_architecture(wanted: Architecture, fitted: Architecture) -> None:
    """Raise unless a fit can continue with the networks of an earlier one.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    # The tilt decides on the scales, which nobody has asked for then.
    for field in ("tilt", *wanted._fields):
        new, old = getattr(wanted, field), getattr(fitted, field)
        if new != old:
            name = "posterior_scale's width" if field == "n_scales" else field
            raise ValueError(
                f"{name} is {factory_name(new) if callable(new) else repr(new)}, but the fitted "
                "networks that warm_start or partial_fit would continue have "
                f"{factory_name(old) if callable(old) else repr(old)}. Set it back, or refit with "
                "warm_start=False."
            )
