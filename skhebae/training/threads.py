"""One thread for networks so small that a second one costs more than it gains.

Two threads meet after every operation. On a busy machine the second waits for a core, and the
first then waits for the second, in each of thousands of small operations.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from threadpoolctl import ThreadpoolController

from skhebae.model import Autoencoder
from skhebae.process import openmp

#: Multiplications of a minibatch's forward pass from which a second thread pays.
WORTH_IT = 2**24


@cache
def _controller() -> ThreadpoolController:
    """Look up the libraries of the process once."""
    return openmp()


def fitting_threads(model: Autoencoder, batch_size: int) -> AbstractContextManager[object]:
    """Limit the calling thread, and no other, to one OpenMP thread where that is quicker."""
    n_weights = sum(p.numel() for p in model.parameters())
    if model.device.type != "cpu" or n_weights * batch_size >= WORTH_IT:
        return nullcontext()
    limit: AbstractContextManager[object] = _controller().limit(limits=1)
    return limit
