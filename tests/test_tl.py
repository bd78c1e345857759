"""AnnData in, AnnData out."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import skhebae
from skhebae import HEBAETransformer
from skhebae.data import StoredTable
from skhebae.exceptions import MissingGenesWarning
from skhebae.tl.matrices import matrix_of

anndata = pytest.importorskip("anndata")

# Fits are short, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FACES = {"hebae": skhebae.tl.hebae, "vae": skhebae.tl.vae, "wae": skhebae.tl.wae}
N, P = 120, 30
SHORT = {"max_iter": 3}


def cells(seed=0):
    """Three types of cells in two batches: sparse counts, and log-normalised in a layer."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(3, size=N), rng.integers(2, size=N)
    mean = np.exp(rng.normal(0.0, 1.0, (3, P)))[kind] * np.exp(rng.normal(0.0, 0.3, (2, P)))[batch]
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(kind, ["B", "NK", "T"]),
            "batch": pd.Categorical.from_codes(batch, ["ctrl", "stim"]),
            "size": np.asarray(counts.sum(axis=1)).ravel() + 1.0,
        },
        index=[f"cell{i}" for i in range(N)],
    )
    adata = anndata.AnnData(counts, obs=obs)
    adata.var_names = [f"gene{j}" for j in range(P)]
    adata.var["highly_variable"] = np.arange(P) % 3 > 0
    adata.layers["log"] = np.log1p(counts.toarray())
    return adata


@pytest.fixture(scope="module")
def trained():
    """An AnnData with its embedding in batches, and the model."""
    adata = cells()
    model = skhebae.tl.hebae(adata, 3, batch_key="batch", return_model=True, **SHORT)
    return adata, model


@pytest.mark.parametrize("name", FACES)
def test_embedding_is_the_estimators(name):
    adata = cells()
    assert FACES[name](adata, 2, **SHORT) is None
    cls = {"hebae": "HEBAETransformer", "vae": "VAETransformer", "wae": "WAETransformer"}[name]
    model = getattr(skhebae, cls)(2, likelihood="negative_binomial", random_state=0, **SHORT)
    X = adata.X[:, adata.var["highly_variable"].to_numpy()]
    assert_array_equal(adata.obsm[f"X_{name}"], model.fit_transform(X))
    entry = adata.uns[name]
    used = adata.var["highly_variable"].to_numpy()
    loadings = adata.varm[f"{name.upper()}s"]
    assert_array_equal(loadings[used], model.components_.T)
    assert_array_equal(loadings[~used], 0.0)
    assert_array_equal(entry["variance_ratio"], model.explained_variance_ratio_)
    assert entry["params"]["likelihood"] == "negative_binomial"
    assert entry["params"]["n_genes"] == 20
    assert entry["params"]["mask_var"] == "highly_variable"
    assert entry["versions"]["skhebae"] == skhebae.__version__
    assert len(entry["history"]["loss"]) == 3


def test_copy_and_model_are_returned_on_demand():
    adata = cells()
    copy = skhebae.tl.hebae(adata, 2, copy=True, **SHORT)
    assert "X_hebae" not in adata.obsm
    assert copy.obsm["X_hebae"].shape == (N, 2)
    model = skhebae.tl.hebae(adata, 2, return_model=True, **SHORT)
    assert isinstance(model, HEBAETransformer)
    both = skhebae.tl.hebae(adata, 2, copy=True, return_model=True, **SHORT)
    assert [type(part) for part in both] == [anndata.AnnData, HEBAETransformer]


def test_layer_mask_and_key():
    adata = cells()
    skhebae.tl.vae(adata, 2, layer="log", mask_var=None, key_added="mine", **SHORT)
    assert list(adata.obsm) == ["mine"]
    assert list(adata.varm) == ["mine"]
    params = adata.uns["mine"]["params"]
    assert (params["likelihood"], params["layer"], params["n_genes"]) == ("gaussian", "log", P)
    mask = np.arange(P) < 7
    skhebae.tl.vae(adata, 2, mask_var=mask, **SHORT)
    assert adata.uns["vae"]["params"]["n_genes"] == 7


@pytest.mark.parametrize("kind", [np.asarray, sparse.csc_matrix, sparse.csr_matrix])
def test_any_matrix_gives_the_same_embedding(kind):
    adata, other = cells(), cells()
    other.X = kind(adata.X.toarray())
    for each in (adata, other):
        skhebae.tl.hebae(each, 2, **SHORT)
    assert_allclose(other.obsm["X_hebae"], adata.obsm["X_hebae"], atol=2e-4)


