"""Autoencoders with regularised latent spaces as scikit-learn transformers."""

import importlib
from typing import Any

from skhebae.estimators import (
    AutoencoderTransformer,
    HEBAEImputer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)

__version__ = "0.2.0"

__all__ = [
    "AutoencoderTransformer",
    "HEBAEImputer",
    "HEBAETransformer",
    "NoveltyDetector",
    "VAETransformer",
    "WAETransformer",
    "pp",
    "tl",
]


def __getattr__(name: str) -> Any:
    """Import the single-cell face when it is first used."""
    if name in ("pp", "tl"):
        return importlib.import_module(f"skhebae.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
