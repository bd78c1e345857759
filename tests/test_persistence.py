"""Copies and files give the same answers, anywhere."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from safetensors import safe_open
from safetensors.numpy import save, save_file
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_files import KINDS, seal
from torch import nn

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.exceptions import ModelFileError
from skhebae.fitted import model_file


def wide_encoder(shape, n_outputs):
    return nn.Linear(*shape, n_outputs)


def wide_decoder(n_components, shape):
    return nn.Linear(n_components, *shape)


class MaskedEncoder(nn.Module):
    """With a constant that is infinite, as masks of attention are."""

    def __init__(self, shape, n_outputs):
        super().__init__()
        self.layer = nn.Linear(*shape, n_outputs)
        self.register_buffer("mask", torch.full((3,), -torch.inf))

    def forward(self, x):
        return self.layer(x)


masked_encoder = MaskedEncoder


def assert_same(one, other, table):
    np.testing.assert_array_equal(one.transform(table), other.transform(table))
    np.testing.assert_array_equal(one.score_samples(table), other.score_samples(table))
    np.testing.assert_array_equal(one.sample(9, random_state=3), other.sample(9, random_state=3))
    np.testing.assert_array_equal(one.posterior(table)[1], other.posterior(table)[1])
    codes = one.transform(table)
    np.testing.assert_array_equal(one.inverse_transform(codes), other.inverse_transform(codes))
    assert one.get_params() == other.get_params()
    assert str(one.history_) == str(other.history_)  # as text: NaN is not equal to itself
    np.testing.assert_array_equal(one.latent_covariance_, other.latent_covariance_)


def via_joblib(estimator, folder):
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def via_mapped_joblib(estimator, folder):
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


def via_skops(estimator, folder):
    dumped = skops.io.dumps(estimator)
    untrusted = skops.io.get_untrusted_types(data=dumped)
    # Only our own class asks for trust.
    cls = type(estimator)
    assert untrusted == [f"{cls.__module__}.{cls.__name__}"]
    return skops.io.loads(dumped, trusted=untrusted)


def via_save(estimator, folder):
    estimator.save(folder / "model.skhebae")
    return type(estimator).load(folder / "model.skhebae")


ROUTES = {
    "pickle": lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
    "deepcopy": lambda estimator, folder: copy.deepcopy(estimator),
    "joblib": via_joblib,
    "joblib, mapped": via_mapped_joblib,
    "skops": via_skops,
    "save": via_save,
    "save twice": lambda e, folder: via_save(via_save(e, folder), folder),
    "pickle of save": lambda e, folder: pickle.loads(pickle.dumps(via_save(e, folder))),
}


@pytest.mark.parametrize("route", list(ROUTES))
def test_round_trip(fitted, table, tmp_path, route):
    assert_same(fitted, ROUTES[route](fitted, tmp_path), table)


@pytest.fixture(scope="module")
def named():
    """A table with names, and an estimator with other parameters fitted on it."""
    X = pd.DataFrame(np.random.default_rng(0).random((80, 3)), columns=["a", "b", "c"])
    estimator = VAETransformer(
        2,
        likelihood="bernoulli",
        hidden_layer_sizes=[8, 4],
        activation="tanh",
        max_iter=5,
        random_state=0,
    )
    with pytest.warns(ConvergenceWarning):
        return X, estimator.fit(X)


@pytest.mark.parametrize("route", list(ROUTES))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_bernoulli_and_names_round_trip(named, tmp_path, route):
    X, estimator = named
    loaded = ROUTES[route](estimator, tmp_path)
    assert_same(estimator, loaded, X)
    assert list(loaded.feature_names_in_) == ["a", "b", "c"]
    assert loaded.fit(X).n_iter_ == estimator.n_iter_


def test_unfitted_copies(cls, tmp_path):
    estimator = cls(4, random_state=1)
    for other in (
        clone(estimator),
        pickle.loads(pickle.dumps(estimator)),
        copy.deepcopy(estimator),
    ):
        assert other.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        estimator.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_clone_of_a_fitted_one_is_unfitted(fitted, table):
    with pytest.raises(NotFittedError):
        clone(fitted).transform(table)


def test_loaded_models_can_go_on_learning(fitted, table, brief, tmp_path):
    loaded = via_save(fitted, tmp_path)
    loaded.partial_fit(table)
    assert loaded.n_iter_ == fitted.n_iter_ + 1
    loaded.set_params(warm_start=True, max_iter=2).fit(table)
    assert np.isfinite(loaded.score(table))


def test_pipeline_pickles(cls, table, brief):
    pipeline = make_pipeline(StandardScaler(), cls(**brief)).fit(table)
    copied = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(pipeline.transform(table), copied.transform(table))


def test_pickle_holds_no_torch_object(fitted):
    class NoTorch(pickle.Unpickler):
        def find_class(self, module, name):
            assert not module.startswith("torch"), (module, name)
            return super().find_class(module, name)

    NoTorch(io.BytesIO(pickle.dumps(fitted))).load()


def test_file_is_safetensors_and_json_only(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="numpy") as file:
        document = json.loads(file.metadata()["skhebae"])
    assert document["format"] == "skhebae"
    assert document["version"] == 2
    assert document["class"] == type(fitted).__name__
    assert (tmp_path / "model").stat().st_size < 60_000
    assert os.listdir(tmp_path) == ["model"]
    fitted.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_random_state_instance_is_saved_as_none(table, brief, tmp_path):
    estimator = HEBAETransformer(**{**brief, "random_state": np.random.RandomState(0)}).fit(table)
    loaded = via_save(estimator, tmp_path)
    assert loaded.random_state is None
    np.testing.assert_array_equal(loaded.transform(table), estimator.transform(table))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_file(fitted, tmp_path, share):
    path = tmp_path / "model"
    fitted.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match="truncated, damaged, or was not written by save"):
        type(fitted).load(path)


def test_foreign_files(cls, tmp_path):
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError, match="No model file"):
        cls.load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelFileError, match="was not written by save"):
        cls.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="not one of skhebae's"):
        cls.load(path)
    save_file({"a": np.zeros(3)}, path, metadata={"skhebae": "{broken"})
    with pytest.raises(ModelFileError):
        cls.load(path)
    save_file({"a": np.zeros(3)}, path, metadata={"skhebae": '{"format": "skhebae"}'})
    with pytest.raises(ModelFileError):
        cls.load(path)


def rewrite(path, change, *, version=2):
    """Change a file in spite of its digest, as if `save` had written it so."""
    with safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()["skhebae"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(document, arrays)
    if version == 1:  # which had no digest
        document.pop("digest")
        document["version"] = 1
        save_file(arrays, path, metadata={"skhebae": json.dumps(document)})
    else:
        path.write_bytes(seal(save(arrays, metadata={"skhebae": json.dumps(document)})))


def fitted_part(change):
    return lambda document, arrays: change(document["fitted"])


def array_of(name, change):
    def changed(document, arrays):
        arrays[f"fitted.{name}"] = change(arrays[f"fitted.{name}"])

    return changed


def with_nan(array):
    array = array.copy()
    array.flat[-1] = np.nan
    return array


def nested(document, arrays):
    """Deeper than any recursion goes, also after it was read."""
    value = []
    for _ in range(600):
        value = [value]
    document["class"] = value


DAMAGED = {
    "version a text": lambda document, arrays: document.update(version="2"),
    "version true": lambda document, arrays: document.update(version=True),
    "version 0": lambda document, arrays: document.update(version=0),
    "another format": lambda document, arrays: document.update(format="other"),
    "another format, a number": lambda document, arrays: document.update(format=3),
    "another format, texts": lambda document, arrays: document.update(format={"$strings": ["a"]}),
    "another format, none": lambda document, arrays: document.update(format={"$strings": []}),
    "a class that is none": nested,
    "fitted a number": lambda document, arrays: document.update(fitted=3),
    "params a list": lambda document, arrays: document.update(params=[]),
    "unknown parameter": lambda document, arrays: document["params"].update(unknown=1),
    "parameter out of range": lambda document, arrays: document["params"].update(n_components=0),
    "parameter of another type": lambda document, arrays: document["params"].update(max_iter=[]),
    "a factory that is none": lambda document, arrays: document["params"].update(encoder=["a"]),
    "no weights": fitted_part(lambda fitted: fitted.pop("_weights")),
    "no scaling": fitted_part(lambda fitted: fitted.pop("_scaling")),
    "architecture a list": fitted_part(lambda fitted: fitted.update(_architecture=[])),
    "no features": fitted_part(lambda fitted: fitted["_architecture"].update(n_features=0)),
    "half a feature": fitted_part(lambda fitted: fitted["_architecture"].update(n_features=12.5)),
    "unknown activation": fitted_part(lambda f: f["_architecture"].update(activation="sine")),
    "unhashable activation": fitted_part(lambda f: f["_architecture"].update(activation=[])),
    "unknown likelihood": fitted_part(lambda f: f["_architecture"].update(likelihood="cauchy")),
    "batches without labels": fitted_part(lambda f: f["_architecture"].update(n_batches=2)),
    "labels without batches": fitted_part(lambda f: f.update(batches_={"$strings": ["a"]})),
    "labels in a list": fitted_part(lambda f: f.update(batches_=[])),
    "other networks": fitted_part(
        lambda f: f["_architecture"].update(hidden_layer_sizes={"$tuple": [15]})
    ),
    "an image of another size": fitted_part(
        lambda f: f["_architecture"].update(image_shape={"$tuple": [5, 5]})
    ),
    "a method in place of an attribute": fitted_part(lambda fitted: fitted.update(transform=1)),
    "a parameter among attributes": fitted_part(lambda fitted: fitted.update(n_components=1)),
    "no number of features": fitted_part(lambda fitted: fitted.pop("n_features_in_")),
    "other features": fitted_part(lambda fitted: fitted.update(n_features_in_=11)),
    "names of others": fitted_part(
        lambda fitted: fitted.update(feature_names_in_={"$strings": ["a", "b"]})
    ),
    "names that are none": fitted_part(lambda f: f.update(feature_names_in_={"$strings": [1]})),
    "no loss": fitted_part(lambda fitted: fitted["history_"].pop("loss")),
    "a shorter term": fitted_part(lambda fitted: fitted["history_"]["elbo"].pop()),
    "a loss of texts": fitted_part(lambda fitted: fitted["history_"].update(loss=["a"])),
    "a huge seed": fitted_part(lambda fitted: fitted.update(_seed=10**400)),
    "a negative seed": fitted_part(lambda fitted: fitted.update(_seed=-1)),
    "no rows": fitted_part(lambda fitted: fitted["_moments"].update(n_rows=0)),
    "an array that is not there": lambda document, arrays: arrays.pop("fitted._moments.mean"),
    "an array without a name": fitted_part(lambda f: f.update(latent_mean_={"$array": [1]})),
    "moments NaN": array_of("_moments.mean", with_nan),
    "moments of another shape": array_of("_moments.covariance", lambda array: array[:2]),
    "moments of another dtype": array_of("_moments.spread", lambda a: a.astype(np.float32)),
    "mixture NaN": array_of("_mixture.means", with_nan),
    "mixture of other dimensions": array_of("_mixture.covariances", lambda array: array[..., :2]),
    "mixture of nothing": array_of("_mixture.weights", lambda array: array[:0]),
    "mixture of more than all": array_of("_mixture.weights", lambda array: array + 1.0),
    "noise infinite": array_of("_noise_covariance", lambda array: array / 0.0),
    "noise a number": fitted_part(lambda fitted: fitted.update(_noise_covariance=1.0)),
    "scaling of other features": array_of("_scaling.location", lambda array: array[1:]),
    "scale zero": array_of("_scaling.scale", lambda array: 0.0 * array),
    "variance NaN": array_of("_scaling.variance", with_nan),
    "weights NaN": array_of("_weights.encoder.layers.0.weight", with_nan),
    "weights infinite": array_of("_weights.decoder.layers.2.bias", lambda array: array + np.inf),
    "weights float64": array_of("_weights.decoder.layers.2.bias", lambda a: a.astype(float)),
    "weights of the path": array_of("_weights.decoder.path.weight", lambda array: array[:, :1]),
    "weights turned": array_of("_weights.encoder.layers.0.weight", lambda a: a.T.copy()),
    "weights of a likelihood": array_of("_weights.likelihood.scale", lambda array: array[:2]),
    "weights a text": fitted_part(lambda f: f["_weights"].update({"decoder.layers.2.bias": "x"})),
}


@pytest.fixture(scope="module")
def saved(table, quick, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    HEBAETransformer(**quick).fit(table).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "version"),
    [(n, v) for n in DAMAGED for v in (1, 2) if v == 2 or not n.startswith("version")],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_damaged_documents(saved, tmp_path, name, version):
    path = tmp_path / "model"
    path.write_bytes(saved)
    rewrite(path, DAMAGED[name], version=version)
    with pytest.raises(ModelFileError) as caught:
        HEBAETransformer.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_every_flipped_bit_is_found(fitted, tmp_path):
    path = tmp_path / "model"
    fitted.save(path)
    raw = path.read_bytes()
    for place in range(0, 8 * len(raw), 8 * len(raw) // 400):
        damaged = bytearray(raw)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError):
            type(fitted).load(path)
    path.write_bytes(raw)
    assert type(fitted).load(path).n_iter_ == fitted.n_iter_


def test_without_its_digest_a_file_is_refused(fitted, tmp_path):
    path = tmp_path / "model"
    fitted.save(path)
    rewrite(path, lambda document, arrays: document.update(note=1), version=1)
    assert type(fitted).load(path).n_iter_ == fitted.n_iter_  # those of version 1 have none
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(file.metadata()["skhebae"])
    for version, digest in ((2, {}), (2, {"digest": "0" * 64}), (1, {"digest": 1})):
        changed = {**document, "version": version, **digest}
        save_file(arrays, path, metadata={"skhebae": json.dumps(changed)})
        with pytest.raises(ModelFileError, match="digest"):
            type(fitted).load(path)


CLAIMS = {
    "hidden_layer_sizes": {"$tuple": [20_000, 20_000]},
    "n_components": 20_000,
    "n_features": 10**9,
    "n_scales": 10**9,
    "n_batches": 10**9,
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("factories", [{}, {"encoder": wide_encoder}, {"decoder": wide_decoder}])
def test_a_small_file_claims_no_large_networks(
    table, brief, tmp_path, monkeypatch, name, factories
):
    """Refused before any network is built, of ours or of the user's."""
    path = tmp_path / "model"
    VAETransformer(**brief, **factories).fit(table).save(path)
    monkeypatch.setattr("skhebae.fitted.autoencoder.build_model", None)
    with pytest.raises(ModelFileError, match="NoneType"):
        VAETransformer.load(path, **factories)
    rewrite(path, fitted_part(lambda f: f["_architecture"].update({name: CLAIMS[name]})))
    with pytest.raises(ModelFileError) as caught:
        VAETransformer.load(path, **factories)
    assert "NoneType" not in str(caught.value)


