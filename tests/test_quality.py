"""Quality on real data: the defaults must keep what the docs promise."""

from __future__ import annotations

import gzip
import time
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer
from skhebae.fitted.codes import MIXTURE_ROWS, CodeMixture


def held_out_error(model, rows):
    return np.square(model.inverse_transform(model.transform(rows)) - rows).mean()


def neighbour_accuracy(model, n_neighbors, train, test, y_train, y_test):
    neighbours = KNeighborsClassifier(n_neighbors).fit(model.transform(train), y_train)
    return neighbours.score(model.transform(test), y_test)


def split(load, seed):
    train, test, y_train, y_test = train_test_split(
        *load(return_X_y=True), test_size=0.25, random_state=seed
    )
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test), y_train, y_test


def test_digits_beat_pca(digits, hebae_of_digits):
    train, test, y_train, y_test = digits
    hebae = hebae_of_digits
    pca = PCA(10, random_state=0).fit(train)
    assert held_out_error(hebae, test) <= 0.6 * held_out_error(pca, test)
    labelled = train, test, y_train, y_test
    assert neighbour_accuracy(hebae, 5, *labelled) >= neighbour_accuracy(pca, 5, *labelled) - 0.01


@pytest.mark.slow
def test_digits_take_seconds(digits):
    # 5 s is the target on a quiet machine. Processor time, which a busy one hardly changes.
    start = time.process_time()
    HEBAETransformer(10, random_state=0).fit(digits[0])
    assert time.process_time() - start < 15.0


def test_mixture_samples_are_harder_to_tell_apart_than_prior_samples(digits, hebae_of_digits):
    _, test, *_ = digits
    hebae = hebae_of_digits
    labels = np.repeat([0, 1], len(test))
    accuracy = {}
    for latent in ("mixture", "prior"):
        rows = np.concatenate([test, hebae.sample(len(test), latent, random_state=0)])
        accuracy[latent] = cross_val_score(KNeighborsClassifier(5), rows, labels, cv=5).mean()
    assert accuracy["mixture"] < accuracy["prior"] - 0.1
    assert accuracy["mixture"] < 0.75


@cache
def errors_of_small_table(load, n_components, seed):
    """Held-out errors of HEBAE and of PCA."""
    train, test, *_ = split(load, seed)
    hebae = HEBAETransformer(n_components, random_state=seed).fit(train)
    return held_out_error(hebae, test), held_out_error(PCA(n_components).fit(train), test)


@pytest.mark.parametrize(
    ("load", "n_components"), [(load_breast_cancer, 5), (load_wine, 2)], ids=["cancer", "wine"]
)
@pytest.mark.slow
def test_small_tables_are_no_worse_than_pca(load, n_components):
    ratios = []
    for seed in range(3):
        error, error_of_pca = errors_of_small_table(load, n_components, seed)
        ratios.append(error / error_of_pca)
    assert np.mean(ratios) <= 1.0


@pytest.mark.slow
def test_small_tables_with_seed_zero():
    for load, n_components in ((load_breast_cancer, 5), (load_wine, 2)):
        error, error_of_pca = errors_of_small_table(load, n_components, 0)
        assert error <= error_of_pca


@pytest.mark.slow
def test_defaults_are_good_for_other_seeds_too():
    X, y = load_digits(return_X_y=True)
    for seed in (1, 2):
        train, test, *_ = train_test_split(X / 16, y, test_size=0.25, random_state=seed)
        hebae = HEBAETransformer(10, random_state=seed).fit(train)
        assert held_out_error(hebae, test) <= 0.6 * held_out_error(PCA(10).fit(train), test)


@pytest.mark.slow
def test_fashion_mnist(shared_data):
    folder = shared_data / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")

    def read(name, offset):
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset)

    train, test = (
        read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
        for part in ("train", "t10k")
    )
    y_train, y_test = (read(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k"))
    start = time.process_time()
    hebae = HEBAETransformer(10, likelihood="bernoulli", random_state=0).fit(train)
    seconds = time.process_time() - start
    pca = PCA(10, random_state=0).fit(train)
    assert held_out_error(hebae, test) <= 0.6 * held_out_error(pca, test)
    labelled = train, test, y_train, y_test
    assert neighbour_accuracy(hebae, 10, *labelled) > neighbour_accuracy(pca, 10, *labelled)
    codes = hebae.transform(train)
    start = time.process_time()
    CodeMixture.fit(codes[:MIXTURE_ROWS], 0)
    assert time.process_time() - start < 0.05 * seconds
    # 40 s is the target on a quiet machine. Processor time, which a busy one hardly changes.
    assert seconds < 120.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pbmc3k", "paul15"])
def test_raw_counts_in_csr(shared_data, name):
    # Not how counts should be modelled, but what a first try looks like.
    anndata = pytest.importorskip("anndata")
    path = shared_data / f"{name}.h5ad"
    if not path.is_file():
        pytest.skip(f"no {path}")
    X = anndata.read_h5ad(path).X
    with pytest.warns(ConvergenceWarning):  # a fraction of "auto", to be quick
        hebae = HEBAETransformer(10, random_state=0, max_iter=30).fit(X)
    codes = hebae.transform(X)
    assert np.isfinite(codes).all()
    assert np.isfinite(hebae.score_samples(X[:20])).all()
    assert (codes.var(axis=0) > 0.1).all()
