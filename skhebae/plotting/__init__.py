"""Displays of fitted estimators; they require matplotlib (``pip install 'skhebae[plot]'``)."""

from skhebae.plotting.covariance import CovarianceDisplay
from skhebae.plotting.gap import BoundGapDisplay
from skhebae.plotting.latent import LatentDisplay
from skhebae.plotting.novelty import NoveltyDisplay
from skhebae.plotting.reconstruction import ReconstructionDisplay
from skhebae.plotting.regularisation import RegularisationDisplay
from skhebae.plotting.training import TrainingDisplay

__all__ = [
    "BoundGapDisplay",
    "CovarianceDisplay",
    "LatentDisplay",
    "NoveltyDisplay",
    "ReconstructionDisplay",
    "RegularisationDisplay",
    "TrainingDisplay",
]
