"""`bound_gap` of estimators: parts that add up, rows on their own, families, counts, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import StoredTable
from skhebae.diagnostics import BoundGap, bound_gap, latent_report
from skhebae.diagnostics import gap as gap_module
from skhebae.diagnostics.gap import take_rows
from skhebae.exceptions import LatentWarning, UnreliableBoundWarning

# Posteriors of this curved table have several modes now and then, and tests few draws.
pytestmark = pytest.mark.filterwarnings(
    "ignore::skhebae.exceptions.UnreliableBoundWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
)

PARTS = ("gaussian", "family", "amortisation")


@pytest.fixture(scope="module", autouse=True)
def _few_points():
    """Small chunks of rows and short rules, which tests of the whole way need not have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skhebae.data.chunks.CHUNK_ROWS", 64)
        patch.setattr(gap_module, "SEARCH", (6, 1))
        patch.setattr(gap_module, "EVALUATION", (16, 3))
        yield


def fit(cls, X, **params):
    given = {"hidden_layer_sizes": (16,), "random_state": 0, "linear_path": False} | params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cls(3, **given, max_iter=15).fit(X)


@pytest.fixture(scope="module")
def vae(table):
    return fit(VAETransformer, table)


@pytest.fixture(scope="module")
def gap(vae, table):
    return bound_gap(vae, table, max_rows=60, n_draws=400)


def check_parts(gap):
    gaussian, family, amortisation = (gap.parts[name] for name in PARTS)
    total = gaussian + family + amortisation
    assert_array_equal(total, gap.parts["total"])
    own = gap.log_likelihood - gap.encoder.mean(axis=1)
    assert_allclose(gap.parts["total"], own, atol=1e-9)
    for name in (*PARTS, "independence"):
        mean, error = gap.summary[name]
        assert mean > -3.0 * error - 0.02, name
        assert (gap.parts[name] > -0.1 - 5.0 * gap.log_likelihood_error).mean() > 0.9, name


def test_parts_of_a_vae(gap, vae, table):
    check_parts(gap)
    assert gap.posterior_family == "diagonal"
    assert_array_equal(gap.family, gap.diagonal)
    assert gap.n_rows == 60
    X = table[gap.indices]
    # The library's own numbers, up to the error of its cubature and draws.
    assert_allclose(gap.encoder.mean(), vae.elbo(X).mean(), atol=0.2)
    assert_allclose(gap.log_likelihood.mean(), vae.log_likelihood(X, n_draws=500).mean(), atol=0.1)
    assert gap.summary["amortisation"][0] > 0.05
    assert gap.summary["independence"][0] > gap.summary["independence"][1] > 0.0
    # The linearised loss is of the same size for this curved decoder, and common axes lower it.
    assert 0.5 < gap.off_diagonal.mean() / gap.summary["independence"][0] < 3.0
    assert gap.turned_off_diagonal.mean() <= gap.off_diagonal.mean() + 0.02
    assert (gap.off_diagonal_size < 1.0).all()


@pytest.mark.parametrize("row_share", [0.0, pytest.param(0.3, marks=pytest.mark.slow), 1.0])
def test_parts_of_hebae(table, row_share):
    estimator = fit(HEBAETransformer, table, row_share=row_share)
    gap = bound_gap(estimator, table, max_rows=40, n_draws=300)
    check_parts(gap)
    assert gap.posterior_family == "scaled"
    assert_allclose(gap.encoder.mean(), estimator.elbo(table[gap.indices]).mean(), atol=0.2)
    assert "one covariance for all rows, scaled" in repr(gap)
    assert "(a diagonal Gaussian would miss)" in repr(gap)


@pytest.mark.slow
def test_a_common_scale_per_row_is_a_family_too(table):
    params = {"row_share": 1.0, "covariance": "diag", "posterior_scale": "scalar"}
    gap = bound_gap(fit(HEBAETransformer, table, **params), table, max_rows=40, n_draws=300)
    check_parts(gap)
    assert gap.posterior_family == "scaled"
    assert gap.summary["family"][0] > gap.summary["independence"][0]


def test_points_have_an_infinite_gap(table):
    gap = bound_gap(fit(WAETransformer, table), table, max_rows=20, n_draws=100)
    assert gap.posterior_family == "point"
    assert gap.summary["total"][0] == gap.summary["amortisation"][0] == np.inf
    assert np.isnan(gap.summary["total"][1])
    assert np.isfinite(gap.summary["gaussian"]).all()
    assert_array_equal(gap.parts["family"], gap.parts["independence"])
    assert "inf" in repr(gap)


def test_noise_of_a_fixed_width_is_no_point(vae, table, monkeypatch):
    objective = vae.fitted_.objective
    monkeypatch.setattr(type(objective), "n_scales", lambda self, n_components: 0)
    monkeypatch.setattr(
        type(objective),
        "spread",
        lambda self, scales, n_components: scales.new_ones(len(scales), n_components),
    )
    gap = bound_gap(vae, table[:5], n_draws=100)
    assert gap.posterior_family == "diagonal"
    assert np.isfinite(gap.encoder).all()


