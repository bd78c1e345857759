"""Steps of small networks on a GPU as CUDA graphs: launched whole, not kernel by kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.model import Autoencoder

#: Steps before the first capture, in which libraries allocate the memory they work in.
WARM_UP_STEPS = 3

Shapes = tuple[tuple[str, torch.Size], ...]


class GraphedStep:
    """A step of training, captured once per shape of a minibatch and then replayed.

    Parameters
    ----------
    step : callable
        Minibatch to loss terms (4,), after one step of the optimiser. It must not synchronise
        with the host, and must make gradients anew.
    generators : sequence of torch.Generator
        The generators on the GPU that it draws from.
    """

    def __init__(
        self, step: Callable[[Minibatch], Tensor], generators: Sequence[torch.Generator]
    ) -> None:
        self._step = step
        self._generators = generators
        self._n_steps: Counter[Shapes] = Counter()
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: dict[Shapes, tuple[torch.cuda.CUDAGraph, Minibatch, Tensor]] = {}

    def __call__(self, minibatch: Minibatch) -> Tensor:
        """Take a step; return loss terms (4,) that later steps do not change."""
        tensors = minibatch.row_tensors()
        shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
        self._n_steps[shapes] += 1
        # Another shape leads to another choice of kernels, and is compiled on its own.
        if self._n_steps[shapes] == 1 or self._n_steps.total() <= WARM_UP_STEPS:
            # On a stream of its own, as the capture will be.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                terms = self._step(minibatch)
            torch.cuda.current_stream().wait_stream(self._stream)
            return terms
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(minibatch)
        graph, rows, terms = self._graphs[shapes]
        for name, tensor in rows.row_tensors().items():
            tensor.copy_(tensors[name])
        graph.replay()
        return terms.clone()

    def _capture(self, minibatch: Minibatch) -> tuple[torch.cuda.CUDAGraph, Minibatch, Tensor]:
        """Record a step, which takes place at its first replay."""
        rows = minibatch.map_rows(torch.clone)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # Other threads read minibatches meanwhile, and estimators may be fitted in several.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            terms = self._step(rows)
        return graph, rows, terms


def can_be_captured(model: Autoencoder, objective: object) -> bool:
    """Whether a step does the same every time, as far as we can know.

    Parts of the user's may decide by values, which a capture would freeze.
    """
    if model.device.type != "cuda":
        return False
    networks = [*model.encoder.modules(), *model.decoder.modules()]
    return all_ours(model, objective) and all(is_ours(module) for module in networks)


def all_ours(model: Autoencoder, objective: object) -> bool:
    """Whether likelihood, prior and objective are skhebae's own."""
    return all(is_ours(part) for part in (*model.likelihood.modules(), model.prior, objective))


def is_ours(part: object) -> bool:
    """Whether the class of an object is skhebae's, or torch's."""
    return type(part).__module__.split(".")[0] in ("torch", "skhebae")
