"""
Write your own likelihood and prior
===================================

A likelihood says how rows scatter around what the decoder returns, and a prior where codes lie
before a row is seen. Each is one class, and :class:`~skhebae.AutoencoderTransformer` fits it like
the built-in ones. This example writes a Laplace likelihood, whose tails are heavier than a
Gaussian's, and a wider prior.
"""

# %%
# Write the likelihood
# --------------------
# A likelihood returns the log-density of each entry, draws rows, and says how informative a row is
# about its code. After training, ``finish`` sets the widths that fit best, and ``learned`` returns
# what users can read.
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from skhebae import AutoencoderTransformer
from skhebae.data import Scaling
from skhebae.divergences import in_double
from skhebae.likelihoods import Evidence, Likelihood
from skhebae.objectives import VAEObjective
from skhebae.prior import Prior


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


# %%
# Write the prior
# ---------------
# A prior needs its density, draws, and the divergence of a Gaussian from it.
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


# %%
# Fit both
# --------
# The table has thirty measurements of 569 tumours, some far from all others. Pass the classes, not
# instances, because every fit makes its own.
train, test = train_test_split(load_breast_cancer().data, random_state=0)
own = AutoencoderTransformer(
    5, objective=VAEObjective, likelihood=LaplaceLikelihood, prior=WidePrior, random_state=0
).fit(train)
gaussian = AutoencoderTransformer(5, objective=VAEObjective, random_state=0).fit(train)
for name, model in {"Laplace": own, "Gaussian": gaussian}.items():
    print(f"{name:8} {model.score(test):6.2f} nats per held-out tumour")
print(f"standard deviation of the codes: {own.transform(test).std(axis=0).round(1)}")
print(f"widths of the first three features: {own.fitted_.learned['width_'][:3].round(3)}")

# %%
# See why
# -------
# Divide the errors of held-out tumours by the width that each likelihood has learned. The line is
# what the likelihood expects. A Gaussian expects hardly any error above four, but there are many.
gaussian_width = np.sqrt(gaussian.noise_variance_)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharey=True)
x, bins = np.linspace(-9, 9, 400), np.linspace(-9, 9, 55)
tails = {}
for ax, name, model, width, family, colour in [
    (axes[0], "Gaussian", gaussian, gaussian_width, stats.norm, "#D55E00"),
    (axes[1], "Laplace", own, own.fitted_.learned["width_"], stats.laplace, "#0072B2"),
]:
    errors = ((test - model.inverse_transform(model.transform(test))) / width).ravel()
    tails[name] = np.mean(np.abs(errors) > 4), 2 * family.sf(4)
    ax.hist(errors, bins, density=True, color="#BBBBBB", label="held-out errors")
    ax.plot(x, family.pdf(x), color=colour, lw=2.5, label=f"{name} likelihood")
    ax.set(yscale="log", ylim=(1e-4, 1), xlabel="error / learned width", title=name)
    ax.legend(loc="upper right", fontsize=9)
axes[0].set_ylabel("density")
figure.suptitle("Errors have heavier tails than a Gaussian", fontsize=14)
for name, (found, expected) in tails.items():
    print(f"{name:8} {found:.2%} of errors above 4 widths, {expected:.2%} expected")
plt.show()