def test_views_become_actual_and_leave_their_parent_alone():
    adata = cells()
    view = adata[adata.obs["cell_type"] == "T"]
    with pytest.warns(Warning, match="view"):
        skhebae.tl.hebae(view, 2, **SHORT)
    assert view.obsm["X_hebae"].shape == (view.n_obs, 2)
    assert not view.is_view
    assert "X_hebae" not in adata.obsm
    assert "hebae" not in adata.uns


@pytest.mark.parametrize("dense", [False, True])
def test_backed_files(tmp_path, dense, trained):
    adata, model = trained
    stored = cells()
    if dense:
        stored.X = stored.X.toarray()
    stored.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    skhebae.tl.hebae(backed, 3, batch_key="batch", **SHORT)
    assert_allclose(backed.obsm["X_hebae"], adata.obsm["X_hebae"], atol=2e-4)
    skhebae.tl.project(backed, model, key_added="projected")
    assert_array_equal(backed.obsm["projected"], adata.obsm["X_hebae"])
    skhebae.tl.score(backed, model)
    assert backed.isbacked
    backed.file.close()


def test_a_backed_file_is_read_five_times_beside_training(tmp_path, monkeypatch):
    """Are they counts, are all rows sound, what is their scale, codes of the fit, the embedding."""
    adata = cells()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    reads = []
    read = StoredTable.read

    def watched(self, rows):
        if threading.current_thread() is threading.main_thread():
            reads.append(rows)
        return read(self, rows)

    monkeypatch.setattr(StoredTable, "read", watched)
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    skhebae.tl.hebae(backed, 3, **SHORT)
    backed.file.close()
    assert len(reads) <= 5  # of one block, all rows


def test_dask(trained):
    array = pytest.importorskip("dask.array")
    adata, model = trained
    lazy = cells()
    lazy.X = array.from_array(lazy.X.toarray(), chunks=(50, 30))
    skhebae.tl.project(lazy, model)
    assert_array_equal(lazy.obsm["X_hebae"], adata.obsm["X_hebae"])
    skhebae.tl.hebae(lazy, 3, batch_key="batch", key_added="fitted", **SHORT)
    assert_allclose(lazy.obsm["fitted"], adata.obsm["X_hebae"], atol=2e-4)
    assert isinstance(lazy.X, array.Array)


# anndata announces that its files will be of zarr's third format.
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
@pytest.mark.skipif(
    not hasattr(anndata.experimental, "read_lazy"), reason="anndata reads lazily since 0.12"
)
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_read_lazy(tmp_path, suffix, trained):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    if not hasattr(anndata.experimental, "read_lazy"):
        pytest.skip("read_lazy came with anndata 0.12")
    if suffix == "zarr":
        pytest.importorskip("zarr")
    adata, model = trained
    path = tmp_path / f"cells.{suffix}"
    (cells().write_h5ad if suffix == "h5ad" else cells().write_zarr)(path)
    lazy = anndata.experimental.read_lazy(path)
    skhebae.tl.hebae(lazy, 3, batch_key="batch", **SHORT)
    assert_allclose(lazy.obsm["X_hebae"], adata.obsm["X_hebae"], atol=2e-4)
    skhebae.tl.project(lazy, model, key_added="projected")
    assert_array_equal(lazy.obsm["projected"], adata.obsm["X_hebae"])
    skhebae.tl.score(lazy, model)
    expected = adata.copy()
    skhebae.tl.score(expected, model)
    assert_array_equal(np.asarray(lazy.obs["hebae_score"]), expected.obs["hebae_score"])


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr.*")  # of anndata's choice of format
def test_what_is_written_can_be_stored(trained, tmp_path, write):
    if write == "write_zarr":
        pytest.importorskip("zarr", reason="anndata needs zarr since 0.12 only")
    adata, _ = trained
    whole = adata.copy()
    skhebae.tl.wae(
        whole,
        2,
        layer="log",
        size_factor_key=None,
        random_state=np.random.RandomState(0),
        learning_rate=halved,
        hidden_layer_sizes=(),
        **SHORT,
    )
    getattr(whole, write)(tmp_path / "cells")
    read = anndata.read_h5ad if write == "write_h5ad" else anndata.read_zarr
    again = read(tmp_path / "cells")
    assert_array_equal(again.obsm["X_hebae"], adata.obsm["X_hebae"])
    assert again.uns["wae"]["params"]["learning_rate"] == "halved"
    assert_array_equal(again.uns["hebae"]["history"]["loss"], adata.uns["hebae"]["history"]["loss"])


