"""Best Gaussian posteriors with the decoder fixed, and the gap between log p(x) and the bound."""

from skhebae.variational.families import FullFamily, Gaussian, ScaledFamily, best_gaussian
from skhebae.variational.gap import (
    GapParts,
    block_bounds,
    gap_parts,
    importance_log_likelihood,
    independence_loss,
    off_diagonal_size,
)

__all__ = [
    "FullFamily",
    "GapParts",
    "Gaussian",
    "ScaledFamily",
    "best_gaussian",
    "block_bounds",
    "gap_parts",
    "importance_log_likelihood",
    "independence_loss",
    "off_diagonal_size",
]
