"""The linear path: networks that start as principal component analysis, and may stay it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import FeatureScaling, Minibatch, Table
from skhebae.distributed import SingleProcess
from skhebae.fitted import fit as fit_module
from skhebae.fitted import gate
from skhebae.fitted.gate import Verdict, judge
from skhebae.fitted.linear_start import compress, merge_inputs, principal_components
from skhebae.networks import Encoder
from skhebae.training.checkpoint import N_VERDICTS

#: Training that moves nothing.
STILL = {"max_iter": 1, "learning_rate_init": 1e-30, "random_state": 0}


@pytest.fixture(scope="module")
def table():
    """Correlated rows whose features all have standard deviation 1."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 12)) + rng.normal(size=(300, 12))
    return StandardScaler().fit_transform(X)


@pytest.fixture(scope="module")
def curve():
    """Noisy points on a curve in six dimensions, which no line follows."""
    rng = np.random.default_rng(0)
    t = rng.uniform(0.0, 2.0 * np.pi, 700)
    X = np.stack([np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t), np.cos(3 * t), t], axis=1)
    return StandardScaler().fit_transform(X + 0.05 * rng.normal(size=X.shape))


def untrained(X, cls=HEBAETransformer, d=3, **parameters):
    """Fit without training, and return the fitted model with what its encoder sees of rows."""
    arguments = {key: parameters.pop(key) for key in ("batch",) if key in parameters}
    with pytest.warns(ConvergenceWarning):
        estimator = cls(d, **STILL, **parameters).fit(X, **arguments)
    model = estimator.fitted_.with_encoder_codes().model
    model.train()  # without the calibration
    dense = X.toarray() if sparse.issparse(X) else np.asarray(X)
    rows = Minibatch(torch.from_numpy(estimator.fitted_.scaling.standardise(dense)))
    with torch.no_grad():
        return model, rows, model.encoder_input(rows).numpy()


def test_principal_components_are_eigenvectors_of_the_covariance(table):
    rng = np.random.default_rng(0)
    X = (table @ rng.normal(size=(12, 12)) + np.arange(1.0, 13.0)).astype(np.float32)
    found = principal_components(X, 3, 0)
    values, vectors = np.linalg.eigh(np.cov(X.astype(np.float64), rowvar=False))
    np.testing.assert_allclose(found.mean, X.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(found.deviations, np.sqrt(values[:-4:-1]), rtol=1e-5)
    products = np.abs(found.directions @ vectors[:, :-4:-1])
    np.testing.assert_allclose(products, np.eye(3), atol=1e-4)
    assert found.residual == pytest.approx(values[:-3].sum() / 12, rel=1e-4)
    # No more components than the rows have.
    assert len(principal_components(X[:3], 5, 0).deviations) == 2
    assert len(principal_components(X[:1], 5, 0).deviations) == 0
    assert len(principal_components(np.ones((9, 4), dtype=np.float32), 2, 0).deviations) == 0


def check_starts_as_pca(model, rows, inputs, d=3):
    pca = PCA(d, svd_solver="full").fit(inputs.astype(np.float64))
    expected = pca.transform(inputs) / pca.explained_variance_**0.5
    with torch.no_grad():
        codes = model.encode(rows)[0]
        output = model.decode(codes) if model.n_batches == 0 else None
    signs = np.sign((codes.numpy() * expected).sum(axis=0))
    np.testing.assert_allclose(codes.numpy() * signs, expected, atol=2e-5)
    if output is not None:
        rebuilt = pca.inverse_transform(pca.transform(inputs))
        np.testing.assert_allclose(output.numpy(), rebuilt, atol=2e-5)


@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer, WAETransformer])
@pytest.mark.parametrize("kind", ["dense", "sparse", "memmap", "shifted"])
def test_networks_start_as_pca(cls, kind, table, tmp_path):
    X = table
    if kind == "sparse":
        X = sparse.csr_matrix(np.where(np.abs(table) > 0.5, table, 0.0))
    elif kind == "memmap":
        X = np.memmap(tmp_path / "rows", dtype=np.float64, mode="w+", shape=table.shape)
        X[:] = table
    elif kind == "shifted":
        X = 5.0 * table + np.arange(12.0)
    check_starts_as_pca(*untrained(X, cls, linear_path=True))