def halved(epoch):
    return 0.5**epoch


def test_projection_does_not_depend_on_order_nor_company(trained):
    adata, model = trained
    rng = np.random.default_rng(0)
    query = adata[rng.permutation(N)[:40], rng.permutation(P)].copy()
    del query.obsm["X_hebae"]
    expected = adata[query.obs_names].obsm["X_hebae"]
    assert skhebae.tl.project(query, model) is None
    assert_array_equal(query.obsm["X_hebae"], expected)
    one = skhebae.tl.project(query[:1], model, copy=True)
    assert_array_equal(one.obsm["X_hebae"], expected[:1])


def test_missing_genes_are_named_and_filled(trained):
    adata, model = trained
    lost = ["gene4", "gene16", "gene25"]
    query = adata[:, ~adata.var_names.isin(lost)].copy()
    with pytest.warns(MissingGenesWarning, match=r"3 of the model's 20 genes .*gene4, gene16"):
        skhebae.tl.project(query, model)
    with pytest.warns(MissingGenesWarning, match="count as zero"):
        skhebae.tl.project(query, model, missing="zero", key_added="zero")
    whole = adata.obsm["X_hebae"]
    distance = {
        key: np.linalg.norm(query.obsm[key] - whole, axis=1).mean() for key in ("X_hebae", "zero")
    }
    assert 0.0 < distance["X_hebae"] < distance["zero"]
    # Zero is what a query with no counts of these genes has.
    blank = adata.copy()
    blank.X = blank.X.toarray() * ~adata.var_names.isin(lost)
    skhebae.tl.project(blank, model, key_added="zero")
    assert_array_equal(blank.obsm["zero"], query.obsm["zero"])
    with pytest.raises(ValueError, match="All are needed here"):
        skhebae.tl.project(query, model, missing="error")
    few = adata[:, :15].copy()
    before = few.copy()
    with pytest.raises(ValueError, match=r"10 of the model's 20 genes.*max_missing=20%"):
        skhebae.tl.project(few, model)
    assert_array_equal(few.obsm["X_hebae"], before.obsm["X_hebae"])
    with pytest.warns(MissingGenesWarning):
        skhebae.tl.project(few, model, max_missing=0.6)


def test_genes_that_a_query_lacks_are_missing_entries():
    adata = cells()
    model = skhebae.tl.hebae(
        adata, 2, layer="log", mask_var=None, hidden_layer_sizes=(), return_model=True, **SHORT
    )
    query = adata[:, 1:].copy()
    with pytest.warns(MissingGenesWarning):
        skhebae.tl.project(query, model)
    table = adata.layers["log"].copy()
    table[:, 0] = np.nan
    assert_array_equal(query.obsm["X_hebae"], model.transform(table))


def test_duplicated_genes_are_refused_where_they_matter(trained):
    adata, model = trained
    query = adata.copy()
    names = query.var_names.to_numpy().copy()
    names[3] = "gene0"  # neither was used in the fit
    query.var_names = names
    skhebae.tl.project(query, model)
    assert_array_equal(query.obsm["X_hebae"], adata.obsm["X_hebae"])
    names[6] = "gene1"
    query.var_names = names
    with pytest.raises(ValueError, match="several columns in var_names: gene1"):
        skhebae.tl.project(query, model)


def test_denoised_layer(trained):
    adata, model = trained
    copy = skhebae.tl.denoise(adata, model, copy=True)
    assert "hebae_denoised" not in adata.layers
    layer, used = copy.layers["hebae_denoised"], adata.var["highly_variable"].to_numpy()
    assert np.isnan(layer[:, ~used]).all()
    totals = np.asarray(adata.X[:, used].sum(axis=1)).ravel()
    assert_allclose(layer[:, used].sum(axis=1), totals, rtol=1e-4)
    skhebae.tl.denoise(copy, model, batch="average", size_factor=1e4, key_added="even")
    assert_allclose(copy.layers["even"][:, used].sum(axis=1), 1e4, rtol=1e-4)
    expected = model.inverse_transform(adata.obsm["X_hebae"], batch="average", size_factor=1e4)
    assert_array_equal(copy.layers["even"][:, used], expected)


