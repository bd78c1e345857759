"""Posteriors of codes that follow from the decoder, and the bounds that they give.

Row-wise functions of a model and a minibatch, in nats. The encoder's own noise is not used except
where it is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.divergences import in_double, mean_of_rows
from skhebae.model import Autoencoder

#: Gauss-Newton steps from a row's code to the mode of its posterior, and the
#: shares of each step that are tried.
MODE_STEPS = 5
MODE_STEP_SIZES = (1.0, 0.3, 0.1)

#: Below this weight of a row's divergence the noise of training counts as none;
#: ``P + G / w`` would be too ill-conditioned to invert.
NEGLIGIBLE_ROW_WEIGHT = 1e-6


class Linearisation(NamedTuple):
    """The decoder near some codes.

    Attributes
    ----------
    parameter : Tensor of shape (n, p)
        The likelihood's parameter at the codes.
    jacobian : Tensor of shape (n, p, d)
    prior_precision : Tensor of shape (n, d, d)
    mask : Tensor of bool of shape (n, p) or None
        True where an entry of the row is observed.
    """

    parameter: Tensor
    jacobian: Tensor
    prior_precision: Tensor
    mask: Tensor | None


def linearise(model: Autoencoder, z: Tensor, minibatch: Minibatch) -> Linearisation:
    """Linearise the decoder at codes z (n, d) of rows."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        output = model.decode_rows(z, minibatch)
        # J^T u is linear in u, so its derivatives with respect to u are J's columns:
        # n_components backward passes for any decoder. (torch.func.jvp compiles with the
        # deprecated torch.jit.)
        u = torch.zeros_like(output, requires_grad=True)
        # (As a sum, since torch imports a computer algebra system where `u` is passed.)
        (pulled,) = torch.autograd.grad((u * output).sum(), z, create_graph=True)
        columns = [
            torch.autograd.grad(pulled[:, j].sum(), u, retain_graph=True)[0]
            for j in range(z.shape[1])
        ]
    z = z.detach()
    jacobian = torch.stack(columns, dim=2)
    return Linearisation(output.detach(), jacobian, model.prior.precision(z), minibatch.mask)


def jacobian_numbers(model: Autoencoder) -> int:
    """Count the numbers per row while a Jacobian is turned into a covariance factor."""
    # Jacobian, its columns and a weighted copy; square matrices in double.
    return model.n_components * (3 * model.n_features + 10 * model.n_components)


def gain(model: Autoencoder, at: Linearisation) -> Tensor:
    """Return ``G = J^T W J``, W the likelihood's Fisher information, (n, d, d).

    In double: the eigenvalues of ``I + G`` range from 1 to the decoder's squared gain over the
    noise variance, too far apart for float32. Missing entries have no information.
    """
    wide, weight = (
        in_double(at.jacobian),
        in_double(model.likelihood.fisher_information(at.parameter)),
    )
    if at.mask is not None:
        weight = weight * at.mask
    return wide.transpose(1, 2) @ (weight[:, :, None] * wide)


def linearised_posterior(model: Autoencoder, z: Tensor, minibatch: Minibatch) -> Tensor:
    """Return the lower factor of the posterior covariance at each code, (n, d, d).

    The covariance is ``(P + J^T W J)^-1``: P the prior's precision, J the decoder's Jacobian,
    W the likelihood's Fisher information.
    """
    at = linearise(model, z, minibatch)
    return inverse_factor(at.prior_precision + gain(model, at)).to(z.dtype)


def score(model: Autoencoder, minibatch: Minibatch) -> Tensor:
    """Return the evidence lower bound of each row for a posterior that fits the decoder, (n,).

    `bound` with ``q = N(mu(x), F F^T)`` and F of `linearised_posterior`. It does not use the
    encoder's noise, so the number means the same for all objectives, also where that noise
    vanished or does not exist. For rows with missing entries q is at the mode of ``p(z | x_obs)``
    near their code, as the encoder knows less of them than the decoder does.
    """
    mu, _ = model.encode(minibatch)
    if minibatch.mask is not None:
        is_complete = minibatch.mask.all(dim=1, keepdim=True)
        mu = torch.where(is_complete, mu, posterior_mode(model, minibatch, mu))
    return bound(model, minibatch, mu, linearised_posterior(model, mu, minibatch))


