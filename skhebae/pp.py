"""The embeddings once more: as `scanpy.pp.pca` and `scanpy.tl.pca` are one function."""

from skhebae.tl import hebae, vae, wae

__all__ = ["hebae", "vae", "wae"]