def test_the_start_is_centred():
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(
        4, 2, (3,), "gelu", n_scales=2, initial_scale=-2.0, generator=generator, linear_path=True
    )
    weight, centre = torch.randn(2, 4, generator=generator), torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    encoder.start_linear(weight, centre[0])
    with torch.no_grad():
        mu, scales = encoder(torch.cat([centre, centre + 1.0]))
    np.testing.assert_allclose(mu[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(mu[1], weight.sum(dim=1), rtol=1e-5)
    np.testing.assert_array_equal(scales, -2.0)


def test_linear_networks_start_as_pca_if_asked(table):
    check_starts_as_pca(*untrained(table, hidden_layer_sizes=(), linear_path=True))
    model, *_ = untrained(table, hidden_layer_sizes=())
    assert model.decoder[-1].weight.abs().max() < 1e-20


def test_batches_start_without_influence(table):
    batch = np.arange(len(table)) % 2
    model, rows, inputs = untrained(table, batch=batch, encode_batch=True)
    rows = rows.replace(batch=torch.from_numpy(batch))
    check_starts_as_pca(model, rows, inputs)
    assert model.decoder.path.weight[:, 3:].abs().max() < 1e-20
    assert model.encoder.path.weight[:, 12:].abs().max() < 1e-20


def test_a_stream_starts_at_its_first_table(table):
    estimator = HEBAETransformer(3, random_state=0, learning_rate_init=1e-30).partial_fit(table)
    model = estimator.fitted_.with_encoder_codes().model.train()
    rows = Minibatch(torch.from_numpy(estimator.fitted_.scaling.standardise(table)))
    check_starts_as_pca(model, rows, rows.x.numpy())


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson", "negative_binomial"])
def test_other_families_start_in_the_space_of_their_parameter(likelihood):
    # To first order, the decoder undoes the encoder: the means move as principal components do.
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 1))
    loadings = np.linspace(-0.4, 0.4, 8)
    if likelihood == "bernoulli":
        X = rng.random((2000, 8)) < 1.0 / (1.0 + np.exp(-2.0 * z * loadings))
    else:
        X = rng.poisson(200.0 * np.exp(z * loadings))
    model, rows, _ = untrained(X.astype(np.float64), d=1, likelihood=likelihood, linear_path=True)
    with torch.no_grad():
        codes = model.encode(rows)[0]
        # Also where what the encoder sees has another mean than 0.
        assert codes.mean().abs() < 1e-3
        assert codes.std() == pytest.approx(1.0, abs=1e-3)
        slope = (model.decode(codes + 0.01) - model.decode(codes - 0.01)).mean(dim=0) / 0.02
    slope = slope.numpy() * np.sign(slope[-1].item())
    assert np.corrcoef(codes[:, 0], z[:, 0])[0, 1] ** 2 > (
        0.3 if likelihood == "bernoulli" else 0.9
    )
    # (Binary rows show the code with much noise, so that its slopes are smaller.)
    ratio = slope / (slope @ loadings / (loadings @ loadings))
    np.testing.assert_allclose(ratio, loadings, atol=0.08)


def test_other_families_have_no_path_by_default():
    counts = np.random.default_rng(0).poisson(3.0, (60, 5))
    for likelihood in ("bernoulli", "poisson"):
        with pytest.warns(ConvergenceWarning):
            model = VAETransformer(2, likelihood=likelihood, **STILL).fit(counts.clip(0, 1))
        assert not model.fitted_.architecture.linear_path
        assert not model.is_linear_


@pytest.mark.slow
@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer, WAETransformer])
def test_fewer_directions_than_components(cls):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6))
    estimator = cls(5, random_state=0).fit(X)
    rebuilt = estimator.inverse_transform(estimator.transform(X))
    assert np.square(rebuilt - X).mean() < 0.01 * X.var()
    assert np.isfinite(estimator.transform(10.0 * X[:3])).all()


def test_user_networks_have_no_path(table):
    def encoder(shape, n_outputs):
        return torch.nn.Linear(shape[0], n_outputs)

    with pytest.warns(ConvergenceWarning):
        estimator = HEBAETransformer(2, encoder=encoder, **STILL).fit(table)
    assert not estimator.fitted_.architecture.linear_path
    with pytest.raises(ValueError, match="linear_path=True is for the built-in networks"):
        HEBAETransformer(2, encoder=encoder, linear_path=True, **STILL).fit(table)


# The number of components


@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer, WAETransformer])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_components_by_share_of_variance(cls, share, table):
    estimator = cls(share, **STILL)
    with pytest.warns(ConvergenceWarning):
        codes = estimator.fit_transform(table)
    expected = PCA(share, svd_solver="full").fit(table).n_components_
    assert estimator.n_components_ == codes.shape[1] == expected
    np.testing.assert_array_equal(codes, estimator.transform(table))
    assert len(estimator.get_feature_names_out()) == expected
    assert estimator.get_params()["n_components"] == share
    assert estimator.inverse_transform(codes).shape == table.shape


