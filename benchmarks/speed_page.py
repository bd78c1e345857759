"""docs/performance.md, from the results of speed, profile, gpu and scale."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu import ratios as gpu_ratios
from benchmarks.pages import described, group, load
from benchmarks.profile import KINDS
from benchmarks.speed import RATIOS, ratios
from benchmarks.speed_cell import BOUND_EPOCHS, CONTENDERS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

#: What the contenders of one kind of work do.
WORK = {
    "paper": "784-784-800-10 and back, Bernoulli, 12,800 rows of 784 numbers",
    "counts": "2,000 genes, 128 hidden units, 10 dimensions, negative binomial, CSR, 12,800 cells",
    "gaussian": "the same for log-normalised values, Gaussian",
}


def contenders(rows: list[dict[str, Any]]) -> list[str]:
    """Table of rates and memory."""
    lines = ["| work | method | rows a second, median (range) | peak MiB |", "|---|---|---|---|"]
    for (name,), of in group([row for row in rows if row["name"] in CONTENDERS], "name").items():
        work, method = name.split(": ")
        rates = [row["rows_per_second"] for row in of]
        peak = median(row["peak_mib"] for row in of)
        spread = f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        lines.append(f"| {work} | {method} | {spread} | {peak:,.0f} |")
    return lines


#: Numbers of ours alone on a GPU, and their digits.
GPU_NUMBERS = (("seconds_until_then", 2), ("gpu_mib", 0))

#: What the table says where these were measured.
FURTHER = [
    "zarr: the same counts, sparse and compressed. memmap: dense, a byte each; of its memory the",
    "system takes back what others need.",
]


def larger_than_memory() -> list[str]:
    """Table of epochs from a file against those in memory."""
    environment, rows = load("scale")
    lines = [
        "## Larger than memory",
        "",
        "Counts of 2,000 genes, one in twenty not zero, from a backed .h5ad and in memory:",
        "negative binomial, minibatches of 128, `window_mb` as it is by default. Memory is of the",
        "whole process; seconds are of the fit, with the passes before and after training.",
        *(FURTHER if {row["how"] for row in rows} & {"zarr", "memmap"} else []),
        "",
        "| cells | file MB | | cells a second of training | peak MiB | seconds, two epochs |",
        "|---|---|---|---|---|---|",
    ]
    rows = sorted(rows, key=lambda row: row["n_cells"])
    for row in rows:
        lines.append(
            f"| {row['n_cells']:,} | {row['file_mb']:,.0f} | {row['how']} "
            f"| {row['rows_per_second']:,.0f} | {row['peak_mib']:,.0f} "
            f"| {row['total_seconds']:,.0f} |"
        )
    for (n_cells,), of in group(rows, "n_cells").items():
        rates = {row["how"]: row["rows_per_second"] for row in of}
        inside = rates.pop("in memory", None)
        shares = [f"{how} at {rate / inside:.0%}" for how, rate in rates.items() if inside]
        if shares:
            lines += ["", f"{n_cells:,} cells: {', '.join(shares)} of the speed in memory."]
    return [*lines, "", f"Made by `python -m benchmarks scale`: {described(environment)}.", ""]


def of_bounds(row: dict[str, Any]) -> list[str]:
    """One sentence on the bounds behind the rates."""
    others = [f"{row[name]:.1f} ({name})" for name in ("VAE", "VAE, float32")]
    return [
        f"Trained alike for {BOUND_EPOCHS} epochs, VAEs have a held-out evidence lower bound of "
        f"{' and '.join(others)}; pythae's has {row['pythae']:.1f}.",
        "",
    ]


def where_the_time_goes() -> list[str]:
    """Table of the kinds of operations in a step."""
    environment, rows = load("profile")
    kinds = [key for key in rows[0] if key in (*KINDS, "other operations", "none")]
    lines = [
        "## Where the time of a step goes",
        "",
        "Milliseconds of one step of 128 rows on the CPU, by torch's profiler; `none` is Python",
        "and what else stands between operations. `arithmetic` is what the products of the",
        "networks would take at the rate of a product of 128 x 784 and 784 x 784 numbers:",
        f"{rows[0]['product_gflops']:.0f} GFLOP/s in {rows[0]['precision']}, "
        f"{rows[0]['product_gflops_float32']:.0f} in float32.",
        "",
        f"| work | step | arithmetic | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for row in rows:
        parts = " | ".join(f"{row[kind]:.2f}" for kind in kinds)
        lines.append(
            f"| {row['name']} | {row['step']:.2f} | {row['arithmetic_ms']:.2f} | {parts} |"
        )
    return [*lines, "", f"Made by `python -m benchmarks profile`: {described(environment)}.", ""]


def on_a_gpu() -> list[str]:
    """Table of rates on a GPU."""
    environment, rows = load("gpu")
    lines = [
        f"## On a GPU ({rows[0]['gpu']})",
        "",
        "The same networks and tables. Minibatches are gathered from the card's memory and a step",
        "is one CUDA graph; `step by step` is without graphs, `compile` with `compile=True`.",
        "`until then` is what comes before the first epoch at full speed: captures, compilation.",
        "",
        "| work | rows a step | how | rows a second | seconds until then | GPU MiB |",
        "|---|---|---|---|---|---|",
    ]
    for (name, size, how), of in group(rows, "name", "batch_size", "how").items():
        rate = median(row["rows_per_second"] for row in of)
        own = [f"{of[0][key]:,.{digits}f}" if key in of[0] else "" for key, digits in GPU_NUMBERS]
        lines.append(f"| {name} | {size:,} | {how} | {rate:,.0f} | {' | '.join(own)} |")
    for row in rows:
        if "share_of_product" in row:
            lines += [
                "",
                f"At {row['batch_size']:,} rows the paper's networks do {row['tflops']:.0f} "
                f"TFLOP/s, {row['share_of_product']:.0%} of the {row['product_tflops']:.0f} that "
                "a product of 8192 x 8192 matrices reaches.",
            ]
    lines += ["", *(f"- `{label}: {text}`" for label, text in gpu_ratios(rows).items())]
    return [*lines, "", f"Made by `python -m benchmarks gpu`: {described(environment)}.", ""]


def main() -> None:
    """Write the page."""
    environment, rows = load("speed")
    by_name = {row["name"]: row for row in rows}
    small, transform = by_name["500 x 20"], by_name["transform"]
    lines = [
        "# Performance",
        "",
        "Generated by `python -m benchmarks table` from the JSON of `speed`, `profile`, `gpu` and",
        "`scale` in `benchmarks/results`; do not edit.",
        "",
        "Every contender trains in a process of its own, in turn (A B A B), minibatches of 128,",
        "with our default precision unless it says float32. Rates are of training alone, from",
        "the difference of a long and a short fit; memory is of the whole process, libraries and",
        "data included.",
        "",
        *(f"- **{name}**: {what}." for name, what in WORK.items()),
        "",
        *contenders(rows),
        "",
        "| ratio | of | median (range of the rounds) |",
        "|---|---|---|",
        *(f"| `{k}` | {' / '.join(RATIOS[k])} | {text} |" for k, text in ratios(rows).items()),
        "",
        f"A fit to 500 rows of 20 features with defaults takes {small['seconds']:.2f} s, "
        f"{small['share_not_training']:.0%} of it not training. `transform` at 784-128-10 maps "
        f"{transform['rows_per_second']:,.0f} rows a second, and one row in "
        f"{transform['one_row_ms']:.2f} ms. `import skhebae` takes "
        f"{by_name['import']['ms']:.0f} ms beyond torch and scikit-learn.",
        "",
        *(of_bounds(by_name["bounds"]) if "bounds" in by_name else []),
        f"Made by `python -m benchmarks speed`: {described(environment)}.",
        "",
        *where_the_time_goes(),
        *on_a_gpu(),
        *larger_than_memory(),
    ]
    PAGE.write_text("\n".join(lines))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
