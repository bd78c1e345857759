"""The report on codes: its numbers, and how it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skhebae.exceptions import (
    CollapsedDimensionsWarning,
    SaturatedInformationWarning,
    VanishedNoiseWarning,
)

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: Noise has vanished where its variance is under this share of the codes' in
#: every active dimension: a standard deviation of 1 %.
VANISHED_SHARE = 1e-4

#: Mutual information is saturated from this share of its ceiling log n on.
SATURATED_SHARE = 0.995

#: With fewer rows than this there is no telling, so nothing is remarked.
JUDGED_ROWS = 30

#: Dimensions that `repr` lists, at most.
SHOWN_DIMENSIONS = 20


@dataclass(frozen=True, eq=False)
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
        An upper bound of it: the smaller of log `n_pair_rows` and what the
        covariances of aggregate and rows allow.
    reconstruction : float
        ``-E_q log p(x | z)``.
    row_kl : float
        Mean divergence of a row's posterior from the prior.
    elbo : float
        ``-reconstruction - row_kl``, the standard evidence lower bound.
    training_bound : float
        ``-reconstruction`` minus the penalty of the estimator's objective on
        these rows, with the weights its parameters give it.
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
        if self.n_rows < JUDGED_ROWS:
            return remarks
        if self.collapsed:
            shown = ", ".join(self.collapsed[:5]) + (", ..." if len(self.collapsed) > 5 else "")
            text = (
                f"{len(self.collapsed)} of {len(self.names)} dimensions have collapsed ({shown}): "
                "their codes hardly differ between rows. A smaller weight of the penalty (beta, "
                "row_share) may keep them, a smaller n_components does without them."
            )
            remarks.append((CollapsedDimensionsWarning, text))
        if self.noise_vanished:
            text = (
                "The posterior noise has vanished: this is a deterministic autoencoder, and every "
                "dimension lowers its standard ELBO by its precision. A row_share > 0 keeps noise; "
                "for sampling, latent='mixture' does not need it."
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
