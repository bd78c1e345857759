"""What a user does with a fitted estimator."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse, stats
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, VAETransformer


def names(fitted):
    prefix = type(fitted).__name__.lower()
    return [f"{prefix}{i}" for i in range(3)]


def test_codes_are_float32_and_informative(fitted, table):
    codes = fitted.transform(table)
    assert codes.dtype == np.float32
    assert codes.shape == (240, 3)
    rebuilt = fitted.inverse_transform(codes)
    assert rebuilt.dtype == np.float32
    # Two curved dimensions: three components explain most of every feature.
    assert ((rebuilt - table) ** 2).mean() < 0.2 * table.var(axis=0).mean()


def test_fit_transform_is_fit_then_transform(cls, table, brief):
    np.testing.assert_array_equal(
        cls(**brief).fit_transform(table), cls(**brief).fit(table).transform(table)
    )


def test_same_seed_same_bits(cls, table, brief):
    first, second = cls(**brief).fit(table), cls(**brief).fit(table)
    np.testing.assert_array_equal(first.transform(table), second.transform(table))
    assert first.history_["loss"] == second.history_["loss"]


def test_random_state_instance_differs_between_fits(table, brief):
    rng = np.random.RandomState(0)
    estimator = HEBAETransformer(**{**brief, "random_state": rng})
    first = estimator.fit(table).transform(table)
    assert not np.array_equal(first, estimator.fit(table).transform(table))


def test_global_random_states_untouched(cls, table, brief):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    estimator = cls(**brief).fit(table)
    estimator.sample(5, random_state=0)
    estimator.score(table)
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])
    torch.manual_seed(1)
    np.testing.assert_array_equal(
        cls(**brief).fit(table).transform(table), estimator.transform(table)
    )


@given(seed=st.integers(0, 10_000), size=st.integers(1, 600))
@settings(max_examples=25, deadline=None)
def test_row_alone_and_among_others(fitted, table, seed, size):
    rng = np.random.default_rng(seed)
    rows = table[rng.integers(0, len(table), size)]
    i = int(rng.integers(size))
    # 1e-5 would do; chunks of one fixed shape make it exact.
    np.testing.assert_array_equal(fitted.transform(rows)[i], fitted.transform(rows[[i]])[0])
    np.testing.assert_array_equal(fitted.score_samples(rows)[i], fitted.score_samples(rows[[i]])[0])


def containers(X):
    columns = [f"c{i}" for i in range(X.shape[1])]
    return {
        "float64": X,
        "float32": X.astype(np.float32),
        "fortran": np.asfortranarray(X),
        "list": X.tolist(),
        "pandas": pd.DataFrame(X, columns=columns),
        "polars": pl.DataFrame(X, schema=columns),
        "csr_matrix": sparse.csr_matrix(X),
        "csc_matrix": sparse.csc_matrix(X),
        "csr_array": sparse.csr_array(X),
        "csc_array": sparse.csc_array(X),
        "torch": torch.tensor(X),
        "torch with gradient": torch.tensor(X, requires_grad=True),
    }


@pytest.fixture(scope="module")
def fitted_to_rounded(table, quick):
    """Each class fitted on `table` with two digits, when first asked for."""

    @cache
    def fit(cls):
        with pytest.warns(ConvergenceWarning):
            return cls(**quick, max_iter=10, tol=0.0).fit(np.round(table, 2))

    return fit


@pytest.mark.parametrize("kind", list(containers(np.eye(2))))
def test_containers_agree(cls, table, quick, kind, fitted_to_rounded):
    X = np.round(table, 2)
    expected = fitted_to_rounded(cls)
    other = cls(**quick, max_iter=10, tol=0.0)
    with pytest.warns(ConvergenceWarning):
        other.fit(containers(X)[kind])
    given_rows = containers(X[:50])[kind]
    np.testing.assert_allclose(
        other.transform(given_rows), expected.transform(X[:50]), rtol=1e-3, atol=2e-4
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, bool])
def test_other_dtypes(cls, brief, dtype):
    X = (np.random.default_rng(0).random((60, 5)) > 0.5).astype(dtype)
    codes = cls(**brief).fit_transform(X)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()


def test_bfloat16_tensor(fitted, table):
    rows = torch.tensor(table).bfloat16()
    np.testing.assert_array_equal(fitted.transform(rows), fitted.transform(rows.float()))


def test_read_only_memory_map(cls, table, brief, tmp_path):
    np.save(tmp_path / "X.npy", table.astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    codes = cls(**brief).fit(X).transform(X)
    expected = cls(**brief).fit(np.array(X)).transform(np.array(X))
    np.testing.assert_allclose(codes, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), table.astype(np.float32))


def test_sparse_is_never_densified_whole(cls, quick, monkeypatch):
    X = sparse.random(5000, 40, density=0.05, format="csr", random_state=0, dtype=np.float32)
    tallest = []
    original = sparse.csr_matrix.toarray

    def toarray(self, *args, **kwargs):
        tallest.append(self.shape[0])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(sparse.csr_matrix, "toarray", toarray)
    monkeypatch.setattr(sparse._csr._csr_base, "toarray", toarray, raising=False)
    with pytest.warns(ConvergenceWarning):
        estimator = cls(**quick, max_iter=1).fit(sparse.csr_matrix(X))
    estimator.transform(sparse.csr_matrix(X))
    assert tallest
    # A chunk with its tail, not the table.
    assert max(tallest) <= 1250


def test_training_rows_are_not_kept(fitted, table):
    import pickle

    marker = np.ascontiguousarray(table[0]).tobytes()
    small = np.ascontiguousarray(table[0].astype(np.float32)).tobytes()
    blob = pickle.dumps(fitted)
    assert marker not in blob
    assert small not in blob
    assert len(blob) < 60_000


def test_pandas_and_polars_output(fitted, table):
    from copy import deepcopy

    fitted = deepcopy(fitted)
    frame = fitted.set_output(transform="pandas").transform(table)
    assert list(frame.columns) == names(fitted)
    assert (frame.dtypes == np.float32).all()
    frame = fitted.set_output(transform="polars").transform(table)
    assert frame.columns == names(fitted)
    assert set(frame.dtypes) == {pl.Float32}


def test_feature_names_and_tags(fitted, cls):
    assert list(fitted.get_feature_names_out()) == names(fitted)
    assert fitted.__sklearn_tags__().transformer_tags.preserves_dtype == ["float32"]
    assert not cls().__sklearn_tags__().input_tags.positive_only
    assert cls(likelihood="bernoulli").__sklearn_tags__().input_tags.positive_only


def test_units_do_not_matter(cls, table, brief):
    units = 10.0 ** np.linspace(-6, 6, table.shape[1])
    one = cls(**brief).fit(table)
    other = cls(**brief).fit(table * units + 100.0 * units)
    np.testing.assert_allclose(
        one.transform(table), other.transform(table * units + 100.0 * units), atol=1e-4
    )
    np.testing.assert_allclose(other.noise_variance_, one.noise_variance_ * units**2, rtol=1e-4)
    # A density changes by the Jacobian of the units.
    shift = one.score(table) - other.score(table * units + 100.0 * units)
    assert shift == pytest.approx(np.log(units).sum(), abs=1e-2)


def test_sample_kinds(fitted, table):
    for latent in ("mixture", "gaussian", "prior"):
        rows = fitted.sample(500, latent=latent, random_state=0)
        assert rows.shape == (500, table.shape[1])
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, fitted.sample(500, latent, 0))
    # The mixture resembles the data's mean within Monte-Carlo error and model bias.
    rows = fitted.sample(4000, random_state=1)
    spread = table.std(axis=0)
    assert (np.abs(rows.mean(axis=0) - table.mean(axis=0)) < 0.4 * spread).all()
    assert not np.array_equal(fitted.sample(3), fitted.sample(3))
    assert fitted.sample().shape == (1, table.shape[1])


def test_sample_with_noise(fitted):
    mean = fitted.sample(20_000, random_state=0)
    noisy = fitted.sample(20_000, random_state=0, noise=True)
    np.testing.assert_allclose((noisy - mean).var(axis=0), fitted.noise_variance_, rtol=0.06)


def test_score_samples(fitted, table):
    scores = fitted.score_samples(table)
    assert scores.shape == (240,)
    assert fitted.score(table) == pytest.approx(scores.mean(), rel=1e-5)
    np.testing.assert_array_equal(scores, fitted.score_samples(table))
    shuffled = np.random.default_rng(0).permuted(table, axis=0)
    assert np.median(fitted.score_samples(shuffled)) < np.median(scores) - 3.0


@pytest.mark.slow
def test_score_of_linear_models_is_below_the_exact_likelihood(cls):
    # z ~ N(0, I), x = W z + b + noise: the marginal is Gaussian and known.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(600, 6))
    estimator = cls(2, hidden_layer_sizes=(), random_state=0, whiten=True).fit(X)
    mean = estimator.inverse_transform(np.zeros((1, 2)))[0]
    loadings = estimator.inverse_transform(np.eye(2)) - mean
    covariance = loadings.T @ loadings + np.diag(estimator.noise_variance_)
    exact = stats.multivariate_normal(mean, covariance).logpdf(X)
    scores = estimator.score_samples(X)
    assert (scores <= exact + 1e-2).all()
    if cls is VAETransformer:
        # Its encoder learns the posterior mean, where the bound is tight.
        assert (exact - scores).mean() < 0.05


def test_posterior(fitted, table):
    mean, factor = fitted.posterior(table[:7])
    np.testing.assert_array_equal(mean, fitted.transform(table[:7]))
    assert factor.shape == (7, 3, 3)
    np.testing.assert_array_equal(factor, np.tril(factor))
    # Turned with the codes; the structure is that of the encoder's own.
    own = fitted.fitted_.with_encoder_codes()
    factor = own.posterior(table[:7])[1]
    covariance = factor @ factor.transpose(0, 2, 1)
    if type(fitted).__name__ == "WAETransformer":
        assert (factor == 0).all()
    elif type(fitted).__name__ == "VAETransformer":
        diagonal = covariance * np.eye(3)
        np.testing.assert_allclose(covariance, diagonal, atol=1e-7)
        assert (covariance.diagonal(axis1=1, axis2=2) > 0).all()
    else:
        # Equation 6: D_i S D_i has S's correlations, whatever the row.
        scale = np.sqrt(covariance.diagonal(axis1=1, axis2=2))
        correlation = covariance / scale[:, :, None] / scale[:, None, :]
        codes = np.corrcoef(own.encode(table).T)
        np.testing.assert_allclose(correlation, np.broadcast_to(codes, (7, 3, 3)), atol=2e-2)


def test_latent_moments_are_of_the_aggregated_posterior(fitted, table):
    mean, factor = fitted.posterior(table)
    covariance = np.cov(mean.T) + (factor @ factor.transpose(0, 2, 1)).mean(axis=0)
    np.testing.assert_allclose(fitted.latent_mean_, mean.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(fitted.latent_covariance_, covariance, atol=1e-4)


def test_history(fitted):
    frame = pd.DataFrame(fitted.history_)
    names = ["loss", "reconstruction", "penalty", "elbo", "validation_loss", "seconds"]
    assert list(frame) == names
    assert len(frame) == fitted.n_iter_
    assert frame["validation_loss"].isna().all()
    weight = fitted.make_objective().weight
    np.testing.assert_allclose(
        frame["loss"], frame["reconstruction"] + weight * frame["penalty"], rtol=1e-4, atol=1e-4
    )
    assert frame["loss"].iloc[-1] < frame["loss"].iloc[0]


@pytest.fixture(scope="module")
def fitted_bernoulli(digits):
    """Each class fitted on digits as probabilities, when first asked for."""

    @cache
    def fit(cls):
        with pytest.warns(ConvergenceWarning):
            return cls(5, likelihood="bernoulli", max_iter=20, random_state=0).fit(digits[0])

    return fit


def test_bernoulli(cls, digits, fitted_bernoulli):
    train, test, *_ = digits
    estimator = fitted_bernoulli(cls)
    rebuilt = estimator.inverse_transform(estimator.transform(test))
    assert rebuilt.min() >= -1e-6
    assert rebuilt.max() <= 1 + 1e-6
    assert ((rebuilt - test) ** 2).mean() < 0.6 * ((test - train.mean(axis=0)) ** 2).mean()
    assert not hasattr(estimator, "noise_variance_")
    assert np.isin(np.round(estimator.sample(50, random_state=0, noise=True), 5), (0, 1)).all()
    assert np.isfinite(estimator.score_samples(test)).all()


@pytest.mark.slow
def test_pipeline_composition(cls, digits, brief):
    train, test, y_train, y_test = digits
    head = LogisticRegression(max_iter=2000)
    pipeline = make_pipeline(StandardScaler(), cls(8, random_state=0, max_iter=20), head).fit(
        train, y_train
    )
    assert pipeline.score(test, y_test) > 0.85
    union = FeatureUnion([("pca", PCA(2)), ("code", cls(**brief))])
    assert union.fit_transform(train[:200]).shape == (200, 5)
    columns = ColumnTransformer([("code", cls(**brief), slice(0, 32))], remainder="passthrough")
    assert columns.fit_transform(train[:200]).shape == (200, 3 + 32)
    inverse = make_pipeline(StandardScaler(), cls(**brief)).fit(train[:200])
    assert inverse.inverse_transform(inverse.transform(test)).shape == test.shape


@pytest.mark.slow
def test_grid_search_is_the_same_with_two_jobs(cls, table, brief):
    grid = {"n_components": [1, 2]}
    estimator = cls(**{**brief, "max_iter": 30}, learning_rate_init=0.03)
    searches = [
        GridSearchCV(estimator, grid, cv=2, n_jobs=n_jobs, refit=False).fit(table)
        for n_jobs in (1, 2)
    ]
    results = [search.cv_results_["mean_test_score"] for search in searches]
    # loky gives a worker one thread, which may round a sum differently.
    np.testing.assert_allclose(results[0], results[1], rtol=1e-2)
    assert results[0][1] > results[0][0]


def test_cross_val_score_of_itself(cls, table, brief):
    scores = cross_val_score(cls(**brief), table, cv=2)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "method", ["transform", "inverse_transform", "score_samples", "score", "posterior", "sample"]
)
def test_unfitted(cls, table, method):
    argument = 3 if method == "sample" else table
    with pytest.raises(NotFittedError, match=cls.__name__):
        getattr(cls(), method)(argument)


@pytest.mark.slow
def test_hebae_variants(table, brief):
    rows = {}
    for covariance in ("full", "diag"):
        for scale in ("diagonal", "scalar"):
            estimator = HEBAETransformer(
                **{**brief, "max_iter": 30}, covariance=covariance, posterior_scale=scale
            )
            mean, factor = estimator.fit(table).posterior(table[:5])
            assert ((estimator.inverse_transform(mean) - table[:5]) ** 2).mean() < 0.3
            # Of the encoder's own codes; the map behind them mixes dimensions.
            rows[covariance, scale] = estimator.fitted_.with_encoder_codes().posterior(table[:5])[1]
            fitted = estimator.fitted_
            matrix = fitted.axes.outward.T @ fitted.model.code_map.matrix.numpy()
            own = matrix @ rows[covariance, scale]
            np.testing.assert_allclose(
                factor @ factor.transpose(0, 2, 1),
                own @ own.transpose(0, 2, 1),
                rtol=1e-4,
                atol=1e-7,
            )
            assert (np.triu(factor, 1) == 0.0).all()
    diagonal = rows["diag", "diagonal"]
    np.testing.assert_array_equal(diagonal, diagonal * np.eye(3))
    scalar = rows["diag", "scalar"]
    spread = scalar.diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(
        spread / spread[:1], (spread / spread[:1])[:, :1].repeat(3, 1), rtol=1e-5
    )


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_sparse_entries_stored_twice_count_as_their_sum(cls, brief, likelihood):
    data, columns, starts = [0.1, 0.2, 0.4, 0.5, 0.3], [0, 0, 1, 2, 3], [0, 2, 3, 4, 5]
    X = sparse.csr_matrix((data, columns, starts), shape=(4, 5))
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = False
    estimator = cls(**brief, likelihood=likelihood).fit(X)
    assert X.nnz == 5  # the caller's matrix is as it was
    dense = cls(**brief, likelihood=likelihood).fit(X.toarray())
    np.testing.assert_allclose(estimator.transform(X), dense.transform(X.toarray()), atol=1e-4)


def test_parameters_set_after_fit_change_nothing_fitted(table, brief):
    estimator = HEBAETransformer(**brief).fit(table)
    before = estimator.transform(table), estimator.posterior(table)[1], estimator.score(table)
    estimator.set_params(
        likelihood="bernoulli", covariance="diag", covariance_prior=1e6, n_components="ten"
    )
    after = estimator.transform(table), estimator.posterior(table)[1], estimator.score(table)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bernoulli_accepts_its_own_samples(cls, fitted_bernoulli):
    estimator = fitted_bernoulli(cls)
    rows = estimator.sample(300, random_state=0, noise=True)
    assert set(np.unique(rows)) == {0.0, 1.0}
    estimator.transform(rows)
    estimator.transform(estimator.inverse_transform(estimator.transform(rows)))


def test_tensor_views(fitted, table):
    rows = torch.tensor(table[:5])
    negative = torch.complex(rows, -rows).conj().imag  # a view with the negative bit
    np.testing.assert_array_equal(fitted.transform(negative), fitted.transform(table[:5]))
    with pytest.raises(TypeError, match="to_dense"):
        fitted.transform(rows.to_sparse())


@pytest.mark.slow
def test_fitting_in_threads(table, brief):
    from concurrent.futures import ThreadPoolExecutor

    serial = [
        HEBAETransformer(**{**brief, "max_iter": 20, "random_state": i}).fit(table)
        for i in range(4)
    ]
    filters = list(__import__("warnings").filters)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(
            pool.map(
                lambda i: HEBAETransformer(**{**brief, "max_iter": 20, "random_state": i}).fit(
                    table
                ),
                range(4),
            )
        )
    for one, other in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one.transform(table), other.transform(table))
    # A thread that restored another's filters would silence the process.
    assert list(__import__("warnings").filters) == filters


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, torch.from_numpy])
@pytest.mark.parametrize("unit", [1e-41, 1e-39, 1e37])
def test_units_at_the_ends_of_single_precision(cls, brief, form, unit):
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + 0.1 * rng.normal(size=(200, 4))
    X = (plain * [unit, 1.0, 1.0, unit]).astype(np.float32)
    expected = cls(**brief).fit(plain.astype(np.float32)).transform(plain.astype(np.float32))
    model = cls(**brief).fit(form(X))
    codes = model.transform(form(X))
    assert_allclose(codes, expected, atol=0.02)
    assert np.isfinite(model.score_samples(form(X))).all()
    assert (model.noise_variance_ > 0.0).all()
    of_plain = cls(**brief).fit(plain.astype(np.float32)).noise_variance_
    assert_allclose(model.noise_variance_, of_plain * [unit**2, 1.0, 1.0, unit**2], rtol=0.05)


@pytest.mark.parametrize("unit", [1e-28, 1e-35, 1e-42, 1e-60])
def test_proportions_of_any_unit(brief, unit):
    X = np.random.default_rng(0).random((60, 3)) * [1.0, unit, 1.0]
    model = VAETransformer(**brief, likelihood="bernoulli").fit(X)
    decoded = model.inverse_transform(model.transform(X))
    assert (decoded >= 0.0).all()
    assert decoded[:, 1].max() < 0.02  # the likelihood knows 1 % at its start
    drawn = model.sample(50, random_state=0, noise=True)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    assert np.isfinite(model.score_samples(X)).all()
