"""Families of the columns of a mixed table: their names, and which column gets which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from skhebae.likelihoods.base import Likelihood
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.binned import BinnedLikelihood
from skhebae.likelihoods.categorical import CategoricalLikelihood
from skhebae.likelihoods.circular import Circular, CircularLikelihood
from skhebae.likelihoods.gaussian import GaussianLikelihood
from skhebae.likelihoods.quantile import QuantileLikelihood
from skhebae.likelihoods.student_t import StudentTLikelihood

#: Kinds of columns that hold numbers.
NUMBERS = frozenset({"float", "integer", "boolean"})
TIMES = frozenset({"datetime", "timedelta"})
LEVELS = frozenset({"float", "integer", "boolean", "text", "category", "ordered"})


class Family(NamedTuple):
    """A family of columns.

    Attributes
    ----------
    likelihood : type of Likelihood
    kinds : frozenset of str
        Columns that may have it.
    has_levels : bool
        Whether values are levels, which codes stand for.
    """

    likelihood: type[Likelihood]
    kinds: frozenset[str]
    has_levels: bool = False


#: Families by name.
FAMILIES = {
    "gaussian": Family(GaussianLikelihood, NUMBERS | TIMES),
    "student_t": Family(StudentTLikelihood, NUMBERS | TIMES),
    "quantile": Family(QuantileLikelihood, NUMBERS | TIMES),
    "binned": Family(BinnedLikelihood, NUMBERS | TIMES),
    "integer": Family(BinnedLikelihood, frozenset({"float", "integer"})),
    "datetime": Family(BinnedLikelihood, TIMES),
    "ordinal": Family(QuantileLikelihood, LEVELS, has_levels=True),
    "boolean": Family(BernoulliLikelihood, frozenset({"boolean"})),
    "categorical": Family(CategoricalLikelihood, LEVELS, has_levels=True),
    "circular": Family(CircularLikelihood, NUMBERS | {"timedelta"}),
}

#: Family of a column by its kind.
DEFAULTS = {
    "float": "binned",
    "integer": "integer",
    "boolean": "boolean",
    "text": "categorical",
    "category": "categorical",
    "ordered": "ordinal",
    "datetime": "datetime",
    "timedelta": "binned",
}

#: Values of the parameter `likelihood` that choose by dtype.
BY_DTYPE = ("auto", "from_dtype")


def find_family(family: str | type[Likelihood]) -> type[Likelihood]:
    """Return the likelihood of a family by its name, or the class itself.

    Raises
    ------
    ValueError
        If there is no such family.
    """
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family].likelihood
    if isinstance(family, type) and issubclass(family, Likelihood):
        return family
    raise ValueError(
        f"{family!r} is no family of columns. Use one of {sorted(FAMILIES)}, Circular(period=...), "
        "or a subclass of skhebae.likelihoods.Likelihood."
    )


def is_mixed(likelihood: Any, kinds: Mapping[Any, str]) -> bool:
    """Whether a frame with columns of these kinds has one family per column.

    Where the parameter `likelihood` is "auto", one with numbers only has not.
    """
    if isinstance(likelihood, str) and likelihood == "auto":
        return not set(kinds.values()) <= NUMBERS
    return not isinstance(likelihood, type) and (
        likelihood == "from_dtype" or isinstance(likelihood, Mapping)
    )


def choose_families(
    kinds: Mapping[Any, str], likelihood: Any
) -> dict[Any, tuple[Any, dict[str, Any], bool]]:
    """Return the family of each column, its options, and whether its values are levels.

    Parameters
    ----------
    kinds : mapping
        Kind of each column, as it follows from its dtype.
    likelihood : "auto", "from_dtype" or mapping of name to family

    Raises
    ------
    ValueError
        If the mapping names no column, or a family that does not take what the column holds.
    """
    given = dict(likelihood) if isinstance(likelihood, Mapping) else {}
    unknown = [name for name in given if name not in kinds]
    if unknown:
        raise ValueError(
            f"likelihood= names columns that X does not have: {unknown[:5]}. It has "
            f"{list(kinds)[:20]}."
        )
    return {name: one_family(name, kind, given.get(name)) for name, kind in kinds.items()}


def one_family(name: Any, kind: str, given: Any) -> tuple[Any, dict[str, Any], bool]:
    """Return family, options and whether it has levels, of one column.

    Raises
    ------
    ValueError
        If the family does not take what the column holds.
    """
    options: dict[str, Any] = {}
    family: Any = DEFAULTS[kind] if given is None else given
    if isinstance(family, Circular):
        family, options = "circular", {"period": float(family.period)}
    elif isinstance(family, str) and family == "circular":
        raise ValueError(
            f"likelihood={{{name!r}: 'circular'}} does not say the period. Use "
            "skhebae.likelihoods.Circular(period=24), for example."
        )
    find_family(family)
    described = FAMILIES[family] if isinstance(family, str) else Family(family, NUMBERS | TIMES)
    if kind not in described.kinds:
        raise ValueError(
            f"likelihood={{{name!r}: {family!r}}} does not go with the column, which holds "
            f"{kind}; it takes {', '.join(sorted(described.kinds))}. {DEFAULTS[kind]!r} does."
        )
    return family, options, described.has_levels


def pack_families(likelihood: Mapping[Any, Any]) -> list[list[Any]]:
    """Return a mapping of columns to families as JSON values; a class becomes its name."""
    packed = []
    for name, family in likelihood.items():
        if isinstance(family, Circular):
            packed.append([name, "circular", float(family.period)])
        else:
            is_name = isinstance(family, str)
            packed.append([name, family if is_name else family.__qualname__, None])
    return packed


def unpack_families(
    packed: list[list[Any]], own: Mapping[Any, Any]
) -> tuple[dict[Any, Any], list[Any]]:
    """Invert `pack_families`, with classes of the user's by name of column.

    Returns
    -------
    families : dict
    missing : list
        Columns whose class is not given.
    """
    families: dict[Any, Any] = {}
    missing = []
    for name, family, period in packed:
        if period is not None:
            families[name] = Circular(period)
        elif family in FAMILIES:
            families[name] = family
        else:
            families[name] = own.get(name, family)
            if name not in own:
                missing.append(name)
    return families, missing