def test_infinite_constants_of_a_module_of_the_users(table, brief, tmp_path):
    params = {**brief, "encoder": masked_encoder}
    model = VAETransformer(**params).fit(table)
    model.save(tmp_path / "model")
    loaded = VAETransformer.load(tmp_path / "model", encoder=masked_encoder)
    np.testing.assert_array_equal(loaded.transform(table), model.transform(table))


def test_counts_have_their_scaling_checked(tmp_path, brief):
    X = np.random.default_rng(0).poisson(3.0, size=(60, 5))
    path = tmp_path / "model"
    for name, bad in {
        "proportions": np.zeros(5),
        "typical_size": np.zeros(()),
        "log_size_deviation": np.array(np.nan),
        "size_unit": np.ones(2),
    }.items():
        HEBAETransformer(**brief, likelihood="poisson").fit(X).save(path)
        rewrite(path, array_of(f"_scaling.{name}", lambda array, bad=bad: bad))
        with pytest.raises(ModelFileError, match=name):
            HEBAETransformer.load(path)


def test_parameters_out_of_range_are_not_saved(fitted, tmp_path):
    changed = copy.deepcopy(fitted).set_params(batch_size=1)
    with pytest.raises(ValueError, match="'batch_size' parameter"):
        changed.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused(fitted, tmp_path, kind):
    path = tmp_path / "model"
    with KINDS[kind](path):
        error = FileNotFoundError if kind == "folder" else ModelFileError
        with pytest.raises(error, match=rf"model.* is a .*{kind}|model.*it is a .*{kind}"):
            type(fitted).load(path)
        error = IsADirectoryError if kind == "folder" else ModelFileError
        with pytest.raises(error, match=rf"is a .*{kind}.*Name a file"):
            fitted.save(path)
        assert not path.is_file()