def test_score_and_size_factors():
    adata = cells()
    model = skhebae.tl.vae(adata, 2, size_factor_key="size", return_model=True, **SHORT)
    skhebae.tl.score(adata, model)
    X = adata.X[:, adata.var["highly_variable"].to_numpy()]
    size = adata.obs["size"].to_numpy()
    assert_array_equal(adata.obs["vae_score"], model.score_samples(X, size_factor=size))
    skhebae.tl.denoise(adata, model)
    expected = model.inverse_transform(model.transform(X), size_factor=size)
    used = adata.var["highly_variable"].to_numpy()
    assert_array_equal(adata.layers["vae_denoised"][:, used], expected)


def test_generated_cells(trained):
    adata, model = trained
    new = skhebae.tl.sample(model, 50, batch=["ctrl", "stim"] * 25)
    assert list(new.var_names) == list(adata.var_names[adata.var["highly_variable"]])
    assert sparse.issparse(new.X)
    assert_array_equal(new.X.data, np.rint(new.X.data))
    assert list(new.obs["batch"][:3]) == ["ctrl", "stim", "ctrl"]
    means = skhebae.tl.sample(model, 5, noise=False, batch="average", size_factor=100.0)
    assert_allclose(means.X.sum(axis=1), 100.0, rtol=1e-4)
    # New cells go back into the embedding of the old ones.
    skhebae.tl.project(new, model)
    assert np.abs(new.obsm["X_hebae"].mean(axis=0) - adata.obsm["X_hebae"].mean(axis=0)).max() < 0.6


def test_no_name_collides_with_a_default():
    """Layers, columns and batches may be called what the defaults are shown as."""
    adata = cells()
    adata.obs["batch"] = np.where(adata.obs["batch"] == "ctrl", "as fitted", "other")
    adata.layers["as fitted"] = 2.0 * adata.X.toarray()
    adata.var["highly_variable if present"] = np.arange(P) < 7
    model = skhebae.tl.vae(
        adata,
        2,
        batch_key="batch",
        mask_var="highly_variable if present",
        return_model=True,
        **SHORT,
    )
    assert model.n_features_in_ == 7
    skhebae.tl.project(adata, model, layer="as fitted", key_added="twice")
    expected = model.transform(adata.layers["as fitted"][:, :7])
    assert_array_equal(adata.obsm["twice"], expected)
    skhebae.tl.denoise(adata, model, batch="as fitted", size_factor=100.0)
    decoded = adata.layers["vae_denoised"][:, :7]
    codes = adata.obsm["X_vae"]
    assert_array_equal(
        decoded, model.inverse_transform(codes, batch="as fitted", size_factor=100.0)
    )
    skhebae.tl.denoise(adata, model, size_factor=100.0)
    assert (adata.layers["vae_denoised"][:, :7] != decoded).any()


def test_defaults_read_well_and_are_themselves_elsewhere():
    signature = str(inspect.signature(skhebae.tl.project))
    assert "layer: 'str | Default | None' = <as fitted>" in signature
    assert "<highly_variable if present>" in str(inspect.signature(skhebae.tl.hebae))
    default = inspect.signature(skhebae.tl.denoise).parameters["batch"].default
    assert pickle.loads(pickle.dumps(default)) is default
    assert copy.deepcopy(default) is default


BATCH_COLUMNS = {
    "categories": lambda codes: pd.Categorical.from_codes(codes, ["ctrl", "stim"]),
    "text": lambda codes: np.array(["ctrl", "stim"], dtype=object)[codes],
    "integers": lambda codes: codes.astype(np.int64),
    "short integers": lambda codes: (codes + 3).astype(np.int16),
    "integers of pandas": lambda codes: pd.array(codes, dtype="Int64"),
    "integers as categories": lambda codes: pd.Categorical(codes),
    "floats": lambda codes: codes / 2,
    "truth": lambda codes: codes > 0,
}


