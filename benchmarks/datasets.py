"""The data sets that the benchmarks measure on, by name, and their splits.

``load("digits")`` gives a whole set, or None after a line that says why it is not there
and how to get it; ``split`` makes training and test rows of it. Sets that do not come with
scikit-learn are read from a folder, or else fetched by scikit-learn or scanpy.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import socket
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn import datasets as bundled
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

DATA = Path(os.environ.get("SKHEBAE_DATA", Path(__file__).parents[2] / "shared" / "data"))

#: Features kept of single cells and of genotypes, at most.
VARIABLE_FEATURES = 2000

#: Side of the grey patches of photographs, in pixels.
PATCH = 8

#: Side of the central square of a photograph of CelebA, and what it is scaled to.
FACE_CROP, FACE_SIDE = 140, 64

#: Seconds after which a silent server counts as a missing one.
TIMEOUT = 20.0


class Dataset(NamedTuple):
    """A whole set of rows with labels, and how to model it."""

    name: str
    rows: NDArray[np.float32]
    labels: NDArray[Any]
    likelihood: str
    n_components: int
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
    n_components: int
    n_neighbors: int = 5
    likelihood: str = "gaussian"
    image_shape: tuple[int, int, int] | None = None
    name: str = ""


class MissingDataError(Exception):
    """A set that is not here: why, and how to get it."""


def load(name: str, data_dir: Path | None = None) -> Dataset | None:
    """Return a set, or None after a line that says why not and how to get it.

    Looks in ``data_dir``, by default ``$SKHEBAE_DATA`` or ``../shared/data``.
    """
    if name not in _READERS:
        raise ValueError(f"no data set {name!r}; take one of {', '.join(_READERS)}")
    try:
        return _READERS[name](DATA if data_dir is None else Path(data_dir))
    except MissingDataError as missing:
        print(f"{name} skipped: {missing}")
        return None


def load_table(name: str, seed: int, data_dir: Path | None = None) -> Table | None:
    """Load a set and split it; None after a line that says why it is not there."""
    dataset = load(name, data_dir)
    return None if dataset is None else split(dataset, seed)


def split(dataset: Dataset, seed: int) -> Table:
    """Take the set's own split whatever the seed, or else 75/25 at random."""
    n_train = dataset.n_train
    if n_train is None:
        parts = train_test_split(dataset.rows, dataset.labels, test_size=0.25, random_state=seed)
    else:
        whole = (dataset.rows, dataset.labels)
        parts = [part for array in whole for part in (array[:n_train], array[n_train:])]
    train, test, *labels = parts
    if dataset.standardise:
        scaler = StandardScaler().fit(train.astype(np.float64))
        train, test = (scaler.transform(part).astype(np.float32) for part in (train, test))
    how = (dataset.n_components, dataset.n_neighbors, dataset.likelihood)
    return Table(train, test, *labels, *how, dataset.image_shape, dataset.name)


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file, gzipped or not: zeros, type, number of sizes, big-endian sizes, values."""
    types = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        zeros, code, n_sizes = struct.unpack_from(">HBB", content)
        sizes = struct.unpack_from(f">{n_sizes}I", content, 4)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is not an IDX file, or a truncated one: {error}") from error
    if zeros or code not in types:
        raise ValueError(f"{path} is not an IDX file: it begins with {content[:4].hex(' ')}")
    dtype = np.dtype(types[code])
    start = 4 + 4 * n_sizes
    wanted = start + dtype.itemsize * math.prod(sizes)
    if len(content) != wanted:
        raise ValueError(
            f"{path} has {len(content)} bytes, but its header announces {wanted}: "
            "truncated or damaged; get it again"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(sizes)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _plain(name: str, reader: Callable[..., Any], folder: Path, **how: Any) -> Dataset:
    """Return a table that scikit-learn bundles."""
    rows, labels = reader(return_X_y=True)
    return Dataset(name, rows.astype(np.float32), labels, "gaussian", **how)


def _digits(folder: Path) -> Dataset:
    digits = _plain("digits", bundled.load_digits, folder, n_components=10, image_shape=(1, 8, 8))
    return digits._replace(rows=digits.rows / np.float32(16))


def _patches(folder: Path) -> Dataset:
    """Every second 8 x 8 patch of two photographs in grey, none overlapping another."""
    with _missing_unless_it_works("pip install pillow"):
        photographs = bundled.load_sample_images().images
    parts = []
    for photograph in photographs:
        height, width = (PATCH * (size // PATCH) for size in photograph.shape[:2])
        grey = photograph[:height, :width].mean(axis=2) / 255
        tiles = grey.reshape(height // PATCH, PATCH, width // PATCH, PATCH).swapaxes(1, 2)
        parts.append(tiles.reshape(-1, PATCH**2)[::2].astype(np.float32))
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    shape = (1, PATCH, PATCH)
    return Dataset("patches", np.concatenate(parts), labels, "gaussian", 10, image_shape=shape)


def _olivetti(folder: Path) -> Dataset:
    """400 faces of 40 people; scikit-learn checks their SHA-256."""
    with _missing_unless_it_works("connect to the network once; scikit-learn keeps them"):
        rows, labels = bundled.fetch_olivetti_faces(return_X_y=True, n_retries=1)
    shape = (1, 64, 64)
    return Dataset("olivetti", rows.astype(np.float32), labels, "gaussian", 10, image_shape=shape)


def _celeba(folder: Path) -> Dataset:
    """Faces in [0, 1], cropped and scaled; the last tenth by file name is for tests.

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
    with _missing_unless_it_works("pip install pillow"):
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
    return Dataset("celeba", rows, labels, "gaussian", 64, image_shape=shape, n_train=n_train)


