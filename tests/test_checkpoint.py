"""An interrupted fit goes on to the result it would have had."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from test_files import KINDS
from torch import nn

from skhebae import HEBAETransformer, VAETransformer, WAETransformer, files
from skhebae.data import ResidentRows, StoredTable
from skhebae.exceptions import CheckpointError, CheckpointWarning
from skhebae.fitted.fingerprint import describe
from skhebae.training import checkpoint as module

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_EPOCHS = 8


class InterruptedFitError(Exception):
    """What stands for a power cut."""


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(module, "COST", 0.0)


def rows():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(150, 3)) @ rng.normal(size=(3, 8))).astype(np.float32)


@pytest.fixture(name="X")
def table():
    return rows()


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


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """Rows, the codes of a whole fit to them, and the files of one that was interrupted."""
    X, path = rows(), tmp_path_factory.mktemp("halfway") / "fit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COST", 0.0)
        patch.setattr(module, "WITHIN_EPOCH", 0.0)
        interrupted_fit(estimator(**SHORT), X, path, 5)
    files = {name: path.with_name(name).read_bytes() for name in ("fit", "fit.before")}
    return X, estimator(**SHORT).fit(X).transform(X), files


#: An epoch of it has 4 minibatches.
SHORT = {"batch_size": 32, "max_iter": 3, "early_stopping": True}


def put(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "fit"


def assert_falls_back(X, codes, path, message="resumes from the checkpoint before it"):
    with pytest.warns(CheckpointWarning, match=message):
        model = estimator(**SHORT).fit(X, checkpoint=path)
    assert_array_equal(model.transform(X), codes)


@pytest.mark.slow
def test_every_flipped_bit_gives_way_to_the_file_before(halfway, tmp_path):
    X, codes, files = halfway
    n_bits = 8 * len(files["fit"])
    for place in range(3, n_bits, n_bits // 60):
        damaged = bytearray(files["fit"])
        damaged[place // 8] ^= 1 << place % 8
        path = put({**files, "fit": bytes(damaged)}, tmp_path)
        assert_falls_back(X, codes, path)


def part_of(*names):
    """Return a function that changes a part of the state in a document."""

    def changer(change):
        def changed(document):
            part = document["state"]
            for name in names:
                part = part[name]
            change(part)

        return changed

    return changer


TRAINER, STOPPER, PARAMETERS = (
    part_of("trainer"),
    part_of("stopper"),
    part_of("trainer", "parameters"),
)
STATE, UNFINISHED, TENSORS = part_of(), part_of("unfinished"), part_of("unfinished", "tensors")
HISTORY = part_of("history")
LAYER = "encoder.layers.0.bias"
MALFORMED = {
    "no state": lambda document: document.pop("state"),
    "a list as state": lambda document: document.update(state=[]),
    "an identity that is none": lambda document: document.update(identity="a"),
    "a version that is none": lambda document: document.update(version="3"),
    "without a version": lambda document: document.pop("version"),
    "no trainer": STATE(lambda state: state.pop("trainer")),
    "a number as trainer": STATE(lambda state: state.update(trainer=1)),
    "something else": STATE(lambda state: state.update(more=1)),
    "no seed": STATE(lambda state: state.pop("seed")),
    "a huge seed": STATE(lambda state: state.update(seed=2**70)),
    "a seed of another": STATE(lambda state: state.update(converged=0)),
    "no parameter": PARAMETERS(lambda parameters: parameters.pop(LAYER)),
    "a parameter more": PARAMETERS(lambda parameters: parameters.update(more=np.zeros(3))),
    "another shape": PARAMETERS(lambda p: p.update({LAYER: p[LAYER][1:]})),
    "another dtype": PARAMETERS(lambda p: p.update({LAYER: p[LAYER].astype(float)})),
    "a text": PARAMETERS(lambda p: p.update({LAYER: "x"})),
    "buffers of others": TRAINER(lambda trainer: trainer["buffers"].update(more=np.zeros(3))),
    "buffers a list": TRAINER(lambda trainer: trainer.update(buffers=[])),
    "no moments": TRAINER(lambda trainer: trainer["moments"].pop("0")),
    "moments in part": TRAINER(lambda trainer: trainer["moments"]["0"].pop("step")),
    "no generator": TRAINER(lambda trainer: trainer["generators"].pop("noise")),
    "a generator of zeros": TRAINER(lambda t: t.update(generators=zeros_like(t["generators"]))),
    "steps that are none": TRAINER(lambda trainer: trainer.update(n_steps=-1)),
    "true steps": TRAINER(lambda trainer: trainer.update(n_steps=True)),
    "weights of others": STOPPER(lambda stopper: stopper.update(weights={"a": np.zeros(3)})),
    "a list of weights": STOPPER(lambda stopper: stopper.update(weights=["a"])),
    "best a text": STOPPER(lambda stopper: stopper.update(best="a")),
    "waited for ever": STOPPER(lambda stopper: stopper.update(waited=float("inf"))),
    "no losses": HISTORY(lambda history: history.pop("loss")),
    "losses of more epochs": HISTORY(
        lambda history: [v.extend([0.0] * 9) for v in history.values()]
    ),
    "terms of different epochs": HISTORY(lambda history: history["elbo"].append(0.0)),
    "a loss of a text": HISTORY(lambda history: history.update(loss=["a"] * len(history["loss"]))),
    "a number as history": STATE(lambda state: state.update(history=1)),
    "unfinished a list": STATE(lambda state: state.update(unfinished=[])),
    "no order": TENSORS(lambda tensors: tensors.pop("order")),
    "an order of zeros": TENSORS(lambda tensors: tensors.update(zeros_like(tensors))),
    "too many terms": TENSORS(lambda t: t.update(terms=np.tile(t["terms"], 9))),
    "terms in part": TENSORS(lambda t: t.update(terms=t["terms"][1:])),
    "no terms": TENSORS(lambda t: t.update(terms=t["terms"][:0])),
    "terms in a matrix": TENSORS(lambda t: t.update(terms=t["terms"][None])),
    "a text as terms": TENSORS(lambda t: t.update(terms="abcd")),
    "less than nothing left": UNFINISHED(lambda unfinished: unfinished.update(left=-1)),
    "endless seconds": UNFINISHED(lambda unfinished: unfinished.update(seconds=float("nan"))),
}


def zeros_like(arrays):
    return {name: np.zeros_like(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_documents_give_way_too(halfway, tmp_path, name):
    """Those whose digest is right, as of a version with a fault."""
    X, codes, contents = halfway
    path = put(contents, tmp_path)
    document = files.read_document(path)
    MALFORMED[name](document)
    files.write_document(path, document)
    assert_falls_back(X, codes, path)
    # And without one before it, the error says where and what to do.
    path = put(contents, tmp_path)
    (tmp_path / "fit.before").unlink()
    files.write_document(path, document)
    with pytest.raises(CheckpointError, match=r"fit'.*no earlier checkpoint.*Delete it"):
        estimator(**SHORT).fit(X, checkpoint=path)


def test_two_malformed_documents(halfway, tmp_path):
    X, _, contents = halfway
    path = put(contents, tmp_path)
    for name in (path, f"{path}.before"):
        document = files.read_document(name)
        MALFORMED["another shape"](document)
        files.write_document(name, document)
    with pytest.raises(CheckpointError, match=r"bias has shape .* no earlier checkpoint"):
        estimator(**SHORT).fit(X, checkpoint=path)
    put({"fit": contents["fit"][:99]}, tmp_path)
    with pytest.raises(CheckpointError, match=r"no earlier checkpoint"):
        estimator(**SHORT).fit(X, checkpoint=path)


def test_the_file_before_outlives_a_damaged_one(halfway, tmp_path):
    """A damaged file does not take the place of the one that the fit resumed from."""
    X, codes, contents = halfway
    path = put({**contents, "fit": b"damaged"}, tmp_path)
    with pytest.warns(CheckpointWarning):
        interrupted_fit(estimator(**SHORT), X, path, 1)
    assert (tmp_path / "fit.before").read_bytes() == contents["fit.before"]
    path.write_bytes(b"damaged again")
    assert_falls_back(X, codes, path)


def test_a_file_that_cannot_be_written_is_a_warning(X, tmp_path, monkeypatch):
    expected = estimator().fit(X).transform(X)
    fsync = os.fsync

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "fit"
    with pytest.warns(CheckpointWarning, match=r"fit' cannot be written .*No space left") as caught:
        model = estimator().fit(X, checkpoint=path)
    assert sum(warning.category is CheckpointWarning for warning in caught) == 1
    assert_array_equal(model.transform(X), expected)
    assert list(tmp_path.iterdir()) == []
    # As soon as there is space again, there are files.
    failures = iter([full, full])
    monkeypatch.setattr(os, "fsync", lambda file: next(failures, fsync)(file))
    with pytest.warns(CheckpointWarning, match="goes on, and tries again later"):
        estimator().fit(X, checkpoint=path)
    assert {p.name for p in tmp_path.iterdir()} == {"fit", "fit.before"}
    monkeypatch.setattr("skhebae.training.loop.train_epoch", None)
    assert_array_equal(estimator().fit(X, checkpoint=path).transform(X), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fit", "fit.before"])
def test_what_is_no_file_is_refused(X, tmp_path, monkeypatch, kind, name):
    monkeypatch.setattr("skhebae.training.loop.train_epoch", None)  # before any training
    with (
        KINDS[kind](tmp_path / name),
        pytest.raises(CheckpointError, match=rf"checkpoint='.*{name}' is a .*{kind}.*Name a file"),
    ):
        estimator().fit(X, checkpoint=tmp_path / "fit")


def test_what_a_killed_fit_left_is_removed_at_the_next_start(X, tmp_path):
    path = tmp_path / "fit"
    expected = estimator().fit(X, checkpoint=path).transform(X)
    for name in (".fit", ".fit.before"):
        (tmp_path / f"{name}.0123456789abcdef.tmp").write_bytes(b"half a file")
    assert_array_equal(estimator().fit(X, checkpoint=path).transform(X), expected)
    assert {p.name for p in tmp_path.iterdir()} == {"fit", "fit.before"}


def test_a_link_to_another_folder(X, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    path = tmp_path / "fit"
    path.symlink_to(there / "target")
    expected = estimator().fit(X)
    interrupted_fit(estimator(), X, path, 3)
    assert {p.name for p in there.iterdir()} == {"target", "target.before"}
    (there / "target").write_bytes(b"")
    with pytest.warns(CheckpointWarning):
        model = estimator().fit(X, checkpoint=path)
    assert path.is_symlink()
    assert_array_equal(model.transform(X), expected.transform(X))


def test_files_of_other_versions_are_refused(halfway, tmp_path):
    X, _, contents = halfway
    path = put(contents, tmp_path)
    document = files.read_document(path)
    for version, what in ((1, "an older"), (2, "an older"), (4, "a newer")):
        files.write_document(path, {**document, "version": version})
        with pytest.raises(CheckpointError, match=f"fit' was written by {what} skhebae"):
            estimator(**SHORT).fit(X, checkpoint=path)


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


LABELS = np.array(["a", "b"])[np.arange(150) % 2]
SIZES = np.linspace(1.0, 2.0, 150)


def swapped(values, one=120, other=130):
    """The same values, but two in the place of each other."""
    values = values.copy()
    values[[one, other]] = values[[other, one]]
    return values


def other_value(X):
    X = X.copy()
    X[-1, -1] += 1.0
    return X


def counts(X):
    return np.random.default_rng(0).poisson(np.exp(X / 3.0)).astype(np.float32)


#: The rows and options of two fits, and what tells them apart.
OTHER_FITS = {
    "rows in another order": (lambda X: (X, {}), lambda X: (swapped(X), {}), "rows"),
    "another last value": (lambda X: (X, {}), lambda X: (other_value(X), {}), "rows"),
    "another data type": (lambda X: (X, {}), lambda X: (X.astype(float), {}), "rows"),
    "sparse rows in another order": (
        lambda X: (sparse.csr_matrix(np.maximum(X, 0)), {}),
        lambda X: (sparse.csr_matrix(swapped(np.maximum(X, 0))), {}),
        "rows",
    ),
    "stored rows in another order": (
        lambda X: (StoredTable(File(X)), {}),
        lambda X: (StoredTable(File(swapped(X))), {}),
        "rows",
    ),
    "rows in memory": (lambda X: (StoredTable(File(X)), {}), lambda X: (X, {}), "rows"),
    "sparse rows": (lambda X: (X, {}), lambda X: (sparse.csr_matrix(X), {}), "rows"),
    "labels in another order": (
        lambda X: (X, {"batch": LABELS}),
        lambda X: (X, {"batch": swapped(LABELS, 0, 149)}),
        "batch",
    ),
    "other labels": (
        lambda X: (X, {"batch": LABELS}),
        lambda X: (X, {"batch": np.char.add(LABELS, "x")}),
        "batch",
    ),
    "more labels": (
        lambda X: (X, {"batch": LABELS}),
        lambda X: (X, {"batch": np.arange(150) % 3}),
        r"batch \('2 labels, \w+' there, '3 labels, \w+' here\)",
    ),
    "no labels": (
        lambda X: (X, {"batch": LABELS}),
        lambda X: (X, {}),
        r"batch \('2 labels, \w+' there, None here\)",
    ),
    "labels": (
        lambda X: (X, {}),
        lambda X: (X, {"batch": LABELS}),
        r"batch \(None there, '2 labels",
    ),
    "size factors in another order": (
        lambda X: (counts(X), {"size_factor": SIZES}),
        lambda X: (counts(X), {"size_factor": swapped(SIZES)}),
        "size_factor",
    ),
    "weights in another order": (
        lambda X: (X, {"sample_weight": SIZES}),
        lambda X: (X, {"sample_weight": swapped(SIZES)}),
        "sample_weight",
    ),
    "no weights": (
        lambda X: (X, {"sample_weight": SIZES}),
        lambda X: (X, {}),
        r"sample_weight \('\w+' there, None here\)",
    ),
    "no size factors": (
        lambda X: (counts(X), {"size_factor": SIZES}),
        lambda X: (counts(X), {}),
        r"size_factor \('\w+' there, None here\)",
    ),
}


@pytest.mark.parametrize("name", OTHER_FITS)
def test_all_that_a_fit_depends_on_tells_it_from_others(X, tmp_path, name):
    make, make_other, differing = OTHER_FITS[name]
    params = {"likelihood": "poisson"} if "size" in name else {}
    params["max_iter"] = 2
    table, options = make(X)
    model = estimator(**params).fit(table, **options, checkpoint=tmp_path / "fit")
    other, other_options = make_other(X)
    with pytest.raises(CheckpointError, match=f"which differs in .*{differing}"):
        estimator(**params).fit(other, **other_options, checkpoint=tmp_path / "fit")
    again = estimator(**params).fit(table, **options, checkpoint=tmp_path / "fit")
    for key, weights in model.fitted_.model.state_dict().items():
        assert_array_equal(again.fitted_.model.state_dict()[key], weights)


def test_earlier_weights_tell_fits_apart(X, tmp_path):
    """Those that `warm_start` continues, with as many epochs before."""
    models = [
        estimator(max_iter=2, warm_start=True, random_state=seed).fit(X) for seed in (0, 0, 1)
    ]
    for model in models:
        model.set_params(random_state=0)
    path = tmp_path / "fit"
    codes = models[0].fit(X, checkpoint=path).transform(X)
    assert_array_equal(models[1].fit(X, checkpoint=path).transform(X), codes)
    with pytest.raises(CheckpointError, match="weights before"):
        models[2].fit(X, checkpoint=path)


def test_parameters_that_are_arrays_count_number_by_number():
    long = np.zeros(2000)
    assert describe(long) == describe(long.copy()) != describe(swapped(long + np.arange(2000.0)))
    assert describe(long) != describe(long.astype(np.float32))
    assert describe(np.float64(2.0)) == describe(2.0) == "2.0"


def test_a_stored_table_is_read_once_more_only_for_a_checkpoint(X, tmp_path):
    reads = []

    class Counted(File):
        def __getitem__(self, rows):
            reads.append(rows)
            return super().__getitem__(rows)

    estimator(max_iter=1).fit(StoredTable(Counted(X)))
    without = len(reads)
    estimator(max_iter=1).fit(StoredTable(Counted(X)), checkpoint=tmp_path / "fit")
    assert len(reads) - without == without + 1


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


@pytest.mark.slow
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
    # (A trial takes rows, too.)
    estimator(max_iter=1, batch_size=16, linear_path=False).fit(X, checkpoint=tmp_path / "fit")
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
