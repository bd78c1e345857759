"""The benchmarks' data: files read as written, sets as promised, missing ones said to be so."""

from __future__ import annotations

import gzip
import hashlib
import socket
import struct
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_sample_images

from benchmarks import datasets, sources
from benchmarks.datasets import load, split
from benchmarks.sources import idx_sha256, read_idx

BUNDLED = ["digits", "breast-cancer", "wine", "patches"]
IMAGES = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3) * 8
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
DASHES = "{part}-{kind}"
DOTS = "{part}.{kind}"


def idx(values, code):
    """Bytes of an IDX file, written by the format's description."""
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, spelling=DASHES + ".gz", labels=LABELS):
    """Five images and labels of training, the last two again for testing."""
    folder.mkdir(parents=True)
    for part, first in (("train", 0), ("t10k", 3)):
        for name, values in (("images", IMAGES[first:]), ("labels", labels[first:])):
            kind = f"idx{values.ndim}-ubyte"
            path = folder / spelling.format(part=f"{part}-{name}", kind=kind)
            content = idx(values, 0x08)
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def offline(monkeypatch):
    """No fetcher gets through; what the time limit was when one tried."""
    limits = []

    def fail(*args, **kwargs):
        limits.append(socket.getdefaulttimeout())
        raise URLError("no\nnetwork")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    return limits


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("values", [IMAGES, LABELS], ids=["images", "labels"])
def test_idx_round_trip(tmp_path, values, packed):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(values, 0x08)) if packed else idx(values, 0x08))
    np.testing.assert_array_equal(read_idx(path), values, strict=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        idx(IMAGES, 0x08)[:-1],
        idx(IMAGES, 0x08)[:7],
        idx(IMAGES, 0x08) + b"\0",
        idx(IMAGES, 0x0A),
        b"\1" + idx(IMAGES, 0x08)[1:],
        gzip.compress(idx(IMAGES, 0x08))[:-12],
        gzip.compress(b"words"),
    ],
    ids=["empty", "html", "cut", "header-cut", "long", "type", "magic", "gzip-cut", "gzip-words"],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.*(IDX|bytes)"):
        read_idx(path)


@pytest.mark.parametrize("spelling", [DASHES + ".gz", DASHES, DOTS, DOTS + ".gz"])
def test_mnist_in_every_spelling(tmp_path, monkeypatch, spelling):
    write_mnist(tmp_path / "mnist", spelling)
    parts = (IMAGES, LABELS, IMAGES[3:], LABELS[3:])
    monkeypatch.setitem(sources.PUBLISHED, "mnist", tuple(map(idx_sha256, parts)))
    mnist = load("mnist", tmp_path)
    np.testing.assert_array_equal(mnist.rows[:5], IMAGES.reshape(5, 6) / np.float32(255))
    np.testing.assert_array_equal(mnist.rows[5:], mnist.rows[3:5])
    np.testing.assert_array_equal(mnist.labels, [*LABELS, *LABELS[3:]])
    assert mnist.rows.dtype == np.float32
    assert (mnist.likelihood, mnist.n_neighbors) == ("bernoulli", 10)
    assert (mnist.image_shape, mnist.n_train) == ((1, 2, 3), 5)
    for seed in (0, 1):
        table = split(mnist, seed)
        np.testing.assert_array_equal(table.train, mnist.rows[:5])
        np.testing.assert_array_equal(table.y_test, LABELS[3:])


def test_other_content_than_published_is_said(tmp_path):
    write_mnist(tmp_path / "mnist")
    with pytest.warns(UserWarning, match="of mnist differ") as warned:
        load("mnist", tmp_path)
    assert len(warned) == 4


def test_checksum_is_that_of_the_file():
    assert idx_sha256(IMAGES) == hashlib.sha256(idx(IMAGES, 0x08)).hexdigest()


