"""Compare what this commit computes with what another one did, to the last bit.

Processors round differently, so nothing is committed: write a file with one commit, compare
with another, both on one machine::

    python -m tests.pins write before.npz
    python -m tests.pins compare before.npz

Each case is one small fit with ``random_state=0``. What is kept of it: the arrays of its saved
file (weights, moments and so on), codes, decoded rows, scores, bounds, samples and the history.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import StoredTable

ESTIMATORS = (HEBAETransformer, VAETransformer, WAETransformer)
LIKELIHOODS = (
    "gaussian",
    "bernoulli",
    "poisson",
    "negative_binomial",
    "zero_inflated_negative_binomial",
)
SMALL: dict[str, Any] = {
    "n_components": 2,
    "hidden_layer_sizes": (8,),
    "max_iter": 3,
    "batch_size": 16,
    "random_state": 0,
}
N_ROWS, N_FEATURES = 60, 8

Arrays = dict[str, np.ndarray]


def table(likelihood: str, n_rows: int = N_ROWS) -> np.ndarray:
    """Rows that a likelihood accepts, half of them zeros."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(n_rows, 2))
    values = np.tanh(codes @ rng.normal(size=(2, N_FEATURES)))
    values *= rng.random(values.shape) < 0.5
    if likelihood == "gaussian":
        return 5.0 * values
    if likelihood == "bernoulli":
        return 0.5 + 0.5 * values
    return rng.poisson(10.0 * np.abs(values)).astype(np.float64)


def stored(X: np.ndarray) -> StoredTable:
    """A table that is read in blocks."""
    import dask.array

    return StoredTable(dask.array.from_array(X, chunks=(16, N_FEATURES)))


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "dense": lambda X: X,
    "csr": sparse.csr_matrix,
    "stored": stored,
}


def facts(model: Any, X: Any, **side: Any) -> Arrays:
    """All that a fitted estimator says about rows, and what it saves."""
    scored = {k: v for k, v in side.items() if v is not None}
    labels = {"batch": scored["batch"]} if "batch" in scored else {}
    encoded = labels if model.encode_batch else {}
    one = {k: v[0] for k, v in labels.items()}
    codes = model.transform(X, **encoded)
    result = {
        "codes": codes,
        "decoded": model.inverse_transform(codes, **labels),
        "posterior": model.posterior(X, **encoded).covariance_factor,
        "score_samples": model.score_samples(X, **scored),
        "elbo": model.elbo(X, **scored),
        "log_likelihood": model.log_likelihood(X, n_draws=3, **scored),
    }
    for latent in ("mixture", "gaussian", "prior"):
        result[f"sample {latent}"] = model.sample(5, latent, 0, **one)
        result[f"sample {latent} noise"] = model.sample(5, latent, 0, noise=True, **one)
    if labels:
        result["sample average"] = model.sample(5, random_state=0, noise=True, batch="average")
    if hasattr(model, "hebae_bound"):
        result["hebae_bound"] = model.hebae_bound(X, **scored)
    for key, values in model.history_.items():
        if key != "seconds":
            result[f"history {key}"] = np.array(values)
    return result | saved_arrays(model)


