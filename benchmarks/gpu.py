"""Rows per second of training on a GPU, ours against pythae and scVI on the same work.

``python -m benchmarks gpu`` writes ``results/gpu.json``: minibatches of 128 with CUDA graphs (the
default), step by step, and with ``compile=True``; and larger ones. Peers may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import work
from benchmarks.results import Results, parser
from benchmarks.runner import Row
from benchmarks.speed import rate, unwarned
from benchmarks.work import BATCH_SIZE, N_ROWS, dense_encoder

#: Epochs of ours that are timed, after some that are not.
WARM_UP, EPOCHS = 3, 12
#: Rows of a larger minibatch, and of the largest.
LARGE, LARGEST = 1024, 8192
#: Name, module and fit of the peer that does each work.
PEERS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "paper": ("pythae", "pythae", lambda X: work.pythae(X, on_gpu=True)),
    "counts": ("scVI", "scvi", lambda X: work.scvi(X, on_gpu=True, gene_likelihood="nb")),
    "gaussian": (
        *("scVI", "scvi"),
        lambda X: work.scvi(work.counts(), on_gpu=True, gene_likelihood="normal"),
    ),
}


class NotTorchs(nn.Sequential):
    """A module that is not torch's own, which the library does not put into a CUDA graph."""


def step_by_step(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make the paper's encoder so that it trains without CUDA graphs."""
    return NotTorchs(dense_encoder(shape, n_outputs))


def ours(X: Any, **params: Any) -> Row:
    """Return rows per second of an epoch of ours, and seconds before they are reached."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = work.ours("HEBAE", X, device="cuda", **params)(WARM_UP + EPOCHS)
    seconds = model.history_["seconds"]
    epoch = median(seconds[WARM_UP:])
    return {
        "rows_per_second": X.shape[0] / epoch,
        "seconds_until_then": seconds[0] - epoch,
        "loss": model.history_["loss"][-1],
        "gpu_mib": torch.cuda.max_memory_allocated() / 2**20,
    }


def measure(name: str, repeats: int, add: Callable[..., None], *, compiled: bool) -> None:
    """Measure one work in every way."""
    params: dict[str, Any]
    X, params = {
        "paper": (work.images, work.networks()),
        "counts": (work.counts, {"likelihood": "negative_binomial"}),
        "gaussian": (work.log_values, {}),
    }[name]
    X, (peer, module, prepare) = X(), PEERS[name]
    for repeat in range(repeats):
        add("graphs", ours(X, **params), repeat=repeat)
        if find_spec(module):
            add(peer, {"rows_per_second": rate(prepare(X), N_ROWS)}, repeat=repeat)
    add("graphs, float32", ours(X, precision="float32", **params))
    add("graphs", ours(X, batch_size=LARGE, **params), batch_size=LARGE)
    if name == "paper":
        add("step by step", ours(X, **params | {"encoder": step_by_step}))
        many = np.tile(X, (10, 1))
        add("graphs", ours(many, batch_size=LARGEST, **params), batch_size=LARGEST)
    if compiled:
        add("compile", ours(X, compile=True, **params))


def ratios(rows: list[Row]) -> dict[str, str]:
    """Return ratios of the median rates at minibatches of 128: by graphs, and compiled."""
    found = {}
    for name, (peer, module, _) in PEERS.items():
        rates = {
            how: [
                row["rows_per_second"]
                for row in rows
                if (row["name"], row["how"], row["batch_size"]) == (name, how, BATCH_SIZE)
            ]
            for how in (peer, "graphs", "compile")
        }
        theirs, graphs, compiled = (median(of) if of else None for of in rates.values())
        if theirs and graphs:
            more = f" (compiled {compiled / theirs:.1f})" if compiled else ""
            found[f"ratio_{module}_{name}_gpu"] = f"{graphs / theirs:.1f}{more}"
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure, write, print the ratios."""
    made = parser("gpu", __doc__)
    made.add_argument("--work", nargs="+", choices=list(PEERS), default=list(PEERS))
    made.add_argument("--no-compile", action="store_true")
    made.add_argument("--repeats", type=int, default=2)
    arguments = made.parse_args(argv)
    if not torch.cuda.is_available():
        print("torch sees no GPU here")
        return
    results = Results(arguments.output / "gpu.json")
    facts = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    for name in arguments.work:

        def add(how: str, measured: Row, name: str = name, **more: Any) -> None:
            cell = {"name": name, "how": how, "batch_size": BATCH_SIZE, **more}
            results.add({**cell, **measured, **facts})

        with unwarned():
            measure(name, arguments.repeats, add, compiled=not arguments.no_compile)
    for label, text in ratios(results.rows).items():
        print(f"{label}: {text}")
