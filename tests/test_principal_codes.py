"""Principal codes: order, sign, scale, truncation and what does not change with them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from skhebae import AutoencoderTransformer, HEBAETransformer, VAETransformer, WAETransformer
from skhebae.exceptions import ModelFileError
from skhebae.files import read_document, write_document
from skhebae.fitted.axes import choose_scale, principal_rotation
from skhebae.likelihoods.jacobians import push_forward
from skhebae.objectives import VAEObjective
from skhebae.prior import StandardNormalPrior

CLASSES = [HEBAETransformer, VAETransformer, WAETransformer]
FORMS = [True, False, "reliability"]
SMALL = {"n_components": 3, "hidden_layer_sizes": (16,), "random_state": 0}


def rows(n=300, p=6, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, 3)) * [3.0, 1.5, 0.7] @ rng.normal(size=(3, p))
    curved = signal + 0.3 * np.sin(signal[:, ::-1]) + 0.2 * rng.normal(size=(n, p))
    return (5.0 + curved).astype(np.float32)


def counts(n=200, p=12, seed=0):
    rng = np.random.default_rng(seed)
    shares = np.exp(rng.normal(size=(4, p)))[rng.integers(4, size=n)]
    sizes = rng.uniform(50, 200, size=(n, 1))
    return rng.poisson(sizes * shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


TABLES = {
    "gaussian": rows,
    "bernoulli": lambda: (rows() > rows().mean(axis=0)).astype(np.float32),
    "poisson": counts,
    "negative_binomial": counts,
    "zero_inflated_negative_binomial": counts,
}


@pytest.fixture(scope="module", params=CLASSES)
def model(request):
    # Whitened, as the metrics of `CodeAxes` are.
    return request.param(**SMALL, whiten=True).fit(rows())


def standardised(model, X):
    return model.fitted_.scaling.standardise(X).astype(np.float64)


def explained(model, X, k):
    """R2 of decoding codes without all but the first k components, in the networks' units."""
    codes = model.transform(X)
    codes[:, k:] = 0.0
    original = standardised(model, X)
    error = original - standardised(model, model.inverse_transform(codes))
    return 1.0 - (error**2).sum() / ((original - original.mean(axis=0)) ** 2).sum()


def mean_metric(model, X, step=0.02):
    """``E J^T J`` of the decoder in users' codes, by finite differences."""
    codes, d = model.transform(X), model.n_components
    slopes = []
    for k in range(d):
        ends = [codes + sign * step * np.eye(d, dtype=np.float32)[k] for sign in (1.0, -1.0)]
        up, down = (standardised(model, model.inverse_transform(end)) for end in ends)
        slopes.append((up - down) / (2.0 * step))
    jacobian = np.stack(slopes, axis=2)
    return np.einsum("npi,npj->ij", jacobian, jacobian) / len(X)


def regression_metric(model, X):
    """``B B^T`` of the slopes in a linear regression of rows on draws of users' codes."""
    codes, factors = model.posterior(X)
    rng, target = np.random.default_rng(0), standardised(model, X)
    draws = [codes + np.einsum("nij,nj->ni", factors, noise) for noise in rng.normal(
        size=(400, *codes.shape))]  # fmt: skip
    slopes = LinearRegression().fit(np.concatenate(draws), np.tile(target, (400, 1))).coef_
    return slopes.T @ slopes


# Order, sign and what they follow from


def test_components_are_eigenvectors_of_the_decoders_metric_by_decreasing_eigenvalue(model):
    axes = model.fitted_.axes
    assert (np.diff(axes.distances.diagonal()) <= 0.0).all()
    assert_allclose(axes.distances, np.diag(axes.distances.diagonal()), atol=1e-8)
    # Independent computations: of the rows by a regression on their codes, ...
    tolerance = 0.02 * axes.distances.max()
    assert_allclose(regression_metric(model, rows()), axes.distances, atol=tolerance)
    # ...and of the decoder.
    assert_allclose(mean_metric(model, rows()[::3]), axes.distances, atol=tolerance)


@pytest.mark.slow
def test_collapsed_dimensions_come_last():
    # They hardly differ between rows, so that slopes on them alone would be of any size.
    X = load_digits().data[:600].astype(np.float32) / 16.0
    model = VAETransformer(10, beta=4.0, linear_path=False, whiten=True, random_state=0)
    variances = model.fit_transform(X).var(axis=0)
    assert 2 <= (variances > 0.1).sum() <= 8
    assert (np.diff((variances > 0.1).astype(int)) <= 0).all()
    short = model.fitted_.rescaled(False).encode(X)
    assert short.var(axis=0)[variances < 0.01].max() < 0.01


