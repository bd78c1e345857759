"""One process, or the process group of torch.distributed."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from skhebae.processes.losses import is_loss
from skhebae.processes.parts import WHOLE, Part, Share

T = TypeVar("T")


class Processes(ABC):
    """The processes of a fit.

    Attributes
    ----------
    rank : int
        Number of this one.
    size : int
        How many there are.
    """

    rank: int
    size: int

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """Return what every process gave, in the order of ranks."""

    @abstractmethod
    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in the process of rank 0, where alone it is called."""

    @abstractmethod
    def agreement(self) -> AbstractContextManager[None]:
        """Raise in all processes what the block raises in any of them.

        Inside, processes may meet in `gather` and `from_first` alone.
        """

    @abstractmethod
    def mean(self, values: Tensor, n_rows: int) -> Tensor:
        """Average means over the `n_rows` rows of each process to the mean over all rows."""

    @abstractmethod
    def parts(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Part]:
        """Return what this process has of each minibatch.

        If each process splits its rows, `counts`, by `numpy.array_split`.
        """

    @abstractmethod
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the process of rank 0."""

    @abstractmethod
    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Make a `function` of `module` whose gradients are means over processes.

        With `unused`, it may leave out some parameters.
        """

    @abstractmethod
    def let_go(self) -> None:
        """End what a `data_parallel` function, no longer in use, has of the group."""


class Alone(Processes):
    """One process."""

    rank = 0
    size = 1

    def gather(self, value: T) -> list[T]:
        """Return the one value."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """Make it."""
        return make()

    def agreement(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def mean(self, values: Tensor, n_rows: int) -> Tensor:
        """Return them."""
        return values

    def parts(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Part]:
        """Whole minibatches."""
        return [WHOLE] * n_minibatches

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Do nothing."""

    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Return the function."""
        return function

    def let_go(self) -> None:
        """Do nothing."""


ALONE = Alone()


class Group(Processes):
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
        """Broadcast a pickle, or raise in all processes what `make` raised."""
        with self.agreement():
            parcel: list[Any] = [make() if self.rank == 0 else None]
        with self._on_device():
            distributed.broadcast_object_list(parcel, src=0)
        value: T = parcel[0]
        return value

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Every exchange says whether its sender is well; the last one is at the end."""
        try:
            yield
        except Exception as error:
            if error is self._agreed or is_loss(error):
                raise
            self._raise_first(self._exchange((error_to_send(error), None)), error)
        else:
            self.gather(None)

    def mean(self, values: Tensor, n_rows: int) -> Tensor:
        """Weight by rows; of no rows nothing is asked."""
        gathered = self.gather((values.detach().cpu().double().numpy(), n_rows))
        total = sum(n for _, n in gathered)
        mean = sum(values * (n / total) for values, n in gathered if n > 0)
        return torch.as_tensor(mean).to(values)

    def parts(
        self, counts: Sequence[int], n_minibatches: int, generator: torch.Generator
    ) -> list[Part]:
        """Share every minibatch, in proportion to rows."""
        result: list[Part] = []
        for i in range(n_minibatches):
            sizes = [n // n_minibatches + (i < n % n_minibatches) for n in counts]
            result.append(Share(sizes, self.rank, generator))
        return result

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast one after the other."""
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), src=0)

    def data_parallel(
        self, module: nn.Module, function: Callable[..., Any], *, unused: bool
    ) -> Callable[..., Any]:
        """Wrap it for DistributedDataParallel."""
        return DistributedDataParallel(
            FunctionOf(module, function),
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,
        )

    def let_go(self) -> None:
        """Collect it, and with it the hooks on the weights.

        It refers to itself and to the group. Left for the end of the process, when gloo's
        threads are gone, it can abort a script that has done its work.
        """
        gc.collect()

    def _exchange(self, message: tuple[Any, Any]) -> list[tuple[Any, Any]]:
        """All processes' messages."""
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
        """NCCL sends pickles from the current device."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


class FunctionOf(nn.Module):
    """A function of a module, as the module that DistributedDataParallel wants.

    It has the parameters of the other and not its buffers, which would be sent before
    every step.
    """

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.of_module = nn.ParameterList(module.parameters())
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        """Call it."""
        return self._function(*arguments)


def error_to_send(error: Exception) -> tuple[type[Exception], str]:
    """Class and text of an error, to be raised by other processes."""
    kind = type(error)
    try:
        kind(str(error))
    except TypeError:  # of other arguments than a text
        kind = RuntimeError
    return kind, str(error)