def test_save_takes_what_fit_takes(table, brief, tmp_path):
    for sizes in ([np.int64(8), 4], range(3, 5), np.array([6])):
        estimator = HEBAETransformer(
            np.int64(2),
            hidden_layer_sizes=sizes,
            max_iter=brief["max_iter"],
            random_state=np.int64(0),
        ).fit(table)
        estimator.note = {"anything", "the user hangs on it"}
        loaded = via_save(estimator, tmp_path)
        assert list(loaded.hidden_layer_sizes) == list(sizes)
        assert not hasattr(loaded, "note")
        np.testing.assert_array_equal(loaded.transform(table), estimator.transform(table))


def test_wrong_paths(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere"):
        fitted.save(tmp_path / "nowhere" / "model")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        type(fitted).load(tmp_path)


def test_other_class_and_newer_format(fitted, tmp_path, monkeypatch):
    path = tmp_path / "model"
    fitted.save(path)
    other = VAETransformer if not isinstance(fitted, VAETransformer) else HEBAETransformer
    with pytest.raises(ModelFileError, match=f"holds a {type(fitted).__name__}; use"):
        other.load(path)
    monkeypatch.setattr(model_file, "FORMAT_VERSION", 3)
    fitted.save(path)
    monkeypatch.setattr(model_file, "FORMAT_VERSION", 2)
    with pytest.raises(ModelFileError, match=r"format version 3.*Upgrade skhebae"):
        type(fitted).load(path)


def test_model_of_an_absent_device_loads_on_the_cpu(fitted, table, tmp_path):
    # As if fitted on the ninth GPU of another machine.
    moved = copy.deepcopy(fitted).set_params(device="cuda:8")
    for loaded in (pickle.loads(pickle.dumps(moved)), via_save(moved, tmp_path)):
        assert loaded.fitted_.model.device == torch.device("cpu")
        assert loaded.device == "cuda:8"
        np.testing.assert_array_equal(loaded.transform(table), fitted.transform(table))


def test_file_loads_in_a_fresh_process(table, brief, tmp_path):
    models = [cls(**brief).fit(table) for cls in (HEBAETransformer, VAETransformer, WAETransformer)]
    names = [type(model).__name__ for model in models]
    for name, model in zip(names, models, strict=True):
        model.save(tmp_path / name)
    np.save(tmp_path / "X.npy", table)
    code = (
        "import sys, numpy as np, skhebae\n"
        "for name in sys.argv[1:]:\n"
        "    model = getattr(skhebae, name).load(name)\n"
        "    np.save(f'{name}.npy', model.transform(np.load('X.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, *names], cwd=tmp_path, check=True)
    for name, model in zip(names, models, strict=True):
        codes = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(codes, model.transform(table), rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_fit_loads_on_cpu(cls, table, quick):
    estimator = cls(**quick, device="cuda").fit(table)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).fitted_.model.device)"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    output = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(estimator),
        capture_output=True,
        env=environment,
        check=True,
    ).stdout
    assert output.strip() == b"cpu"


