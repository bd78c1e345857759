"""The pair of networks with its likelihood, and the row-wise inference on it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skhebae.divergences import gaussian_kl_to_standard, in_double
from skhebae.likelihoods import Likelihood
from skhebae.networks import CustomEncoder, DecoderFactory, Encoder, EncoderFactory
from skhebae.noise import NoisePool

#: Gauss-Newton steps from a row's code to the mode of its posterior, and the
#: shares of each step that are tried.
MODE_STEPS = 5
MODE_STEP_SIZES = (1.0, 0.3, 0.1)

#: Under this weight of a row's divergence the noise of training counts as none;
#: ``I + G / w`` would be too ill-conditioned to invert.
NEGLIGIBLE_ROW_WEIGHT = 1e-6


class Architecture(NamedTuple):
    """All that is needed to rebuild the networks around saved weights.

    Attributes
    ----------
    n_features, n_components : int
    hidden_layer_sizes : tuple of int
        Of the encoder; the decoder mirrors them.
    activation : str
    likelihood : str
        A key of `LIKELIHOODS` of the estimators.
    n_scales : int
        Width of the encoder's scale head.
    n_batches : int
        Experimental batches whose labels the decoder sees, 0 for none.
    encode_batch : bool
        Whether the encoder sees them too.
    encoder, decoder : callable or None
        Factories of the user, in the place of the perceptrons.
    image_shape : tuple of int or None
        Shape in which they see a row.
    """

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    likelihood: str
    n_scales: int
    n_batches: int = 0
    encode_batch: bool = False
    encoder: EncoderFactory | None = None
    decoder: DecoderFactory | None = None
    image_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row, as factories see it."""
        return self.image_shape or (self.n_features,)


