"""What the processes of tests/test_distributed.py do; they import nothing of pytest."""

from __future__ import annotations

import datetime
import gc
import os
import signal
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from torch import distributed, nn

import skhebae
from skhebae.data import Minibatch, Table
from skhebae.distributed import GatherRows, TorchGroup
from skhebae.fitted.agreement import seed_of_rank
from skhebae.likelihoods import find_likelihood
from skhebae.training import checkpoint as checkpoint_module
from skhebae.training import loop, unfinished
from skhebae.training import step as step_module


def serve(rank, size, store, seconds, pipe):
    """Join a group of processes and do what comes through the pipe, until it is None."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    # How long imports take is not on the group's time.
    pipe.send("imported")
    pipe.recv()
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=seconds),
    )
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            pipe.send((function(*arguments), None))
        except Exception as error:
            pipe.send((None, (type(error).__name__, str(error))))
    distributed.destroy_process_group()


def fit(params, X, changes=(), **options):
    """Fit, or with `partial` call `partial_fit` on each of several tables; the estimator."""
    params = dict(params)
    model = getattr(skhebae, params.pop("cls", "HEBAETransformer"))(**params)
    with changed(*changes):
        if "partial" in options:
            for table in options["partial"]:
                model.partial_fit(table)
            return model
        return model.fit(X, **options)


def fit_with(params, X, options, changes=()):
    """`fit`, with its options in a dict."""
    return fit(params, X, changes, **options)


def fit_and_warn(params, X, options):
    """Return the estimator, and the names of the warnings of its fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(params, X, **options)
    names = [warning.category.__name__ for warning in caught]
    return model, [name for name in names if name != "ConvergenceWarning"]


def left_after_fit(params, X):
    """Whether anything of DistributedDataParallel outlives a fit."""
    gc.disable()
    try:
        skhebae.HEBAETransformer(**params).fit(X)
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
    finally:
        gc.enable()
    return "DistributedDataParallel" in kinds


def left_after_failing(params, X):
    """Names of what outlives a fit whose third epoch raises, and the error's name."""

    def rate(epoch):
        if epoch == 2:
            raise InterruptedFitError
        return 1.0

    gc.disable()
    try:
        skhebae.HEBAETransformer(**{**params, "learning_rate": rate}).fit(X)
    except InterruptedFitError as error:
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return "DistributedDataParallel" in kinds, type(error).__name__
    finally:
        gc.enable()
    return None


def fit_transform(params, X):
    """Return the codes of this process's rows."""
    return skhebae.HEBAETransformer(**params).fit_transform(X)


def fit_stored(params, path, rows):
    """Fit to rows of a file."""
    import h5py

    from skhebae.data import StoredTable

    with h5py.File(path, "r") as file:
        return fit(params, StoredTable(OfRows(file["X"], *rows)))


class OfRows:
    """Contiguous rows of a matrix."""

    def __init__(self, source, start, stop):
        self._source, self._start = source, start
        self.shape, self.dtype = (stop - start, source.shape[1]), source.dtype

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(self.shape[0])
        return self._source[self._start + start : self._start + stop]


@contextmanager
def changed(*changes):
    """Set attributes for the time of the block."""
    changes = [CHANGES[name] for name in changes]
    before = [getattr(of, name) for of, name, _ in changes]
    for of, name, value in changes:
        setattr(of, name, value)
    try:
        yield
    finally:
        for (of, name, _), value in zip(changes, before, strict=True):
            setattr(of, name, value)


def cut_backward(ctx, *gradients):
    """Of a gather without gradients: what others' losses owe to these rows is lost."""
    return gradients[0][ctx.own], None, None


#: By name, since processes of their own have these modules of their own.
CHANGES = {
    "cut": (GatherRows, "backward", staticmethod(cut_backward)),
    "all code variance rows": (step_module, "CODE_VARIANCE_ROWS", 256),
    "often code variance": (step_module, "CODE_VARIANCE_STEPS", 10),
    "write always": (checkpoint_module, "COST", 0.0),
    "within epochs": (checkpoint_module, "WITHIN_EPOCH", 0.0),
    "every third minibatch": (unfinished, "ASK_STEPS", 3),
}


