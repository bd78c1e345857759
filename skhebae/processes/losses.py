"""One error for all the ways in which a process can be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from skhebae.exceptions import DistributedError

#: What errors of torch.distributed say that have no class of their own.
SIGNS_OF_LOSS = ("gloo", "nccl", "connection closed", "connection reset", "timed out")


def is_loss(error: BaseException) -> bool:
    """Whether torch.distributed raised it because a process was gone or silent."""
    if isinstance(error, distributed.DistError):
        return True
    # gloo and autograd raise a bare RuntimeError.
    text = str(error).lower()
    return type(error) is RuntimeError and any(sign in text for sign in SIGNS_OF_LOSS)


@contextmanager
def losses_named(checkpoint: object = None) -> Iterator[None]:
    """Turn the many errors of a lost process into one `DistributedError`.

    Parameters
    ----------
    checkpoint : path-like, optional
        Where the state of training is.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        first = str(error).strip().splitlines()[0]
        state = (
            f"the checkpoint at {str(checkpoint)!r} is whole, and the same call in as many "
            "processes goes on from it"
            if checkpoint is not None
            else "with checkpoint=path the next fit would go on from where this one was"
        )
        raise DistributedError(
            f"A process of this fit was lost, or did not answer within the time-out of the process "
            f"group ({first}). An earlier fit is kept; {state}. End all processes and start them "
            "again, or let `torchrun --max-restarts 3` do so."
        ) from error
