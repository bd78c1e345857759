"""The pair of networks with its likelihood, and the row-wise inference on it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skhebae.divergences import gaussian_kl_to_standard, in_double
from skhebae.likelihoods import Likelihood
from skhebae.networks import Encoder


class Architecture(NamedTuple):
    """All that is needed to rebuild the networks around saved weights.

    Attributes
    ----------
    n_features, n_components : int
    hidden_layer_sizes : tuple of int
        Of the encoder; the decoder mirrors them.
    activation : str
    likelihood : {"gaussian", "bernoulli"}
    n_scales : int
        Width of the encoder's scale head.
    """

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    likelihood: str
    n_scales: int


class Autoencoder(nn.Module):
    """Encoder, decoder and likelihood; rows are standardised on both sides.

    Parameters
    ----------
    encoder : Encoder
    decoder : torch.nn.Sequential
    likelihood : Likelihood

    Attributes
    ----------
    training_dtype : torch.dtype
        Of the matrix products in training mode. In evaluation mode they are
        float32 always.
    """

    training_dtype = torch.float32

    def __init__(self, encoder: Encoder, decoder: nn.Sequential, likelihood: Likelihood) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.likelihood.location.device

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, p) to posterior mean (n, d) and scale head (n, n_scales), float32."""
        with self._autocast():
            mu, scales = self.encoder(x)
        return mu, scales

    def decode(self, z: Tensor) -> Tensor:
        """Codes (n, d) to the likelihood's parameter (n, p), float32."""
        with self._autocast():
            output: Tensor = self.decoder(z)
        return output.float()

    def _autocast(self) -> AbstractContextManager[object]:
        """Lower precision for the networks alone, in training alone.

        Moments, Cholesky factors and likelihoods lie outside this context.
        """
        if not self.training or self.training_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.training_dtype)

    def score(self, x: Tensor) -> Tensor:
        """Evidence lower bound of each row, for a posterior that fits the decoder.

        ``E_q log p(x | z) - KL(q || N(0, I))`` for ``q = N(mu(x), P^-1)`` with
        ``P = I + J^T W J``: J the decoder's Jacobian at mu(x), W the
        likelihood's Fisher information. The encoder's own noise is not used,
        so the number has one meaning for all objectives, one whose noise
        vanished and one without any included. The expectation is the
        spherical cubature ``z = mu +- sqrt(d) F e_j``, exact where
        log p(x | z) is a polynomial in z of degree 3 or less, so for every
        linear decoder with Gaussian likelihood.

        Parameters
        ----------
        x : Tensor of shape (n, p)

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mu, _ = self.encode(x)
        factor = self._posterior_factor(mu)
        n_components = mu.shape[1]
        steps = n_components**0.5 * factor.transpose(1, 2)
        total = torch.zeros(len(x), device=x.device)
        for j in range(n_components):
            for z in (mu + steps[:, j], mu - steps[:, j]):
                total += self.likelihood.log_prob(x, self.decode(z))
        return total / (2 * n_components) - gaussian_kl_to_standard(mu, factor)

    def _posterior_factor(self, mu: Tensor) -> Tensor:
        """Lower factor of ``(I + J^T W J)^-1`` at each code, (n, d, d)."""
        n_components = mu.shape[1]
        with torch.enable_grad():
            z = mu.detach().requires_grad_()
            output = self.decode(z)
            # J^T u is linear in u, so its derivatives with respect to u are
            # J's columns: n_components backward passes for any decoder.
            # (torch.func.jvp compiles with the deprecated torch.jit.)
            u = torch.zeros_like(output, requires_grad=True)
            (pulled,) = torch.autograd.grad(output, z, u, create_graph=True)
            columns = [
                torch.autograd.grad(pulled[:, j].sum(), u, retain_graph=True)[0]
                for j in range(n_components)
            ]
        # In double: the eigenvalues of P run from 1 to the decoder's gain
        # squared over the noise variance, too far apart for float32.
        weight = in_double(self.likelihood.fisher_information(output.detach()))
        jacobian = in_double(torch.stack(columns, dim=2))
        identity = in_double(torch.eye(n_components, device=mu.device))
        precision = identity + jacobian.transpose(1, 2) @ (weight[:, :, None] * jacobian)
        # P = C C^T makes C^-T a factor of P^-1, but an upper triangular one;
        # flipping the axes before and after makes it lower.
        factor = torch.linalg.cholesky_ex(precision.flip((1, 2))).L
        inverse: Tensor = torch.linalg.solve_triangular(
            factor, identity.expand_as(precision), upper=False
        )
        return inverse.transpose(1, 2).flip((1, 2)).to(mu.dtype)
