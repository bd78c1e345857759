"""Networks and learning rates of the user."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from torch import nn

from skhebae import HEBAETransformer
from skhebae.exceptions import ModelFileError, NonFiniteLossError
from skhebae.networks import CustomEncoder, global_random_state
from skhebae.training import Schedule

# A few epochs are all that these tests need.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def conv_encoder(shape, n_outputs, width=4, dropout=0.1):
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(width * shape[1] * shape[2] // 4, n_outputs),
    )


def conv_decoder(n_components, shape, width=4):
    inner = (width, shape[1] // 2, shape[2] // 2)
    return nn.Sequential(
        nn.Linear(n_components, int(np.prod(inner))),
        nn.ReLU(),
        nn.Unflatten(1, inner),
        nn.ConvTranspose2d(width, shape[0], 4, stride=2, padding=1),
    )


def linear_encoder(shape, n_outputs):
    return nn.Linear(*shape, n_outputs)


def linear_decoder(n_components, shape):
    return nn.Linear(n_components, *shape)


def halving(epoch):
    return 0.5**epoch


CONV = {
    "encoder": conv_encoder,
    "decoder": conv_decoder,
    "image_shape": (1, 8, 8),
    "max_iter": 3,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def images(digits):
    return digits[0][:300]


@pytest.mark.slow
def test_convolutions_learn_images(digits):
    train, test, _, _ = digits
    model = HEBAETransformer(
        10,
        encoder=partial(conv_encoder, width=16, dropout=0.0),
        decoder=partial(conv_decoder, width=16),
        image_shape=(1, 8, 8),
        random_state=0,
    ).fit(train)
    error = np.square(model.inverse_transform(model.transform(test)) - test).mean()
    pca = PCA(10).fit(train)
    assert error < 0.9 * np.square(pca.inverse_transform(pca.transform(test)) - test).mean()


def test_contract_with_factories(cls, images):
    """Same seed, same bits; copies and files agree; a row alone is a row among others."""
    before = torch.get_rng_state()
    model = cls(3, **CONV).fit(images)
    assert torch.equal(torch.get_rng_state(), before)
    codes = model.transform(images)
    again = clone(model).fit(images)
    np.testing.assert_array_equal(again.transform(images), codes)
    np.testing.assert_array_equal(model.transform(images[7:8]), codes[7:8])
    rows = model.inverse_transform(codes)
    assert rows.shape == images.shape
    np.testing.assert_array_equal(rows[7:8], model.inverse_transform(codes[7:8]))
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.transform(images), codes)
        np.testing.assert_array_equal(twin.score_samples(images), model.score_samples(images))
        twin.partial_fit(images)
    # BatchNorm's running moments are those of training, not of the rows at hand.
    np.testing.assert_array_equal(model.transform(images), codes)
    assert np.isfinite(model.log_likelihood(images[:5], n_draws=8)).all()


def test_other_seed_other_networks(images):
    one, other = (HEBAETransformer(3, **{**CONV, "random_state": s}).fit(images) for s in (0, 1))
    assert not np.array_equal(one.transform(images), other.transform(images))


def test_files_name_the_factories_and_do_not_hold_them(cls, images, tmp_path):
    model = cls(3, **CONV, learning_rate=halving).fit(images)
    path = tmp_path / "model.skhebae"
    model.save(path)
    loaded = cls.load(path, encoder=conv_encoder, decoder=conv_decoder)
    np.testing.assert_array_equal(loaded.transform(images), model.transform(images))
    assert loaded.get_params() == {**model.get_params(), "learning_rate": "linear"}
    with pytest.raises(ValueError, match=r"fitted with encoder=conv_encoder. Load it with"):
        cls.load(path)
    with pytest.raises(ValueError, match="fitted with decoder=conv_decoder"):
        cls.load(path, encoder=conv_encoder)
    # Of another width than the one it was saved with: not what the weights are for.
    with pytest.raises(ModelFileError, match="that this skhebae knows"):
        cls.load(path, encoder=partial(conv_encoder, width=6), decoder=conv_decoder)
    plain = cls(2, max_iter=2, random_state=0).fit(images)
    plain.save(path)
    with pytest.raises(ValueError, match="fitted with encoder=None"):
        cls.load(path, encoder=conv_encoder)


@pytest.mark.slow
def test_one_factory_alone(cls, table):
    for params in ({"encoder": linear_encoder}, {"decoder": linear_decoder}):
        model = cls(2, random_state=0, max_iter=50, **params).fit(table)
        error = np.square(model.inverse_transform(model.transform(table)) - table).mean()
        assert error < table.var(axis=0).mean()


@pytest.mark.slow
def test_partial_factories_search_in_parallel(images):
    """`clone` copies a partial; processes pickle it, and have another number of threads."""
    model = HEBAETransformer(2, **CONV)
    grid = {"encoder": [partial(conv_encoder, width=2), partial(conv_encoder, width=6)]}
    search = GridSearchCV(model, grid, cv=2).fit(images)
    parallel = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(images)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], parallel.cv_results_["mean_test_score"], rtol=1e-2
    )


def wide_encoder(shape, n_outputs):
    return nn.Linear(*shape, n_outputs + 1)


def failing_encoder(shape, n_outputs):
    return nn.Linear(5, n_outputs)


def array_encoder(shape, n_outputs):
    return np.zeros((4, 4))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"encoder": nn.Linear(12, 4)}, TypeError, "encoder=Linear.* Pass a function that makes"),
        ({"decoder": nn.Linear(2, 12)}, TypeError, "decoder=Linear.* is a module, but every fit"),
        ({"encoder": array_encoder}, TypeError, r"encoder=.*returned ndarray; it must return"),
        ({"encoder": wide_encoder}, ValueError, r"encoder= .* 5 numbers per row, but 4 are needed"),
        ({"encoder": failing_encoder}, ValueError, r"encoder= made a module that fails .*12.* 5"),
        ({"image_shape": (3, 4)}, ValueError, r"image_shape=\(3, 4\) .* neither is given"),
    ],
)
def test_mistakes_are_named(params, error, message, table):
    model = HEBAETransformer(2, **params)
    with pytest.raises(error, match=message):
        model.fit(table)
    assert not hasattr(model, "history_")


def test_changed_factory_does_not_continue(images):
    model = HEBAETransformer(3, **CONV).fit(images)
    model.set_params(encoder=partial(conv_encoder, width=8))
    with pytest.raises(ValueError, match=r"encoder is .*but the fitted networks"):
        model.partial_fit(images)


def test_global_random_state_is_put_back_after_an_error():
    before = torch.get_rng_state()
    drawn = []

    def draw_and_fail():
        with global_random_state(3):
            drawn.append(torch.rand(3))
            raise KeyError

    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)
    with global_random_state(3):
        assert torch.equal(torch.rand(3), drawn[0])


def test_scale_head_starts_at_the_initial_scale():
    module = nn.Linear(6, 4)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    mu, scales = CustomEncoder(module, (6,), 2, -2.0)(torch.ones(3, 6))
    assert torch.equal(mu, torch.zeros(3, 2))
    assert torch.equal(scales, torch.full((3, 2), -2.0))


# Whose weights


class Remembered:
    """A factory that makes its module once, and returns it in every fit."""

    def __init__(self, factory):
        self.factory, self.module = factory, None

    def __call__(self, *arguments):
        if self.module is None:
            self.module = self.factory(*arguments)
        return self.module


def overwrite(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)


def on_a_backbone(shape, n_outputs, backbone):
    return nn.Sequential(backbone, nn.Linear(backbone.out_features, n_outputs))


@pytest.mark.parametrize("shared", ["encoder", "decoder", "both", "backbone"])
def test_two_models_never_share_weights(cls, shared, table, brief):
    """Nor does the user's own module, whatever a factory returns."""
    backbone = nn.Linear(12, 6)
    factories = {
        "encoder": {"encoder": Remembered(linear_encoder)},
        "decoder": {"decoder": Remembered(linear_decoder)},
        "both": {"encoder": Remembered(linear_encoder), "decoder": Remembered(linear_decoder)},
        "backbone": {"encoder": partial(on_a_backbone, backbone=backbone)},
    }[shared]
    model = cls(**brief, **factories).fit(table)
    codes, rows = model.transform(table), model.inverse_transform(model.transform(table))
    other = cls(**brief, **factories).fit(table - 3.0)
    other.partial_fit(table * 2.0)
    for module in (backbone, *(getattr(made, "module", None) for made in factories.values())):
        if module is not None:
            overwrite(module)
    np.testing.assert_array_equal(model.transform(table), codes)
    np.testing.assert_array_equal(model.inverse_transform(codes), rows)


