"""Computation of the report on codes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from skhebae.code_map import CodeNoise
from skhebae.data import Matrix
from skhebae.diagnostics._checks import check_autoencoder
from skhebae.diagnostics.gap import bound_gap
from skhebae.diagnostics.report import LatentReport
from skhebae.divergences import diagonal_kl_to_standard
from skhebae.estimators import BaseAutoencoder
from skhebae.exceptions import warn_caller
from skhebae.fitted import FittedAutoencoder
from skhebae.fitted.codes import CodeMoments
from skhebae.information import decompose_divergence, mmd_test
from skhebae.objectives import CapacityObjective
from skhebae.prior import Prior
from skhebae.process import in_plain_modes

FloatArray = NDArray[np.float64]

#: A dimension is active if the variance of its posterior mean exceeds this
#: (Burda, Grosse and Salakhutdinov, arXiv:1509.00519, section 5.2).
ACTIVE_VARIANCE = 0.01

#: Maximum number of rows behind statistics of pairs of rows, and their permutations.
PAIR_ROWS = 1000
PERMUTATIONS = 199

#: Maximum number of rows behind the line that says where the bound is lost.
GAP_ROWS = 100

#: Maximum number of entries in the factors of those rows' posteriors.
PAIR_NUMBERS = 2**25


@in_plain_modes
def latent_report(
    estimator: BaseAutoencoder,
    X: ArrayLike | Matrix,
    *,
    random_state: int | np.random.RandomState | None = 0,
    batch: ArrayLike | None = None,
    size_factor: ArrayLike | None = None,
    gap: bool = False,
) -> LatentReport:
    """Report how the codes of rows compare with the prior N(0, I).

    The codes are the whitened ones of the model, whatever the estimator's `whiten` says.

    Parameters
    ----------
    estimator : HEBAETransformer, VAETransformer or WAETransformer
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        At least 3 rows, and 30 for warnings. Held-out rows say how the model treats new rows.
        Statistics of pairs of rows use a random 1,000 of them.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws and of the choice of rows for pairs.
    batch, size_factor : array-like of shape (n_samples,), optional
        Batches and size factors of the rows, as in `fit`.
    gap : bool, default=False
        Whether to add a line from `bound_gap` that splits ``log p(x) - ELBO`` by its causes, on a
        random 100 rows. It takes longer than all other lines together.

    Returns
    -------
    LatentReport
        ``print`` shows the report, and `to_frame` has the part per dimension.

    Raises
    ------
    TypeError
        If `estimator` is not one of this library's, for example a Pipeline around one.
    NotFittedError
        Before `fit`.
    ValueError
        If `X` does not match the rows of `fit`, or has fewer than 3.

    Warns
    -----
    CollapsedDimensionsWarning
        If the codes of a dimension hardly vary over rows.
    VanishedNoiseWarning
        If posteriors are so narrow that the model is a deterministic
        autoencoder. Not for WAE, which is one by design.
    SaturatedInformationWarning
        If the mutual information is at its ceiling, the logarithm of the number of rows. Not
        for WAE.
    """
    check_autoencoder(estimator, "latent_report")
    rng = check_random_state(random_state)
    rows, fitted = estimator.validate_rows(X), estimator.fitted_
    if rows.shape[0] < 3:
        raise ValueError(f"X has {rows.shape[0]} rows; a report on codes needs at least 3.")
    mean, spread = fitted.encode_with_spread(rows, batch)
    expected = fitted.expected_log_prob(rows, batch, size_factor)
    names = tuple(estimator.get_feature_names_out())
    index = fitted.batch_index(batch, len(mean))
    report = _report(fitted, type(estimator).__name__, names, mean, spread, expected, index, rng)
    for category, text in report._remarks():
        warn_caller(text, category)
    if gap:
        lost = bound_gap(
            estimator,
            X,
            max_rows=GAP_ROWS,
            random_state=rng,
            batch=batch,
            size_factor=size_factor,
        )
        report = replace(report, gap=lost)
    return report


def _report(
    fitted: FittedAutoencoder,
    estimator: str,
    names: tuple[str, ...],
    mean: NDArray[np.float32],
    deviations: NDArray[np.float32],
    expected: NDArray[np.float32],
    batch: NDArray[np.intp] | None,
    rng: np.random.RandomState,
) -> LatentReport:
    """Fill a report from posteriors ``N(mean_i, D_i C D_i)`` and ``E_q log p(x_i | z)``."""
    moments = CodeMoments.measure(mean, deviations)
    active = np.diag(moments.covariance) > ACTIVE_VARIANCE
    mu, spread = torch.from_numpy(mean).double(), torch.from_numpy(deviations).double()
    noise = fitted.noise
    row_kl = float(noise.row_kl(fitted.prior, mu, spread).mean())
    variance = noise.variance(spread)
    kl = diagonal_kl_to_standard(mu[:, :, None], variance.log()[:, :, None])

    normal = torch.from_numpy(rng.standard_normal(mean.shape))
    draws = mu + noise.draw(spread, normal)
    rows = torch.from_numpy(rng.permutation(len(mean))[: _pair_rows(mean.shape[1])])
    prior_draws = torch.from_numpy(fitted.prior.sample(len(rows), rng))
    order = np.argsort(rng.random_sample((PERMUTATIONS, 2 * len(rows))), axis=1)
    mmd, p_value = mmd_test(draws[rows], prior_draws, torch.from_numpy(order))
    information = _information(mu[rows], spread[rows], noise, normal[rows], fitted.prior)

    reconstruction = -float(expected.mean(dtype=np.float64))
    objective = fitted.objective
    # The weight that does not fall on single rows falls on the aggregate.
    aggregate_penalty = mmd
    if deviations.any():
        aggregate_penalty = moments.kl_to(fitted.prior)
        share = getattr(objective, "batch_share", 0.0)
        if share > 0.0 and batch is not None:
            by_batch = _batch_divergence(mean, deviations, batch, fitted.prior)
            aggregate_penalty += share * (by_batch - aggregate_penalty)
    penalty = (objective.weight - objective.row_weight) * aggregate_penalty
    if isinstance(objective, CapacityObjective):
        penalty = objective.final_penalty(row_kl)
    elif objective.row_weight > 0.0:
        penalty += objective.row_weight * row_kl
    return LatentReport(
        estimator=estimator,
        n_rows=len(mean),
        n_pair_rows=len(rows),
        prior="N(0, I)" if fitted.prior.is_standard else type(fitted.prior).__name__,
        names=names,
        mean_variance=np.diag(moments.covariance).copy(),
        posterior_variance=variance.mean(dim=0).numpy(),
        kl=kl.mean(dim=0).numpy(),
        active=active,
        mean_abs_correlation=_mean_abs_correlation(moments.covariance[np.ix_(active, active)]),
        moments_kl=CodeMoments.measure(draws.numpy(), deviations).excess_kl(fitted.prior),
        mmd=mmd,
        mmd_p_value=p_value,
        mutual_information=float(information.mean()),
        mutual_information_error=float(information.std()) / math.sqrt(len(rows)),
        mutual_information_bound=_information_bound(mu[rows], spread[rows], noise),
        reconstruction=reconstruction,
        row_kl=row_kl,
        elbo=-reconstruction - row_kl,
        training_bound=-reconstruction - penalty,
    )


def _batch_divergence(
    mean: NDArray[np.float32],
    deviations: NDArray[np.float32],
    batch: NDArray[np.intp],
    prior: Prior,
) -> float:
    """Return `group_kl_to_standard` of the codes of all rows, by experimental batch."""
    order = np.argsort(batch, kind="stable")
    total = 0.0
    for rows in np.split(order, np.flatnonzero(np.diff(batch[order])) + 1):
        moments = CodeMoments.measure(mean[rows], deviations[rows])
        total += len(rows) * (moments.kl_to(prior) - moments.chance_kl())
    return total / len(mean)


def _pair_rows(n_components: int) -> int:
    """Return how many rows' posterior factors, (rows, d, d), and pairs fit into memory."""
    return min(PAIR_ROWS, max(3, PAIR_NUMBERS // n_components**2))


def _mean_abs_correlation(covariance: FloatArray) -> float:
    """Return the mean absolute correlation of two dimensions; 0 if there are fewer."""
    n_components = len(covariance)
    if n_components < 2:
        return 0.0
    deviation = np.sqrt(np.diag(covariance))
    correlation = np.abs(covariance / np.outer(deviation, deviation))
    return float((correlation.sum() - n_components) / (n_components * (n_components - 1)))


def _information(
    mu: Tensor, spread: Tensor, noise: CodeNoise, normal: Tensor, prior: Prior
) -> Tensor:
    """Return the mutual information of row and code, one value per draw."""
    if spread.any():
        factors = noise.factors(spread)
        return decompose_divergence(mu, factors, normal, prior).mutual_information
    # Points: a code identifies its row, except among rows with the same code.
    _, same, counts = torch.unique(mu, dim=0, return_inverse=True, return_counts=True)
    information: Tensor = math.log(len(mu)) - counts[same].double().log()
    return information


def _information_bound(mu: Tensor, spread: Tensor, noise: CodeNoise) -> float:
    """Return an upper bound of the mutual information over rows.

    The entropy of the aggregated posterior is at most that of the Gaussian with
    its covariance V, so ``I <= 1/2 (log det V - mean_i log det A D_i C D_i A^T)``;
    and at most log n.
    """
    ceiling = math.log(len(mu))
    if not spread.any():
        return ceiling
    added = noise.covariance(spread.T @ spread / len(mu))
    aggregate = torch.cov(mu.T, correction=0).reshape(added.shape) + added
    return min(ceiling, 0.5 * float(torch.logdet(aggregate) - noise.log_det(spread).mean()))
