"""Cells that do not belong are found by a detector that knows its genes, and nothing else is."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from test_tl import SHORT, N, P, cells

import skhebae
from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer
from skhebae.exceptions import MissingGenesWarning

anndata = pytest.importorskip("anndata")

# Fits are short, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

COUNTS = {"likelihood": "negative_binomial", "random_state": 0, **SHORT}
COLUMNS = ["novelty", "novelty_p_value"]


def brief(calibration=0.25, **params):
    return NoveltyDetector(HEBAETransformer(3, **{**COUNTS, **params}), calibration=calibration)


def used(adata):
    return adata.X[:, adata.var["highly_variable"].to_numpy()]


@pytest.fixture(scope="module")
def trained():
    """Cells, and a detector fitted to them that knows batches and size factors."""
    adata = cells()
    keys = {"batch_key": "batch", "size_factor_key": "size"}
    return adata, skhebae.tl.novelty_detector(adata, brief(), **keys)


@pytest.fixture(scope="module")
def plain():
    """A detector of the same cells that knows neither."""
    return skhebae.tl.novelty_detector(cells(), brief())


def judged(adata, detector, **options):
    """What is written for cells, (n, 2)."""
    return skhebae.tl.novelty(adata, detector, copy=True, **options).obs[COLUMNS].to_numpy()


# Fitting


def test_fit_is_the_detectors(trained):
    adata, detector = trained
    sides = {"batch": adata.obs["batch"], "size_factor": adata.obs["size"]}
    alone = brief().fit(used(adata), **sides)
    assert_array_equal(detector.calibration_scores_, alone.calibration_scores_)
    written = judged(adata, detector)
    assert_array_equal(written[:, 0], -alone.score_samples(used(adata), **sides))
    assert_array_equal(written[:, 1], alone.p_values(used(adata), **sides))
    assert list(adata.obs) == list(cells().obs)
    assert not adata.uns


@pytest.mark.parametrize("layer", [None, "log"])
def test_likelihood_follows_from_values(layer, monkeypatch):
    shown = []
    monkeypatch.setattr(NoveltyDetector, "fit", lambda self, X, **sides: shown.append(self))
    with pytest.raises(AttributeError, match="autoencoder_"):  # nothing was fitted
        skhebae.tl.novelty_detector(cells(), NoveltyDetector(alpha=0.1), layer=layer)
    (chosen,) = shown
    expected = "negative_binomial" if layer is None else "gaussian"
    assert chosen.autoencoder.likelihood == expected
    assert chosen.autoencoder.random_state == 0
    assert chosen.alpha == 0.1


@pytest.mark.slow
def test_default_is_the_autoencoder_of_hebae():
    adata = cells()
    detector = skhebae.tl.novelty_detector(adata)
    model = skhebae.tl.hebae(adata, return_model=True)
    assert detector.autoencoder.get_params() == model.get_params()
    assert len(detector.calibration_scores_) == round(0.2 * adata.n_obs)
    # With folds, all cells are in the last fit.
    folded = NoveltyDetector(detector.autoencoder, calibration=2)
    folded = skhebae.tl.novelty_detector(adata, folded)
    assert_allclose(folded.autoencoder_.transform(used(adata)), adata.obsm["X_hebae"], atol=1e-5)


def test_the_given_detector_stays_unfitted():
    detector = brief()
    before = repr(detector.get_params())
    fitted = skhebae.tl.novelty_detector(cells(), detector, mask_var=None)
    assert not hasattr(detector, "offset_")
    assert repr(detector.get_params()) == before
    assert fitted.n_features_in_ == P


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "raw"}, KeyError, "layer='raw'"),
        ({"mask_var": "hvg"}, KeyError, "mask_var='hvg'"),
        ({"batch_key": "donor"}, KeyError, "batch_key='donor'"),
        ({"size_factor_key": "depth"}, KeyError, "size_factor_key='depth'"),
        (
            {"detector": HEBAETransformer(2)},
            TypeError,
            r"got HEBAETransformer. Pass NoveltyDetector\(HEBAETransformer",
        ),
        ({"detector": "auto"}, TypeError, "got str. Pass None"),
    ],
)
def test_fit_refuses(options, error, message):
    with pytest.raises(error, match=message):
        skhebae.tl.novelty_detector(cells(), **options)


def test_the_autoencoder_knows_its_genes(trained):
    adata, detector = trained
    model = detector.autoencoder_
    target = skhebae.tl.project(adata, model, copy=True)
    assert_array_equal(target.obsm["X_hebae"], model.transform(used(adata)))
    other = NoveltyDetector(VAETransformer(2, **COUNTS), calibration=0.25)
    assert skhebae.tl.novelty_detector(adata, other).autoencoder_.anndata_["name"] == "vae"


def test_a_file_keeps_genes_layer_and_keys(trained, tmp_path):
    adata, detector = trained
    detector.save(tmp_path / "cells.model")
    loaded = NoveltyDetector.load(tmp_path / "cells.model")
    shuffled = adata[:, np.random.default_rng(0).permutation(P)].copy()
    assert_array_equal(judged(shuffled, loaded), judged(adata, detector))
    without = adata.copy()
    del without.obs["batch"]
    with pytest.raises(KeyError, match="batch_key='batch'"):
        skhebae.tl.novelty(without, loaded)


# Judging


def test_strange_cells_are_strange():
    detector = skhebae.tl.novelty_detector(cells(), brief(max_iter=30))
    adata, strange = cells(), cells()
    strange.X = strange.X[:, np.random.default_rng(1).permutation(P)]  # counts of other genes
    belong, apart = judged(adata, detector), judged(strange, detector)
    assert np.median(apart[:, 0]) > np.quantile(belong[:, 0], 0.95)
    assert np.mean(apart[:, 1] <= 0.05) > 0.5
    assert np.mean(belong[:, 1] <= 0.05) < 0.1


def test_what_is_written(trained):
    adata, detector = trained
    target = adata.copy()
    assert skhebae.tl.novelty(target, detector) is None
    assert [name for name in target.obs if name not in adata.obs] == COLUMNS
    assert (target.obs[COLUMNS].dtypes == np.float64).all()
    entry = target.uns["novelty"]
    assert entry["n_held_out"] == 30
    assert entry["params"] == {
        "autoencoder": "HEBAETransformer",
        "likelihood": "negative_binomial",
        "score": "auto",
        "contamination": "auto",
        "alpha": 0.05,
        "n_genes": 20,
        "batch_key": "batch",
        "size_factor_key": "size",
    }
    assert entry["versions"]["skhebae"] == skhebae.__version__
    sides = {"batch": adata.obs["batch"], "size_factor": adata.obs["size"]}
    alarms = target.obs["novelty"] > entry["threshold"]
    assert_array_equal(alarms, detector.predict(used(adata), **sides) == -1)


def test_key_copy_and_files(trained, tmp_path):
    adata, detector = trained
    target = skhebae.tl.novelty(adata, detector, key_added="odd", copy=True)
    assert [name for name in target.obs if name not in adata.obs] == ["odd", "odd_p_value"]
    assert list(target.uns) == ["odd"]
    assert not adata.uns
    target.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert read.uns["odd"]["threshold"] == target.uns["odd"]["threshold"]
    for key, error in (("a/b", ValueError), (3, TypeError)):
        with pytest.raises(error, match="key_added="):
            skhebae.tl.novelty(adata, detector, key_added=key)


def test_a_cell_alone_is_the_cell_among_others(trained):
    adata, detector = trained
    among = judged(adata, detector)
    for i in (0, 7, N - 1):
        assert_array_equal(judged(adata[i : i + 1].copy(), detector)[0], among[i])


def test_backed_files_are_fitted_and_judged(trained, tmp_path):
    adata, detector = trained
    cells().write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    skhebae.tl.novelty(backed, detector)
    assert_array_equal(backed.obs[COLUMNS], judged(adata, detector))
    with pytest.raises(ValueError, match="to_memory"):
        skhebae.tl.novelty(backed, detector, copy=True)
    stored = skhebae.tl.novelty_detector(backed, brief(), batch_key="batch")
    assert stored.autoencoder_.anndata_["batch_key"] == "batch"
    skhebae.tl.novelty(backed, stored)
    assert np.isfinite(backed.obs["novelty"]).all()
    backed.file.close()


def test_layers_are_those_of_the_fit():
    adata = cells()
    detector = skhebae.tl.novelty_detector(
        adata, brief(likelihood="gaussian"), layer="log", mask_var=None
    )
    log = judged(adata, detector)
    assert_array_equal(log[:, 0], -detector.score_samples(adata.layers["log"]))
    swapped = adata.copy()
    swapped.X = swapped.layers.pop("log")
    assert_array_equal(judged(swapped, detector, layer=None), log)


def test_missing_genes(plain):
    adata = cells()
    names = adata.var_names[adata.var["highly_variable"]]
    lacking = adata[:, ~adata.var_names.isin(names[:2])].copy()
    with pytest.warns(MissingGenesWarning, match="2 of the model's 20 genes.*unknown"):
        inferred = judged(lacking, plain)
    with pytest.warns(MissingGenesWarning, match="zero"):
        zero = judged(lacking, plain, missing="zero")
    counts = used(adata).toarray()
    for written, value in ((inferred, np.nan), (zero, 0.0)):
        counts[:, :2] = value
        assert_array_equal(written[:, 0], -plain.score_samples(counts))
    with pytest.raises(ValueError, match="2 of the model's 20 genes"):
        judged(lacking, plain, missing="error")
    with pytest.raises(ValueError, match="max_missing=5%"):
        judged(lacking, plain, max_missing=0.05)
    assert not set(COLUMNS) & set(lacking.obs)


@pytest.mark.filterwarnings("ignore::skhebae.exceptions.MissingGenesWarning")
def test_missing_entries_raise_no_alarms_but_missing_counts_do():
    """As the docstring of `novelty` says of cells like those of the fit."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(1.0, 0.5, (2, P)))

    def draw(n_cells):
        return anndata.AnnData(rng.poisson(mean[rng.integers(2, size=n_cells)]).astype(np.float32))

    detector = skhebae.tl.novelty_detector(draw(400), brief(max_iter=15))
    query = draw(400)[:, 5:].copy()
    alarms = {
        missing: np.mean(judged(query, detector, missing=missing)[:, 1] <= 0.05)
        for missing in ("infer", "zero")
    }
    assert alarms["infer"] < 0.06
    assert alarms["zero"] > 0.3