def recorded_losses(params, X, changes=()):
    """Loss of every step, and the fitted estimator."""
    losses = []
    loss_terms = step_module.loss_terms

    def recording(*arguments, **options):
        terms = loss_terms(*arguments, **options)
        losses.append(float(terms.loss.detach()))
        return terms

    step_module.loss_terms = recording
    try:
        model = fit(params, X, changes)
    finally:
        step_module.loss_terms = loss_terms
    return np.array(losses), model


def shards_with_the_same_minibatches(X, size, n_steps, random_state):
    """Rows of each process, so that all together see the minibatches that one would see."""
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    order = int(np.random.SeedSequence(seed, spawn_key=(0,)).generate_state(4)[1])
    minibatches = X[permutation(len(X), order)].reshape(n_steps, size, -1, X.shape[1])
    shards = []
    for rank in range(size):
        rows = minibatches[:, rank].reshape(-1, X.shape[1])
        shard = np.empty_like(rows)
        shard[permutation(len(rows), seed_of_rank(order, rank))] = rows
        shards.append(shard)
    return shards


def permutation(n_rows, seed):
    """The first order of the rows in a fit."""
    return torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed)).numpy()


def gathered_gradient(codes, sizes, weights):
    """This process's gradient of a loss of all rows, and the gathered rows."""
    rank = distributed.get_rank()
    group = TorchGroup(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    (shard,) = group.shards(sizes, 1, generator)
    start = sum(sizes[:rank])
    own = torch.from_numpy(codes[start : start + sizes[rank]]).requires_grad_()
    minibatch = Minibatch(own, shard=shard, generator=generator)
    everything = minibatch.gather(own)
    # Each process has a loss of its own, as reconstructions are.
    loss = (everything.square().sum(dim=1).exp() * torch.from_numpy(weights[rank])).sum()
    loss = loss + minibatch.mean(own.sum(dim=1))
    (gradient,) = torch.autograd.grad(loss, own)
    return gradient.numpy(), everything.detach().numpy(), minibatch.draw(own).numpy()


def measured(X, likelihood, size_factor=None):
    """Scaling of the tables of all processes."""
    group = TorchGroup(torch.device("cpu"))
    table = Table(X, size_factor=size_factor, group=group)
    return find_likelihood(likelihood).scaling_class.measure(table)


def killed_in_epoch(params, X, path, rank, epoch, by=signal.SIGKILL):
    """Fit, with a checkpoint, and send itself a signal at the end of an epoch if of this rank."""
    train_epoch = loop.train_epoch

    def dying(run, step, rows, indices, schedule, number, *unfinished):
        means = train_epoch(run, step, rows, indices, schedule, number, *unfinished)
        if number == epoch and distributed.get_rank() == rank:
            os.kill(os.getpid(), by)
        return means

    loop.train_epoch = dying
    try:
        return fit_with(params, X, {"checkpoint": path}, ["write always"])
    finally:
        loop.train_epoch = train_epoch


def earlier_and_failing(params, X, bad):
    """Codes of an earlier fit, after one that failed."""
    model = fit(params, X)
    before = model.transform(X)
    try:
        model.fit(bad)
    except ValueError as error:
        return before, model.transform(X), str(error)
    return None


class InterruptedFitError(Exception):
    """What stands for a power cut of all."""


def interrupted(params, X, path, n_files, changes=()):
    """Fit, with a checkpoint, and stop when so many files were written: the error's name."""
    write, written = checkpoint_module.write_document, []

    def counted(*arguments, **options):
        write(*arguments, **options)
        written.append(1)
        if len(written) == n_files:
            raise InterruptedFitError

    checkpoint_module.write_document = counted
    try:
        fit_with(params, X, {"checkpoint": path}, ["write always", *changes])
    except InterruptedFitError as error:
        return type(error).__name__
    finally:
        checkpoint_module.write_document = write
    return None


def with_dropout(shape, n_outputs):
    """Make an encoder with masks and with buffers."""
    return nn.Sequential(
        nn.Linear(*shape, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, n_outputs),
    )


class IdleInPart(nn.Module):
    """An encoder with a parameter that does nothing."""

    def __init__(self, shape, n_outputs):
        super().__init__()
        self.idle = nn.Linear(3, 3)
        self.layers = nn.Linear(*shape, n_outputs)

    def forward(self, x):
        return self.layers(x)


ENCODERS = {"dropout": with_dropout, "in part idle": IdleInPart}