@pytest.mark.parametrize("kind", BATCH_COLUMNS)
@pytest.mark.parametrize("one", [True, False])
def test_generated_cells_can_be_written_and_used_again(tmp_path, kind, one):
    adata = cells()
    codes = np.random.default_rng(0).integers(2, size=N)
    adata.obs["batch"] = BATCH_COLUMNS[kind](codes)
    model = skhebae.tl.hebae(
        adata, 2, batch_key="batch", size_factor_key="size", return_model=True, **SHORT
    )
    label = model.batches_[1]
    new = skhebae.tl.sample(model, 6, batch=label if one else [label, model.batches_[0]] * 3)
    assert new.obs["batch"].tolist() == [label, label if one else model.batches_[0]] * 3
    if kind in ("categories", "integers as categories"):
        assert new.obs["batch"].dtype == adata.obs["batch"].dtype
    elif kind != "integers of pandas":
        assert np.asarray(new.obs["batch"]).dtype == np.asarray(adata.obs["batch"]).dtype
    new.obs_names = [f"new{i}" for i in range(6)]
    new.write_h5ad(tmp_path / "new.h5ad")
    for again in (new, anndata.read_h5ad(tmp_path / "new.h5ad")):
        skhebae.tl.score(again, model)
        skhebae.tl.project(again, model)
        skhebae.tl.denoise(again, model)
        assert np.isfinite(again.obs["hebae_score"]).all()
        assert again.obs["batch"].tolist() == new.obs["batch"].tolist()
    # The totals are those of the cells.
    totals = np.asarray(new.X.sum(axis=1)).ravel().clip(1.0)
    ratio = new.obs["size"] / totals
    assert_allclose(ratio, ratio.iloc[0])
    average = skhebae.tl.sample(model, 3, batch="average", size_factor=50.0)
    assert average.obs["batch"].tolist() == ["average"] * 3
    assert average.obs["size"].tolist() == [50.0] * 3
    average.write_h5ad(tmp_path / "average.h5ad")


def test_more_cells_leave_a_model_its_genes(trained):
    adata, _ = trained
    model = skhebae.tl.vae(adata.copy(), 2, return_model=True, **SHORT)
    model.partial_fit(adata.X[:, adata.var["highly_variable"].to_numpy()])
    projected = skhebae.tl.project(adata, model, copy=True)
    assert projected.obsm["X_vae"].shape == (N, 2)


def test_loaded_models_know_their_genes(trained, tmp_path):
    adata, model = trained
    model.save(tmp_path / "model")
    loaded = HEBAETransformer.load(tmp_path / "model")
    skhebae.tl.project(adata, loaded, key_added="again")
    assert_array_equal(adata.obsm["again"], adata.obsm["X_hebae"])
    model_again = HEBAETransformer.load(tmp_path / "model").fit(np.zeros((5, 4)) + np.eye(5, 4))
    with pytest.raises(ValueError, match="fitted to a plain matrix and knows no genes"):
        skhebae.tl.project(adata, model_again)


