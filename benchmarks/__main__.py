"""``python -m benchmarks NAME ...`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import importlib
import sys

from benchmarks.runner import end_children_too

#: Name of each benchmark, that of its module, which has a `main`.
BENCHMARKS = {
    "paper": "the paper's experiments: bounds, samples, covariances, information",
    "compare": "which reducer to use: every method on every set",
    "tables": "never behind PCA: errors, neighbours and distances on 22 sets",
    "missing": "missing values filled in, against k-NN and iterative imputers on six sets",
    "novelty": "strange rows: outlier sets, left-out cell types and images, against peers",
    "regularisation": "how much: training, held-out and generated likelihood against a strength",
    "gap": "where the bound is lost: Gaussians, independence, amortisation; a figure",
    "disentangle": "capacity annealing: divergences led, and codes of images of known factors",
    "tilted": "strange images by the score of a tilted prior, against N(0, I)",
    "single-cell": "cell types, batches and new cells, against scVI",
    "tabular": "rows drawn from mixed tables: real ones beside them, sdmetrics, classifiers",
    "speed": "rows per second against pythae and scVI",
    "gpu": "the same on a GPU",
    "time-to-quality": "seconds until a held-out error or bound, against PCA and these",
    "profile": "where the time of a training step goes",
    "scale": "an epoch from a file against one in memory",
    "distributed": "a step against rows, features, components, minibatches, processes",
    "reproduction": "the tables and figures of docs/reproduction.md, from the JSON of paper",
    "table": "those of the other pages in docs, from all other JSON",
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
