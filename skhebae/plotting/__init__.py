"""Displays of fitted estimators; they require matplotlib (``pip install 'skhebae[plot]'``)."""

from skhebae.plotting.covariance import CovarianceDisplay
from skhebae.plotting.latent import LatentDisplay
from skhebae.plotting.reconstruction import ReconstructionDisplay
from skhebae.plotting.regularisation import RegularisationDisplay
from skhebae.plotting.training import TrainingDisplay

__all__ = [
    "CovarianceDisplay",
    "LatentDisplay",
    "ReconstructionDisplay",
    "RegularisationDisplay",
    "TrainingDisplay",
]
