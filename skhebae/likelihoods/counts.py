"""Likelihoods of counts: Poisson, and negative binomial with or without extra zeros.

Rows are raw counts. The decoder's output becomes the logarithm of the mean: a
softmax over features times the row's exposure (its size factor), so that codes
speak of composition and not of depth. Most counts are zero, and a zero needs
no gamma function: those are taken at the non-zero entries alone.

References
----------
.. [1] Lopez et al., "Deep generative modeling for single-cell transcriptomics",
   Nature Methods 15, 2018.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from skhebae.likelihoods.base import Likelihood

#: Bounds of log theta. Beyond e^10 a negative binomial is a Poisson for every mean that
#: float32 can tell apart; under e^-10 it is zero but for one row in ten thousand.
LARGEST_LOG_THETA = 10.0

#: Start of the zero-inflation logits: one extra zero in twenty entries.
INITIAL_ZI_LOGIT = -3.0


def poisson_log_prob(x: Tensor, log_mean: Tensor) -> Tensor:
    """``sum_j log Poisson(x_j; exp(log_mean_j))`` of each row, (n,), nats.

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
    """``sum_j log NB(x_j; mean exp(log_mean_j), variance mean + mean^2 / theta_j)``, (n,), nats.

    With ``r = log mean - log theta`` an entry is ``x r - (x + theta) softplus(r)``, of a
    zero ``theta log(theta / (theta + mean))``; and if x > 0 besides ``lgamma(x + theta) -
    lgamma(theta) - lgamma(x + 1)``.

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

    Autograd would keep, write and read a table of rows and features for every operation.
    With ``s = mean / (mean + theta)`` the derivative by log_mean is ``x (1 - s) - theta s``,
    and by log_theta its negative and ``theta (digamma(x + theta) - digamma(theta) -
    softplus(r))``; terms in x are those of the non-zero entries.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
        """Sum over features, (n,)."""
        theta = log_theta.exp()
        ratio = log_mean - log_theta
        softplus = functional.softplus(ratio)
        entries = nonzero(x)
        own = entries.counts + theta.index_select(0, entries.column)
        log_share = functional.logsigmoid(ratio.view(-1).index_select(0, entries.place))
        ctx.save_for_backward(ratio, softplus, theta, log_share, own, *entries)
        gammas = torch.lgamma(own) - torch.lgamma(theta).index_select(0, entries.column)
        of_counts = gammas - torch.lgamma(entries.counts + 1.0) + entries.counts * log_share
        # In double, after training, in an order that does not depend on the other rows.
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
    """Sum over features of the log-probability of a zero-inflated negative binomial, (n,).

    An entry is 0 with probability ``sigmoid(zi_logits_j)``, else drawn from
    `negative_binomial_log_prob`'s.

    Parameters
    ----------
    x : Tensor of shape (n, p)
        Counts.
    log_mean : Tensor of shape (n, p)
    log_theta, zi_logits : Tensor of shape (p,)
    """
    own = powers(x, log_mean, log_theta)
    # log(pi + (1 - pi) NB(0)), with 1 - pi taken out.
    entries = torch.where(x > 0, own, torch.logaddexp(zi_logits, own))
    total = entries.sum(dim=1) + functional.logsigmoid(-zi_logits).sum()
    return add_gammas(total, x, log_theta)


def powers(x: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Log-probability of a negative binomial without its gamma functions, (n, p)."""
    ratio = log_mean - log_theta
    return x * ratio - (x + log_theta.exp()) * functional.softplus(ratio)


def add_gammas(total: Tensor, x: Tensor, log_theta: Tensor) -> Tensor:
    """Add the gamma functions of the non-zero entries to the totals (n,) of their rows.

    On a GPU of all entries, those of zeros cancelling: to look for the others would make
    the host wait, and their number is another in every step.
    """
    theta = log_theta.exp()
    if x.device.type == "cuda":
        gammas = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1.0)
        return total + gammas.sum(dim=1)
    entries = nonzero(x)
    # One gamma function a feature, and two an entry.
    gammas = torch.lgamma(entries.counts + theta.index_select(0, entries.column))
    gammas = gammas - torch.lgamma(theta).index_select(0, entries.column)
    return total.index_add(0, entries.row, gammas - torch.lgamma(entries.counts + 1.0))


class Entries(NamedTuple):
    """Non-zero entries of a table, each (n_nonzero,)."""

    place: Tensor
    row: Tensor
    column: Tensor
    counts: Tensor


def nonzero(x: Tensor) -> Entries:
    """Find the non-zero entries: places in the flattened table, rows, columns and values."""
    flat = x.detach().reshape(-1)
    if x.device.type == "cpu":  # where numpy is six times as fast
        index = torch.from_numpy(np.flatnonzero(flat.numpy() != 0))
    else:
        index = flat.nonzero()[:, 0]
    row = index // x.shape[1]
    return Entries(index, row, index - row * x.shape[1], flat.index_select(0, index))