class Autoencoder(nn.Module):
    """Encoder, decoder and likelihood; rows are standardised on both sides.

    A row is its p features and, behind them, the covariates that the decoder sees
    besides the code: the label of its experimental batch, one-hot, and for counts
    the logarithm of its size factor.

    Parameters
    ----------
    encoder : Encoder or CustomEncoder
    decoder : torch.nn.Module
    likelihood : Likelihood
    n_batches : int
    encode_batch : bool
        Whether the encoder sees the label of the batch too.

    Attributes
    ----------
    training_dtype : torch.dtype
        Of the matrix products in training mode. In evaluation mode they are
        float32 always.
    noise_pool : NoisePool or None
        Where training on large tables takes the input's noise from.
    """

    training_dtype = torch.float32
    noise_pool: NoisePool | None = None

    def __init__(
        self,
        encoder: Encoder | CustomEncoder,
        decoder: nn.Module,
        likelihood: Likelihood,
        n_batches: int = 0,
        encode_batch: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.n_batches = n_batches
        self.encode_batch = encode_batch

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.likelihood.location.device

    @property
    def jacobian_numbers(self) -> int:
        """Numbers a row takes while its Jacobian is turned into a covariance factor."""
        n_components = self.encoder.n_components
        # Jacobian, its columns and a weighted copy; square matrices in double.
        return n_components * (3 * self.n_features + 10 * n_components)

    @property
    def n_features(self) -> int:
        """Count the features p."""
        return self.likelihood.location.numel()

    def covariates(self, rows: Tensor) -> Tensor:
        """Return what stands behind the features of `rows`, (n, n_covariates), perhaps nothing."""
        return rows[:, self.n_features :]

    def encode(
        self, rows: Tensor, input_noise: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows to posterior mean (n, d) and scale head (n, n_scales), float32.

        With Gaussian noise of deviation `input_noise` on what the encoder sees: the
        denoising criterion (Vincent et al., 2008).
        """
        x = self.likelihood.encoder_input(rows[:, : self.n_features])
        if input_noise > 0.0:
            if self.noise_pool is None:
                noise = torch.randn(x.shape, generator=generator, device=x.device)
            else:
                noise = self.noise_pool.draw(x.shape)
            x = x.add(noise, alpha=input_noise)
        if self.encode_batch:
            x = torch.cat([x, self.covariates(rows)[:, : self.n_batches]], dim=1)
        with self._autocast():
            mu, scales = self.encoder(x)
        return mu, scales

    def decode(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Codes (n, d) to the likelihood's parameter (n, p), float32.

        Without `covariates` there must be no batches, and counts have their typical size.
        """
        log_size = None
        if covariates is not None and covariates.shape[1] > 0:
            labels, log_size = covariates.tensor_split([self.n_batches], dim=1)
            z = torch.cat([z, labels], dim=1)
        with self._autocast():
            output: Tensor = self.decoder(z)
        return self.likelihood.parameter(output.float(), log_size)

    def log_prob(self, rows: Tensor, z: Tensor) -> Tensor:
        """``log p(x | z)`` of each row at its code, (n,), nats."""
        parameter = self.decode(z, self.covariates(rows))
        return self.likelihood.log_prob(rows[:, : self.n_features], parameter)

    def _autocast(self) -> AbstractContextManager[object]:
        """Lower precision for the networks alone, in training alone.

        Moments, Cholesky factors and likelihoods lie outside this context.
        """
        if not self.training or self.training_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.training_dtype)

    def score(self, x: Tensor) -> Tensor:
        """Evidence lower bound of each row, for a posterior that fits the decoder.

        `bound` with ``q = N(mu(x), P^-1)`` and P of `linearised_posterior`. The
        encoder's own noise is not used, so the number has one meaning for all
        objectives: also where that noise vanished, or there is none.

        Parameters
        ----------
        x : Tensor of shape (n, p)

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mu, _ = self.encode(x)
        return self.bound(x, mu, self.linearised_posterior(mu, self.covariates(x)))

    def bound(self, x: Tensor, mu: Tensor, factor: Tensor) -> Tensor:
        """``E_q log p(x | z) - KL(q || N(0, I))`` for ``q = N(mu, F F^T)`` of each row.

        Parameters
        ----------
        x : Tensor of shape (n, p)
        mu : Tensor of shape (n, d)
        factor : Tensor of shape (n, d, d)
            Lower triangular F.

        Returns
        -------
        Tensor of shape (n,)
            Nats; minus infinity where q is a point.
        """
        return self.expected_log_prob(x, mu, factor) - gaussian_kl_to_standard(mu, factor)

    def expected_log_prob(self, x: Tensor, mu: Tensor, factor: Tensor) -> Tensor:
        """``E_q log p(x | z)`` for ``q = N(mu, F F^T)`` of each row, (n,), nats.

        By the spherical cubature ``z = mu +- sqrt(d) F e_j``: no noise, and
        exact where log p(x | z) is a polynomial in z of degree 3 or less, so
        for every linear decoder with Gaussian likelihood.
        """
        n_components = mu.shape[1]
        steps = n_components**0.5 * factor.transpose(1, 2)
        total = torch.zeros(len(x), device=x.device)
        for j in range(n_components):
            for z in (mu + steps[:, j], mu - steps[:, j]):
                total += self.log_prob(x, z)
        return total / (2 * n_components)

    def log_likelihood(self, x: Tensor, noise: Tensor) -> Tensor:
        """Importance-weighted estimate of ``log p(x)`` of each row.

        ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k)`` with ``z_k ~ q``: a lower
        bound in expectation that rises with K (Burda, Grosse and
        Salakhutdinov, arXiv:1509.00519). The proposal q is the Laplace
        approximation of p(z | x), found from the row's code.

        Parameters
        ----------
        x : Tensor of shape (n, p)
        noise : Tensor of shape (K, d)
            Standard normal draws, shared by all rows.

        Returns
        -------
        Tensor of shape (n,)
            Nats.
        """
        mode = self.posterior_mode(x, self.encode(x)[0])
        factor = self.linearised_posterior(mode, self.covariates(x))
        # p(z) / q(z) of z = mode + F e, without the constants that cancel.
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        total = torch.full((len(x),), -torch.inf, device=x.device)
        for draw in noise:
            z = mode + factor @ draw
            log_ratio = 0.5 * (draw.square().sum() - z.square().sum(dim=1)) + log_det
            log_weight = self.log_prob(x, z) + log_ratio
            total = torch.logaddexp(total, log_weight)
        return total - math.log(len(noise))

    def posterior_mode(self, rows: Tensor, z: Tensor, n_steps: int = MODE_STEPS) -> Tensor:
        """Mode of p(z | x) near `z`, by Gauss-Newton steps that are kept if they help, (n, d)."""
        x, covariates = rows[:, : self.n_features], self.covariates(rows)
        for _ in range(n_steps):
            parameter, jacobian = self.jacobian(z, covariates)
            with torch.enable_grad():
                leaf = parameter.requires_grad_()
                log_prob = self.likelihood.log_prob(x, leaf)
                (slope,) = torch.autograd.grad(log_prob.sum(), leaf)
            # By the Jacobian and not backwards through the decoder: products of some
            # widths round a row differently wherever it stands among the others.
            gradient = (jacobian.transpose(1, 2) @ slope[:, :, None])[:, :, 0] - z
            factor = inverse_factor(self.gain(parameter.detach(), jacobian)).to(z.dtype)
            step = (factor @ (factor.transpose(1, 2) @ gradient[:, :, None]))[:, :, 0]
            best, value = z, log_prob.detach() - 0.5 * z.square().sum(dim=1)
            for size in MODE_STEP_SIZES:
                trial = z + size * step
                trial_value = self.log_prob(rows, trial) - 0.5 * trial.square().sum(dim=1)
                better = trial_value > value
                best = torch.where(better[:, None], trial, best)
                value = torch.where(better, trial_value, value)
            z = best
        return z

    def linearised_posterior(self, z: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Lower factor of the posterior covariance ``P^-1`` at each code, (n, d, d).

        ``P = I + G`` with ``G = J^T W J``: J the decoder's Jacobian at `z`
        (n, d), W the likelihood's Fisher information.
        """
        return inverse_factor(self.gain(*self.jacobian(z, covariates))).to(z.dtype)

    def code_variance(self, output: Tensor, jacobian: Tensor, row_weight: float) -> Tensor:
        """Variance of each output that codes of training lack, (p,), standardised.

        ``mean_i diag(J_i (P_i^-1 - Q_i) J_i^T)`` for what `jacobian` returns at
        some codes: ``P^-1 = (I + G)^-1`` is the posterior's covariance, and
        ``Q = (I + G / w)^-1`` the one that minimises the loss, ``1/2 tr(G Q)`` of
        reconstruction and w = `row_weight` < 1 times ``KL(N(mu, Q) || N(0, I))``;
        0 for w = 0, where nothing rewards noise.
        """
        gain = self.gain(output, jacobian)
        variance = self._output_variance(jacobian, gain)
        if row_weight > NEGLIGIBLE_ROW_WEIGHT:
            variance = variance - self._output_variance(jacobian, gain / row_weight)
        return variance

    @staticmethod
    def _output_variance(jacobian: Tensor, gain: Tensor) -> Tensor:
        """``mean_i diag(J_i (I + G_i)^-1 J_i^T)``, (p,)."""
        return (jacobian @ inverse_factor(gain).to(jacobian.dtype)).square().sum(dim=2).mean(dim=0)

    def gain(self, output: Tensor, jacobian: Tensor) -> Tensor:
        """``G = J^T W J`` of outputs (n, p) and Jacobians (n, p, d): (n, d, d).

        In double: the eigenvalues of ``I + G`` run from 1 to the decoder's gain
        squared over the noise variance, too far apart for float32.
        """
        wide, weight = in_double(jacobian), in_double(self.likelihood.fisher_information(output))
        return wide.transpose(1, 2) @ (weight[:, :, None] * wide)

    def jacobian(self, z: Tensor, covariates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Parameter of the likelihood (n, p) at `z` (n, d) and its Jacobian (n, p, d)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            output = self.decode(z, covariates)
            # J^T u is linear in u, so its derivatives with respect to u are
            # J's columns: n_components backward passes for any decoder.
            # (torch.func.jvp compiles with the deprecated torch.jit.)
            u = torch.zeros_like(output, requires_grad=True)
            # (As a sum, since torch imports a computer algebra system where `u` is passed.)
            (pulled,) = torch.autograd.grad((u * output).sum(), z, create_graph=True)
            columns = [
                torch.autograd.grad(pulled[:, j].sum(), u, retain_graph=True)[0]
                for j in range(z.shape[1])
            ]
        return output.detach(), torch.stack(columns, dim=2)


def inverse_factor(gain: Tensor) -> Tensor:
    """Lower F with ``F F^T = (I + G)^-1`` of non-negative definite G (n, d, d)."""
    identity = torch.eye(gain.shape[1], dtype=gain.dtype, device=gain.device)
    # I + G = C C^T makes C^-T a factor of the inverse, but an upper triangular
    # one; flipping the axes before and after makes it lower.
    factor = torch.linalg.cholesky_ex((identity + gain).flip((1, 2))).L
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(gain), upper=False)
    return inverse.transpose(1, 2).flip((1, 2))
