from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from torch.distributions import MultivariateNormal, kl_divergence

from skhebae.data import FeatureScaling, Minibatch, Table
from skhebae.divergences import (
    cholesky_factor,
    gaussian_kl_to_standard,
    group_kl_to_standard,
    minibatch_moments,
    multiquadratic_mmd,
    regularised_covariance,
)
from skhebae.finite_sample import expected_prior_kl
from skhebae.fitted.build import Architecture, build_model
from skhebae.likelihoods import GaussianLikelihood
from skhebae.model import Autoencoder
from skhebae.noise import InputNoise
from skhebae.objectives import HEBAEObjective, Terms, VAEObjective, WAEObjective
from skhebae.prior import StandardNormalPrior
from skhebae.training.step import loss_terms

P, D = 5, 3

OBJECTIVES = {
    "hebae": HEBAEObjective(0.7),
    "hebae-diag": HEBAEObjective(0.7, covariance="diag"),
    "hebae-scalar": HEBAEObjective(0.7, posterior_scale="scalar", covariance_prior=4.0),
    "hebae-diag-scalar": HEBAEObjective(0.7, covariance="diag", posterior_scale="scalar"),
    "hebae-row": HEBAEObjective(0.7, row_share=0.3),
    "hebae-row-diag-scalar": HEBAEObjective(
        0.7, covariance="diag", posterior_scale="scalar", row_share=0.3
    ),
    "hebae-elbo": HEBAEObjective(1.0, row_share=1.0),
    "hebae-elbo-diag": HEBAEObjective(1.0, covariance="diag", row_share=1.0),
    "vae": VAEObjective(0.5),
    "wae": WAEObjective(10.0),
}
HEBAE = [name for name in OBJECTIVES if name.startswith("hebae")]


def tiny_model(objective, hidden=(7,)):
    """Autoencoder with random weights everywhere, scale head included."""
    generator = torch.Generator().manual_seed(0)
    X = np.random.default_rng(0).normal(5.0, [0.1, 1.0, 2.0, 10.0, 0.5], (40, P))
    architecture = Architecture(P, D, hidden, "tanh", "gaussian", objective.n_scales(D))
    model = build_model(architecture, FeatureScaling.measure(Table(X)), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.eval()


def rows(n_rows=9, seed=1):
    return torch.randn((n_rows, P), generator=torch.Generator().manual_seed(seed))


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def drawing(x, seed=3):
    """Rows whose noise comes from a generator of this seed."""
    return Minibatch(x, generator=seeded(seed))


def encoded(model, x):
    """Posterior means and scales as float64 arrays."""
    with torch.no_grad():
        return tuple(head.double().numpy() for head in model.encode(Minibatch(x)))


def decoded_codes(model, objective, x, monkeypatch):
    """The codes that the objective sends to the decoder, and its terms."""
    seen = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, *a: seen.append(z) or decode(z, *a))
    with torch.no_grad():
        terms = objective(model, drawing(x))
    (z,) = seen
    return z.double().numpy(), terms


def gaussian_reconstruction(model, x, z):
    """-log p(x | z) of the original rows, by scipy."""
    likelihood = model.likelihood
    with torch.no_grad():
        output = model.decode(torch.from_numpy(z).float())
        scale = likelihood.scale.double()
        deviation = (likelihood.noise_variance().double().sqrt() * scale).numpy()
        difference = ((x.double() - output.double()) * scale).numpy()
    return -stats.norm.logpdf(difference, 0.0, deviation).sum(axis=1)


def shrunk_covariance(mu, nu):
    centred = mu - mu.mean(axis=0)
    return (nu * np.eye(mu.shape[1]) + centred.T @ centred) / (nu + len(mu) - 1)


