"""What an epoch of several processes needs beyond that of one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skhebae.model import Autoencoder
from skhebae.networks import CustomDecoder, CustomEncoder
from skhebae.processes import Part, Processes


class Minibatches(NamedTuple):
    """Those of an epoch.

    Attributes
    ----------
    indices : list of ndarray of int
        This process's rows of each.
    parts : list of Part
    sizes : list of int
        Rows of each in all processes.
    """

    indices: list[NDArray[np.intp]]
    parts: list[Part]
    sizes: list[int]


def split(
    order: NDArray[np.intp], batch_size: int, processes: Processes, generator: torch.Generator
) -> Minibatches:
    """Split rows in this order into minibatches of at least `batch_size` rows a process.

    What is left over is spread, so that no minibatch is small (a covariance of one row is
    no covariance), and every process has its rows' share of each. Fewer rows make one.

    Parameters
    ----------
    order : ndarray of int
        Rows of this process.
    batch_size : int
    processes : Processes
    generator : torch.Generator
        Of the noise of whole minibatches, in the same state in all processes.
    """
    counts = processes.gather(len(order))
    n_minibatches = max(1, sum(counts) // (processes.size * batch_size))
    parts = processes.parts(counts, n_minibatches, generator)
    indices = np.array_split(order, n_minibatches)
    sizes = [part.n_rows(len(own)) for part, own in zip(parts, indices, strict=True)]
    return Minibatches(indices, parts, sizes)


def mean_over(processes: Processes, means: dict[str, float]) -> dict[str, float]:
    """Mean over processes of the numbers of each."""
    together = processes.gather(list(means.values()))
    return dict(zip(means, np.mean(together, axis=0).tolist(), strict=True))


def of_all_ranks(processes: Processes, value: dict[str, Any]) -> dict[str, Any]:
    """Put together for a file what each process has for itself."""
    if processes.size == 1:
        return value
    return {str(rank): of for rank, of in enumerate(processes.gather(value))}


def of_rank(processes: Processes, values: dict[str, Any]) -> dict[str, Any]:
    """Return from `of_all_ranks` what is this process's."""
    return values if processes.size == 1 else values[str(processes.rank)]


def has_idle_parameters(model: Autoencoder) -> bool:
    """Whether modules of the user have parameters that do nothing."""
    inputs = {
        model.encoder: model.n_features,
        model.decoder: model.encoder.n_components + model.n_batches,
    }
    return any(
        is_idle_in_part(module, n_in)
        for module, n_in in inputs.items()
        if isinstance(module, CustomEncoder | CustomDecoder)
    )


def is_idle_in_part(module: nn.Module, n_in: int) -> bool:
    """Whether a module of rows of `n_in` numbers has parameters that its output ignores."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    training = module.training
    try:
        with torch.enable_grad():
            device = next(module.parameters(), torch.empty(0)).device
            output = module.eval()(torch.zeros(2, n_in, device=device))
            parts = output if isinstance(output, tuple) else (output,)
            total = torch.stack([part.sum() for part in parts]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        module.train(training)
    return any(gradient is None for gradient in gradients)