def test_components_by_share_in_other_ways_of_fitting(table, tmp_path):
    estimator = VAETransformer(0.5, random_state=0, warm_start=True)
    estimator.partial_fit(table[:150])
    d = estimator.n_components_
    estimator.partial_fit(5.0 * table[150:, ::-1].copy())  # it stays, whatever comes
    assert estimator.n_components_ == d
    estimator.save(tmp_path / "model.skhebae")
    loaded = VAETransformer.load(tmp_path / "model.skhebae")
    assert loaded.n_components == 0.5
    assert loaded.n_components_ == d
    counts = np.random.default_rng(0).poisson(np.exp(table[:, :6]))
    with pytest.warns(ConvergenceWarning):
        estimator = HEBAETransformer(0.5, likelihood="poisson", **STILL).fit(counts)
    assert 1 < estimator.n_components_ < 6
    with pytest.warns(ConvergenceWarning):
        constant = HEBAETransformer(0.5, **STILL).fit(np.ones((80, 3)))
    assert constant.n_components_ == 1


# The trial


@pytest.mark.slow
def test_perceptrons_are_kept_where_they_help(curve):
    train, test = curve[:500], curve[500:]
    estimator = HEBAETransformer(2, random_state=0).fit(train)
    assert not estimator.is_linear_
    pca = PCA(2).fit(train)
    error, reference = (
        np.square(model.inverse_transform(model.transform(test)) - test).mean()
        for model in (estimator, pca)
    )
    assert error < 0.7 * reference


@pytest.mark.slow
@pytest.mark.parametrize("cls", [HEBAETransformer, WAETransformer])
def test_noise_is_left_to_principal_components(cls):
    rng = np.random.default_rng(1)
    X = StandardScaler().fit_transform(
        rng.normal(size=(150, 3)) @ rng.normal(size=(3, 15)) + rng.normal(size=(150, 15))
    )
    estimator = cls(3, random_state=0).fit(X)
    assert estimator.is_linear_
    pca = PCA(3).fit(X)
    rebuilt = estimator.inverse_transform(estimator.transform(X))
    reference = pca.inverse_transform(pca.transform(X))
    assert np.square(rebuilt - X).mean() < 1.01 * np.square(reference - X).mean()
    codes, scores = estimator.transform(X), pca.transform(X)
    for j in range(3):
        assert abs(np.corrcoef(codes[:, j], scores[:, j])[0, 1]) > 0.98
    # A model that stays linear does so when training continues.
    again = estimator.set_params(warm_start=True).fit(X)
    assert again.is_linear_


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0.5, 1.0, 1.5, 2.0], Verdict.FULL),
        ([1.0, 2.0, 3.0, 4.0], [0.95, 1.9, 2.8, 3.8], Verdict.BRIEF),
        ([1.0, 2.0, 3.0, 4.0], [0.98, 1.96, 2.94, 3.92], Verdict.LINEAR),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], Verdict.LINEAR),
        ([1.0, 2.0, 3.0, 4.0], [1.1, 2.1, 3.1, 4.1], Verdict.LINEAR),
        # One row that gains much beside others that lose is no evidence.
        ([1.0, 1.0, 1.0, 5.0], [1.3, 1.3, 1.3, 3.4], Verdict.LINEAR),
        ([1.0, 1.0, 1.0, 5.0], [1.5, 1.5, 1.5, 3.4], Verdict.LINEAR),
        ([1.0, 1.0], [np.nan, np.nan], Verdict.LINEAR),
    ],
)
def test_judge(before, after, verdict):
    assert judge(np.array(before), np.array(after)) is verdict


def test_errors_of_missing_entries_do_not_count(table):
    model, whole, _ = untrained(table)
    mask = torch.ones_like(whole.x, dtype=torch.bool)
    mask[:, 7:] = False
    rows = SimpleNamespace(
        ordered=np.sort,
        take=lambda indices: whole.replace(mask=mask).map_rows(lambda tensor: tensor[indices]),
    )
    errors = gate.squared_errors(SimpleNamespace(model=model), rows, np.array([5, 2, 9]))
    with torch.no_grad():
        mean = model.decode(model.encode(whole.replace(mask=mask))[0])
    expected = (whole.x - mean)[[2, 5, 9], :7].square().sum(dim=1)
    np.testing.assert_allclose(errors, expected, rtol=1e-5)


def test_checkpoints_know_all_verdicts():
    assert len(gate.Verdict) == N_VERDICTS
    assert {int(verdict) for verdict in gate.Verdict} == set(range(N_VERDICTS))


@pytest.mark.slow
def test_few_rows_stay_linear_and_many_have_no_trial(table, monkeypatch):
    assert HEBAETransformer(2, random_state=0).fit(table[:60]).is_linear_

    def forbidden(*arguments, **keywords):
        raise AssertionError("trained in a trial")

    monkeypatch.setattr(gate, "train", forbidden)
    assert HEBAETransformer(2, random_state=0).fit(table[:60]).is_linear_
    with pytest.raises(AssertionError, match="trained in a trial"):
        HEBAETransformer(2, random_state=0).fit(table)
    monkeypatch.setattr(gate, "MOST_ROWS", 200)
    assert not HEBAETransformer(2, random_state=0).fit(table).is_linear_


