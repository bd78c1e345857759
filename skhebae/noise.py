"""Gaussian noise for wide rows, drawn once and used several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Numbers in a pool, and how often each is used on average before the pool is redrawn.
POOL_SIZE = 2**21
USES = 8


class NoisePool:
    """Pool of standard normal numbers from which each request takes a random stretch.

    Two minibatches may share numbers, but almost never at the same entries, because their
    stretches start at random positions.

    Parameters
    ----------
    generator : torch.Generator
        Source, on the CPU, of the numbers and of where the stretches start.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._before: Tensor | None = None  # generator's state before it drew the pool
        self._numbers: Tensor | None = None
        self._left = 0

    def draw(self, shape: torch.Size) -> Tensor:
        """Return standard normal numbers, which the caller must not modify: they are a view."""
        n_numbers = shape.numel()
        if 2 * n_numbers > POOL_SIZE:
            return draw_normal(shape, self._generator)
        if self._numbers is None or self._left < n_numbers:
            self._before = self._generator.get_state()
            self._numbers = draw_normal((POOL_SIZE,), self._generator)
            self._left = USES * POOL_SIZE
        self._left -= n_numbers
        n_starts = POOL_SIZE - n_numbers + 1
        start = int(torch.randint(n_starts, (), generator=self._generator, device="cpu"))
        return self._numbers[start : start + n_numbers].view(shape)

    def state(self) -> tuple[dict[str, Tensor], int]:
        """Return the generator's state before the pool was drawn, and how many uses are left."""
        return ({} if self._before is None else {"before": self._before}), self._left

    def restore(self, tensors: dict[str, Tensor], left: int) -> None:
        """Return to an earlier `state` by drawing the same pool again."""
        if "before" in tensors:
            self._before = tensors["before"]
            again = torch.Generator()
            again.set_state(self._before)
            self._numbers = draw_normal((POOL_SIZE,), again)
        self._left = left


def draw_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers on the CPU, float32."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


@dataclass(frozen=True, eq=False)
class InputNoise:
    """Gaussian noise on the encoder's input: the denoising criterion (Vincent et al., 2008).

    Attributes
    ----------
    deviation : float
        Standard deviation, in units of the standardised rows.
    source : torch.Generator or NoisePool
    """

    deviation: float
    source: torch.Generator | NoisePool

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x` with noise added."""
        if isinstance(self.source, NoisePool):
            noise = self.source.draw(x.shape)
        else:
            noise = torch.randn(x.shape, generator=self.source, dtype=x.dtype, device=x.device)
        return x.add(noise, alpha=self.deviation)


@dataclass(frozen=True, eq=False)
class InputDropout:
    """Hides entries of training rows from the encoder, as if they were missing.

    Attributes
    ----------
    share : float
        Of the observed entries, on average.
    generator : torch.Generator
    """

    share: float
    generator: torch.Generator

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return a mask of the entries of `x` (n, p) that the encoder sees."""
        draws = torch.rand(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        kept = draws >= self.share
        return kept if mask is None else kept & mask
