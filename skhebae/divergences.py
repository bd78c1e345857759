"""Gaussian divergences, minibatch moments and the maximum mean discrepancy.

Pure tensor functions: no networks, no state. Every value is in nats.

References
----------
.. [1] Cheng et al., "Generalizing Variational Autoencoders with Hierarchical
   Empirical Bayes", arXiv:2007.10389.
.. [2] Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv:1312.6114.
.. [3] Tolstikhin et al., "Wasserstein Auto-Encoders", arXiv:1711.01558.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Relative bandwidths of the inverse multiquadratic kernels of [3]_.
MULTIQUADRATIC_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def in_double(tensor: Tensor) -> Tensor:
    """Return `tensor` in float64 where its device has it (MPS has not).

    A covariance of collinear float32 codes loses positive definiteness to
    rounding; the (d, d) arithmetic costs nothing in double precision.
    """
    return tensor if tensor.device.type == "mps" else tensor.double()


def minibatch_moments(mu: Tensor) -> tuple[Tensor, Tensor]:
    """Empirical-Bayes estimates of the hierarchical prior's mean and covariance.

    ``m = mean_i mu_i`` and ``S = 1 / (B - 1) sum_i (mu_i - m)(mu_i - m)^T``
    ([1]_, section 3). Gradients flow through both.

    Parameters
    ----------
    mu : Tensor of shape (B, d)
        Codes of one minibatch. One row has the covariance 0.

    Returns
    -------
    mean : Tensor of shape (d,)
    covariance : Tensor of shape (d, d)
    """
    mean = mu.mean(dim=0)
    centred = mu - mean
    return mean, centred.T @ centred / max(len(mu) - 1, 1)


def regularised_covariance(covariance: Tensor, n_rows: int, pseudo_rows: float) -> Tensor:
    """Covariance under a conjugate inverse-Wishart hyperprior on S, centred on I.

    ``S_nu = (nu I + (B - 1) S) / (nu + B - 1)``: positive definite for every
    B, the sample covariance as nu -> 0, the prior as B -> 1.

    Parameters
    ----------
    covariance : Tensor of shape (d, d)
        Sample covariance ``S`` with the divisor ``B - 1``.
    n_rows : int
        Rows ``B`` behind `covariance`.
    pseudo_rows : float
        Weight ``nu > 0`` of the hyperprior, in rows.

    Returns
    -------
    Tensor of shape (d, d)
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return (pseudo_rows * identity + (n_rows - 1) * covariance) / (pseudo_rows + (n_rows - 1))


