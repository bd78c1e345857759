"""A step of a pipeline that yields rows without missing entries."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skhebae._sklearn import (
    OneToOneFeatureMixin,
    Tags,
    TransformerMixin,
    fit_context,
)
from skhebae.data import Matrix
from skhebae.estimators.base import BaseAutoencoder, adopt_features
from skhebae.estimators.described import Described
from skhebae.estimators.hebae import HEBAETransformer


class HEBAEImputer(OneToOneFeatureMixin, TransformerMixin, Described):
    """Fill in missing entries by the expected values of an autoencoder.

    Use it like scikit-learn's imputers, as a step of a pipeline before an estimator that needs
    complete rows: ``make_pipeline(HEBAEImputer(), LogisticRegression())``.

    Parameters
    ----------
    autoencoder : HEBAETransformer, VAETransformer or WAETransformer, default=None
        A clone of it is fitted. None is ``HEBAETransformer()``.

    Attributes
    ----------
    autoencoder_ : estimator
        The fitted autoencoder. ``autoencoder_.impute(X, n_draws=20)`` draws completed copies.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If `X` had string names.

    See Also
    --------
    HEBAETransformer.impute : What `transform` does.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "autoencoder": [BaseAutoencoder, None]
    }

    def __init__(self, autoencoder: BaseAutoencoder | None = None) -> None:
        self.autoencoder = autoencoder

    @fit_context
    def fit(self, X: ArrayLike | Matrix, y: object = None, **fit_params: Any) -> Self:
        """Fit the autoencoder to rows with missing entries.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            NaN where an entry is missing.
        y : None
            Ignored, present for pipelines.
        **fit_params : dict
            Passed to the `fit` of the autoencoder.

        Returns
        -------
        self
            The fitted imputer.

        Raises
        ------
        TypeError, ValueError, NonFiniteLossError
            As the `fit` of the autoencoder.
        """
        autoencoder: Any = (
            HEBAETransformer() if self.autoencoder is None else clone(self.autoencoder)
        )
        self.autoencoder_ = autoencoder.fit(X, **fit_params)
        adopt_features(self, autoencoder)
        return self

    def transform(self, X: ArrayLike | Matrix) -> Any:
        """Return rows whose missing entries have their expected values.

        The result is deterministic and does not depend on the other rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray or CSR matrix of shape (n_samples, n_features)
            As `HEBAETransformer.impute` returns it for an array. A frame if `set_output` says so,
            or if columns have families of their own.

        Raises
        ------
        NotFittedError, ValueError
            As `HEBAETransformer.impute`.
        """
        check_is_fitted(self)
        # An array for a frame, unless `set_output` asks for frames, as scikit-learn's imputers.
        filled = self.autoencoder_.impute(X)
        is_mixed = self.autoencoder_.fitted_.columns is not None
        return filled.to_numpy() if hasattr(filled, "to_numpy") and not is_mixed else filled

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        own = (self.autoencoder or HEBAETransformer()).__sklearn_tags__()
        tags.input_tags.sparse = own.input_tags.sparse
        tags.input_tags.allow_nan = True
        tags.input_tags.positive_only = own.input_tags.positive_only
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _described_model(self) -> BaseAutoencoder:
        fitted: BaseAutoencoder = self.autoencoder_
        return fitted

    def __sklearn_is_fitted__(self) -> bool:
        return "autoencoder_" in self.__dict__
