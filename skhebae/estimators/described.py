"""Cards and displays of estimators that are or have a fitted autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skhebae._sklearn import DisplayMixin
from skhebae.data import Matrix
from skhebae.estimators.card import model_card
from skhebae.fitted.held_out import RowScore, held_out_scores
from skhebae.fitted.summary import HEAD, Fact
from skhebae.markup import html_details, html_table
from skhebae.process import in_plain_modes

if TYPE_CHECKING:
    from skhebae.estimators.base import BaseAutoencoder


class Described(DisplayMixin):
    """Describe a fitted estimator in a notebook and in a model card."""

    def _described_model(self) -> BaseAutoencoder:
        """Return the fitted autoencoder."""
        raise NotImplementedError

    def _own_facts(self) -> list[Fact]:
        """Return what the estimator adds to its autoencoder."""
        return []

    def _own_limits(self) -> tuple[str, ...]:
        """Return what the estimator must not be used for, beside the limits of autoencoders."""
        return ()

    def _own_scores(
        self, X: ArrayLike | Matrix, batch: ArrayLike | None, size_factor: ArrayLike | None
    ) -> tuple[list[RowScore], int]:
        """Score rows for a card, and count them."""
        model = self._described_model()
        rows = model.validate_rows(X)
        return held_out_scores(model.fitted_, rows, batch, size_factor), int(rows.shape[0])

    @in_plain_modes
    def _html_below(self) -> str:
        if not self.__sklearn_is_fitted__():
            return ""
        model = self._described_model()
        facts = [*self._own_facts(), *model.fitted_.summary().facts]
        title = f"What {type(self).__name__}.fit chose"
        return html_details(title, html_table(HEAD, facts))

    @in_plain_modes
    def card(
        self,
        X: ArrayLike | Matrix | None = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        report: Any = None,
    ) -> str:
        """Return a model card: what was fitted, how, how well, and what it is not for.

        It has the shape and the columns of the table, parameters and what "auto" stood for, scores,
        limits, versions, and how to load the model. It holds no row and no value of the training
        data. What a file of an earlier version does not hold is called "not known".

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), optional
            Rows with the features of `fit` that it has not seen. The card then has their scores.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of these rows, as in `fit`.
        report : LatentReport, optional
            What ``skhebae.diagnostics.latent_report(model, X)`` returned. The card then has its
            remarks.

        Returns
        -------
        str
            Markdown, as GitHub and Hugging Face show it.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If `report` is something else than a report.
        ValueError
            If `X`, `batch` or `size_factor` is not usable.
        """
        check_is_fitted(self)
        if report is not None and not hasattr(report, "remarks"):
            raise TypeError(
                f"report is {type(report).__name__}. Pass what "
                "skhebae.diagnostics.latent_report(model, X) returns, or leave it out."
            )
        if X is None and (batch is not None or size_factor is not None):
            name = "batch" if batch is not None else "size_factor"
            raise ValueError(f"{name} is given without X. It belongs to the rows of X: pass both.")
        scores, n_scored = ([], 0) if X is None else self._own_scores(X, batch, size_factor)
        return model_card(
            self,
            self._described_model(),
            scores,
            n_scored,
            report=report,
            own_facts=self._own_facts(),
            own_limits=self._own_limits(),
        )

    def __sklearn_is_fitted__(self) -> bool:
        raise NotImplementedError