def test_a_number_of_epochs_is_kept(table):
    with pytest.warns(ConvergenceWarning):
        estimator = HEBAETransformer(2, random_state=0, max_iter=3).fit(table)
    assert estimator.n_iter_ == 3


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["table", "curve"])
def test_a_resumed_fit_keeps_its_verdict(rows, request, tmp_path, monkeypatch):
    X = request.getfixturevalue(rows)
    path = tmp_path / "state"
    estimator = HEBAETransformer(2, random_state=0)
    whole = estimator.fit_transform(X, checkpoint=tmp_path / "whole")
    verdict = estimator.is_linear_

    class StopError(Exception):
        pass

    def interrupted(*arguments, **keywords):
        def stop(loss):
            stop.n_epochs += 1
            if stop.n_epochs == 5:
                raise StopError

        stop.n_epochs = 0
        return train(*arguments, **{**keywords, "on_epoch": stop})

    train = fit_module.train
    monkeypatch.setattr(fit_module, "train", interrupted)
    monkeypatch.setattr("skhebae.training.checkpoint.COST", 0.0)
    with pytest.raises(StopError):
        HEBAETransformer(2, random_state=0).fit(X, checkpoint=path)
    monkeypatch.setattr(fit_module, "train", train)
    monkeypatch.setattr(fit_module, "try_perceptrons", None)  # not called again
    resumed = HEBAETransformer(2, random_state=0)
    np.testing.assert_array_equal(resumed.fit_transform(X, checkpoint=path), whole)
    assert resumed.is_linear_ == verdict == (rows == "table")


# Several processes


class Together(SingleProcess):
    """A group whose other processes have sent their parts already."""

    def __init__(self, others):
        self.size = 1 + len(others)
        self._others = others

    def gather(self, value):
        return [value, *self._others]


@pytest.mark.parametrize("sizes", [(250, 50), (295, 5), (300, 0), (100, 100, 100)])
def test_merged_rows_have_the_components_of_all(table, sizes):
    X = (table + np.arange(300.0)[:, None] / 100.0).astype(np.float32)
    own, *others = np.split(X, np.cumsum(sizes)[:-1])
    merged = merge_inputs(own, Together([compress(part) for part in others]))
    actual, expected = (principal_components(rows, 3, 0) for rows in (merged, X))
    np.testing.assert_allclose(actual.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(actual.deviations, expected.deviations, rtol=1e-5)
    products = np.abs(actual.directions @ expected.directions.T)
    np.testing.assert_allclose(products, np.eye(3), atol=1e-4)


# Units


def test_a_standardised_table_keeps_its_units():
    # A rare value has a wide range. Whoever standardised the table says that it counts.
    X = load_wine().data
    X = np.c_[X, (np.arange(len(X)) == 3)]
    standardised = StandardScaler().fit_transform(X)
    scale = FeatureScaling.measure(Table(standardised)).scale
    np.testing.assert_allclose(scale, standardised.std(axis=0), rtol=1e-6)
    plain = FeatureScaling.measure(Table(X))
    assert plain.scale[-1] == pytest.approx(0.3)
    # Otherwise units do not matter.
    factors = np.geomspace(0.1, 1000.0, X.shape[1])
    other = FeatureScaling.measure(Table(X * factors))
    np.testing.assert_allclose(other.scale, plain.scale * factors, rtol=1e-9)


@pytest.mark.slow
def test_features_count_alike_in_training(table):
    # As in principal component analysis; each has its own noise variance only afterwards.
    estimator = HEBAETransformer(3, random_state=0).fit(table)
    likelihood = estimator.fitted_.likelihood
    assert len(np.unique(likelihood.eval().noise_variance().detach())) == 12
    assert len(np.unique(likelihood.train().noise_variance().detach())) == 1
    plain = HEBAETransformer(3, random_state=0, linear_path=False, max_iter="auto").fit(table)
    assert len(np.unique(plain.fitted_.likelihood.train().noise_variance().detach())) == 12


@pytest.mark.slow
def test_digits_are_rebuilt_far_better_than_by_pca():
    X = load_digits().data / 16.0
    train, test = X[:1300], X[1300:]
    estimator = HEBAETransformer(10, random_state=0).fit(train)
    pca = PCA(10).fit(train)
    error, reference = (
        np.square(model.inverse_transform(model.transform(test)) - test).mean()
        for model in (estimator, pca)
    )
    assert error < 0.7 * reference
