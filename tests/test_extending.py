"""Objectives, likelihoods and priors from outside the package: `AutoencoderTransformer`."""

from __future__ import annotations

import ast
import copy
import pickle
import sys
import types
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.distributions import MultivariateNormal, kl_divergence

from skhebae import AutoencoderTransformer, HEBAETransformer, VAETransformer
from skhebae.data import FeatureScaling, Minibatch
from skhebae.diagnostics import latent_report
from skhebae.exceptions import LatentWarning, ModelFileError
from skhebae.objectives import HEBAEObjective, VAEObjective, WAEObjective

TRAINING = Path(__file__).parents[1] / "examples" / "training"


def classes_of(name):
    """Import the classes of an example without its fits, so that pickles find them by name."""
    path = TRAINING / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = (ast.Import, ast.ImportFrom, ast.ClassDef)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(tree, str(path), "exec"), vars(module))
    return module


FreeBits = classes_of("plot_own_objective").FreeBits
likelihood_and_prior = classes_of("plot_own_likelihood")
parts = types.SimpleNamespace(
    FreeBits=FreeBits,
    LaplaceLikelihood=likelihood_and_prior.LaplaceLikelihood,
    WidePrior=likelihood_and_prior.WidePrior,
)
FACTORIES = {
    "objective": parts.FreeBits,
    "likelihood": parts.LaplaceLikelihood,
    "prior": parts.WidePrior,
}


@pytest.fixture(scope="module")
def wine():
    return load_wine().data


@pytest.fixture(scope="module")
def model(wine):
    return AutoencoderTransformer(3, random_state=0, **FACTORIES).fit(wine)


# The parts of the examples


@pytest.mark.slow
def test_laplace_density(wine, model):
    likelihood = model.fitted_.likelihood
    mean = model.inverse_transform(model.transform(wine))
    scaling = model.fitted_.scaling
    x, parameter = (torch.from_numpy(scaling.standardise(rows)) for rows in (wine, mean))
    entries = likelihood.entry_log_prob(x, parameter).detach().numpy()
    width = model.fitted_.learned["width_"]
    assert_allclose(entries, stats.laplace.logpdf(wine, mean, width), rtol=1e-3, atol=1e-3)
    # The closing step is the maximum-likelihood estimate, but for the noise of codes.
    assert_allclose(width, np.abs(wine - mean).mean(axis=0), rtol=0.35)
    draws = likelihood.sample(parameter[:1].expand(20_000, -1), torch.Generator().manual_seed(0))
    deviations = (draws - parameter[:1]).detach().numpy()
    assert_allclose(
        np.abs(deviations).mean(axis=0), likelihood.log_width.exp().detach().numpy(), rtol=0.05
    )
    assert_allclose(np.median(deviations, axis=0), 0.0, atol=0.05)


def test_wide_prior():
    prior = parts.WidePrior(3)
    rng = np.random.default_rng(0)
    z, mean = rng.normal(size=(2, 5, 3))
    factor = np.tril(rng.normal(size=(5, 3, 3))) + 2.0 * np.eye(3)
    expected = stats.multivariate_normal(np.zeros(3), 9.0 * np.eye(3)).logpdf(z)
    assert_allclose(prior.log_prob(torch.from_numpy(z)), expected)
    ours = MultivariateNormal(torch.from_numpy(mean), scale_tril=torch.from_numpy(factor))
    wide = MultivariateNormal(torch.zeros(3).double(), 9.0 * torch.eye(3).double())
    divergence = prior.gaussian_kl(torch.from_numpy(mean), torch.from_numpy(factor))
    assert_allclose(divergence, kl_divergence(ours, wide))
    assert_allclose(prior.gradient(torch.from_numpy(z)), -z / 9.0)
    assert_allclose(np.std(prior.sample(20_000, np.random.RandomState(0))), 3.0, rtol=0.02)


