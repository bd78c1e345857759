"""Likelihoods p(x | z): what the decoder's output says about a row; one family per file."""

from skhebae.likelihoods.base import Decoded, Evidence, Likelihood, identity_calibration
from skhebae.likelihoods.bernoulli import BernoulliLikelihood
from skhebae.likelihoods.binned import BinnedLikelihood
from skhebae.likelihoods.categorical import CategoricalLikelihood
from skhebae.likelihoods.circular import Circular, CircularLikelihood
from skhebae.likelihoods.count_scaling import CountScaling
from skhebae.likelihoods.counts import (
    LARGEST_COUNT,
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
    are_counts,
)
from skhebae.likelihoods.families import (
    BY_DTYPE,
    choose_families,
    is_mixed,
    pack_families,
    unpack_families,
)
from skhebae.likelihoods.gaussian import NOISE_VARIANCE_FLOOR, GaussianLikelihood
from skhebae.likelihoods.mixed import MixedLikelihood, MixedScaling
from skhebae.likelihoods.quantile import QuantileLikelihood
from skhebae.likelihoods.registry import (
    LIKELIHOODS,
    MIXED,
    find_likelihood,
    likelihood_name,
    resolve_likelihood,
)
from skhebae.likelihoods.student_t import StudentTLikelihood

__all__ = [
    "BY_DTYPE",
    "LARGEST_COUNT",
    "LIKELIHOODS",
    "MIXED",
    "NOISE_VARIANCE_FLOOR",
    "BernoulliLikelihood",
    "BinnedLikelihood",
    "CategoricalLikelihood",
    "Circular",
    "CircularLikelihood",
    "CountLikelihood",
    "CountScaling",
    "Decoded",
    "Evidence",
    "GaussianLikelihood",
    "Likelihood",
    "MixedLikelihood",
    "MixedScaling",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "QuantileLikelihood",
    "StudentTLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
    "are_counts",
    "choose_families",
    "find_likelihood",
    "identity_calibration",
    "is_mixed",
    "likelihood_name",
    "pack_families",
    "resolve_likelihood",
    "unpack_families",
]
