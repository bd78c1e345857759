"""Likelihoods of a regularised Gaussian, in closed form: numpy only, nats per row."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Curves(NamedTuple):
    """Mean log-likelihoods against the strength of a regularisation, (n_values,) each."""

    train: FloatArray
    held_out: FloatArray
    generated: FloatArray


def mean_log_density(variances: FloatArray, squares: FloatArray) -> FloatArray:
    """Return the mean log density of rows under ``N(m, V diag(s) V^T)``.

    ``-1/2 (d log 2 pi + sum_j log s_j + sum_j c_j / s_j)``, where c_j is the mean over rows of
    ``(v_j^T (x - m))^2``. With ``c = s`` that is minus the entropy of the Gaussian, which is the
    mean log density of its own draws.

    Parameters
    ----------
    variances : ndarray of shape (..., d)
        Variances s along the axes V.
    squares : ndarray of shape (..., d)
        Mean squares c of the rows along these axes.

    Returns
    -------
    ndarray of shape (...)
    """
    terms = math.log(2.0 * math.pi) + np.log(variances) + squares / variances
    result: FloatArray = -0.5 * np.asarray(terms).sum(axis=-1)
    return result


def spectrum(rows: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean (d,), eigenvalues (d,) of the covariance with divisor n - 1, and axes (d, d)."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / (len(rows) - 1))
    # Rounding makes the eigenvalues of a singular covariance slightly negative.
    return mean, variances.clip(min=0.0), axes


def shrunk_curves(train: FloatArray, held_out: FloatArray, pseudo_rows: FloatArray) -> Curves:
    """Return the curves of the Gaussian with covariance ``(nu I + (n - 1) S) / (nu + n - 1)``.

    That is `skhebae.divergences.regularised_covariance`. It has the axes of S whatever nu, so one
    eigendecomposition is enough for all values.

    Parameters
    ----------
    train : ndarray of shape (n, d)
        Rows whose mean and covariance S are fitted; n >= 2.
    held_out : ndarray of shape (m, d)
    pseudo_rows : ndarray of shape (n_values,)
        Pseudo-rows nu > 0 of the prior at N(0, I).

    Returns
    -------
    Curves
    """
    mean, variances, axes = spectrum(train)
    nu, degrees = pseudo_rows[:, None], len(train) - 1
    shrunk = (nu + degrees * variances) / (nu + degrees)
    squares = np.square((held_out - mean) @ axes).mean(axis=0)
    return Curves(
        train=mean_log_density(shrunk, degrees / len(train) * variances),
        held_out=mean_log_density(shrunk, squares),
        generated=mean_log_density(shrunk, shrunk),
    )
