"""How much to regularise: the findings of arXiv:2112.01292, and whether they help on real tables.

``python -m benchmarks regularisation`` fits Gaussian models with known couplings to a few of their
own rows at many strengths of a regularisation, and HEBAE and VAE to two tables at some. It writes
``results/regularisation.json``; ``table`` makes docs/regularisation.md and its figure of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.covariance import graphical_lasso

from benchmarks.datasets import Dataset, load
from benchmarks.missing import standardised
from benchmarks.pages import group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, limit_threads
from benchmarks.speed import unwarned
from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import RegularisationPath, regularisation_path
from skhebae.diagnostics.gaussian import Curves, mean_log_density

Array = NDArray[np.float64]

#: Sites, rows per site and sum of squared couplings of a site: all of the last two at the usual
#: size, other sizes at the usual two.
SIZES, SIZE, PER_SITE, PER_SITES = (50, 100, 200), 100, 1.0, (0.5, 1.0, 4.0)
SQUARED, ALL_SQUARED = 0.3, (0.1, 0.3, 0.6)
#: Neighbours of a site in the sparse graphs, and models whose curves are averaged.
DEGREE, MODELS = 4, 10
STRENGTHS: dict[str, Array] = {
    "L2": np.geomspace(1e-2, 1e4, 121),
    "pseudo-rows": np.geomspace(1e-1, 1e5, 121),
    "L1": np.geomspace(0.03, 1.0, 15),
}
L1_GRAPHS, L1_SIZE, L1_MODELS = ("ring", "random"), 50, 3

#: Rules, fixed before anything was measured. Test and generated likelihood are close if they are
#: no further apart than this share of what training rows are above test rows; two strengths are
#: near, if neither is more than this many times the other.
CLOSE, NEAR = 0.1, 2.0

#: Refits on real tables.
WEIGHTS, FOLDS = [0.1, 0.3, 1.0, 3.0, 10.0], 3
REFITS: dict[tuple[str, str], tuple[Callable[[], Any], list[float]]] = {
    ("HEBAE", "covariance_prior"): (lambda: HEBAETransformer(random_state=0), WEIGHTS),
    ("HEBAE", "reg_weight"): (lambda: HEBAETransformer(random_state=0), WEIGHTS),
    ("VAE", "beta"): (lambda: VAETransformer(random_state=0), WEIGHTS),
}
DATA = ("breast-cancer", "digits")
#: Columns of which more rows have the commonest value are left out: a pixel that is dark in all
#: rows of a fit but lit in one that is held out costs that row as much as thousands of others.
COMMONEST = 0.9


def ring(n: int, rng: np.random.Generator) -> Array:
    """Link each site with its two neighbours on a circle."""
    links = np.eye(n, k=1) + np.eye(n, k=n - 1)
    return np.asarray(links)


def torus(n: int, rng: np.random.Generator) -> Array:
    """Link each site with its neighbours on a square lattice (5 x n / 5) without borders."""
    sites = np.arange(n).reshape(5, -1)
    links = np.zeros((n, n))
    for axis in (0, 1):
        links[sites.ravel(), np.roll(sites, 1, axis=axis).ravel()] = 1.0
    return np.triu(np.maximum(links, links.T), 1)


def random(n: int, rng: np.random.Generator) -> Array:
    """Link sites at random, with `DEGREE` neighbours on average (Erdős and Rényi)."""
    return np.triu((rng.random((n, n)) < DEGREE / (n - 1)).astype(float), 1)


def dense(n: int, rng: np.random.Generator) -> Array:
    """Link all sites, by normal couplings (Sherrington and Kirkpatrick)."""
    return np.triu(rng.normal(size=(n, n)), 1)


GRAPHS = {of.__name__: of for of in (ring, torus, random, dense)}


def coupled_precision(graph: str, n: int, squared: float, rng: np.random.Generator) -> Array:
    """Return ``mu I - J``: couplings J of random sign, and a mean variance of 1.

    `squared` is the mean over sites of ``sum_j J_ij^2``; mu follows from ``tr K^-1 = n``, the
    spherical constraint.
    """
    half = GRAPHS[graph](n, rng) * rng.choice([-1.0, 1.0], size=(n, n))
    couplings = half + half.T
    couplings *= np.sqrt(squared * n / np.square(couplings).sum())
    values = np.linalg.eigvalsh(couplings)
    top = values[-1]
    mu = brentq(lambda m: (1.0 / (m - values)).sum() - n, top + 1.0 / n, top + n)
    return np.asarray(mu * np.eye(n) - couplings)


def l2_precisions(variances: Array, strengths: Array, n_rows: int) -> Array:
    """Return the eigenvalues (n_strengths, p) of the precision of highest posterior density.

    Maximised over K and mu is ``n/2 (log det K - tr K C) - gamma p/4 |K - mu I|^2``, a normal
    prior on couplings of variance ``1 / (p gamma)``. K has the axes of C. With ``g = gamma p / n``
    the derivative by an eigenvalue k of K, c that of C, is 0 where
    ``g k^2 + (c - g mu) k - 1 = 0``, which has one positive root; that by mu where mu is the mean
    of the k, which is to say ``tr K^-1 = tr C``. The root k rises with mu, so bisection finds it.
    """
    g = strengths[:, None] * len(variances) / n_rows

    def roots(mu: Array) -> Array:
        b = variances - g * mu
        root = np.sqrt(b * b + 4.0 * g)
        # Each form without cancellation on its side.
        return np.where(b > 0.0, 2.0 / (np.abs(b) + root), (np.abs(b) + root) / (2.0 * g))

    # mu, the mean of the k, is above their harmonic mean.
    low = np.full_like(g, np.log(1.0 / variances.mean()))
    high = low + 30.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        wide = (1.0 / roots(np.exp(middle))).sum(axis=1, keepdims=True) > variances.sum()
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return roots(np.exp(0.5 * (low + high)))


def curves(scheme: str, covariance: Array, truth: Array, n_rows: int) -> Curves:
    """Return the likelihoods per row of regularised fits to a sample covariance of mean 0.

    The held-out one is exact: its rows are endlessly many ones of the true covariance.
    """
    strengths = STRENGTHS[scheme]
    if scheme == "L1":
        fits = [graphical_lasso(covariance, alpha, max_iter=200) for alpha in strengths]
        log_det = np.array([np.linalg.slogdet(precision)[1] for _, precision in fits])
        shift = len(truth) * np.log(2.0 * np.pi) - log_det
        traces = [
            np.array([(precision * of).sum() for _, precision in fits])
            for of in (covariance, truth)
        ]
        return Curves(*(-0.5 * (shift + trace) for trace in (*traces, float(len(truth)))))
    variances, axes = np.linalg.eigh(covariance)
    variances = variances.clip(min=0.0)
    if scheme == "L2":
        fitted = 1.0 / l2_precisions(variances, strengths, n_rows)
    else:
        nu = strengths[:, None]
        fitted = (nu + n_rows * variances) / (nu + n_rows)
    squares = ((truth @ axes) * axes).sum(axis=0)
    return Curves(*(mean_log_density(fitted, of) for of in (variances, squares, fitted)))


def measure(scheme: str, graph: str, size: int, per_site: float, squared: float) -> Row:
    """Average the curves of some models of one kind, and return where they peak and cross."""
    n_rows, found = round(per_site * size), []
    for seed in range(L1_MODELS if scheme == "L1" else MODELS):
        rng = np.random.default_rng([seed, size])
        truth = np.linalg.inv(coupled_precision(graph, size, squared, rng))
        rows = rng.multivariate_normal(np.zeros(size), truth, size=n_rows, method="cholesky")
        found.append(curves(scheme, rows.T @ rows / n_rows, truth, n_rows))
    mean = Curves(*np.mean(found, axis=0))
    blank = dict.fromkeys((*Curves._fields, "difference"), np.zeros_like(STRENGTHS[scheme]))
    of = RegularisationPath(
        "Gaussian", scheme, "log density", n_rows, len(found), STRENGTHS[scheme], *mean, blank
    )
    keep = (graph, size, per_site, squared) == ("random", SIZE, PER_SITE, SQUARED)
    return summarise(of, keeps_curves=keep)


def summarise(path: RegularisationPath, *, keeps_curves: bool) -> Row:
    """Return what a path recommends, and the likelihoods there."""
    row: Row = {"best": path.best, "crossing": path.crossing, "at_an_end": path.is_at_an_end}
    row |= {name: float(getattr(path, name)[path.best_index]) for name in Curves._fields}
    if keeps_curves:
        row["curves"] = {
            name: [float(f"{number:.6g}") for number in getattr(path, name)]
            for name in ("values", *Curves._fields)
        }
    return row


def varied(rows: Array) -> Array:
    """Return the columns without a value that nearly all rows have."""
    most = [np.unique(column, return_counts=True)[1].max() for column in rows.T]
    return rows[:, np.array(most) <= COMMONEST * len(rows)]


def measure_real(dataset: Dataset, model: str, parameter: str) -> Row:
    """Refit to a real table, or take the closed form of its rows, and say what is recommended."""
    rows = varied(standardised(dataset))
    if model == "Gaussian":
        path = regularisation_path(rows, cv=FOLDS)
    else:
        make, values = REFITS[model, parameter]
        path = regularisation_path(
            make(), rows, parameter=parameter, values=values, cv=FOLDS, score="log_likelihood"
        )
    row = summarise(path, keeps_curves=True)
    row["one_standard_error"] = path.one_standard_error
    if path.crossing is not None:
        place, grid = np.log(path.crossing), np.log(path.values)
        row["lost"] = row["held_out"] - float(np.interp(place, grid, path.held_out))
        row["lost_error"] = float(np.interp(place, grid, path.errors["difference"]))
    return row


# What comes of it


def gap(row: Row) -> float:
    """Return how far test and generated likelihood are apart, as a share of training's lead."""
    return abs(row["generated"] - row["held_out"]) / (row["train"] - row["held_out"])