def test_a_fit_leaves_the_users_module_as_it_was(table, brief):
    """Each fit starts from it, and so the same module twice gives the same fit twice."""
    made = Remembered(linear_encoder)
    made((12,), HEBAETransformer(**brief).n_components * 2)
    weight = made.module.weight.detach().clone()
    codes = [HEBAETransformer(**brief, encoder=made).fit_transform(table) for _ in range(2)]
    np.testing.assert_array_equal(*codes)
    assert torch.equal(made.module.weight, weight)
    assert made.module.training


TIED = {}


def first_half(shape, n_outputs):
    TIED["weight"] = nn.Linear(*shape, n_outputs)
    return TIED["weight"]


class Transposed(nn.Module):
    def __init__(self, layer, n_components):
        super().__init__()
        self.layer, self.n_components = layer, n_components

    def forward(self, z):
        return z @ self.layer.weight[: self.n_components]


def second_half(n_components, shape):
    return Transposed(TIED["weight"], n_components)


def test_encoder_and_decoder_of_one_model_may_share_weights(table, brief, tmp_path):
    params = {**brief, "encoder": first_half, "decoder": second_half}
    model = HEBAETransformer(**params).fit(table - table.mean(axis=0))
    overwrite(TIED["weight"])
    model.save(tmp_path / "model")
    copies = [
        model,
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        HEBAETransformer.load(tmp_path / "model", encoder=first_half, decoder=second_half),
    ]
    for each in copies:
        np.testing.assert_array_equal(each.transform(table), model.transform(table))
    for each in copies:
        each.partial_fit(table)
        networks = each.fitted_.model
        assert networks.decoder.module.layer.weight is networks.encoder.module.weight


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def hidden_half(n_components, shape):
    layer = TIED["weight"]
    return Function(lambda z: z @ layer.weight[:n_components])


