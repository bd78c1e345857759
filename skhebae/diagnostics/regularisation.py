"""How much to regularise: the likelihoods of training, held-out and generated rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_random_state, indexable
from sklearn.utils.validation import check_is_fitted

from skhebae._sklearn import validate_parameter_constraints
from skhebae.data import Matrix
from skhebae.diagnostics.gaussian import Curves, shrunk_curves
from skhebae.diagnostics.path import CURVES, RegularisationPath
from skhebae.diagnostics.refits import count_rows, divide, list_fits, run_fits
from skhebae.estimators import BaseAutoencoder
from skhebae.process import in_plain_modes

FloatArray = NDArray[np.float64]

#: Strength of the closed form, whose values are by default these shares of the rows.
PSEUDO_ROWS = "covariance_prior"
DEFAULT_SHARES = np.geomspace(1e-5, 1e2, 71)


@in_plain_modes
def regularisation_path(
    estimator: BaseAutoencoder | ArrayLike,
    X: ArrayLike | Matrix | None = None,
    *,
    parameter: str | None = None,
    values: Sequence[float] | NDArray[Any] | None = None,
    cv: int | float | Any = 5,
    score: Literal["score", "log_likelihood"] = "score",
    n_generated: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> RegularisationPath:
    """Measure likelihoods against the strength of a regularisation, and recommend one.

    Without `parameter`, the model is the Gaussian of the rows or codes, and the strength is the
    number of pseudo-rows that are mixed into its covariance, as HEBAE's `covariance_prior` does
    with the codes of a minibatch. This has a closed form. With `parameter`, the name of any
    numeric parameter of an estimator, each value is fitted anew on each fold.

    Held-out likelihood is low if the model learned its rows by heart, and if it learned too
    little. A model that learned by heart finds its own samples likelier than new rows. According
    to [1]_ the two curves cross near the highest held-out likelihood.

    Parameters
    ----------
    estimator : estimator or array-like of shape (n_samples, n_features)
        Rows or codes in units in which N(0, I) is the prior, such as standardised ones; or one of
        this library's estimators. It has to be fitted for the closed form, which is then that of
        the whitened codes of `X`; for refits it need not be, and is not changed.
    X : {array-like, sparse matrix} of shape (n_samples, n_features), optional
        Rows, as in `fit`, a frame too. Only with an estimator.
    parameter : str, optional
        Parameter of the estimator to vary: "reg_weight", "beta", "row_share", "weight_decay",
        "covariance_prior" or another.
    values : array-like of float, optional
        At least 2 strengths, ascending. By default, for the closed form only, 71 values from
        1e-5 to 100 times the number of rows.
    cv : int, float or splitter, default=5
        Number of folds, share of rows that is held out once, or an object with ``split(X)``, such
        as ``RepeatedKFold()``.
    score : {"score", "log_likelihood"}, default="score"
        What refits average over rows: `score_samples`, a quick bound, or `log_likelihood`, by
        importance weights.
    n_generated : int, default=1000
        Number of rows that each refit draws by ``sample(noise=True)``. The closed form needs
        none.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds and draws, and of the fits if the `random_state` of the estimator is
        None. All values have the same seeds in the same fold.
    n_jobs : int, optional
        Processes that fit at once, as in joblib.
    verbose : int, default=0
        Above 0, refits show a progress bar, which needs tqdm.

    Returns
    -------
    RegularisationPath
        `best` is the value with the highest held-out likelihood, and ``print`` shows the table.

    Raises
    ------
    TypeError
        If `estimator` is not one of this library's, for example a Pipeline around one, or if `X`
        is missing or not needed.
    NotFittedError
        If codes are asked of an estimator before `fit`.
    ValueError
        Before any fit, if the estimator lacks the parameter or does not take a value, if `values`
        are not ascending, or if there are too few rows for the folds.

    See Also
    --------
    skhebae.plotting.RegularisationDisplay : Picture of the result.

    Notes
    -----
    The curves cross near the best value if more regularisation does not change the size of rows.
    Otherwise they need not cross, for example in the closed form with rows whose mean variance is
    far from 1.

    Means over rows say little if single rows decide them. A column that is constant in the rows of
    a fit and not in a held-out row costs that row thousands of nats. Leave out such columns.

    Rows with missing values have the likelihood of their observed entries, while generated rows
    have all entries. The curves are then not comparable, and do not cross near the best value.

    References
    ----------
    .. [1] A. Fanthomme, F. Rizzato, S. Cocco and R. Monasson, "Optimal regularizations for data
       generation with probabilistic graphical models", arXiv:2112.01292.

    Examples
    --------
    >>> import numpy as np
    >>> from skhebae.diagnostics import regularisation_path
    >>> rows = np.random.default_rng(0).normal(size=(60, 20))
    >>> path = regularisation_path(rows, values=[1.0, 10.0, 100.0, 1000.0])
    >>> path.best  # the truth is N(0, I): the more, the better
    1000.0
    """
    rng = check_random_state(random_state)
    if parameter is None:
        rows = _rows_or_codes(estimator, X)
        folds = divide(rows, len(rows), cv, rng)
        strengths = len(rows) * DEFAULT_SHARES if values is None else _check_values(values)
        if strengths[0] <= 0.0:
            raise ValueError(
                f"values begin with {strengths[0]:.6g}; pseudo-rows must be > 0. Leave it out."
            )
        curves = [shrunk_curves(rows[train], rows[test], strengths) for train, test in folds]
        model, parameter, unit, n_rows = "Gaussian", PSEUDO_ROWS, "log density", len(rows)
        if isinstance(estimator, BaseAutoencoder):
            model = f"the Gaussian of {type(estimator).__name__}'s codes"
    else:
        model = type(_check_estimator(estimator)).__name__
        strengths = _check_strengths(estimator, parameter, values)
        if X is None:
            raise TypeError(f"parameter={parameter!r} needs refits, and those need rows: pass X.")
        if score not in ("score", "log_likelihood"):
            raise ValueError(f"score={score!r} must be 'score' or 'log_likelihood'.")
        if not isinstance(n_generated, Integral) or n_generated < 1:
            raise ValueError(f"n_generated={n_generated!r} must be an integer >= 1.")
        (X,) = indexable(X)
        n_rows, unit = count_rows(X), score
        folds = divide(X, n_rows, cv, rng)
        tasks = list_fits(estimator, X, parameter, values, folds, score, int(n_generated), rng)
        found = run_fits(tasks, n_jobs, verbose, parameter)
        numbers = np.array(found).reshape(len(folds), len(strengths), len(CURVES))
        curves = [Curves(*of.T) for of in numbers]
    return _summarise(curves, model, parameter, unit, n_rows, strengths)


def _rows_or_codes(estimator: Any, X: Any) -> FloatArray:
    """Return the rows of the closed form: those given, or the whitened codes of `X`."""
    if not hasattr(estimator, "fit"):
        if X is not None:
            raise TypeError("X is only for an estimator; pass the rows or codes alone.")
        rows = check_array(estimator, dtype=np.float64, ensure_min_samples=2)
        return np.asarray(rows)
    check_is_fitted(_check_estimator(estimator))
    if X is None:
        raise TypeError("An estimator has no rows of its own: pass X, whose codes are measured.")
    codes, _ = estimator.fitted_.encode_with_spread(estimator.validate_rows(X))
    return np.asarray(codes, dtype=np.float64)


def _check_estimator(estimator: Any) -> BaseAutoencoder:
    """Return an estimator of this library, or raise an error that says how to get at it."""
    if not isinstance(estimator, BaseAutoencoder):
        raise TypeError(
            "regularisation_path takes HEBAETransformer, VAETransformer or WAETransformer, or "
            f"without parameter= an array of rows, got {type(estimator).__name__}. For a "
            "pipeline, pass pipeline[-1] and the rows pipeline[:-1].transform(X)."
        )
    return estimator


def _check_values(values: Any) -> FloatArray:
    """Return strengths as an array, after checking that they are ascending numbers."""
    strengths = np.asarray(values)
    if strengths.ndim != 1 or len(strengths) < 2 or strengths.dtype.kind not in "iuf":
        raise ValueError(f"values={values!r} must be a list of at least 2 numbers.")
    strengths = strengths.astype(np.float64)
    if not np.isfinite(strengths).all():
        raise ValueError(f"values={values!r} must be finite numbers.")
    if (np.diff(strengths) <= 0.0).any():
        raise ValueError(
            f"values={values!r} must ascend, each given once. Pass numpy.unique(values)."
        )
    return strengths


def _check_strengths(estimator: Any, parameter: str, values: Any) -> FloatArray:
    """Return strengths, after checking that the estimator has the parameter and takes them."""
    name, known = type(estimator).__name__, estimator.get_params(deep=False)
    if parameter not in known:
        numbers = [key for key, value in known.items() if _is_number(value)]
        raise ValueError(
            f"parameter={parameter!r} is none of {name}. Its parameters that are numbers by "
            f"default are {', '.join(numbers)}."
        )
    if values is None:
        raise ValueError(
            f"parameter={parameter!r} needs values=, such as numpy.geomspace(0.1, 10, 7)."
        )
    strengths = _check_values(values)
    constraints = {
        field.name: field.metadata["constraints"]
        for field in fields(estimator)
        if "constraints" in field.metadata
    }
    for value in np.asarray(values).tolist() if parameter in constraints else ():
        try:
            validate_parameter_constraints(
                {parameter: constraints[parameter]}, {parameter: value}, caller_name=name
            )
        except ValueError as error:
            raise ValueError(f"values holds {value!r}: {error} Leave it out.") from error
    return strengths


def _is_number(value: object) -> bool:
    """Tell whether a value is a number and not a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _summarise(
    curves: list[Curves], model: str, parameter: str, unit: str, n_rows: int, values: FloatArray
) -> RegularisationPath:
    """Return means and standard errors over folds."""
    stacked = {name: np.array([getattr(of, name) for of in curves]) for name in CURVES}
    means = {name: of.mean(axis=0) for name, of in stacked.items()}
    best = int(np.argmax(means["held_out"]))
    stacked["difference"] = stacked["held_out"] - stacked["held_out"][:, [best]]
    errors = {name: _standard_error(of) for name, of in stacked.items()}
    return RegularisationPath(
        model=model,
        parameter=parameter,
        score=unit,
        n_rows=n_rows,
        n_folds=len(curves),
        values=values,
        errors=errors,
        **means,
    )


def _standard_error(folds: FloatArray) -> FloatArray:
    """Return the standard error of the mean over folds (n_folds, n_values); NaN for one fold."""
    if len(folds) < 2:
        return np.full(folds.shape[1], math.nan)
    error: FloatArray = folds.std(axis=0, ddof=1) / math.sqrt(len(folds))
    return error
