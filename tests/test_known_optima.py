"""Models whose optimum is known in closed form, and the promise on the penalty weight."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from skhebae import HEBAETransformer, VAETransformer, WAETransformer

N_COMPONENTS = 3


@pytest.fixture(scope="module")
def gaussian():
    """Train and test rows: three directions of variance 9, 4, 2.25 and isotropic noise 0.25."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0][:, :N_COMPONENTS]

    def draw(n_rows):
        codes = rng.normal(size=(n_rows, N_COMPONENTS)) * [3.0, 2.0, 1.5]
        return codes @ basis.T + 0.5 * rng.normal(size=(n_rows, 12)) + 1.0

    return draw(4000), draw(4000), basis


@pytest.fixture(scope="module")
def linear_hebae(gaussian):
    return HEBAETransformer(N_COMPONENTS, hidden_layer_sizes=(), whiten=True, random_state=0).fit(
        gaussian[0]
    )


@pytest.fixture(scope="module")
def linear_vae(gaussian):
    # Large minibatches and many epochs: the optimum itself, not a quick way near it.
    estimator = VAETransformer(
        N_COMPONENTS, hidden_layer_sizes=(), batch_size=1000, max_iter=600, tol=0.0, whiten=True,
        random_state=0,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning):
        return estimator.fit(gaussian[0])


def loadings(estimator):
    """Matrix of a linear decoder, (n_features, n_components)."""
    origin = estimator.inverse_transform(np.zeros((1, N_COMPONENTS)))
    return (estimator.inverse_transform(np.eye(N_COMPONENTS)) - origin).T.astype(np.float64)


def error(model, rows):
    return np.square(model.inverse_transform(model.transform(rows)) - rows).mean()


@pytest.mark.slow
def test_linear_hebae_spans_the_principal_subspace(linear_hebae, gaussian):
    train, _, basis = gaussian
    of_sample = PCA(N_COMPONENTS).fit(train).components_.T
    for truth in (of_sample, basis):
        assert np.degrees(subspace_angles(loadings(linear_hebae), truth).max()) < 2.0


def test_linear_hebae_whitens_its_codes(linear_hebae, gaussian):
    codes = linear_hebae.transform(gaussian[0])
    np.testing.assert_allclose(np.cov(codes.T), np.eye(N_COMPONENTS), atol=0.05)
    np.testing.assert_allclose(codes.mean(axis=0), 0.0, atol=0.05)


def test_linear_hebae_reconstructs_like_pca(linear_hebae, gaussian):
    train, test, _ = gaussian
    assert error(linear_hebae, test) < 1.02 * error(PCA(N_COMPONENTS).fit(train), test)


@pytest.mark.parametrize("cls", [HEBAETransformer, WAETransformer])
@pytest.mark.slow
def test_deterministic_codes_copy_no_feature(cls, gaussian):
    # Without the code's uncertainty in the noise variances, codes were spent on
    # features copied exactly, whose noise fell to the floor of 1 %: Heywood cases.
    rows = gaussian[0][:1500]
    estimator = cls(N_COMPONENTS, hidden_layer_sizes=(), random_state=0).fit(rows)
    np.testing.assert_allclose(estimator.noise_variance_, 0.25, rtol=0.2)


@pytest.mark.slow
def test_linear_vae_is_factor_analysis(linear_vae, gaussian):
    train, test, _ = gaussian
    analysis = FactorAnalysis(N_COMPONENTS, tol=1e-8, max_iter=10_000).fit(train)
    np.testing.assert_allclose(linear_vae.noise_variance_, analysis.noise_variance_, rtol=0.05)
    for rows in (train, test):
        likelihood = linear_vae.log_likelihood(rows).mean()
        assert abs(likelihood - analysis.score(rows)) < 0.1
        # The diagonal posterior is exact at the optimum, so the bound is tight.
        assert abs(linear_vae.elbo(rows).mean() - likelihood) < 0.1
        assert abs(linear_vae.score(rows) - likelihood) < 0.1