def saved_arrays(model: Any) -> Arrays:
    """Arrays of the file that `save` writes, and what else it says of the fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skhebae"
        model.save(path)
        with safe_open(path, framework="numpy") as file:
            arrays = {f"file {name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            document = json.loads(file.metadata()["skhebae"])
    document["fitted"]["history_"].pop("seconds")
    for of_the_file in ("digest", "version"):
        document.pop(of_the_file, None)
    arrays["file document"] = np.frombuffer(
        json.dumps(document, sort_keys=True).encode(), dtype=np.uint8
    )
    return arrays


def fitted(cls: type = HEBAETransformer, kind: str = "dense", **params: Any) -> Arrays:
    """One fit, and what it says about its own rows."""
    params = {**SMALL, **params}
    X = KINDS[kind](table(params.get("likelihood", "gaussian")))
    return facts(cls(**params).fit(X), X)


def with_batches(cls: type, **params: Any) -> Arrays:
    """Three batches, one of a single row."""
    params = {**SMALL, **params}
    X = table(params.get("likelihood", "gaussian"))
    batch = np.array(["a", "b"])[np.arange(len(X)) % 2].astype(object)
    batch[7] = "c"
    return facts(cls(**params).fit(X, batch=batch), X, batch=batch)


def with_size_factors() -> Arrays:
    """Counts with exposures in a unit of their own."""
    X = table("poisson")
    factors = 0.5 + np.arange(len(X)) / len(X)
    model = HEBAETransformer(**SMALL, likelihood="negative_binomial")
    return facts(model.fit(X, size_factor=factors), X, size_factor=factors)


def transformed_at_once(kind: str) -> Arrays:
    """Codes of `fit_transform`."""
    X = KINDS[kind](table("poisson"))
    return {"codes": HEBAETransformer(**SMALL, likelihood="poisson").fit_transform(X)}


def warm_started() -> Arrays:
    """Two fits, the second from the first."""
    X = table("gaussian")
    model = HEBAETransformer(**SMALL, warm_start=True).fit(X[:40])
    return facts(model.fit(X), X)


def in_parts(**params: Any) -> Arrays:
    """Three calls of `partial_fit`."""
    params = {**SMALL, **params}
    X = table(params.get("likelihood", "gaussian"))
    model = HEBAETransformer(**params)
    for start in (0, 20, 40):
        model.partial_fit(X[start : start + 20])
    return facts(model, X)


def streamed() -> Arrays:
    """`partial_fit` on a stream."""
    X = table("gaussian")
    model = VAETransformer(**SMALL).partial_fit(X[i : i + 20] for i in (0, 20, 40))
    return facts(model, X)


class Interruption(Exception):  # noqa: N818
    """Stands for a power cut."""


def resumed(**params: Any) -> Arrays:
    """A fit that goes on from the checkpoint of one that was interrupted."""
    X = table("gaussian")

    def schedule(stops: int) -> Callable[[int], float]:
        def rate(epoch: int) -> float:
            if epoch == stops:
                raise Interruption
            return 1.0

        return rate

    params = {**SMALL, "max_iter": 5, **params}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        try:
            HEBAETransformer(**params, learning_rate=schedule(2)).fit(X, checkpoint=path)
        except Interruption:
            model = HEBAETransformer(**params, learning_rate=schedule(-1)).fit(X, checkpoint=path)
    return facts(model, X)


def dropout_encoder(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make an encoder that draws from the global random state, and has buffers."""
    return nn.Sequential(
        nn.Linear(*shape, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, n_outputs)
    )


