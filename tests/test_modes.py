"""Modes of the caller change no result: gradients, autocast, default dtype and device, errors."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from skhebae import (
    AutoencoderTransformer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)
from skhebae.diagnostics import latent_report
from skhebae.estimators import BaseAutoencoder
from skhebae.exceptions import LatentWarning
from skhebae.fitted import FittedAutoencoder
from skhebae.process.modes import plain_modes

PACKAGE = Path(__file__).parents[1] / "skhebae"

# A few epochs are all that these tests need.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def autocast_on_a_gpu():
    """As `torch.autocast("cuda")` does where there is one."""
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def anomalies_detected():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that it is slow
        mode = torch.autograd.detect_anomaly()
        with mode:
            yield


@contextlib.contextmanager
def everything():
    with (
        default_dtype(torch.float64),
        default_device("meta"),
        torch.inference_mode(),
        torch.autocast("cpu"),
        np.errstate(all="raise"),
    ):
        yield


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu"),
    "autocast float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "autocast cuda": autocast_on_a_gpu,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "with device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "errors raise": lambda: np.errstate(all="raise"),
    "errors call": lambda: np.errstate(all="call"),  # numpy has no function to call
    "anomalies": anomalies_detected,
    "deterministic": deterministic,
    "everything": everything,
}


def encoder(shape, n_outputs):
    return nn.Sequential(
        nn.Linear(*shape, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, n_outputs)
    )


class Decoder(nn.Module):
    """Makes tensors of the default dtype and on the default device, as users' modules do."""

    def __init__(self, n_components, shape):
        super().__init__()
        self.layer = nn.Linear(n_components, *shape)
        self.bias = nn.Parameter(torch.full(shape, 0.5))

    def forward(self, z):
        return self.layer(z) + torch.ones(1) * torch.tensor(2.0) * self.bias


def decoder(n_components, shape):
    return Decoder(n_components, shape)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 2))
    real = z @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(120, 8))
    counts = rng.poisson(np.exp(1.5 + 0.5 * z @ rng.normal(size=(2, 8))))
    return {"real": real, "counts": counts, "shares": 1.0 / (1.0 + np.exp(-real))}


BATCH = np.array(["a", "b"])[np.arange(120) % 2]
CASES = {
    "hebae": (HEBAETransformer, "real", {}),
    "factories": (HEBAETransformer, "real", {"encoder": encoder, "decoder": decoder}),
    "row share": (HEBAETransformer, "real", {"row_share": 0.5, "covariance": "diag"}),
    "batches": (HEBAETransformer, "real", {"encode_batch": True}),
    "lower precision": (HEBAETransformer, "real", {"precision": "bfloat16"}),
    "vae": (VAETransformer, "real", {"early_stopping": True}),
    "wae": (WAETransformer, "real", {}),
    "bernoulli": (HEBAETransformer, "shares", {"likelihood": "bernoulli"}),
    "poisson": (VAETransformer, "counts", {"likelihood": "poisson"}),
    "negative binomial": (HEBAETransformer, "counts", {"likelihood": "negative_binomial"}),
    "zeros": (VAETransformer, "counts", {"likelihood": "zero_inflated_negative_binomial"}),
}


def results(case, rows, path):
    """Everything that the public methods return, by name, of an estimator and its copies."""
    cls, kind, params = CASES[case]
    X, batch = rows[kind], BATCH if case == "batches" else None
    model = cls(2, max_iter=3, random_state=0, **params)
    found = {"fit_transform": model.fit_transform(X, batch=batch)}
    model.save(path / "model")
    factories = {name: params[name] for name in ("encoder", "decoder") if name in params}
    copies = {
        "fitted": model,
        "pickled": pickle.loads(pickle.dumps(model)),
        "copied": copy.deepcopy(model),
        "loaded": cls.load(path / "model", **factories),
    }
    for name, each in copies.items():
        values = inferred(each, X, batch)
        # What was made in a mode can be trained on in any other.
        found |= {f"{key} of the {name}": value for key, value in values.items()}
        each.partial_fit(X, batch=batch)
        found[f"codes after partial_fit of the {name}"] = encoded(each, X, batch)
    checkpoint = path / "checkpoint"
    for _ in range(2):  # the second goes on where the first ended
        again = cls(2, max_iter=3, random_state=0, **params)
        again.fit(X, batch=batch, checkpoint=checkpoint)
        found["resumed"] = encoded(again, X, batch)
    checkpoint.unlink()
    if batch is None:
        streamed = cls(2, random_state=0, **params).partial_fit(iter([X[:60], X[60:]]))
        found["streamed"] = streamed.sample(9, random_state=0)
    return found


def encoded(model, X, batch):
    return model.transform(X, batch=batch) if model.encode_batch else model.transform(X)


def inferred(model, X, batch):
    side = {} if batch is None else {"batch": batch}
    one = {} if batch is None else {"batch": "a"}
    encoding = side if model.encode_batch else {}
    posterior = model.posterior(X, **encoding)
    report = latent_report_in_silence(model, X, **side)
    found = {
        "codes": encoded(model, X, batch),
        "rows": model.inverse_transform(posterior.mean, **side),
        "factors": posterior.covariance_factor,
        "samples": model.sample(9, random_state=0, **one),
        "noisy samples": model.sample(9, "prior", random_state=0, noise=True, **one),
        "gaussian samples": model.sample(9, "gaussian", random_state=0, **one),
        "scores": model.score_samples(X, **side),
        "score": np.array(model.score(X, **side)),
        "elbo": model.elbo(X, **side),
        "log_likelihood": model.log_likelihood(X, n_draws=5, **side),
        "moments": model.latent_covariance_,
        "report": np.array([report.mmd, report.mutual_information, report.training_bound]),
        "loss": np.array(model.history_["loss"]),
        **model.fitted_.learned,
    }
    if isinstance(model, HEBAETransformer):
        found["bound"] = model.hebae_bound(X, **side)
    return found