SAVED_BY_0_1 = {
    "hebae": (
        HEBAETransformer,
        [[0.11228638, -0.07945983], [-0.10294103, 0.04273041], [1.0174642, -0.16134265]],
        [-11.506188, -12.283208, -13.932623],
        [2.166971, 2.3325508, 3.0958877, 2.88413, 2.386282],
    ),
    "vae": (
        VAETransformer,
        [[-0.017757127, -0.025600577], [0.01349832, 0.053864066], [1.9933509, -0.3641765]],
        [-9.0808935, -10.39039, -13.726095],
        [2.7475855, 2.7997291, 3.7951374, 3.6458285, 2.9413214],
    ),
    "wae": (
        WAETransformer,
        [[-0.06458075, 0.025547316], [0.29260656, -0.06776147], [-1.0421319, 0.8592043]],
        [-2.7251673, -3.0163572, -4.249732],
        [0.22256221, 0.22449176, 0.30175331, 0.29199219, 0.22912036],
    ),
}


#: Of format version 2, the first with a digest, standardised codes and gains.
SAVED_AS_V2 = {
    "hebae": (
        HEBAETransformer,
        [
            [-0.16651900112628937, -0.6391230225563049],
            [-0.704725980758667, -0.1540510058403015],
            [2.2083699703216553, -0.7688990235328674],
        ],
        [-8.485799789428711, -9.882920265197754, -13.223589897155762],
        [
            2.372502088546753,
            2.364936113357544,
            3.2246170043945312,
            3.059299945831299,
            2.478646993637085,
        ],
    ),
    "vae": (
        VAETransformer,
        [
            [-0.017757000401616096, -0.02560099959373474],
            [0.013497999869287014, 0.053863998502492905],
            [1.9933509826660156, -0.3641760051250458],
        ],
        [-9.077460289001465, -10.385689735412598, -13.704669952392578],
        [
            2.709078073501587,
            2.771899938583374,
            3.765315055847168,
            3.6132640838623047,
            2.9285099506378174,
        ],
    ),
    "wae": (
        WAETransformer,
        [
            [-0.07339400053024292, -0.17888599634170532],
            [1.1767970323562622, -0.02032800018787384],
            [-2.6011710166931152, 1.8257759809494019],
        ],
        [-2.740920066833496, -3.6645100116729736, -8.388440132141113],
        [
            0.22233900427818298,
            0.22425200045108795,
            0.30182701349258423,
            0.29210901260375977,
            0.2292570024728775,
        ],
    ),
}