def linear_decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Make a linear decoder."""
    return nn.Linear(n_components, *shape)


def single_cell() -> Arrays:
    """The functions of `skhebae.tl`."""
    import anndata

    import skhebae.tl

    X = table("poisson").astype(np.float32)
    adata = anndata.AnnData(sparse.csr_matrix(X))
    adata.obs["batch"] = np.array(["a", "b"])[np.arange(len(X)) % 2]
    params = {k: v for k, v in SMALL.items() if k not in ("n_components", "random_state")}
    model = skhebae.tl.hebae(adata, 2, batch_key="batch", return_model=True, **params)
    skhebae.tl.denoise(adata, model)
    skhebae.tl.score(adata, model)
    query = adata[:, :-1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skhebae.tl.project(query, model, key_added="partial")
    generated = skhebae.tl.sample(model, 5, batch="a")
    return {
        "codes": adata.obsm["X_hebae"],
        "denoised": adata.layers["hebae_denoised"],
        "score": adata.obs["hebae_score"].to_numpy(),
        "projected": query.obsm["partial"],
        "generated": generated.X.toarray(),
        **saved_arrays(model),
    }


def reported(cls: type, **params: Any) -> Arrays:
    """The numbers of `latent_report`."""
    from skhebae.diagnostics import latent_report

    X = table("gaussian")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = latent_report(cls(**{**SMALL, **params}).fit(X), X)
    return {
        name: np.asarray(value)
        for name, value in vars(report).items()
        if not isinstance(value, str | tuple)
    }


def by_two_processes(likelihood: str, **options: Any) -> Arrays:
    """One fit by two processes, as the first of them sees it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "facts.npz"
        store = Path(folder) / "store"
        arguments = [likelihood, json.dumps(options), str(store), str(output)]
        command = [sys.executable, "-m", "tests.pins", "process"]
        processes = [subprocess.Popen([*command, str(rank), *arguments]) for rank in (0, 1)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError("a process of the pair failed")
        with np.load(output) as file:
            return dict(file)


def one_of_two(rank: int, likelihood: str, options: str, store: str, output: str) -> None:
    """Fit as one of two processes."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    X = table(likelihood)
    params = {**SMALL, **json.loads(options), "likelihood": likelihood}
    model = HEBAETransformer(**params).fit(X[rank::2])
    if rank == 0:
        np.savez(output, **facts(model, X))
    distributed.barrier()
    # Not by the interpreter's own way out: gloo's threads may abort a process that takes it.
    os._exit(0)


def noisy_from_a_pool() -> Arrays:
    """A table so large that input noise is drawn from a pool."""
    X = np.random.default_rng(0).normal(size=(2200, 2000)).astype(np.float32)
    model = HEBAETransformer(**{**SMALL, "max_iter": 1, "batch_size": 256}).fit(X)
    return {"codes": model.transform(X[:9]), **saved_arrays(model)}


def cases() -> Iterator[tuple[str, Callable[[], Arrays]]]:
    """Names of the cases, and what makes them."""
    for cls in ESTIMATORS:
        for likelihood in LIKELIHOODS:
            for kind in KINDS:
                yield (
                    f"{cls.__name__} {likelihood} {kind}",
                    lambda c=cls, n=likelihood, k=kind: fitted(c, k, likelihood=n),
                )
        for likelihood in ("gaussian", "negative_binomial"):
            for encodes in (False, True):
                yield (
                    f"{cls.__name__} {likelihood} batches encode_batch={encodes}",
                    lambda c=cls, n=likelihood, e=encodes: with_batches(
                        c, likelihood=n, encode_batch=e
                    ),
                )
        yield f"{cls.__name__} early stopping", lambda c=cls: fitted(c, early_stopping=True)
        yield f"{cls.__name__} report", lambda c=cls: reported(c)
    hebae: dict[str, dict[str, Any]] = {
        "row_share": {"row_share": 0.3},
        "row_share 1": {"row_share": 1.0},
        "diag": {"covariance": "diag", "posterior_scale": "scalar"},
        "diag row_share": {"covariance": "diag", "row_share": 0.3},
        "bfloat16": {"precision": "bfloat16"},
        "weight decay": {"weight_decay": 0.1, "max_iter": "auto", "batch_size": "auto"},
        "linear": {"hidden_layer_sizes": (), "input_noise": 0.1},
        "dropout": {"encoder": dropout_encoder},
        "decoder": {"decoder": linear_decoder},
        "image": {"decoder": image_decoder, "image_shape": (2, 4)},
    }
    for name, params in hebae.items():
        yield name, lambda p=params: fitted(**p)
    yield "report row_share", lambda: reported(HEBAETransformer, row_share=0.3)
    yield "batches batch_share 0.5", lambda: with_batches(HEBAETransformer, batch_share=0.5)
    yield "size factors", with_size_factors
    for kind in KINDS:
        yield f"fit_transform {kind}", lambda k=kind: transformed_at_once(k)
    yield "warm start", warm_started
    yield "partial_fit", in_parts
    yield "partial_fit counts", lambda: in_parts(likelihood="negative_binomial")
    yield "stream", streamed
    yield "resumed", resumed
    yield "resumed early stopping", lambda: resumed(early_stopping=True)
    yield "resumed dropout", lambda: resumed(encoder=dropout_encoder)
    yield "two processes", lambda: by_two_processes("gaussian")
    yield "two processes early stopping", lambda: by_two_processes("gaussian", early_stopping=True)
    yield "two processes row_share", lambda: by_two_processes("gaussian", row_share=0.3)
    yield "two processes counts", lambda: by_two_processes("negative_binomial")
    yield "tl", single_cell
    yield "noise pool", noisy_from_a_pool


def image_decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Make a decoder to images."""
    return nn.Sequential(nn.Linear(n_components, int(np.prod(shape))), nn.Unflatten(1, shape))


def computed() -> Arrays:
    """Arrays of all cases, under "case | name"."""
    result: Arrays = {}
    for name, make in cases():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result |= {f"{name} | {key}": np.asarray(value) for key, value in make().items()}
    return result


def difference(before: np.ndarray, now: np.ndarray) -> str | None:
    """Say how two arrays differ; None if they do not."""
    if before.dtype == now.dtype and before.shape == now.shape:
        if before.tobytes() == now.tobytes():
            return None
        if before.dtype.kind == "f":
            size = np.abs(before.astype(np.float64) - now).max()
            return f"by {size:.3g} of {np.abs(before).max():.3g}"
    return f"{before.dtype}{before.shape} was, {now.dtype}{now.shape} is"


def compare(before: Arrays, now: Arrays) -> list[str]:
    """Lines on what differs."""
    lines = [f"{name}: missing now" for name in before if name not in now]
    lines += [f"{name}: new" for name in now if name not in before]
    for name in before:
        if name in now and (text := difference(before[name], now[name])):
            if name.endswith("file document"):
                old, new = (of[name].tobytes().decode() for of in (before, now))
                text = f"\n  was {old}\n  is  {new}"
            lines.append(f"{name}: {text}")
    return lines


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    now = computed()
    if arguments.verb == "write":
        np.savez_compressed(arguments.file, **now)
        print(f"{len(now)} arrays of {len(list(cases()))} cases")
        return 0
    with np.load(arguments.file) as file:
        lines = compare(dict(file), now)
    print(*lines, f"{len(now)} arrays, {len(lines)} differ", sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["process"]:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore", ConvergenceWarning)
        one_of_two(int(sys.argv[2]), *sys.argv[3:])
    else:
        sys.exit(main())
