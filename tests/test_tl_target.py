"""What could go wrong where results are written is found before the work."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

import skhebae
from skhebae import NoveltyDetector
from skhebae.exceptions import MissingGenesWarning
from tests.test_tl import SHORT, N, P, cells

anndata = pytest.importorskip("anndata")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

TOOLS = {
    "hebae": lambda adata, model, **more: skhebae.tl.hebae(adata, 2, **more),
    "project": skhebae.tl.project,
    "denoise": skhebae.tl.denoise,
    "score": skhebae.tl.score,
    "novelty": lambda adata, model, **more: skhebae.tl.novelty(adata, model.detector, **more),
}


@pytest.fixture(scope="module")
def model():
    fitted = skhebae.tl.hebae(cells(), 2, batch_key="batch", return_model=True, **SHORT)
    detector = NoveltyDetector(clone(fitted), calibration=0.25)
    # One model for all tools: where "novelty" finds its own.
    fitted.detector = skhebae.tl.novelty_detector(cells(), detector, batch_key="batch")
    return fitted


@pytest.fixture
def no_work(monkeypatch):
    """Whoever begins to fit, encode or sample has begun the work."""

    def begin(*args, **kwargs):
        raise AssertionError("the work began")

    monkeypatch.setattr("skhebae.estimators.base.fit_autoencoder", begin)
    for method in ("encode", "decode", "score", "sample", "map_minibatches"):
        monkeypatch.setattr(f"skhebae.fitted.FittedAutoencoder.{method}", begin)


def backed(folder):
    cells().write_h5ad(folder / "cells.h5ad")
    return anndata.read_h5ad(folder / "cells.h5ad", backed="r")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("tool", TOOLS)
def test_backed_copies_are_refused(model, tmp_path, tool):
    adata = backed(tmp_path)
    name = "query" if tool == "project" else "adata"
    with pytest.raises(
        ValueError, match=rf"cells\.h5ad.*Pass {name}\.to_memory\(\), or leave copy"
    ):
        TOOLS[tool](adata, model, copy=True)
    for copy in (True, False):
        with pytest.raises(ValueError, match=rf"Pass {name}\.to_memory\(\)\.$"):
            TOOLS[tool](adata[:50], model, copy=copy)
    adata.file.close()


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.slow
def test_backed_without_a_copy_is_done(model, tmp_path, mode):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed=mode)
    memory = cells()
    for tool in TOOLS.values():
        tool(adata, model)
        tool(memory, model)
    assert adata.isbacked
    for column in ("hebae_score", "novelty", "novelty_p_value"):
        assert_array_equal(adata.obs[column], memory.obs[column])
    used = memory.var["highly_variable"]
    assert_array_equal(
        adata.layers["hebae_denoised"][:, used], memory.layers["hebae_denoised"][:, used]
    )
    adata.file.close()


def test_lazy_objects_and_their_views_may_be_copied(model, tmp_path):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    if not hasattr(anndata.experimental, "read_lazy"):
        pytest.skip("read_lazy came with anndata 0.12")
    cells().write_h5ad(tmp_path / "cells.h5ad")
    lazy = anndata.experimental.read_lazy(tmp_path / "cells.h5ad")
    expected = skhebae.tl.project(cells(), model, copy=True).obsm["X_hebae"]
    copy = skhebae.tl.project(lazy, model, copy=True)
    assert_array_equal(copy.obsm["X_hebae"], expected)
    assert "X_hebae" not in lazy.obsm
    part = skhebae.tl.project(lazy[:30], model, copy=True)
    assert_array_equal(part.obsm["X_hebae"], expected[:30])


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("key", "error"), [("a/b", ValueError), ("", ValueError), (".", ValueError), (3, TypeError)]
)
def test_keys_that_no_file_can_hold(model, tool, key, error):
    with pytest.raises(error, match=f"key_added={key!r}.*for example"):
        TOOLS[tool](cells(), model, key_added=key)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_a_view_becomes_actual_before_the_work(model, tool, monkeypatch):
    """So that whoever makes the warning an error loses no work."""
    adata = cells()
    adata.uns["kept"] = {"a": np.arange(3)}
    view = adata[:50]
    with pytest.warns(anndata.ImplicitModificationWarning, match="of view"):
        TOOLS[tool](view, model)
    assert not view.is_view
    assert_array_equal(view.uns["kept"]["a"], np.arange(3))
    assert view.shape == (50, P)
    assert set(view.obsm) <= {"X_hebae"}
    assert not adata.obsm
    with monkeypatch.context() as patched, warnings.catch_warnings():
        patched.setattr("skhebae.estimators.base.fit_autoencoder", None)
        patched.setattr("skhebae.fitted.FittedAutoencoder.encode", None)
        warnings.simplefilter("error")
        with pytest.raises(anndata.ImplicitModificationWarning):
            TOOLS[tool](cells()[:50], model)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("tool", ["project", "denoise", "score", "novelty"])
def test_genes_that_lack_are_known_before(model, tool):
    query = cells()[:, 12:].copy()
    with pytest.raises(ValueError, match="genes are not in var_names"):
        TOOLS[tool](query, model)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("tool", ["denoise", "score", "novelty"])
def test_labels_of_all_cells_are_checked_before(model, tool):
    adata = cells()
    adata.obs["batch"] = adata.obs["batch"].astype(object)
    adata.obs.iloc[-1, adata.obs.columns.get_loc("batch")] = "other"
    with pytest.raises(ValueError, match="did not see: 'other'"):
        TOOLS[tool](adata, model)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": ["ctrl"] * (N + 1)}, rf"shape \({N + 1},\), but X has {N} rows"),
        ({"batch": ["ctrl"] * (N - 1) + ["x"]}, "did not see: 'x'"),
        ({"batch": "x"}, "did not see: 'x'"),
        ({"size_factor": [1.0] * (N - 1) + [0.0]}, "must be finite and > 0"),
        ({"size_factor": [1.0] * (N + 1)}, "size_factor has shape"),
    ],
)
def test_what_is_decoded_for_is_checked_before(model, given, message):
    with pytest.raises(ValueError, match=message):
        skhebae.tl.denoise(cells(), model, **given)


@pytest.mark.usefixtures("no_work")
def test_sampling_needs_anndata_before(model, monkeypatch):
    def missing():
        raise ImportError("no anndata")

    monkeypatch.setattr("skhebae.tl.model.import_anndata", missing)
    with pytest.raises(ImportError, match="no anndata"):
        skhebae.tl.sample(model, 3, batch="ctrl")


# Names of genes


@pytest.mark.usefixtures("no_work")
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("tool", TOOLS)
def test_genes_of_one_name_are_refused(model, tool):
    adata = cells()
    names = adata.var_names.to_numpy().copy()
    names[[2, 4, 7]] = "gene1"
    adata.var_names = names
    message = r"1 names of genes have several columns.*: gene1\. Call adata\.var_names_make_unique"
    with pytest.raises(ValueError, match=message):
        TOOLS[tool](adata, model)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_genes_that_are_not_used_may_have_one_name():
    adata = cells()
    names = adata.var_names.to_numpy().copy()
    names[3] = "gene0"  # neither is highly variable
    adata.var_names = names
    model = skhebae.tl.hebae(adata, 2, return_model=True, **SHORT)
    query = adata.copy()
    query.var_names_make_unique()
    skhebae.tl.project(query, model, key_added="again")
    assert_array_equal(query.obsm["again"], adata.obsm["X_hebae"])


@pytest.mark.filterwarnings("ignore:(?s).*expects .var.index to contain strings")
@pytest.mark.filterwarnings("ignore:Transforming to str index")
def test_names_that_are_numbers_are_compared_as_text():
    adata = cells()
    adata.var_names = pd.Index(np.arange(P))
    model = skhebae.tl.hebae(adata, 2, return_model=True, **SHORT)
    other = cells()[:, ::-1].copy()
    other.var_names = [str(j) for j in range(P)][::-1]
    for query in (adata, other):
        skhebae.tl.project(query, model, key_added="again")
        assert_array_equal(query.obsm["again"], adata.obsm["X_hebae"])
    assert list(skhebae.tl.sample(model, 2).var_names[:2]) == ["1", "2"]


def test_a_mask_is_not_read_in_another_order():
    adata = cells()
    mask = adata.var["highly_variable"]
    model = skhebae.tl.hebae(adata, 2, mask_var=mask, return_model=True, **SHORT)
    for same in (
        mask.reset_index(drop=True),
        mask.to_numpy(),
        mask.tolist(),
        mask.astype("boolean"),
    ):
        again = skhebae.tl.hebae(adata, 2, mask_var=same, return_model=True, **SHORT)
        assert_array_equal(again.anndata_["var_names"], model.anndata_["var_names"])
    adata.var["used"] = mask.astype("boolean")
    again = skhebae.tl.hebae(adata, 2, mask_var="used", return_model=True, **SHORT)
    assert_array_equal(again.anndata_["var_names"], model.anndata_["var_names"])
    with pytest.raises(ValueError, match=r"mask_var\.reindex\(adata\.var_names\)"):
        skhebae.tl.hebae(adata, 2, mask_var=mask[::-1])
    lacking = mask.astype("boolean")
    lacking.iloc[2] = pd.NA
    with pytest.raises(ValueError, match="must hold one boolean"):
        skhebae.tl.hebae(adata, 2, mask_var=lacking)


def test_the_warning_of_missing_genes_comes_before(model, monkeypatch):
    monkeypatch.setattr("skhebae.fitted.FittedAutoencoder.encode", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MissingGenesWarning):
            skhebae.tl.project(cells()[:, 2:].copy(), model)
