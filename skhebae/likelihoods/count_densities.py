"""Log-probabilities of counts: Poisson, negative binomial, and that with extra zeros.

Most counts are zero, and a zero needs no gamma function, so those are evaluated at the non-zero
entries only. No difference of large terms is taken: a count of a billion under a mean of about as
much loses no more digits than its logarithm has. The saddle-point form achieves that.

References
----------
.. [1] C. Loader, "Fast and accurate computation of binomial probabilities", 2000.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

#: From here on, four terms of Stirling's series are exact to all digits of float64.
SERIES_FROM = 16.0

#: Relative differences up to this size go through log1p.
SMALL_DIFFERENCE = 0.5

#: Smallest log-mean in a quotient, so that it does not overflow.
SMALLEST_LOG_MEAN = -60.0

#: Coefficients of Stieltjes' continued fraction of `stirling_error`, from the last to the first.
STIELTJES = (195.0 / 371.0, 53.0 / 210.0, 1.0 / 30.0, 1.0 / 12.0)

LOG_2_PI = math.log(2.0 * math.pi)


# Sums over the features of each row


def poisson_log_prob(x: Tensor, log_mean: Tensor) -> Tensor:
    """Return ``sum_j log Poisson(x_j; exp(log_mean_j))`` of each row, (n,), nats.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    """
    if x.device.type == "cuda":
        # Finding the non-zero entries would make the host wait.
        return poisson_entries(x, log_mean).sum(dim=1)
    total: Tensor = Poisson.apply(x, log_mean)  # type: ignore[no-untyped-call]
    return total


class Poisson(torch.autograd.Function):
    """`poisson_log_prob` with its own gradient, ``x - mean``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor) -> Tensor:
        """Evaluate the sum over features, (n,)."""
        mean, entries = log_mean.exp(), nonzero(x)
        own = entries.take(log_mean)
        # Only zeros contribute their mean as it is.
        mean.view(-1).index_fill_(0, entries.place, 0.0)
        ctx.save_for_backward(mean, own, *entries)
        positive = poisson_positive(entries.counts, own)
        return mean.sum(dim=1).neg_().index_add_(0, entries.row, positive)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor]:
        """Return the derivative by log_mean, (n, p)."""
        mean, own, *saved = ctx.saved_tensors
        entries, gradient = Entries(*saved), -mean
        gradient.view(-1).index_copy_(0, entries.place, entries.counts - own.exp())
        return None, gradient.mul_(slope[:, None])


def negative_binomial_log_prob(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Sum the log-probabilities of each row's entries under a negative binomial, (n,), nats.

    Its mean is ``exp(log_mean_j)`` and its variance ``mean + mean^2 / theta_j``. A zero contributes
    ``-theta softplus(log mean - log theta)``, any other count `negative_binomial_positive`.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    log_theta : Tensor of shape (p,)
        Inverse dispersion.
    """
    if x.device.type == "cuda":
        return negative_binomial_entries(x, log_mean, log_theta).sum(dim=1)
    total: Tensor = NegativeBinomial.apply(x, log_mean, log_theta)  # type: ignore[no-untyped-call]
    return total


class NegativeBinomial(torch.autograd.Function):
    """`negative_binomial_log_prob` with its own gradient.

    Autograd would keep, write and read a table of rows and features for every operation. The
    derivative by log_mean is ``theta (x - mean) / (theta + mean)``; that by log_theta is
    `by_log_theta`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
        """Evaluate the sum over features, (n,)."""
        ratio = log_mean - log_theta
        softplus = functional.softplus(ratio)
        entries, theta = nonzero(x), log_theta.exp()
        own = Positive.of(
            entries.counts,
            entries.take(log_mean),
            log_theta.index_select(0, entries.column),
            entries.take(softplus),
        )
        root = root_less_error(theta, log_theta).index_select(0, entries.column)
        softplus.view(-1).index_fill_(0, entries.place, 0.0)
        ctx.save_for_backward(ratio, softplus, theta, *entries, *own)
        # In double, after training: sum in an order that does not depend on the other rows.
        exact = x.dtype == torch.float64
        zeros = (softplus * theta).sum(dim=1) if exact else softplus @ theta
        return zeros.neg_().index_add_(0, entries.row, own.log_prob(root))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, Tensor]:
        """Return the derivatives by log_mean (n, p) and log_theta (p,)."""
        ratio, softplus, theta, *saved = ctx.saved_tensors
        entries, own = Entries(*saved[:4]), Positive(*saved[4:])
        of_row = slope.index_select(0, entries.row)
        # Of zeros: -theta mean / (theta + mean), and by log_theta its negative less softplus.
        gradient = ratio.sigmoid().mul_(-theta)
        gradient.view(-1).index_fill_(0, entries.place, 0.0)
        gradient.mul_(slope[:, None])
        by_theta = -theta * (slope @ softplus) - gradient.sum(dim=0)
        slopes = own.slope()
        digammas = torch.digamma(theta).index_select(0, entries.column)
        by_theta.index_add_(0, entries.column, own.by_log_theta(slopes, digammas) * of_row)
        gradient.view(-1).index_copy_(0, entries.place, slopes * of_row)
        return None, gradient, by_theta


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
    if x.device.type == "cuda":
        return zero_inflated_entries(x, log_mean, log_theta, zi_logits).sum(dim=1)
    # log(pi + (1 - pi) NB(0)), without the factor 1 - pi.
    zeros = torch.logaddexp(zi_logits, negative_binomial_zero(log_mean, log_theta))
    total = zeros.where(x == 0, 0.0).sum(dim=1) + functional.logsigmoid(-zi_logits).sum()
    entries = nonzero(x)
    positive = negative_binomial_positive(
        entries.counts, entries.take(log_mean), log_theta.index_select(0, entries.column)
    )
    return total.index_add(0, entries.row, positive)


