"""An interrupted fit goes on to the result it would have had."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from torch import nn

from skhebae import HEBAETransformer, VAETransformer, WAETransformer, files
from skhebae.data import ResidentRows, StoredTable
from skhebae.exceptions import CheckpointError, CheckpointWarning
from skhebae.training import checkpoint as module

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_EPOCHS = 8


class InterruptedFitError(Exception):
    """What stands for a power cut."""


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(module, "COST", 0.0)


@pytest.fixture(name="X")
def table():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(150, 3)) @ rng.normal(size=(3, 8))).astype(np.float32)


def estimator(cls=HEBAETransformer, **params):
    return cls(**{"n_components": 2, "max_iter": N_EPOCHS, "random_state": 0, **params})


def interrupted_fit(model, X, path, n_epochs):
    """Fit, and stop when so many files were written."""
    write, written = module.write_document, []

    def counted(*args, **kwargs):
        write(*args, **kwargs)
        written.append(1)
        if len(written) == n_epochs:
            raise InterruptedFitError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_document", counted)
        with pytest.raises(InterruptedFitError):
            model.fit(X, checkpoint=path)


def dropout_encoder(shape, n_outputs):
    """Make an encoder that draws from the global random state in every step, and counts them."""
    return nn.Sequential(
        nn.Linear(*shape, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, n_outputs),
    )


CASES = {
    "HEBAE, dropout": (HEBAETransformer, {"encoder": dropout_encoder}),
    "HEBAE": (HEBAETransformer, {}),
    "HEBAE, counts": (HEBAETransformer, {"likelihood": "negative_binomial"}),
    "HEBAE, row_share": (HEBAETransformer, {"row_share": 0.5}),
    "VAE, early stopping": (VAETransformer, {"early_stopping": True}),
    "WAE, constant rate": (WAETransformer, {"learning_rate": "constant"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n_epochs", [1, 5])
def test_goes_on_to_the_same_result(X, tmp_path, case, n_epochs):
    cls, params = CASES[case]
    if "likelihood" in params:
        X = np.random.default_rng(0).poisson(np.exp(X / 3.0)).astype(np.float32)
    expected = estimator(cls, **params).fit(X)
    path = tmp_path / "fit"
    interrupted_fit(estimator(cls, **params), X, path, n_epochs)
    model = estimator(cls, **params).fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), expected.transform(X))
    assert_array_equal(model.score_samples(X), expected.score_samples(X))
    assert_array_equal(model.sample(5, random_state=0), expected.sample(5, random_state=0))
    assert model.n_iter_ == expected.n_iter_
    for key, values in expected.history_.items():
        if key != "seconds":
            assert_array_equal(model.history_[key], values)


def test_a_fit_that_is_done_is_not_trained_again(X, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    first = estimator().fit(X, checkpoint=path)
    assert {p.name for p in tmp_path.iterdir()} == {"fit", "fit.before"}
    monkeypatch.setattr("skhebae.training.loop.train_epoch", None)
    again = estimator().fit(X, checkpoint=path)
    assert_array_equal(again.transform(X), first.transform(X))


def test_without_a_seed_the_checkpoint_has_it(X, tmp_path):
    path = tmp_path / "fit"
    interrupted_fit(estimator(random_state=None), X, path, 3)
    shutil.copy(path, tmp_path / "copy")
    models = [
        estimator(random_state=None).fit(X, checkpoint=tmp_path / name) for name in ("fit", "copy")
    ]
    assert_array_equal(models[0].transform(X), models[1].transform(X))
    assert_array_equal(models[0].sample(3, random_state=0), models[1].sample(3, random_state=0))


def test_fit_transform_and_verbose(X, tmp_path):
    path = tmp_path / "fit"
    codes = estimator().fit_transform(X, checkpoint=str(path))
    # What does not change the result may change.
    again = estimator(verbose=1).fit_transform(X, checkpoint=str(path))
    assert_array_equal(codes, again)


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")


@pytest.mark.parametrize("how", ["truncated", "empty"])
def test_a_damaged_file_gives_way_to_the_one_before(X, tmp_path, how):
    expected = estimator().fit(X)
    path = tmp_path / "fit"
    interrupted_fit(estimator(), X, path, 4)
    damage(path, how)
    with pytest.warns(CheckpointWarning, match="resumes from the checkpoint before it"):
        model = estimator().fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), expected.transform(X))
    for name in ("fit", "fit.before"):
        damage(tmp_path / name, how)
    with pytest.raises(CheckpointError, match="Delete it"):
        estimator().fit(X, checkpoint=path)


def test_a_file_without_newer_constants_is_resumed(X, tmp_path):
    """Checkpoints of 0.1 have no `log_unit` of the Gaussian likelihood."""
    expected = estimator().fit(X)
    path = tmp_path / "fit"
    interrupted_fit(estimator(), X, path, 2)
    document = files.read_document(path)
    del document["state"]["trainer"]["buffers"]["likelihood.log_unit"]
    files.write_document(path, document)
    model = estimator().fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), expected.transform(X))
    assert_array_equal(model.score_samples(X), expected.score_samples(X))


def test_a_lost_last_file_gives_way_too(X, tmp_path):
    """Killed between the two renamings, there is only the file before."""
    path = tmp_path / "fit"
    expected = estimator().fit(X, checkpoint=path)
    path.unlink()
    model = estimator().fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), expected.transform(X))


def test_files_of_another_fit_are_refused(X, tmp_path):
    path = tmp_path / "fit"
    model = estimator().fit(X, checkpoint=path)
    codes = model.transform(X)
    with pytest.raises(CheckpointError, match=r"differs in reg_weight \('1.0' there, '2.0' here\)"):
        model.set_params(reg_weight=2.0).fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), codes)  # the earlier fit is kept
    with pytest.raises(CheckpointError, match="differs in rows"):
        estimator().fit(X + 1.0, checkpoint=path)
    with pytest.raises(CheckpointError, match="estimator"):
        estimator(VAETransformer).fit(X, checkpoint=path)
    with pytest.raises(FileNotFoundError, match="in a folder that does not exist"):
        estimator().fit(X, checkpoint=tmp_path / "none" / "fit")
    model.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        model.set_params(reg_weight=1.0).fit(X, checkpoint=tmp_path / "model")


def test_writing_costs_little(X, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COST", 1e9)
    written = []
    write = module.write_document
    monkeypatch.setattr(
        module, "write_document", lambda *a, **k: (written.append(1), write(*a, **k))
    )
    estimator().fit(X, checkpoint=tmp_path / "fit")
    assert len(written) == 2  # the first epoch and the last


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(module, "WITHIN_EPOCH", 0.0)


def small_pools(monkeypatch):
    """Noise from pools, of which an epoch needs several."""
    monkeypatch.setattr("skhebae.training.loop.POOL_SIZE", 500)
    monkeypatch.setattr("skhebae.noise.POOL_SIZE", 1000)
    monkeypatch.setattr("skhebae.noise.USES", 1)
    return {"input_noise": 0.3}


def windows_of_16_rows(monkeypatch):
    """As of a file that is read in windows."""
    monkeypatch.setattr("skhebae.data.windows.BLOCK_ROWS", 8)
    return {"window_mb": 3 * 2 * 8 * 8 * 4 / 1e6}


WITHIN = {
    "resident": (lambda _: {}, np.asarray),
    "sparse": (lambda _: {}, sparse.csr_matrix),
    "pool": (small_pools, np.asarray),
    "windows": (windows_of_16_rows, lambda X: StoredTable(File(X))),
}


class File:
    """What is sliced like a file."""

    def __init__(self, rows):
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __getitem__(self, rows):
        return self._rows[rows]


@pytest.mark.parametrize("case", [*CASES, "WAE, early stopping"])
@pytest.mark.parametrize("rows", WITHIN)
def test_goes_on_within_an_epoch(X, tmp_path, monkeypatch, every_step, case, rows):
    """Minibatches of 16: an epoch has 8 or 9, and a file after each but for its last."""
    cls, params = CASES.get(case, (WAETransformer, {"early_stopping": True}))
    prepare, as_table = WITHIN[rows]
    params = {**params, **prepare(monkeypatch), "batch_size": 16, "max_iter": 4}
    if "likelihood" in params:
        X = np.random.default_rng(0).poisson(np.exp(X / 3.0)).astype(np.float32)
    table = as_table(X)
    expected = estimator(cls, **params).fit(table)
    for n_files in (3, 14, 22):
        path = tmp_path / f"{n_files}"
        interrupted_fit(estimator(cls, **params), table, path, n_files)
        assert "unfinished" in module.read_document(path)["state"]
        model = estimator(cls, **params).fit(table, checkpoint=path)
        assert_array_equal(model.transform(X), expected.transform(X))
        assert_array_equal(model.score_samples(X), expected.score_samples(X))
        for key, values in expected.history_.items():
            if key != "seconds":
                assert_array_equal(model.history_[key], values)


def test_interrupted_twice_in_an_epoch(X, tmp_path, monkeypatch, every_step):
    params = {**small_pools(monkeypatch), "batch_size": 16, "max_iter": 2}
    expected = estimator(**params).fit(X)
    for _ in range(5):
        interrupted_fit(estimator(**params), X, tmp_path / "fit", 2)
    steps = module.read_document(tmp_path / "fit")["state"]["trainer"]["n_steps"]
    assert steps == 10  # no step is done again, none left out
    model = estimator(**params).fit(X, checkpoint=tmp_path / "fit")
    assert_array_equal(model.transform(X), expected.transform(X))


def test_within_an_epoch_files_are_rare(X, tmp_path, monkeypatch):
    """An epoch that takes 6 minutes is saved twice before its end, whatever a file costs."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    take = ResidentRows.take

    def slow(self, indices):
        now[0] += 40.0 * self.slow
        return take(self, indices)

    monkeypatch.setattr(ResidentRows, "take", slow)
    monkeypatch.setattr(ResidentRows, "slow", 1, raising=False)
    written = []
    write = module.write_document
    monkeypatch.setattr(
        module, "write_document", lambda *a, **k: (written.append(now[0]), write(*a, **k))
    )
    estimator(max_iter=1, batch_size=16).fit(X, checkpoint=tmp_path / "fit")
    assert written == [120.0, 240.0, 360.0]


