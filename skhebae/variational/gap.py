"""What the bounds of rows miss: bounds by quadrature, log p(x) by importance weights."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.code_map import CodeNoise, lower_factor
from skhebae.data import Minibatch
from skhebae.divergences import in_double
from skhebae.model import Autoencoder
from skhebae.posterior import gain, laplace, linearise
from skhebae.quadrature import Proposal, Rule
from skhebae.variational.families import FullFamily, Gaussian, ScaledFamily, best_gaussian, log_det


def block_bounds(model: Autoencoder, minibatch: Minibatch, q: Gaussian, rule: Rule) -> Tensor:
    """Return the bound of each row's Gaussian by each block of a rule, (n, n_blocks), double.

    ``E_q [log p(x | z) + log p(z)]`` plus the entropy of q; minus infinity where q is a point.
    """
    n_components = q.mean.shape[1]
    entropy = log_det(q.factor) + 0.5 * n_components * math.log(2.0 * math.pi * math.e)
    bounds = []
    for block in torch.from_numpy(rule.points).to(q.mean):
        total = torch.zeros_like(entropy)
        for e, weight in zip(block, rule.weights, strict=True):
            z = q.mean + q.factor @ e
            total += float(weight) * (model.log_prob(minibatch, z) + model.prior.log_prob(z))
        bounds.append(total + entropy)
    return torch.stack(bounds, dim=1)


def importance_log_likelihood(
    model: Autoencoder, minibatch: Minibatch, q: Gaussian, proposal: Proposal
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate log p(x) of each row around a Gaussian, with errors and effective draws, (n,) each.

    ``p(x) = E w`` with ``w = p(x | z) p(z) / m(z)``, m the mixture of q and a Student's t
    distribution of the same place and shape. ``q / m``, whose mean is known to be 1, is a control
    variate (Owen and Zhou, 2000): where q is the posterior, the estimate is exact. The error is the
    delta method's, ``sd(w - b q / m) / (sqrt(K) p(x))``, the effective draws are
    ``(sum w)^2 / sum w^2``.
    """
    volume, parts = log_det(q.factor), []
    for e, density in zip(
        torch.from_numpy(proposal.draws).to(q.mean), proposal.log_density, strict=True
    ):
        z = q.mean + q.factor @ e
        joint = model.log_prob(minibatch, z) + model.prior.log_prob(z)
        parts.append(joint + volume - float(density))
    log_weights = torch.stack(parts, dim=1)
    largest = log_weights.max(dim=1, keepdim=True).values
    weights = (log_weights - largest).exp()
    effective = weights.sum(dim=1).square() / weights.square().sum(dim=1)
    share = torch.from_numpy(proposal.share).to(weights)
    centred = share - share.mean()
    spread = centred.square().sum()
    slope = (weights @ centred) / spread if float(spread) > 0.0 else weights.new_zeros(len(weights))
    adjusted = weights - slope[:, None] * (share - 1.0)
    # Where few draws carry all weight, the regression may leave nothing.
    usable = adjusted.mean(dim=1) > 0.1 * weights.mean(dim=1)
    adjusted = torch.where(usable[:, None], adjusted, weights)
    mean = adjusted.mean(dim=1)
    error = adjusted.std(dim=1) / (mean * math.sqrt(len(share)))
    return mean.log() + largest[:, 0], error, effective


