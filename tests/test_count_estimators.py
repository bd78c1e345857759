"""Counts, batches and size factors through the estimators."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.diagnostics import latent_report

# Some fits are a few epochs long, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLASSES = [HEBAETransformer, VAETransformer, WAETransformer]
COUNTS = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]
N, P, TYPES = 300, 40, 3


def cells(seed=0, *, shift=1.0):
    """Overdispersed counts of three cell types in two batches, and what they are of.

    Batches differ by a factor a gene, `shift` in its logarithm.
    """
    rng = np.random.default_rng(seed)
    profiles = rng.normal(0.0, 1.0, (TYPES, P))
    effects = shift * rng.normal(0.0, 1.0, (2, P))
    kind, batch = rng.integers(TYPES, size=N), rng.integers(2, size=N)
    log_share = profiles[kind] + effects[batch]
    share = np.exp(log_share) / np.exp(log_share).sum(axis=1, keepdims=True)
    size = np.exp(rng.normal(5.0, 0.5, (N, 1)))
    mean = share * size
    counts = rng.poisson(rng.gamma(2.0, mean / 2.0)).astype(np.float32)
    return counts, kind, np.array(["ctrl", "stim"], dtype=object)[batch], mean


@pytest.fixture(scope="module")
def data():
    return cells()


@pytest.fixture(scope="module", params=CLASSES, ids=lambda cls: cls.__name__)
def fitted(request, data):
    counts, _, batch, _ = data
    model = request.param(3, likelihood="negative_binomial", max_iter="auto", random_state=0)
    return model.fit(counts, batch=batch)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", COUNTS)
def test_means_are_found(likelihood, data):
    """Decoded means are nearer to the true ones than the counts and than the shares."""
    counts, _, batch, mean = data
    model = HEBAETransformer(3, likelihood=likelihood, random_state=0).fit(counts, batch=batch)
    totals = counts.sum(axis=1)
    decoded = model.inverse_transform(model.transform(counts), batch=batch, size_factor=totals)

    def error(estimate):
        return float(np.mean(np.abs(np.log1p(estimate) - np.log1p(mean))))

    plain = counts.mean(axis=0) / counts.mean(axis=0).sum() * totals[:, None]
    assert error(decoded) < 0.7 * min(error(counts), error(plain))
    if likelihood == "zero_inflated_negative_binomial":
        assert (decoded.sum(axis=1) < totals).all()
    else:
        assert_allclose(decoded.sum(axis=1), totals, rtol=1e-4)


@pytest.mark.slow
def test_theta_is_found():
    counts, _, batch, _ = cells()
    model = HEBAETransformer(3, likelihood="negative_binomial", random_state=0)
    theta = model.fit(counts, batch=batch).theta_
    assert theta.shape == (P,)
    # 2 in truth; networks take a part of the spread for signal.
    assert 1.5 < np.median(theta) < 5.0
    assert not hasattr(model, "noise_variance_")
    model.set_params(likelihood="gaussian").fit(np.log1p(counts))
    assert not hasattr(model, "theta_")
    assert not hasattr(model, "batches_")
    assert hasattr(model, "noise_variance_")


@pytest.mark.slow
def test_decoder_takes_the_batch_off_the_codes(data):
    counts, kind, batch, _ = data
    half = np.arange(N) < N // 2

    def accuracy(codes, labels):
        return (
            KNeighborsClassifier(15)
            .fit(codes[half], labels[half])
            .score(codes[~half], labels[~half])
        )

    model = HEBAETransformer(3, likelihood="negative_binomial", random_state=0)
    without = model.fit_transform(counts)
    within = model.fit_transform(counts, batch=batch)
    assert accuracy(without, batch) > 0.95
    assert accuracy(within, batch) < 0.75
    assert accuracy(within, kind) > 0.95


@pytest.mark.slow
def test_batch_share_moves_batches_onto_each_other(data):
    """Also where one batch has no cell of a type: that is the price."""
    counts, kind, batch, _ = data

    def gaps(share):
        model = HEBAETransformer(
            3, likelihood="negative_binomial", batch_share=share, random_state=0
        )
        codes = model.fit_transform(counts[kept], batch=batch[kept])
        parts = [codes[batch[kept] == label] for label in ("ctrl", "stim")]
        mean = np.linalg.norm(parts[0].mean(axis=0) - parts[1].mean(axis=0))
        spread = np.linalg.norm(np.cov(parts[0].T) - np.cov(parts[1].T))
        return mean, spread

    kept = (batch == "ctrl") | (kind > 0)
    free, matched = gaps(0.0), gaps(1.0)
    assert matched[0] < 0.5 * free[0]
    assert matched[1] < free[1]


@pytest.mark.slow
def test_transform_needs_no_labels_and_no_neighbours(fitted, data):
    counts, _, _, _ = data
    codes = fitted.transform(counts)
    assert codes.dtype == np.float32
    assert_array_equal(fitted.transform(counts[7:8]), codes[7:8])
    assert_array_equal(fitted.transform(sparse.csr_matrix(counts)), codes)
    assert_array_equal(fitted.transform(counts.astype(np.int16)), codes)


@pytest.mark.parametrize("method", ["score_samples", "elbo", "log_likelihood"])
def test_scores_of_a_row_alone_are_those_among_others(fitted, data, method):
    counts, _, batch, _ = data
    score = getattr(fitted, method)
    scores = score(counts[:20], batch=batch[:20])
    assert_array_equal(score(counts[3:4], batch=batch[3:4]), scores[3:4])
    if method == "elbo" and isinstance(fitted, WAETransformer):
        return
    assert np.isfinite(scores).all()
    other = np.where(batch == "ctrl", "stim", "ctrl")
    assert score(counts[:20], batch=other[:20]).mean() < scores.mean()


def test_batch_average_is_the_mean_over_batches(fitted):
    codes = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    each = [fitted.inverse_transform(codes, batch=label) for label in ("ctrl", "stim")]
    assert_allclose(fitted.inverse_transform(codes, batch="average"), sum(each) / 2, rtol=1e-5)
    mixed = np.array(["ctrl", "stim", "ctrl", "stim", "stim"])
    rows = fitted.inverse_transform(codes, batch=mixed)
    assert_array_equal(rows[0], each[0][0])
    assert_array_equal(rows[4], each[1][4])


def test_size_factor_scales_the_means(fitted, data):
    counts, _, _, _ = data
    codes = np.zeros((2, 3), dtype=np.float32)
    usual = fitted.inverse_transform(codes, batch="ctrl")
    assert_allclose(usual.sum(axis=1), np.median(counts.sum(axis=1)), rtol=1e-4)
    twice = fitted.inverse_transform(codes, batch="ctrl", size_factor=[1e4, 2e4])
    assert_allclose(twice.sum(axis=1), [1e4, 2e4], rtol=1e-4)


def test_the_unit_of_size_factors_does_not_matter(data):
    counts, _, _, _ = data
    factor = counts.sum(axis=1) * np.exp(np.random.default_rng(0).normal(0.0, 0.2, N))
    model = HEBAETransformer(2, likelihood="poisson", max_iter=5, random_state=0)
    codes = [clone(model).fit_transform(counts, size_factor=s * factor) for s in (1.0, 1e-3)]
    assert_allclose(codes[0], codes[1], atol=1e-3)
    one = clone(model).fit(counts, size_factor=factor / np.median(factor))
    row = one.inverse_transform(np.zeros((1, 2)), size_factor=1.0)
    # So that all means together are as many as the counts.
    expected = counts.sum() / (factor / np.median(factor)).sum()
    assert_allclose(row.sum(), expected, rtol=1e-4)


def test_samples_are_counts_of_realistic_depth(fitted, data):
    counts, _, _, _ = data
    draws = fitted.sample(400, random_state=0, noise=True, batch="ctrl")
    assert_array_equal(draws, np.rint(draws))
    totals, true = np.log(draws.sum(axis=1)), np.log(counts.sum(axis=1))
    assert abs(totals.mean() - true.mean()) < 0.15
    assert abs(totals.std() - true.std()) < 0.1
    assert abs((draws == 0).mean() - (counts == 0).mean()) < 0.05
    fixed = fitted.sample(5, random_state=0, batch="ctrl", size_factor=1000.0)
    assert_allclose(fixed.sum(axis=1), 1000.0, rtol=1e-4)
    assert_array_equal(fitted.sample(400, random_state=0, noise=True, batch="ctrl"), draws)


def test_files_pickles_and_copies_keep_batches_and_sizes(fitted, data, tmp_path):
    counts, _, batch, _ = data
    fitted.save(tmp_path / "model.skhebae")
    for copy in (
        type(fitted).load(tmp_path / "model.skhebae"),
        pickle.loads(pickle.dumps(fitted)),
    ):
        assert_array_equal(copy.batches_, fitted.batches_)
        assert_array_equal(copy.theta_, fitted.theta_)
        assert_array_equal(copy.transform(counts), fitted.transform(counts))
        assert_array_equal(
            copy.score_samples(counts[:9], batch=batch[:9]),
            fitted.score_samples(counts[:9], batch=batch[:9]),
        )


@pytest.mark.parametrize(
    "labels", [np.array([3, 1, 2] * 100), np.array([0.5, 1.5] * 150), np.array([True, False] * 150)]
)
def test_labels_may_be_numbers(labels, data, tmp_path):
    counts = data[0]
    model = VAETransformer(2, likelihood="poisson", max_iter=1, random_state=0)
    model.fit(counts, batch=labels).save(tmp_path / "model")
    copy = VAETransformer.load(tmp_path / "model")
    assert_array_equal(copy.batches_, np.unique(labels))
    row = copy.inverse_transform(np.zeros((1, 2)), batch=labels[:1])
    assert_array_equal(row, model.inverse_transform(np.zeros((1, 2)), batch=labels[0]))


@pytest.mark.slow
def test_encoder_may_see_the_batch(data):
    counts, _, batch, _ = data
    model = HEBAETransformer(3, likelihood="negative_binomial", encode_batch=True, random_state=0)
    codes = model.fit_transform(counts, batch=batch)
    assert_array_equal(model.transform(counts, batch=batch), codes)
    other = np.where(batch == "ctrl", "stim", "ctrl")
    assert np.abs(model.transform(counts, batch=other) - codes).max() > 0.01
    with pytest.raises(ValueError, match="needs batch= here too"):
        model.transform(counts)
    model.set_params(encoder=linear_encoder)
    with pytest.raises(ValueError, match="built-in encoder only"):
        model.fit(counts, batch=batch)
    assert_array_equal(model.transform(counts, batch=batch), codes)


def linear_encoder(shape, n_outputs):
    return torch.nn.Linear(shape[0], n_outputs)


def linear_decoder(n_components, shape):
    return torch.nn.Linear(n_components, shape[0])


def test_decoders_of_the_user_see_the_batch_behind_the_code(data):
    counts, _, batch, _ = data
    model = HEBAETransformer(
        2, likelihood="poisson", encoder=linear_encoder, decoder=linear_decoder, max_iter=3
    )
    model.fit(counts, batch=batch)
    assert model.fitted_.model.decoder.module.in_features == 4
    codes = np.zeros((1, 2))
    rows = [model.inverse_transform(codes, batch=label) for label in ("ctrl", "stim")]
    assert np.abs(rows[0] - rows[1]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_batches_go_with_every_likelihood(likelihood, data):
    counts, _, batch, _ = data
    table = (counts > 0).astype(np.float32) if likelihood == "bernoulli" else np.log1p(counts)
    model = HEBAETransformer(2, likelihood=likelihood, random_state=0).fit(table, batch=batch)
    codes = model.transform(table)
    means = [model.inverse_transform(codes, batch=b).mean(axis=0) for b in ("ctrl", "stim")]
    truth = [table[batch == b].mean(axis=0) for b in ("ctrl", "stim")]
    assert np.corrcoef(means[0] - means[1], truth[0] - truth[1])[0, 1] > 0.9
    assert np.isfinite(model.score(table, batch=batch))


def test_partial_fit_and_warm_start_keep_the_batches(data):
    counts, _, batch, _ = data
    model = HEBAETransformer(2, likelihood="negative_binomial", random_state=0)
    model.partial_fit(counts[:200], batch=batch[:200])
    only = batch == "stim"
    model.partial_fit(counts[only], batch=batch[only])
    assert list(model.batches_) == ["ctrl", "stim"]
    with pytest.raises(ValueError, match="1 labels that fit did not see: 'new'"):
        model.partial_fit(counts[:9], batch=["new"] * 9)
    with pytest.raises(ValueError, match="needs batch="):
        model.partial_fit(counts[:9])
    model.set_params(warm_start=True, max_iter=1).fit(counts[only], batch=batch[only])
    assert list(model.batches_) == ["ctrl", "stim"]


@pytest.mark.slow
def test_early_stopping_and_bfloat16_take_batches(data):
    counts, _, batch, _ = data
    model = HEBAETransformer(
        2, likelihood="negative_binomial", early_stopping=True, precision="bfloat16", random_state=0
    )
    model.fit(sparse.csr_matrix(counts), batch=batch)
    assert np.isfinite(model.history_["validation_loss"]).all()


def test_batches_can_be_routed(data):
    counts, _, batch, _ = data
    with config_context(enable_metadata_routing=True):
        step = VAETransformer(2, likelihood="poisson", max_iter=1, random_state=0)
        step.set_fit_request(batch=True)
        model = make_pipeline(step).fit(counts, batch=batch)
    assert list(model[-1].batches_) == ["ctrl", "stim"]


def test_report_takes_batches(fitted, data):
    counts, _, batch, _ = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it finds of these codes is not of concern here
        report = latent_report(fitted, counts, batch=batch)
    assert np.isfinite(report.reconstruction)


@pytest.mark.parametrize("likelihood", COUNTS)
@pytest.mark.parametrize("kind", ["array", "csr"])
def test_what_is_no_count_is_refused(likelihood, kind, data):
    counts = data[0]
    as_kind = sparse.csr_matrix if kind == "csr" else np.asarray
    model = HEBAETransformer(2, likelihood=likelihood)
    with pytest.raises(ValueError, match=r"needs counts.*log-normalised.*layers\['counts'\]"):
        model.fit(as_kind(np.log1p(counts)))
    with pytest.raises(ValueError, match="Negative values in data passed to likelihood"):
        model.fit(as_kind(-counts))
    with pytest.raises(ValueError, match="takes counts up to"):
        model.fit(as_kind(1e10 * counts))
    with pytest.raises(ValueError, match="no counts at all"):
        model.fit(as_kind(0.0 * counts))
    assert not hasattr(model, "history_")


def test_rows_without_counts_stay_finite(data):
    counts = data[0].copy()
    counts[:5] = 0.0
    model = HEBAETransformer(2, likelihood="negative_binomial", max_iter=2).fit(counts)
    assert np.isfinite(model.transform(counts)).all()
    assert np.isfinite(model.score_samples(counts)).all()


BAD = [
    ({"batch": ["a"] * 3}, r"batch has shape \(3,\)"),
    ({"batch": [None] * N}, "missing"),
    ({"batch": [np.nan] * N}, "missing"),
    ({"size_factor": [1.0] * 3}, r"size_factor has shape \(3,\)"),
    ({"size_factor": [0.0] * N}, "must be finite and > 0"),
    ({"size_factor": [np.inf] * N}, "must be finite and > 0"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_batches_and_size_factors_name_the_cure(given, message, data):
    with pytest.raises(ValueError, match=message):
        HEBAETransformer(2, likelihood="poisson").fit(data[0], **given)


def test_covariates_that_do_not_belong_are_refused(fitted, data):
    counts, _, batch, _ = data
    codes = np.zeros((2, 3))
    with pytest.raises(ValueError, match="needs batch= here too"):
        fitted.inverse_transform(codes)
    with pytest.raises(ValueError, match="did not see: 'other'"):
        fitted.inverse_transform(codes, batch="other")
    with pytest.raises(ValueError, match="did not see: 'other'"):
        fitted.sample(2, batch=["ctrl", "other"])
    with pytest.raises(ValueError, match="needs batch= here too"):
        fitted.score_samples(counts)
    plain = HEBAETransformer(2, max_iter=1).fit(np.log1p(counts))
    with pytest.raises(ValueError, match="fitted without batch="):
        plain.score_samples(np.log1p(counts), batch=batch)
    with pytest.raises(ValueError, match="size_factor= is the exposure of counts"):
        plain.inverse_transform(np.zeros((1, 2)), size_factor=2.0)
    with pytest.raises(ValueError, match="size_factor= is the exposure of counts"):
        HEBAETransformer(2).fit(np.log1p(counts), size_factor=np.ones(N))