@pytest.mark.parametrize("n_draws", [1, 100])
def test_log_likelihood_of_a_linear_model_is_exact(linear_hebae, linear_vae, gaussian, n_draws):
    # Its Laplace proposal is the posterior itself: the weights have no variance.
    rows = gaussian[1][:200]
    for estimator in (linear_hebae, linear_vae):
        W = loadings(estimator)
        origin = estimator.inverse_transform(np.zeros((1, N_COMPONENTS)))[0]
        covariance = W @ W.T + np.diag(estimator.noise_variance_)
        exact = multivariate_normal.logpdf(rows, origin, covariance)
        actual = estimator.log_likelihood(rows, n_draws=n_draws)
        np.testing.assert_allclose(actual, exact, atol=2e-3)


@pytest.mark.slow
def test_full_covariance_bound_of_a_linear_model_reaches_factor_analysis(gaussian):
    train, test, _ = gaussian
    estimator = HEBAETransformer(
        N_COMPONENTS, hidden_layer_sizes=(), row_share=1.0, batch_size=1000, max_iter=600, tol=0.0,
        random_state=0,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning):
        estimator.fit(train)
    analysis = FactorAnalysis(N_COMPONENTS, tol=1e-8, max_iter=10_000).fit(train)
    assert abs(estimator.elbo(test).mean() - analysis.score(test)) < 0.1


#: Penalty weights over which the promise on them is tested.
WEIGHTS = (0.1, 1.0, 10.0, 100.0)


def digits_error_and_variance(digits, **params):
    train, test, *_ = digits
    estimator = HEBAETransformer(10, whiten=True, random_state=0, **params).fit(train)
    return error(estimator, test), estimator.transform(test).var(axis=0)


@pytest.mark.slow
def test_hebae_keeps_its_dimensions_whatever_the_weight(digits):
    # 300 epochs, twice the default: the penalty of a minibatch is noisy, and at a
    # weight of 100 the default is too short for the bound below on some splits.
    # The weights between are in the test below.
    errors = []
    for reg_weight in (WEIGHTS[0], WEIGHTS[-1]):
        with pytest.warns(ConvergenceWarning):
            found, variance = digits_error_and_variance(
                digits, reg_weight=reg_weight, max_iter=300, tol=0.0
            )
        assert (variance > 0.5).all()  # "active" is 0.01
        errors.append(found)
    assert max(errors) < 1.25 * min(errors)


@pytest.mark.slow
def test_hebae_over_six_decades_of_the_weight(digits):
    # The penalty of a minibatch is noisy, so that large weights need more steps
    # than the default budget gives.
    train, test, *_ = digits
    errors = {}
    for reg_weight in (1e-3, 1e-2, *WEIGHTS, 1e3):
        with pytest.warns(ConvergenceWarning):
            errors[reg_weight], variance = digits_error_and_variance(
                digits, reg_weight=reg_weight, max_iter=500, tol=0.0
            )
        assert ((variance > 0.5) & (variance < 5.0)).all()
    assert all(errors[weight] < 1.25 * min(errors.values()) for weight in WEIGHTS)
    # At 1e3 the noise of the penalty drowns much of the rest; still no worse than PCA.
    assert errors[1e3] < error(PCA(10).fit(train), test)


@pytest.mark.slow
def test_vae_loses_dimensions_at_a_weight_of_ten(digits):
    train, test, *_ = digits
    # From a linear start it would take more steps to lose them.
    vae = VAETransformer(10, beta=10.0, linear_path=False, whiten=True, random_state=0).fit(train)
    assert (vae.transform(test).var(axis=0) < 0.01).sum() >= 3


@pytest.mark.slow
def test_fewer_rows_in_a_minibatch_than_dimensions(digits):
    train, test, *_ = digits
    with pytest.warns(ConvergenceWarning):  # a fraction of "auto" is enough for the bounds below
        # (Without a linear path, which starts the few dimensions beyond the rank near 0.)
        estimator = HEBAETransformer(
            64, batch_size=32, max_iter=20, random_state=0, linear_path=False, whiten=True
        ).fit(train)
    assert np.isfinite(list(estimator.history_["loss"])).all()
    codes = estimator.transform(test)
    assert (codes.var(axis=0) > 0.1).all()
    # 64 codes for 64 pixels: far better than ten, which reach 0.011.
    assert error(estimator, test) < 0.005
    assert np.isfinite(estimator.score_samples(test)).all()
