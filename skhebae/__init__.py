"""Autoencoders with regularised latent spaces as scikit-learn transformers."""

from skhebae import pp, tl
from skhebae.estimators import HEBAETransformer, VAETransformer, WAETransformer

__version__ = "0.1.0"

__all__ = ["HEBAETransformer", "VAETransformer", "WAETransformer", "pp", "tl"]
