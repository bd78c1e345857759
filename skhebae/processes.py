"""The processes that fit one model together, and what each has of a minibatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from skhebae.exceptions import DistributedError

T = TypeVar("T")

#: What errors of torch.distributed say that have no class of their own.
SIGNS_OF_LOSS = ("gloo", "nccl", "connection closed", "connection reset", "timed out")


class Part(ABC):
    """What one process has of a minibatch."""

    @abstractmethod
    def n_rows(self, own: int) -> int:
        """Rows of the minibatch in all processes, `own` being in this one."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Rows (B, ...) of all processes for those of this one, gradients included."""

    @abstractmethod
    def own(self, rows: Tensor) -> Tensor:
        """Invert `gather`: what of the rows of all processes is this one's."""

    @abstractmethod
    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers for the rows of all processes, as wide as `like`."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Of one value a row, (): a number whose mean over processes is the mean over rows."""

    @abstractmethod
    def average(self, value: Tensor) -> Tensor:
        """Average what processes measured on their rows, in proportion to the rows."""


class Whole(Part):
    """All of the minibatch, of the only process."""

    def n_rows(self, own: int) -> int:
        """Return them."""
        return own

    def gather(self, rows: Tensor) -> Tensor:
        """Return them."""
        return rows

    def own(self, rows: Tensor) -> Tensor:
        """Return them."""
        return rows

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from `generator`."""
        return torch.randn(like.shape, generator=generator, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over rows, ()."""
        return values.mean()

    def average(self, value: Tensor) -> Tensor:
        """Return it."""
        return value


WHOLE = Whole()


class Share(Part):
    """The rows that a process of several has; those of rank 0 come first.

    Sizes are known beforehand from the rows of each process, so that no step has to
    ask for them, nor wait for a GPU to answer.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each process; 0 is one.
    rank : int
    generator : torch.Generator
        In the same state in all processes.
    """

    def __init__(self, sizes: Sequence[int], rank: int, generator: torch.Generator) -> None:
        self._sizes = tuple(sizes)
        self._rank = rank
        self._generator = generator
        self._total = sum(sizes)
        start = sum(sizes[:rank])
        self._slice = slice(start, start + sizes[rank])

    def n_rows(self, own: int) -> int:
        """Count those of all processes."""
        return self._total

    def gather(self, rows: Tensor) -> Tensor:
        """Gather them, by `GatherRows`."""
        result: Tensor = GatherRows.apply(rows, self._sizes, self._slice)  # type: ignore[no-untyped-call]
        return result

    def own(self, rows: Tensor) -> Tensor:
        """Return the slice of this process."""
        return rows[self._slice]

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from the generator that all processes have alike, not from their own.

        So that the noise of a minibatch does not depend on how many share it.
        """
        shape = (self._total, *like.shape[1:])
        return torch.randn(shape, generator=self._generator, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Sum over the rows of this process, by the mean number of rows in a process, ()."""
        return values.sum() * (len(self._sizes) / self._total)

    def average(self, value: Tensor) -> Tensor:
        """Sum of the values, each times its share in the rows."""
        result = value * (self._sizes[self._rank] / self._total)
        distributed.all_reduce(result)
        return result


class GatherRows(torch.autograd.Function):
    """Rows of all processes from those of each, with gradients.

    Each process has its own loss of the gathered rows, and what its own rows contribute
    to the losses of the others comes back by a sum over processes. The mean of the
    gradients over processes, as DistributedDataParallel takes it, is then that of the
    mean of the losses. Were the rows of others constants, a loss that all processes
    share would have that gradient divided by their number.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...], own: slice) -> Tensor:
        """Concatenate them; all are sent as long as the longest."""
        ctx.own = own
        short = max(sizes) - len(rows)
        padded = functional.pad(rows, (0,) * (2 * rows.ndim - 1) + (short,)).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sum over processes, and take the slice of this one."""
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.own], None, None


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
        return DistributedDataParallel(FunctionOf(module, function), find_unused_parameters=unused)

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
