"""Likelihoods p(x | z): what the decoder's output says about a row; one family per file."""

from skhebae.likelihoods.base import Decoded, Evidence, Likelihood, identity_calibration
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.count_scaling import CountScaling
from skhebae.likelihoods.counts import (
    LARGEST_COUNT,
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
    are_counts,
)
from skhebae.likelihoods.gaussian import NOISE_VARIANCE_FLOOR, GaussianLikelihood
from skhebae.likelihoods.registry import LIKELIHOODS, find_likelihood, likelihood_name

__all__ = [
    "LARGEST_COUNT",
    "LIKELIHOODS",
    "NOISE_VARIANCE_FLOOR",
    "BernoulliLikelihood",
    "CountLikelihood",
    "CountScaling",
    "Decoded",
    "Evidence",
    "GaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
    "are_counts",
    "find_likelihood",
    "identity_calibration",
    "likelihood_name",
]
