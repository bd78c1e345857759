"""Seconds until a held-out quality: our default against PCA, pythae's VAE and scVI.

``python -m benchmarks time-to-quality`` fits each for several numbers of epochs, every time from
the start, since learning rates fall to 0, and writes ``results/time_to_quality.json``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from benchmarks import work
from benchmarks.datasets import Table, load, split
from benchmarks.pages import group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.speed import PEERS, unwarned
from benchmarks.tables import dimensions

#: Held-out squared errors to come down to; for counts, nats per cell (negative) to come up to.
#: They are about what a quarter or a half of our epochs and all of them reached in release 0.1.
LEVELS = {
    "digits": (0.0126, 0.0113),
    "segment": (0.0800, 0.0550),
    "optdigits": (0.1900, 0.1520),
    "wdbc": (0.0830, 0.0765),
    "pbmc_3tech": (-618.5, -614.5),
    "fashion-mnist": (0.0140, 0.0132),
}
#: The length of each fit: shares of the epochs of the first, automatic one, or rows to train on.
EPOCHS: dict[str, tuple[Any, ...]] = {"HEBAE": ("auto", 0.5, 0.25, 0.125), "PCA": (None,)}
EPOCHS |= dict.fromkeys(PEERS, (50_000, 200_000, 800_000))
#: Draws of the importance-weighted log-likelihood; ours are from p(z | x), scVI's its encoder's.
DRAWS = 100
#: A contender; the row of a fit takes the place of that of an earlier one.
NAMED = ("data", "n_train", "method", "batch_size", "learning_rate")
KEYS = (*NAMED, "epochs")


def methods(data: Table) -> list[str]:
    """Return ours and the peers that are installed and model such rows."""
    named = ["HEBAE", "scVI"] if data.likelihood == "negative_binomial" else list(EPOCHS)[:3]
    return [name for name in named if name not in PEERS or find_spec(PEERS[name])]


def fit_of(method: str, data: Table, params: Row) -> work.Fit:
    """Return the fit of a contender for a number of epochs; parameters are for ours."""
    d = dimensions(data.name, data.train.shape[1])
    if method == "HEBAE":
        how = {"n_components": d, "likelihood": data.likelihood, "batch_size": "auto", **params}
        return work.ours(method, data.train, **how)
    if method == "PCA":
        return lambda _: PCA(d, random_state=0).fit(data.train)
    if method == "pythae":
        return work.pythae(data.train, d)
    return work.scvi(csr_matrix(data.train), gene_likelihood="nb")


def quality(model: Any, data: Table) -> float:
    """Return the squared error of held-out rows, or the nats per cell of held-out counts."""
    if hasattr(model, "get_marginal_ll"):  # scVI
        from anndata import AnnData

        return float(model.get_marginal_ll(AnnData(csr_matrix(data.test)), n_mc_samples=DRAWS))
    if data.likelihood == "negative_binomial":
        return float(model.log_likelihood(data.test, n_draws=DRAWS).mean())
    if hasattr(model, "inverse_transform"):
        decoded = model.inverse_transform(model.transform(data.test))
    else:  # pythae
        with torch.inference_mode():
            codes = model.encoder(torch.from_numpy(data.test)).embedding
            decoded = model.decoder(codes).reconstruction.numpy()
    return float(np.square(decoded - data.test).mean())


def measure(method: str, data: Table, params: Row, now: Callable[[], float]) -> Iterator[Row]:
    """Yield a row for each number of epochs of a contender."""
    fit, whole = fit_of(method, data, params), 0
    fit(1)  # pays for what is done once
    for number in EPOCHS[method]:
        epochs = number
        if isinstance(number, int | float):
            epochs = math.ceil(number * whole if number < 1 else number / len(data.train))
        start = now()
        model = fit(epochs)
        seconds = now() - start
        epochs = getattr(model, "n_iter_", epochs)
        whole = whole or epochs
        yield {"epochs": epochs, "seconds": seconds, "quality": quality(model, data)}


def summary(rows: list[Row]) -> list[str]:
    """Return a line per contender: seconds until each level, the best quality and its seconds."""
    lines = []
    for (data, n_train, *named), of in group(rows, *NAMED).items():
        sign = 1.0 if LEVELS[data][0] < 0.0 else -1.0  # more nats, less error
        line = [data, f"{n_train:,}", ", ".join(str(part) for part in named if part)]
        for level in LEVELS[data]:
            until = [r["seconds"] for r in of if sign * r["quality"] >= sign * level]
            line += [f"{level:g}", f"{min(until):.3g}" if until else "-"]
        best = max(of, key=lambda row: sign * row["quality"])
        lines.append([*line, f"{best['quality']:.4g}", f"{best['seconds']:.3g}"])
    headings = [
        "data",
        "rows",
        "method",
        "level 1",
        "s to 1",
        "level 2",
        "s to 2",
        "best",
        "s to best",
    ]
    return table(headings, lines)


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("time-to-quality", __doc__, threads=2, resumes=True)
    made.add_argument("--data", nargs="+", choices=list(LEVELS), default=list(LEVELS))
    made.add_argument("--data-dir", type=Path, help="folder of the sets")
    made.add_argument("--rows", type=int, help="training rows, at most")
    made.add_argument("--methods", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    made.add_argument("--batch-sizes", nargs="+", type=int, default=[None], help="of ours")
    made.add_argument("--learning-rates", nargs="+", type=float, default=[None], help="of ours")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    results = Results(arguments.output / "time_to_quality.json", KEYS, resume=arguments.resume)
    for name in arguments.data:
        if (dataset := load(name, arguments.data_dir)) is None:
            continue
        data = split(dataset, 0)
        data = data._replace(train=data.train[: arguments.rows])
        for method in (name for name in methods(data) if name in arguments.methods):
            tried = product(arguments.batch_sizes, arguments.learning_rates)
            for size, rate in tried if method == "HEBAE" else [(None, None)]:
                given = {"batch_size": size, "learning_rate_init": rate}
                params = {key: value for key, value in given.items() if value is not None}
                place = (name, len(data.train), method, size, rate)
                with unwarned():
                    for row in measure(method, data, params, clock(arguments.threads)):
                        results.add({**dict(zip(NAMED, place, strict=True)), **row})
    if results.rows:
        print(*summary(results.rows), sep="\n")
