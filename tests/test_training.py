"""Fitting: stopping, continuing, failing, reporting."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import FeatureScaling, Table
from skhebae.exceptions import NonFiniteLossError
from skhebae.fitted import measure
from skhebae.fitted.automatic import (
    auto_batch_size,
    auto_epochs,
    auto_input_noise,
    auto_weight_decay,
)
from skhebae.fitted.build import Architecture, build_model
from skhebae.likelihoods import CountScaling, GaussianLikelihood, PoissonLikelihood
from skhebae.training import loop


def public_state(estimator):
    return {k: v for k, v in vars(estimator).items() if k.endswith("_")}


def test_max_iter_as_a_limit_warns(cls, table, quick):
    with pytest.warns(ConvergenceWarning, match="max_iter=3 epochs reached"):
        estimator = cls(**quick, max_iter=3).fit(table)
    assert estimator.n_iter_ == 3


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_the_warning_points_to_the_caller(table, quick, method):
    with pytest.warns(ConvergenceWarning) as record:
        getattr(HEBAETransformer(**quick, max_iter=2), method)(table)
    assert record[0].filename == __file__


@pytest.mark.slow
def test_max_iter_stops_when_flat_without_warning(cls, table, quick):
    # (No linear path: its trial would train for the time of the fit again.)
    estimator = cls(**quick, max_iter=1000, tol=0.05, linear_path=False).fit(table)
    assert estimator.n_iter_ < 1000
    # Patience is 100 optimiser steps: 7 a epoch make 15 epochs, two windows 30.
    assert estimator.n_iter_ >= 30


@pytest.mark.parametrize(("starts_linear", "most"), [(False, 6000), (True, 1900)])
def test_auto_budgets(starts_linear, most):
    # Monotone in the table, saturating in steps, never below the minimum of epochs.
    def epochs(n_rows, batch, likelihood=GaussianLikelihood):
        return auto_epochs(n_rows, batch, likelihood.half_rows, starts_linear=starts_linear)

    def batch_size(n_rows, d):
        return auto_batch_size(n_rows, d, starts_linear=starts_linear)

    steps = []
    for n_rows in (2, 50, 200, 1000, 5000, 60_000):
        batch = batch_size(n_rows, 10)
        steps.append(epochs(n_rows, batch) * max(1, n_rows // batch))
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(125 if starts_linear else 400, rel=0.05)
    assert steps[-1] <= 1.04 * most
    assert epochs(3_000_000, 128) == 5
    # Counts are sooner over-fitted: fewer epochs, never more.
    assert epochs(12_000, 128, PoissonLikelihood) < epochs(12_000, 128) / 1.5
    assert epochs(3_000_000, 128, PoissonLikelihood) == 5
    expected = (64, 200, 256, 256) if starts_linear else (40, 100, 128, 256)
    tables = ((200, 10), (800, 10), (10**6, 10), (10**6, 64))
    assert tuple(batch_size(*table) for table in tables) == expected


def test_auto_weight_decay_is_a_prior():
    plain, counts = GaussianLikelihood.largest_decay, PoissonLikelihood.largest_decay
    assert auto_weight_decay(800, plain, starts_linear=True) == 0.5
    assert auto_weight_decay(2, plain, starts_linear=True) == 10.0
    assert auto_weight_decay(800, plain, starts_linear=False) == 0.0
    assert auto_weight_decay(800, counts, starts_linear=False) == 0.3
    assert auto_weight_decay(4000, counts, starts_linear=False) == 0.1


def test_auto_input_noise_fades(table):
    scaling = FeatureScaling.measure(Table(table))

    def noise(hidden, n_rows):
        architecture = Architecture(12, 3, hidden, "silu", "gaussian", 3)
        model = build_model(architecture, scaling, torch.Generator())
        assert auto_input_noise(model, n_rows, starts_linear=True) == 0.0
        return auto_input_noise(model, n_rows, starts_linear=False)

    assert noise((16,), 100) == 0.3
    assert noise((16,), 288) == pytest.approx(0.3)  # 12 * 16 + 16 * 6 weights
    assert noise((16,), 2880) == pytest.approx(0.03)
    assert noise((), 2) == 0.0
    counts = CountScaling.measure(Table(np.random.default_rng(0).poisson(1.0, (50, 12))))
    architecture = Architecture(12, 3, (16,), "silu", "poisson", 3)
    model = build_model(architecture, counts, torch.Generator())
    assert auto_input_noise(model, 288, starts_linear=False) == 1.0
    assert auto_input_noise(model, 2880, starts_linear=False) == pytest.approx(0.1)
    architecture = Architecture(12, 3, (8,), "identity", "gaussian", 3)
    model = build_model(architecture, scaling, torch.Generator())
    assert auto_input_noise(model, 2, starts_linear=False) == 0.0


@pytest.mark.slow
def test_early_stopping_restores_best_weights(cls, table, brief):
    estimator = cls(**{**brief, "max_iter": 120}, early_stopping=True).fit(table)
    held_out = np.array(estimator.history_["validation_loss"])
    assert np.isfinite(held_out).all()
    best = int(held_out.argmin())
    if best + 1 < estimator.n_iter_:
        # Refit for exactly the epochs up to the best: the decay differs, so
        # only the recorded loss at the best epoch can be compared.
        assert held_out[best] <= held_out[-1]
    assert estimator.n_iter_ <= 120


def test_early_stopping_keeps_the_weights_of_the_best_epoch(table, quick, monkeypatch):
    seen = []
    original = loop.validate

    def validate(run, *args):
        loss = original(run, *args)
        seen.append((loss, {k: v.clone() for k, v in run.model.state_dict().items()}))
        return loss

    monkeypatch.setattr(loop, "validate", validate)
    estimator = VAETransformer(**quick, early_stopping=True).fit(table)
    best = min(seen, key=lambda pair: pair[0])[1]
    for name, value in estimator.fitted_.model.state_dict().items():
        if name.startswith("fill."):
            continue  # measured after training
        # These are set in closed form after training.
        if name not in ("likelihood.log_noise", "likelihood.calibration"):
            assert torch.equal(value, best[name])


def test_warm_start_continues(cls, table, brief):
    estimator = cls(**{**brief, "max_iter": 20}, warm_start=True).fit(table)
    first, n_iter = estimator.history_["loss"][0], estimator.n_iter_
    estimator.fit(table)
    assert estimator.n_iter_ == 2 * n_iter == len(estimator.history_["loss"])
    assert estimator.history_["loss"][n_iter] < first - 1.0
    with pytest.raises(ValueError, match="n_components is 2, but the fitted networks"):
        estimator.set_params(n_components=2).fit(table)
    with pytest.raises(ValueError, match="expecting 12 features"):
        estimator.set_params(n_components=3).fit(table[:, :5])
    if cls is HEBAETransformer:
        with pytest.raises(ValueError, match="posterior_scale's width is 1"):
            estimator.set_params(posterior_scale="scalar").fit(table)


def test_fit_forgets_without_warm_start(cls, table, brief):
    estimator = cls(**brief).fit(table[:, :5])
    estimator.fit(table)
    np.testing.assert_array_equal(
        estimator.transform(table), cls(**brief).fit(table).transform(table)
    )


@pytest.mark.slow
def test_partial_fit_learns_a_stream(cls, table, quick):
    estimator = cls(**quick)
    rng = np.random.default_rng(0)
    for _ in range(60):
        estimator.partial_fit(table[rng.permutation(240)[:120]])
    assert estimator.n_iter_ == 60
    loss = estimator.history_["loss"]
    assert np.mean(loss[-5:]) < np.mean(loss[:5]) - 2.0
    assert estimator.fitted_.moments.n_rows == 60 * 120
    error = ((estimator.inverse_transform(estimator.transform(table)) - table) ** 2).mean()
    assert error < 0.5 * table.var(axis=0).mean()
    again = cls(**quick)
    rng = np.random.default_rng(0)
    for _ in range(60):
        again.partial_fit(table[rng.permutation(240)[:120]])
    np.testing.assert_array_equal(again.transform(table), estimator.transform(table))


def test_partial_fit_takes_a_new_weight_decay(table, quick):
    codes = []
    for weight_decay in (0.0, 0.1, 50.0):
        # A linear path does not decay.
        estimator = VAETransformer(**quick, linear_path=False, whiten=True).partial_fit(table)
        estimator.set_params(weight_decay=weight_decay).partial_fit(table)
        codes.append(estimator.transform(table))
    assert not np.array_equal(codes[0], codes[1])
    assert np.square(codes[2]).mean() < np.square(codes[1]).mean()


def test_partial_fit_checks_parameters_at_every_call(table, quick):
    estimator = VAETransformer(**quick).partial_fit(table)
    with pytest.raises(ValueError, match="batch_size"):
        estimator.set_params(batch_size=0).partial_fit(table)


def test_partial_fit_keeps_the_optimiser(table, quick):
    estimator = VAETransformer(**quick).partial_fit(table)
    step = next(iter(estimator.fitted_.optimizer_state.values()))["step"]
    estimator.partial_fit(table)
    assert next(iter(estimator.fitted_.optimizer_state.values()))["step"] == 2 * step


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interruption_leaves_the_estimator_as_it_was(table, brief, monkeypatch, method, error):
    def interrupted(*args):
        raise error

    fresh = HEBAETransformer(**brief)
    fitted = HEBAETransformer(**brief, warm_start=True).fit(table)
    codes, state = fitted.transform(table), public_state(fitted)
    for module, name in ((loop, "check_finite"), (measure, "encode_with_spread")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            with pytest.raises(error):
                getattr(fresh, method)(table)
            with pytest.raises(error):
                getattr(fitted, method)(table)
        assert public_state(fresh) == {}
        with pytest.raises(NotFittedError):
            fresh.transform(table)
        assert public_state(fitted) == state
        np.testing.assert_array_equal(fitted.transform(table), codes)


def test_non_finite_loss_names_epoch_term_and_cure(cls, table, brief):
    estimator = cls(**brief).fit(table)
    codes = estimator.transform(table)
    estimator.set_params(learning_rate_init=1e30)
    message = r"(reconstruction|penalty) became .* in epoch \d+.*learning_rate_init"
    with pytest.raises(NonFiniteLossError, match=message):
        estimator.fit(table)
    np.testing.assert_array_equal(estimator.transform(table), codes)


def test_non_finite_codes_after_the_last_step(cls, table, quick):
    # The loss is measured before each step, so the last step's harm shows in the codes.
    estimator = cls(**quick, max_iter=1, batch_size=1000, learning_rate_init=1e38)
    with pytest.raises(NonFiniteLossError, match=r"code became .* at the end of training"):
        estimator.fit(table)
    assert public_state(estimator) == {}


@pytest.mark.slow
def test_a_rising_loss_is_not_convergence(digits):
    train, *_ = digits
    estimator = HEBAETransformer(
        5, max_iter=60, learning_rate_init=0.5, random_state=0, batch_size=128
    )
    with pytest.warns(ConvergenceWarning):
        estimator.fit(train[:600])
    assert estimator.n_iter_ == 60


def test_verbose_shows_a_bar_and_silence_is_the_default(table, brief, capsys):
    HEBAETransformer(**brief).fit(table)
    output = capsys.readouterr()
    assert output.out == output.err == ""
    HEBAETransformer(**brief, verbose=1).fit(table)
    output = capsys.readouterr()
    assert output.out == ""
    assert "HEBAETransformer" in output.err
    assert "loss=" in output.err


def test_thread_settings_untouched(table, brief):
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    HEBAETransformer(**brief).fit(table)
    assert before == (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())


@pytest.mark.slow
def test_thread_count_changes_the_loss_little():
    code = (
        "import torch, sys; torch.set_num_threads(int(sys.argv[1]))\n"
        "from sklearn.datasets import load_digits; from skhebae import HEBAETransformer\n"
        "X = load_digits().data / 16\n"
        "print(HEBAETransformer(random_state=0).fit(X).history_['loss'][-1])"
    )
    losses = [float(subprocess.check_output([sys.executable, "-c", code, str(n)])) for n in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_more_components_than_rows(cls):
    # Documented: works, through the covariance prior.
    X = np.random.default_rng(0).normal(size=(6, 9))
    estimator = cls(20, random_state=0).fit(X)
    codes = estimator.transform(X)
    assert codes.shape == (6, 20)
    assert np.isfinite(codes).all()
    for latent in ("mixture", "gaussian", "prior"):
        assert np.isfinite(estimator.sample(5, latent, 0)).all()
    assert np.isfinite(estimator.posterior(X).covariance_factor).all()
    assert np.isfinite(estimator.score(X))


def test_constant_features_and_rows(cls, brief):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 4)) @ np.diag([1.0, 0.0, 2.0, 0.0]) + [0.0, 7.0, -1.0, 1e6]
    estimator = cls(**brief).fit(X)
    rebuilt = estimator.inverse_transform(estimator.transform(X))
    np.testing.assert_array_equal(rebuilt[:, 1], np.float32(7.0))
    np.testing.assert_array_equal(rebuilt[:, 3], np.float32(1e6))
    small = cls(**brief).fit(np.c_[X[:, :1], np.full((100, 2), [0.1, 1e-6])])
    rebuilt = small.inverse_transform(small.transform(np.c_[X[:, :1], np.ones((100, 2))]))
    np.testing.assert_array_equal(rebuilt[:, 1:], np.float32([[0.1, 1e-6]]).repeat(100, axis=0))
    assert np.isfinite(estimator.score_samples(X)).all()
    identical = cls(**brief).fit(np.ones((20, 3)))
    assert np.isfinite(identical.transform(np.ones((2, 3)))).all()
    assert np.isfinite(identical.sample(3, random_state=0)).all()


@pytest.mark.slow
def test_noise_variance_counts_residuals_and_uncertain_codes(table):
    # A point code hides what its posterior leaves open: v = residual^2 + diag(W P^-1 W^T).
    estimator = WAETransformer(3, hidden_layer_sizes=(), whiten=True, random_state=0).fit(table)
    residual = np.square(estimator.inverse_transform(estimator.transform(table)) - table).mean(0)
    origin = estimator.inverse_transform(np.zeros((1, 3)))
    loadings = (estimator.inverse_transform(np.eye(3)) - origin).T.astype(np.float64)
    noise = estimator.noise_variance_
    precision = np.eye(3) + loadings.T @ (loadings / noise[:, None])
    hidden = np.diag(loadings @ np.linalg.inv(precision) @ loadings.T)
    expected = np.maximum(residual + hidden, 0.01 * table.var(axis=0))
    np.testing.assert_allclose(noise, expected, rtol=0.01)
    assert (hidden / residual).max() > 0.5


def test_noise_variance_of_a_vae_is_its_expected_square_residual(table, quick):
    estimator = VAETransformer(**quick).fit(table)
    mean, factor = estimator.posterior(table)
    rng = np.random.default_rng(0)
    draws = [
        mean + np.einsum("nij,nj->ni", factor, rng.standard_normal(mean.shape)) for _ in range(50)
    ]
    expected = np.mean(
        [np.square(estimator.inverse_transform(z) - table).mean(axis=0) for z in draws], axis=0
    )
    # The estimator's own is one draw a row: a relative error of sqrt(2 / 240) or so.
    np.testing.assert_allclose(estimator.noise_variance_, expected, rtol=0.4)
    assert abs(np.mean(estimator.noise_variance_ / expected) - 1.0) < 0.1


@pytest.mark.slow
def test_noise_variance_floor():
    # A rank-1 table is reproduced to the last digit; the loss stays finite.
    X = np.outer(np.linspace(-1, 1, 300), [1.0, 2.0, -3.0])
    estimator = HEBAETransformer(1, hidden_layer_sizes=(), random_state=0).fit(X)
    assert (estimator.noise_variance_ >= 0.0099 * X.var(axis=0)).all()
    assert min(estimator.history_["loss"]) > -50.0


def test_two_rows(cls, quick):
    X = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 5.0]])
    assert np.isfinite(cls(**quick).fit(X).transform(X)).all()


def test_large_offsets_keep_their_digits(cls, table, brief):
    shifted = cls(**brief).fit(table + 1.6e9)
    plain = cls(**brief).fit(table)
    # 1.6e9 leaves float64 seven digits behind the point.
    np.testing.assert_allclose(shifted.transform(table + 1.6e9), plain.transform(table), atol=0.002)


@pytest.mark.parametrize("batch_size", [2, 7, 239, 1000])
def test_any_batch_size(cls, table, quick, batch_size):
    estimator = cls(**quick, batch_size=batch_size, max_iter=2)
    with pytest.warns(ConvergenceWarning):
        estimator.fit(table)
    assert np.isfinite(estimator.history_["loss"]).all()


@pytest.mark.slow
def test_linear_hebae_on_a_table_of_low_rank():
    # A log-scale head, whose exponential is unbounded, drove this to a loss of 1e18.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 784))
    for n_components in (3, 10):
        estimator = HEBAETransformer(n_components, hidden_layer_sizes=(), random_state=0).fit(X)
        rebuilt = estimator.inverse_transform(estimator.transform(X))
        assert ((rebuilt - X) ** 2).mean() < 0.05 * X.var(axis=0).mean()
        assert max(estimator.history_["loss"]) < 5000.0


def test_codes_are_standard_normal_in_moments(hebae_of_digits):
    fitted = hebae_of_digits.fitted_.rescaled(True)
    np.testing.assert_allclose(fitted.latent_mean, 0.0, atol=0.15)
    np.testing.assert_allclose(fitted.latent_covariance, np.eye(10), atol=0.25)


def test_streamed_rows_train_like_resident_ones(table, quick):
    X = sparse.csr_array(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one = HEBAETransformer(**quick, max_iter=5).fit(X)
        other = HEBAETransformer(**quick, max_iter=5).fit(table)
    np.testing.assert_allclose(one.history_["loss"], other.history_["loss"], rtol=1e-4)


def test_codes_are_measured_in_blocks(cls, table, quick, monkeypatch):
    whole = cls(**quick, max_iter=2)
    blocks = clone(whole)
    monkeypatch.setattr("skhebae.fitted.measure.MIXTURE_ROWS", 100)
    with pytest.warns(ConvergenceWarning):
        whole.fit(table)
    monkeypatch.setattr("skhebae.fitted.measure.BLOCK_ROWS", 60)
    with pytest.warns(ConvergenceWarning):
        blocks.fit(table)
    np.testing.assert_allclose(blocks.latent_mean_, whole.latent_mean_, atol=1e-6)
    np.testing.assert_allclose(blocks.latent_covariance_, whole.latent_covariance_, rtol=1e-5)
    # The same 100 codes, so the same mixture.
    np.testing.assert_allclose(blocks.fitted_.mixture.means, whole.fitted_.mixture.means, rtol=1e-5)


@pytest.mark.slow
def test_reported_penalty_is_above_that_of_the_prior(digits):
    # The divergence of the moments of 128 draws from N(0, I) is 0.26 nats on average.
    train, *_ = digits
    hebae = HEBAETransformer(reg_weight=10.0, random_state=0).fit(train)
    assert abs(np.mean(hebae.history_["penalty"][-10:])) < 0.03
    expected = np.add(hebae.history_["reconstruction"], 10.0 * np.array(hebae.history_["penalty"]))
    np.testing.assert_allclose(hebae.history_["loss"], expected, rtol=1e-4)


@pytest.mark.slow
def test_collinear_codes_far_from_unit_size(table, quick):
    # Without a penalty nothing bounds the codes; their covariance is still factored.
    X = np.outer(table[:, 0], np.arange(1.0, 6.0))
    estimator = HEBAETransformer(**quick, reg_weight=0.0, covariance_prior=1e-9).fit(X)
    wide = 1e12 * np.ones((3, 3)) + 1e-9 * np.eye(3)
    estimator.fitted_ = replace(estimator.fitted_, noise_covariance=wide)
    assert np.isfinite(estimator.posterior(X).covariance_factor).all()