def bound(model: Autoencoder, minibatch: Minibatch, mu: Tensor, factor: Tensor) -> Tensor:
    """Return ``E_q log p(x | z) - KL(q || p(z))`` for ``q = N(mu, F F^T)`` of each row, (n,).

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
    mu : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Lower triangular F.

    Returns
    -------
    Tensor of shape (n,)
        Nats; minus infinity where q is a point.
    """
    expected = expected_log_prob(model, minibatch, mu, factor)
    return expected - model.prior.gaussian_kl(mu, factor)


def expected_log_prob(
    model: Autoencoder, minibatch: Minibatch, mu: Tensor, factor: Tensor
) -> Tensor:
    """Return ``E_q log p(x | z)`` for ``q = N(mu, F F^T)`` of each row, (n,), nats.

    By the spherical cubature ``z = mu +- sqrt(d) F e_j``: it has no Monte-Carlo noise, and is
    exact where log p(x | z) is a polynomial in z of degree 3 or less, so for every linear decoder
    with Gaussian likelihood.
    """
    return cubature_mean(lambda z: model.log_prob(minibatch, z), mu, factor)


def cubature_mean(function: Callable[[Tensor], Tensor], mu: Tensor, factor: Tensor) -> Tensor:
    """Average a function of codes over ``N(mu, F F^T)`` of each row, (n,).

    By the spherical cubature ``z = mu +- sqrt(d) F e_j``, exact for polynomials in z of degree 3.

    Parameters
    ----------
    function : callable
        Of one code per row, (n, d), to (n,).
    mu : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Lower triangular F.
    """
    n_components = mu.shape[1]
    steps = n_components**0.5 * factor.transpose(1, 2)
    total = torch.zeros(len(mu), dtype=mu.dtype, device=mu.device)
    for j in range(n_components):
        for z in (mu + steps[:, j], mu - steps[:, j]):
            total += function(z)
    return total / (2 * n_components)


def log_likelihood(model: Autoencoder, minibatch: Minibatch, noise: Tensor) -> Tensor:
    """Estimate ``log p(x)`` of each row by importance weights.

    ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k)`` with ``z_k ~ q``: a lower bound in expectation
    that rises with K (Burda, Grosse and Salakhutdinov, arXiv:1509.00519). The proposal q is the
    Laplace approximation of p(z | x), found from the row's code.

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
    noise : Tensor of shape (K, d)
        Standard normal draws, shared by all rows.

    Returns
    -------
    Tensor of shape (n,)
        Nats.
    """
    proposal = laplace(model, minibatch)
    total = torch.full((len(minibatch),), -torch.inf, dtype=noise.dtype, device=noise.device)
    for draw in noise:
        total = torch.logaddexp(total, proposal.log_weight(model, minibatch, draw)[1])
    return total - math.log(len(noise))


