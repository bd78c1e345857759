"""Methods of ``python -m benchmarks single-cell``: an embedding, and a map for new cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray
from sklearn.decomposition import PCA

from skhebae import tl

Array = NDArray[Any]

N_COMPONENTS = 10

#: Epochs of scVI, with batches and without; with many cells fewer by its own rule.
SCVI_EPOCHS = {True: 200, False: 100}

#: Module that a method needs besides ours, and what to install for it.
NEEDED = {"UMAP": ("umap", "umap-learn"), "scVI": ("scvi", "scvi-tools")}


class Fitted(NamedTuple):
    """Codes of the cells of a fit, and a map for new ones."""

    codes: Array
    project: Callable[[Any], Array]


#: From cells as `prepared`, the column of their batches (None: none) and a seed.
Method = Callable[[Any, str | None, int], Fitted]


def ours(name: str, layer: str | None = None, **params: Any) -> Method:
    """One of `skhebae.tl`."""

    def fit(adata: Any, batch_key: str | None, seed: int) -> Fitted:
        embed = getattr(tl, name)
        fitted, model = embed(
            adata,
            N_COMPONENTS,
            layer=layer,
            mask_var=None,
            batch_key=batch_key,
            key_added="codes",
            random_state=seed,
            copy=True,
            return_model=True,
            **params,
        )

        def project(query: Any) -> Array:
            codes: Array = tl.project(query, model, key_added="codes", copy=True).obsm["codes"]
            return codes

        return Fitted(fitted.obsm["codes"], project)

    return fit


def pca(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Principal components of log-normalised values."""
    model = PCA(N_COMPONENTS, random_state=seed)
    codes = model.fit_transform(adata.layers["log"])
    return Fitted(codes, lambda query: model.transform(query.layers["log"]))


def umap(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """UMAP of log-normalised values."""
    from umap import UMAP

    model = UMAP(n_components=N_COMPONENTS, random_state=seed, n_jobs=1)
    codes = model.fit_transform(adata.layers["log"])
    return Fitted(codes, lambda query: model.transform(query.layers["log"]))


def scvi(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Run scVI with its defaults but for the epochs; new cells by scArches' surgery."""
    import scvi as library

    library.settings.seed = seed
    adata = adata.copy()
    library.model.SCVI.setup_anndata(adata, batch_key=batch_key)
    model = library.model.SCVI(adata, n_latent=N_COMPONENTS)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    by_rule = round(20_000 / adata.n_obs * 400)
    model.train(max_epochs=min(SCVI_EPOCHS[batch_key is not None], by_rule), **quiet)

    def project(query: Any) -> Array:
        mapped = library.model.SCVI.load_query_data(query.copy(), model)
        mapped.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, **quiet)
        codes: Array = mapped.get_latent_representation()
        return codes

    return Fitted(model.get_latent_representation(), project)


METHODS: dict[str, Method] = {
    "PCA": pca,
    "UMAP": umap,
    "HEBAE": ours("hebae"),
    "HEBAE, log values": ours("hebae", layer="log"),
    "VAE": ours("vae"),
    "WAE": ours("wae"),
    "scVI": scvi,
}

#: What takes batches out of HEBAE's codes: the decoder alone (0) and ever more of the
#: closed form for each batch. 1 is the default, in METHODS.
SHARES: dict[str, Method] = {
    f"HEBAE, batch_share={share:g}": ours("hebae", batch_share=share) for share in (0.0, 0.25, 0.5)
}
