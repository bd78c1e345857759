"""The scikit-learn estimators."""

from skhebae.estimators.hebae import HEBAETransformer
from skhebae.estimators.vae import VAETransformer
from skhebae.estimators.wae import WAETransformer

__all__ = ["HEBAETransformer", "VAETransformer", "WAETransformer"]
