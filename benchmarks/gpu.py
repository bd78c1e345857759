"""Rows a second of training on a GPU, ours against pythae and scVI on the same work.

``python -m benchmarks gpu`` needs torch, scikit-learn, numpy and scipy alone; the peers join
in where they are installed. It writes ``results/gpu.json``: rows a second at minibatches of
128 with CUDA graphs (the default), step by step, and through ``compile=True`` with the
seconds it takes; larger minibatches; and the share of the card's own matrix product that
the paper's networks reach at 8,192 rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write
from benchmarks.speed_cell import (
    N_COMPONENTS,
    N_IMAGES,
    counts,
    images,
    log_values,
    pythae,
    scvi,
)
from skhebae import HEBAETransformer

#: Epochs of ours that are timed, after some that are not.
WARM_UP, EPOCHS = 3, 12

#: Epochs of the two fits of a peer whose difference is timed.
PEER_EPOCHS = (1, 5)

RATIOS = {
    "ratio_pythae_paper_gpu": ("paper", "pythae"),
    "ratio_scvi_counts_gpu": ("counts", "scVI"),
    "ratio_scvi_gaussian_gpu": ("gaussian", "scVI"),
}


def networks() -> dict[str, Any]:
    """Return the paper's networks and likelihood."""
    from benchmarks.architectures import dense_decoder, dense_encoder

    return {"encoder": dense_encoder, "decoder": dense_decoder, "likelihood": "bernoulli"}


#: Tables and parameters of each work.
WORK: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]]]] = {
    "paper": (images, networks),
    "counts": (counts, lambda: {"likelihood": "negative_binomial"}),
    "gaussian": (log_values, dict),
}


@contextmanager
def step_by_step() -> Iterator[None]:
    """No CUDA graphs inside the block."""
    from skhebae.engine import loop

    before = loop.can_be_captured
    loop.can_be_captured = lambda model: False
    try:
        yield
    finally:
        loop.can_be_captured = before


def ours(X: Any, batch_size: int = 128, **params: Any) -> dict[str, float]:
    """Rows a second of an epoch of ours, and seconds before they are reached."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = HEBAETransformer(
        N_COMPONENTS,
        batch_size=batch_size,
        max_iter=WARM_UP + EPOCHS,
        n_iter_no_change=10**6,
        random_state=0,
        device="cuda",
        **params,
    )
    start = time.perf_counter()
    model.fit(X)
    total = time.perf_counter() - start
    seconds = model.history_["seconds"]
    epoch = median(seconds[WARM_UP:])
    return {
        "rows_per_second": X.shape[0] / epoch,
        "seconds_until_then": seconds[0] - epoch,
        "fit_seconds": total,
        "loss": model.history_["loss"][-1],
        "gpu_mib": torch.cuda.max_memory_allocated() / 2**20,
    }


def peer(fit: Callable[[int], Any], n_rows: int) -> dict[str, float]:
    """Rows a second of a peer, from the difference of a long and a short fit."""
    fit(1)  # what is done once
    seconds = []
    for epochs in PEER_EPOCHS:
        start = time.perf_counter()
        fit(epochs)
        seconds.append(time.perf_counter() - start)
    rows = n_rows * (PEER_EPOCHS[1] - PEER_EPOCHS[0])
    return {"rows_per_second": rows / (seconds[1] - seconds[0])}


def matrix_product_rate(size: int = 8192, repeats: int = 20) -> float:
    """Operations a second of the card's own product of bfloat16 matrices."""
    import torch

    a, b = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    for _ in range(3):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return 2.0 * size**3 * repeats / (start.elapsed_time(end) / 1e3)


def operations_per_row() -> float:
    """Operations of the paper's networks for a row of a step: forward, and both gradients."""
    encoder = [(784, 784), (784, 800), (800, 2 * N_COMPONENTS)]
    decoder = [(N_COMPONENTS, 800), (800, 800), (800, 784)]
    products = sum(a * b for a, b in [*encoder, *decoder])
    return 2.0 * (3 * products - 784 * 784)  # no gradient by the input


def of_large_minibatches() -> dict[str, Any]:
    """Measure the paper's networks at 8,192 rows against the card's own product."""
    rates = ours(np.tile(images(16_384), (8, 1)), 8192, **networks())
    reached = rates["rows_per_second"] * operations_per_row()
    peak = matrix_product_rate()
    return {
        **rates,
        "tflops": reached / 1e12,
        "product_tflops": peak / 1e12,
        "share_of_product": reached / peak,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, write, print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        print("torch sees no GPU here")
        return
    rows: list[dict[str, Any]] = []
    facts = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}

    def add(name: str, how: str, measured: dict[str, Any], **more: Any) -> None:
        rows.append({"name": name, "how": how, **more, **measured, **facts})
        print(rows[-1], flush=True)
        write("gpu", rows, folder=arguments.output)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few epochs converge to nothing
        for repeat in range(arguments.repeats):
            for name in arguments.work:
                table, params = WORK[name]
                X = table()
                add(name, "graphs", ours(X, **params()), batch_size=128, repeat=repeat)
                measure_peer(name, repeat, add)
        for name in arguments.work:
            table, params = WORK[name]
            X = table()
            with step_by_step():
                add(name, "step by step", ours(X, **params()), batch_size=128)
            add(name, "graphs, float32", ours(X, precision="float32", **params()), batch_size=128)
            add(name, "graphs", ours(X, 1024, **params()), batch_size=1024)
        if "paper" in arguments.work:
            add("paper", "graphs", of_large_minibatches(), batch_size=8192)
        if not arguments.no_compile:
            for name in arguments.work:
                table, params = WORK[name]
                add(name, "compile", ours(table(), compile=True, **params()), batch_size=128)
    for label, text in ratios(rows).items():
        print(f"{label}: {text}")


def measure_peer(name: str, repeat: int, add: Callable[..., None]) -> None:
    """Measure the peer that does this work, if it is here."""
    peers = {
        "paper": ("pythae", "pythae", lambda: pythae(on_gpu=True)),
        "counts": ("scVI", "scvi", lambda: scvi(on_gpu=True, gene_likelihood="nb")),
        "gaussian": ("scVI", "scvi", lambda: scvi(on_gpu=True, gene_likelihood="normal")),
    }
    how, module, prepare = peers[name]
    if find_spec(module):
        add(name, how, peer(prepare(), N_IMAGES), batch_size=128, repeat=repeat)
    else:
        print(f"{how} is not installed: pip install it for its ratio")


def ratios(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Ratios of the median rates at minibatches of 128: by graphs, and compiled."""
    found = {}
    for label, (name, who) in RATIOS.items():

        def rate(how: str, name: str = name) -> float | None:
            rates = [
                row["rows_per_second"]
                for row in rows
                if (row["name"], row["how"], row["batch_size"]) == (name, how, 128)
            ]
            return median(rates) if rates else None

        theirs, graphs, compiled = rate(who), rate("graphs"), rate("compile")
        if theirs and graphs:
            found[label] = f"{graphs / theirs:.1f}"
            if compiled:
                found[label] += f" (compiled {compiled / theirs:.1f})"
    return found


if __name__ == "__main__":
    main()