def cholesky_factor(covariance: Tensor) -> Tensor:
    """Lower factor ``L L^T = S`` without a host synchronisation.

    What rounding may have taken from the smallest eigenvalue, a share of the
    trace, is given back first: collinear codes a million wide have one of
    1e12 beside others of 1e-2. Where S is not finite, or not positive definite
    even so, the factor is NaN, which the training loop reports by name,
    instead of an error from deep inside.
    """
    n_components = covariance.shape[-1]
    diagonal = covariance.detach().diagonal(dim1=-2, dim2=-1)
    rounding = n_components * torch.finfo(covariance.dtype).eps * diagonal.sum(dim=-1)
    identity = torch.eye(n_components, dtype=covariance.dtype, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(covariance + rounding[..., None, None] * identity)
    return torch.where(info[..., None, None] == 0, factor, torch.nan)


def gaussian_kl_to_standard(mean: Tensor, factor: Tensor) -> Tensor:
    """``KL(N(m, L L^T) || N(0, I)) = 1/2 (tr S + m^T m - d - log det S)``.

    Equation 7 of [1]_; a batch of Gaussians gives a batch of values.

    Parameters
    ----------
    mean : Tensor of shape (..., d)
    factor : Tensor of shape (..., d, d)
        Lower Cholesky factor of the covariance.

    Returns
    -------
    Tensor of shape (...)
        Nats.
    """
    trace = factor.square().sum(dim=(-2, -1))
    log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return 0.5 * (trace + mean.square().sum(dim=-1) - mean.shape[-1] - log_det)


def group_kl_to_standard(mu: Tensor, labels: Tensor, pseudo_rows: float) -> Tensor:
    """Mean over rows of ``KL(N(m_g, S_g) || N(0, I))``, g the group of the row.

    ``sum_g n_g / B * 1/2 (tr S_g + |m_g|^2 - tr S_g / n_g - d - log det S_g)``: of the
    squared mean of few rows ``tr S_g / n_g`` is noise, and is taken off, so that small groups
    do not draw codes to 0. Equation 7 of [1]_ for each group on its own.

    Parameters
    ----------
    mu : Tensor of shape (B, d)
        Codes of one minibatch.
    labels : Tensor of shape (B, G)
        One-hot group of each row; groups may be empty.
    pseudo_rows : float
        Weight of the hyperprior, as in `regularised_covariance`.

    Returns
    -------
    Tensor of shape ()
        Nats.
    """
    n_components = mu.shape[1]
    n_rows = labels.sum(dim=0)
    rows = n_rows.clamp_min(1.0)[:, None]
    mean = labels.T @ mu / rows
    centred = mu - labels @ mean
    products = (centred[:, :, None] * centred[:, None, :]).flatten(1)
    scatter = (labels.T @ products).view(-1, n_components, n_components)
    noise = scatter.diagonal(dim1=1, dim2=2).sum(dim=1) / (rows * (rows - 1.0).clamp_min(1.0))[:, 0]
    identity = torch.eye(n_components, dtype=mu.dtype, device=mu.device)
    weight = (pseudo_rows + rows - 1.0)[:, :, None]
    factor = cholesky_factor((pseudo_rows * identity + scatter) / weight)
    divergence = gaussian_kl_to_standard(mean, factor) - 0.5 * noise
    total: Tensor = (n_rows * divergence).sum()
    return total / len(mu)


def diagonal_kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """``KL(N(mu, diag sigma^2) || N(0, I))``, one value a row.

    ``1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)`` ([2]_, appendix B).

    Parameters
    ----------
    mean, log_var : Tensor of shape (..., d)

    Returns
    -------
    Tensor of shape (...)
        Nats.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).sum(dim=-1)


def scaled_kl_to_standard(mean: Tensor, spread: Tensor, factor: Tensor) -> Tensor:
    """``KL(N(mu_i, D_i S D_i) || N(0, I))``, one value a row, for a common S.

    ``1/2 (sum_j D_ij^2 S_jj + mu_i^T mu_i - d - log det S) - sum_j log D_ij``:
    equation 7 of [1]_ for the posterior of equation 6.

    Parameters
    ----------
    mean, spread : Tensor of shape (n, d)
        ``mu_i`` and the diagonal of ``D_i``.
    factor : Tensor of shape (d, d)
        Lower Cholesky factor of S.

    Returns
    -------
    Tensor of shape (n,)
        Nats.
    """
    trace = spread.square() @ factor.square().sum(dim=1)
    log_det = 2.0 * (spread.log().sum(dim=1) + factor.diagonal().log().sum())
    return 0.5 * (trace + mean.square().sum(dim=1) - mean.shape[1] - log_det)


def multiquadratic_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Inverse multiquadratics ``k(a, b) = sum_s C_s / (C_s + |a - b|^2)``.

    ``C_s = 2 d s`` with the s of `MULTIQUADRATIC_SCALES` and a prior of unit
    variance ([3]_).

    Parameters
    ----------
    a : Tensor of shape (n, d)
    b : Tensor of shape (m, d)

    Returns
    -------
    Tensor of shape (n, m)
    """
    # |a|^2 + |b|^2 - 2 a.b: no square root, whose gradient at 0 is infinite.
    distances = (a.square().sum(1)[:, None] + b.square().sum(1)) - 2.0 * a @ b.T
    distances = distances.clamp_min(0.0)
    total = torch.zeros_like(distances)
    for scale in MULTIQUADRATIC_SCALES:
        bandwidth = 2.0 * a.shape[1] * scale
        total = total + bandwidth / (bandwidth + distances)
    return total


def multiquadratic_mmd(codes: Tensor, prior_draws: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy between two samples.

    With the kernel `multiquadratic_kernel`. Being unbiased, it can be negative.

    Parameters
    ----------
    codes, prior_draws : Tensor of shape (B, d)
        Two samples of the same size, B >= 2.

    Returns
    -------
    Tensor of shape ()
    """
    n_rows = len(codes)
    # Distances do not change, but their digits are kept when codes lie far out.
    centre = codes.detach().mean(dim=0)
    codes, prior_draws = codes - centre, prior_draws - centre

    def off_diagonal_mean(gram: Tensor) -> Tensor:
        return (gram.sum() - gram.diagonal().sum()) / (n_rows * (n_rows - 1))

    within = off_diagonal_mean(multiquadratic_kernel(codes, codes))
    within = within + off_diagonal_mean(multiquadratic_kernel(prior_draws, prior_draws))
    return within - 2.0 * multiquadratic_kernel(codes, prior_draws).mean()
