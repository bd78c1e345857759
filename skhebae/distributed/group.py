"""A single process, or the process group of torch.distributed."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from skhebae.distributed.failures import is_lost_process
from skhebae.distributed.shards import WHOLE, GroupShard, Shard

T = TypeVar("T")


class Group(ABC):
    """The processes that fit one model together.

    Attributes
    ----------
    rank : int
        Number of this process.
    size : int
        Number of processes.
    """

    rank: int
    size: int

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of ranks."""

    @abstractmethod
    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the process of rank 0 only and return its result in all."""

    @abstractmethod
    def agreement(self) -> AbstractContextManager[None]:
        """Raise in all processes an error that the block raises in any of them.

        Inside the block, processes may communicate through `gather` and `from_first` only.
        """

    @abstractmethod
    def mean(self, values: Tensor, n_rows: float) -> Tensor:
        """Combine the means over each process's `n_rows` rows into the mean over all rows."""

    @abstractmethod
    def shards(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Shard]:
        """Return this process's shard of each minibatch.

        `counts` holds the rows of each process, which `numpy.array_split` divides.
        """

    @abstractmethod
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the process of rank 0."""

    @abstractmethod
    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Wrap a `function` of `module` so that gradients are means over processes.

        `unused` says that the function may leave out some parameters.
        """

    @abstractmethod
    def release(self) -> None:
        """Free what a `data_parallel` function that is no longer in use holds of the group."""


class SingleProcess(Group):
    """A group of one process, which has nothing to exchange."""

    rank = 0
    size = 1

    def gather(self, value: T) -> list[T]:
        """Return a list of the one value."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """Return the result of `make`."""
        return make()

    def agreement(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def mean(self, values: Tensor, n_rows: float) -> Tensor:
        """Return `values`."""
        return values

    def shards(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Shard]:
        """Return whole minibatches."""
        return [WHOLE] * n_minibatches

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Leave the tensors as they are."""

    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Return `function`."""
        return function

    def release(self) -> None:
        """Return at once: nothing is held."""


SINGLE = SingleProcess()


class TorchGroup(Group):
    """The default process group of torch.distributed, which the user has initialised.

    Parameters
    ----------
    device : torch.device
        Where this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self._device = device
        self._agreed: BaseException | None = None

    def gather(self, value: T) -> list[T]:
        """Exchange pickles; raise the error of a process that has left its `agreement`."""
        messages = self._exchange((None, value))
        self._raise_first(messages)
        return [value for _, value in messages]

    def from_first(self, make: Callable[[], T]) -> T:
        """Broadcast a pickle, or raise in all processes the error that `make` raised."""
        with self.agreement():
            parcel: list[Any] = [make() if self.rank == 0 else None]
        with self._on_device():
            distributed.broadcast_object_list(parcel, src=0)
        value: T = parcel[0]
        return value

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Exchange errors at the end of the block; every earlier exchange carries them too."""
        try:
            yield
        except Exception as error:
            if error is self._agreed or is_lost_process(error):
                raise
            self._raise_first(self._exchange((error_to_send(error), None)), error)
        else:
            self.gather(None)

    def mean(self, values: Tensor, n_rows: float) -> Tensor:
        """Weight each process's means by its rows; ignore processes without rows."""
        gathered = self.gather((values.detach().cpu().double().numpy(), n_rows))
        total = sum(n for _, n in gathered)
        mean = sum(values * (n / total) for values, n in gathered if n > 0)
        return torch.as_tensor(mean, device="cpu").to(values)

    def shards(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Shard]:
        """Split every minibatch over the processes in proportion to their rows."""
        result: list[Shard] = []
        for i in range(n_minibatches):
            sizes = [n // n_minibatches + (i < n % n_minibatches) for n in counts]
            result.append(GroupShard(sizes, self.rank, generator))
        return result

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast one tensor after another."""
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), src=0)

    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Wrap the function in DistributedDataParallel."""
        return DistributedDataParallel(
            FunctionOf(module, function),
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,
        )

    def release(self) -> None:
        """Collect the wrapper, and with it the hooks on the weights.

        It refers to itself and to the group. If it survived until the end of the process, when
        gloo's threads are gone, it could abort a script that has done its work.
        """
        gc.collect()

    def _exchange(self, message: tuple[Any, Any]) -> list[tuple[Any, Any]]:
        """Return the messages of all processes."""
        messages: list[Any] = [None] * self.size
        with self._on_device():
            distributed.all_gather_object(messages, message)
        return messages

    def _raise_first(
        self, messages: list[tuple[Any, Any]], cause: BaseException | None = None
    ) -> None:
        """Raise the error of the lowest rank that sent one."""
        for rank, (error, _) in enumerate(messages):
            if error is not None:
                kind, text = error
                self._agreed = kind(f"Rank {rank} of {self.size}: {text}")
                raise self._agreed from (cause if rank == self.rank else None)

    def _on_device(self) -> AbstractContextManager[Any]:
        """Select this process's GPU, from which NCCL sends pickles."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


class FunctionOf(nn.Module):
    """A function of a module, as a module that DistributedDataParallel accepts.

    It has the parameters of the module but not its buffers, which would otherwise be sent
    before every step.
    """

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.of_module = nn.ParameterList(module.parameters())
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        """Call the function."""
        return self._function(*arguments)


def error_to_send(error: Exception) -> tuple[type[Exception], str]:
    """Return the class and text of an error, for other processes to raise."""
    kind = type(error)
    try:
        kind(str(error))
    except TypeError:  # its constructor takes other arguments than a text
        kind = RuntimeError
    return kind, str(error)