def test_images_without_labels(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist", labels=LABELS[:4])
    parts = (IMAGES, LABELS[:4], IMAGES[3:], LABELS[3:4])
    monkeypatch.setitem(sources.PUBLISHED, "mnist", tuple(map(idx_sha256, parts)))
    with pytest.raises(ValueError, match=r"mnist .*\[5, 4, 2, 1\]"):
        load("mnist", tmp_path)


def test_a_missing_file_is_named(tmp_path, capsys, offline):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert load("mnist", tmp_path) is None
    line = capsys.readouterr().out
    assert line.startswith("mnist skipped: no t10k-labels-idx1-ubyte.gz in ")
    assert line.count("\n") == 1
    assert not offline  # half a folder is a mistake to tell, not to paper over


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_no_folder_and_no_network(tmp_path, capsys, offline, name):
    before = socket.getdefaulttimeout()
    assert load(name, tmp_path / "nowhere") is None
    line = capsys.readouterr().out
    assert line.startswith(f"{name} skipped: URLError: <urlopen error no network>; ")
    assert "connect to the network once" in line
    assert line.count("\n") == 1
    assert offline == [sources.TIMEOUT]
    assert socket.getdefaulttimeout() == before


def test_mnist_from_openml(tmp_path, monkeypatch):
    pixels = np.zeros((60002, 784), dtype=np.uint8)
    pixels[[0, 60000], [0, 783]] = 255, 51
    labels = np.full(60002, "7", dtype=object)
    labels[60001] = "2"
    asked = {}

    def fetch(name, **how):
        asked.update(how, name=name)
        return pixels, labels

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    with pytest.warns(UserWarning, match="of mnist differ"):
        table = split(load("mnist", tmp_path), 0)
    assert (asked["name"], asked["version"], asked["as_frame"]) == ("mnist_784", 1, False)
    assert table.image_shape == (1, 28, 28)
    assert len(table.train) == 60000
    assert table.train[0, 0] == 1.0
    assert table.test[0, 783] == np.float32(0.2)
    np.testing.assert_array_equal(table.y_test, [7, 2])


def test_an_unknown_name():
    with pytest.raises(ValueError, match="'cifar'; take one of digits, breast-cancer"):
        load("cifar")


def check(dataset, name):
    """What is promised of every set."""
    assert dataset.name == name
    assert dataset.rows.dtype == np.float32
    assert dataset.rows.flags.c_contiguous
    assert np.isfinite(dataset.rows).all()
    assert len(dataset.labels) == len(dataset.rows)
    assert len(np.unique(dataset.labels)) > 1
    assert (dataset.rows.std(axis=0) > 0).any()
    if dataset.image_shape:
        assert np.prod(dataset.image_shape) == dataset.rows.shape[1]
        assert dataset.rows.min() >= 0
        assert dataset.rows.max() <= 1
    # Numbered rows show which went where.
    numbered = dataset._replace(labels=np.arange(len(dataset.rows)), standardise=False)
    table, again, other = split(numbered, 0), split(numbered, 0), split(numbered, 1)
    np.testing.assert_array_equal(table.train, dataset.rows[table.y_train])
    np.testing.assert_array_equal(table.test, dataset.rows[table.y_test])
    np.testing.assert_array_equal(np.sort([*table.y_train, *table.y_test]), numbered.labels)
    np.testing.assert_array_equal(table.y_test, again.y_test)
    assert (set(table.y_test) == set(other.y_test)) == (dataset.n_train is not None)
    assert len(table.test) == pytest.approx(0.25 * len(dataset.rows), abs=1)
    assert table[4:] == (
        dataset.n_neighbors,
        dataset.likelihood,
        dataset.image_shape,
        name,
    )


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets(name):
    if name == "patches":
        pytest.importorskip("PIL")
    dataset = load(name, Path("nowhere"))
    check(dataset, name)
    np.testing.assert_array_equal(dataset.rows, load(name).rows)


def test_digits_are_sixteenths():
    digits = load("digits")
    np.testing.assert_array_equal(digits.rows * 16, load_digits().data)
    np.testing.assert_array_equal(digits.labels, load_digits().target)


def test_standardised_by_the_training_rows():
    table = split(load("breast-cancer"), 3)
    np.testing.assert_allclose(table.train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(table.train.std(axis=0), 1, rtol=1e-6)
    numbered = load("breast-cancer")._replace(labels=np.arange(569))
    rows = split(numbered, 3)
    raw = load_breast_cancer().data
    mean, scale = raw[rows.y_train].mean(axis=0), raw[rows.y_train].std(axis=0)
    np.testing.assert_allclose(table.test, (raw[rows.y_test] - mean) / scale, atol=1e-5)
    assert table.train.dtype == table.test.dtype == np.float32


def test_patches_are_of_the_photographs():
    pytest.importorskip("PIL")
    patches = load("patches")
    half = len(patches.rows) // 2
    np.testing.assert_array_equal(patches.labels, np.repeat([0, 1], half))
    for first, photograph in zip((0, half), load_sample_images().images, strict=True):
        for number, (row, column) in ((0, (0, 0)), (1, (0, 16)), (40, (8, 0))):
            square = photograph[row : row + 8, column : column + 8].mean(axis=2) / 255
            found = patches.rows[first + number].reshape(8, 8)
            np.testing.assert_allclose(found, square, rtol=1e-6)


def test_single_cells_without_scanpy(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scanpy", None)
    assert load("pbmc3k", tmp_path) is None
    assert "pip install 'skhebae[anndata]'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pbmc3k", "paul15", "kang", "hapmap"])
def test_files_that_nobody_serves(tmp_path, capsys, name):
    pytest.importorskip("scanpy")
    assert load(name, tmp_path) is None
    line = capsys.readouterr().out
    assert line.startswith(f"{name} skipped: no file {tmp_path}")
    assert "SKHEBAE_DATA" in line


def test_single_cells_are_log_normalised_and_keep_their_variable_genes(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    pytest.importorskip("scanpy")
    counts = np.random.default_rng(0).poisson(3.0, size=(6, 30)).astype(np.float32) + 1
    adata = anndata.AnnData(counts)
    adata.obs["cell_type"] = list("aabbcc")
    adata.write_h5ad(tmp_path / "paul15.h5ad")
    whole = load("paul15", tmp_path)
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(whole.rows, expected, rtol=1e-5)
    assert list(whole.labels) == list("aabbcc")
    monkeypatch.setattr(datasets, "VARIABLE_FEATURES", 7)
    few = load("paul15", tmp_path).rows
    assert few.shape == (6, 7)
    assert all((whole.rows == gene[:, None]).all(axis=0).any() for gene in few.T)


def of_folder(name, folder):
    """Load a set whose file may be in the folder."""
    pytest.importorskip("scanpy")
    file = {"kang": "kang_ctrl_8donor.h5ad", "hapmap": "hapmap_geno.h5ad"}.get(name, f"{name}.h5ad")
    if not (folder / file).is_file():
        pytest.skip(f"no {file} in {folder}")
    return load(name, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "n_labels"),
    [("pbmc3k", (2638, 2000), 8), ("paul15", (2730, 2000), 19), ("kang", (12261, 1287), 8)],
)
def test_real_single_cells(shared_data, name, shape, n_labels):
    dataset = of_folder(name, shared_data)
    check(dataset, name)
    assert dataset.rows.shape == shape
    assert len(np.unique(dataset.labels)) == n_labels
    totals = np.expm1(dataset.rows.astype(np.float64)).sum(axis=1)
    if name == "kang":  # every gene kept
        np.testing.assert_allclose(totals, 1e4, rtol=1e-5)
    else:
        assert totals.max() < 1e4


def test_real_genotypes(shared_data):
    hapmap = of_folder("hapmap", shared_data)
    check(hapmap, "hapmap")
    assert set(hapmap.labels) == {"CEU", "HCB", "JPT", "YRI"}
    assert hapmap.rows.shape == (279, 2000)
    assert hapmap.rows.var(axis=0).min() > 0.4
    filled = hapmap.rows % 1 != 0
    assert 0 < filled.mean() < 0.02
    for column in hapmap.rows[:, filled.any(axis=0)].T[:20]:
        known = column % 1 == 0
        np.testing.assert_allclose(column[~known], column[known].mean(), rtol=1e-5)


def test_real_fashion_mnist(shared_data):
    if not (shared_data / "fashion-mnist").is_dir():
        pytest.skip(f"no fashion-mnist in {shared_data}")
    fashion = load("fashion-mnist", shared_data)  # would warn if it were not as published
    assert (fashion.n_train, fashion.image_shape) == (60000, (1, 28, 28))
    assert fashion.rows.min() == 0
    assert fashion.rows.max() == 1
    assert (np.bincount(fashion.labels[:60000]) == 6000).all()
    assert (np.bincount(fashion.labels[60000:]) == 1000).all()