SCRIPT = """
import sys, warnings
import numpy as np
from skhebae import HEBAETransformer
from skhebae.training import checkpoint
checkpoint.COST = 0.0
checkpoint.WITHIN_EPOCH = 0.01
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(2000, 30)).astype(np.float32)
model = HEBAETransformer(3, max_iter=40, n_iter_no_change=99, random_state=0)
print("ready", flush=True)
np.save(sys.argv[2], model.fit(X, checkpoint=sys.argv[1]).transform(X))
"""


def written(path):
    """Return what tells one file of this name from the next, or None without one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL again and again: the result is that of an uninterrupted process."""
    rng = np.random.default_rng()  # another moment each time, on purpose
    arguments = [str(tmp_path / "fit"), str(tmp_path / "codes.npy")]
    kills = 0
    for i in range(60):  # ever more files, so that there is an end
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            # After so many files, however long they take on a busy machine, and a moment more.
            for _ in range(rng.integers(1, 5 + 4 * i)):
                last = written(tmp_path / "fit")
                while process.poll() is None and written(tmp_path / "fit") in (last, None):
                    time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.02))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        if process.returncode == 0:
            break
    assert kills >= 2
    killed = np.load(arguments[1])
    arguments = [str(tmp_path / "other"), str(tmp_path / "expected.npy")]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True)
    assert_array_equal(killed, np.load(arguments[1]))