def test_each_component_has_its_largest_loading_positive(model):
    assert model.components_.shape == (3, 6)
    components = model.components_ / model.fitted_.scaling.scale  # in any unit
    assert (components[np.arange(3), np.abs(components).argmax(axis=1)] > 0.0).all()


def test_rotation_of_a_metric():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    metric, loadings = root @ root.T, rng.normal(size=(4, 9))
    rotation = principal_rotation(metric, loadings)
    assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)
    turned = rotation.T @ metric @ rotation
    assert_allclose(turned, np.diag(np.sort(np.linalg.eigvalsh(metric))[::-1]), atol=1e-10)
    # Whatever the axes before.
    other, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    again = other @ principal_rotation(other.T @ metric @ other, other.T @ loadings)
    assert_allclose(again, rotation, atol=1e-10)


def test_scales():
    distances, information = np.array([4.0, 1.0, 0.0]), np.array([99.0, 1.0, -1e-9])
    assert_array_equal(choose_scale(True, distances, information), 1.0)
    assert_allclose(choose_scale(False, distances, information), [2.0, 1.0, 2e-4])
    reliable = np.sqrt(0.99)
    expected = [reliable, np.sqrt(0.5), 1e-4 * reliable]
    assert_allclose(choose_scale("reliability", distances, information), expected)
    assert_array_equal(choose_scale(False, np.zeros(2), np.zeros(2)), 1.0)


def test_jacobians_by_the_chain_rule():
    rng = torch.Generator().manual_seed(0)
    at, jacobian = (
        torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((5, 4), (5, 4, 3))
    )
    mixed = push_forward(lambda values: torch.log_softmax(values, dim=1), at, jacobian)
    step = 1e-6
    for k in range(3):
        up, down = (
            torch.log_softmax(at + sign * step * jacobian[:, :, k], dim=1) for sign in (1.0, -1.0)
        )
        assert_allclose(mixed[:, :, k], (up - down) / (2.0 * step), atol=1e-8)
    assert torch.equal(push_forward(lambda values: values, at, jacobian), jacobian)


