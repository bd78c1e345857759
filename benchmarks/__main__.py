"""``python -m benchmarks NAME ...`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import importlib
import sys

from benchmarks.processes import end_children_too

#: Name of each benchmark: its module, which has a `main`.
BENCHMARKS = {
    "paper": "the paper's experiments: bounds, samples, covariances, information",
    "compare": "which reducer to use: every method on every set",
    "single-cell": "cell types, batches and new cells, against scVI",
    "count-defaults": "input noise and epochs for counts",
    "speed": "rows a second against pythae and scVI",
    "gpu": "the same on a GPU",
    "profile": "where the time of a training step goes",
    "scale": "an epoch from a file against one in memory",
    "distributed": "a step against rows, features, components, minibatches, processes",
    "sampling": "densities of codes to sample from",
    "defaults": "the estimators with their defaults against PCA",
    "row_share": "HEBAE from the paper's objective to the evidence lower bound",
    "covariance_prior": "the default of covariance_prior",
    "precision": "when bfloat16 pays",
    "reproduction": "docs/reproduction.md and its figures, from the JSON of paper",
    "table": "docs/benchmarks.md and its figures, from all other JSON",
    "readme": "what README.md quotes",
}


def main() -> None:
    """Run the benchmark that the first argument names, with the other arguments."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name not in BENCHMARKS:
        print(__doc__, *(f"  {key:17}{value}" for key, value in BENCHMARKS.items()), sep="\n")
        sys.exit(0 if name in ("-h", "--help") else f"no benchmark {name!r}")
    end_children_too()
    sys.argv = [f"python -m benchmarks {name}", *arguments]
    importlib.import_module(f"benchmarks.{name.replace('-', '_')}").main()


if __name__ == "__main__":
    main()
