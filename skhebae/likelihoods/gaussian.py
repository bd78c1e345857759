"""Gaussian likelihood with a learned noise variance a feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from skhebae.likelihoods.base import Likelihood

#: The learned noise variance never falls under this fraction of a feature's
#: own variance. A feature the decoder reproduces exactly, or a constant one
#: (whose variance is taken as 1), then has a finite density.
NOISE_VARIANCE_FLOOR = 0.01


class GaussianLikelihood(Likelihood):
    """``p(x_j | z) = N(x_j; mean_j(z), v_j)`` with one learned variance a feature.

    ``v_j = NOISE_VARIANCE_FLOOR * var(x_j) + exp(rho_j)``: with the variance
    learned, rescaling a feature moves the log-density by a constant and
    leaves the optimum where it was.

    Parameters
    ----------
    location, scale : Tensor of shape (n_features,)
        The standardisation the rows went through.
    variance : Tensor of shape (n_features,)
        Variance of the training rows on the standardised scale, 1 where constant.
    """

    floor: Tensor
    log_units: Tensor
    code_variance: Tensor

    def __init__(self, location: Tensor, scale: Tensor, variance: Tensor) -> None:
        super().__init__(location, scale)
        self.register_buffer("floor", NOISE_VARIANCE_FLOOR * variance)
        # 2 pi of the density and the Jacobian of the standardisation.
        log_units = len(scale) * math.log(2.0 * math.pi) + 2.0 * scale.double().log().sum()
        self.register_buffer("log_units", log_units.to(scale.dtype))
        self.register_buffer("code_variance", torch.zeros_like(variance), persistent=False)
        # One common start: features then count by what they explain of the
        # table, and only in the course of training each by its own noise. A
        # start at each feature's own variance would give rare values (border
        # pixels) the weight of the rest from the first step.
        self.log_noise = nn.Parameter(torch.full_like(variance, float(variance.mean().log())))

    def noise_variance(self) -> Tensor:
        """Noise variance per feature on the standardised scale, (p,)."""
        return self.floor + self.log_noise.exp()

    def code_variance_loss(self) -> Tensor:
        """``1/2 sum_j c_j / v_j``: what uncertain codes add to ``-E log p(x | z)``, ().

        c_j (`code_variance`) is the part of feature j's residual variance that
        codes hide if they are drawn with less noise than their posterior has.
        Without it nearly noiseless codes would end as copies of d features,
        whose v_j fall to the floor: the Heywood case of factor analysis. For a
        copied feature c_j tends to v_j, so nothing pulls its v_j down.
        """
        return 0.5 * (self.code_variance / self.noise_variance()).sum()

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

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Sum over features of ``log N(x_j; mean_j, v_j)`` (n,), nats."""
        variance = self.noise_variance()
        mahalanobis = (x - parameter).square() @ variance.reciprocal()
        return -0.5 * (mahalanobis + variance.log().sum() + self.log_units)

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the decoder's output, (n, p)."""
        return parameter

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of the learned variance, (n, p)."""
        noise = torch.randn(parameter.shape, generator=generator, device=parameter.device)
        return parameter + self.noise_variance().sqrt() * noise

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """``1 / v_j`` for every row, (n, p)."""
        return (1.0 / self.noise_variance()).expand_as(parameter)

    def initial_bias(self) -> Tensor:
        """Zeros: the standardised mean, (p,)."""
        return torch.zeros_like(self.location)