@pytest.mark.slow
def test_a_row_is_the_same_alone_and_among_others(vae, table):
    together = bound_gap(vae, table[:20], n_draws=100)
    alone = bound_gap(vae, table[7:8], n_draws=100)
    backwards = bound_gap(vae, table[:20][::-1], n_draws=100)
    for name in ("log_likelihood", "full", "diagonal", "family", "encoder", "precision"):
        assert_array_equal(getattr(alone, name)[0], getattr(together, name)[7])
        assert_array_equal(getattr(backwards, name)[::-1], getattr(together, name))
    assert alone.summary["total"][0] == pytest.approx(alone.parts["total"][0])


@pytest.mark.slow
def test_the_choice_of_rows_and_draws_is_seeded(vae, table, gap):
    again = bound_gap(vae, table, max_rows=60, n_draws=400)
    assert_array_equal(gap.indices, again.indices)
    assert_array_equal(gap.full, again.full)
    other = bound_gap(vae, table, max_rows=60, n_draws=100, random_state=1)
    assert not np.array_equal(gap.indices, other.indices)
    assert_allclose(gap.summary["family"][0], other.summary["family"][0], rtol=0.3)


def test_rows_of_every_kind_of_table_can_be_chosen(table):
    chosen = np.array([3, 5, 100])
    assert_array_equal(take_rows(table, chosen), table[chosen])
    sparse = csr_matrix(table)
    assert_array_equal(take_rows(sparse, chosen).toarray(), table[chosen])
    stored = StoredTable(table.astype(np.float32))
    assert_array_equal(np.asarray(take_rows(stored, chosen)), table[chosen].astype(np.float32))


@pytest.mark.slow
def test_counts_with_batches_and_size_factors():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(size=(120, 2)) @ rng.normal(size=(2, 8)) * 0.5 + 1.0)
    X, batch = rng.poisson(rate), np.repeat(["a", "b"], 60)
    estimator = HEBAETransformer(
        2, likelihood="negative_binomial", hidden_layer_sizes=(8,), max_iter=10, random_state=0
    )
    estimator.fit(X, batch=batch)
    size = X.sum(axis=1) + 1.0
    gap = bound_gap(estimator, X, max_rows=30, batch=batch, size_factor=size, n_draws=300)
    check_parts(gap)
    elbo = estimator.elbo(X, batch=batch, size_factor=size)[gap.indices]
    assert_allclose(gap.encoder.mean(), elbo.mean(), atol=0.2)


@pytest.mark.slow
def test_missing_entries(vae, table):
    holed = table[:30].copy()
    holed[:10, 2] = np.nan
    gap = bound_gap(vae, holed, n_draws=300)
    check_parts(gap)
    assert_array_equal(gap.parts["family"][:10], 0.0)
    whole = bound_gap(vae, table[10:30], n_draws=300)
    assert_array_equal(gap.full[10:], whole.full)
    # A feature that is not seen leaves the posterior wider.
    assert (np.linalg.det(gap.precision[:10]) > 0.0).all()


def test_text_and_frame(gap):
    text = repr(gap)
    assert text.startswith("BoundGap of VAETransformer on 60 rows (nats per row")
    for what in ("any Gaussian misses", "conditional independence misses", "effective draws"):
        assert what in text
    frame = gap.to_frame()
    assert list(frame.index) == list(gap.indices)
    assert_allclose(frame["total"], frame[list(PARTS)].sum(axis=1))
    assert_allclose(frame["log_likelihood"] - frame["encoder"], frame["total"])
    assert isinstance(gap, BoundGap)


@pytest.mark.slow
def test_latent_report_shows_the_gap_when_asked(vae, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        plain, full = latent_report(vae, table), latent_report(vae, table, gap=True)
    assert plain.gap is None
    assert "log p(x) - standard ELBO" not in repr(plain)
    assert full.gap.n_rows == 100
    assert f"log p(x) - standard ELBO                   {full.gap.line}" in repr(full)
    assert plain.elbo == full.elbo


def test_few_effective_draws_are_said(vae, table, monkeypatch):
    monkeypatch.setattr("skhebae.diagnostics.gap_report.FEWEST_EFFECTIVE_DRAWS", 1e6)
    with pytest.warns(UnreliableBoundWarning, match=r"log p\(x\) of 5 of 5 rows .* n_draws"):
        gap = bound_gap(vae, table[:5], n_draws=100)
    assert "! log p(x) of 5 of 5 rows" in repr(gap)


def test_what_cannot_be_measured(vae, table):
    with pytest.raises(NotFittedError):
        bound_gap(VAETransformer(3), table)
    with pytest.raises(TypeError, match=r"got Pipeline.*pipeline\[-1\]"):
        bound_gap(make_pipeline(StandardScaler(), vae), table)
    for value in (0, 2.5, True):
        with pytest.raises(ValueError, match=r"max_rows=.* must be an integer >= 1"):
            bound_gap(vae, table, max_rows=value)
    with pytest.raises(ValueError, match=r"n_draws=10 must be an integer >= 100"):
        bound_gap(vae, table, n_draws=10)
    with pytest.raises(ValueError, match="features"):
        bound_gap(vae, table[:, :3])
