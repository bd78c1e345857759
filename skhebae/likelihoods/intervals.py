"""Probabilities of intervals under the normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: An interval is narrow if its width times the size of its middle is less.
NARROW = 0.1

#: Distance below the upper end (or below 0) from which the lower tail is less than exp(-200) of the
#: upper end's.
WIDEST = 20.0


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    """Return ``log(Phi(high) - Phi(low))`` for low < high, without loss of digits in the tails.

    Of narrow intervals ``log(width phi(middle) sinh(y) / y) - width^2 / 24`` with ``y = middle
    width / 2``: the difference would lose its digits, and so would its gradient.
    """
    # On the left side, where Phi is small, it has all its digits.
    flips = low + high > 0.0
    low, high = torch.where(flips, -high, low), torch.where(flips, -low, high)
    width = high - low
    middle = 0.5 * (low + high)
    narrow = width * (1.0 + middle.abs()) < NARROW
    squares = (0.5 * middle * width).where(narrow, 0.0).square()
    narrow_width = width.where(narrow, 1.0)
    from_middle = (
        -0.5 * middle.where(narrow, 0.0).square()
        - 0.5 * math.log(2.0 * math.pi)
        + narrow_width.log()
        + squares / 6.0
        - narrow_width.square() / 24.0
    )
    above = torch.special.log_ndtr(high)
    # log_ndtr has no finite gradient at the lowest ends.
    low = torch.maximum(low, high.clamp(max=0.0) - WIDEST)
    ratio = (torch.special.log_ndtr(low) - above).where(~narrow, -1.0)
    from_ends = above + torch.log(-torch.expm1(ratio))
    return torch.where(narrow, from_middle, from_ends)