class GapParts(NamedTuple):
    """What the bounds of rows miss: bounds of each block, (n, n_blocks), and more.

    Attributes
    ----------
    log_likelihood, log_likelihood_error, effective_draws : Tensor of shape (n,)
    full, diagonal, family, encoder : Tensor of shape (n, n_blocks)
        Bounds of the best Gaussian, the best diagonal one, the best in the encoder's family, and
        of the encoder's own.
    precision : Tensor of shape (n, d, d)
        ``P + J^T W J`` at the mode of each row's posterior.
    """

    log_likelihood: Tensor
    log_likelihood_error: Tensor
    effective_draws: Tensor
    full: Tensor
    diagonal: Tensor
    family: Tensor
    encoder: Tensor
    precision: Tensor

    def as_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return each part as an array, by name."""
        return {name: part.cpu().numpy() for name, part in self._asdict().items()}

    def pack(self) -> Tensor:
        """Return all numbers side by side, (n, 3 + 4 n_blocks + d^2), double."""
        return torch.cat([in_double(part).reshape(len(part), -1) for part in self], dim=1)

    @classmethod
    def unpack(cls, columns: Tensor, n_components: int) -> Self:
        """Invert `pack`."""
        square = n_components**2
        n_blocks = (columns.shape[1] - 3 - square) // 4
        bounds = columns[:, 3:-square].reshape(-1, 4, n_blocks)
        precision = columns[:, -square:].reshape(-1, n_components, n_components)
        likelihood, error, effective = columns[:, :3].unbind(dim=1)
        full, diagonal, family, encoder = bounds.unbind(dim=1)
        return cls(
            likelihood, error, effective, full, diagonal, family, encoder, precision=precision
        )


def gap_parts(
    model: Autoencoder,
    minibatch: Minibatch,
    encoder: Gaussian,
    family: ScaledFamily | None,
    rules: tuple[Rule, Rule],
    proposal: Proposal,
) -> GapParts:
    """Measure what the bounds of rows miss.

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
    encoder : Gaussian
        The encoder's own.
    family : ScaledFamily or None
        Which Gaussians the encoder may give; None stands for the diagonal ones. Rows with missing
        entries, whose posterior follows from the decoder, may have any.
    rules : pair of Rule
        To maximise bounds, and to evaluate them.
    proposal : Proposal
    """
    search, judge = rules
    start = laplace(model, minibatch)
    mode = linearise(model, start.mode, minibatch)
    precision = mode.prior_precision + gain(model, mode)
    full, at = best_gaussian(model, minibatch, FullFamily(), Gaussian(*start), search)
    full = Gaussian(full.mean, lower_factor(full.factor))
    one = torch.eye(model.n_components, dtype=full.mean.dtype, device=full.mean.device)
    independent = ScaledFamily(CodeNoise(one))
    bounds = []
    for kind in (independent, family):
        if kind is not None:
            first = kind.start(full.mean, at.precision)
            best = best_gaussian(model, minibatch, kind, first, search)[0]
            bounds.append(block_bounds(model, minibatch, best, judge))
    of_full = block_bounds(model, minibatch, full, judge)
    return GapParts(
        *importance_log_likelihood(model, minibatch, full, proposal),
        full=of_full,
        diagonal=bounds[0],
        family=bounds[-1] if minibatch.mask is None else of_full,
        encoder=block_bounds(model, minibatch, encoder, judge),
        precision=precision,
    )


def independence_loss(precision: Tensor) -> Tensor:
    """Return ``1/2 (sum_j log P_jj - log det P)`` of precisions (..., d, d), (...), nats.

    The least ``KL(q || N(m, P^-1))`` of diagonal Gaussians q, whose variances are ``1 / P_jj``:
    ``1/2 (tr(P V) - d - log det(P V))`` with diagonal V. It is 0 for diagonal P.
    """
    diagonal = precision.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    result: Tensor = 0.5 * (diagonal - torch.linalg.slogdet(precision).logabsdet)
    return result


def off_diagonal_size(precision: Tensor) -> Tensor:
    """Return the root mean square of ``P_jk / sqrt(P_jj P_kk)`` over j != k, (...), 0 to 1."""
    n_components = precision.shape[-1]
    scale = precision.diagonal(dim1=-2, dim2=-1).rsqrt()
    correlation = precision * scale[..., :, None] * scale[..., None, :]
    one = torch.eye(n_components, dtype=torch.bool, device=precision.device)
    squares = correlation.masked_fill(one, 0.0).square().sum(dim=(-2, -1))
    result: Tensor = (squares / max(1, n_components * (n_components - 1))).sqrt()
    return result