def test_the_prior_is_used_everywhere(wine, model):
    """Codes, samples, bounds and the report are those of N(0, 9 I)."""
    fitted = model.fitted_
    assert isinstance(fitted.prior, parts.WidePrior)
    codes = model.transform(wine)
    assert codes.std() > 1.5
    draws = fitted.sample(4000, "prior", np.random.RandomState(0))
    expected = fitted.decode(fitted.prior.sample(4000, np.random.RandomState(0)).astype(np.float32))
    assert_array_equal(draws, expected)
    mean, spread = fitted.encode_with_spread(wine)
    divergence = fitted.prior.diagonal_kl(
        *(torch.from_numpy(of) for of in (mean, 2.0 * np.log(spread)))
    )
    elbo = fitted.expected_log_prob(wine) - divergence.numpy()
    assert_allclose(model.elbo(wine), elbo, rtol=1e-4)
    report = quiet_report(model, wine)
    assert_allclose(report.row_kl, divergence.mean(), rtol=1e-4)
    assert_allclose(report.elbo, elbo.mean(), rtol=1e-4)
    assert report.prior == "WidePrior"
    assert "MMD to WidePrior" in repr(report)
    # The bound of the last epoch, in training, with more noise than at the end.
    assert model.history_["elbo"][-1] == pytest.approx(elbo.mean(), abs=3.0)
    # A row's likelihood is above both bounds.
    likelihood = model.log_likelihood(wine, n_draws=200).mean()
    assert likelihood > model.elbo(wine).mean() - 0.05


@pytest.mark.slow
def test_a_picture_does_not_call_another_prior_the_standard_one(wine, model, table, quick):
    pytest.importorskip("matplotlib").use("agg")
    from skhebae.plotting import LatentDisplay

    display = LatentDisplay.from_estimator(model, wine)
    texts = [text.get_text() for text in display.ax_.artists[-1].get_texts()]
    assert "N(0, I), which is not the prior" in texts
    hebae = HEBAETransformer(**quick, whiten=True, linear_path=False).fit(table)
    standard = LatentDisplay.from_estimator(hebae, table)
    assert "prior N(0, I)" in [text.get_text() for text in standard.ax_.artists[-1].get_texts()]


@pytest.mark.slow
def test_free_bits_are_free(wine):
    """Without an allowance it is the VAE, to the last bit."""

    class NoAllowance(parts.FreeBits):
        allowance = 0.0

    params = {"n_components": 3, "max_iter": "auto", "random_state": 0}
    ours = AutoencoderTransformer(**params, objective=NoAllowance).fit(wine)
    vae = VAETransformer(**params).fit(wine)
    assert_array_equal(ours.transform(wine), vae.transform(wine))
    generous = AutoencoderTransformer(**params, objective=parts.FreeBits).fit(wine)
    # Rows need not pay for what they may have for nothing.
    assert quiet_report(generous, wine).row_kl > quiet_report(vae, wine).row_kl


def quiet_report(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        return latent_report(model, X)


# The contract


@pytest.mark.slow
def test_none_is_hebae(table, quick):
    batch = np.arange(len(table)) % 3
    ours = AutoencoderTransformer(**quick).fit(table, batch=batch)
    expected = HEBAETransformer(**quick).fit(table, batch=batch)
    assert_array_equal(ours.transform(table), expected.transform(table))
    assert_array_equal(
        ours.score_samples(table, batch=batch), expected.score_samples(table, batch=batch)
    )


def test_copies_and_files(wine, model, tmp_path):
    codes, scores = model.transform(wine), model.score_samples(wine)
    assert clone(model).get_params() == model.get_params()
    path = tmp_path / "model.skhebae"
    model.save(path)
    loaded = AutoencoderTransformer.load(path, **FACTORIES)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), loaded):
        assert_array_equal(other.transform(wine), codes)
        assert_array_equal(other.score_samples(wine), scores)
        assert_array_equal(other.fitted_.learned["width_"], model.fitted_.learned["width_"])
        assert other.get_params() == model.get_params()
    for name, factory in FACTORIES.items():
        others = {k: v for k, v in FACTORIES.items() if k != name}
        message = rf"fitted with {name}={factory.__qualname__}\. Load it with .*{name}="
        with pytest.raises(ValueError, match=message):
            AutoencoderTransformer.load(path, **others)
    with pytest.raises(TypeError, match="got random_state"):
        AutoencoderTransformer.load(path, **FACTORIES, random_state=1)
    with pytest.raises(ModelFileError, match="holds a AutoencoderTransformer"):
        HEBAETransformer.load(path)


@pytest.mark.slow
def test_superfluous_factories_are_named(table, quick, tmp_path):
    AutoencoderTransformer(**quick).fit(table).save(tmp_path / "model")
    for name, factory in FACTORIES.items():
        with pytest.raises(ValueError, match=rf"{name}=(None|auto)\. Load it with"):
            AutoencoderTransformer.load(tmp_path / "model", **{name: factory})


@pytest.mark.slow
def test_a_likelihood_of_ones_own_in_every_estimator(wine):
    model = VAETransformer(2, likelihood=parts.LaplaceLikelihood, random_state=0).fit(wine)
    assert set(model.fitted_.learned) == {"width_"}
    assert not hasattr(model, "noise_variance_")
    with pytest.raises(AttributeError, match="noise_variance_ does not exist with likelihood"):
        _ = model.noise_variance_


