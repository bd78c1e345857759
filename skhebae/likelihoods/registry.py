"""Names of likelihood families, and families of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skhebae.likelihoods.base import Likelihood
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.likelihoods.families import BY_DTYPE
from skhebae.likelihoods.gaussian import GaussianLikelihood
from skhebae.likelihoods.mixed import MixedLikelihood

#: Families that users choose by name.
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "bernoulli": BernoulliLikelihood,
    "poisson": PoissonLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}

#: Name of the family of mixed tables, which follows from a frame and not from its name.
MIXED = "mixed"


def resolve_likelihood(likelihood: Any, *, is_mixed: bool) -> str | type[Likelihood]:
    """Return the family that the parameter `likelihood` stands for on a table.

    Parameters
    ----------
    likelihood : str, type or mapping
    is_mixed : bool
        Whether the columns of the table have families of their own.

    Raises
    ------
    TypeError
        If there are to be families by name, and columns have none.
    """
    if is_mixed:
        return MIXED
    if isinstance(likelihood, Mapping):
        raise TypeError(
            "likelihood= maps names of columns to families, but X is no frame of pandas or polars. "
            "Pass a frame, or one family for all columns."
        )
    if isinstance(likelihood, str) and likelihood in BY_DTYPE:
        return "gaussian"
    return likelihood  # type: ignore[no-any-return]


def find_likelihood(likelihood: str | type[Likelihood]) -> type[Likelihood]:
    """Return the family that the parameter `likelihood` stands for: a name, or the class itself.

    Raises
    ------
    TypeError
        If it is neither a known name nor a subclass of `Likelihood`.
    """
    if isinstance(likelihood, str) and likelihood == MIXED:
        return MixedLikelihood
    if isinstance(likelihood, str) and likelihood in LIKELIHOODS:
        return LIKELIHOODS[likelihood]
    if isinstance(likelihood, type) and issubclass(likelihood, Likelihood):
        return likelihood
    raise TypeError(
        f"likelihood={likelihood!r} must be one of {sorted(LIKELIHOODS)}, or a subclass of "
        "skhebae.likelihoods.Likelihood (the class, not an instance: each fit makes its own)."
    )


def likelihood_name(likelihood: str | type[Likelihood]) -> str:
    """Return how messages and files name a family."""
    return likelihood if isinstance(likelihood, str) else likelihood.__qualname__
