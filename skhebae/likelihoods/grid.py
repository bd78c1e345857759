"""Most likely feature-wise parameters by trial: one number per feature, all features at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skhebae.likelihoods.base import Decoded, Evidence, Likelihood

#: Logarithms of the factors that are tried: far from the start first, and then around the best.
FAR, NEAR = (
    (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3),
)

#: Seed of the noise that codes lack.
SEED = 0


def best_factor(
    likelihood: Likelihood,
    rows: list[Decoded],
    evidence: Evidence,
    start: Tensor,
    put: Callable[[Tensor], None],
) -> Tensor:
    """Return the positive numbers by which the rows are most likely, (p,).

    Parameters
    ----------
    likelihood : Likelihood
    rows : list of Decoded
    evidence : Evidence
        Adds up over processes.
    start : Tensor of shape (p,)
    put : callable
        Makes the likelihood have such numbers.
    """
    best = start
    for factors in (FAR, NEAR):
        sums = []
        for factor in factors:
            put(best * torch.as_tensor(factor, dtype=start.dtype, device=start.device).exp())
            sums.append(total_log_prob(likelihood, rows, start))
        chosen = evidence.sum(torch.stack(sums)).argmax(dim=0)
        logarithms = torch.tensor(factors, dtype=start.dtype, device=start.device)
        best = best * logarithms[chosen].exp()
    put(best)
    return best


def total_log_prob(likelihood: Likelihood, rows: list[Decoded], like: Tensor) -> Tensor:
    """Add up the observed entries of rows by feature, (p,)."""
    total = torch.zeros_like(like)
    with torch.no_grad():
        for part in rows:
            entries = likelihood.entry_log_prob(part.x, part.parameter)
            total += part.total(entries if part.mask is None else entries.where(part.mask, 0.0))
    return total


def with_code_noise(
    likelihood: Likelihood, rows: list[Decoded], variance: Tensor | None, *, calibrates: bool
) -> list[Decoded]:
    """Return rows, calibrated if asked to, with noise of a variance (p,) that codes lack."""
    device = likelihood.location.device
    generator = torch.Generator(device).manual_seed(SEED)
    noised = []
    for part in rows:
        own = part.parameter
        if calibrates:
            own = likelihood.calibrate(own, likelihood.calibration)
        if variance is not None:
            draws = torch.randn(own.shape, generator=generator, dtype=own.dtype, device=device)
            own = own + variance.clamp_min(0.0).sqrt() * draws
        noised.append(part._replace(parameter=own))
    return noised
