"""What the objective did to the codes: a report that a user can read."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skhebae.data.scaling import Matrix
from skhebae.estimators.base import BaseAutoencoder
from skhebae.estimators.latent import CodeMoments
from skhebae.exceptions import (
    CollapsedDimensionsWarning,
    SaturatedInformationWarning,
    VanishedNoiseWarning,
)
from skhebae.information import decompose_divergence, mmd_test

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: A dimension is active if the variance of its posterior mean exceeds this
#: (Burda, Grosse and Salakhutdinov, arXiv:1509.00519, section 5.2).
ACTIVE_VARIANCE = 0.01

#: Noise has vanished where its variance is under this share of the codes' in
#: every active dimension: a standard deviation of 1 %.
VANISHED_SHARE = 1e-4

#: Mutual information is saturated from this share of its ceiling log n on.
SATURATED_SHARE = 0.995

#: Rows behind the statistics of pairs of rows, at most, and their permutations.
PAIR_ROWS = 1000
PERMUTATIONS = 199

#: Dimensions that `repr` lists, at most.
SHOWN_DIMENSIONS = 20


@dataclass(frozen=True)
class LatentReport:
    """Codes of some rows against the prior N(0, I); all values in nats a row.

    Made by `latent_report`. ``print(report)`` shows it, a notebook shows a
    table, and `to_frame` returns the part per dimension as a frame.

    Attributes
    ----------
    estimator : str
        Class of the estimator.
    n_rows : int
        Rows reported on.
    n_pair_rows : int
        Rows behind `mmd` and `mutual_information`, which compare all pairs.
    names : tuple of str
        Names of the dimensions, as `get_feature_names_out` gives them.
    mean_variance : ndarray of shape (n_components,)
        Variance over rows of the posterior mean (the code).
    posterior_variance : ndarray of shape (n_components,)
        Mean over rows of the posterior's variance: its noise.
    kl : ndarray of shape (n_components,)
        Mean over rows of the divergence of a dimension's posterior from N(0, 1).
    active : ndarray of bool of shape (n_components,)
        Whether `mean_variance` exceeds 0.01; the others have collapsed.
    mean_abs_correlation : float
        Mean absolute correlation between the codes' active dimensions.
    moments_kl : float
        ``KL(N(m, A) || N(0, I))`` for the mean m and covariance A of one draw
        from each row's posterior, so from the aggregated posterior, above what
        as many draws from N(0, I) have on average: 0 but for chance if the
        aggregate is the prior.
    mmd, mmd_p_value : float
        Squared maximum mean discrepancy between such draws and draws from
        N(0, I), and its permutation p-value. It sees more than moments.
    mutual_information, mutual_information_error : float
        Index-code mutual information of equation 10 over `n_pair_rows` rows,
        and its Monte-Carlo standard error. Between 0 and log `n_pair_rows`.
    mutual_information_bound : float
        The smaller of log `n_pair_rows` and the upper bound that holds if
        the aggregated posterior were Gaussian.
    reconstruction : float
        ``-E_q log p(x | z)``.
    row_kl : float
        Mean divergence of a row's posterior from the prior.
    elbo : float
        ``-reconstruction - row_kl``, the standard evidence lower bound.
    training_bound : float
        ``-reconstruction`` minus the penalty that was trained, with its weight,
        on these rows.
    """

    estimator: str
    n_rows: int
    n_pair_rows: int
    names: tuple[str, ...]
    mean_variance: FloatArray
    posterior_variance: FloatArray
    kl: FloatArray
    active: NDArray[np.bool_]
    mean_abs_correlation: float
    moments_kl: float
    mmd: float
    mmd_p_value: float
    mutual_information: float
    mutual_information_error: float
    mutual_information_bound: float
    reconstruction: float
    row_kl: float
    elbo: float
    training_bound: float

    @property
    def noise_is_none(self) -> bool:
        """Whether a posterior is a point by design, as a WAE's."""
        return not self.posterior_variance.any()

    @property
    def noise_vanished(self) -> bool:
        """Whether there is noise, but far too little to blur the codes."""
        if self.noise_is_none or not self.active.any():
            return False
        shares = self.posterior_variance[self.active] / self.mean_variance[self.active]
        return bool((shares < VANISHED_SHARE).all())

    @property
    def information_saturated(self) -> bool:
        """Whether the mutual information is at its ceiling, and says no more than that."""
        return self.mutual_information >= SATURATED_SHARE * math.log(self.n_pair_rows)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the dimensions that are not active."""
        return tuple(name for name, on in zip(self.names, self.active, strict=True) if not on)

    def to_frame(self) -> pandas.DataFrame:
        """Part of the report per dimension.

        Returns
        -------
        pandas.DataFrame
            One row a dimension, indexed by name, with the columns
            "mean_variance", "posterior_variance", "kl" and "active".

        Raises
        ------
        ImportError
            Without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("LatentReport.to_frame needs pandas: pip install pandas.") from error
        return pd.DataFrame(
            {
                "mean_variance": self.mean_variance,
                "posterior_variance": self.posterior_variance,
                "kl": self.kl,
                "active": self.active,
            },
            index=pd.Index(self.names, name="dimension"),
        )

    def _summary(self) -> list[tuple[str, str]]:
        """Lines of the part on the whole code: what, and its value."""
        pairs = f"over {self.n_pair_rows} rows"
        ceiling = f"of at most {self.mutual_information_bound:.3f}, {pairs}"
        information = (
            f"{self.mutual_information:.3f} +- {self.mutual_information_error:.3f} {ceiling}"
        )
        return [
            ("active dimensions", f"{self.active.sum()} of {len(self.active)}"),
            ("mean |correlation| between them", f"{self.mean_abs_correlation:.3f}"),
            ("KL of the aggregate's moments to N(0, I)", f"{self.moments_kl:.3f}"),
            ("MMD to N(0, I)", f"{self.mmd:.5f} (p = {self.mmd_p_value:.3f}, {pairs})"),
            ("mutual information of row and code", information),
            ("reconstruction, -E log p(x | z)", f"{self.reconstruction:.2f}"),
            ("KL of a row's posterior to N(0, I)", f"{self.row_kl:.2f}"),
            ("standard ELBO", f"{self.elbo:.2f}"),
            ("bound as trained", f"{self.training_bound:.2f}"),
        ]

    def _remarks(self) -> list[tuple[type[Warning], str]]:
        """Say what to warn of."""
        remarks: list[tuple[type[Warning], str]] = []
        if self.collapsed:
            shown = ", ".join(self.collapsed[:5]) + (", ..." if len(self.collapsed) > 5 else "")
            text = (
                f"{len(self.collapsed)} of {len(self.names)} dimensions have collapsed ({shown}): "
                "their codes are the same for all rows. A smaller beta or row_share keeps them, a "
                "smaller n_components does without them."
            )
            remarks.append((CollapsedDimensionsWarning, text))
        if self.noise_vanished:
            text = (
                "The posterior noise has vanished: this is a deterministic autoencoder, whose "
                "standard ELBO is low for that reason alone. HEBAETransformer(row_share=0.1) keeps "
                "noise; for sampling, latent='mixture' does not need it."
            )
            remarks.append((VanishedNoiseWarning, text))
        if self.information_saturated and not self.noise_is_none:
            text = (
                f"The mutual information of row and code is at its ceiling log {self.n_pair_rows} "
                f"= {math.log(self.n_pair_rows):.2f} nats: posteriors of different rows do not "
                "overlap, and its true value may be any larger one."
            )
            remarks.append((SaturatedInformationWarning, text))
        return remarks

    def _table(self) -> list[tuple[str, str, str, str, str]]:
        """Head and lines of the part per dimension."""
        lines = [("dimension", "variance of mean", "posterior variance", "KL", "state")]
        for i, name in enumerate(self.names):
            state = "active" if self.active[i] else "collapsed"
            numbers = self.mean_variance[i], self.posterior_variance[i], self.kl[i]
            lines.append((name, *(f"{number:.3g}" for number in numbers), state))  # type: ignore[arg-type]
        return lines

    def __repr__(self) -> str:
        table = self._table()
        left_out = len(table) - 1 - SHOWN_DIMENSIONS
        if left_out > 0:
            table = table[: SHOWN_DIMENSIONS + 1]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [f"LatentReport of {self.estimator} on {self.n_rows} rows (nats a row)", ""]
        for name, *cells in table:
            rest = "  ".join(f"{c:>{w}}" for c, w in zip(cells, widths[1:], strict=True))
            lines.append(f"{name:<{widths[0]}}  {rest}")
        if left_out > 0:
            lines.append(f"... and {left_out} more: see to_frame()")
        lines.append("")
        lines += [f"{what:<42} {value}" for what, value in self._summary()]
        lines += [f"! {text}" for _, text in self._remarks()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *lines = self._table()
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
            for line in lines
        )
        summary = "".join(
            f"<tr><th>{escape(what)}</th><td>{escape(value)}</td></tr>"
            for what, value in self._summary()
        )
        remarks = "".join(f"<p><b>!</b> {escape(text)}</p>" for _, text in self._remarks())
        return (
            f"<div><p><b>{self.estimator}</b> on {self.n_rows} rows (nats a row)</p>"
            f"<table><tbody>{summary}</tbody></table>{remarks}"
            f"<details><summary>{len(lines)} dimensions</summary>"
            f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></details></div>"
        )


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
    variance = np.square(sigma, dtype=np.float64) * np.diag(common)
    with np.errstate(divide="ignore"):
        kl = 0.5 * (np.square(mean, dtype=np.float64) + variance - 1.0 - np.log(variance))
        log_det = np.linalg.slogdet(common)[1] + 2.0 * np.log(sigma.astype(np.float64)).sum(axis=1)
    half_square = 0.5 * np.square(mean, dtype=np.float64).sum(axis=1)
    row_kl = float((half_square + 0.5 * (variance.sum(axis=1) - mean.shape[1] - log_det)).mean())
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
