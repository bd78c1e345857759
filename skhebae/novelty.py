"""Novelty scores of rows: functions of a model, its rows and their posteriors, each row on its own.

Higher is stranger. The names are those of Vasilev et al. [1]_ where they have one. Expectations
over codes are the cubature of `expected_log_prob`, so nothing is drawn: a score is the same number
at every call, and for a row alone or among others. Distances are squared, in standardised units,
summed over observed entries. Log-densities are in nats.

References
----------
.. [1] A. Vasilev et al., "q-Space Novelty Detection with Variational Autoencoders",
   arXiv:1806.02997.
.. [2] Z. Xiao, Q. Yan and Y. Amit, "Likelihood Regret: An Out-of-Distribution Detection Score for
   Variational Auto-encoder", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.divergences import in_double
from skhebae.model import Autoencoder
from skhebae.posterior import (
    bound,
    cubature_mean,
    expected_log_prob,
    linearised_posterior,
    posterior_mode,
)

#: Weight of the prior where the best reconstruction of a row is looked for: next to none, but a
#: code that changes nothing stays where it is.
FAINT_PRIOR = 1e-3


class RowPosterior(NamedTuple):
    """``q(z | x) = N(mean, F F^T)`` of each row.

    Attributes
    ----------
    mean : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Lower triangular F; zeros for a point.
    """

    mean: Tensor
    factor: Tensor


def code_of(model: Autoencoder, minibatch: Minibatch) -> Tensor:
    """Return the code of each row, (n, d).

    The encoder's; of a row with missing entries the mode of ``p(z | x_obs)``, as the decoder knows
    what is not known.
    """
    code, _ = model.encode(minibatch)
    return code if minibatch.mask is None else posterior_mode(model, minibatch, code)


# Rows against what they decode to


def squared_error(model: Autoencoder, minibatch: Minibatch, z: Tensor) -> Tensor:
    """Return ``|x - E[x | z]|^2`` over observed entries, (n,)."""
    mean = model.likelihood.mean(model.decode_rows(z, minibatch))
    return over_observed((minibatch.x - mean).square(), minibatch)


def drawn_error(model: Autoencoder, minibatch: Minibatch, z: Tensor) -> Tensor:
    """Return ``E |x - x'|^2`` for ``x'`` drawn from p(x | z), (n,).

    ``|x - E[x | z]|^2 + sum_j Var[x_j | z]``.
    """
    parameter = model.decode_rows(z, minibatch)
    squares = (minibatch.x - model.likelihood.mean(parameter)).square()
    return over_observed(squares + model.likelihood.variance(parameter), minibatch)


def over_observed(entries: Tensor, minibatch: Minibatch) -> Tensor:
    """Sum entries (n, p) over the observed ones of each row, (n,)."""
    mask = minibatch.mask
    return (entries if mask is None else entries.where(mask, 0.0)).sum(dim=1)


def reconstruction(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``-log p(x | mu)``, the deterministic reconstruction, (n,), nats."""
    return -model.log_prob(minibatch, q.mean)


