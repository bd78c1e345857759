"""Dispersions of counts: their most likely values, given the networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skhebae.likelihoods.base import Decoded, Evidence

#: Bounds of log theta. Below e^-10 a negative binomial is zero in all but one of ten thousand
#: rows. At e^25 its variance is that of a Poisson up to the largest count that is accepted.
LOG_THETA_BOUNDS = (-10.0, 25.0)

#: Standard deviation of the normal prior of a feature-wise parameter around its centre. It decides
#: where the few counts of a feature support any value.
PRIOR_DEVIATION = 1.5

#: Newton steps, the largest change that each may make, and the change that ends them.
STEPS, LARGEST_STEP, SMALLEST_STEP = 15, 2.0, 0.05

#: Difference of a parameter by which second derivatives are taken.
DIFFERENCE = 0.05

#: ``log_prob(rows, values)`` returns the sum of the rows' log-probabilities for feature-wise
#: parameters `values` (p, k).
TotalLogProb = Callable[[Decoded, Tensor], Tensor]


def bounded_log_theta(raw: Tensor) -> Tensor:
    """Map any numbers into `LOG_THETA_BOUNDS`, smoothly, with slope 1 in the middle."""
    low, high = LOG_THETA_BOUNDS
    centre, half = 0.5 * (high + low), 0.5 * (high - low)
    return centre + half * torch.tanh((raw - centre) / half)


def raw_log_theta(log_theta: Tensor) -> Tensor:
    """Invert `bounded_log_theta`; numbers outside the bounds end just within them."""
    low, high = LOG_THETA_BOUNDS
    centre, half = 0.5 * (high + low), 0.5 * (high - low)
    within = log_theta.clamp(low + 0.1, high - 0.1)
    return centre + half * torch.atanh((within - centre) / half)


def common_log_theta(rows: list[Decoded], code_variance: Tensor, evidence: Evidence) -> float:
    """Return the log theta that all features together have by their second moments.

    ``1 / theta = sum ((x - m)^2 + c m^2 - x) / sum m^2`` over all entries, with mean m and the
    variance c of its logarithm that codes hide. Its standard error ``(sum m^2 / 2)^-1/2`` bounds
    it from below: a smaller one cannot be told from 0.

    Parameters
    ----------
    rows : list of Decoded
        Their `parameter` is the log-mean.
    code_variance : Tensor of shape (p,)
    evidence : Evidence
        Sums over processes.
    """
    sums = torch.zeros(2, dtype=torch.float64, device="cpu")
    for part in rows:
        x, mask = part.x, part.mask
        mean = part.parameter.exp()
        square = mean.square()
        surplus = (x - mean).square() + code_variance * square - x
        if mask is not None:
            square, surplus = square * mask, surplus * mask
        if part.weight is not None:
            square, surplus = (part.weight[:, None] * of for of in (square, surplus))
        # In float64, which some devices do not have.
        sums += torch.stack([of.cpu().double().sum() for of in (surplus, square)])
    excess, squares = (float(of) for of in evidence.sum(sums))
    squares = max(squares, 1e-30)
    dispersion = max(excess / squares, math.sqrt(2.0 / squares))
    low, high = LOG_THETA_BOUNDS
    return min(max(-math.log(dispersion), low), high)


def most_likely(
    log_prob: TotalLogProb,
    start: Tensor,
    centre: Tensor,
    rows: list[Decoded],
    evidence: Evidence,
    adopt: Callable[[Tensor], None],
) -> Tensor:
    """Return the feature-wise parameters of highest posterior density, (p, k).

    The mode of ``sum_i log p(x_ij | values_j)`` plus the logarithm of a normal prior around
    `centre`, for each feature j by itself, by Newton steps that always climb.

    Parameters
    ----------
    log_prob : callable
        Of rows and parameters; see `TotalLogProb`.
    start, centre : Tensor of shape (p, k)
    rows : list of Decoded
    evidence : Evidence
        Sums over processes.
    adopt : callable
        Is told the parameters of each step.
    """
    precision = PRIOR_DEVIATION**-2
    identity = torch.eye(start.shape[1], dtype=torch.float64, device="cpu")
    units = identity.to(start)

    def slope(values: Tensor) -> Tensor:
        total = torch.zeros_like(start)
        for part in rows:
            leaf = values.detach().requires_grad_()
            with torch.enable_grad():
                total += torch.autograd.grad(log_prob(part, leaf), leaf)[0]
        return total

    values, limit = start.clone(), torch.full_like(start, LARGEST_STEP)
    last = torch.zeros_like(start)
    for _ in range(STEPS):
        adopt(values)
        here = slope(values)
        moved = [(slope(values + step) - here) / DIFFERENCE for step in DIFFERENCE * units]
        gradient, *curvature = evidence.sum(torch.stack([here, *moved])).double().cpu()
        gradient -= precision * (values - centre).double().cpu()
        hessian = precision * identity - torch.stack(curvature, dim=2)
        # By its absolute eigenvalues, so that a step climbs where the density is not concave.
        eigenvalues, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
        lengths = (vectors.mT @ gradient[:, :, None])[:, :, 0]
        lengths /= eigenvalues.abs().clamp_min(precision)
        step = (vectors @ lengths[:, :, None])[:, :, 0].to(start)
        # A step back is at most half of the step before it.
        limit = torch.where(step * last < 0.0, 0.5 * last.abs(), limit)
        last = step.clamp(-limit, limit)
        values = values + last
        if float(last.abs().max()) < SMALLEST_STEP:
            break
    return values
