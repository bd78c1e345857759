"""Forked children: locks that nobody would release, and threads of OpenMP that are gone.

A child has one thread, the one that forked. A lock that another thread held stays locked for ever,
and OpenMP waits for ever for the threads that it had started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, Generic, Self, TypeVar, overload

import torch
from threadpoolctl import ThreadpoolController

T = TypeVar("T")


class ForkSafeLock:
    """A lock that is open in a forked child, whoever held it in the parent."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock within the block."""
        lock = self._lock  # in a child that is forked within the block, `self` has another
        with lock:
            yield


class cached_property(Generic[T]):  # noqa: N801
    """`functools.cached_property` without its lock, which Python has dropped in 3.12.

    The lock is one for all instances. A child that is forked while another thread computes the
    property would wait for it for ever. Two threads that ask at once both compute it.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        value = self.function(instance)
        instance.__dict__[self._name] = value
        return value


class _Child:
    """Whether this process was forked, and the thread that has yet to forget OpenMP's threads."""

    forked = False
    unsettled: int | None = None


def _mark_child() -> None:
    _Child.forked = True
    _Child.unsettled = get_ident()


os.register_at_fork(after_in_child=_mark_child)


def has_forked() -> bool:
    """Whether this process is a forked child."""
    return _Child.forked


def settle_child() -> None:
    """Compute with one thread from now on, if this is the thread that a child was forked with.

    Only that thread has lost others. This waits until we are called, so that children that
    compute nothing by us keep their threads.
    """
    if _Child.unsettled != get_ident():
        return
    _Child.unsettled = None
    torch.set_num_threads(1)
    openmp().limit(limits=1)  # scikit-learn has a library of its own


def openmp() -> ThreadpoolController:
    """Look up the OpenMP libraries of the process, which takes milliseconds."""
    return ThreadpoolController().select(user_api="openmp")
