"""Best Gaussian posteriors of rows with the decoder held fixed.

Row-wise functions of a model and a minibatch, in nats. Each row has steps and a stopping rule of
its own, so that it ends where it would end without the other rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skhebae.code_map import CodeNoise
from skhebae.data import Minibatch
from skhebae.divergences import in_double
from skhebae.model import Autoencoder
from skhebae.posterior import gain, inverse_factor, linearise
from skhebae.quadrature import Rule

#: Steps to the best Gaussian at most; the gain in nats below which a row takes no more; what
#: a step that does not raise the bound is shortened by; the largest logarithm by which one step
#: rescales a direction of the posterior.
STEPS, SETTLED, SHORTENED, LARGEST_RESCALING = 12, 1e-4, 0.3, 1.5


class Gaussian(NamedTuple):
    """A Gaussian per row, ``N(mu, F F^T)``.

    Attributes
    ----------
    mean : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Any square F.
    """

    mean: Tensor
    factor: Tensor


class Slopes(NamedTuple):
    """The bound of a Gaussian per row, and its derivatives.

    With ``h(z) = log p(x | z) + log p(z)`` and ``z = mu + F e``.

    Attributes
    ----------
    value : Tensor of shape (n,), float64
        ``E h(z) + log det F``, the bound up to a constant.
    of_mean : Tensor of shape (n, d)
        ``E grad h``.
    of_factor : Tensor of shape (n, d, d)
        ``E grad h e^T``.
    precision : Tensor of shape (n, d, d), float64
        ``E (P + J^T W J)``, positive definite, about ``-E hess h``.
    """

    value: Tensor
    of_mean: Tensor
    of_factor: Tensor
    precision: Tensor


def joint_slopes(
    model: Autoencoder, minibatch: Minibatch, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``h = log p(x | z) + log p(z)`` (n,), its gradient (n, d) and ``P + J^T W J``."""
    at = linearise(model, z, minibatch)
    with torch.enable_grad():
        leaf = at.parameter.requires_grad_()
        log_prob = model.likelihood.log_prob(minibatch.x, leaf, minibatch.mask)
        (slope,) = torch.autograd.grad(log_prob.sum(), leaf)
    at = at._replace(parameter=leaf.detach())
    # By the Jacobian, as in `posterior_mode`: backwards, rounding depends on the row's place.
    gradient = (at.jacobian.transpose(1, 2) @ slope[:, :, None])[:, :, 0] + model.prior.gradient(z)
    value = log_prob.detach() + model.prior.log_prob(z)
    return value, gradient, at.prior_precision + gain(model, at)


def slopes(model: Autoencoder, minibatch: Minibatch, q: Gaussian, rule: Rule) -> Slopes:
    """Return the bound of each row's Gaussian by a rule, with its derivatives."""
    n_rows, n_components = q.mean.shape
    value = in_double(q.mean.new_zeros(n_rows)) + log_det(q.factor)
    of_mean, of_factor = torch.zeros_like(q.mean), torch.zeros_like(q.factor)
    precision = in_double(torch.zeros_like(q.factor))
    points = torch.from_numpy(rule.points.reshape(-1, n_components)).to(q.mean)
    for e, weight in zip(points, np.tile(rule.weights, len(rule.points)), strict=True):
        share = float(weight) / len(rule.points)
        own, gradient, curvature = joint_slopes(model, minibatch, q.mean + q.factor @ e)
        value = value + share * own
        of_mean += share * gradient
        of_factor += share * gradient[:, :, None] * e
        precision += share * curvature
    return Slopes(value, of_mean, of_factor, precision)


def log_det(factor: Tensor) -> Tensor:
    """Return ``log |det F|`` of factors (n, d, d), in double, (n,); minus infinity for points."""
    result: Tensor = torch.linalg.slogdet(in_double(factor)).logabsdet
    return result


class FullFamily:
    """All Gaussians. A step is ``S^-1 <- -E hess h``, by Stein's identity from gradients.

    This is the natural gradient step of length 1 (Khan and Rue, 2023, arXiv:2107.04562), and the
    mean takes Newton's step with the new S. Directions whose estimated curvature is far off, or of
    the wrong sign, change by a bounded factor.
    """

    def stepped(self, q: Gaussian, at: Slopes, size: Tensor) -> Gaussian:
        """Return the Gaussians after a step of length `size` (n,) for each row."""
        wide = in_double(q.factor)
        curvature = -wide.mT @ in_double(at.of_factor)
        values, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.mT))
        least = math.exp(-2.0 * LARGEST_RESCALING)
        values = values.clamp(least, 1.0 / least)
        turned = wide @ vectors
        factor = (turned * values.pow(-0.5 * size[:, None])[:, None, :]) @ vectors.mT
        along = turned.mT @ in_double(at.of_mean)[:, :, None]
        step = size[:, None] * (turned @ (along / values[:, :, None]))[:, :, 0]
        return Gaussian(q.mean + step.to(q.mean.dtype), factor.to(q.factor.dtype))