@contextmanager
def _missing_unless_it_works(cure: str) -> Iterator[None]:
    """Say that a set is missing where the network or a package is; do not wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # the fetchers have no argument for it
    try:
        yield
    except (OSError, HTTPException, ImportError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise MissingDataError(f"{message}; {cure}") from error
    finally:
        socket.setdefaulttimeout(before)


_IDX_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")

#: SHA-256 of the published files, unpacked. Those of Fashion-MNIST are of contents that,
#: packed as published, have the MD5 sums of github.com/zalandoresearch/fashion-mnist.
_PUBLISHED = {
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def idx_sha256(values: NDArray[np.uint8]) -> str:
    """SHA-256 of the IDX file that holds these bytes, wherever they came from."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return hashlib.sha256(header + values.tobytes()).hexdigest()


def _mnist(name: str, openml: str, source: str, folder: Path) -> Dataset:
    """70,000 grey images in [0, 1], split as published."""
    folder = folder / name
    if folder.is_dir():
        parts = [read_idx(_find_idx(folder, part, source)) for part in _IDX_PARTS]
    else:
        cure = f"connect to the network once, or put the four files of {source} into {folder}"
        with _missing_unless_it_works(cure):
            parts = _fetch_openml(openml)
    for part, values, published in zip(_IDX_PARTS, parts, _PUBLISHED[name], strict=True):
        if idx_sha256(values) != published:
            warnings.warn(f"{part} of {name} differ from what {source} published", stacklevel=2)
    train, y_train, test, y_test = parts
    if len(train) != len(y_train) or len(test) != len(y_test):
        sizes = [len(part) for part in parts]
        raise ValueError(f"{folder} has other numbers of images than of labels: {sizes}")
    images = np.concatenate([train, test])
    rows = np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
    labels = np.concatenate([y_train, y_test])
    shape = (1, *images.shape[1:])
    return Dataset(name, rows, labels, "bernoulli", 10, 10, shape, n_train=len(train))


def _find_idx(folder: Path, part: str, source: str) -> Path:
    """Return the file of one part, in any of the spellings it goes by."""
    kind = "idx3-ubyte" if part.endswith("images") else "idx1-ubyte"
    for name in (f"{part}{mark}{kind}{end}" for mark in "-." for end in (".gz", "")):
        if (folder / name).is_file():
            return folder / name
    raise MissingDataError(f"no {part}-{kind}.gz in {folder}; take it from {source}")


def _fetch_openml(name: str) -> list[NDArray[np.uint8]]:
    """Return the four parts as OpenML has them; scikit-learn caches, and checks their MD5."""
    rows, labels = bundled.fetch_openml(
        name, version=1, as_frame=False, return_X_y=True, n_retries=1
    )
    images = rows.astype(np.uint8).reshape(-1, 28, 28)
    digits = labels.astype(np.uint8)
    return [images[:60000], digits[:60000], images[60000:], digits[60000:]]