def spread(rows: Iterable[Row]) -> float:
    """Return the largest of the best strengths times squared couplings over the smallest."""
    scaled = [row["best"] * row["squared"] for row in rows]
    return max(scaled) / min(scaled)


def are_near(a: float | None, b: float) -> bool:
    """Tell whether two strengths are `NEAR`."""
    return a is not None and 1.0 / NEAR <= a / b <= NEAR


def judge(claim: str, measured: str, hits: list[bool]) -> list[object]:
    """Return a line with the verdict, by the rule of docs/reproduction.md."""
    verdict = "holds" if all(hits) else "partly" if any(hits) else "does not"
    return [claim, f"{measured}: {sum(hits)} of {len(hits)}", verdict]


def claims(rows: list[Row]) -> list[list[object]]:
    """Return each claim of the abstract, what was measured of it, and the verdict."""
    schemes = {name: of for (name,), of in group(models(rows), "scheme").items()}
    lines = []
    for scheme, of in schemes.items():
        gaps = [gap(row) for row in of]
        said = f"{scheme}: gap {min(gaps):.3f} to {max(gaps):.3f}, at most "
        close = [value <= CLOSE for value in gaps]
        lines.append(judge("test and generated likelihood are close", f"{said}{CLOSE}", close))
        near = [are_near(row["crossing"], row["best"]) for row in of]
        said = f"{scheme}: the curves cross within a factor {NEAR:g} of the best strength"
        lines.append(judge("test and generated likelihood are close", said, near))
    squared = schemes["L2"]
    scaled = [row["best"] * row["squared"] for row in squared]
    said = f"L2: best strength times squared couplings is {min(scaled):.2f} to {max(scaled):.2f}, "
    said += f"within a factor {NEAR:g} of 1"
    hits = [are_near(value, 1.0) for value in scaled]
    lines.append(judge("best strength is the inverse of the squared couplings", said, hits))
    kinds = {"graph": "graphs", "size": "sizes", "per_site": "rows per site"}
    kinds["squared"] = "squared couplings"
    for key, name in kinds.items():
        others = [other for other in kinds if other != key]
        groups = [of for of in group(squared, *others).values() if len(of) > 1]
        if not groups:
            continue
        widest = max(spread(of) for of in groups)
        said = f"L2: over {name} it varies by a factor {widest:.2f} at most (rule: {NEAR:g})"
        hits = [spread(of) <= NEAR for of in groups]
        lines.append(judge("largely independent of the structure", said, hits))
    real = [row for row in rows if row["part"] == "real"]
    if real:
        said = f"the curves cross within a factor {NEAR:g} of the best of the values tried"
        near = [are_near(row["crossing"], row["best"]) for row in real]
        lines.append(judge("real tables and autoencoders (not the paper's claim)", said, near))
    untested = "Potts models; fluctuations around the most probable model"
    return [*lines, [untested, "not measured here", "not tested"]]


