"""Displays of fitted estimators; they require matplotlib (``pip install 'skhebae[plot]'``)."""

from skhebae.plotting.covariance import CovarianceDisplay
from skhebae.plotting.latent import LatentDisplay
from skhebae.plotting.novelty import NoveltyDisplay
from skhebae.plotting.reconstruction import ReconstructionDisplay
from skhebae.plotting.training import TrainingDisplay

__all__ = [
    "CovarianceDisplay",
    "LatentDisplay",
    "NoveltyDisplay",
    "ReconstructionDisplay",
    "TrainingDisplay",
]