def _counts(name: str, file: str, fetch: Callable[[Any], Any] | str, folder: Path) -> Dataset:
    """Single cells, log-normalised, their most variable genes; labelled by cell type."""
    adata = _anndata(file, fetch, folder)
    import scanpy

    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    if adata.n_vars > VARIABLE_FEATURES:
        scanpy.pp.highly_variable_genes(adata, n_top_genes=VARIABLE_FEATURES, subset=True)
    X = adata.X.toarray() if issparse(adata.X) else adata.X
    labels = adata.obs["cell_type"].to_numpy(dtype=str)
    return Dataset(name, np.asarray(X, dtype=np.float32), labels, "gaussian", 10)


def _hapmap(folder: Path) -> Dataset:
    """Genotypes (0, 1, 2 copies) of four populations, some of them relatives.

    Missing ones are filled in with the mean of the whole set, before any split.
    """
    adata = _anndata("hapmap_geno.h5ad", "genotypes of HapMap phase 2 by `population`", folder)
    genotypes = np.asarray(adata.X, dtype=np.float64)
    X = SimpleImputer(keep_empty_features=True).fit_transform(genotypes)
    variance = X.var(axis=0)
    kept = np.argsort(-variance, kind="stable")[:VARIABLE_FEATURES]
    kept = np.sort(kept[variance[kept] > 1e-12])  # of constant features nothing is left
    labels = adata.obs["population"].to_numpy(dtype=str)
    return Dataset("hapmap", X[:, kept].astype(np.float32, order="C"), labels, "gaussian", 10)


def _anndata(file: str, fetch: Callable[[Any], Any] | str, folder: Path) -> Any:
    """Read a file, else fetch it with scanpy; a str says what the file is when none can."""
    with _missing_unless_it_works("pip install 'skhebae[anndata]'"):
        import anndata
        import scanpy
    path = folder / file
    if path.is_file():
        return anndata.read_h5ad(path)
    cure = f"put {file} into {folder}, or set SKHEBAE_DATA to the folder that has it"
    if isinstance(fetch, str):
        raise MissingDataError(f"no file {path}: {fetch}; {cure}")
    before = scanpy.settings.datasetdir
    # By default scanpy would keep downloads in the folder it happens to be called from.
    scanpy.settings.datasetdir = Path(bundled.get_data_home()) / "scanpy"
    try:
        with _missing_unless_it_works(f"connect to the network once, or {cure}"):
            return fetch(scanpy)
    finally:
        scanpy.settings.datasetdir = before


def _fetch_pbmc3k(scanpy: Any) -> Any:
    """Return counts of the cells that scanpy's tutorial annotates, for genes they have."""
    annotated = scanpy.datasets.pbmc3k_processed()
    adata = scanpy.datasets.pbmc3k()[annotated.obs_names].copy()
    scanpy.pp.filter_genes(adata, min_cells=1)
    adata.obs["cell_type"] = annotated.obs["louvain"]
    return adata


def _fetch_paul15(scanpy: Any) -> Any:
    adata = scanpy.datasets.paul15()
    adata.obs["cell_type"] = adata.obs["paul15_clusters"]
    return adata


_KANG = "counts by `cell_type` of the control arm, singlets, of GEO GSE96583"
_FASHION = "github.com/zalandoresearch/fashion-mnist"
_MNIST = "storage.googleapis.com/cvdf-datasets/mnist"

_READERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "breast-cancer": partial(
        _plain, "breast-cancer", bundled.load_breast_cancer, n_components=5, standardise=True
    ),
    "wine": partial(_plain, "wine", bundled.load_wine, n_components=2, standardise=True),
    "olivetti": _olivetti,
    "patches": _patches,
    "fashion-mnist": partial(_mnist, "fashion-mnist", "Fashion-MNIST", _FASHION),
    "mnist": partial(_mnist, "mnist", "mnist_784", _MNIST),
    "celeba": _celeba,
    "pbmc3k": partial(_counts, "pbmc3k", "pbmc3k.h5ad", _fetch_pbmc3k),
    "paul15": partial(_counts, "paul15", "paul15.h5ad", _fetch_paul15),
    "kang": partial(_counts, "kang", "kang_ctrl_8donor.h5ad", _KANG),
    "hapmap": _hapmap,
}

#: What gives each set, from a folder; see `load`.
DATASETS: dict[str, Callable[[Path | None], Dataset | None]] = {
    name: partial(load, name) for name in _READERS
}

#: The sets that the defaults are measured on.
TABLES: dict[str, Callable[[int], Table | None]] = {
    name: partial(load_table, name) for name in ("digits", "breast-cancer", "wine", "fashion-mnist")
}