class CountLikelihood(Likelihood):
    """Counts with log-mean ``log softmax(output) + log size``.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        Mean and unit of the log-normalised rows, for the encoder.
    proportions : Tensor of shape (n_features,)
        Share of each feature in all counts, positive.
    typical_size : Tensor of shape ()
        Total that rows are normalised to before the logarithm.
    """

    proportions: Tensor
    typical_size: Tensor

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale)
        self.register_buffer("proportions", proportions)
        self.register_buffer("typical_size", typical_size)

    def encoder_input(self, x: Tensor) -> Tensor:
        """``log(1 + x t / sum x)`` with the typical total t, standardised, (n, p).

        The total is the row's own, whatever exposure the decoder is given: a row's
        code needs nothing but the row.
        """
        total = x.sum(dim=1, keepdim=True).clamp_min(1.0)
        normalised = x * (self.typical_size / total)
        return normalised.log1p_().sub_(self.location).div_(self.scale)

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Log-mean ``log softmax(output) + log size``, (n, p)."""
        if log_size is None or log_size.shape[1] == 0:
            log_size = self.typical_size.log()
        return functional.log_softmax(output, dim=1) + log_size

    def mean(self, parameter: Tensor) -> Tensor:
        """Exponential of the log-mean, (n, p)."""
        return parameter.exp()

    def initial_bias(self) -> Tensor:
        """Logarithm of the features' shares in all counts, (p,)."""
        return self.proportions.log()

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw counts, (n, p)."""
        # torch's gamma draws take no generator; numpy's do, and are as exact.
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        mean = self.mean(parameter).detach().cpu().double().numpy()
        draws = self._draw(mean, np.random.default_rng(seed))
        return torch.from_numpy(draws.astype(np.float32)).to(parameter.device)

    def _evaluated(self, function: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """Apply `function` to `parts`, in evaluation mode in double.

        Gamma functions lose digits in float32, and not the same ones wherever an entry
        stands in memory: a row's value would depend on the rows it comes with.
        """
        if self.training or parts[0].device.type == "mps":  # which has no double
            return function(*parts)
        return function(*(part.double() for part in parts)).to(parts[0].dtype)

    @abstractmethod
    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw counts with the given means, (n, p)."""


class PoissonLikelihood(CountLikelihood):
    """``p(x_j | z) = Poisson(x_j; mean_j(z))``."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Sum over features (n,), nats."""
        return self._evaluated(poisson_log_prob, x, parameter)

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the mean, (n, p): of the log-mean."""
        return parameter.exp()

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.poisson(mean)


class NegativeBinomialLikelihood(CountLikelihood):
    """``p(x_j | z) = NB(x_j; mean_j(z), theta_j)`` with one learned theta a feature.

    The variance is ``mean + mean^2 / theta``.
    """

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale, proportions, typical_size)
        self.log_theta_free = nn.Parameter(torch.zeros_like(location))

    def log_theta(self) -> Tensor:
        """Logarithm of the inverse dispersion, within its bounds, (p,)."""
        return LARGEST_LOG_THETA * torch.tanh(self.log_theta_free / LARGEST_LOG_THETA)

    def theta(self) -> Tensor:
        """Inverse dispersion, (p,)."""
        return self.log_theta().exp()

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Sum over features (n,), nats."""
        return self._evaluated(negative_binomial_log_prob, x, parameter, self.log_theta())

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """``mean theta / (mean + theta)``, (n, p): of the log-mean."""
        return self._information(parameter)

    def _information(self, parameter: Tensor) -> Tensor:
        # 1 / (1 / mean + 1 / theta), without overflow.
        return (-torch.logaddexp(-parameter, -self.log_theta())).exp()

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        theta = self.theta().detach().cpu().double().numpy()
        return rng.poisson(rng.gamma(theta, mean / theta))


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    """A negative binomial whose entries are 0 besides, with a learned probability a feature."""

    def __init__(
        self, location: Tensor, scale: Tensor, proportions: Tensor, typical_size: Tensor
    ) -> None:
        super().__init__(location, scale, proportions, typical_size)
        self.zi_logits = nn.Parameter(torch.full_like(location, INITIAL_ZI_LOGIT))

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Sum over features (n,), nats."""
        own = self.log_theta(), self.zi_logits
        return self._evaluated(zero_inflated_log_prob, x, parameter, *own)

    def mean(self, parameter: Tensor) -> Tensor:
        """Mean of the negative binomial times the share of entries that are not extra zeros."""
        return torch.sigmoid(-self.zi_logits) * parameter.exp()

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Of the log-mean of the negative binomial, (n, p).

        The score is ``theta (x - mean) / (theta + mean)`` at x > 0, and at 0 that of the
        negative binomial times the probability w that the zero is one of its own:
        ``I = (1 - pi) (I_NB - NB(0) s_0^2 (1 - w))``, ``s_0 = -I_NB``.
        """
        information = self._information(parameter)
        log_theta = self.log_theta()
        log_zero = -functional.softplus(parameter - log_theta) * log_theta.exp()
        own = torch.sigmoid(log_zero - self.zi_logits)
        lost = log_zero.exp() * information.square() * (1.0 - own)
        return torch.sigmoid(-self.zi_logits) * (information - lost)

    def _draw(self, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = torch.sigmoid(-self.zi_logits).detach().cpu().double().numpy()
        counts = super()._draw(mean / kept, rng)
        return np.where(rng.random(mean.shape) < kept, counts, 0)