SAVED = {"0.1": SAVED_BY_0_1, "v2": SAVED_AS_V2}


@pytest.mark.parametrize("name", SAVED_BY_0_1)
@pytest.mark.parametrize("version", SAVED)
def test_files_of_each_version_still_load(version, name):
    """Written by `save` of then; codes, scores and samples are those of then, but for rounding."""
    cls, codes, scores, sample = SAVED[version][name]
    model = cls.load(Path(__file__).parent / "files" / f"{name}-{version}.skhebae")
    rng = np.random.default_rng(0)
    mean = 3.0 * np.exp(0.5 * rng.normal(size=(40, 1)) * np.ones((1, 5)))
    X = rng.poisson(mean).astype(float)
    X = X / X.max() if name == "wae" else X
    batch = {"batch": ["a", "b", "a"]} if name == "hebae" else {}
    one = {"batch": "a"} if name == "hebae" else {}
    np.testing.assert_allclose(model.transform(X[:3]), codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.score_samples(X[:3], **batch), scores, rtol=1e-4)
    np.testing.assert_allclose(model.sample(2, random_state=0, **one)[0], sample, rtol=1e-4)
    assert model.n_iter_ == len(model.history_["loss"]) == 3
    assert hasattr(model, "theta_") == hasattr(model, "batches_") == (name == "hebae")
    assert hasattr(model, "noise_variance_") == (name == "vae")
    # They hold no axes of codes, which cannot be measured without rows.
    for lacking in ("components_", "explained_variance_ratio_"):
        assert not hasattr(model, lacking)
        with pytest.raises(AttributeError, match=r"earlier version\. Fit again"):
            getattr(model, lacking)