def of_codes(objective, mu, scales=None):
    """Terms of an encoder that gives these codes and a decoder that returns them."""
    scales = mu.new_zeros(len(mu), objective.n_scales(mu.shape[1])) if scales is None else scales
    model = SimpleNamespace(
        encode=lambda _: (mu, scales),
        log_prob=lambda _, z: -z.sum(dim=1),
        prior=StandardNormalPrior(mu.shape[1]),
    )
    return objective(model, drawing(mu))


@pytest.mark.parametrize("row_share", [0.0, 0.3])
def test_batch_share_mixes_the_divergences_of_all_rows_and_of_batches(row_share):
    codes = torch.randn((40, D), generator=seeded()) + torch.arange(40)[:, None] % 2
    batch = torch.arange(40) % 2
    labels = torch.eye(2)[batch]

    def penalty(batch_share, n_batches=2):
        objective = HEBAEObjective(1.0, row_share=row_share, batch_share=batch_share)
        model = SimpleNamespace(
            encode=lambda _: (codes, codes.new_zeros(codes.shape)),
            log_prob=lambda _, z: -z.sum(dim=1),
            labels=lambda batch: Autoencoder.labels(model, batch),
            n_batches=n_batches,
            prior=StandardNormalPrior(D),
        )
        minibatch = drawing(codes).replace(batch=batch)
        return float(objective(model, minibatch).minibatch_penalty)

    of_all = penalty(0.0)
    of_batches = (1.0 - row_share) * float(group_kl_to_standard(codes.double(), labels.double(), 1))
    assert_allclose(penalty(1.0), of_batches, rtol=1e-6)
    assert_allclose(penalty(0.25), 0.75 * of_all + 0.25 * of_batches, rtol=1e-6)
    # One batch, or none, is all rows.
    assert penalty(1.0, n_batches=1) == penalty(1.0, n_batches=0) == of_all


def deviations(head):
    """The scale head of HEBAE as standard deviations: softplus."""
    return np.logaddexp(0.0, head) * np.ones(D)


def mean_row_divergence(mu, spread, covariance):
    """Mean over rows of KL(N(mu_i, D_i S D_i) || N(0, I)), by torch.distributions."""
    mu, spread, covariance = (torch.from_numpy(a).double() for a in (mu, spread, covariance))
    posterior = MultivariateNormal(mu, spread[:, :, None] * covariance * spread[:, None, :])
    prior = MultivariateNormal(torch.zeros_like(mu[0]), torch.eye(mu.shape[1]).double())
    return kl_divergence(posterior, prior)


