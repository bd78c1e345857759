"""What all diagnostics ask of an estimator, and of the environment."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from skhebae.estimators import BaseAutoencoder


def check_autoencoder(estimator: object, caller: str) -> None:
    """Raise unless an estimator is a fitted one of this library.

    Raises
    ------
    TypeError
        If it is something else, as a Pipeline around one; says what to pass to `caller`.
    NotFittedError
        Before `fit`.
    """
    if not isinstance(estimator, BaseAutoencoder):
        raise TypeError(
            f"{caller} takes a fitted HEBAETransformer, VAETransformer or WAETransformer, "
            f"got {type(estimator).__name__}. For a pipeline, pass pipeline[-1] and the rows "
            "pipeline[:-1].transform(X)."
        )
    check_is_fitted(estimator)


def import_pandas(caller: str) -> Any:
    """Return pandas.

    Raises
    ------
    ImportError
        If it is not installed; says that `caller` needs it.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{caller} needs pandas. Install it with pip install pandas.") from error
    return pandas
