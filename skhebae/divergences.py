"""Gaussian divergences, minibatch moments and the maximum mean discrepancy.

Pure tensor functions without networks or state. Every divergence is in nats.

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

#: Smallest weight in a quotient.
TINY = 1e-30

#: Relative bandwidths of the inverse multiquadratic kernels of [3]_.
MULTIQUADRATIC_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def in_double(tensor: Tensor) -> Tensor:
    """Return `tensor` in float64, or unchanged on MPS, which does not support float64.

    In float32, rounding can cost the covariance of collinear codes its positive
    definiteness. The arithmetic on (d, d) matrices is cheap even in float64.
    """
    return tensor if tensor.device.type == "mps" else tensor.double()


def mean_of_rows(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Average values (n, ...) over rows, by weights (n,) if there are any, (...)."""
    if weight is None:
        return values.mean(dim=0)
    weight = weight.to(values)
    total: Tensor = torch.tensordot(weight, values, dims=1)
    return total / weight.sum().clamp_min(TINY)


def minibatch_moments(mu: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the empirical Bayes estimates of the hierarchical prior's mean and covariance.

    ``m = mean_i mu_i`` and ``S = 1 / (B - 1) sum_i (mu_i - m)(mu_i - m)^T``
    ([1]_, section 3). Gradients flow through both.

    Parameters
    ----------
    mu : Tensor of shape (B, d)
        Codes of one minibatch. The covariance of a single row is 0.
    weight : Tensor of shape (B,), optional
        How many rows each row stands for; B is then the sum.

    Returns
    -------
    mean : Tensor of shape (d,)
    covariance : Tensor of shape (d, d)
    """
    if weight is not None:
        total = weight.sum()
        mean = weight @ mu / total
        centred = mu - mean
        scatter = (weight[:, None] * centred).T @ centred
        return mean, scatter / (total - 1.0).clamp_min(1.0)
    mean = mu.mean(dim=0)
    centred = mu - mean
    return mean, centred.T @ centred / max(len(mu) - 1, 1)


def regularised_covariance(
    covariance: Tensor, n_rows: float | Tensor, pseudo_rows: float
) -> Tensor:
    """Return the covariance under an inverse-Wishart hyperprior on S, centred on I.

    ``S_nu = (nu I + (B - 1) S) / (nu + B - 1)``. The hyperprior is conjugate. S_nu is
    positive definite for every B, tends to the sample covariance as nu -> 0, and
    equals the prior's covariance I for B = 1.

    Parameters
    ----------
    covariance : Tensor of shape (d, d)
        Sample covariance ``S`` with divisor ``B - 1``.
    n_rows : float or Tensor of shape ()
        Number of rows ``B`` behind `covariance`, or their summed weight; at least 1.
    pseudo_rows : float
        Weight ``nu > 0`` of the hyperprior, in rows.

    Returns
    -------
    Tensor of shape (d, d)
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return (pseudo_rows * identity + (n_rows - 1) * covariance) / (pseudo_rows + (n_rows - 1))


def cholesky_factor(covariance: Tensor) -> Tensor:
    """Return the lower factor L of ``S = L L^T`` without synchronising with the host.

    Rounding can lower the smallest eigenvalue by up to about ``d eps tr S``, so that
    much is first added to the diagonal. This matters when eigenvalues differ widely:
    collinear codes with a standard deviation of a million have an eigenvalue of 1e12
    next to others of 1e-2. If S is not finite, or is not positive definite even then,
    the factor is NaN. The training loop then reports which term of the loss became
    NaN, where an error raised here could not say so.
    """
    n_components = covariance.shape[-1]
    diagonal = covariance.detach().diagonal(dim1=-2, dim2=-1)
    rounding = n_components * torch.finfo(covariance.dtype).eps * diagonal.sum(dim=-1)
    identity = torch.eye(n_components, dtype=covariance.dtype, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(covariance + rounding[..., None, None] * identity)
    return torch.where(info[..., None, None] == 0, factor, torch.nan)


def gaussian_kl_to_standard(mean: Tensor, factor: Tensor) -> Tensor:
    """Return ``KL(N(m, S) || N(0, I)) = 1/2 (tr S + m^T m - d - log det S)``.

    Equation 7 of [1]_, with ``S = L L^T``. Leading dimensions are batched.

    Parameters
    ----------
    mean : Tensor of shape (..., d)
    factor : Tensor of shape (..., d, d)
        Lower Cholesky factor L of the covariance.

    Returns
    -------
    Tensor of shape (...)
        Nats.
    """
    trace = factor.square().sum(dim=(-2, -1))
    log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return 0.5 * (trace + mean.square().sum(dim=-1) - mean.shape[-1] - log_det)


def group_kl_to_standard(
    mu: Tensor, labels: Tensor, pseudo_rows: float, weight: Tensor | None = None
) -> Tensor:
    """Return the mean over rows of ``KL(N(m_g, S_g) || N(0, I))``, g the group of a row.

    ``sum_g n_g / B * 1/2 (tr S_g + |m_g|^2 - tr S_g / n_g - d - log det S_g)``, with the
    `regularised_covariance` S_g of group g. This is equation 7 of [1]_ for each group separately,
    except for the term ``tr S_g / n_g``: the part of ``|m_g|^2`` that is due to chance.
    Subtracting it keeps small groups from pulling codes towards 0. It never exceeds the term
    ``tr S_g``, so the divergence is bounded below, by ``d / 2 log(1 - 1 / n_g)`` for two rows or
    more and ``-d / 2`` for one.

    Parameters
    ----------
    mu : Tensor of shape (B, d)
        Codes of one minibatch.
    labels : Tensor of shape (B, G)
        One-hot group of each row; groups may be empty.
    pseudo_rows : float
        Weight of the hyperprior, as in `regularised_covariance`.
    weight : Tensor of shape (B,), optional
        How many rows each row stands for; n_g and B are then sums.

    Returns
    -------
    Tensor of shape ()
        Nats.
    """
    n_components = mu.shape[1]
    counts = labels if weight is None else labels * weight[:, None]
    n_rows = counts.sum(dim=0)
    rows = n_rows.clamp_min(1.0)[:, None]
    # Weights of a group may add up to less than one row.
    mean = counts.T @ mu / (rows if weight is None else n_rows.clamp_min(TINY)[:, None])
    centred = mu - labels @ mean
    products = (centred[:, :, None] * centred[:, None, :]).flatten(1)
    scatter = (counts.T @ products).view(-1, n_components, n_components)
    if weight is not None:
        scatter = scatter * (n_rows - 1.0).clamp(0.0, 1.0)[:, None, None]
    identity = torch.eye(n_components, dtype=mu.dtype, device=mu.device)
    weight = (pseudo_rows + rows - 1.0)[:, :, None]
    factor = cholesky_factor((pseudo_rows * identity + scatter) / weight)
    chance = factor.square().sum(dim=(1, 2)) / rows[:, 0]
    divergence = gaussian_kl_to_standard(mean, factor) - 0.5 * chance
    total: Tensor = (n_rows * divergence).sum()
    return total / (len(mu) if weight is None else n_rows.sum())


def diagonal_kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return ``KL(N(mu, diag sigma^2) || N(0, I))``, one value per row.

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
    """Return ``KL(N(mu_i, D_i S D_i) || N(0, I))``, one value per row, for a common S.

    ``1/2 (sum_j D_ij^2 S_jj + mu_i^T mu_i - d - log det S) - sum_j log D_ij``, which is
    equation 7 of [1]_ applied to the posterior of equation 6.

    Parameters
    ----------
    mean, spread : Tensor of shape (n, d)
        Rows ``mu_i`` and the diagonals of ``D_i``.
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
    """Return the inverse multiquadratics ``k(a, b) = sum_s C_s / (C_s + |a - b|^2)``.

    ``C_s = 2 d s``, where s runs over `MULTIQUADRATIC_SCALES` and the prior has unit
    variance ([3]_).

    Parameters
    ----------
    a : Tensor of shape (n, d)
    b : Tensor of shape (m, d)

    Returns
    -------
    Tensor of shape (n, m)
    """
    # |a|^2 + |b|^2 - 2 a.b avoids a square root, whose gradient at 0 is infinite.
    distances = (a.square().sum(1)[:, None] + b.square().sum(1)) - 2.0 * a @ b.T
    distances = distances.clamp_min(0.0)
    total = torch.zeros_like(distances)
    for scale in MULTIQUADRATIC_SCALES:
        bandwidth = 2.0 * a.shape[1] * scale
        total = total + bandwidth / (bandwidth + distances)
    return total


def multiquadratic_mmd(codes: Tensor, prior_draws: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the unbiased squared maximum mean discrepancy between two samples.

    The kernel is `multiquadratic_kernel`. Being unbiased, the estimate can be negative.

    Parameters
    ----------
    codes, prior_draws : Tensor of shape (B, d)
        Two samples of the same size, B >= 2.
    weight : Tensor of shape (B,), optional
        How many codes each code stands for. Pairs of two of those count, too, so that the
        estimate is that of repeated codes.

    Returns
    -------
    Tensor of shape ()
    """
    # Centring leaves distances unchanged, and keeps their digits when codes lie far out.
    centre = codes.detach().mean(dim=0)
    codes, prior_draws = codes - centre, prior_draws - centre

    def off_diagonal_mean(gram: Tensor) -> Tensor:
        n_rows = len(gram)  # one row has no pairs
        return (gram.sum() - gram.diagonal().sum()) / max(1, n_rows * (n_rows - 1))

    between_draws = off_diagonal_mean(multiquadratic_kernel(prior_draws, prior_draws))
    if weight is not None:
        total = weight.sum()
        gram = multiquadratic_kernel(codes, codes)
        pairs = weight @ gram @ weight - weight @ gram.diagonal()
        across = weight @ multiquadratic_kernel(codes, prior_draws).mean(dim=1) / total
        return pairs / (total * (total - 1.0)).clamp_min(1.0) + between_draws - 2.0 * across
    within = off_diagonal_mean(multiquadratic_kernel(codes, codes)) + between_draws
    return within - 2.0 * multiquadratic_kernel(codes, prior_draws).mean()
