"""Probabilities of intervals under the normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: An interval is narrow if its width times the size of its middle is less.
NARROW = 0.1


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
    above = log_normal_cdf(high)
    ratio = (log_normal_cdf(low) - above).where(~narrow, -1.0)
    from_ends = above + torch.log(-torch.expm1(ratio))
    return torch.where(narrow, from_middle, from_ends)


def log_normal_cdf(x: Tensor) -> Tensor:
    """Return ``log Phi(x)``, by ``Phi(x) = exp(-x^2 / 2) erfcx(-x / sqrt(2)) / 2`` on the left.

    The gradient of `torch.special.log_ndtr` loses its digits there in single precision. It is 5 %
    off at -1,000, and infinite at some places from -10,000.
    """
    left = x < -1.0
    tail = x.where(left, -1.0)
    scaled = 0.5 * torch.special.erfcx(-math.sqrt(0.5) * tail)
    return torch.where(
        left, scaled.log() - 0.5 * tail.square(), torch.special.log_ndtr(x.where(~left, 0.0))
    )
