"""Making of the report on codes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skhebae.data.scaling import Matrix
from skhebae.diagnostics.report import LatentReport
from skhebae.estimators.base import BaseAutoencoder
from skhebae.estimators.latent import CodeMoments
from skhebae.information import decompose_divergence, mmd_test

FloatArray = NDArray[np.float64]

#: A dimension is active if the variance of its posterior mean exceeds this
#: (Burda, Grosse and Salakhutdinov, arXiv:1509.00519, section 5.2).
ACTIVE_VARIANCE = 0.01

#: Rows behind the statistics of pairs of rows, at most, and their permutations.
PAIR_ROWS = 1000
PERMUTATIONS = 199


def latent_report(
    estimator: BaseAutoencoder, X: ArrayLike | Matrix, *, random_state: int = 0
) -> LatentReport:
    """Report how the codes of rows lie against the prior N(0, I).

    Parameters
    ----------
    estimator : HEBAETransformer, VAETransformer or WAETransformer
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        At least 3 rows; held-out ones say how new rows will fare. Statistics
        of pairs of rows take a random 1,000 of them.
    random_state : int, default=0
        Of the draws and of the rows taken for pairs.

    Returns
    -------
    LatentReport
        ``print`` it; `to_frame` has the part per dimension.

    Raises
    ------
    TypeError
        If `estimator` is not one of this library's, as a Pipeline around one.
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
        If the mutual information is at its ceiling, the log of the rows. Not
        for WAE.
    """
    if not isinstance(estimator, BaseAutoencoder):
        raise TypeError(
            f"latent_report takes a fitted HEBAETransformer, VAETransformer or WAETransformer, "
            f"got {type(estimator).__name__}; of a pipeline, pass pipeline[-1] and the rows "
            "pipeline[:-1].transform(X)."
        )
    check_is_fitted(estimator)
    mean, sigma = estimator._codes_and_sigma(X)
    if len(mean) < 3:
        raise ValueError(f"X has {len(mean)} rows; a report on codes needs at least 3.")
    expected = estimator._expected_log_prob(X)
    report = _report(estimator, mean, sigma, expected, random_state)
    for category, text in report._remarks():
        warnings.warn(text, category, stacklevel=2)
    return report


def _report(
    estimator: BaseAutoencoder,
    mean: NDArray[np.float32],
    sigma: NDArray[np.float32],
    expected: NDArray[np.float32],
    random_state: int,
) -> LatentReport:
    """Fill a report from posteriors ``N(mean_i, D_i C D_i)`` and ``E_q log p(x_i | z)``."""
    common = estimator._noise_covariance
    moments = CodeMoments.measure(mean, sigma)
    square, variance = (
        np.square(part, dtype=np.float64) for part in (mean, sigma * np.sqrt(np.diag(common)))
    )
    with np.errstate(divide="ignore"):  # points have a log-determinant of minus infinity
        kl = 0.5 * (square + variance - 1.0 - np.log(variance))
        log_det = np.linalg.slogdet(common)[1] + 2.0 * np.log(sigma, dtype=np.float64).sum(axis=1)
    row_kl = 0.5 * float(((square + variance - 1.0).sum(axis=1) - log_det).mean())
    active = np.diag(moments.covariance) > ACTIVE_VARIANCE
    rng = np.random.RandomState(random_state)
    noise = rng.standard_normal(mean.shape)
    draws = np.asarray(mean + sigma * (noise @ np.linalg.cholesky(common).T), dtype=np.float64)
    pairs = _pairs(mean, sigma, common, draws, noise, rng)
    # What the aggregated posterior's being Gaussian would allow.
    aggregate = moments.aggregated_covariance(common)
    gaussian = 0.5 * (np.linalg.slogdet(aggregate)[1] - float(log_det.mean()))

    reconstruction = -float(expected.mean(dtype=np.float64))
    objective = estimator._objective()
    # The loss weighs a row's divergence by row_weight, and the rest of its
    # weight falls on what it says of the aggregate.
    penalty = (objective.weight - objective.row_weight) * (
        pairs["mmd"] if not sigma.any() else moments.divergence()
    )
    if objective.row_weight > 0.0:
        penalty += objective.row_weight * row_kl
    return LatentReport(
        estimator=type(estimator).__name__,
        n_rows=len(mean),
        names=tuple(estimator.get_feature_names_out()),
        mean_variance=np.diag(moments.covariance).copy(),
        posterior_variance=variance.mean(axis=0),
        kl=kl.mean(axis=0),
        active=active,
        mean_abs_correlation=_mean_abs_correlation(moments.covariance[np.ix_(active, active)]),
        moments_kl=CodeMoments.measure(draws, sigma).divergence(),
        mutual_information_bound=min(math.log(pairs["n_pair_rows"]), gaussian),
        reconstruction=reconstruction,
        row_kl=row_kl,
        elbo=-reconstruction - row_kl,
        training_bound=-reconstruction - penalty,
        **pairs,
    )


def _mean_abs_correlation(covariance: FloatArray) -> float:
    """Mean absolute correlation off the diagonal; 0 for fewer than two dimensions."""
    n_components = len(covariance)
    if n_components < 2:
        return 0.0
    deviation = np.sqrt(np.diag(covariance))
    correlation = np.abs(covariance / np.outer(deviation, deviation))
    return float((correlation.sum() - n_components) / (n_components * (n_components - 1)))


def _pairs(
    mean: NDArray[np.float32],
    sigma: NDArray[np.float32],
    common: FloatArray,
    draws: FloatArray,
    noise: FloatArray,
    rng: np.random.RandomState,
) -> dict[str, Any]:
    """Statistics of pairs of rows: the MMD test and the mutual information.

    `draws` are ``mean_i + D_i L noise_i``, one from each posterior.
    """
    rows = rng.permutation(len(mean))[:PAIR_ROWS]
    n_rows = len(rows)
    prior = rng.standard_normal((n_rows, mean.shape[1]))
    order = np.argsort(rng.random_sample((PERMUTATIONS, 2 * n_rows)), axis=1)
    mmd, p_value = mmd_test(*map(torch.from_numpy, (draws[rows], prior, order)))
    if sigma.all():
        factor = sigma[rows][:, :, None] * np.linalg.cholesky(common)
        parts = map(torch.from_numpy, (mean[rows].astype(np.float64), factor, noise[rows]))
        information = decompose_divergence(*parts).mutual_information.numpy()
    else:
        # Points: a code tells its row, but for rows with the same code.
        _, same, counts = np.unique(mean[rows], axis=0, return_inverse=True, return_counts=True)
        information = math.log(n_rows) - np.log(counts[same.ravel()])
    return {
        "n_pair_rows": n_rows,
        "mmd": mmd,
        "mmd_p_value": p_value,
        "mutual_information": float(information.mean()),
        "mutual_information_error": float(information.std(ddof=1)) / math.sqrt(n_rows),
    }