class Anchored(parts.LaplaceLikelihood):
    """A family with a loss of its own, which counts no code variance."""

    def extra_loss(self):
        return 1e4 * (self.log_width + 0.5).square().sum()

    def finish(self, evidence):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer])  # row weights 0 and 1
def test_an_extra_loss_is_added_whatever_the_objective(wine, cls):
    model = cls(2, likelihood=Anchored, random_state=0).fit(wine)
    assert_allclose(model.fitted_.likelihood.log_width.detach(), -0.5, atol=0.02)


class CountingObjective(VAEObjective):
    """An objective with a state: its weight grows with the minibatches that it has seen."""

    def __init__(self):
        super().__init__(1.0)
        self.n_minibatches = 0

    def __call__(self, model, minibatch):
        self.n_minibatches += 1
        return super().__call__(model, minibatch)


class Cached(parts.LaplaceLikelihood):
    """A family that makes one likelihood for all models."""

    made = None

    @classmethod
    def from_scaling(cls, scaling):
        if cls.made is None:
            cls.made = super().from_scaling(scaling)
        return cls.made


SAME_OBJECTIVE, SAME_PRIOR = CountingObjective(), parts.WidePrior(2)


def the_same_objective():
    return SAME_OBJECTIVE


def the_same_prior(n_components):
    return SAME_PRIOR


@pytest.mark.slow
def test_models_share_no_part_that_a_factory_returned_twice(wine, monkeypatch):
    params = {
        "objective": the_same_objective,
        "likelihood": Cached,
        "prior": the_same_prior,
        "max_iter": "auto",
        "random_state": 0,
    }
    one, other = (AutoencoderTransformer(2, **params).fit(rows) for rows in (wine, wine[:90]))
    assert SAME_OBJECTIVE.n_minibatches == 0
    assert one.fitted_.objective.n_minibatches > 0
    for name in ("objective", "likelihood", "prior"):
        assert getattr(one.fitted_, name) is not getattr(other.fitted_, name)
    scores, width = one.score_samples(wine), one.fitted_.learned["width_"]
    other.partial_fit(wine[:50])
    monkeypatch.setattr(SAME_PRIOR, "deviation", 100.0)
    with torch.no_grad():
        Cached.made.log_width.fill_(5.0)
    assert_array_equal(one.score_samples(wine), scores)
    assert_array_equal(one.fitted_.likelihood.learned(one.fitted_.scaling)["width_"], width)


def not_an_objective():
    return 3


def not_a_prior(n_components):
    return n_components


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"objective": not_an_objective}, TypeError, "returned int. It must return a skhebae.obj"),
        ({"prior": not_a_prior}, TypeError, "returned int. It must return a skhebae.prior.Prior"),
        ({"objective": HEBAEObjective()}, TypeError, "Pass the class, or a function"),
        ({"prior": parts.WidePrior(3)}, TypeError, "is a prior, but every fit makes a new one"),
        (
            {"likelihood": parts.LaplaceLikelihood(torch.zeros(12), torch.ones(12))},
            TypeError,
            "the class, not an instance",
        ),
        ({"objective": HEBAEObjective, "prior": parts.WidePrior}, TypeError, "cannot regularise"),
        ({"objective": WAEObjective, "prior": parts.WidePrior}, TypeError, "cannot regularise"),
        ({"prior": parts.WidePrior}, TypeError, "HEBAEObjective cannot regularise.*WidePrior"),
        ({"likelihood": "laplace"}, ValueError, "'likelihood' parameter"),
        ({"likelihood": int}, TypeError, "must be one of .* or a subclass"),
    ],
)
def test_bad_parts(table, quick, params, error, message):
    model = AutoencoderTransformer(**quick, **params)
    with pytest.raises(error, match=message):
        model.fit(table)
    assert not hasattr(model, "fitted_")


