"""The state of an estimator as a pickle and as a file hold it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

from skhebae._sklearn import validate_parameter_constraints
from skhebae.exceptions import ModelFileError
from skhebae.files import check_integer
from skhebae.fitted.build import FACTORIES as IN_ARCHITECTURE
from skhebae.fitted.build import Architecture, factory_name
from skhebae.fitted.model_file import read_model
from skhebae.fitted.packed import check_packed
from skhebae.likelihoods import BY_DTYPE, LIKELIHOODS, MIXED, pack_families, unpack_families

if TYPE_CHECKING:
    from skhebae.estimators.base import BaseAutoencoder

E = TypeVar("E", bound="BaseAutoencoder")

#: Parameters that may be code of the user's, which a file only names.
FACTORIES = ("encoder", "decoder", "objective", "likelihood", "prior")

#: Private keys of a packed `FittedAutoencoder`.
PRIVATE = {
    "_architecture",
    "_axes",
    "_fills_linearly",
    "_mixture",
    "_moments",
    "_noise_covariance",
    "_scaling",
    "_seed",
    "_weights",
}

#: Its public keys, apart from those that the likelihood has learned.
PUBLIC = {
    "anndata_",
    "batches_",
    "explained_variance_ratio_",
    "history_",
    "latent_covariance_",
    "latent_mean_",
    "n_iter_",
    "training_",
}


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a pickled state into the estimator's own and that of its fitted value, if any."""
    if "_weights" not in state:
        return state, {}
    packed = {name: value for name, value in state.items() if name in PRIVATE | PUBLIC}
    return {name: value for name, value in state.items() if name not in packed}, packed


def file_parameters(params: dict[str, Any], fitted: Architecture) -> dict[str, Any]:
    """Return parameters as a file can hold them; code of the user's becomes its name.

    The names are those of the code that was fitted, whatever the parameters say by now.
    """
    params = dict(params)
    sizes = params["hidden_layer_sizes"]
    # `fit` takes any sequence of integers; JSON has lists, and we tuples.
    kind = list if isinstance(sizes, list) else tuple
    params["hidden_layer_sizes"] = kind(int(size) for size in sizes)
    if not isinstance(params["random_state"], Integral):
        params["random_state"] = None
    if callable(params["learning_rate"]):
        params["learning_rate"] = "linear"
    for name in IN_ARCHITECTURE:
        if name in params and not (name == "prior" and "tilt" in params):
            params[name] = factory_name(getattr(fitted, name))
    if "tilt" in params:
        params["prior"] = "standard" if fitted.tilt is None else "tilted"
    if isinstance(params["likelihood"], Mapping) and not callable(fitted.likelihood):
        params["likelihood"] = pack_families(params["likelihood"])
    elif callable(params["likelihood"]) or callable(fitted.likelihood):
        is_mixed = fitted.likelihood == MIXED
        params["likelihood"] = "from_dtype" if is_mixed else factory_name(fitted.likelihood)
    if "objective" in params:
        params["objective"] = factory_name(params["objective"])
    return params


def is_kept(name: str) -> bool:
    """Whether a file keeps an attribute of an estimator in addition to its fitted value.

    What `fit` sets, and the user's set_output; not what else hangs on the object.
    """
    return name == "_sklearn_output_config" or (
        name.endswith("_") and not name.startswith("_") and name != "fitted_"
    )


def file_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return what a file keeps of an estimator in addition to its fitted value."""
    return {name: value for name, value in attributes.items() if is_kept(name)}


def load_estimator(cls: type[E], path: str | os.PathLike[str], factories: dict[str, Any]) -> E:
    """Read an estimator of a class from a file, with the user's code put back.

    Raises
    ------
    FileNotFoundError, ModelFileError, TypeError, ValueError
        As `BaseAutoencoder.load`.
    """
    params, fitted = read_model(path, cls.__name__)
    return rebuild_estimator(cls, path, params, fitted, factories)


def rebuild_estimator(
    cls: type[E],
    path: str | os.PathLike[str],
    params: dict[str, Any],
    fitted: dict[str, Any],
    factories: dict[str, Any],
    kind: str | None = None,
) -> E:
    """Make an estimator of what a file says about it.

    Parameters
    ----------
    cls, path, params, fitted, factories
        Of the estimator.
    kind : str, optional
        The class that reads the file, for messages; `cls` by default.

    Raises
    ------
    ModelFileError, TypeError, ValueError
        As `BaseAutoencoder.load`.
    """
    kind = cls.__name__ if kind is None else kind
    restore_factories(path, kind, params, fitted, factories)
    with refuse_damaged(path, kind):
        estimator = cls(**params)
        from_file = {name: value for name, value in params.items() if name not in factories}
        validate_parameter_constraints(
            estimator._parameter_constraints, from_file, caller_name=cls.__name__
        )
    if factories:
        estimator.make_objective()  # names what is wrong with a function of the user's
    with refuse_damaged(path, kind):
        check_attributes(fitted)
        check_packed(fitted)
        estimator.__setstate__({**estimator.__dict__, **fitted})
    return estimator


@contextmanager
def refuse_damaged(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turn whatever a damaged file leads to into an error that names it.

    Raises
    ------
    ModelFileError
        If the block raises.
    """
    try:
        yield
    except Exception as error:
        what = str(error) if isinstance(error, TypeError | ValueError) else repr(error)
        raise ModelFileError(
            f"{str(path)!r} holds no {kind} that this skhebae knows ({what:.500})."
        ) from error


