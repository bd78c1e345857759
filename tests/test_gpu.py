"""Training on a GPU; skipped where there is none."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from torch import nn

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import rows as rows_module
from skhebae.likelihoods import count_densities
from skhebae.training import graphs, loop, step

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(name="X", scope="module")
def table():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(1001, 4))
    return (codes @ rng.normal(size=(4, 30)) + 0.3 * rng.normal(size=(1001, 30))).astype(np.float32)


@pytest.fixture(name="counts", scope="module")
def count_table(X):
    rng = np.random.default_rng(1)
    return sparse.csr_matrix(rng.poisson(np.exp(X / 3.0 - 1.0)).astype(np.float32))


def estimator(cls=HEBAETransformer, **params):
    defaults = {"n_components": 3, "max_iter": 6, "random_state": 0, "device": "cuda"}
    return cls(**{**defaults, "batch_size": 64, **params})


def encoder(shape, n_outputs):
    return nn.Sequential(nn.Linear(*shape, 32), nn.ReLU(), nn.Linear(32, n_outputs))


CASES = {
    "HEBAE": (HEBAETransformer, {}),
    "HEBAE, row_share": (HEBAETransformer, {"row_share": 0.5}),
    "HEBAE, diag": (HEBAETransformer, {"covariance": "diag"}),
    "HEBAE, own encoder": (HEBAETransformer, {"encoder": encoder}),
    "HEBAE, early stopping": (HEBAETransformer, {"early_stopping": True}),
    "VAE": (VAETransformer, {}),
    "VAE, capacity": (VAETransformer, {"capacity": (0, 4, 0.5)}),
    "WAE": (WAETransformer, {}),
    "HEBAE, bfloat16": (HEBAETransformer, {"precision": "bfloat16"}),
    "negative_binomial": (HEBAETransformer, {"likelihood": "negative_binomial"}),
    "zero-inflated": (HEBAETransformer, {"likelihood": "zero_inflated_negative_binomial"}),
    "poisson": (VAETransformer, {"likelihood": "poisson"}),
}


@pytest.mark.parametrize("case", CASES)
def test_graphs_do_what_steps_do(X, counts, case, monkeypatch):
    """Minibatches have two sizes here, so that two graphs are captured."""
    cls, params = CASES[case]
    rows = counts if "likelihood" in params else X
    captured = []
    capture = graphs.GraphedStep._capture

    def watched(self, minibatch):
        captured.append(minibatch.x.shape)
        return capture(self, minibatch)

    monkeypatch.setattr(graphs.GraphedStep, "_capture", watched)
    by_graphs = estimator(cls, **params).fit(rows)
    assert len(captured) == len(set(captured)) == 2
    monkeypatch.setattr(step, "can_be_captured", lambda *_: False)
    by_steps = estimator(cls, **params).fit(rows)
    assert_allclose(by_graphs.history_["loss"], by_steps.history_["loss"], rtol=1e-3)
    assert_allclose(by_graphs.transform(rows), by_steps.transform(rows), rtol=0.02, atol=0.02)
    again = estimator(cls, **params).fit(rows)
    assert_allclose(again.history_["loss"], by_steps.history_["loss"], rtol=1e-3)


def test_a_seed_gives_identical_fits(X):
    first, second = (estimator().fit(X).transform(X) for _ in range(2))
    assert_allclose(first, second, atol=1e-5)


def test_the_host_waits_for_nothing_in_a_step(X, counts, monkeypatch):
    run_epoch = loop.run_epoch

    def strict(take_step, rows, *arguments):
        def quick(minibatch, i):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return take_step(minibatch, i)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return run_epoch(quick, rows, *arguments)

    monkeypatch.setattr(loop, "run_epoch", strict)
    # Not Gaussian: every 50 steps that one measures Jacobians.
    estimator(likelihood="negative_binomial").fit(counts)
    estimator(WAETransformer, likelihood="poisson").fit(counts)
    monkeypatch.setattr(step, "can_be_captured", lambda *_: False)
    estimator(likelihood="negative_binomial").fit(counts)


def test_like_the_cpu(X, counts):
    """Other random numbers, the same quality."""
    for rows, params in ((X, {}), (counts, {"likelihood": "negative_binomial"})):
        scores = [
            estimator(max_iter=40, device=device, **params).fit(rows).score(rows)
            for device in ("cuda", "cpu")
        ]
        assert_allclose(*scores, rtol=0.02)


def test_sparse_rows_are_resident_where_they_fit(counts, monkeypatch):
    resident = estimator(likelihood="negative_binomial").fit(counts)
    monkeypatch.setattr(rows_module, "GPU_SHARE", 0.0)
    streamed = estimator(likelihood="negative_binomial").fit(counts)  # read by a thread
    assert_allclose(resident.history_["loss"], streamed.history_["loss"], rtol=1e-4)


def test_files_are_read_by_a_thread(X, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        stored = file.create_dataset("X", data=X)
        model = estimator(window_mb=0.05).fit(stored)
    assert_allclose(model.transform(X).std(axis=0), 1.0, atol=0.3)


def test_from_the_gpu_to_the_cpu(X, tmp_path):
    model = estimator().fit(X)
    codes, scores = model.transform(X), model.score_samples(X)
    model.save(tmp_path / "model")
    copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    copies.append(HEBAETransformer.load(tmp_path / "model"))
    for other in copies:
        assert_array_equal(other.transform(X), codes)
    on_cpu = pickle.loads(pickle.dumps(model.set_params(device="cpu")))
    assert on_cpu.fitted_.model.device.type == "cpu"
    assert_allclose(on_cpu.transform(X), codes, rtol=1e-3, atol=1e-4)
    assert_allclose(on_cpu.score_samples(X), scores, rtol=1e-3, atol=1e-3)


def test_a_row_alone_is_the_same_as_among_others(X):
    model = estimator().fit(X)
    codes = model.transform(X)
    for i in (0, 500, 1000):
        assert_array_equal(model.transform(X[i : i + 1]), codes[i : i + 1])


def test_partial_fit_and_warm_start(X):
    model = estimator()
    for part in np.array_split(X, 4):
        model.partial_fit(part)
    assert model.n_iter_ == 4
    model = estimator(warm_start=True).fit(X).fit(X)
    assert model.n_iter_ == 12
    assert model.history_["loss"][-1] < model.history_["loss"][0]


def test_checkpoint_goes_on_to_the_same_result(X, tmp_path, monkeypatch):
    from skhebae.training import checkpoint

    monkeypatch.setattr(checkpoint, "COST", 0.0)
    expected = estimator().fit(X)
    write, written = checkpoint.write_document, []

    def counted(*args, **kwargs):
        write(*args, **kwargs)
        written.append(1)
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_document", counted)
        with pytest.raises(KeyboardInterrupt):
            estimator().fit(X, checkpoint=tmp_path / "fit")
    model = estimator().fit(X, checkpoint=tmp_path / "fit")
    assert_allclose(model.history_["loss"], expected.history_["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "n_own"),
    [("poisson_log_prob", 0), ("negative_binomial_log_prob", 1), ("zero_inflated_log_prob", 2)],
)
def test_counts_have_the_likelihood_of_the_cpu(counts, function, n_own):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(counts[:50].toarray()).double()
    log_mean = torch.from_numpy(rng.normal(size=x.shape)).requires_grad_()
    own = [torch.from_numpy(rng.normal(size=x.shape[1])).requires_grad_() for _ in range(n_own)]
    results = []
    for device in ("cpu", "cuda"):
        parts = [x.to(device), log_mean.to(device), *(part.to(device) for part in own)]
        value = getattr(count_densities, function)(*parts)
        gradients = torch.autograd.grad(value.sum(), [log_mean, *own])
        results.append([value.detach().cpu(), *gradients])
    for expected, actual in zip(*results, strict=True):
        assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_compiled(X, counts):
    for rows, params in ((X, {}), (counts, {"likelihood": "negative_binomial"})):
        compiled, plain = (
            estimator(compile=value, **params).fit(rows).history_["loss"] for value in (True, False)
        )
        assert_allclose(compiled, plain, rtol=1e-2)


def test_gather_by_nccl(tmp_path):
    """Of one process, as more need more GPUs."""
    from torch import distributed

    from skhebae.distributed import GatherRows

    if not distributed.is_nccl_available():
        pytest.skip("torch has no NCCL")
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
    try:
        rows = torch.randn(5, 3, device="cuda", requires_grad=True)
        gathered = GatherRows.apply(rows, (5,), slice(0, 5))
        assert torch.equal(gathered, rows)
        (gathered**2).sum().backward()
        assert_allclose(rows.grad.cpu(), 2 * rows.detach().cpu())
    finally:
        distributed.destroy_process_group()
