"""One error for all the ways in which a process can be lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from skhebae.exceptions import DistributedError

#: Texts of errors of torch.distributed that have no class of their own.
SIGNS_OF_A_LOST_PROCESS = ("gloo", "nccl", "connection closed", "connection reset", "timed out")


def is_lost_process(error: BaseException) -> bool:
    """Whether torch.distributed raised `error` because a process was gone or silent."""
    if isinstance(error, distributed.DistError):
        return True
    # gloo and autograd raise a bare RuntimeError.
    text = str(error).lower()
    return type(error) is RuntimeError and any(sign in text for sign in SIGNS_OF_A_LOST_PROCESS)


@contextmanager
def name_lost_process(checkpoint: object = None) -> Iterator[None]:
    """Turn the many errors that a lost process causes into one `DistributedError`.

    Parameters
    ----------
    checkpoint : path-like, optional
        File that holds the state of training.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        first = str(error).strip().splitlines()[0]
        state = (
            f"The checkpoint at {str(checkpoint)!r} is intact, and the same call in as many "
            "processes resumes from it."
            if checkpoint is not None
            else "With checkpoint=path the next fit could resume from where this one stopped."
        )
        raise DistributedError(
            "A process of this fit was lost, or did not answer before the process group timed out "
            f"({first}). An earlier fit is kept. {state} End all processes and start them again, "
            "or let `torchrun --max-restarts 3` do so."
        ) from error
