"""Modes of the caller's thread or process that change what torch and numpy compute.

A fit under `torch.no_grad`, or a code under `torch.autocast`, is to be the same as without. Each of
our public methods therefore computes in the modes that a new process has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from skhebae.process.forks import has_forked, settle_child

P = ParamSpec("P")
R = TypeVar("R")


def has_autocast(device_type: str) -> bool:
    """Whether this version of torch can lower the precision on a kind of device."""
    try:
        torch.is_autocast_enabled(device_type)
    except RuntimeError:
        return False
    return True


#: Devices that we compute on, each with an autocast of its own; the last is new in torch 2.5.
DEVICE_TYPES = tuple(filter(has_autocast, ("cpu", "cuda", "mps")))

#: What numpy does by default.
NUMPY_ERRORS: dict[str, Any] = {
    "divide": "warn",
    "over": "warn",
    "under": "ignore",
    "invalid": "warn",
}

#: Functions whose result has the default dtype, unless the caller names another.
OF_DEFAULT_DTYPE = {
    torch.empty,
    torch.empty_strided,
    torch.eye,
    torch.linspace,
    torch.logspace,
    torch.ones,
    torch.rand,
    torch.randn,
    torch.zeros,
}

#: Functions for which that holds if they are given Python floats.
OF_DEFAULT_DTYPE_FOR_FLOATS = {torch.arange, torch.full, torch.scalar_tensor, torch.tensor}


def in_plain_modes(method: Callable[P, R]) -> Callable[P, R]:
    """Make a function compute the same in whatever modes it is called, and in forked children."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if are_plain():  # as they mostly are, and in every call by another of our methods
            return method(*args, **kwargs)
        with plain_modes():
            return method(*args, **kwargs)

    return guarded


def are_plain() -> bool:
    """Whether a call may go on as it is, which this finds out in a few microseconds."""
    by_default = torch.empty(0)
    return (
        torch.is_grad_enabled()
        and by_default.is_cpu
        and by_default.dtype is torch.float32
        and not by_default.is_inference()
        and not any(map(torch.is_autocast_enabled, DEVICE_TYPES))
        and np.geterr() == NUMPY_ERRORS
        and not has_forked()
    )


@contextmanager
def plain_modes() -> Iterator[None]:
    """Compute in the modes of a new process within the block, in this thread only.

    Gradients are recorded and tensors are ordinary ones; there is no autocast; what names neither
    device nor dtype is on the CPU and in float32; numpy warns as it does by default.
    """
    settle_child()
    with np.errstate(**NUMPY_ERRORS), ExitStack() as stack:
        for mode in modes_to_leave():
            stack.enter_context(mode)
        try:
            yield
        except RuntimeError as error:
            if has_forked() and "fork" in str(error):
                error.add_note(
                    "This process was forked from one that had used torch's threads or a GPU. "
                    "Start processes with multiprocessing.get_context('spawn') instead."
                )
            raise


def modes_to_leave() -> Iterator[AbstractContextManager[object]]:
    """Yield what neutralises each mode that torch is in; each is entered before the next."""
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        yield torch.inference_mode(False)  # which also turns gradients on
    for device_type in DEVICE_TYPES:
        if torch.is_autocast_enabled(device_type):
            yield without_autocast(device_type)
    by_default = torch.empty(0)
    if by_default.device.type != "cpu":
        yield torch.device("cpu")
    if by_default.dtype != torch.float32:
        # The default itself belongs to all threads of the process.
        yield Float32()


@contextmanager
def without_autocast(device_type: str) -> Iterator[None]:
    """Turn autocast off within the block; `torch.autocast` would warn where no such device is."""
    torch.set_autocast_enabled(device_type, False)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device_type, True)


class Float32(TorchFunctionMode):
    """Makes tensors in float32 where the caller names no dtype, whatever the default is."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Name the dtype in calls of functions that make tensors."""
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is None and kwargs.get("out") is None:
            of_floats = func in OF_DEFAULT_DTYPE_FOR_FLOATS
            if func in OF_DEFAULT_DTYPE or (of_floats and holds_float([*args, *kwargs.values()])):
                kwargs["dtype"] = torch.float32
        return func(*args, **kwargs)


def holds_float(value: Any) -> bool:
    """Whether a Python float is in nested lists and tuples."""
    if isinstance(value, list | tuple):
        return any(holds_float(part) for part in value)
    return isinstance(value, float)
