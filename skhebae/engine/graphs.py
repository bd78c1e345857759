"""Steps of small networks on a GPU as CUDA graphs: launched as a whole, not kernel by kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from skhebae.model import Autoencoder

#: Steps before the first capture, in which libraries take the memory they work in.
WARM_UP_STEPS = 3

Step = Callable[[Tensor], Tensor]


class GraphedStep:
    """A step of training, captured once for every shape of a minibatch and then replayed.

    Parameters
    ----------
    step : callable
        Rows (B, p) to loss terms (4,), after one step of the optimiser; without a
        synchronisation with the host, and with gradients made anew.
    generators : sequence of torch.Generator
        On the GPU, from which it draws.
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator]) -> None:
        self._step = step
        self._generators = generators
        self._n_steps: Counter[torch.Size] = Counter()
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Take a step; loss terms (4,), not to be changed by later steps."""
        self._n_steps[x.shape] += 1
        # Another shape has another choice of kernels, and is compiled on its own.
        if self._n_steps[x.shape] == 1 or self._n_steps.total() <= WARM_UP_STEPS:
            # On a stream of its own, as the capture will be.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                terms = self._step(x)
            torch.cuda.current_stream().wait_stream(self._stream)
            return terms
        if x.shape not in self._graphs:
            self._graphs[x.shape] = self._captured(x)
        graph, rows, terms = self._graphs[x.shape]
        rows.copy_(x)
        graph.replay()
        return terms.clone()

    def _captured(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Record a step, which takes place at its first replay."""
        rows = x.clone()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # Other threads read minibatches meanwhile, and estimators may be fitted in several.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            terms = self._step(rows)
        return graph, rows, terms


def can_be_captured(model: Autoencoder) -> bool:
    """Whether a step does the same every time, for all we can know.

    Modules that are not torch's own may decide by values, which a capture would freeze.
    """
    if model.device.type != "cuda":
        return False
    modules: list[nn.Module] = [*model.encoder.modules(), *model.decoder.modules()]
    return all(type(module).__module__.split(".")[0] in ("torch", "skhebae") for module in modules)
