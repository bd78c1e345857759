"""Likelihoods p(x | z): what the decoder's output says about a row; one family a file."""

from skhebae.likelihoods.base import Likelihood
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.counts import (
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.likelihoods.gaussian import NOISE_VARIANCE_FLOOR, GaussianLikelihood

__all__ = [
    "NOISE_VARIANCE_FLOOR",
    "BernoulliLikelihood",
    "CountLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
]
