"""The scikit-learn estimators."""

from skhebae.estimators.base import BaseAutoencoder
from skhebae.estimators.custom import AutoencoderTransformer
from skhebae.estimators.hebae import HEBAETransformer
from skhebae.estimators.imputer import HEBAEImputer
from skhebae.estimators.novelty import NoveltyDetector
from skhebae.estimators.vae import VAETransformer
from skhebae.estimators.wae import WAETransformer

__all__ = [
    "AutoencoderTransformer",
    "BaseAutoencoder",
    "HEBAEImputer",
    "HEBAETransformer",
    "NoveltyDetector",
    "VAETransformer",
    "WAETransformer",
]