def latent_report_in_silence(model, X, **side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        return latent_report(model, X, **side)


@pytest.fixture(scope="module")
def expected(rows, tmp_path_factory):
    """Results in no mode, each computed once."""
    known = {}

    def of(case):
        if case not in known:
            known[case] = results(case, rows, tmp_path_factory.mktemp("expected"))
        return known[case]

    return of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "case",
    [*list(CASES)[:2], *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[2:])],
)
def test_results_do_not_depend_on_modes(case, mode, rows, expected, tmp_path):
    wanted = expected(case)
    with MODES[mode]():
        found = results(case, rows, tmp_path)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_compiled_training_does_not_depend_on_modes(rows):
    pytest.importorskip("torch._inductor")

    def codes():
        model = HEBAETransformer(2, max_iter=2, compile=True, random_state=0)
        return model.fit_transform(rows["real"])

    expected = codes()
    with everything():
        assert_array_equal(codes(), expected)


def test_modes_are_left_as_they_were(rows):
    """Also after an error."""
    with everything():
        model = HEBAETransformer(2, max_iter=1, random_state=0).fit(rows["real"])
        with pytest.raises(ValueError, match="infinity"):
            model.transform(np.full((2, 8), np.inf))
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float64
        assert torch.zeros(1).device.type == "meta"
        assert np.geterr()["over"] == "raise"
    assert torch.is_grad_enabled()
    assert torch.zeros(1).dtype == torch.float32


def test_what_was_fitted_in_a_mode_is_ordinary(rows):
    with everything():
        model = HEBAETransformer(2, max_iter=1, random_state=0).fit(rows["real"])
    for tensor in model.fitted_.model.state_dict(keep_vars=True).values():
        assert not tensor.is_inference()
        assert tensor.dtype == torch.float32
    assert all(p.requires_grad for p in model.fitted_.model.parameters())


def test_other_threads_keep_their_modes(rows):
    """Within the guard, this thread computes in float32 and others in their own default."""
    found = []
    with default_dtype(torch.float64), plain_modes():
        thread = threading.Thread(target=lambda: found.append(torch.zeros(1).dtype))
        thread.start()
        thread.join()
        found.append(torch.zeros(1).dtype)
    assert found == [torch.float64, torch.float32]


def test_float32_where_no_dtype_is_named():
    with default_dtype(torch.float64), plain_modes():
        assert torch.tensor([[0.1], [2.0]]).dtype == torch.float32
        assert torch.full((2,), 0.5).dtype == torch.arange(0.0, 1.0, 0.5).dtype == torch.float32
        assert nn.Linear(2, 3).weight.dtype == torch.float32
        # What does not depend on the default stays.
        assert torch.tensor([1, 2]).dtype == torch.full((2,), 1).dtype == torch.int64
        assert torch.zeros(2, dtype=torch.float64).dtype == torch.float64
        assert torch.tensor(np.array([0.5])).dtype == torch.float64
        assert torch.zeros(2, out=torch.empty(2, dtype=torch.float16)).dtype == torch.float16


def public_functions(cls):
    for name, value in vars(cls).items():
        function = value.__func__ if isinstance(value, classmethod) else value
        function = getattr(function, "function", function)  # of a cached property
        if inspect.isfunction(function) and (
            not name.startswith("_") or name in ("__getstate__", "__setstate__")
        ):
            yield name, function


def is_guarded(function):
    while function is not None:
        if function.__code__.co_name == "guarded":
            return True
        function = getattr(function, "__wrapped__", None)
    return False


@pytest.mark.parametrize(
    "cls",
    [
        BaseAutoencoder,
        HEBAETransformer,
        VAETransformer,
        WAETransformer,
        AutoencoderTransformer,
        FittedAutoencoder,
        NoveltyDetector,
    ],
)
def test_every_public_method_is_guarded(cls):
    # These compute nothing: the first is the user's to override, and the last three pass rows from
    # one guarded method to another.
    free = {"make_objective", "annotate", "transform", "score_samples", "elbo", "watched"}
    if cls is NoveltyDetector:  # numbers of numpy that score_samples returned
        free = {"decision_function", "predict", "fit_predict", "p_values"}
    guarded = {name: is_guarded(function) for name, function in public_functions(cls)}
    assert {name for name, is_ in guarded.items() if not is_} <= free
    if cls in (BaseAutoencoder, FittedAutoencoder):
        assert any(guarded.values())


#: Functions of torch that make tensors, and whether the dtype of the result is the default one.
MADE = {
    **dict.fromkeys(("empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros"), True),
    **dict.fromkeys(("tensor", "scalar_tensor"), True),
    **dict.fromkeys(("arange", "as_tensor", "randint", "randperm"), False),
}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_new_tensor_names_its_dtype_and_device(path):
    """The default dtype belongs to the process: threads of ours that no guard sees have it too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).removeprefix("torch.")
        given = {keyword.arg for keyword in node.keywords}
        if name in MADE and ast.unparse(node.func).startswith("torch."):
            wanted = {"device", "dtype"} if MADE[name] else {"device"}
            # The guard itself asks what the defaults are.
            assert wanted <= given or path.name == "modes.py", f"{path}:{node.lineno}"
