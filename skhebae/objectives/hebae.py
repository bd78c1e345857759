"""Hierarchical empirical Bayes autoencoder (arXiv:2007.10389)."""

from __future__ import annotations

import math
from copy import copy
from numbers import Integral
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from skhebae.data import Minibatch
from skhebae.divergences import group_kl_to_standard, in_double, regularised_covariance
from skhebae.finite_sample import (
    expected_group_kl,
    expected_prior_kl,
    expected_prior_kl_of_weight,
)
from skhebae.likelihoods import Likelihood
from skhebae.model import Autoencoder, one_hot
from skhebae.objectives.aggregate import aggregate
from skhebae.objectives.base import Objective, Terms
from skhebae.objectives.fused import fused_aggregate
from skhebae.prior import Prior

#: Smallest standard deviation of posterior noise, as a share of the codes'.
SMALLEST_SPREAD = 1e-12


class HEBAEObjective(Objective):
    """Reconstruction plus the divergence of the moments of the codes from N(0, I).

    The loss is ``mean_i -log p(x_i | z_i) + reg_weight * KL(N(m, S) || N(0, I))``. ``m`` and ``S``
    are the moments of the minibatch's posterior means, and ``z_i = mu_i + D_i L eps_i`` with
    ``D_i = diag(exp(log_scale_i))`` and ``L L^T = S`` (equations 6, 7, 8, 11 and 13).

    With a `row_share` a > 0 the penalty is ``(1 - a) KL(N(m, S) || N(0, I)) + a mean_i KL(N(mu_i,
    D_i S D_i) || N(0, I))``. It is the published objective at a = 0, and the evidence lower bound
    of a full-covariance posterior at a = 1.

    Parameters
    ----------
    reg_weight : float
        Weight of the penalty.
    covariance : {"full", "diag"}
        Whether the noise of a code follows ``S`` or only its diagonal, the
        cheaper form of the published experiments. The penalty always has the
        full covariance.
    posterior_scale : {"diagonal", "scalar"}
        One scale per component, or one per row.
    covariance_prior : float
        Pseudo-rows ``nu`` of the hyperprior on ``S``.
    row_share : float, optional
        Share ``a`` of the penalty that acts on the posterior of each row. By default that of the
        likelihood, see `suited`.
    batch_share : float
        Share of the rest that acts on the moments of the codes of each experimental batch
        instead of those of all rows.
    """

    # sigma = 0.12: enough noise to smooth the first epochs, not to drown them.
    initial_scale = -2.0

    def __init__(
        self,
        reg_weight: float = 1.0,
        *,
        covariance: str = "full",
        posterior_scale: str = "diagonal",
        covariance_prior: float = 1.0,
        row_share: float | None = None,
        batch_share: float = 0.0,
    ) -> None:
        self.weight = reg_weight
        self.is_automatic = row_share is None
        self.set_row_share(row_share or 0.0)
        self.batch_share = batch_share
        self.covariance = covariance
        self.posterior_scale = posterior_scale
        self.covariance_prior = covariance_prior

    def set_row_share(self, row_share: float) -> None:
        """Set the share of the penalty that falls on each row's posterior."""
        # With a row_share, the noise of codes makes up for a part of their variance.
        self.standardises_codes = self.weight > 0.0 and row_share == 0.0
        self.row_weight = self.weight * row_share
        self.row_share = row_share

    def suited(self, likelihood: type[Likelihood]) -> Self:
        """Return the objective with the `row_share` of a likelihood, if none was given."""
        if not self.is_automatic or likelihood.row_share == self.row_share:
            return self
        result = copy(self)
        result.set_row_share(likelihood.row_share)
        return result

    def n_scales(self, n_components: int) -> int:
        """Return one scale per component, or one per row."""
        return n_components if self.posterior_scale == "diagonal" else 1

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate equations 7 and 8 on one minibatch."""
        mu, scales = model.encode(minibatch)
        codes, weight = minibatch.gather(mu), minibatch.gathered_weight()
        spread = self.spread(scales, mu.shape[1])
        share = self.row_share
        # The fused form has no gradient of the factor, which each row's divergence needs.
        fused = mu.device.type == "cpu" and share == 0.0 and not torch.compiler.is_compiling()
        noise, divergence, factor = (fused_aggregate if fused else aggregate)(
            codes, minibatch.draw(mu), self.covariance_prior, self.covariance == "diag", weight
        )
        # At a share of 0 it is reported and not penalised: build no graph for its gradient.
        with torch.set_grad_enabled(share > 0.0 and torch.is_grad_enabled()):
            row_divergence = model.prior.scaled_kl(mu, spread, factor)
        batch_sizes = None
        if self.batch_share > 0.0 and model.n_batches > 1:
            by_batch, batch_sizes = self._batch_divergence(model, minibatch, codes, weight)
            divergence = torch.lerp(divergence, by_batch, self.batch_share)
        z = torch.addcmul(mu, spread, minibatch.own(noise))
        return Terms(
            reconstruction=-model.log_prob(minibatch, z),
            row_penalty=share * row_divergence if share > 0.0 else None,
            minibatch_penalty=(1.0 - share) * divergence,
            row_divergence=row_divergence,
            batch_sizes=batch_sizes,
        )

    def _batch_divergence(
        self, model: Autoencoder, minibatch: Minibatch, codes: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Average the divergences of the moments of each experimental batch's codes, ().

        Also return how many rows each batch has, (n_present,).
        """
        assert minibatch.batch is not None  # the model has batches
        batch, n_batches = minibatch.gather(minibatch.batch), model.n_batches
        if batch.device.type == "cpu" and not torch.compiler.is_compiling():
            # A minibatch has few of thousands of batches. (A GPU would have to wait for this.)
            present, batch = torch.unique(batch, return_inverse=True)
            n_batches = len(present)
        wide = in_double(codes)
        labels = one_hot(batch, n_batches, wide.dtype)
        if weight is not None:
            weight = weight.to(wide)
        divergence = group_kl_to_standard(wide, labels, self.covariance_prior, weight)
        sizes = labels.sum(dim=0) if weight is None else weight @ labels
        return divergence.to(codes.dtype), sizes

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Return ``exp(log_scale)`` with ``log_scale = log softplus(head)``, (n, d).

        At `row_share` 0 the penalty does not restrain the noise. If the head were the log-scale
        itself, a linear encoder on a table of low rank would drive ``exp`` to overflow. Nor may
        it underflow: a row far from the others would have an infinite divergence.
        """
        return functional.softplus(scales).clamp_min(SMALLEST_SPREAD).expand(-1, n_components)

    def noise_covariance(self, code_covariance: Tensor, n_rows: float) -> Tensor:
        """Return ``S`` of equation 6, or its diagonal, (d, d).

        From the codes of the whole training set, with the weight that the
        hyperprior had in a minibatch.
        """
        covariance = regularised_covariance(code_covariance, n_rows, self.covariance_prior)
        return covariance.diagonal().diag() if self.covariance == "diag" else covariance

    def prior_penalty(
        self, n_rows: float, n_components: int, batch_sizes: Tensor | None = None
    ) -> float | Tensor:
        """Return the mean divergence of the moments of `n_rows` draws from N(0, I)."""
        own, nu = 1.0 - self.row_share, self.covariance_prior
        counts = isinstance(n_rows, Integral)
        if counts:
            expected = own * expected_prior_kl(int(n_rows), n_components, nu)
        else:
            expected = own * expected_prior_kl_of_weight(n_rows, n_components, nu)
        if batch_sizes is None:
            return expected
        # Sums of weights share few tables of sizes.
        most = int(n_rows) if counts else 2 ** math.ceil(math.log2(max(n_rows, 1.0)))
        by_size = expected_group_kl(most, n_components, nu, batch_sizes.device)
        # In single precision, like all terms of the loss.
        by_batch = own * (batch_sizes.to(by_size) * by_size[batch_sizes.round().long()]).sum()
        by_batch = by_batch / n_rows
        return (1.0 - self.batch_share) * expected + self.batch_share * by_batch

    def supports(self, prior: Prior) -> bool:
        """Whether `prior` is N(0, I), to which equation 7 gives the divergence."""
        return prior.is_standard