class Entries(NamedTuple):
    """The non-zero entries of a table, each field (n_nonzero,)."""

    place: Tensor
    row: Tensor
    column: Tensor
    counts: Tensor

    def take(self, table: Tensor) -> Tensor:
        """Select the same entries of another table of this shape."""
        return table.reshape(-1).index_select(0, self.place)


def nonzero(x: Tensor) -> Entries:
    """Find the non-zero entries: their places in the flattened table, rows, columns and values."""
    flat = x.detach().reshape(-1)
    if x.device.type == "cpu":  # where numpy is six times as fast
        place = np.flatnonzero(flat.numpy() != 0)
        index, row = (torch.from_numpy(of) for of in (place, place // x.shape[1]))
    else:
        index = flat.nonzero()[:, 0]
        row = index // x.shape[1]
    return Entries(index, row, index - row * x.shape[1], flat.index_select(0, index))


# Single entries of any shape


def poisson_entries(x: Tensor, log_mean: Tensor) -> Tensor:
    """Return ``log Poisson(x_j; exp(log_mean_j))`` of each entry, (n, p), nats."""
    positive = poisson_positive(x.clamp_min(1.0), log_mean)
    return torch.where(x > 0, positive, -log_mean.exp())


def negative_binomial_entries(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Return the terms that `negative_binomial_log_prob` sums, (n, p), nats."""
    positive = negative_binomial_positive(x.clamp_min(1.0), log_mean, log_theta)
    return torch.where(x > 0, positive, negative_binomial_zero(log_mean, log_theta))


def zero_inflated_entries(
    x: Tensor, log_mean: Tensor, log_theta: Tensor, zi_logits: Tensor
) -> Tensor:
    """Return the terms that `zero_inflated_log_prob` sums, (n, p), nats."""
    positive = negative_binomial_positive(x.clamp_min(1.0), log_mean, log_theta)
    zero = torch.logaddexp(zi_logits, negative_binomial_zero(log_mean, log_theta))
    return torch.where(x > 0, positive, zero) + functional.logsigmoid(-zi_logits)


def poisson_positive(x: Tensor, log_mean: Tensor) -> Tensor:
    """Return ``log Poisson(x; mean)`` of counts x >= 1, nats.

    ``-(x log(x / mean) + mean - x) - 1/2 log(2 pi x) - e(x)`` with `stirling_error` e ([1]_).
    """
    mean = log_mean.exp()
    quotient = (x - mean) / log_mean.clamp_min(SMALLEST_LOG_MEAN).exp()
    deviance = x * log_quotient(quotient, x.log() - log_mean) - (x - mean)
    return -deviance - 0.5 * (LOG_2_PI + x.log()) - stirling_error(x)


def negative_binomial_zero(log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Return ``log NB(0; mean, theta) = -theta log(1 + mean / theta)``, nats."""
    return -log_theta.exp() * functional.softplus(log_mean - log_theta)


def negative_binomial_positive(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Return ``log NB(x; mean, theta)`` of counts x >= 1, nats."""
    own = Positive.of(x, log_mean, log_theta, functional.softplus(log_mean - log_theta))
    return own.log_prob(root_less_error(own.theta, log_theta))


class Positive(NamedTuple):
    """Counts x >= 1 under negative binomials, with what density and derivatives share.

    Attributes
    ----------
    x : Tensor
        Counts, of any shape; the others are of the same.
    surplus : Tensor
        ``x - mean``.
    theta : Tensor
    n, log_n : Tensor
        ``x + theta`` and its logarithm.
    softplus : Tensor
        ``log((theta + mean) / theta)``.
    of_mean, of_theta : Tensor
        ``log(x (theta + mean) / (n mean))`` and ``log((theta + mean) / n)``; both are 0 where x
        is the mean.
    """

    x: Tensor
    surplus: Tensor
    theta: Tensor
    n: Tensor
    log_n: Tensor
    softplus: Tensor
    of_mean: Tensor
    of_theta: Tensor

    @classmethod
    def of(cls, x: Tensor, log_mean: Tensor, log_theta: Tensor, softplus: Tensor) -> Positive:
        """Compute them from log-means, log-thetas and the softplus of their difference."""
        mean, theta = log_mean.exp(), log_theta.exp()
        surplus, n, log_sum = x - mean, x + theta, log_theta + softplus
        log_n = n.log()
        difference = theta / n * (surplus / log_mean.clamp_min(SMALLEST_LOG_MEAN).exp())
        of_mean = log_quotient(difference, x.log() + log_sum - log_n - log_mean)
        of_theta = log_quotient(-surplus / n, log_sum - log_n)
        return cls(x, surplus, theta, n, log_n, softplus, of_mean, of_theta)

    def log_prob(self, root: Tensor) -> Tensor:
        """Return the log-probabilities, nats; `root` is `root_less_error` of theta.

        ``-x log(x (theta + mean) / (n mean)) - theta log((theta + mean) / n) + 1/2 log(theta / (2
        pi x n)) + e(n) - e(theta) - e(x)`` with `stirling_error` e ([1]_).
        """
        deviance = self.x * self.of_mean + self.theta * self.of_theta
        errors = stirling_error(self.n) - stirling_error(self.x)
        return root + errors - 0.5 * (LOG_2_PI + self.x.log() + self.log_n) - deviance

    def slope(self) -> Tensor:
        """Return the derivatives by log_mean, ``theta (x - mean) / (theta + mean)``."""
        return self.surplus * (-self.softplus).exp()

    def by_log_theta(self, slope: Tensor, digamma_theta: Tensor) -> Tensor:
        """Return the derivatives by log_theta.

        ``theta (digamma(n) - digamma(theta) - log((theta + mean) / theta)) - slope``. For a large
        theta, the logarithms and digammas are of one size and nearly cancel. What is left of them
        is then taken from Stirling's series.
        """
        near = self.theta * (digamma(self.n) - digamma_theta - self.softplus)
        # theta (digamma(n) - log n - digamma(theta) + log theta), by two terms of the series.
        inverse, square = self.theta.reciprocal(), (self.theta / self.n).square()
        series = (1.0 - square) * (1.0 / 12.0 - inverse.square() * (1.0 + square) / 120.0)
        far = 0.5 * self.x / self.n + inverse * series - self.theta * self.of_theta
        return torch.where(self.theta < SERIES_FROM, near, far) - slope


def log_quotient(difference: Tensor, logarithm: Tensor) -> Tensor:
    """Return ``log(1 + difference)``, whose `logarithm` is known but loses digits near 1."""
    small = difference.abs() < SMALL_DIFFERENCE
    if difference.requires_grad:  # the gradient of the other side must be finite too
        difference = difference.where(small, 0.0)
    return torch.where(small, difference.log1p(), logarithm)


def stirling_error(x: Tensor) -> Tensor:
    """Return ``e(x) = log Gamma(x + 1) - (x + 1/2) log x + x - 1/2 log 2 pi`` for x >= 1.

    What Stirling's formula lacks. In float32 by Stieltjes' continued fraction at x + 1, which is
    exact to its digits and quicker than a gamma function.
    """
    if x.dtype == torch.float32:
        rest = torch.zeros_like(x)
        for coefficient in STIELTJES:
            rest = coefficient / (x + 1.0 + rest)
        return rest + ((x + 0.5) * x.reciprocal().log1p() - 1.0)
    small = x.clamp_max(SERIES_FROM)
    exact = torch.lgamma(small + 1.0) - (small + 0.5) * small.log() + small - 0.5 * LOG_2_PI
    return torch.where(x < SERIES_FROM, exact, stirling_series(x.clamp_min(SERIES_FROM)))


def digamma(x: Tensor) -> Tensor:
    """Return the derivative of log Gamma at x >= 1; in float32 quicker than torch's."""
    if x.dtype != torch.float32:
        return torch.digamma(x)
    # Four steps of the recurrence, and then the asymptotic series.
    shifted = x + 4.0
    inverse = shifted.reciprocal()
    square = inverse.square()
    series = shifted.log() - 0.5 * inverse - square * (1.0 / 12.0 - square / 120.0)
    product, last = x * (x + 3.0), (x + 1.0) * (x + 2.0)
    return series - (2.0 * x + 3.0) * (product.reciprocal() + last.reciprocal())


def root_less_error(theta: Tensor, log_theta: Tensor) -> Tensor:
    """Return ``1/2 log theta - e(theta)``, finite also as theta tends to 0."""
    small = theta.clamp_max(SERIES_FROM)
    exact = (small + 1.0) * log_theta - torch.lgamma(small + 1.0) - small + 0.5 * LOG_2_PI
    series = 0.5 * log_theta - stirling_series(theta.clamp_min(SERIES_FROM))
    return torch.where(theta < SERIES_FROM, exact, series)


def stirling_series(x: Tensor) -> Tensor:
    """Return ``1/(12 x) - 1/(360 x^3) + 1/(1260 x^5) - 1/(1680 x^7)``."""
    inverse = x.reciprocal()
    square = inverse.square()
    polynomial = 1.0 / 1260.0 - square / 1680.0
    return inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * polynomial))
