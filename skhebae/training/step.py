"""One step of training: the loss of a minibatch, and a move of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skhebae.data import Minibatch, rows_per_chunk
from skhebae.model import Autoencoder
from skhebae.networks import CustomDecoder, CustomEncoder
from skhebae.objectives import Terms
from skhebae.posterior import code_variance, jacobian_numbers, linearise
from skhebae.training.graphs import GraphedStep, all_ours, can_be_captured
from skhebae.training.run import Run

#: Steps between two measurements of the code variance, and the rows that each looks at.
CODE_VARIANCE_STEPS = 50
CODE_VARIANCE_ROWS = 32


class LossTerms(NamedTuple):
    """Means over one minibatch, each (), in nats.

    With several processes, each holds its own values; their averages over processes are the
    means.
    """

    loss: Tensor
    reconstruction: Tensor
    penalty: Tensor
    elbo: Tensor


Step = Callable[[Minibatch], LossTerms]


def loss_terms(
    run: Run, minibatch: Minibatch, evaluate: Callable[..., Terms] | None = None
) -> LossTerms:
    """Evaluate the objective on one minibatch, or on this process's shard of it.

    `evaluate` is a compiled form of the objective.
    """
    objective, model = run.objective, run.model
    terms = (evaluate or objective)(model, minibatch)
    reconstruction = minibatch.mean(terms.reconstruction)
    size = minibatch.total_weight(), model.n_components
    sizes = () if terms.batch_sizes is None else (terms.batch_sizes,)
    reference = objective.prior_penalty(*size, *sizes)
    penalty = terms.penalty(minibatch.mean) - reference
    penalty = objective.shape_penalty(penalty, minibatch, run.epoch)
    loss = reconstruction + objective.weight * penalty
    return LossTerms(loss, reconstruction, penalty, terms.elbo(minibatch.mean))


@contextmanager
def open_steps(run: Run) -> Iterator[Step]:
    """Yield the function that takes a step, and release what it holds at the end.

    Whether or not the block raises, no gradient, graph or hook of the process group stays.
    """
    stepper = Stepper(run)
    try:
        yield stepper
    finally:
        stepper.close()
        run.group.release()
        run.optimizer.zero_grad()


class Stepper:
    """Takes steps of one run: eagerly, compiled, as CUDA graphs, or with other processes."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._graphed: GraphedStep | None = None
        if run.group.size == 1 and can_be_captured(run.model, run.objective):
            self._graphed = GraphedStep(self._stacked, [run.generators.noise])
        counts = run.model.likelihood.counts_code_variance
        lacks_noise = run.objective.row_weight < 1.0
        self._measures_variance = counts and lacks_noise
        # With codes of full noise there is no variance to count.
        self._adds_loss = lacks_noise or not counts
        evaluate: Callable[..., Terms] | None = None
        if run.compiles:
            # Not `prior_penalty`, whose cache the compiler would not keep.
            evaluate = torch.compile(run.objective.__call__, dynamic=False)

        def forward(minibatch: Minibatch) -> LossTerms:
            return loss_terms(run, minibatch, evaluate)

        self._forward: Callable[[Minibatch], LossTerms] | None = forward
        if run.group.size > 1:
            # Parts of the user's may leave out parameters in some steps.
            unused = has_idle_parameters(run.model) or not all_ours(run.model, run.objective)
            self._forward = run.group.data_parallel(run.model, forward, unused=unused)

    def __call__(self, minibatch: Minibatch) -> LossTerms:
        """Move the weights by one minibatch; return its terms, detached."""
        run = self._run
        if self._measures_variance and run.n_steps % CODE_VARIANCE_STEPS == 0:
            measure_code_variance(run, minibatch)
        run.n_steps += 1
        # A capture would freeze the summed weights, which differ.
        if self._graphed is None or minibatch.weight is not None:
            return self._move(minibatch)
        return LossTerms(*self._graphed(minibatch).unbind())

    def _move(self, minibatch: Minibatch) -> LossTerms:
        """Take the step."""
        run = self._run
        assert self._forward is not None
        terms = self._forward(minibatch)
        # It moves the feature-wise parameters only, and is not reported.
        extra = run.model.likelihood.extra_loss() if self._adds_loss else None
        loss = terms.loss if extra is None else terms.loss + extra
        run.optimizer.zero_grad()
        torch.autograd.backward(loss)
        run.optimizer.step()
        if run.stays_linear:
            run.model.stay_linear()
        return terms

    def _stacked(self, minibatch: Minibatch) -> Tensor:
        """Take the step and return its terms as one tensor, (4,)."""
        return torch.stack([term.detach() for term in self._move(minibatch)])

    def close(self) -> None:
        """Forget graphs, and the wrapper of several processes."""
        self._graphed = None
        self._forward = None


def measure_code_variance(run: Run, minibatch: Minibatch) -> None:
    """Tell the likelihood what codes lack in noise, measured on a few rows of a minibatch."""
    model = run.model
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        n_rows = jacobian_rows(model, CODE_VARIANCE_ROWS)
        few = minibatch.map_rows(lambda tensor: tensor[:n_rows]).replace(
            input_noise=None, input_dropout=None
        )
        variance = torch.zeros_like(model.likelihood.location)
        if len(few) > 0:
            mu, _ = model.encode(few)
            at = linearise(model, mu, few)
            variance = code_variance(model, at, run.objective.row_weight, few.weight)
        model.likelihood.set_code_variance(minibatch.shard.average(variance))
    for module, training in modes.items():
        module.training = training


def jacobian_rows(model: Autoencoder, n_rows: int) -> int:
    """Return `n_rows`, or fewer where their Jacobians would take too much memory."""
    return min(n_rows, rows_per_chunk(jacobian_numbers(model)))


def has_idle_parameters(model: Autoencoder) -> bool:
    """Whether modules of the user have parameters that do nothing."""
    widths = {model.encoder: model.n_features, model.decoder: model.n_components + model.n_batches}
    return any(
        ignores_parameters(module, n_in)
        for module, n_in in widths.items()
        if isinstance(module, CustomEncoder | CustomDecoder)
    )


def ignores_parameters(module: nn.Module, n_in: int) -> bool:
    """Whether the output of a module for rows of `n_in` numbers ignores some parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    training = module.training
    try:
        with torch.enable_grad():
            device = next((p.device for p in module.parameters()), torch.device("cpu"))
            rows = torch.zeros(2, n_in, dtype=torch.float32, device=device)
            output = module.eval()(rows)
            parts = output if isinstance(output, tuple) else (output,)
            total = torch.stack([part.sum() for part in parts]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        module.train(training)
    return any(gradient is None for gradient in gradients)
