"""The gap between log p(x) and the bound: its numbers and its text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from skhebae.diagnostics._checks import import_pandas
from skhebae.markup import html_remarks, html_table
from skhebae.process import cached_property
from skhebae.variational import independence_loss, off_diagonal_size

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: Below so many effective draws, the estimate of log p(x) of a row counts as unreliable.
FEWEST_EFFECTIVE_DRAWS = 30.0

#: What the parts of the gap are called, by the family of the encoder's posteriors.
LABELS = {
    "gaussian": "any Gaussian misses",
    "family": "the encoder's family misses",
    "amortisation": "the encoder misses in its family",
}
FAMILY_LABELS = {
    "diagonal": "conditional independence misses",
    "point": "conditional independence misses",
    "scaled": "one covariance for all rows, scaled, misses",
}


@dataclass(frozen=True, eq=False)
class BoundGap:
    """The gap between log p(x) and the evidence lower bound of rows, split by its causes.

    `bound_gap` returns one. All numbers are in nats per row. ``print(gap)`` shows means with
    standard errors, a notebook shows them as a table, and `to_frame` returns the numbers per row.

    Attributes
    ----------
    estimator : str
        Class name of the estimator.
    posterior_family : {"diagonal", "scaled", "point"}
        Gaussians that the encoder can give a row. For VAE they are diagonal. For HEBAE they are
        ``A D C D A^T`` with a diagonal D per row and one C and A for all. For WAE the posterior
        is a point, whose bound is minus infinity and whose gap is infinite; its family then
        counts as the diagonal one. Posteriors of rows with missing entries follow from the
        decoder and may be any Gaussian, so `family` of these rows is 0.
    indices : ndarray of int of shape (n,)
        Rows of `X` that were measured.
    n_draws : int
        Draws behind `log_likelihood`.
    log_likelihood, log_likelihood_error : ndarray of shape (n,)
        Estimates of log p(x) by importance weights, and their standard errors by the delta method.
    effective_draws : ndarray of shape (n,)
        ``(sum w)^2 / sum w^2`` of the importance weights.
    full, diagonal, family, encoder : ndarray of shape (n, n_blocks)
        Bounds of the best Gaussian, of the best diagonal one, of the best that the encoder may
        give, and of the encoder's own; by independent blocks of points, whose mean is the bound.
    precision : ndarray of shape (n, d, d)
        ``P + J^T W J`` at the mode of each row's posterior: P the precision of the prior, J the
        Jacobian of the decoder, W the Fisher information of the likelihood.
    """

    estimator: str
    posterior_family: str
    indices: NDArray[np.intp]
    n_draws: int
    log_likelihood: FloatArray
    log_likelihood_error: FloatArray
    effective_draws: FloatArray
    full: FloatArray
    diagonal: FloatArray
    family: FloatArray
    encoder: FloatArray
    precision: FloatArray

    @property
    def n_rows(self) -> int:
        """Number of rows measured."""
        return len(self.indices)

    @property
    def _family(self) -> FloatArray:
        return self.diagonal if self.posterior_family == "point" else self.family

    @cached_property
    def parts(self) -> dict[str, FloatArray]:
        """Parts of the gap of each row, (n,) each, by name.

        "gaussian" is what any Gaussian misses, "family" what the encoder's family misses beyond
        that, and "amortisation" what the encoder misses in its family. "total" is their sum, and
        "independence" what the best diagonal Gaussian misses beyond the best one: the same as
        "family" where the encoder's posteriors are diagonal.
        """
        parts = {name: values.mean(axis=1) for name, values in self._blocks().items()}
        # Exactly, and not up to the rounding of means.
        parts["total"] = parts["gaussian"] + parts["family"] + parts["amortisation"]
        return parts

    def _blocks(self) -> dict[str, FloatArray]:
        """Return `parts` by block, (n, n_blocks)."""
        gaussian = self.log_likelihood[:, None] - self.full
        family, amortisation = self.full - self._family, self._family - self.encoder
        return {
            "gaussian": gaussian,
            "family": family,
            "amortisation": amortisation,
            "total": gaussian + family + amortisation,
            "independence": self.full - self.diagonal,
        }

    @cached_property
    def summary(self) -> dict[str, tuple[float, float]]:
        """Means over rows of `parts`, with standard errors.

        Errors have the variance over rows, that between blocks of points, and, where log p(x) takes
        part, the mean error of that, as all rows share the draws.
        """
        found = {}
        for name, values in self._blocks().items():
            mean = float(values.mean())
            if not math.isfinite(mean):
                found[name] = (mean, math.nan)
                continue
            variance = _variance_of_mean(values.mean(axis=1)) + _variance_of_mean(
                values.mean(axis=0)
            )
            if name in ("gaussian", "total"):
                variance += float(self.log_likelihood_error.mean()) ** 2
            found[name] = (mean, math.sqrt(variance))
        return found

    @property
    def unreliable(self) -> NDArray[np.bool_]:
        """Whether few draws carry most of a row's importance weight, (n,)."""
        return self.effective_draws < FEWEST_EFFECTIVE_DRAWS

    @property
    def remark(self) -> str:
        """What there is to say about `unreliable` rows."""
        n_bad = int(self.unreliable.sum())
        return (
            f"log p(x) of {n_bad} of {self.n_rows} rows rests on fewer than "
            f"{FEWEST_EFFECTIVE_DRAWS:.0f} of {self.n_draws} draws. It is probably too low, and "
            "with it what any Gaussian misses. Increase n_draws."
        )

    # How far the decoder is from the family consistent with independent codes

    @property
    def off_diagonal(self) -> FloatArray:
        """What off-diagonals of each row's `precision` cost a diagonal Gaussian, (n,), nats.

        ``1/2 (sum_j log P_jj - log det P)``: "independence" as the decoder's linearisation has it.
        """
        return independence_loss(torch.from_numpy(self.precision)).numpy()

    @property
    def turned_off_diagonal(self) -> FloatArray:
        """`off_diagonal` on the axes on which the mean `precision` is diagonal, (n,), nats.

        A rotation of codes leaves a prior N(0, I) as it is. What remains no rotation of all codes
        together takes away: axes differ from row to row.
        """
        _, vectors = np.linalg.eigh(self.precision.mean(axis=0))
        turned = vectors.T @ self.precision @ vectors
        return independence_loss(torch.from_numpy(turned)).numpy()

    @property
    def off_diagonal_size(self) -> FloatArray:
        """Root mean square of ``P_jk / sqrt(P_jj P_kk)``, j != k, of each row, (n,), 0 to 1."""
        return off_diagonal_size(torch.from_numpy(self.precision)).numpy()

    # As text and frame

    @property
    def labels(self) -> dict[str, str]:
        """What the three parts of the gap are called."""
        return {**LABELS, "family": FAMILY_LABELS[self.posterior_family]}

    @property
    def line(self) -> str:
        """The gap and its parts in one line."""
        means = {name: mean for name, (mean, _) in self.summary.items()}
        parts = ", ".join(f"{means[name]:.2f} {what}" for name, what in self.labels.items())
        return f"{means['total']:.2f} = {parts} (over {self.n_rows} rows)"

    def _lines(self) -> list[list[tuple[str, float, float | None]]]:
        """Return names, means and perhaps standard errors, in groups."""
        bounds = {
            "log p(x), by importance weights": self.log_likelihood,
            "bound of the best Gaussian": self.full.mean(axis=1),
            "bound of the best diagonal Gaussian": self.diagonal.mean(axis=1),
            "bound of the encoder's posterior": self.encoder.mean(axis=1),
        }
        shown = {**self.labels, "total": "log p(x) - bound of the encoder's posterior"}
        if self.posterior_family == "scaled":
            shown["independence"] = "(a diagonal Gaussian would miss)"
        others = {
            "off-diagonals of I + J^T W J, linearised loss": self.off_diagonal,
            "the same on the best common axes": self.turned_off_diagonal,
            "size of off-diagonals, 0 to 1": self.off_diagonal_size,
            "effective draws, median": np.median(self.effective_draws, keepdims=True),
        }
        return [
            [(what, float(values.mean()), None) for what, values in bounds.items()],
            [(what, *self.summary[name]) for name, what in shown.items()],
            [(what, float(values.mean()), None) for what, values in others.items()],
        ]

    @property
    def _title(self) -> str:
        return f"BoundGap of {self.estimator} on {self.n_rows} rows (nats per row"

    def __repr__(self) -> str:
        lines = [f"{self._title}, +- standard error)"]
        for group in self._lines():
            lines.append("")
            for what, mean, error in group:
                after = "" if error is None else f" +- {error:.3f}"
                lines.append(f"{what:<46} {mean:>10.3f}{after}")
        lines += [f"! {self.remark}"] if self.unreliable.any() else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            (what, f"{mean:.3f}", "" if error is None else f"{error:.3f}")
            for group in self._lines()
            for what, mean, error in group
        ]
        head = ("", "mean", "standard error")
        table = html_table(head, rows, caption=f"{self._title})", right=(1, 2))
        remarks = [self.remark] if self.unreliable.any() else []
        return f"<div>{table}{html_remarks(remarks)}</div>"

    def to_frame(self) -> pandas.DataFrame:
        """Return the numbers per row as a data frame.

        Returns
        -------
        pandas.DataFrame
            Indexed by the rows of `X`, with the columns "log_likelihood", "full", "diagonal",
            "encoder", those of `parts`, "off_diagonal", "off_diagonal_size" and "effective_draws".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("BoundGap.to_frame")
        bounds = {
            name: getattr(self, name).mean(axis=1) for name in ("full", "diagonal", "encoder")
        }
        columns = {
            "log_likelihood": self.log_likelihood,
            **bounds,
            **self.parts,
            "off_diagonal": self.off_diagonal,
            "off_diagonal_size": self.off_diagonal_size,
            "effective_draws": self.effective_draws,
        }
        return pd.DataFrame(columns, index=pd.Index(self.indices, name="row"))


def _variance_of_mean(values: FloatArray) -> float:
    """Return the variance of the mean of independent values, 0 for a single one."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
