from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import Minibatch
from skhebae.diagnostics import LatentReport, latent_report
from skhebae.divergences import group_kl_to_standard
from skhebae.exceptions import (
    CollapsedDimensionsWarning,
    LatentWarning,
    OutOfRangeWarning,
    SaturatedInformationWarning,
    VanishedNoiseWarning,
)


class Pretender:
    """A fitted value whose rows have given codes, and noise of 0.001."""

    def __init__(self, fitted, codes):
        self._fitted, self._codes = fitted, codes

    def __getattr__(self, name):
        return getattr(self._fitted, name)

    def encode_with_spread(self, X, batch):
        return self._codes, np.full_like(self._codes, 1e-3)

    def expected_log_prob(self, X, batch, size_factor):
        return np.zeros(len(self._codes), dtype=np.float32)


def pretend_codes(monkeypatch, estimator, codes):
    monkeypatch.setattr(estimator, "fitted_", Pretender(estimator.fitted_, codes))
    monkeypatch.setattr(estimator, "validate_rows", lambda X: X, raising=False)


def quiet_report(estimator, X, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        return latent_report(estimator, X, **params)


@pytest.fixture(scope="module")
def vae(table):
    # Whitened, as the codes of a report are.
    return VAETransformer(3, hidden_layer_sizes=(16,), random_state=0, whiten=True).fit(table)


@pytest.fixture(scope="module")
def collapsed(table):
    # From principal components few steps do not get there.
    return VAETransformer(
        3, hidden_layer_sizes=(16,), beta=50.0, random_state=0, linear_path=False
    ).fit(table)


def test_numbers_per_dimension(vae, table):
    report = quiet_report(vae, table)
    mean, factor = (part.astype(np.float64) for part in vae.posterior(table))
    variance = np.square(factor).sum(axis=2)
    assert_allclose(report.mean_variance, mean.var(axis=0, ddof=1), rtol=1e-5)
    assert_allclose(report.posterior_variance, variance.mean(axis=0), rtol=1e-5)
    kl = 0.5 * (mean**2 + variance - 1.0 - np.log(variance))
    assert_allclose(report.kl, kl.mean(axis=0), rtol=1e-5)
    # The encoder's own posterior is diagonal, and N(0, I) looks the same from all sides.
    mean, factor = (p.astype(np.float64) for p in vae.fitted_.with_encoder_codes().posterior(table))
    variance = np.square(factor).sum(axis=2)
    own = 0.5 * (mean**2 + variance - 1.0 - np.log(variance))
    assert_allclose(report.row_kl, own.sum(axis=1).mean(), rtol=1e-5)
    assert report.active.all()
    assert report.n_rows == 240
    assert report.names == tuple(vae.get_feature_names_out())


def test_numbers_of_the_whole(vae, table):
    report = quiet_report(vae, table)
    correlation = np.abs(np.corrcoef(vae.transform(table).T.astype(np.float64)))
    assert_allclose(report.mean_abs_correlation, (correlation.sum() - 3) / 6, rtol=1e-4)
    assert_allclose(report.elbo, vae.elbo(table).mean(), rtol=1e-5)
    assert_allclose(report.training_bound, report.elbo, rtol=1e-6)
    assert_allclose(report.elbo, -report.reconstruction - report.row_kl)
    assert 0.0 < report.mutual_information < report.mutual_information_bound <= math.log(240)
    # Equation 10: the rest of the rows' divergence is that of the aggregate, >= 0.
    assert report.mutual_information < report.row_kl


@pytest.mark.slow
@pytest.mark.parametrize("row_share", [0.0, 0.3, 1.0])
def test_training_bound_is_minus_the_loss(table, row_share):
    estimator = HEBAETransformer(
        3, hidden_layer_sizes=(16,), row_share=row_share, reg_weight=2.0, random_state=0
    ).fit(table)
    report = quiet_report(estimator, table)
    # The objective itself, all rows in one minibatch, over many draws; with the encoder's codes.
    fitted = estimator.fitted_.with_encoder_codes()
    objective, model = estimator.make_objective(), fitted.model
    x = torch.from_numpy(fitted.scaling.standardise(table))
    minibatch = Minibatch(x, generator=torch.Generator().manual_seed(0))
    losses = []
    with torch.no_grad():
        for _ in range(200):
            terms = objective(model, minibatch)
            losses.append(float(terms.reconstruction.mean() + 2.0 * terms.penalty()))
    error = np.std(losses, ddof=1) / 200**0.5
    # The codes that users see have another aggregate.
    moved = fitted.moments.kl_to(fitted.prior)
    moved -= estimator.fitted_.code_moments.kl_to(fitted.prior)
    assert moved == 0.0 if row_share > 0.0 else moved > 0.0
    # Beside chance, the cubature of the report on a curved table.
    assert abs(report.training_bound + np.mean(losses) - 2.0 * moved) < 4.0 * error + 0.1
    if row_share == 0.0:
        aggregate = estimator.fitted_.code_moments.kl_to(fitted.prior)
        bound = estimator.hebae_bound(table).mean() - aggregate
        assert_allclose(report.training_bound, bound, rtol=1e-4)


def test_vae_weight_is_in_the_training_bound(collapsed, table):
    report = quiet_report(collapsed, table)
    expected = -report.reconstruction - 50.0 * report.row_kl
    assert_allclose(report.training_bound, expected, rtol=1e-6)


@pytest.mark.slow
def test_report_of_perfect_codes(monkeypatch, vanished):
    # Codes drawn from N(0, I): whatever compares them with it says so.
    rng = np.random.default_rng(3)
    codes = rng.standard_normal((2000, 3)).astype(np.float32)
    pretend_codes(monkeypatch, vanished, codes)
    report = quiet_report(vanished, codes)
    # The divergence of the moments of n rows has a variance of about d (d + 3) / 4 / n^2.
    assert abs(report.moments_kl) < 4.0 * np.sqrt(3 * 6 / 4) / 2000
    assert report.mmd_p_value > 0.05
    assert report.mean_abs_correlation < 4.0 / 2000**0.5


def test_mmd_sees_what_moments_do_not(monkeypatch, vanished):
    rng = np.random.default_rng(3)
    codes = rng.standard_normal((1000, 3)) * rng.choice([0.2, 1.4], size=(1000, 1))
    codes = (codes - codes.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(codes.T))).T
    codes = codes.astype(np.float32)
    pretend_codes(monkeypatch, vanished, codes)
    report = quiet_report(vanished, codes)
    assert abs(report.moments_kl) < 0.02
    assert report.mmd_p_value < 0.01


