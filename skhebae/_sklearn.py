"""Private and untyped scikit-learn names, in the one module that a new release can break.

scikit-learn ships no types. To a type checker its base classes would be `Any`, and so would
every attribute of an estimator, misspelt or not. What our estimators use of them is declared here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from sklearn.base import _fit_context
from sklearn.utils import Tags
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import (
    Interval,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)

__all__ = [
    "BaseEstimator",
    "ClassNamePrefixFeaturesOutMixin",
    "DisplayMixin",
    "Interval",
    "OneToOneFeatureMixin",
    "OutlierMixin",
    "RealNotInt",
    "StrOptions",
    "Tags",
    "TransformerMixin",
    "fit_context",
    "take_rows",
    "validate_parameter_constraints",
]

#: Where the pages of the reference are, ending in "/", for the link of scikit-learn's display.
#: Without an address there is no link.
DOCS_URL = ""

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:

    class BaseEstimator:
        """What we use of `sklearn.base.BaseEstimator`."""

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def __sklearn_tags__(self) -> Any: ...
        def __getstate__(self) -> dict[str, Any]: ...
        def __setstate__(self, state: dict[str, Any]) -> None: ...
        def _validate_params(self) -> None: ...
        def _repr_html_inner(self) -> str: ...
        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]: ...

    class TransformerMixin:
        """What we use of `sklearn.base.TransformerMixin`."""

    class OutlierMixin:
        """What we use of `sklearn.base.OutlierMixin`."""

    class ClassNamePrefixFeaturesOutMixin:
        """What we use of `sklearn.base.ClassNamePrefixFeaturesOutMixin`."""

        def get_feature_names_out(self, input_features: object = None) -> Any: ...

    class OneToOneFeatureMixin:
        """What we use of `sklearn.base.OneToOneFeatureMixin`."""

        def get_feature_names_out(self, input_features: object = None) -> Any: ...

else:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        OneToOneFeatureMixin,
        OutlierMixin,
        TransformerMixin,
    )


class DisplayMixin(BaseEstimator):
    """HTML below scikit-learn's own display, and the link in that.

    `_repr_html_` is a property of scikit-learn's, there or not by ``set_config(display=...)``. It
    returns `_repr_html_inner`, which from 1.6 to 1.9 is what a notebook shows; a mime bundle has
    the same.
    """

    _doc_link_module = "skhebae"

    def _html_below(self) -> str:
        """Return HTML that follows scikit-learn's, perhaps nothing."""
        return ""

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + self._html_below()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._html_below()
        return bundle

    def _get_doc_link(self) -> str:
        """Return the address of the class in the reference; "" for classes of the user's."""
        cls = type(self)
        if not DOCS_URL or cls.__module__.split(".")[0] != self._doc_link_module:
            return ""
        return f"{DOCS_URL}api/skhebae.{cls.__name__}.html"


def fit_context(method: F) -> F:
    """Validate the estimator's parameters before `method`, as scikit-learn's own methods do."""
    return cast(F, _fit_context(prefer_skip_nested_validation=True)(method))
