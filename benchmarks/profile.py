"""Where the time of a training step goes, beside what its arithmetic would take.

``python -m benchmarks profile`` writes ``results/profile.json``: milliseconds per step by kind of
operation under torch's profiler, and in none (Python, and whatever stands between operations).
"""

from __future__ import annotations

import time
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.results import Results, parser
from benchmarks.runner import Row
from benchmarks.speed import unwarned
from benchmarks.work import BATCH_SIZE, CONTENDERS, N_ROWS, Fit, multiplications

#: Epochs of the two fits whose difference is profiled, and of the fit that is timed.
EPOCHS, TIMED = (1, 5), 4
OTHER = "other operations"
#: Kinds of operations by their names.
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmv", "aten::mv"),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::cat", "aten::index_select"),
    "optimiser": ("aten::_fused_adamw_",),
}


def product_rate(dtype: torch.dtype) -> float:
    """Return operations per second of products of a minibatch with a matrix of 784 x 784."""
    x, w = torch.randn(BATCH_SIZE, 784).to(dtype), torch.randn(784, 784).to(dtype)
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(50):
            torch.nn.functional.linear(x, w)
        best = min(best, (time.perf_counter() - start) / 50)
    return 2.0 * BATCH_SIZE * 784 * 784 / best


def by_kind(fit: Fit, epochs: int) -> Counter[str]:
    """Return the milliseconds of a fit by `KINDS`; the rest is other operations."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        fit(epochs)
    total: Counter[str] = Counter(dict.fromkeys((*KINDS, OTHER), 0.0))
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            kinds = [kind for kind, names in KINDS.items() if event.key in names]
            total[kinds[0] if kinds else OTHER] += event.self_cpu_time_total / 1e3
    return total


def profiled(fit: Fit, n_steps: int) -> dict[str, float]:
    """Return milliseconds per step by kind, from a long fit less a short one, and in all."""
    short, long = (by_kind(fit, epochs) for epochs in EPOCHS)
    steps = (EPOCHS[1] - EPOCHS[0]) * n_steps
    kinds = {kind: max(0.0, long[kind] - short[kind]) / steps for kind in long}
    # The first epoch pays for what is done once.
    step = 1e3 * min(fit(TIMED).history_["seconds"][1:]) / n_steps
    return {**kinds, "none": max(0.0, step - sum(kinds.values())), "step": step}


def main(argv: list[str] | None = None) -> None:
    """Profile, write, print."""
    made = parser("profile", __doc__, threads=2)
    made.add_argument("--rows", type=int, default=N_ROWS)
    arguments = made.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    results = Results(arguments.output / "profile.json")
    rates = {name: product_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    known = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.11
    default = "bfloat16" if known.get("avx512_bf16") or known.get("amx_bf16") else "float32"
    for name in ("paper", "counts", "gaussian"):
        fit = CONTENDERS[f"{name}: HEBAE"](arguments.rows)
        operations = 2.0 * BATCH_SIZE * multiplications(name)
        row: Row = {"name": name, "precision": default}
        row |= {"product_gflops": rates[default] / 1e9}
        row |= {"product_gflops_float32": rates["float32"] / 1e9}
        with unwarned():
            fit(1)
            measured = profiled(fit, arguments.rows // BATCH_SIZE)
        results.add({**row, "arithmetic_ms": 1e3 * operations / rates[default], **measured})
