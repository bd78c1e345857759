"""A gain per feature that undoes what noise in training takes off the decoder's contrast.

The decoder learns to map codes of noised rows, and draws of codes, to rows. Those depend less on
the row than its own code does, so the decoder answers with too small a contrast (regression
dilution), and samples are too narrow. Once the networks are trained, two numbers per feature mend
most of that: ``output_j -> c_j + shift_j + gain_j (output_j - c_j)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skhebae.likelihoods.base import Decoded, Evidence, Likelihood, identity_calibration

#: Standard deviations of the normal prior of shift and gain around 0 and 1.
PRIOR_DEVIATIONS = (1.0, 0.5)

#: Steps of Fisher scoring, and the change that ends them.
STEPS, SMALLEST_STEP = 8, 0.02

#: Numbers of a table on which they are fitted; of a larger one, a sample.
CALIBRATION_NUMBERS = 2**20

#: Steps to gains that the uncertainty of codes shrinks, which depends on them.
HIDDEN_STEPS = 5

#: Smallest square in a quotient.
SMALLEST_SQUARE = 1e-9

#: Bounds of gains, for features that codes say next to nothing about.
GAIN_BOUNDS = (0.0, 4.0)


def regress(
    sums: Tensor, noise_variance: Tensor, code_variance: Tensor, n_rows: float
) -> tuple[Tensor, Tensor]:
    """Return shift and gain of each feature by regression, and what is left, (p, 2) and (p,).

    For a likelihood whose parameter is the mean and whose noise variance is constant.

    Parameters
    ----------
    sums : Tensor of shape (p, 5)
        Means over rows of x, the output, and their products: x, o, x^2, x o, o^2.
    noise_variance : Tensor of shape (p,)
        Noise of x around the output, for the weight of the prior.
    code_variance : Tensor of shape (p,)
        Variance of the output that codes lack: of outputs as sure as theirs, a part only follows
        the row's own noise.
    n_rows : float

    Returns
    -------
    calibration : Tensor of shape (p, 2)
    residual : Tensor of shape (p,)
        Mean squared residual, that of uncertain codes included.
    """
    x, output, squares, products, output_squares = sums.double().unbind(dim=1)
    variance = output_squares - output.square()
    hidden = code_variance.double()
    covariance = products - x * output
    # As if there were rows that say 1.
    prior = noise_variance.double() / (n_rows * PRIOR_DEVIATIONS[1] ** 2)
    plain = (covariance + prior) / (variance + prior).clamp_min(SMALLEST_SQUARE)
    gain = shrink_gain(plain, variance + prior, hidden)
    shift = x - gain * output
    residual = squares - x.square() - gain * (2.0 * covariance - gain * (variance + hidden))
    calibration = torch.stack([shift, gain], dim=1)
    return calibration.to(sums.dtype), residual.clamp_min(0.0).to(sums.dtype)


def most_likely_gains(
    likelihood: Likelihood,
    log_prob: Callable[[Tensor, Tensor], Tensor],
    rows: list[Decoded],
    evidence: Evidence,
) -> Tensor:
    """Return the most likely shift and gain of each feature by Fisher scoring, (p, 2).

    Parameters
    ----------
    likelihood : Likelihood
    log_prob : callable
        Log-probabilities of x (n, p) for parameters (n, p), in any shape.
    rows : list of Decoded
        As they are before calibration.
    evidence : Evidence
        Sums over processes.
    """
    values = identity_calibration(likelihood.location)
    start = values.clone()
    precision = values.new_tensor(PRIOR_DEVIATIONS).pow(-2)
    for _ in range(STEPS):
        by_shift, by_gain, a, b, c = evidence.sum(score_sums(likelihood, log_prob, rows, values)).T
        gradient = torch.stack([by_shift, by_gain], dim=1) - precision * (values - start)
        a, c = a + precision[0], c + precision[1]
        determinant = (a * c - b * b)[:, None]
        turned = torch.stack([c, -b, -b, a], dim=1).view(-1, 2, 2) / determinant[:, :, None]
        step = (turned @ gradient[:, :, None])[:, :, 0].clamp(-1.0, 1.0)
        values = values + step
        values[:, 1].clamp_(*GAIN_BOUNDS)
        if float(step.abs().max()) < SMALLEST_STEP:
            break
    if not evidence.lacks_noise:
        return values
    # Information about the gain of a contrast around its mean, and that about the mean.
    plain, spread, tilt = values[:, 1].clone(), c - b * b / a, b / a
    for _ in range(HIDDEN_STEPS):
        likelihood.calibration.copy_(values)
        hidden = evidence.code_variance() / values[:, 1].square().clamp_min(SMALLEST_SQUARE)
        gain = shrink_gain(plain, spread, a * hidden)
        values = torch.stack([values[:, 0] + (values[:, 1] - gain) * tilt, gain], dim=1)
    return values


def score_sums(
    likelihood: Likelihood,
    log_prob: Callable[[Tensor, Tensor], Tensor],
    rows: list[Decoded],
    calibration: Tensor,
) -> Tensor:
    """Return sums over rows of scores and information of shift and gain, (p, 5).

    The derivatives of the log-probability by shift and gain, and the Fisher information's entries
    of shift, of both, and of gain.
    """
    sums = calibration.new_zeros(len(calibration), 5)
    for part in rows:
        x, parameter, mask = part.x, part.parameter, part.mask
        leaf = likelihood.calibrate(parameter, calibration).detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(log_prob(x, leaf).sum(), leaf)
        weight = likelihood.fisher_information(leaf).detach()
        contrast = likelihood.contrast(parameter)
        if mask is not None:
            slope, weight = slope * mask, weight * mask
        tilted = weight * contrast
        parts = (slope, slope * contrast, weight, tilted, tilted * contrast)
        sums += torch.stack([part.total(values) for values in parts], dim=1)
    return sums


def shrink_gain(plain: Tensor, spread: Tensor, hidden: Tensor) -> Tensor:
    """Shrink gains by the uncertainty of codes, back to 1 and not beyond, (p,).

    Codes with less noise than their posterior follow a part of the row's own noise, which a gain
    would enlarge. The likelihood with that noise, to second order, takes ``plain spread / (spread
    + hidden)``. It also makes up for the noise that codes add to their aggregate, which ours do
    not have; hence no gain falls below 1 by it.

    Parameters
    ----------
    plain : Tensor of shape (p,)
        Gains without regard to it.
    spread, hidden : Tensor of shape (p,)
        Variance of the output, and of what codes lack, in one unit.
    """
    shrunk = plain * spread / (spread + hidden).clamp_min(SMALLEST_SQUARE)
    return torch.maximum(shrunk, plain.clamp_max(1.0)).clamp(*GAIN_BOUNDS)