def check_attributes(fitted: dict[str, Any]) -> None:
    """Check what a file keeps of an estimator in addition to its fitted value.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    for name in fitted:
        if name not in PRIVATE | PUBLIC and not is_kept(name):
            raise ValueError(f"{name[:80]!r} is no attribute of a fitted estimator")
    n_features = fitted["_architecture"].get("n_features")
    check_integer(fitted.get("n_features_in_"), "n_features_in_", 1)
    columns = fitted["_scaling"].get("columns")
    if columns is not None:  # of a mixed frame
        n_features = len(columns["items"])
    if fitted["n_features_in_"] != n_features:
        raise ValueError("n_features_in_ is not the number of features of the networks")
    if "feature_names_in_" in fitted and fitted["feature_names_in_"].shape != (n_features,):
        raise ValueError("feature_names_in_ has not one name for each feature")
    n_missing = (fitted.get("training_") or {}).get("n_missing")
    if n_missing is not None and len(n_missing) != n_features:
        raise ValueError("the record of training has not one count for each feature")
    if not isinstance(fitted.get("_sklearn_output_config", {}), dict):
        raise ValueError("_sklearn_output_config is not a dict")


def restore_factories(
    path: str | os.PathLike[str],
    kind: str,
    params: dict[str, Any],
    fitted: dict[str, Any],
    given: dict[str, Any],
) -> None:
    """Put the user's code back in place of its names in `params` and `fitted`.

    Raises
    ------
    TypeError
        If a name in `given` is not one of `FACTORIES`.
    ValueError
        If code is missing, or superfluous.
    ModelFileError
        If the file has something else in the place of a name.
    """
    unknown = sorted(set(given) - set(FACTORIES))
    if unknown:
        raise TypeError(
            f"load takes the user's own {', '.join(FACTORIES)}, but got {', '.join(unknown)}. "
            "Other parameters are in the file; change them with set_params after loading."
        )
    if isinstance(params.get("likelihood"), list):
        params["likelihood"] = restore_families(path, kind, params, fitted, given)
        given = {name: factory for name, factory in given.items() if name != "likelihood"}
    for name in FACTORIES:
        saved, factory = params.get(name), given.get(name)
        if name == "likelihood" and isinstance(saved, dict):
            continue
        if not isinstance(saved, str | None):
            raise ModelFileError(
                f"{str(path)!r} has {type(saved).__name__} in place of a name as {name}: it is "
                "damaged."
            )
        is_name = (name == "likelihood" and saved in {*LIKELIHOODS, *BY_DTYPE}) or (
            name == "prior" and "tilt" in params  # one of ours
        )
        is_code = saved is not None and not is_name
        if is_code != (factory is not None):
            code = f", {name}={saved}" if is_code else ""
            raise ValueError(
                f"{str(path)!r} was fitted with {name}={saved}. Load it with "
                f"{kind}.load(path{code})."
            )
        if is_code:
            params[name] = factory
        if name in IN_ARCHITECTURE or (name == "likelihood" and is_code):
            fitted["_architecture"][name] = factory


def restore_families(
    path: str | os.PathLike[str],
    kind: str,
    params: dict[str, Any],
    fitted: dict[str, Any],
    given: dict[str, Any],
) -> dict[Any, Any]:
    """Return the parameter `likelihood` of a mixed table, with the user's classes put back.

    Raises
    ------
    ModelFileError
        If the file has something else in its place.
    ValueError
        If classes are missing, or superfluous.
    """
    own = given.get("likelihood") or {}
    with refuse_damaged(path, kind):
        families, missing = unpack_families(params["likelihood"], own)
        for item in fitted["_scaling"]["columns"]["items"]:
            item["family"] = own.get(item["name"], item["family"])
    if missing or set(own) - set(families):
        names = {name: family for name, family in families.items() if name in missing}
        raise ValueError(
            f"{str(path)!r} was fitted with classes of your own as families of columns: {names}. "
            f"Load it with {kind}.load(path, likelihood={{name: class}}) for these and no others."
        )
    return families