BAD = [
    ({"layer": "counts"}, KeyError, r"layer='counts' is not in adata.layers: \['log'\]"),
    ({"mask_var": "hvg"}, KeyError, "mask_var='hvg' is not a column"),
    ({"mask_var": np.zeros(P, dtype=bool)}, ValueError, "selects no gene"),
    ({"mask_var": np.ones(3, dtype=bool)}, ValueError, "one boolean for each of the 30 genes"),
    ({"mask_var": np.arange(P)}, ValueError, "one boolean"),
    ({"batch_key": "donor"}, KeyError, "batch_key='donor' is not a column of obs"),
    ({"size_factor_key": "sf"}, KeyError, "size_factor_key='sf' is not"),
    ({"n_comps": 0}, ValueError, "n_components"),
    ({"layer": "log", "likelihood": "poisson"}, ValueError, "needs counts"),
    ({"layer": "log", "size_factor_key": "size"}, ValueError, "exposure of counts"),
    ({"nonsense": 1}, TypeError, "nonsense"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD)
def test_errors_name_the_cure_and_leave_adata_alone(given, error, message):
    adata = cells()
    before = adata.copy()
    with pytest.raises(error, match=message):
        skhebae.tl.hebae(adata, **given)
    assert not adata.obsm
    assert not adata.uns
    assert (adata.X != before.X).nnz == 0


@pytest.mark.parametrize("lists_none", [True, False])
def test_layers_may_list_x_as_none(lists_none):
    """As anndata does from version 0.13 on."""
    layers = {"log": "its matrix"} | ({None: "X"} if lists_none else {})
    adata = SimpleNamespace(layers=layers, X="X")
    assert matrix_of(adata, None) == "X"
    assert matrix_of(adata, "log") == "its matrix"
    with pytest.raises(KeyError, match=r"layer='counts' is not in adata\.layers: \['log'\]\. None"):
        matrix_of(adata, "counts")


def test_labels_of_pandas_own_types_of_text():
    """The default of pandas 3 is an extension type."""
    adata = cells()
    expected = skhebae.tl.hebae(adata, 2, batch_key="batch", return_model=True, **SHORT)
    for dtype in ("string", "string[pyarrow]", object):
        if dtype == "string[pyarrow]":
            pytest.importorskip("pyarrow")
        other = cells()
        other.obs["batch"] = other.obs["batch"].astype(dtype)
        other.var_names = other.var_names.astype(dtype)
        model = skhebae.tl.hebae(other, 2, batch_key="batch", return_model=True, **SHORT)
        assert model.batches_.tolist() == expected.batches_.tolist() == ["ctrl", "stim"]
        assert model.anndata_["var_names"].tolist() == expected.anndata_["var_names"].tolist()
        assert_array_equal(other.obsm["X_hebae"], adata.obsm["X_hebae"])
        skhebae.tl.project(other, expected, key_added="again")
        assert_array_equal(other.obsm["again"], adata.obsm["X_hebae"])


def test_missing_labels_and_matrices():
    adata = cells()
    adata.obs["batch"] = adata.obs["batch"].cat.remove_categories("stim")
    with pytest.raises(ValueError, match="missing"):
        skhebae.tl.hebae(adata, batch_key="batch")
    with pytest.raises(TypeError, match="adata must be an AnnData, got ndarray"):
        skhebae.tl.hebae(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="X is None"):
        skhebae.tl.hebae(anndata.AnnData(obs=adata.obs))


def test_models_of_other_makes(trained):
    adata, _ = trained
    with pytest.raises(TypeError, match=r"model must be what skhebae\.tl\.hebae"):
        skhebae.tl.project(adata, "model.skhebae")
    with pytest.raises(ValueError, match="not fitted yet"):
        skhebae.tl.project(adata, HEBAETransformer())


@pytest.mark.slow
def test_without_anndata_the_extra_is_named():
    code = (
        "import sys; sys.modules['anndata'] = None\n"
        "import skhebae\n"
        "try:\n    skhebae.tl.hebae(1)\n"
        "except ImportError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "skhebae[anndata]" in result.stdout


@pytest.mark.slow
def test_scanpy_goes_on_from_the_embedding():
    scanpy = pytest.importorskip("scanpy")
    adata = cells()
    skhebae.tl.hebae(adata, 3, **SHORT)
    scanpy.pp.neighbors(adata, use_rep="X_hebae", n_neighbors=5)
    assert adata.uns["neighbors"]["params"]["use_rep"] == "X_hebae"


@pytest.mark.slow
def test_pbmc68k_counts_are_embedded_by_type():
    """Real cells that scanpy ships: types are told apart, and better than by chance."""
    scanpy = pytest.importorskip("scanpy")
    from sklearn.neighbors import KNeighborsClassifier

    adata = scanpy.datasets.pbmc68k_reduced()
    log = adata.raw.X.toarray()
    one = np.where(log > 0, np.expm1(log), np.inf).min(axis=1, keepdims=True)
    counts = np.rint(np.expm1(log) / one).astype(np.float32)
    raw = anndata.AnnData(sparse.csr_matrix(counts), obs=adata.obs[["bulk_labels"]])
    skhebae.tl.hebae(raw, 10)
    assert raw.uns["hebae"]["params"]["likelihood"] == "negative_binomial"
    codes, kind = raw.obsm["X_hebae"], raw.obs["bulk_labels"].to_numpy()
    half = np.random.default_rng(0).permutation(len(kind)) < len(kind) // 2
    knn = KNeighborsClassifier(10).fit(codes[half], kind[half])
    assert knn.score(codes[~half], kind[~half]) > 0.7


def test_checkpoint_is_handed_on(tmp_path):
    adata, again = cells(), cells()
    path = tmp_path / "fit"
    skhebae.tl.hebae(adata, 2, checkpoint=path, **SHORT)
    assert path.exists()
    skhebae.tl.hebae(again, 2, checkpoint=path, **SHORT)
    assert_array_equal(again.obsm["X_hebae"], adata.obsm["X_hebae"])
    with pytest.raises(ValueError, match="belongs to another fit"):
        skhebae.tl.hebae(again, 3, checkpoint=path, **SHORT)