def test_a_fit_does_not_continue_with_another_prior(wine):
    params = {"n_components": 2, "objective": VAEObjective, "random_state": 0}
    model = AutoencoderTransformer(**params).partial_fit(wine)
    with pytest.raises(ValueError, match=r"prior is WidePrior, but the fitted networks.*None"):
        model.set_params(prior=parts.WidePrior).partial_fit(wine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("params", [{}, FACTORIES], ids=["default", "own parts"])
def test_scikit_learns_checks(params):
    estimator = AutoencoderTransformer(2, max_iter=2, random_state=0, **params)
    for checked, check in estimator_checks_generator(estimator):
        # See tests/test_sklearn_contract.py.
        if "sample_weight_equivalence" not in check.func.__name__:
            check(checked)


def test_missing_values_need_a_scaling_that_marks_them():
    class Unmarked(FeatureScaling):
        may_miss = False

    with pytest.raises(TypeError, match=r"Unmarked\.may_miss is False"):

        class Careless(parts.LaplaceLikelihood):
            accepts_missing = True
            scaling_class = Unmarked


# Subclasses as scikit-learn's users write them


class Shifted(HEBAETransformer):
    """An estimator that does more in `fit` and in `transform`."""

    def __init__(self, n_components=3, *, shift=1.0, max_iter=2, random_state=0):
        super().__init__(n_components, max_iter=max_iter, random_state=random_state)
        self.shift = shift

    def fit(self, X, y=None, **options):
        super().fit(X, y, **options)
        self.width_ = float(np.ptp(X))
        return self

    def transform(self, X, **options):
        return super().transform(X, **options) + self.shift


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_subclasses_keep_what_they_add(table, tmp_path):
    model = Shifted()
    codes = model.fit_transform(table)
    assert_array_equal(codes, model.transform(table))
    plain = HEBAETransformer(3, max_iter=2, random_state=0).fit(table)
    assert_allclose(codes, plain.transform(table) + 1.0)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.width_ == model.width_
        assert_array_equal(other.transform(table), codes)
    # Its parameters are part of a fit, too.
    path = tmp_path / "fit"
    Shifted().fit(table, checkpoint=path)
    with pytest.raises(ValueError, match="which differs in shift"):
        Shifted(shift=2.0).fit(table, checkpoint=path)


def with_width(allowance):
    return parts.FreeBits()


def test_partial_factories_are_told_apart(wine, tmp_path):
    params = {"n_components": 2, "max_iter": "auto", "random_state": 0}
    path = tmp_path / "fit"
    first, second = (partial(with_width, allowance=value) for value in (1.0, 2.0))
    AutoencoderTransformer(**params, objective=first).fit(wine, checkpoint=path)
    with pytest.raises(ValueError, match=r"differs in objective .*allowance=2\.0"):
        AutoencoderTransformer(**params, objective=second).fit(wine, checkpoint=path)


@pytest.mark.slow
def test_files_hold_what_was_fitted_whatever_the_parameters_say_now(table, quick, tmp_path):
    model = VAETransformer(**quick).fit(table)
    codes = model.transform(table)
    model.set_params(likelihood=parts.LaplaceLikelihood, encoder=with_width)
    model.save(tmp_path / "model")
    assert_array_equal(VAETransformer.load(tmp_path / "model").transform(table), codes)
    model.set_params(likelihood="bernoulli", encoder=None).save(tmp_path / "model")
    loaded = VAETransformer.load(tmp_path / "model")
    assert_array_equal(loaded.transform(table), codes)
    assert loaded.likelihood == "bernoulli"


def test_average_of_no_batches_is_an_error(table, quick):
    model = VAETransformer(**quick).fit(table)
    with pytest.raises(ValueError, match="fitted without batch="):
        model.inverse_transform(model.transform(table[:2]), batch="average")


def test_tags_of_an_unknown_likelihood():
    assert not VAETransformer(likelihood="unknown").__sklearn_tags__().input_tags.positive_only


# Rows with masks and weights


def test_weights_are_those_of_means():
    values, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 3.0])
    minibatch = Minibatch(torch.zeros(3, 2), weight=weight)
    assert float(minibatch.mean(values)) == pytest.approx(13.0 / 4.0)
    repeated = Minibatch(torch.zeros(4, 2))
    assert float(repeated.mean(torch.tensor([1.0, 4.0, 4.0, 4.0]))) == pytest.approx(13.0 / 4.0)


def test_padding_and_selecting_follow_all_fields():
    rows = Minibatch(
        torch.ones(3, 2),
        batch=torch.tensor([0, 1, 2]),
        log_size=torch.zeros(3),
        mask=torch.ones(3, 2, dtype=torch.bool),
        weight=torch.ones(3),
    )
    padded = rows.padded(5)
    assert {len(tensor) for tensor in padded.row_tensors().values()} == {5}
    assert padded.batch.tolist() == [0, 1, 2, 0, 0]
    assert not padded.mask[3:].any()
    assert rows.padded(3) is rows
    few = rows.map_rows(lambda tensor: tensor[:1])
    assert len(few) == 1
    assert set(few.row_tensors()) == {"x", "batch", "log_size", "mask", "weight"}