def test_weights_that_are_not_the_modules_own_are_named(table, brief):
    model = HEBAETransformer(**brief, encoder=first_half, decoder=hidden_half)
    with pytest.raises(ValueError, match=r"decoder= .* parameter of shape \(6, 12\) that is not"):
        model.fit(table)


class Locked(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.lock = threading.Lock()


def locked_encoder(shape, n_outputs):
    return Locked(*shape, n_outputs)


def test_a_module_that_cannot_be_copied_is_named(table):
    with pytest.raises(TypeError, match=r"encoder= made a Locked that copy.deepcopy cannot copy"):
        HEBAETransformer(2, encoder=locked_encoder).fit(table)


def lazy_encoder(shape, n_outputs):
    return nn.LazyLinear(n_outputs)


def double_encoder(shape, n_outputs):
    return linear_encoder(shape, n_outputs).double()


@torch.inference_mode()
def inferring_encoder(shape, n_outputs):
    return linear_encoder(shape, n_outputs)


@pytest.mark.parametrize("encoder", [lazy_encoder, double_encoder, inferring_encoder])
def test_modules_of_any_kind_train_in_float32(encoder, table, brief, tmp_path):
    if encoder is lazy_encoder:
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
    expected = HEBAETransformer(**brief, encoder=linear_encoder).fit(table)
    model = HEBAETransformer(**brief, encoder=encoder).fit(table)
    np.testing.assert_array_equal(model.transform(table), expected.transform(table))
    model.partial_fit(table).save(tmp_path / "model")
    loaded = HEBAETransformer.load(tmp_path / "model", encoder=encoder)
    np.testing.assert_array_equal(loaded.transform(table), model.transform(table))


# Learning rates


def test_rates():
    linear = Schedule(n_epochs=4, batch_size=8, learning_rate=0.8)
    assert [linear.rate(e, 0.5) for e in range(4)] == pytest.approx([0.7, 0.5, 0.3, 0.1])
    constant = Schedule(n_epochs=4, batch_size=8, learning_rate=0.8, decay="constant")
    assert constant.rate(3, 0.9) == 0.8
    custom = Schedule(n_epochs=4, batch_size=8, learning_rate=0.8, decay=halving)
    assert [custom.rate(e, 0.9) for e in range(3)] == pytest.approx([0.8, 0.4, 0.2])


def stopping(epoch):
    return 0.0 if epoch >= 2 else 1.0


def test_a_rate_of_zero_stops_learning(table, quick):
    """And `constant` goes on where `linear` has come to rest."""
    # (How long a trial trains depends on the number of epochs, too.)
    quick = {**quick, "linear_path": False}
    models = [
        HEBAETransformer(**quick, max_iter=n, learning_rate=stopping).fit(table) for n in (2, 5)
    ]
    # Axes follow from the likelihood's last step, which draws noise.
    codes = [model.fitted_.with_encoder_codes().encode(table) for model in models]
    np.testing.assert_array_equal(*codes)
    codes = [
        HEBAETransformer(**quick, max_iter=n, learning_rate="constant").fit_transform(table)
        for n in (2, 5)
    ]
    assert np.abs(codes[0] - codes[1]).max() > 1e-3


def negative(epoch):
    return -1.0


def text(epoch):
    return "fast"


@pytest.mark.parametrize("factor", [negative, text])
def test_bad_factors(factor, table):
    with pytest.raises(
        ValueError, match=r"learning_rate=.* returned .* for epoch 0. It must return"
    ):
        HEBAETransformer(2, learning_rate=factor).fit(table)


def exploding(epoch):
    return 1e30


def test_exploding_rate_keeps_the_earlier_fit(cls, table, brief):
    model = cls(**brief).fit(table)
    codes = model.transform(table)
    model.set_params(learning_rate=exploding)
    with pytest.raises((NonFiniteLossError, ValueError)):
        model.fit(table)
    np.testing.assert_array_equal(model.transform(table), codes)


# The standard bound in the history


def test_history_has_the_standard_bound(table, quick):
    from skhebae import VAETransformer, WAETransformer

    vae = VAETransformer(**quick, max_iter=4).fit(table)
    np.testing.assert_allclose(vae.history_["elbo"], -np.array(vae.history_["loss"]), rtol=1e-5)
    wae = WAETransformer(**quick, max_iter=4).fit(table)
    assert wae.history_["elbo"] == [-np.inf] * 4
    full = HEBAETransformer(**quick, max_iter=4, row_share=1.0).fit(table)
    np.testing.assert_allclose(full.history_["elbo"], -np.array(full.history_["loss"]), rtol=1e-5)
    # Not penalised, the posterior of a row is far from the prior.
    hebae = HEBAETransformer(**quick, max_iter=4).fit(table)
    assert (np.array(hebae.history_["elbo"]) < -np.array(hebae.history_["loss"])).all()