def reconstruction_error(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``|x - E[x | mu]|^2``, (n,)."""
    return squared_error(model, minibatch, q.mean)


def decoder_stochastic(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return the mean of ``|x - x'|^2`` over x' from p(x | mu), (n,)."""
    return drawn_error(model, minibatch, q.mean)


def encoder_stochastic(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return the mean of ``|x - E[x | z]|^2`` over z from q, (n,)."""
    return cubature_mean(lambda z: squared_error(model, minibatch, z), *q)


def fully_stochastic(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return the mean of ``|x - x'|^2`` over z from q and x' from p(x | z), (n,)."""
    return cubature_mean(lambda z: drawn_error(model, minibatch, z), *q)


def expected_reconstruction(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``-E_q log p(x | z)``, (n,), nats."""
    return -expected_log_prob(model, minibatch, *q)


def nearest_generated(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``-max_z log p(x | z)``, by Gauss-Newton steps from the row's code, (n,), nats."""
    best = posterior_mode(model, minibatch, q.mean, prior_weight=FAINT_PRIOR)
    return -model.log_prob(minibatch, best)


# Codes and bounds


def divergence(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``KL(q(z | x) || p(z))``, the regulariser of [1]_, (n,), nats; infinite for points."""
    return model.prior.gaussian_kl(*q)


def loss(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return ``KL(q || p) - E_q log p(x | z)``, the negative bound of the encoder, (n,), nats."""
    return -bound(model, minibatch, *q)


def negative_bound(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return minus the bound of the posterior that the decoder gives at the code, (n,), nats."""
    factor = linearised_posterior(model, q.mean, minibatch)
    return -bound(model, minibatch, q.mean, factor)


def likelihood_regret(model: Autoencoder, minibatch: Minibatch, q: RowPosterior) -> Tensor:
    """Return how far the code is from that of the best bound of its row [2]_, (n,), nats >= 0.

    The best posterior is found in closed steps: Gauss-Newton to the mode of p(z | x), and there the
    covariance that follows from the decoder. The encoder's bound is that of `negative_bound`, with
    the covariance of the decoder too, so that it does not depend on whether noise was trained.
    """
    best = posterior_mode(model, minibatch, q.mean)
    highest = bound(model, minibatch, best, linearised_posterior(model, best, minibatch))
    return (highest + negative_bound(model, minibatch, q)).clamp_min(0.0)


def mixture_surprise(codes: Tensor, weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Return minus the log-density of codes under a Gaussian mixture, (n,), nats, in double.

    Parameters
    ----------
    codes : Tensor of shape (n, d)
    weights : Tensor of shape (k,)
    means : Tensor of shape (k, d)
    factors : Tensor of shape (k, d, d)
        Lower Cholesky factors of the covariances.
    """
    wide = in_double(codes)
    log_densities = []
    for weight, mean, factor in zip(weights, means, factors, strict=True):
        white = torch.linalg.solve_triangular(factor, (wide - mean).T, upper=False)
        log_det = factor.diagonal().log().sum()
        log_densities.append(weight.log() - log_det - 0.5 * white.square().sum(dim=0))
    constant = 0.5 * codes.shape[1] * math.log(2.0 * math.pi)
    return constant - torch.logsumexp(torch.stack(log_densities), dim=0)


def bhattacharyya_distances(
    mean: Tensor, variance: Tensor, means: Tensor, variances: Tensor
) -> Tensor:
    """Return Bhattacharyya's distance of diagonal Gaussians to each of others, (n, m).

    ``1/4 sum_k (m1 - m2)^2 / (v1 + v2) + 1/2 sum_k log((v1 + v2) / (2 s1 s2))``.

    Parameters
    ----------
    mean, variance : Tensor of shape (n, d)
    means, variances : Tensor of shape (m, d)
    """
    total = torch.zeros(len(mean), len(means), dtype=mean.dtype, device=mean.device)
    for k in range(mean.shape[1]):  # not (n, m, d) at once
        added = variance[:, k, None] + variances[:, k]
        gap = (mean[:, k, None] - means[:, k]).square()
        # Roots first: the product of two variances overflows sooner.
        geometric = 2.0 * variance[:, k, None].sqrt() * variances[:, k].sqrt()
        total += 0.25 * gap / added + 0.5 * (added / geometric).log()
    return total


#: Scores of rows by name.
ROW_SCORES: dict[str, Callable[[Autoencoder, Minibatch, RowPosterior], Tensor]] = {
    "bound": negative_bound,
    "loss": loss,
    "divergence": divergence,
    "reconstruction": reconstruction,
    "reconstruction_error": reconstruction_error,
    "expected_reconstruction": expected_reconstruction,
    "decoder_stochastic": decoder_stochastic,
    "encoder_stochastic": encoder_stochastic,
    "fully_stochastic": fully_stochastic,
    "nearest_generated": nearest_generated,
    "regret": likelihood_regret,
}