class ScaledFamily:
    """Gaussians ``N(mu, A D C D A^T)`` with fixed A and C and free diagonal D.

    With ``A = C = I`` these are the diagonal ones. A step is Newton's for ``log D``, with the
    Gauss-Newton precision.

    Parameters
    ----------
    noise : CodeNoise
        A and the factor of C, on the device and in the precision of codes.
    is_scalar : bool
        Whether D is a multiple of the identity.
    """

    def __init__(self, noise: CodeNoise, *, is_scalar: bool = False) -> None:
        self.noise, self.is_scalar = noise, is_scalar

    def factor(self, scale: Tensor) -> Tensor:
        """Return ``A D L`` for diagonals (n, d), (n, d, d)."""
        inner = scale[:, :, None] * self.noise.factor
        return inner if self.noise.matrix is None else self.noise.matrix @ inner

    def scale(self, q: Gaussian) -> Tensor:
        """Return the diagonals of D of members of the family, (n, d)."""
        inner = q.factor
        if self.noise.matrix is not None:
            inner = torch.linalg.solve(self.noise.matrix, inner)
        # L is triangular with a positive diagonal.
        return inner.diagonal(dim1=1, dim2=2) / self.noise.factor.diagonal()

    def start(self, mean: Tensor, precision: Tensor) -> Gaussian:
        """Return the member with these means that fits precisions (n, d, d) axis by axis."""
        along = self._turned(precision).diagonal(dim1=1, dim2=2)
        weight = along * in_double(self.noise.factor).square().sum(dim=1)
        if self.is_scalar:
            weight = self._coupling(precision).mean(dim=(1, 2), keepdim=True)[:, :, 0]
            weight = (weight * mean.shape[1]).expand_as(along)
        return Gaussian(mean, self.factor(weight.rsqrt().to(mean.dtype)))

    def stepped(self, q: Gaussian, at: Slopes, size: Tensor) -> Gaussian:
        """Return the Gaussians after a step of length `size` (n,) for each row."""
        scale, noise = in_double(self.scale(q)), self.noise
        pulled = in_double(at.of_factor)
        if noise.matrix is not None:
            pulled = in_double(noise.matrix).mT @ pulled
        # d/d log s_j of E h(mu + A D L e) + log det D
        slope = 1.0 + scale * (pulled * in_double(noise.factor)).sum(dim=2)
        coupling = scale[:, :, None] * scale[:, None, :] * self._coupling(at.precision)
        curvature = coupling + coupling.sum(dim=2).clamp_min(0.0).diag_embed()
        if self.is_scalar:
            change = slope.sum(dim=1, keepdim=True) / curvature.sum(dim=(1, 2))[:, None]
            change = change.expand_as(slope)
        else:
            change = torch.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        change = change.clamp(-LARGEST_RESCALING, LARGEST_RESCALING)
        scale = scale * (size[:, None] * change).exp()
        return Gaussian(stepped_mean(q, at, size), self.factor(scale.to(q.mean.dtype)))

    def _turned(self, precision: Tensor) -> Tensor:
        """Return ``A^T P A``."""
        if self.noise.matrix is None:
            return precision
        matrix = in_double(self.noise.matrix)
        return matrix.mT @ precision @ matrix

    def _coupling(self, precision: Tensor) -> Tensor:
        """Return ``C * A^T P A``, positive definite by Schur's theorem."""
        factor = in_double(self.noise.factor)
        return (factor @ factor.mT) * self._turned(precision)


def stepped_mean(q: Gaussian, at: Slopes, size: Tensor) -> Tensor:
    """Return the means after a Gauss-Newton step of length `size` (n,) for each row."""
    factor = inverse_factor(at.precision)
    step = factor @ (factor.mT @ in_double(at.of_mean)[:, :, None])
    return q.mean + (size[:, None] * step[:, :, 0]).to(q.mean.dtype)


def best_gaussian(
    model: Autoencoder,
    minibatch: Minibatch,
    family: FullFamily | ScaledFamily,
    start: Gaussian,
    rule: Rule,
) -> tuple[Gaussian, Slopes]:
    """Maximise the bound of each row over a family, with the decoder fixed.

    The same points serve all steps, so the maximum is that of a fixed function. A step that does
    not raise a row's bound is taken back and shortened; a row whose steps gain less than `SETTLED`
    stays where it is.

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
    family : FullFamily or ScaledFamily
    start : Gaussian
        A member of the family for each row.
    rule : Rule

    Returns
    -------
    Gaussian
        Of each row.
    Slopes
        There.
    """
    q, at = start, slopes(model, minibatch, start, rule)
    size = torch.ones_like(at.value)
    moves = torch.ones_like(at.value, dtype=torch.bool, device=at.value.device)
    for _ in range(STEPS):
        trial = family.stepped(q, at, size)
        there = slopes(model, minibatch, trial, rule)
        gained = there.value - at.value
        better = moves & (gained > 0.0)
        q = Gaussian(*(choose(better, new, old) for new, old in zip(trial, q, strict=True)))
        at = Slopes(*(choose(better, new, old) for new, old in zip(there, at, strict=True)))
        moves = moves & ~((gained.abs() < SETTLED) | (size < SHORTENED**4))
        size = torch.where(better, (size / SHORTENED).clamp_max(1.0), size * SHORTENED)
        if not moves.any():
            break
    return q, at


def choose(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `new` for the rows (n,) where True and `old` for others."""
    return torch.where(rows.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
