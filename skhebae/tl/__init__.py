"""The single-cell face: AnnData in, AnnData out, with scanpy's conventions."""

from skhebae.tl.embedding import hebae, vae, wae
from skhebae.tl.model import denoise, project, sample, score
from skhebae.tl.novelty import novelty, novelty_detector

__all__ = [
    "denoise",
    "hebae",
    "novelty",
    "novelty_detector",
    "project",
    "sample",
    "score",
    "vae",
    "wae",
]
