"""Gaussian likelihood with a learned noise variance per feature."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skhebae.data import FeatureScaling, Scaling
from skhebae.likelihoods.base import (
    Decoded,
    Evidence,
    Likelihood,
    as_tensor,
    identity_calibration,
)
from skhebae.likelihoods.calibration import regress

#: The learned noise variance never falls under this fraction of a feature's
#: own variance. A feature the decoder reproduces exactly, or a constant one
#: (whose variance is taken as 1), then has a finite density.
NOISE_VARIANCE_FLOOR = 0.01

#: Steps of expectation maximisation to the noise variances where codes lack noise, at most, and
#: the largest change of a logarithm that ends them.
NOISE_STEPS, SETTLED = 50, 1e-3

#: Smallest squared gain in a quotient.
TINY = 1e-6


class GaussianLikelihood(Likelihood):
    """``p(x_j | z) = N(x_j; mean_j(z), v_j)`` with one learned variance per feature.

    ``v_j = NOISE_VARIANCE_FLOOR * var(x_j) + exp(rho_j)``: with the variance
    learned, rescaling a feature moves the log-density by a constant and
    leaves the optimum where it was.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        The standardisation that the rows went through.
    variance : Tensor of shape (n_features,)
        Variance of the training rows on the standardised scale, 1 where constant.
    """

    accepts_missing: ClassVar[bool] = True
    starts_linear: ClassVar[bool] = True
    counts_code_variance: ClassVar[bool] = True

    #: Whether features have one variance in common in training, as principal component analysis
    #: does: then a feature counts by what it varies, and not by how well others predict it.
    common_noise: bool = False

    floor: Tensor
    log_unit: Tensor
    log_units: Tensor
    code_variance: Tensor

    def __init__(self, location: Tensor, scale: Tensor, variance: Tensor) -> None:
        super().__init__(location, scale)
        self.register_buffer("floor", NOISE_VARIANCE_FLOOR * variance)
        # 2 pi of the density and the Jacobian of the standardisation, per feature and summed.
        log_scale = scale.double().log()
        log_unit = math.log(2.0 * math.pi) + 2.0 * log_scale
        self.register_buffer("log_unit", log_unit.to(scale.dtype), persistent=False)
        log_units = len(scale) * math.log(2.0 * math.pi) + 2.0 * log_scale.sum()
        self.register_buffer("log_units", log_units.to(scale.dtype))
        self.register_buffer("code_variance", torch.zeros_like(variance), persistent=False)
        # All features start at one variance. They then count by what they explain of the table,
        # and by their own noise only in the course of training. Starting each at its own
        # variance would give rare values (border pixels) as much weight as the rest from the
        # first step.
        self.log_noise = nn.Parameter(torch.full_like(variance, float(variance.mean().log())))

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `FeatureScaling`, in float32."""
        assert isinstance(scaling, FeatureScaling)
        parts = (scaling.location, scaling.scale, scaling.variance)
        # Built in double, so that any unit has a logarithm.
        return cls(*map(as_tensor, parts)).float()

    def noise_variance(self) -> Tensor:
        """Return the noise variance per feature on the standardised scale, (p,)."""
        variance = self.floor + self.log_noise.exp()
        if self.common_noise and self.training:
            return variance.mean().expand_as(variance)
        return variance

    def start_linear(self) -> None:
        """Give all features one noise variance in common during training."""
        self.common_noise = True

    def start_residual(self, residual: float) -> None:
        """Start all variances at the residual one of the linear start."""
        self.set_noise_variance(torch.full_like(self.floor, residual))

    def extra_loss(self) -> Tensor:
        """Return ``1/2 sum_j c_j / v_j``: what uncertain codes add to ``-E log p(x | z)``, ().

        c_j (`code_variance`) is the part of feature j's residual variance that codes hide if they
        are drawn with less noise than their posterior has. Without this term, nearly noiseless
        codes would end as copies of d features, whose v_j fall to the floor: the Heywood case of
        factor analysis. For a copied feature c_j tends to v_j, so nothing pulls its v_j down.
        """
        return 0.5 * (self.code_variance / self.noise_variance()).sum()

    def set_code_variance(self, variance: Tensor) -> None:
        """Receive the c_j of `extra_loss`, (p,)."""
        self.code_variance.copy_(variance)

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return the output; after training, calibrated, (n, p)."""
        return output if self.training else self.calibrate(output, self.calibration)

    def finish(self, evidence: Evidence) -> None:
        """Set calibration and noise variances that maximise the bound, given the networks.

        ``v_j = mean_i E_q (x_ij - mean_j(z_i))^2``, with one draw of z per row, completes what
        Adam's small steps began. Where codes of training have less noise than their posterior,
        `Evidence.code_variance` is added to the residuals. It depends on gains and variances in
        turn, hence a few steps of expectation maximisation. In a stream, gains stay.
        """
        if not evidence.is_part:
            self.calibration.copy_(identity_calibration(self.location))
        sums = evidence.sum_over_rows(sums_of_products)
        means = sums[:, :5] / sums[:, 5:].clamp_min(1.0)
        hidden = torch.zeros_like(self.location)
        for _ in range(NOISE_STEPS if evidence.lacks_noise else 1):
            before = self.noise_variance().detach()
            if evidence.lacks_noise:
                hidden = evidence.code_variance()
                if not evidence.is_part:  # of the output as it is before the gain
                    hidden = hidden / self.calibration[:, 1].square().clamp_min(TINY)
            if evidence.is_part:
                _, _, squares, products, output_squares = means.unbind(dim=1)
                residual = (squares - 2.0 * products + output_squares).to(self.location)
                self.set_noise_variance(residual.clamp_min(0.0) + hidden)
            else:
                calibration, residual = regress(means, before, hidden, evidence.n_rows)
                self.calibration.copy_(calibration)
                self.set_noise_variance(residual)
            change = (self.noise_variance().detach() / before).log().abs().max()
            if float(change) < SETTLED:
                break

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return `noise_variance_`, in the squared unit of each feature."""
        variance = self.noise_variance().detach().cpu().double().numpy()
        return {"noise_variance_": variance * scaling.scale**2}

    def set_noise_variance(self, mean_square_residual: Tensor) -> None:
        """Set the variances to their maximum-likelihood values, given the networks.

        Parameters
        ----------
        mean_square_residual : Tensor of shape (p,)
            ``mean_i E_q (x_ij - mean_j(z_i))^2`` over the rows of `fit`.
        """
        learned = (mean_square_residual - self.floor).clamp_min(1e-3 * self.floor)
        with torch.no_grad():
            self.log_noise.copy_(learned.log())

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return ``log N(x_j; mean_j, v_j)`` of each entry, (n, p), nats."""
        variance = self.noise_variance()
        return -0.5 * ((x - parameter).square() / variance + variance.log() + self.log_unit)

    def log_prob(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum the log-densities of each row's entries, (n,), nats."""
        if mask is not None:
            return super().log_prob(x, parameter, mask)
        # The same sum as one matrix product, which takes less time and memory.
        variance = self.noise_variance()
        mahalanobis = (x - parameter).square() @ variance.reciprocal()
        return -0.5 * (mahalanobis + variance.log().sum() + self.log_units)

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the decoder's output, (n, p)."""
        return parameter

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of the learned variance, (n, p)."""
        noise = torch.randn(
            parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device
        )
        return parameter + self.noise_variance().sqrt() * noise

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return ``1 / v_j`` for every row, (n, p)."""
        return (1.0 / self.noise_variance()).expand_as(parameter)

    def variance(self, parameter: Tensor) -> Tensor:
        """Return ``1 / I_j``, which is ``v_j``, for every row, (n, p)."""
        return 1.0 / self.fisher_information(parameter)

    def residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return ``(x - mean) / v^(1/4)``, (n, p)."""
        return (x - parameter) * self.noise_variance().pow(-0.25)

    def initial_bias(self) -> Tensor:
        """Return zeros, the standardised mean, (p,)."""
        return torch.zeros_like(self.location)


def sums_of_products(rows: Decoded) -> Tensor:
    """Return sums of x, the output o, x^2, x o, o^2 and 1 over observed entries, (p, 6)."""
    x, output, mask = rows.x, rows.parameter, rows.mask
    if mask is not None:
        x, output = x * mask, output * mask
        count = rows.total(mask.to(x))
    else:
        count = torch.full_like(x.sum(dim=0), rows.n_counted())
    parts = (x, output, x.square(), x * output, output.square())
    return torch.stack([*(rows.total(part) for part in parts), count], dim=1)
