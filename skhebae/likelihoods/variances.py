"""Variances of entries that follow from a mean and a Fisher information."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def least_variance(
    mean: Callable[[Tensor], Tensor], information: Tensor, parameter: Tensor
) -> Tensor:
    """Return the variance of each entry given its parameter, (n, p).

    ``(dE[x]/d eta)^2 / I(eta)``, I the Fisher information of the parameter eta: equal to the
    variance in one-parameter exponential families whose statistic is x, and in any other the least
    that the mean and the information allow (Cramér and Rao).

    Parameters
    ----------
    mean : callable
        Of the parameter (n, p), to (n, p).
    information, parameter : Tensor of shape (n, p)
    """
    with torch.enable_grad():
        leaf = parameter.detach().requires_grad_()
        slope = own_slopes(mean(leaf), leaf)
    return slope.square() / information


def own_slopes(values: Tensor, leaf: Tensor) -> Tensor:
    """Return ``d values_ij / d leaf_ij``, (n, p), by two backward passes where these tell it.

    The Jacobian of each row is diagonal for entries of their own. Where entries share a sum, the
    diagonal is found entry by entry.
    """
    (together,) = torch.autograd.grad(values.sum(), leaf, retain_graph=True)
    signs = 1.0 - 2.0 * (torch.arange(leaf.shape[1], device=leaf.device) % 2).to(leaf.dtype)
    (alternating,) = torch.autograd.grad((values * signs).sum(), leaf, retain_graph=True)
    if torch.equal(together, alternating * signs):
        return together
    diagonal = torch.empty_like(leaf)
    for j in range(leaf.shape[1]):
        (column,) = torch.autograd.grad(values[:, j].sum(), leaf, retain_graph=True)
        diagonal[:, j] = column[:, j]
    return diagonal