def test_warnings_of_hebae_name_vanished_noise_and_saturated_information(vanished, table):
    with pytest.warns() as record:
        report = latent_report(vanished, table)
    assert {w.category for w in record} == {VanishedNoiseWarning, SaturatedInformationWarning}
    assert report.noise_vanished
    assert report.information_saturated
    assert all(w.filename == __file__ for w in record)


def test_warning_of_collapse_names_the_dimensions(collapsed, table):
    with pytest.warns(CollapsedDimensionsWarning) as record:
        report = latent_report(collapsed, table)
    assert report.collapsed
    assert all(name in str(record[0].message) for name in report.collapsed[:5])
    assert not report.noise_vanished
    assert {w.category for w in record} == {CollapsedDimensionsWarning}


def test_a_healthy_vae_gives_no_warning(vae, table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latent_report(vae, table)


@pytest.mark.slow
def test_wae_has_no_noise_by_design(table, quick):
    wae = WAETransformer(**quick).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = latent_report(wae, table)
    assert report.noise_is_none
    assert report.elbo == -np.inf
    assert_allclose(report.mutual_information, math.log(240), rtol=1e-6)
    doubled = quiet_report(wae, np.repeat(table[:100], 2, axis=0))
    # Rows that are the same twice: their codes tell 100 rows apart, not 200.
    assert_allclose(doubled.mutual_information, math.log(100), rtol=1e-6)
    assert np.isfinite(report.training_bound)


def test_a_row_far_out_spoils_no_statistic_of_the_others(vae, table):
    clean = quiet_report(vae, table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", LatentWarning)
        warnings.simplefilter("ignore", OutOfRangeWarning)
        report = latent_report(vae, np.concatenate([table, 1e6 * np.ones((1, 12))]))
    assert not report.noise_is_none
    for name in ("mmd", "mmd_p_value", "mutual_information"):
        assert getattr(report, name) == pytest.approx(getattr(clean, name), abs=0.2)
    assert np.isfinite([report.row_kl, report.elbo, report.moments_kl]).all()


def test_few_rows_are_not_judged(fitted, table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        latent_report(fitted, table[:5])
        latent_report(fitted, np.repeat(table[:1], 5, axis=0))


def test_random_state_may_be_an_instance(vae, table):
    one = quiet_report(vae, table, random_state=np.random.RandomState(0))
    assert one.mmd == quiet_report(vae, table, random_state=0).mmd
    with pytest.raises(ValueError, match="seed"):
        latent_report(vae, table, random_state="seed")


def test_random_state_repeats_the_draws(vae, table):
    one, same, other = (quiet_report(vae, table, random_state=s) for s in (0, 0, 1))
    assert one.mutual_information == same.mutual_information
    assert one.mmd == same.mmd
    assert one.mutual_information != other.mutual_information
    state = np.random.get_state()[1].copy()
    quiet_report(vae, table)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_pairs_take_at_most_a_thousand_rows(vae, table):
    report = quiet_report(vae, np.tile(table, (5, 1)))
    assert report.n_rows == 1200
    assert report.n_pair_rows == 1000
    assert report.mutual_information < math.log(1000)


def test_repr_is_readable(vae, collapsed, table):
    text = repr(quiet_report(vae, table))
    lines = text.splitlines()
    assert lines[0] == "LatentReport of VAETransformer on 240 rows (nats per row)"
    assert len({len(line) for line in lines[2:6]}) == 1  # columns line up
    for what in ("active dimensions", "standard ELBO", "mutual information", "MMD"):
        assert what in text
    assert max(map(len, lines)) < 110
    assert "! " not in text
    assert "have collapsed" in repr(quiet_report(collapsed, table))


def test_repr_of_many_dimensions_is_cut(table):
    wide = VAETransformer(30, hidden_layer_sizes=(16,), random_state=0).fit(table)
    report = quiet_report(wide, table)
    assert "... and 10 more: see to_frame()" in repr(report)
    assert len(report.to_frame()) == 30


def test_html_is_well_formed_and_complete(vae, table):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.text = [], []

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text.append(data)

    report = quiet_report(vae, table)
    checker = Checker()
    checker.feed(report._repr_html_())
    assert not checker.open
    text = " ".join(checker.text)
    for name in report.names:
        assert name in text
    assert f"{report.elbo:.2f}" in text


def test_to_frame(vae, table):
    report = quiet_report(vae, table)
    frame = report.to_frame()
    assert list(frame.index) == list(report.names)
    assert frame.index.name == "dimension"
    assert list(frame.columns) == ["mean_variance", "posterior_variance", "kl", "active"]
    assert_allclose(frame["kl"], report.kl)


def test_to_frame_without_pandas_names_the_cure(vae, table, monkeypatch):
    report = quiet_report(vae, table)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        report.to_frame()


@pytest.mark.slow
def test_import_needs_no_optional_package():
    code = (
        "import sys; before = set(sys.modules); import torch, sklearn.mixture; "
        "import sklearn.preprocessing; theirs = set(sys.modules); import skhebae.diagnostics; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - theirs}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pandas", "matplotlib", "anndata"} & set(result)


def test_wrong_objects_are_refused_with_the_cure(vae, table):
    pipeline = make_pipeline(StandardScaler(), vae)
    with pytest.raises(TypeError, match=re.escape("pass pipeline[-1]")):
        latent_report(pipeline, table)
    with pytest.raises(NotFittedError):
        latent_report(VAETransformer(), table)
    with pytest.raises(ValueError, match="at least 3"):
        latent_report(vae, table[:2])
    with pytest.raises(ValueError, match="features"):
        latent_report(vae, table[:, :4])


def test_a_report_keeps_no_rows(vae, table):
    report = quiet_report(vae, table)
    assert isinstance(report, LatentReport)
    sizes = [value.size for value in vars(report).values() if isinstance(value, np.ndarray)]
    assert max(sizes) == 3


@pytest.mark.slow
@pytest.mark.parametrize("batch_share", [0.0, 0.4, 1.0])
def test_training_bound_has_the_share_of_batches(table, batch_share):
    batch = np.arange(len(table)) % 3
    shifted = table + 2.0 * batch[:, None]
    params = {"hidden_layer_sizes": (16,), "linear_path": False, "whiten": True}
    estimator = HEBAETransformer(3, batch_share=batch_share, random_state=0, **params)
    estimator.fit(shifted, batch=batch)
    report = latent_report(estimator, shifted, batch=batch)
    codes = torch.from_numpy(estimator.transform(shifted)).double()
    labels = torch.eye(3, dtype=torch.float64)[torch.from_numpy(batch)]
    of_all, of_batches = (
        float(group_kl_to_standard(codes, own, 1.0))
        for own in (torch.ones(len(codes), 1, dtype=torch.float64), labels)
    )
    of_all = estimator.fitted_.code_moments.kl_to(estimator.fitted_.prior)
    penalty = (1.0 - batch_share) * of_all + batch_share * of_batches
    assert_allclose(report.training_bound, -report.reconstruction - penalty, rtol=1e-4)