# Nothing else changes


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"row_share": 0.5}, {"reg_weight": 0.0}])
def test_a_rotation_changes_no_density(own):
    X = rows()
    # (The codes of a linear path are near to principal codes before any rotation.)
    model = HEBAETransformer(**SMALL, **own, whiten=True, linear_path=False).fit(X)
    fitted = model.fitted_
    plain = copy.copy(fitted)
    object.__setattr__(plain, "axes", None)  # the codes before the rotation
    codes, own_codes = fitted.encode(X), plain.encode(X)
    assert not np.allclose(codes, own_codes, atol=0.1)
    assert_allclose((codes**2).sum(axis=1), (own_codes**2).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert_allclose(fitted.decode(codes), plain.decode(own_codes), rtol=1e-4, atol=1e-4)
    assert_array_equal(fitted.score(X), plain.score(X))
    assert_array_equal(fitted.elbo(X), plain.elbo(X))
    draws = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert_array_equal(fitted.log_likelihood(X, draws), plain.log_likelihood(X, draws))
    for latent in ("mixture", "gaussian", "prior"):
        drawn = [of.sample(9, latent, np.random.RandomState(0)) for of in (fitted, plain)]
        assert_array_equal(*drawn)


def test_reconstructions_are_those_of_the_encoders_own_codes(model):
    X, own = rows(), model.fitted_.with_encoder_codes()
    assert own.axes is None
    expected = own.decode(own.encode(X))
    assert_allclose(model.inverse_transform(model.transform(X)), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(AttributeError, match="Fit again"):
        own.principal_axes  # noqa: B018


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:max_iter")
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("likelihood", TABLES)
def test_every_scale_is_a_view_of_the_same_model(cls, likelihood):
    X = TABLES[likelihood]()
    models = {form: cls(**SMALL, whiten=form, likelihood=likelihood, max_iter=5) for form in FORMS}
    codes = {form: model.fit_transform(X) for form, model in models.items()}
    white = models[True]
    score, decoded = white.score_samples(X), white.inverse_transform(codes[True])
    drawn = white.sample(7, random_state=0)
    covariance = white.latent_covariance_
    mean, factor = white.posterior(X)
    for form, model in models.items():
        scale = model.fitted_.axes.scale
        assert_array_equal(codes[form], model.transform(X))
        assert_allclose(codes[form], codes[True] * scale, rtol=1e-4, atol=1e-5)
        assert_array_equal(model.fitted_.rescaled(True).encode(X), codes[True])
        assert_array_equal(white.fitted_.rescaled(form).encode(X), codes[form])
        assert_allclose(model.inverse_transform(codes[form]), decoded, rtol=1e-3, atol=1e-4)
        assert_array_equal(model.score_samples(X), score)
        assert_array_equal(model.sample(7, random_state=0), drawn)
        assert_allclose(model.components_ * scale[:, None], white.components_, rtol=1e-8)
        assert_allclose(model.latent_mean_, white.latent_mean_ * scale, atol=1e-7)
        assert_allclose(
            model.latent_covariance_, scale[:, None] * covariance * scale, rtol=1e-6, atol=1e-9
        )
        assert_array_equal(model.posterior(X)[0], codes[form])
        own = model.posterior(X)[1]
        assert (np.triu(own, 1) == 0.0).all()
        assert_allclose(own @ own.mT, (scale[:, None] * factor) @ (factor.mT * scale), atol=1e-4)
    assert_allclose(mean, codes[True])
    reliability = models["reliability"].fitted_.axes.scale
    assert ((reliability > 0.0) & (reliability < 1.0)).all()


@pytest.mark.slow
def test_unwhitened_codes_are_as_far_apart_as_what_they_say_of_rows():
    """As what a linear regression makes of them, and a linear model decodes them to."""
    X = rows()
    model = HEBAETransformer(3, hidden_layer_sizes=(), random_state=0, whiten=False).fit(X)
    codes, original = model.transform(X), standardised(model, X)
    predicted = LinearRegression().fit(codes, original).predict(codes)
    one, other = (np.linalg.norm(of[:150] - of[150:], axis=1) for of in (codes, predicted))
    assert_allclose(one, other, rtol=1e-3)
    exact = HEBAETransformer(3, random_state=0, whiten=False).fit(X[:60])
    assert exact.is_linear_
    codes = exact.transform(X[:60])
    decoded = standardised(exact, exact.inverse_transform(codes))
    one, other = (np.linalg.norm(of[:30] - of[30:], axis=1) for of in (codes, decoded))
    assert_allclose(one, other, rtol=1e-3)


@pytest.mark.slow
def test_components_without_effect_stay_finite():
    """More codes than the table has dimensions."""
    X = rows(100)[:, :1] @ np.ones((1, 4), dtype=np.float32)
    first = HEBAETransformer(6, hidden_layer_sizes=(8,), random_state=0).fit(X)
    for form in FORMS:
        model = copy.deepcopy(first)
        model.fitted_ = first.fitted_.rescaled(form)
        codes = model.transform(X)
        assert np.isfinite(codes).all()
        fitted = model.fitted_.with_encoder_codes()
        expected = fitted.decode(fitted.encode(X))
        assert_allclose(model.inverse_transform(codes), expected, rtol=1e-3, atol=1e-3)
        assert np.isfinite(model.components_).all()
    constant = HEBAETransformer(2, random_state=0, whiten=False).fit(np.ones((30, 4)))
    assert_array_equal(constant.explained_variance_ratio_, 0.0)
    assert_allclose(constant.inverse_transform(constant.transform(np.ones((3, 4)))), 1.0)


# Truncation


def test_truncated_codes_reconstruct_what_the_shares_say(model):
    X, shares = rows(), model.explained_variance_ratio_
    assert shares.shape == (3,)
    for k in (1, 2, 3):
        assert_allclose(explained(model, X, k), shares[:k].sum(), atol=1e-4)
    assert (shares > 0.0).all()
    assert shares.sum() < 1.0
    assert shares[0] > shares[2]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_shares_of_counts_are_those_of_the_deviance(likelihood):
    X = counts()
    model = VAETransformer(**SMALL, likelihood=likelihood).fit(X)
    shares = model.explained_variance_ratio_
    assert 0.1 < shares.sum() < 1.0
    codes, wide = model.transform(X), X.astype(np.float64)
    sizes = wide.sum(axis=1, keepdims=True)

    def deviance(mean):
        terms = np.where(wide > 0, wide * np.log(np.where(wide > 0, wide, 1.0) / mean), 0.0)
        if likelihood == "poisson":
            return 2.0 * (terms - (wide - mean)).sum()
        theta = model.theta_
        return 2.0 * (terms - (wide + theta) * np.log((wide + theta) / (mean + theta))).sum()

    null = deviance(sizes * wide.sum(axis=0) / wide.sum())
    for k in (1, 3):
        part = codes * (np.arange(3) < k)
        mean = model.inverse_transform(part, size_factor=sizes[:, 0]).astype(np.float64)
        assert_allclose(1.0 - deviance(mean) / null, shares[:k].sum(), atol=2e-3)


@pytest.mark.slow
def test_shares_of_the_last_components_are_small():
    X = load_digits().data[:600]
    # Axes are those of a regression on codes: only a linear decoder must have the same order.
    linear = HEBAETransformer(8, hidden_layer_sizes=(), linear_path=True, random_state=0).fit(X)
    assert (np.diff(linear.explained_variance_ratio_) < 0.0).all()
    model = HEBAETransformer(8, random_state=0).fit(X)
    shares = model.explained_variance_ratio_
    assert_allclose(shares.sum(), explained(model, X, 8), atol=1e-4)
    assert explained(model, X, 7) > 0.85 * explained(model, X, 8)


# Against PCA


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES)
def test_linear_networks_are_pca(cls):
    X = rows(500)
    how = {"max_iter": 1500, "early_stopping": False, "tol": 0.0}
    model = cls(3, hidden_layer_sizes=(), random_state=0, whiten=False, **how)
    with pytest.warns(match="not converged"):
        codes = model.fit_transform(X)
    original = standardised(model, X)
    pca = PCA(3).fit(original)
    # VAE and HEBAE weigh features by their noise: factor analysis, here near to PCA.
    assert_allclose(model.explained_variance_ratio_, pca.explained_variance_ratio_, atol=0.02)
    own = model.components_ / model.fitted_.scaling.scale
    cosine = np.linalg.svd(own @ pca.components_.T / np.linalg.norm(own, axis=1)[:, None])[1]
    assert cosine.min() > 0.95
    congruence = np.abs((own * pca.components_).sum(axis=1)) / np.linalg.norm(own, axis=1)
    assert congruence.min() > 0.95
    if cls is not VAETransformer:  # whose codes are shrunk
        scores = pca.transform(original)
        ratio = codes.std(axis=0) / scores.std(axis=0)
        assert_allclose(ratio, 1.0, atol=0.1)


@pytest.mark.slow
def test_decoding_of_linear_networks_is_the_mean_and_the_components(model):
    X = rows()
    linear = type(model)(3, hidden_layer_sizes=(), random_state=0).fit(X)
    codes = linear.transform(X)
    centre = linear.inverse_transform(np.zeros((1, 3)))
    expected = centre + codes @ linear.components_
    assert_allclose(linear.inverse_transform(codes), expected, atol=1e-4)


def congruence(one, other):
    """Tucker's congruence of components, matched in order."""
    norm = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.abs((one * other).sum(axis=1)) / norm


@pytest.mark.slow
def test_seeds_agree_on_the_leading_components():
    X = load_iris().data
    models = [HEBAETransformer(2, random_state=seed).fit(X) for seed in (0, 1)]
    values = congruence(*(model.components_ for model in models))
    assert values[0] > 0.98
    codes = [model.transform(X) for model in models]
    assert abs(np.corrcoef(codes[0][:, 0], codes[1][:, 0])[0, 1]) > 0.95
    # Without a linear start, the encoders' own axes do not correspond at all.
    models = [HEBAETransformer(2, random_state=s, linear_path=False).fit(X) for s in (0, 1)]
    own = [model.fitted_.with_encoder_codes().encode(X) for model in models]
    cross = np.abs(np.corrcoef(own[0].T, own[1].T)[:2, 2:])
    best = cross[linear_sum_assignment(-cross)]
    assert best.max() < abs(np.corrcoef(codes[0][:, 0], codes[1][:, 0])[0, 1])


# Tables of all kinds


def test_batches_and_early_stopping():
    X, batch = rows(), np.arange(300) % 3
    X = X + batch[:, None]
    model = HEBAETransformer(**SMALL, whiten=False, early_stopping=True)
    codes = model.fit_transform(X, batch=batch)
    assert_array_equal(codes, model.transform(X))
    own = model.fitted_.with_encoder_codes()
    expected = own.decode(own.encode(X), batch)
    assert_allclose(model.inverse_transform(codes, batch=batch), expected, rtol=1e-4, atol=1e-4)
    averaged = model.inverse_transform(codes, batch="average")
    assert_allclose(averaged, own.decode(own.encode(X), "average"), rtol=1e-4, atol=1e-4)
    assert (np.diff(model.fitted_.axes.distances.diagonal()) <= 0.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("whiten", FORMS)
def test_streams_keep_their_axes(whiten):
    X = rows(400)
    model = HEBAETransformer(**SMALL, whiten=whiten)
    for _ in range(15):
        for part in np.array_split(X, 4):
            model.partial_fit(part)
    before, one = model.transform(X), copy.deepcopy(model)
    one.partial_fit(X[:1])
    assert_allclose(one.transform(X), before, atol=0.15 * np.abs(before).max())
    axes = one.fitted_.axes
    assert_allclose(axes.rotation.T @ axes.rotation, np.eye(3), atol=1e-9)
    assert_allclose(axes.distances, np.diag(axes.distances.diagonal()), atol=1e-8)
    assert 0.5 < one.explained_variance_ratio_.sum() < 1.0
    assert_allclose(
        mean_metric(model, X) / model.fitted_.axes.distances.max(),
        np.diag(model.fitted_.axes.distances.diagonal() / model.fitted_.axes.scale**2)
        / model.fitted_.axes.distances.max(),
        atol=0.3,
    )


class OwnPrior(StandardNormalPrior):
    """Any prior but ours: it may not look the same from all sides."""

    is_standard = False


def test_a_prior_of_ones_own_keeps_its_axes():
    model = AutoencoderTransformer(
        2, objective=VAEObjective, prior=OwnPrior, whiten=False, random_state=0
    ).fit(rows())
    assert_array_equal(model.fitted_.axes.outward, np.eye(2))
    assert_array_equal(model.transform(rows()), model.fitted_.with_encoder_codes().encode(rows()))
    assert model.explained_variance_ratio_.sum() > 0.3
    assert_array_equal(model.fitted_.rescaled("reliability").axes.scale, 1.0)


# Copies and files


@pytest.mark.parametrize("whiten", FORMS)
def test_copies_and_files(tmp_path, whiten):
    X = rows()
    model = VAETransformer(**SMALL, whiten=whiten).fit(X)
    model.save(tmp_path / "model")
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        VAETransformer.load(tmp_path / "model"),
    ):
        assert other.whiten == whiten
        assert_array_equal(other.transform(X), model.transform(X))
        assert_array_equal(other.components_, model.components_)
        assert_array_equal(other.explained_variance_ratio_, model.explained_variance_ratio_)
        assert_array_equal(other.latent_covariance_, model.latent_covariance_)
    continued = copy.deepcopy(model).set_params(warm_start=True, whiten=False).fit(X)
    assert_array_equal(
        continued.fitted_.axes.scale, np.sqrt(continued.fitted_.axes.distances.diagonal())
    )


def rotation_of_nothing(axes):
    axes["rotation"] = 2.0 * axes["rotation"]


@pytest.mark.parametrize(
    "damage",
    [
        rotation_of_nothing,
        lambda axes: axes.update(scale=-axes["scale"]),
        lambda axes: axes.update(loadings=axes["loadings"][:, :2].copy()),
        lambda axes: axes.pop("distances"),
        lambda axes: axes.update(information=np.full((3, 3), np.nan)),
        lambda axes: axes.update(more=1),
    ],
)
def test_damaged_axes(tmp_path, damage):
    path = tmp_path / "model"
    VAETransformer(**SMALL).fit(rows(40)).save(path)
    document = read_document(path)
    damage(document["fitted"]["_axes"])
    write_document(path, document)
    with pytest.raises(ModelFileError):
        VAETransformer.load(path)


@pytest.mark.slow
def test_misfits_of_counts_take_any_strides():
    likelihood = VAETransformer(**SMALL, likelihood="negative_binomial", max_iter="auto")
    likelihood = likelihood.fit(counts(40)).fitted_.likelihood
    x = torch.from_numpy(counts(40))
    parameter = torch.zeros(12, dtype=torch.float32).expand(40, -1)
    turned = x.T.contiguous().T
    assert torch.equal(likelihood.misfit(turned, parameter), likelihood.misfit(x, parameter))
    assert_allclose(likelihood.least_misfit(turned).detach(), likelihood.least_misfit(x).detach())
    mask = torch.ones(40, 12, dtype=torch.bool)
    for one, other in (
        (likelihood.misfit(x, parameter), likelihood.misfit(x, parameter, mask)),
        (likelihood.least_misfit(x), likelihood.least_misfit(x, mask)),
    ):
        assert_allclose(one.detach(), other.detach(), rtol=1e-4)
    assert (likelihood.misfit(x, parameter) > likelihood.least_misfit(x)).all()
    assert (likelihood.misfit(x, parameter, ~mask) == 0.0).all()