def models(rows: list[Row]) -> list[Row]:
    """Return the rows of Gaussian models."""
    return [row for row in rows if row["part"] == "model"]


def cells() -> list[Row]:
    """Return the kinds of Gaussian models."""
    found = []
    for scheme, graph in product(("L2", "pseudo-rows"), GRAPHS):
        sets = [(SIZE, *of) for of in product(PER_SITES, ALL_SQUARED)]
        sets += [(size, PER_SITE, SQUARED) for size in SIZES if size != SIZE]
        found += [(scheme, graph, *of) for of in sets]
    found += [
        ("L1", graph, L1_SIZE, per_site, SQUARED)
        for graph, per_site in product(L1_GRAPHS, PER_SITES[1:])
    ]
    names = ("scheme", "graph", "size", "per_site", "squared")
    return [dict(zip(names, of, strict=True)) for of in found]


def main(argv: list[str] | None = None) -> None:
    """Measure everything, and print the claims."""
    made = parser("regularisation", __doc__, threads=1, resumes=True)
    made.add_argument("--data", nargs="*", choices=DATA, default=DATA)
    made.add_argument("--data-dir", type=Path, help="folder of the sets")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    keys = ("part", "scheme", "graph", "size", "per_site", "squared", "data", "model", "parameter")
    output = arguments.output / "regularisation.json"
    results = Results(output, keys, resume=arguments.resume, threads=arguments.threads)
    for cell in cells():
        if not results.has(part="model", **cell):
            with unwarned():
                results.add({"part": "model", **cell, **measure(**cell)})
    for name in arguments.data:
        dataset = load(name, arguments.data_dir)
        chosen = [("Gaussian", "covariance_prior"), *REFITS] if dataset is not None else []
        for model, parameter in chosen:
            cell = {"part": "real", "data": name, "model": model, "parameter": parameter}
            if not results.has(**cell):
                with unwarned():
                    results.add({**cell, **measure_real(dataset, model, parameter)})
    print(*table(["claim", "measured", "verdict"], claims(results.rows)), sep="\n")
