"""The single-cell face: AnnData in, AnnData out, with scanpy's conventions."""

from skhebae.tl.embedding import hebae, vae, wae
from skhebae.tl.model import denoise, project, sample, score

__all__ = ["denoise", "hebae", "project", "sample", "score", "vae", "wae"]