@pytest.mark.parametrize("name", HEBAE)
def test_hebae_terms_are_the_equations(name):
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows()
    with torch.no_grad():
        terms = objective(model, drawing(x))
    mu, head = encoded(model, x)
    covariance = shrunk_covariance(mu, objective.covariance_prior)
    mean, (_, log_det) = mu.mean(axis=0), np.linalg.slogdet(covariance)
    penalty = 0.5 * (np.trace(covariance) + mean @ mean - D - log_det)
    share, spread = objective.row_share, deviations(head)
    # One code's bits are 6e-8 of it, its covariance's eigenvalues above 0.1.
    assert_allclose(float(terms.minibatch_penalty), (1.0 - share) * penalty, rtol=1e-5)
    noise_covariance = (
        np.diag(np.diag(covariance)) if objective.covariance == "diag" else covariance
    )
    if share == 0.0:
        assert terms.row_penalty is None
    else:
        expected = share * mean_row_divergence(mu, spread, noise_covariance)
        assert_allclose(terms.row_penalty, expected, rtol=1e-5)
    factor = np.linalg.cholesky(noise_covariance)
    noise = torch.randn((9, D), generator=seeded()).double().numpy()
    z = mu + spread * (noise @ factor.T)
    assert_allclose(terms.reconstruction, gaussian_reconstruction(model, x, z), rtol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("posterior_scale", ["diagonal", "scalar"])
def test_without_a_row_share_the_objective_is_the_published_one(covariance, posterior_scale):
    options = {"covariance": covariance, "posterior_scale": posterior_scale}
    objective = HEBAEObjective(0.7, **options, row_share=0.0)
    model, x = tiny_model(objective), rows()
    with torch.no_grad():
        terms, default = objective(model, drawing(x)), HEBAEObjective(0.7, **options)
        by_default = default(model, drawing(x))
        mu, head = model.encode(Minibatch(x))
        mean, sample = minibatch_moments(mu.double())
        regularised = regularised_covariance(sample, 9, 1.0)
        factor = cholesky_factor(regularised)
        penalty = gaussian_kl_to_standard(mean, factor).float()
        common = factor if covariance == "full" else regularised.diagonal().sqrt().diag()
        noise = torch.randn((9, D), generator=seeded()) @ common.float().T
        z = mu + torch.nn.functional.softplus(head) * noise
        reconstruction = -model.likelihood.log_prob(x, model.decode(z))
    assert torch.equal(terms.penalty(), by_default.penalty())
    assert torch.equal(terms.reconstruction, by_default.reconstruction)
    for actual in (terms, by_default):
        assert actual.row_penalty is None
        # Not to the last bit: `aggregate` sums in another order than torch does.
        assert_allclose(actual.minibatch_penalty, penalty, rtol=1e-6)
        assert_allclose(actual.penalty(), penalty, rtol=1e-6)
        assert_allclose(actual.reconstruction, reconstruction, rtol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("posterior_scale", ["diagonal", "scalar"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_row_share_moves_the_penalty_from_the_aggregate_to_the_rows(
    covariance, posterior_scale, share
):
    options = {"covariance": covariance, "posterior_scale": posterior_scale}
    objective = HEBAEObjective(2.0, **options, row_share=share, covariance_prior=0.5)
    generator = seeded(7)
    mu = 0.5 + torch.randn((20, D), generator=generator)
    scales = torch.randn((20, objective.n_scales(D)), generator=generator)
    terms = of_codes(objective, mu, scales)
    codes = mu.double().numpy()
    regularised, mean = shrunk_covariance(codes, 0.5), codes.mean(axis=0)
    common = np.diag(np.diag(regularised)) if covariance == "diag" else regularised
    zero = torch.zeros(D).double()
    aggregate = MultivariateNormal(torch.from_numpy(mean), torch.from_numpy(regularised))
    aggregate = float(kl_divergence(aggregate, MultivariateNormal(zero, torch.eye(D).double())))
    spread = deviations(scales.double().numpy())
    of_rows = float(mean_row_divergence(codes, spread, common).mean())
    # Whatever the noise, the aggregate's part is that of the full covariance.
    assert_allclose(float(terms.penalty()), (1.0 - share) * aggregate + share * of_rows, rtol=1e-6)
    assert objective.weight == 2.0
    assert objective.row_weight == 2.0 * share
    # Only the aggregate's part is a divergence of moments, which few rows bias.
    expected = (1.0 - share) * expected_prior_kl(20, D, 0.5)
    assert_allclose(objective.prior_penalty(20, D), expected, rtol=1e-12)


def test_at_row_share_1_the_loss_is_the_negative_evidence_lower_bound():
    # -E_q [log p(x, z) - log q(z | x)], by Monte Carlo over many draws of few rows.
    objective, n_draws = HEBAEObjective(1.0, row_share=1.0), 20_000
    model, distinct = tiny_model(objective), rows(4)
    x = distinct.repeat_interleave(n_draws, dim=0)
    with torch.no_grad():
        terms = objective(model, drawing(x))
        loss = terms.reconstruction + terms.row_penalty
        mu, head = model.encode(Minibatch(x))
        common = torch.from_numpy(shrunk_covariance(mu.double().numpy(), 1.0))
        spread = torch.from_numpy(deviations(head.double().numpy()))
        tril = spread[::n_draws, :, None] * torch.linalg.cholesky(common)
        means = mu[::n_draws].double()
        z = MultivariateNormal(means, scale_tril=tril).sample((n_draws,)).transpose(0, 1)
        log_q = MultivariateNormal(means[:, None], scale_tril=tril[:, None]).log_prob(z)
        log_prior = MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double()).log_prob(z)
        log_likelihood = model.likelihood.log_prob(
            x, model.decode(z.reshape(-1, D).float())
        ).reshape(4, n_draws)
        bound = log_likelihood + log_prior - log_q
    assert float(terms.minibatch_penalty) == 0.0
    for i in range(4):
        ours, theirs = loss.reshape(4, n_draws)[i].double(), -bound[i]
        error = float((ours.var() + theirs.var()).sqrt()) / n_draws**0.5
        assert abs(float(ours.mean() - theirs.mean())) < 5.0 * error


@pytest.mark.parametrize("pseudo_rows", [1e-6, 1.0])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize(("n_rows", "d"), [(64, 2), (64, 10), (512, 64), (8, 10)])
def test_penalty_of_single_precision_codes_has_four_digits(n_rows, d, condition, pseudo_rows):
    # A code's last bit is 6e-8 of the widest direction, so at most 6e-5 of the
    # deviation in one that is 1e-3 as wide, and 1 / sqrt(B) of that in its variance.
    # The widest is 1: otherwise the trace would hide what happens to log det.
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    width = np.geomspace(condition**-0.5, 1.0, d)
    codes = rng.standard_normal((n_rows, d)) * width @ axes + rng.standard_normal(d)
    covariance, mean = shrunk_covariance(codes, pseudo_rows), codes.mean(axis=0)
    log_det = np.linalg.slogdet(covariance)[1]
    expected = 0.5 * (np.trace(covariance) + mean @ mean - d - log_det)
    objective = HEBAEObjective(1.0, covariance_prior=pseudo_rows)
    actual = of_codes(objective, torch.from_numpy(codes).float()).penalty()
    assert actual.dtype == torch.float32
    assert_allclose(float(actual), expected, rtol=1e-4)


def test_vae_terms_are_the_equations():
    objective = OBJECTIVES["vae"]
    model, x = tiny_model(objective), rows()
    with torch.no_grad():
        terms = objective(model, drawing(x))
    mu, log_var = encoded(model, x)
    penalty = 0.5 * (mu**2 + np.exp(log_var) - 1.0 - log_var).sum(axis=1)
    assert_allclose(terms.row_penalty, penalty, rtol=1e-5)
    assert terms.minibatch_penalty is None
    z = mu + np.exp(0.5 * log_var) * torch.randn((9, D), generator=seeded()).numpy()
    assert_allclose(terms.reconstruction, gaussian_reconstruction(model, x, z), rtol=1e-4)


def test_wae_terms_are_the_equations():
    objective = OBJECTIVES["wae"]
    model, x = tiny_model(objective), rows()
    with torch.no_grad():
        terms = objective(model, drawing(x))
    mu, scales = encoded(model, x)
    assert scales.shape == (9, 0)
    draws = torch.randn((9, D), generator=seeded()).double()
    expected = multiquadratic_mmd(torch.from_numpy(mu), draws)
    assert_allclose(float(terms.minibatch_penalty), float(expected), rtol=1e-4, atol=1e-5)
    assert terms.row_penalty is None
    assert_allclose(terms.reconstruction, gaussian_reconstruction(model, x, mu), rtol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_standard_bound_is_that_of_the_stated_posterior(name):
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows()
    terms = objective(model, drawing(x))
    if name == "wae":
        assert float(terms.elbo()) == -np.inf
        return
    mu, scales = model.encode(Minibatch(x))
    _, sample_covariance = minibatch_moments(mu.double())
    noise = objective.noise_covariance(sample_covariance, len(x))
    spread = objective.spread(scales, D).double()
    covariance = spread[:, :, None] * noise * spread[:, None, :]
    prior = MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double())
    divergence = kl_divergence(MultivariateNormal(mu.double(), covariance), prior).mean()
    expected = -(terms.reconstruction.mean() + divergence)
    assert_allclose(float(terms.elbo()), float(expected.detach()), rtol=1e-5)
    assert not terms.elbo().requires_grad


def test_weights_are_the_parameters():
    weights = [objective.weight for objective in OBJECTIVES.values()]
    assert weights == [0.7] * 6 + [1.0, 1.0, 0.5, 10.0]
    # What rewards posterior noise: the part of the loss on each row's divergence.
    row_weights = [objective.row_weight for objective in OBJECTIVES.values()]
    assert row_weights == [0.0] * 4 + [0.7 * 0.3] * 2 + [1.0, 1.0, 0.5, 0.0]


def test_terms_add_the_mean_over_rows_to_the_minibatch_part():
    reconstruction, row_penalty = torch.ones(2), torch.tensor([1.0, 4.0])
    assert float(Terms(reconstruction).penalty()) == 0.0
    assert float(Terms(reconstruction, row_penalty=row_penalty).penalty()) == 2.5
    assert float(Terms(reconstruction, row_penalty, torch.tensor(0.25)).penalty()) == 2.75


@pytest.mark.parametrize("name", OBJECTIVES)
def test_codes_have_the_stated_posterior(name, monkeypatch):
    # One large minibatch of few distinct rows: many draws of each posterior.
    objective, n_draws = OBJECTIVES[name], 50 if name == "wae" else 20_000
    model, distinct = tiny_model(objective), rows(4)
    x = distinct.repeat_interleave(n_draws, dim=0)
    z, _ = decoded_codes(model, objective, x, monkeypatch)
    mu, _ = encoded(model, x)
    with torch.no_grad():
        spread = objective.spread(model.encode(Minibatch(distinct))[1], D).double().numpy()
        sample_covariance = torch.from_numpy(np.cov(mu, rowvar=False))
        common = objective.noise_covariance(sample_covariance, len(x)).numpy()
    if name == "wae":
        assert_allclose(z, mu, atol=1e-6)
    for i in range(4):
        noise = (z - mu)[i * n_draws : (i + 1) * n_draws]
        expected = np.diag(spread[i]) @ common @ np.diag(spread[i])
        variance = np.diag(expected)
        # Five standard errors of a mean and of a covariance of Gaussians.
        error = np.sqrt((np.outer(variance, variance) + expected**2) / n_draws)
        assert (np.abs(np.cov(noise, rowvar=False) - expected) <= 5.0 * error + 1e-12).all()
        assert (np.abs(noise.mean(axis=0)) <= 5.0 * np.sqrt(variance / n_draws) + 1e-6).all()


@pytest.mark.parametrize("name", HEBAE)
def test_hebae_posterior_covariance_is_the_docstrings(name):
    objective = OBJECTIVES[name]
    codes = np.random.default_rng(0).standard_normal((11, D)) @ [[1, 2, 0], [0, 1, 1], [0, 0, 3]]
    sample = torch.from_numpy(np.cov(codes, rowvar=False))
    expected = shrunk_covariance(codes, objective.covariance_prior)
    if objective.covariance == "diag":
        expected = np.diag(np.diag(expected))
    assert_allclose(objective.noise_covariance(sample, 11), expected, rtol=1e-10)
    scales = torch.randn((4, objective.n_scales(D)), generator=seeded())
    assert_allclose(objective.spread(scales, D), deviations(scales.numpy()), rtol=1e-6)


def test_vae_and_wae_posterior_covariances_are_the_docstrings():
    sample = torch.from_numpy(np.cov(rows().double().numpy()[:, :D], rowvar=False))
    log_var = torch.randn((4, D), generator=seeded())
    vae, wae = OBJECTIVES["vae"], OBJECTIVES["wae"]
    assert_allclose(vae.spread(log_var, D), np.exp(log_var.numpy() / 2.0), rtol=1e-6)
    assert torch.equal(vae.noise_covariance(sample, 9), torch.eye(D, dtype=torch.float64))
    assert torch.equal(wae.spread(torch.empty(4, 0), D), torch.zeros(4, D))
    assert torch.equal(wae.noise_covariance(sample, 9), torch.eye(D, dtype=torch.float64))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("posterior_scale", ["diagonal", "scalar"])
def test_diag_is_full_where_the_covariance_is_diagonal(posterior_scale, share):
    options = {"posterior_scale": posterior_scale, "row_share": share}
    full = HEBAEObjective(1.0, **options)
    diagonal = HEBAEObjective(1.0, covariance="diag", **options)
    model = tiny_model(full, hidden=())
    with torch.no_grad():
        # Codes are the first three columns of the rows.
        model.encoder.layers[0].weight[:D] = torch.eye(D, P)
        model.encoder.layers[0].bias[:D] = 0.0
    x = torch.zeros(6, P)
    x[:3, :D], x[3:, :D] = (
        torch.diag(torch.tensor([1.0, 2.0, 4.0])),
        -torch.diag(torch.tensor([1.0, 2.0, 4.0])),
    )
    with torch.no_grad():
        a, b = full(model, drawing(x)), diagonal(model, drawing(x))
    assert_allclose(a.reconstruction, b.reconstruction, rtol=1e-6)
    assert torch.equal(a.minibatch_penalty, b.minibatch_penalty)
    assert_allclose(a.penalty(), b.penalty(), rtol=1e-6)
    with torch.no_grad():
        x[0, 1] = 3.0  # and not where it is not
        a, b = full(model, drawing(x)), diagonal(model, drawing(x))
    assert not np.allclose(a.reconstruction, b.reconstruction, rtol=1e-3)
    assert torch.equal(a.minibatch_penalty, b.minibatch_penalty)
    assert np.isclose(float(a.penalty()), float(b.penalty()), rtol=1e-3) == (share == 0.0)


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_of_the_loss_by_finite_differences(name):
    # It fails if m, S or its factor L is detached from the codes.
    objective = OBJECTIVES[name]
    weight, x = torch.randn((D, P), generator=seeded(4)), rows()
    likelihood = GaussianLikelihood(torch.zeros(P), torch.ones(P), torch.ones(P))

    def loss(mu, scales):
        model = SimpleNamespace(
            encode=lambda _: (mu, scales),
            log_prob=lambda minibatch, z: likelihood.log_prob(minibatch.x, torch.tanh(z @ weight)),
            prior=StandardNormalPrior(D),
        )
        terms = objective(model, drawing(x))
        return terms.reconstruction.mean() + objective.weight * terms.penalty()

    mu = torch.randn((9, D), generator=seeded(5), requires_grad=True)
    scales = torch.randn((9, objective.n_scales(D)), generator=seeded(6), requires_grad=True)
    inputs = (mu,) if name == "wae" else (mu, scales)
    assert torch.autograd.gradcheck(
        lambda mu, scales=scales: loss(mu, scales), inputs, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_both_terms_reach_the_weights_of_the_encoder(name):
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows()
    first = model.encoder.layers[0].weight
    terms = objective(model, drawing(x))
    (of_penalty,) = torch.autograd.grad(terms.penalty(), first, retain_graph=True)
    (of_reconstruction,) = torch.autograd.grad(terms.reconstruction.mean(), first)
    assert of_penalty.any()
    assert of_reconstruction.any()


@pytest.mark.parametrize("name", HEBAE)
def test_noise_of_one_code_moves_the_others_through_the_covariance(name):
    # With a constant decoder input mean, only L links the rows of a minibatch.
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows().requires_grad_()
    terms = objective(model, drawing(x))
    (gradient,) = torch.autograd.grad(terms.reconstruction[0], x)
    assert gradient[1:].abs().max() > 0.0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_all_randomness_from_their_generator(name):
    objective = OBJECTIVES[name]
    model, x, state = tiny_model(objective), rows(), torch.get_rng_state()
    with torch.no_grad():
        first, again = objective(model, drawing(x)), objective(model, drawing(x))
        other = objective(model, drawing(x, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert float(first.penalty()) == float(again.penalty())
    drawn = [terms.penalty() if name == "wae" else terms.reconstruction for terms in (first, other)]
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("name", HEBAE)
def test_hebae_is_finite_for_one_row_and_for_fewer_rows_than_components(name):
    objective = OBJECTIVES[name]
    model = tiny_model(objective)
    for n_rows in (1, 2, D):
        terms = objective(model, drawing(rows(n_rows)))
        (terms.reconstruction.mean() + terms.penalty()).backward()
        assert torch.isfinite(terms.reconstruction).all()
        assert torch.isfinite(terms.penalty())
    assert all(torch.isfinite(p.grad).all() for p in model.encoder.parameters())


def test_hebae_penalty_of_one_row_is_half_the_squared_mean():
    objective = OBJECTIVES["hebae"]
    model, x = tiny_model(objective), rows(1)
    with torch.no_grad():
        penalty = float(objective(model, drawing(x)).penalty())
    assert_allclose(penalty, 0.5 * np.sum(encoded(model, x)[0] ** 2), rtol=1e-6)


def test_gradient_of_the_penalty_has_the_part_of_m_and_the_part_of_s():
    # Codes of mean 0 have no gradient through m; of equal rows, none through S.
    objective = OBJECTIVES["hebae"]
    x = torch.randn((8, D), generator=seeded())
    spread_out = (2.0 * (x - x.mean(dim=0))).requires_grad_()
    of_codes(objective, spread_out).penalty().backward()
    codes = spread_out.detach().double().numpy()
    inverse = np.linalg.inv(shrunk_covariance(codes, 1.0))
    expected = codes @ (np.eye(D) - inverse) / 8
    assert np.abs(expected).max() > 0.01
    assert_allclose(spread_out.grad, expected, atol=1e-6)
    shifted = torch.tensor([[1.0, -2.0, 3.0]]).repeat(8, 1).requires_grad_()
    of_codes(objective, shifted).penalty().backward()
    assert_allclose(shifted.grad, shifted.detach() / 8, rtol=1e-6)


def test_penalty_is_finite_for_collinear_codes_a_million_wide():
    # At condition 1e17 even float64 cannot tell S from a singular matrix.
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(1e6 * np.outer(rng.standard_normal(512), rng.standard_normal(64)))
    for share in (0.0, 0.5, 1.0):
        mu = codes.float().requires_grad_()
        penalty = of_codes(HEBAEObjective(1.0, row_share=share), mu).penalty()
        penalty.backward()
        assert torch.isfinite(penalty)
        assert torch.isfinite(mu.grad).all()


def test_row_divergence_is_finite_where_the_scale_underflows():
    # A linear encoder's head for a row far out.
    objective = HEBAEObjective(1.0, row_share=0.5)
    scales = torch.tensor([[-500.0], [0.0], [500.0]]).expand(3, D).clone().requires_grad_()
    terms = of_codes(objective, torch.randn((3, D), generator=seeded()), scales)
    terms.penalty().backward()
    assert torch.isfinite(terms.row_penalty).all()
    assert torch.isfinite(scales.grad).all()


def test_input_noise_has_the_stated_deviation(monkeypatch):
    model = tiny_model(OBJECTIVES["vae"])
    monkeypatch.setattr(model.encoder, "forward", lambda x: (x, x))
    x = torch.zeros(4000, P)
    generator = seeded()
    state = generator.get_state()
    assert torch.equal(model.encode(Minibatch(x, generator=generator))[0], x)
    assert torch.equal(generator.get_state(), state)
    noise = InputNoise(0.3, generator)
    noisy = model.encode(Minibatch(x + 2.0, input_noise=noise))[0] - 2.0
    assert abs(float(noisy.mean())) < 4.0 * 0.3 / x.numel() ** 0.5
    assert_allclose(float(noisy.var()), 0.09, rtol=4.0 * (2.0 / x.numel()) ** 0.5)
    assert not x.any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_input_noise_is_for_the_encoder_alone(name, monkeypatch):
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows()
    encoder_input, likelihood_input = [], []
    encoder, log_prob = model.encoder.forward, model.likelihood.log_prob
    monkeypatch.setattr(model.encoder, "forward", lambda x: encoder_input.append(x) or encoder(x))
    monkeypatch.setattr(
        model.likelihood, "log_prob", lambda x, *a: likelihood_input.append(x) or log_prob(x, *a)
    )
    with torch.no_grad():
        minibatch = drawing(x)
        noise = InputNoise(0.5, minibatch.generator)
        objective(model, minibatch.replace(input_noise=noise))
        objective(model, drawing(x))
    expected = x + 0.5 * torch.randn(x.shape, generator=seeded())
    assert_allclose(encoder_input[0], expected, rtol=1e-6)
    assert torch.equal(encoder_input[1], x)
    assert len(likelihood_input) == 2
    assert all(torch.equal(clean, x) for clean in likelihood_input)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_lower_precision_is_for_the_networks_in_training_alone(name):
    objective = OBJECTIVES[name]
    model, x = tiny_model(objective), rows()
    with torch.no_grad():
        exact = model.encode(Minibatch(x)), model.decode(rows()[:, :D])
        model.training_dtype = torch.bfloat16
        evaluated = model.encode(Minibatch(x)), model.decode(rows()[:, :D])
        model.train()
        trained = model.encode(Minibatch(x)), model.decode(rows()[:, :D])
        terms = objective(model, drawing(x))
    for (mu, scales), output in (exact, evaluated, trained):
        assert {mu.dtype, scales.dtype, output.dtype} == {torch.float32}
    assert torch.equal(exact[0][0], evaluated[0][0])
    assert torch.equal(exact[0][1], evaluated[0][1])
    assert torch.equal(exact[1], evaluated[1])
    # bfloat16 has 8 significant bits: different, but not by much.
    for a, b in ((exact[0][0], trained[0][0]), (exact[1], trained[1])):
        assert not torch.equal(a, b)
        assert_allclose(a, b, atol=0.05)
    assert {terms.reconstruction.dtype, terms.penalty().dtype} == {torch.float32}


@pytest.mark.parametrize("sizes", [(128,), (64, 64), (100, 20, 8), (32,) * 4])
def test_penalty_of_prior_codes_is_reported_as_0_whatever_the_batches(sizes):
    """Before, 1.62 for batches whose codes are draws from N(0, I)."""
    objective = HEBAEObjective(batch_share=1.0)
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    penalties = []
    for seed in range(200):
        codes = torch.randn((len(batch), 4), generator=torch.Generator().manual_seed(seed))
        model = SimpleNamespace(
            encode=lambda _, codes=codes: (codes, codes.new_zeros(codes.shape)),
            log_prob=lambda _, z: -z.sum(dim=1),
            n_batches=len(sizes),
            n_components=4,
            prior=StandardNormalPrior(4),
        )
        run = SimpleNamespace(objective=objective, model=model, epoch=torch.zeros(()))
        terms = loss_terms(run, drawing(codes).replace(batch=batch))
        assert all(term.dtype == torch.float32 for term in terms)
        penalties.append(float(terms.penalty))
    assert abs(np.mean(penalties)) < 4.0 * np.std(penalties) / 200**0.5 + 0.01
