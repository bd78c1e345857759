"""The report on codes: its numbers, its text and its HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skhebae.diagnostics._checks import import_pandas
from skhebae.diagnostics.gap_report import BoundGap
from skhebae.exceptions import (
    CollapsedDimensionsWarning,
    SaturatedInformationWarning,
    VanishedNoiseWarning,
)
from skhebae.markup import html_details, html_remarks, html_table

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: The noise counts as vanished if its variance is below this share of the codes'
#: variance in every active dimension, that is, if its standard deviation is below
#: 1 % of theirs.
VANISHED_SHARE = 1e-4

#: Mutual information counts as saturated from this share of its ceiling log n.
SATURATED_SHARE = 0.995

#: Fewest rows that allow a judgement; a report on fewer makes no remarks.
JUDGED_ROWS = 30

#: Largest number of dimensions that `repr` lists.
SHOWN_DIMENSIONS = 20


@dataclass(frozen=True, eq=False)
class LatentReport:
    """Comparison of the codes of rows with the prior.

    Whatever the estimator's `whiten`, codes are the whitened ones, whose prior is N(0, I).
    `latent_report` returns one. Divergences, information and bounds are in nats
    per row. ``print(report)`` shows the report as text, a notebook shows it as a
    table, and `to_frame` returns the values per dimension as a data frame.

    Attributes
    ----------
    estimator : str
        Class name of the estimator.
    n_rows : int
        Number of rows reported on.
    n_pair_rows : int
        Number of rows behind `mmd` and `mutual_information`, which compare all
        pairs of rows.
    prior : str
        Name of the prior, "N(0, I)" unless the model has another.
    names : tuple of str
        Names of the dimensions, from `get_feature_names_out`.
    mean_variance : ndarray of shape (n_components,)
        Variance over rows of the posterior mean (the code).
    posterior_variance : ndarray of shape (n_components,)
        Mean over rows of the posterior variance, that is, of the noise.
    kl : ndarray of shape (n_components,)
        Mean over rows of the divergence of each dimension's posterior from
        N(0, 1), whatever the prior.
    active : ndarray of bool of shape (n_components,)
        Whether `mean_variance` exceeds 0.01; the other dimensions have
        collapsed.
    mean_abs_correlation : float
        Mean absolute correlation between the active dimensions of the codes.
    moments_kl : float
        ``KL(N(m, A) || p(z))``, where m and A are the mean and covariance of
        one draw from each row's posterior; for N(0, I), less its average over as
        many draws from the prior. Draws from every row's posterior are draws from the
        aggregated posterior, so the value is 0 up to chance if that is the
        prior. One pseudo-row of N(0, I) keeps A positive definite.
    mmd, mmd_p_value : float
        Squared maximum mean discrepancy between such draws and draws from
        the prior, and its permutation p-value. Unlike `moments_kl`, it is
        sensitive to the whole distribution.
    mutual_information, mutual_information_error : float
        Estimate of the index-code mutual information of equation 10 over
        `n_pair_rows` rows, and its Monte Carlo standard error. The quantity
        itself lies between 0 and log `n_pair_rows`.
    mutual_information_bound : float
        Upper bound of the mutual information: the smaller of log `n_pair_rows`
        and the bound that follows from the covariances of the aggregated
        posterior and of the rows' posteriors.
    reconstruction : float
        ``-E_q log p(x | z)``.
    row_kl : float
        Mean divergence of a row's posterior from the prior.
    elbo : float
        ``-reconstruction - row_kl``, the standard evidence lower bound.
    training_bound : float
        ``-reconstruction`` minus the penalty of the built-in objectives, with
        the objective's weights: a share on each row's divergence, the rest on the
        aggregate of all rows and, with a `batch_share`, on that of each experimental
        batch. An objective of your own may penalise something else.
    """

    estimator: str
    n_rows: int
    n_pair_rows: int
    prior: str
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
    gap: BoundGap | None = None

    @property
    def noise_is_none(self) -> bool:
        """Whether every posterior is a point, as in a WAE."""
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
        """Whether the mutual information is so close to its ceiling that it is a lower limit."""
        return self.mutual_information >= SATURATED_SHARE * math.log(self.n_pair_rows)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the dimensions that are not active."""
        return tuple(name for name, on in zip(self.names, self.active, strict=True) if not on)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What there is to say about the codes: the texts of the warnings."""
        return tuple(text for _, text in self._remarks())

    def to_frame(self) -> pandas.DataFrame:
        """Return the values per dimension as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row per dimension, indexed by name, with the columns
            "mean_variance", "posterior_variance", "kl" and "active".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("LatentReport.to_frame")
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
        """Return the quantities of the code as a whole, as pairs of name and value."""
        pairs = f"over {self.n_pair_rows} rows"
        ceiling = f"of at most {self.mutual_information_bound:.3f}, {pairs}"
        information = (
            f"{self.mutual_information:.3f} +- {self.mutual_information_error:.3f} {ceiling}"
        )
        return [
            ("active dimensions", f"{self.active.sum()} of {len(self.active)}"),
            ("mean |correlation| between them", f"{self.mean_abs_correlation:.3f}"),
            (f"KL of the aggregate's moments to {self.prior}", f"{self.moments_kl:.3f}"),
            (f"MMD to {self.prior}", f"{self.mmd:.5f} (p = {self.mmd_p_value:.3f}, {pairs})"),
            ("mutual information of row and code", information),
            ("reconstruction, -E log p(x | z)", f"{self.reconstruction:.2f}"),
            (f"KL of a row's posterior to {self.prior}", f"{self.row_kl:.2f}"),
            ("standard ELBO", f"{self.elbo:.2f}"),
            ("bound as trained", f"{self.training_bound:.2f}"),
            *([] if self.gap is None else [("log p(x) - standard ELBO", self.gap.line)]),
        ]

    def _remarks(self) -> list[tuple[type[Warning], str]]:
        """Return the categories and texts of the warnings that the report gives rise to."""
        remarks: list[tuple[type[Warning], str]] = []
        if self.n_rows < JUDGED_ROWS:
            return remarks
        if self.collapsed:
            shown = ", ".join(self.collapsed[:5]) + (", ..." if len(self.collapsed) > 5 else "")
            text = (
                f"{len(self.collapsed)} of {len(self.names)} dimensions have collapsed ({shown}): "
                "their codes hardly differ between rows. Try a smaller weight of the penalty (beta "
                "or row_share) to keep them, or fit with a smaller n_components."
            )
            remarks.append((CollapsedDimensionsWarning, text))
        if self.noise_vanished:
            text = (
                "The posterior noise has vanished: this is in effect a deterministic autoencoder, "
                "and the narrower its posteriors, the lower its standard ELBO. Fit HEBAE with "
                "row_share > 0 to keep noise; sampling with latent='mixture' works without it."
            )
            remarks.append((VanishedNoiseWarning, text))
        if self.information_saturated and not self.noise_is_none:
            text = (
                f"The mutual information of row and code is at its ceiling log {self.n_pair_rows} "
                f"= {math.log(self.n_pair_rows):.2f} nats: the posteriors of these rows do not "
                "overlap. Over more rows it could be larger."
            )
            remarks.append((SaturatedInformationWarning, text))
        return remarks

    def _table(self) -> list[tuple[str, str, str, str, str]]:
        """Return the header and the lines of the table of dimensions."""
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
        lines = [f"LatentReport of {self.estimator} on {self.n_rows} rows (nats per row)", ""]
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
        caption = f"LatentReport of {self.estimator} on {self.n_rows:,} rows (nats per row)"
        summary = html_table((), self._summary(), caption=caption)
        numbers = range(1, len(head) - 1)
        dimensions = html_details(
            f"{len(lines)} dimensions", html_table(head, lines, right=numbers)
        )
        return f"<div>{summary}{html_remarks(self.remarks)}{dimensions}</div>"
