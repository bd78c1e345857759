"""An objective, a likelihood and a prior of your own, without editing the package.

docs/extending.md explains this file. It fits on wine data that ship with scikit-learn::

    python examples/your_own_parts.py
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from skhebae import AutoencoderTransformer
from skhebae.data import Minibatch, Scaling
from skhebae.divergences import in_double
from skhebae.likelihoods import Evidence, Likelihood
from skhebae.model import Autoencoder
from skhebae.objectives import Terms, VAEObjective
from skhebae.prior import Prior


# [objective]
class FreeBits(VAEObjective):
    """A VAE whose rows pay for their divergence only above a free allowance.

    ``mean_i [ -log p(x_i | z_i) + max(KL(q(z | x_i) || p(z)), allowance) ]`` (Kingma et al.,
    arXiv:1606.04934).
    """

    allowance = 2.0  # nats

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate the loss of one minibatch."""
        terms = super().__call__(model, minibatch)
        assert terms.row_divergence is not None
        return terms._replace(row_penalty=terms.row_divergence.clamp_min(self.allowance))


# [likelihood]
class LaplaceLikelihood(Likelihood):
    """``p(x_j | z) = exp(-|x_j - mean_j(z)| / b_j) / (2 b_j)``, for heavy-tailed features."""

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        super().__init__(location, scale)
        self.log_width = nn.Parameter(torch.zeros_like(location))

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-density of each entry in its original unit, (n, p)."""
        width = self.log_width.exp()
        return -(x - parameter).abs() / width - self.log_width - (2.0 * self.scale).log()

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the decoder's output, (n, p)."""
        return parameter

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw by the inverse of the distribution function, (n, p)."""
        uniform = torch.rand(parameter.shape, generator=generator, device=parameter.device) - 0.5
        magnitude = -torch.log1p(-2.0 * uniform.abs().clamp_max(0.4999999))
        return parameter + self.log_width.exp() * uniform.sign() * magnitude

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return ``1 / b_j^2`` for every row, (n, p)."""
        return (-2.0 * self.log_width).exp().expand_as(parameter)

    def initial_bias(self) -> Tensor:
        """Return zeros, the standardised mean, (p,)."""
        return torch.zeros_like(self.location)

    def finish(self, evidence: Evidence) -> None:
        """Set the widths that maximise the likelihood, given the networks."""
        width = evidence.mean_over_rows(lambda x, mean: (x - mean).abs()).clamp_min(1e-3)
        with torch.no_grad():
            self.log_width.copy_(width.log())

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return the widths in the units of the features."""
        width = self.log_width.exp().detach().cpu().double().numpy()
        return {"width_": width * scaling.scale}


# [prior]
class WidePrior(Prior):
    """``p(z) = N(z; 0, s^2 I)`` with s = 3."""

    deviation = 3.0

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-density, (...)."""
        constant = math.log(self.deviation) + 0.5 * math.log(2.0 * math.pi)
        square = (z / self.deviation).square().sum(dim=-1)
        return -0.5 * square - z.shape[-1] * constant

    def sample(self, n_samples: int, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Draw codes, (n_samples, d)."""
        return self.deviation * rng.standard_normal((n_samples, self.n_components))

    def precision(self, z: Tensor) -> Tensor:
        """Return ``I / s^2`` for every code, (n, d, d)."""
        wide = in_double(z)
        identity = torch.eye(z.shape[1], dtype=wide.dtype, device=z.device)
        return (identity / self.deviation**2).expand(len(z), -1, -1)

    def gaussian_kl(self, mean: Tensor, factor: Tensor) -> Tensor:
        """Return ``KL(N(m, L L^T) || p)``, (...)."""
        scaled = factor / self.deviation
        log_det = 2.0 * scaled.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        square = (mean / self.deviation).square().sum(dim=-1)
        trace = scaled.square().sum(dim=(-2, -1))
        return 0.5 * (trace + square - mean.shape[-1] - log_det)


# [fit]
def fitted(X: NDArray[np.float64]) -> AutoencoderTransformer:
    """Fit an autoencoder made of these parts."""
    model = AutoencoderTransformer(
        3, objective=FreeBits, likelihood=LaplaceLikelihood, prior=WidePrior, random_state=0
    )
    return model.fit(X)


# [end]
def main() -> None:
    """Fit to wines, and compare with the Gaussian likelihood on held-out ones."""
    train, test = train_test_split(load_wine().data, random_state=0)
    model = fitted(train)
    plain = AutoencoderTransformer(3, random_state=0).fit(train)
    print(f"held-out log-likelihood bound, Laplace: {model.score(test):8.2f} nats per wine")
    print(f"                              Gaussian: {plain.score(test):8.2f} nats per wine")
    print(f"widths of the first features: {model.fitted_.learned['width_'][:3].round(3)}")
    print(f"standard deviation of the codes: {model.transform(test).std(axis=0).round(2)}")


if __name__ == "__main__":
    main()
