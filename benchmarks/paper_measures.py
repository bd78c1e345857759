"""Measure what the paper's figures show of one fitted model, on held-out rows."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from benchmarks.datasets import Table
from benchmarks.frechet import FeatureNet, frechet_distance, sample_quality
from benchmarks.metrics import subsample
from skhebae import HEBAETransformer
from skhebae.diagnostics import latent_report
from skhebae.exceptions import LatentWarning

Array = NDArray[Any]
#: Held-out rows behind the bounds, and behind the importance-weighted likelihood.
BOUND_ROWS, LIKELIHOOD_ROWS = 2000, 500
#: Rows whose index is looked for in one code.
INDEX_ROWS = 1000
#: Dimensions whose matrices are kept.
DRAWN_DIMENSIONS = 20
LATENTS = ("prior", "gaussian", "mixture")


def bounds(model: Any, rows: Array) -> dict[str, Any]:
    """Measure bounds, likelihood and codes of held-out rows, in nats per row.

    The paper's bound is HEBAE's own, and for VAE the standard one; WAE's codes are points.
    """
    few = rows[:BOUND_ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)  # collapse is what is studied
        report = latent_report(model, few)
    paper = report.elbo
    if isinstance(model, HEBAETransformer):
        paper = float(model.hebae_bound(few).mean())
    codes = model.transform(rows)
    likelihood = model.log_likelihood(rows[:LIKELIHOOD_ROWS])
    result = {
        "held_out_squared_error": np.square(model.inverse_transform(codes) - rows).mean(),
        "reconstruction": report.reconstruction,
        "paper_bound": paper,
        "elbo": report.elbo,
        "log_likelihood": likelihood.mean(),
        "log_likelihood_error": likelihood.std() / len(likelihood) ** 0.5,
        "mutual_information": report.mutual_information,
        "mutual_information_ceiling": np.log(report.n_pair_rows),
        "mutual_information_per_dimension": information_per_dimension(model, rows),
        "moments_kl": report.moments_kl,
        "mean_posterior_deviation": np.sqrt(report.posterior_variance).mean(),
        "collapsed": (~report.active).sum(),
    }
    return {name: finite(value) for name, value in result.items()}


def finite(value: float) -> float | None:
    """Return a number as JSON has it, None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def information_per_dimension(model: Any, rows: Array) -> float:
    """Return the mean over dimensions of the mutual information of a row's index and one code.

    Equation 10's ``I(i; z_j) = log n - E H(q(i | z_j))`` by Monte Carlo, one draw per row,
    n = `INDEX_ROWS`; log n where codes are points. One dimension has room for fewer rows
    than all of them together, so this does not saturate where the whole code does.
    """
    mean, factor = (part.astype(np.float64) for part in model.posterior(rows[:INDEX_ROWS]))
    deviation = np.sqrt(np.square(factor).sum(axis=2))
    n_rows = len(mean)
    if not deviation.any():
        return float(np.log(n_rows))
    noise = np.random.default_rng(1).normal(size=mean.shape)
    found = []
    for mu, sigma, draw in zip(mean.T, deviation.T, noise.T, strict=True):
        z = mu + sigma * draw
        densities = -0.5 * np.square((z[:, None] - mu) / sigma) - np.log(sigma)
        own = -0.5 * np.square(draw) - np.log(sigma)
        found.append((own - logsumexp(densities, axis=1)).mean() + np.log(n_rows))
    return float(np.mean(found))


def matrices(model: Any, rows: Array) -> dict[str, Any]:
    """Return covariance and correlation of held-out codes, and what is off the diagonal."""
    codes = model.transform(rows).astype(np.float64)
    covariance = np.cov(codes, rowvar=False)
    deviation = np.sqrt(np.diag(covariance))
    deviation[deviation == 0.0] = 1.0  # a constant code correlates with none
    correlation = covariance / np.outer(deviation, deviation)
    off = ~np.eye(len(covariance), dtype=bool)
    drawn = len(covariance) <= DRAWN_DIMENSIONS
    return {
        "covariance": covariance.round(4).tolist() if drawn else None,
        "correlation": correlation.round(4).tolist() if drawn else None,
        "mean_abs_off_diagonal_correlation": float(np.abs(correlation[off]).mean()),
        "distance_from_identity": float(np.linalg.norm(covariance - np.eye(len(covariance)))),
    }


def samples(model: Any, net: FeatureNet, table: Table, seed: int) -> dict[str, Any]:
    """Measure samples from each latent density, and decoded training codes, which none can beat."""
    n_rows = len(table.test)
    result: dict[str, Any] = {}
    for latent in LATENTS:
        drawn = model.sample(n_rows, latent, random_state=seed)
        measured = sample_quality(net, table.test, drawn, table.train, seed)
        result[latent] = {"frechet": asdict(measured)}
    (rows,) = subsample(min(n_rows, len(table.train)), seed, table.train)
    decoded = model.inverse_transform(model.transform(rows))
    result["decoded_training_codes"] = frechet_distance(net, table.test, decoded)
    return result
