"""Log-probabilities of counts: Poisson, negative binomial, and that with extra zeros.

Most counts are zero, and a zero needs no gamma function, so those are evaluated at the non-zero
entries only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def poisson_log_prob(x: Tensor, log_mean: Tensor) -> Tensor:
    """Return ``sum_j log Poisson(x_j; exp(log_mean_j))`` of each row, (n,), nats.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    """
    total = (x * log_mean - log_mean.exp()).sum(dim=1)
    if x.device.type == "cuda":
        return total - torch.lgamma(x + 1.0).sum(dim=1)
    entries = nonzero(x)
    return total.index_add(0, entries.row, -torch.lgamma(entries.counts + 1.0))


def negative_binomial_log_prob(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Sum the log-probabilities of each row's entries under a negative binomial, (n,), nats.

    Its mean is ``exp(log_mean_j)`` and its variance ``mean + mean^2 / theta_j``. With ``r = log
    mean - log theta`` an entry contributes ``x r - (x + theta) softplus(r)``, which for a zero is
    ``theta log(theta / (theta + mean))``. An entry x > 0 adds ``lgamma(x + theta) - lgamma(theta)
    - lgamma(x + 1)``.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    log_theta : Tensor of shape (p,)
        Inverse dispersion.
    """
    if x.device.type == "cuda":
        return add_gammas(powers(x, log_mean, log_theta).sum(dim=1), x, log_theta)
    total: Tensor = NegativeBinomial.apply(x, log_mean, log_theta)  # type: ignore[no-untyped-call]
    return total


class NegativeBinomial(torch.autograd.Function):
    """`negative_binomial_log_prob` with its own gradient.

    Autograd would keep, write and read a table of rows and features for every operation. With
    ``s = mean / (mean + theta)`` the derivative by log_mean is ``x (1 - s) - theta s``. That by
    log_theta is its negative plus ``theta (digamma(x + theta) - digamma(theta) - softplus(r))``.
    Terms in x come from the non-zero entries only.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
        """Evaluate the sum over features, (n,)."""
        theta = log_theta.exp()
        ratio = log_mean - log_theta
        softplus = functional.softplus(ratio)
        entries = nonzero(x)
        own = entries.counts + theta.index_select(0, entries.column)
        log_share = functional.logsigmoid(ratio.view(-1).index_select(0, entries.place))
        ctx.save_for_backward(ratio, softplus, theta, log_share, own, *entries)
        of_counts = torch.lgamma(own) - torch.lgamma(theta).index_select(0, entries.column)
        of_counts = of_counts - torch.lgamma(entries.counts + 1.0) + entries.counts * log_share
        # In double, after training: sum in an order that does not depend on the other rows.
        exact = x.dtype == torch.float64
        zeros = (softplus * theta).sum(dim=1) if exact else softplus @ theta
        return zeros.neg_().index_add_(0, entries.row, of_counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, Tensor]:
        """Return the derivatives by log_mean (n, p) and log_theta (p,)."""
        ratio, softplus, theta, log_share, own, *saved = ctx.saved_tensors
        entries = Entries(*saved)
        gradient = ratio.sigmoid().mul_(-theta)
        gradient.view(-1).index_add_(0, entries.place, -entries.counts * log_share.expm1())
        by_theta = torch.digamma(own) - torch.digamma(theta).index_select(0, entries.column)
        by_theta = by_theta * slope.index_select(0, entries.row)
        by_theta = (-(slope @ softplus)).index_add_(0, entries.column, by_theta)
        return None, gradient.mul_(slope[:, None]), theta * by_theta - gradient.sum(dim=0)


def zero_inflated_log_prob(
    x: Tensor, log_mean: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """Sum the log-probabilities of each row under a zero-inflated negative binomial, (n,), nats.

    An entry is 0 with probability ``sigmoid(zi_logits_j)``, and otherwise drawn from a negative
    binomial.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    log_theta, zi_logits : Tensor of shape (p,)
    """
    own = powers(x, log_mean, log_theta)
    # log(pi + (1 - pi) NB(0)), without the factor 1 - pi.
    entries = torch.where(x > 0, own, torch.logaddexp(zi_logits, own))
    total = entries.sum(dim=1) + functional.logsigmoid(-zi_logits).sum()
    return add_gammas(total, x, log_theta)


def powers(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Return log-probabilities of a negative binomial without gamma functions, (n, p)."""
    ratio = log_mean - log_theta
    return x * ratio - (x + log_theta.exp()) * functional.softplus(ratio)


def add_gammas(total: Tensor, x: Tensor, log_theta: Tensor) -> Tensor:
    """Add the gamma functions of the non-zero entries to the totals (n,) of their rows.

    On a GPU they are evaluated at all entries, where those of zeros cancel: finding the others
    would make the host wait, and their number changes in every step.
    """
    theta = log_theta.exp()
    if x.device.type == "cuda":
        return total + gammas(x, log_theta).sum(dim=1)
    entries = nonzero(x)
    # One gamma function per feature, and two per entry.
    of_counts = torch.lgamma(entries.counts + theta.index_select(0, entries.column))
    of_counts = of_counts - torch.lgamma(theta).index_select(0, entries.column)
    return total.index_add(0, entries.row, of_counts - torch.lgamma(entries.counts + 1.0))


class Entries(NamedTuple):
    """The non-zero entries of a table, each field (n_nonzero,)."""

    place: Tensor
    row: Tensor
    column: Tensor
    counts: Tensor


def nonzero(x: Tensor) -> Entries:
    """Find the non-zero entries: their places in the flattened table, rows, columns and values."""
    flat = x.detach().reshape(-1)
    if x.device.type == "cpu":  # where numpy is six times as fast
        index = torch.from_numpy(np.flatnonzero(flat.numpy() != 0))
    else:
        index = flat.nonzero()[:, 0]
    row = index // x.shape[1]
    return Entries(index, row, index - row * x.shape[1], flat.index_select(0, index))


def poisson_entries(x: Tensor, log_mean: Tensor) -> Tensor:
    """Return ``log Poisson(x_j; exp(log_mean_j))`` of each entry, (n, p), nats."""
    return x * log_mean - log_mean.exp() - torch.lgamma(x + 1.0)


def negative_binomial_entries(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Return the terms that `negative_binomial_log_prob` sums, (n, p), nats."""
    return powers(x, log_mean, log_theta) + gammas(x, log_theta)


def zero_inflated_entries(
    x: Tensor, log_mean: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """Return the terms that `zero_inflated_log_prob` sums, (n, p), nats."""
    own = powers(x, log_mean, log_theta)
    entries = torch.where(x > 0, own + gammas(x, log_theta), torch.logaddexp(zi_logits, own))
    return entries + functional.logsigmoid(-zi_logits)


def gammas(x: Tensor, log_theta: Tensor) -> Tensor:
    """Return ``lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)``, (n, p)."""
    theta = log_theta.exp()
    return torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1.0)
