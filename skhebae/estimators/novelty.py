"""A detector of rows that do not belong to the table that it was fitted to."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skhebae._sklearn import (
    Interval,
    OutlierMixin,
    RealNotInt,
    StrOptions,
    Tags,
    fit_context,
)
from skhebae.conformal import benjamini_hochberg, conformal_p_values, largest_quiet_score
from skhebae.data import Matrix
from skhebae.estimators.base import BaseAutoencoder, adopt_features
from skhebae.estimators.card import DETECTOR_LIMITS
from skhebae.estimators.described import Described
from skhebae.estimators.explain import explain_rows
from skhebae.estimators.hebae import HEBAETransformer
from skhebae.estimators.mixed import is_gaussian
from skhebae.estimators.saving_detector import load_detector, save_detector
from skhebae.estimators.selection import Selection
from skhebae.exceptions import (
    FewRowsWarning,
    OutOfRangeWarning,
    UnknownCategoryWarning,
    warn_caller,
)
from skhebae.fitted.agreement import is_alone
from skhebae.fitted.codes import WARNING_FILTERS
from skhebae.fitted.held_out import RowScore
from skhebae.fitted.novelty import (
    AUTO,
    BHATTACHARYYA,
    NEIGHBOURS,
    SCORES,
    TYPICALITY,
    fit_reference,
    novelty_scores,
    reference_rows,
)
from skhebae.fitted.reference import Reference
from skhebae.fitted.summary import Fact
from skhebae.process import in_plain_modes

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: ``calibration="auto"``: folds for gaussian tables of fewer rows, else a held-out share. That has
#: at least as many rows as p <= 0.05 takes, or half of them, and at most so many.
FOLDS, FOLDED_ROWS, HELD_OUT_SHARE, FEWEST_HELD_OUT, MOST_HELD_OUT = 5, 1000, 0.2, 19, 2000

#: Fewest rows: two to fit to, and one held out.
FEWEST_ROWS = 3


class NoveltyDetector(OutlierMixin, Described):
    r"""Find rows that do not belong to the table that an autoencoder was fitted to.

    The score of a row says how far it is from the rows of `fit`, in its code and in what the code
    does not reconstruct. Rows that were held out of the fit turn a score into a p-value, the share
    of such rows that are at least as strange [1]_.

    Parameters
    ----------
    autoencoder : HEBAETransformer, VAETransformer or WAETransformer, default=None
        A clone of it is fitted. None is ``HEBAETransformer()``.
    novelty_score : str, default="auto"
        What counts as strange. "auto" is "neighbours": the distance of ``[code, residual]`` to the
        nearest of at most 500 points, each the mean of at least two rows of `fit`. Each code
        and residual is divided by the square root of its standard deviation. The other scores are
        "bound" (minus `score_samples` of the autoencoder), "loss" (minus its `elbo`),
        "divergence" (of the posterior from the prior), "reconstruction" (``-log p(x | mu)``),
        "reconstruction_error", "expected_reconstruction", "decoder_stochastic",
        "encoder_stochastic", "fully_stochastic", "nearest_generated", "latent_distance",
        "bhattacharyya", "code_density" (under the mixture of codes), "joint" (code density and
        reconstruction), "regret" (likelihood regret) and "typicality". The page about strange
        rows has their formulas [2]_.
    contamination : float or "auto", default="auto"
        Share of the rows of `fit` that `predict` calls novelties, at most 0.5. With "auto",
        novelties are the rows whose p-value is at most `alpha`.
    alpha : float, default=0.05
        Rate of false alarms of ``contamination="auto"`` among rows like those of `fit`.
    calibration : float, int or "auto", default="auto"
        Which rows are held out of the fit for p-values. A float is the share of the rows. An
        integer is a number of folds: the autoencoder is fitted to all rows, and once more without
        each fold, which takes that many times longer. "auto" is 5 folds for gaussian tables of
        fewer than 1,000 rows. Else it is a share of 0.2, but at most 2,000 rows, and at least 19 or
        half of the rows. Folds compare scores of several fits, which agree for gaussian
        tables. The codes of mixed frames and of counts spread further in a fit of more rows, so
        their p-values by folds are too small.
    random_state : int, RandomState instance or None, default=None
        Seed of the held-out rows, of the reference points, and of an autoencoder without a
        `random_state` of its own. None takes that of the `autoencoder`.

    Attributes
    ----------
    autoencoder_ : estimator
        The fitted autoencoder.
    offset_ : float
        ``decision_function`` is ``score_samples - offset_``.
    calibration_scores_ : ndarray of shape (n_held_out,)
        Novelty of the held-out rows, ascending.
    reference_ : Reference
        Points that rows are compared with. None of them is a row of `fit`.
    typical_bound_ : float
        Mean of "bound" over held-out rows for "typicality", else 0.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If `X` had string names.

    See Also
    --------
    HEBAETransformer.score_samples : The bound, in nats.

    References
    ----------
    .. [1] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with
       conformal p-values", arXiv:2104.08279.
    .. [2] A. Vasilev et al., "q-Space Novelty Detection with Variational Autoencoders",
       arXiv:1806.02997.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skhebae import NoveltyDetector
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> benign, malignant = X[y == 1], X[y == 0]
    >>> detector = NoveltyDetector(random_state=0).fit(benign[:300])
    >>> bool((detector.predict(malignant) == -1).mean() > 0.5)
    True
    >>> bool((detector.p_values(benign[300:]) <= 0.05).mean() < 0.15)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [BaseAutoencoder, None],
        "novelty_score": [StrOptions({"auto", *SCORES})],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "calibration": [
            StrOptions({"auto"}),
            Interval(RealNotInt, 0, 1, closed="neither"),
            Interval(Integral, 2, None, closed="left"),
        ],
        "random_state": ["random_state"],
    }

    reference_: Reference

    def __init__(
        self,
        autoencoder: BaseAutoencoder | None = None,
        *,
        novelty_score: str = "auto",
        contamination: float | str = "auto",
        alpha: float = 0.05,
        calibration: float | int | str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.novelty_score = novelty_score
        self.contamination = contamination
        self.alpha = alpha
        self.calibration = calibration
        self.random_state = random_state

    # Fitting

    @fit_context
    @in_plain_modes
    def fit(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> Self:
        """Fit the autoencoder, and calibrate scores on rows that it did not see.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            At least 3 rows, as in the `fit` of the autoencoder. A few strange rows among them do
            little harm.
        y : None
            Ignored, present for pipelines.
        batch, size_factor : array-like of shape (n_samples,), optional
            As in the `fit` of the autoencoder.

        Returns
        -------
        self
            The fitted detector.

        Raises
        ------
        TypeError, ValueError, NonFiniteLossError
            As the `fit` of the autoencoder, and if there are fewer than 3 rows or if
            `novelty_score` is not finite for this autoencoder. An earlier fit is kept.

        Warns
        -----
        FewRowsWarning
            If too few rows are held out for p-values as small as `alpha`.
        """
        base = HEBAETransformer() if self.autoencoder is None else self.autoencoder
        if not is_alone(base.distributed):
            raise ValueError(
                "A detector is fitted in one process, but there are several. Fit it in one of them "
                "only, with distributed=False in its autoencoder."
            )
        rng = check_random_state(
            base.random_state if self.random_state is None else self.random_state
        )
        seed = int(rng.randint(2**31 - 1))
        table = Selection.of(
            X, batch, size_factor, window_mb=base.window_mb, image_shape=base.image_shape
        )
        drawn = self._held_out(table, base.likelihood, rng)
        folds = [table.leave_batches(fold) for fold in drawn]
        if not any(map(len, folds)):
            raise ValueError(
                "No row can be held out of the fit for p-values, because the decoder has to see "
                "each batch. Join batches of few rows."
            )
        # References of as many rows, or held-out rows would be further from theirs than new rows
        # are from the last.
        n_referred = len(table) - max(map(len, folds))
        parts = []
        if len(folds) > 1:
            for held_out in filter(len, folds):
                model, reference = self._fit_without(table, held_out, base, seed, n_referred)
                parts.append(self._novelty(model, reference, table.take(held_out)))
        final = folds[0] if len(folds) == 1 else np.empty(0, dtype=np.intp)
        model, reference = self._fit_without(table, final, base, seed, n_referred)
        if len(folds) == 1:
            parts.append(self._novelty(model, reference, table.take(final)))
        self._adopt(model, reference, np.concatenate(parts), table)
        return self

    def _held_out(
        self, table: Selection, likelihood: Any, rng: np.random.RandomState
    ) -> list[NDArray[np.intp]]:
        """Choose the rows of each fold, or of the only share that is held out."""
        n_rows = len(table)
        if n_rows < FEWEST_ROWS:
            raise ValueError(
                f"Found array with {n_rows} sample(s) while a minimum of {FEWEST_ROWS} is required "
                f"by {type(self).__name__}, which holds rows out of the fit."
            )
        wanted = self.calibration
        # Whether a frame is gaussian takes a look at all of it, so this is asked last.
        if wanted == "auto" and n_rows < FOLDED_ROWS and is_gaussian(table.X, likelihood):
            wanted = FOLDS
        elif wanted == "auto":
            most = min(HELD_OUT_SHARE, MOST_HELD_OUT / n_rows)
            wanted = max(most, min(FEWEST_HELD_OUT / n_rows, 0.5))
        if isinstance(wanted, Integral):
            order = rng.permutation(n_rows)
            # Two rows at least are left to fit to.
            n_folds = max(int(wanted), -(-n_rows // (n_rows - 2)))
            return [np.sort(fold) for fold in np.array_split(order, min(n_folds, n_rows))]
        n_held_out = min(max(1, round(float(wanted) * n_rows)), n_rows - 2)
        return [table.draw(n_held_out, rng)]

    def _fit_without(
        self,
        table: Selection,
        held_out: NDArray[np.intp],
        base: BaseAutoencoder,
        seed: int,
        n_referred: int,
    ) -> tuple[BaseAutoencoder, Reference]:
        """Fit an autoencoder and its reference to all rows but those that are held out.

        The reference to so many of them, at most.
        """
        model: Any = clone(base)
        if model.random_state is None:
            model.set_params(random_state=seed)
        kept = np.setdiff1d(np.arange(len(table)), held_out, assume_unique=True)
        if table.is_stored and len(held_out):
            # Rows of weight 0 are as good as absent, and none is copied.
            weight = np.ones(len(table))
            weight[held_out] = 0.0
            model.fit(
                table.X, batch=table.batch, size_factor=table.size_factor, sample_weight=weight
            )
        else:
            rows = table.take(kept) if len(held_out) else table
            model.fit(rows.X, batch=rows.batch, size_factor=rows.size_factor)
        rng = np.random.RandomState(seed)
        n_wanted = reference_rows(n_referred, model.fitted_.n_features)
        drawn = table.draw(n_wanted, rng, without=held_out)
        some = table.take(drawn)
        reference = fit_reference(
            model.fitted_,
            model.validate_rows(some.X),
            some.batch,
            some.size_factor,
            seed,
            needs_variances=self.novelty_score == BHATTACHARYYA,
        )
        return model, reference

    def _novelty(self, model: BaseAutoencoder, reference: Reference, rows: Selection) -> FloatArray:
        """Score held-out rows; for "typicality" by their bound."""
        name = "bound" if self.novelty_score == TYPICALITY else self._score_name
        with quiet():
            return novelty_scores(
                model.fitted_,
                name,
                model.validate_rows(rows.X),
                rows.batch,
                rows.size_factor,
                reference=reference,
            )

    def _adopt(
        self, model: BaseAutoencoder, reference: Reference, scores: FloatArray, table: Selection
    ) -> None:
        """Set the fitted attributes."""
        typical = 0.0
        if self.novelty_score == TYPICALITY:
            typical = float(scores.mean())
            scores = np.abs(scores - typical)
        scores = np.sort(scores)
        if not np.isfinite(scores).all():
            raise ValueError(
                f"novelty_score={self.novelty_score!r} is not finite for {type(model).__name__}: "
                "its codes have no noise. Choose another score, such as 'auto'."
            )
        before = dict(self.__dict__)
        try:
            self.autoencoder_ = model
            self.reference_ = reference
            self.calibration_scores_ = scores
            self.typical_bound_ = typical
            adopt_features(self, model)
            self.offset_ = self._find_offset(table)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _find_offset(self, table: Selection) -> float:
        """Return the score below which rows are novelties."""
        if not isinstance(self.contamination, str):
            self.offset_ = 0.0  # which scores do not depend on, but they are those of a fit
            with quiet():
                scores = self.score_samples(
                    table.X, batch=table.batch, size_factor=table.size_factor
                )
            return float(np.percentile(scores, 100.0 * self.contamination))
        threshold = largest_quiet_score(self.calibration_scores_, self.alpha)
        if threshold == np.inf:
            n_rows = len(self.calibration_scores_)
            warn_caller(
                f"{n_rows} rows were held out, so no p-value is below 1/{n_rows + 1}, and none as "
                f"small as alpha={self.alpha}. predict calls rows novelties that are stranger than "
                "all of these. Fit to more rows, or raise alpha.",
                FewRowsWarning,
            )
            return -float(self.calibration_scores_[-1])
        return -threshold

    @property
    def _score_name(self) -> str:
        """The score that `score` stands for."""
        return AUTO if self.novelty_score == "auto" else self.novelty_score

    # Scores

    @in_plain_modes
    def score_samples(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> FloatArray:
        """Return minus the novelty of rows: the lower, the stranger.

        Scores are deterministic and do not depend on the other rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        batch, size_factor : array-like of shape (n_samples,), optional
            Batches and size factors of the rows, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In units of the score: standardised units or nats.

        Raises
        ------
        NotFittedError, ValueError
            As the `transform` of the autoencoder.
        """
        check_is_fitted(self)
        return -novelty_scores(
            self.autoencoder_.fitted_,
            self._score_name,
            self._validate(X),
            batch,
            size_factor,
            reference=self.reference_,
            typical=self.typical_bound_,
        )

    def decision_function(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> FloatArray:
        """Return `score_samples` minus `offset_`, which is below 0 for novelties.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        batch, size_factor : array-like of shape (n_samples,), optional
            As in `score_samples`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            In units of the score.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        return self.score_samples(X, batch=batch, size_factor=size_factor) - self.offset_

    def predict(
        self,
        X: ArrayLike | Matrix,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Return -1 for novelties and 1 for other rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        batch, size_factor : array-like of shape (n_samples,), optional
            As in `score_samples`.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            -1 or 1.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`.
        """
        decision = self.decision_function(X, batch=batch, size_factor=size_factor)
        return np.where(decision >= 0.0, 1, -1)

    def fit_predict(
        self,
        X: ArrayLike | Matrix,
        y: object = None,
        *,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Fit to rows, and return -1 for novelties among them and 1 for others.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : None
            Ignored.
        batch, size_factor : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            -1 or 1.

        Raises
        ------
        TypeError, ValueError, NonFiniteLossError
            As `fit`.
        """
        sides: dict[str, Any] = {"batch": batch, "size_factor": size_factor}
        return self.fit(X, **sides).predict(X, **sides)

    def p_values(
        self,
        X: ArrayLike | Matrix,
        *,
        adjust: str | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> FloatArray:
        """Return the share of held-out rows that are at least as strange as each row.

        The p-value is ``(1 + #{held-out rows at least as strange}) / (n_held_out + 1)``. If you
        call rows novelties at p <= alpha, at most a share alpha of the rows like those of `fit` are
        false alarms [1]_. With folds this holds approximately, because held-out rows were scored by
        models of fewer rows (see `calibration`). No p-value is below ``1 / (n_held_out + 1)``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        adjust : {"bh"} or None, default=None
            "bh" adjusts for the number of rows (Benjamini and Hochberg). Among rows whose adjusted
            p-value is at most q, at most a share q are false alarms on average. Adjusted
            p-values depend on the other rows.
        batch, size_factor : array-like of shape (n_samples,), optional
            As in `score_samples`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            Between 0 and 1. The lower, the stranger.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`, and if `adjust` is something else.

        References
        ----------
        .. [1] S. Bates et al., "Testing for outliers with conformal p-values", arXiv:2104.08279.
        """
        if adjust is not None and adjust != "bh":
            raise ValueError(f"adjust={adjust!r} must be None or 'bh', for Benjamini and Hochberg.")
        novelty = -self.score_samples(X, batch=batch, size_factor=size_factor)
        p_values = conformal_p_values(self.calibration_scores_, novelty)
        return p_values if adjust is None else benjamini_hochberg(p_values)

    @in_plain_modes
    def explain(
        self,
        X: ArrayLike | Matrix,
        *,
        code: str = "apart",
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
    ) -> pandas.DataFrame:
        """Return each column's share of the strangeness of rows.

        The squared distance of ``novelty_score="auto"`` is a sum of one part per column, for what
        the code does not reconstruct, and a part for the code.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows with the features of `fit`.
        code : {"apart", "columns"}, default="apart"
            "apart" gives the code a column of its own, "code". "columns" divides that part among
            the columns by the squared change of their decoded values, from the nearest reference
            point to the row.
        batch, size_factor : array-like of shape (n_samples,), optional
            As in `score_samples`.

        Returns
        -------
        pandas.DataFrame of shape (n_samples, n_features + 1 or n_features)
            Shares between 0 and 1 that add up to 1 in each row, with the index of `X`.

        Raises
        ------
        NotFittedError, ValueError
            As `score_samples`, if `code` is something else, or if `novelty_score` is another score,
            because the others are not sums over columns.
        ImportError
            Without pandas.
        """
        check_is_fitted(self)
        if self._score_name != NEIGHBOURS:
            raise ValueError(
                f"novelty_score={self.novelty_score!r} is no sum over columns. Fit with "
                "novelty_score='auto' to explain rows."
            )
        if code not in ("apart", "columns"):
            raise ValueError(f"code={code!r} must be 'apart' or 'columns'.")
        rows = self._validate(X)
        return explain_rows(
            self.autoencoder_, self.reference_, X, rows, batch, size_factor, apart=code == "apart"
        )

    def _validate(self, X: ArrayLike | Matrix) -> Matrix:
        """Check rows as the autoencoder does."""
        return self.autoencoder_.validate_rows(X)

    # Cards and displays

    def _described_model(self) -> BaseAutoencoder:
        return self.autoencoder_

    def _own_facts(self) -> list[Fact]:
        rule, by = "its p-value is at most alpha", f"alpha={self.alpha:g}"
        if not isinstance(self.contamination, str):
            by = f"contamination={self.contamination:.3g}"
            rule = f"it is among the strangest {self.contamination:.3g} of the rows of fit"
        held_out = f"{len(self.calibration_scores_):,}"
        return [
            Fact("novelty score", self._score_name, f"novelty_score={self.novelty_score!r}"),
            Fact("a row is a novelty if", rule, by),
            Fact("rows scored for p-values", held_out, f"calibration={self.calibration!r}"),
            Fact("reference points", f"{len(self.reference_.points):,}"),
        ]

    def _own_limits(self) -> tuple[str, ...]:
        return DETECTOR_LIMITS

    def _own_scores(
        self, X: ArrayLike | Matrix, batch: ArrayLike | None, size_factor: ArrayLike | None
    ) -> tuple[list[RowScore], int]:
        novelty = -self.score_samples(X, batch=batch, size_factor=size_factor)
        p_values = conformal_p_values(self.calibration_scores_, novelty)
        called = novelty > -self.offset_
        scores = [
            RowScore.of("novelty", "", novelty),
            RowScore.of("p-value", "", p_values),
            RowScore.of("share called novelties", "", called),
        ]
        return scores, len(novelty)

    # Files

    @in_plain_modes
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted detector to one file, completely or not at all.

        The file is safetensors with JSON metadata, which executes nothing when it is read. It holds
        the autoencoder, the reference points and the scores of held-out rows, but no rows.

        Parameters
        ----------
        path : path-like
            Overwritten if it exists.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If the autoencoder is of a class of your own. Pickle the detector instead.
        ModelFileError, OSError
            As the `save` of the autoencoder.
        """
        check_is_fitted(self)
        self._validate_params()
        save_detector(self, path)

    @classmethod
    @in_plain_modes
    def load(cls, path: str | os.PathLike[str], **factories: Any) -> Self:
        """Read a detector written by `save`.

        Parameters
        ----------
        path : path-like
            A file written by `save`.
        **factories : callable
            As in the `load` of the autoencoder.

        Returns
        -------
        NoveltyDetector

        Raises
        ------
        FileNotFoundError, ModelFileError, TypeError, ValueError
            As the `load` of the autoencoder.
        """
        return load_detector(cls, path, factories)

    @in_plain_modes
    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "reference_" in state:  # as plain arrays: readers need not trust a class of ours
            reference = state.pop("reference_")
            state["_reference"] = (
                reference.points,
                reference.residual_weight,
                reference.variances,
            )
        return state

    @in_plain_modes
    def __setstate__(self, state: dict[str, Any]) -> None:
        own = dict(state)
        packed = own.pop("_reference", None)
        super().__setstate__(own)
        if packed is not None:
            self.reference_ = Reference(*packed)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        own = (self.autoencoder or HEBAETransformer()).__sklearn_tags__()
        tags.input_tags = own.input_tags
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "offset_" in self.__dict__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back warnings about rows that a fit held out itself."""
    with WARNING_FILTERS.held(), warnings.catch_warnings():
        for category in (OutOfRangeWarning, UnknownCategoryWarning):
            warnings.simplefilter("ignore", category)
        yield
