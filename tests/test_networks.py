from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skhebae.data import FeatureScaling, Table
from skhebae.fitted.build import Architecture, build_model
from skhebae.networks import ACTIVATIONS, Encoder, mlp


def encoder(hidden=(7, 5), n_scales=3, seed=0, initial_scale=-2.0):
    return Encoder(
        6,
        3,
        hidden,
        "relu",
        n_scales=n_scales,
        initial_scale=initial_scale,
        generator=torch.Generator().manual_seed(seed),
    )


def inputs(n_rows=9, n_features=6):
    return torch.randn((n_rows, n_features), generator=torch.Generator().manual_seed(1))


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def layer_shapes(module):
    return [
        tuple(p.shape)
        for p in module.modules()
        for p in [getattr(p, "weight", None)]
        if p is not None
    ]


@pytest.mark.parametrize(
    "build",
    [
        lambda g: mlp((4, 6, 2), "relu", g),
        lambda g: Encoder(4, 2, (6,), "relu", n_scales=2, initial_scale=0.0, generator=g),
    ],
    ids=["mlp", "Encoder"],
)
def test_construction_uses_its_generator_and_nothing_else(build):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = weights(build(torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert torch.equal(weights(build(torch.Generator().manual_seed(0))), first)
    assert not torch.equal(weights(build(torch.Generator().manual_seed(1))), first)


def test_mlp_is_the_composition_of_its_layers():
    network = mlp((3, 5, 4, 2), "tanh", torch.Generator().manual_seed(0))
    x = inputs(n_features=3)
    first, second, last = (module for module in network if isinstance(module, nn.Linear))
    with torch.no_grad():
        hidden = torch.tanh(x @ first.weight.T + first.bias)
        hidden = torch.tanh(hidden @ second.weight.T + second.bias)
        assert_allclose(network(x), hidden @ last.weight.T + last.bias, rtol=1e-5, atol=1e-6)
    assert layer_shapes(network) == [(5, 3), (4, 5), (2, 4)]


def test_mlp_initial_weights_have_the_stated_gain():
    network = mlp((400, 500, 600), "relu", torch.Generator().manual_seed(0))
    first, last = network[0], network[2]
    # The relative standard error of a standard deviation is 1 / sqrt(2 n).
    for layer, deviation in ((first, (2.0 / 400) ** 0.5), (last, (1.0 / 500) ** 0.5)):
        tolerance = 4.0 / (2.0 * layer.weight.numel()) ** 0.5
        assert_allclose(float(layer.weight.detach().std()), deviation, rtol=tolerance)
        assert not layer.bias.any()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_stands_between_linear_layers_only(activation):
    network = mlp((2, 3, 1), activation, torch.Generator().manual_seed(0))
    first, between, last = network
    assert isinstance(first, nn.Linear)
    assert type(between) is type(ACTIVATIONS[activation]())
    assert isinstance(last, nn.Linear)
    assert torch.isfinite(network(inputs(n_features=2))).all()


def test_no_hidden_layer_is_one_linear_map():
    network = encoder(hidden=())
    x, y = inputs(), 3.0 * inputs() + 1.0
    with torch.no_grad():
        heads = [torch.cat(network(rows), dim=1) for rows in (x, y, 0.25 * x + 0.75 * y)]
    assert layer_shapes(network) == [(6, 6)]
    assert_allclose(heads[2], 0.25 * heads[0] + 0.75 * heads[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_scales", [0, 1, 3])
def test_scales_of_every_row_start_alike(n_scales):
    mu, scales = encoder(n_scales=n_scales, initial_scale=-1.5)(inputs())
    assert mu.shape == (9, 3)
    assert torch.equal(scales, torch.full((9, n_scales), -1.5))
    assert float(mu.detach().std(dim=0).min()) > 0.0


def test_scale_head_can_learn():
    network = encoder()
    _, scales = network(inputs())
    scales.square().sum().backward()
    assert network.layers[-1].weight.grad[3:].any()


def test_decoder_mirrors_the_encoder():
    scaling = FeatureScaling.measure(Table(inputs().double().numpy()))
    architecture = Architecture(6, 3, (7, 5), "relu", "gaussian", 3)
    model = build_model(architecture, scaling, torch.Generator().manual_seed(0))
    assert layer_shapes(model.encoder) == [(7, 6), (5, 7), (6, 5)]
    assert layer_shapes(model.decoder) == [(5, 3), (7, 5), (6, 7)]


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_untrained_decoder_predicts_the_feature_means_at_the_origin(likelihood):
    X = np.random.default_rng(0).uniform(0.05, 0.95, (30, 6))
    scaling = FeatureScaling.measure(Table(X))
    architecture = Architecture(6, 3, (7, 5), "relu", likelihood, 3)
    model = build_model(architecture, scaling, torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = model.likelihood.mean(model.decode(torch.zeros(1, 3))).numpy()
    assert_allclose(scaling.restore(mean)[0], X.mean(axis=0), rtol=1e-5)
