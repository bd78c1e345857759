"""Where the time of a training step goes, beside what its arithmetic alone would take.

``python -m benchmarks profile`` trains the networks of ``speed`` under torch's profiler and
writes ``results/profile.json``: milliseconds a step in products, casts and copies, the
optimiser, other operations, and in none (Python, and whatever stands between operations).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, write
from benchmarks.speed_cell import BATCH_SIZE, N_COMPONENTS, N_GENES, ours, paper

#: Epoch that is profiled, after others that are timed without a profiler.
EPOCHS, TIMED = 5, range(1, 4)

#: Kinds of operations by the beginnings of their names.
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmv", "aten::mv"),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::cat", "aten::index_select"),
    "optimiser": ("aten::_fused_adamw_",),
}


def multiplications(work: str) -> float:
    """Multiplications of a row's step: forward, and both gradients but that by the input."""
    if work == "paper":
        sizes = [(784, 784), (784, 800), (800, 2 * N_COMPONENTS), (N_COMPONENTS, 800), (800, 800)]
        sizes.append((800, 784))
    else:
        sizes = [(N_GENES, 128), (128, 2 * N_COMPONENTS), (N_COMPONENTS, 128), (128, N_GENES)]
    products = [a * b for a, b in sizes]
    return 3.0 * sum(products) - products[0]


def product_rate(dtype_name: str) -> float:
    """Operations a second of products of a minibatch with a matrix of 784 x 784."""
    import torch

    dtype = getattr(torch, dtype_name)
    x, w = torch.randn(BATCH_SIZE, 784).to(dtype), torch.randn(784, 784).to(dtype)
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(50):
            torch.nn.functional.linear(x, w)
        best = min(best, (time.perf_counter() - start) / 50)
    return 2.0 * BATCH_SIZE * 784 * 784 / best


def profiled(fit: Callable[[int], Any]) -> dict[str, float]:
    """Milliseconds a step by kind, of one epoch under the profiler, and in all without."""
    from torch.profiler import ProfilerActivity, profile

    from skhebae.engine import loop

    run_epoch = loop.run_epoch
    seconds: list[float] = []
    found: dict[str, float] = {}

    def watched(step: Any, rows: Any, minibatches: Any, *more: Any) -> dict[str, float]:
        start = time.perf_counter()
        if len(seconds) < EPOCHS - 1:
            means = run_epoch(step, rows, minibatches, *more)
        else:
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                means = run_epoch(step, rows, minibatches, *more)
            found.update(by_kind(profiler.key_averages(), len(minibatches)))
        seconds.append((time.perf_counter() - start) / len(minibatches))
        return means

    loop.run_epoch = watched
    try:
        fit(EPOCHS)
    finally:
        loop.run_epoch = run_epoch
    step = 1e3 * min(seconds[i] for i in TIMED)
    return {**found, "none": max(0.0, step - sum(found.values())), "step": step}


def by_kind(events: Any, n_steps: int) -> dict[str, float]:
    """Milliseconds a step by `KINDS`; the rest is other operations."""
    total: Counter[str] = Counter(dict.fromkeys(KINDS, 0.0))
    for event in events:
        if not event.key.startswith("aten::"):
            continue
        kinds = [kind for kind, names in KINDS.items() if event.key in names]
        total[kinds[0] if kinds else "other operations"] += event.self_cpu_time_total
    return {kind: microseconds / 1e3 / n_steps for kind, microseconds in total.items()}


def main(argv: list[str] | None = None) -> None:
    """Profile, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    import torch

    from benchmarks.speed_cell import counts, log_values
    from skhebae import HEBAETransformer
    from skhebae.engine.devices import has_native_bfloat16

    torch.set_num_threads(arguments.threads)
    default = "bfloat16" if has_native_bfloat16(torch.device("cpu")) else "float32"
    rates = {name: product_rate(name) for name in ("float32", default)}
    work: dict[str, Callable[[], Any]] = {
        "paper": lambda: paper(HEBAETransformer),
        "counts": lambda: ours(HEBAETransformer, counts(), likelihood="negative_binomial"),
        "gaussian": lambda: ours(HEBAETransformer, log_values()),
    }
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few epochs converge to nothing
        for name, prepare in work.items():
            fit = prepare()
            fit(1)
            operations = 2.0 * BATCH_SIZE * multiplications(name)
            rows.append(
                {
                    "name": name,
                    "precision": default,
                    "product_gflops": rates[default] / 1e9,
                    "product_gflops_float32": rates["float32"] / 1e9,
                    "arithmetic_ms": 1e3 * operations / rates[default],
                    **profiled(fit),
                }
            )
            print(rows[-1], flush=True)
            write("profile", rows, folder=arguments.output)


if __name__ == "__main__":
    main()