def test_only_a_fitted_detector_will_do(trained):
    adata = cells()
    autoencoder = trained[1].autoencoder_
    with pytest.raises(TypeError, match=r"held out of its fit.*p-values.*novelty_detector"):
        skhebae.tl.novelty(adata, autoencoder)
    with pytest.raises(TypeError, match=r"novelty_detector.*returns, got str"):
        skhebae.tl.novelty(adata, "auto")
    with pytest.raises(NotFittedError):
        skhebae.tl.novelty(adata, NoveltyDetector())
    matrix = clone(trained[1]).fit(used(adata))
    with pytest.raises(ValueError, match=r"plain matrix.*novelty_detector"):
        skhebae.tl.novelty(adata, matrix)
    with pytest.raises(TypeError, match="adata must be an AnnData"):
        skhebae.tl.novelty(used(adata), trained[1])
    assert list(adata.obs) == list(cells().obs)


def test_nothing_is_written_on_failure(trained):
    _, detector = trained
    adata = cells()
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories({"stim": "other"})
    with pytest.raises(ValueError, match="other"):
        skhebae.tl.novelty(adata, detector)
    adata = cells()
    adata.X[3, 1] = -1.0  # no count
    with pytest.raises(ValueError, match="negative_binomial"):
        skhebae.tl.novelty(adata, detector)
    assert list(adata.obs) == list(cells().obs)
    assert not adata.uns


def test_defaults_are_those_of_the_other_tools():
    own = inspect.signature(skhebae.tl.novelty).parameters
    assert own.keys() == inspect.signature(skhebae.tl.project).parameters.keys() - {"query"} | {
        "adata"
    }
    fit = inspect.signature(skhebae.tl.novelty_detector).parameters
    embed = inspect.signature(skhebae.tl.hebae).parameters
    shared = fit.keys() & embed.keys() - {"adata"}
    assert all(fit[name].default == embed[name].default for name in shared)
