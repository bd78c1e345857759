"""Names of likelihood families, and families of the user's own."""

from __future__ import annotations

from skhebae.likelihoods.base import Likelihood
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.counts import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.likelihoods.gaussian import GaussianLikelihood

#: Families that users choose by name.
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "bernoulli": BernoulliLikelihood,
    "poisson": PoissonLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}


def find_likelihood(likelihood: str | type[Likelihood]) -> type[Likelihood]:
    """Return the family that the parameter `likelihood` stands for: a name, or the class itself.

    Raises
    ------
    TypeError
        If it is neither a known name nor a subclass of `Likelihood`.
    """
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