class Laplace(NamedTuple):
    """The Laplace approximation of p(z | x) of each row, a proposal for importance sampling.

    Attributes
    ----------
    mode : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Lower triangular F; the covariance is ``F F^T``.
    """

    mode: Tensor
    factor: Tensor

    def log_weight(
        self, model: Autoencoder, minibatch: Minibatch, draw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return codes (n, d) and ``log p(x | z) p(z) / q(z)`` of each, (n,), nats.

        `draw` (d,) are standard normal numbers, the same for all rows.
        """
        log_det = self.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        # 0 for N(0, I), whose constant is that of the proposal.
        constant = 0.5 * len(draw) * math.log(2.0 * math.pi) - model.prior.log_normaliser
        z = self.mode + self.factor @ draw
        # log p(z) - log q(z)
        log_ratio = (0.5 * draw.square().sum() + model.prior.log_kernel(z)) + log_det + constant
        return z, model.log_prob(minibatch, z) + log_ratio


def laplace(model: Autoencoder, minibatch: Minibatch) -> Laplace:
    """Find the mode of p(z | x) near each row's code, and the covariance there."""
    mode = posterior_mode(model, minibatch, model.encode(minibatch)[0])
    return Laplace(mode, linearised_posterior(model, mode, minibatch))


def posterior_mode(
    model: Autoencoder,
    minibatch: Minibatch,
    z: Tensor,
    n_steps: int = MODE_STEPS,
    prior_weight: float = 1.0,
) -> Tensor:
    """Find the mode of p(z | x) near codes z (n, d) by Gauss-Newton steps, (n, d).

    Steps that do not raise the density are not taken. With a `prior_weight` w, the mode of
    ``p(x | z) p(z)^w``.
    """
    x, likelihood, prior = minibatch.x, model.likelihood, model.prior
    for _ in range(n_steps):
        at = linearise(model, z, minibatch)
        with torch.enable_grad():
            leaf = at.parameter.requires_grad_()
            log_prob = likelihood.log_prob(x, leaf, minibatch.mask)
            (slope,) = torch.autograd.grad(log_prob.sum(), leaf)
        at = at._replace(parameter=leaf.detach())
        # By the Jacobian and not backwards through the decoder: products of some widths round
        # a row differently depending on where it stands among the others.
        gradient = (at.jacobian.transpose(1, 2) @ slope[:, :, None])[:, :, 0]
        gradient = gradient + prior_weight * prior.gradient(z)
        precision = prior_weight * at.prior_precision + gain(model, at)
        factor = inverse_factor(precision).to(z.dtype)
        step = (factor @ (factor.transpose(1, 2) @ gradient[:, :, None]))[:, :, 0]
        best, value = z, log_prob.detach() + prior_weight * prior.log_kernel(z)
        for size in MODE_STEP_SIZES:
            trial = z + size * step
            kernel = prior_weight * prior.log_kernel(trial)
            trial_value = model.log_prob(minibatch, trial) + kernel
            better = trial_value > value
            best = torch.where(better[:, None], trial, best)
            value = torch.where(better, trial_value, value)
        z = best
    return z


def code_variance(
    model: Autoencoder, at: Linearisation, row_weight: float, counts: Tensor | None = None
) -> Tensor:
    """Return the variance of each output that codes of training lack, (p,), standardised.

    ``mean_i diag(J_i (C_i - Q_i) J_i^T)`` with ``C = (P + G)^-1``, the posterior's covariance,
    and ``Q = (P + G / w)^-1``, the covariance that minimises the loss: ``1/2 tr(G Q)`` of
    reconstruction and w = `row_weight` < 1 times ``KL(N(mu, Q) || p(z))``. Q is 0 for w = 0, where
    nothing rewards noise. `counts` (n,) says how many rows each row stands for.
    """
    of_code = gain(model, at)
    variance = _output_variance(at, of_code, counts)
    if row_weight > NEGLIGIBLE_ROW_WEIGHT:
        variance = variance - _output_variance(at, of_code / row_weight, counts)
    return variance


def _output_variance(at: Linearisation, of_code: Tensor, counts: Tensor | None) -> Tensor:
    """Return ``mean_i diag(J_i (P_i + G_i)^-1 J_i^T)``, (p,)."""
    factor = inverse_factor(at.prior_precision + of_code).to(at.jacobian.dtype)
    return mean_of_rows((at.jacobian @ factor).square().sum(dim=2), counts)


def inverse_factor(precision: Tensor) -> Tensor:
    """Return lower F with ``F F^T = P^-1`` of positive definite precisions P, (n, d, d)."""
    identity = torch.eye(precision.shape[1], dtype=precision.dtype, device=precision.device)
    # P = C C^T makes C^-T a factor of the inverse, but an upper triangular one; flipping the
    # axes before and after makes it lower.
    factor = torch.linalg.cholesky_ex(precision.flip((1, 2))).L
    inverse: Tensor = torch.linalg.solve_triangular(
        factor, identity.expand_as(precision), upper=False
    )
    return inverse.transpose(1, 2).flip((1, 2))
