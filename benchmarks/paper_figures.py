"""What `benchmarks.paper` wrote, by method, size, weight and seed; figures of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from PIL import Image

from benchmarks.pages import spread_out
from benchmarks.paper import METHODS, setting
from benchmarks.paper_measures import LATENTS
from benchmarks.runner import Row

COLOURS = {"HEBAE": "#3f90da", "VAE": "#bd1f01", "WAE": "#ffa90e"}
MARKERS = dict(zip(METHODS, "osD", strict=True))
#: Weight at which VAE's covariance is shown a second time.
HEAVY = 10.0
#: Key of each bound: its name.
BOUNDS = {
    "paper_bound": "the paper's bound",
    "elbo": "standard ELBO",
    "log_likelihood": "importance-weighted log-likelihood",
}

#: How far a training axis may go below its main curves, in their heights.
BELOW = 2.0


def number(row: Row, key: str) -> float | None:
    """Return the value at a dotted key; None if it is missing, infinite, or its controls failed."""
    value: Any = row
    for part in key.split("."):
        value = None if value is None else value.get(part)
    if isinstance(value, dict):
        value = value["value"] if value["valid"] else None
    return float(value) if value is not None and math.isfinite(value) else None


class Run:
    """The cells of one data set; a weight of None is each method's own of the paper."""

    def __init__(self, rows: list[Row], environment: Row | None = None) -> None:
        self.environment = environment or {}
        self.data = rows[0]["data"]
        self.setting = setting(self.data)
        self.middle = self.setting.grid.middle
        # A file can hold shorter trials too: the number of epochs with most cells is the run.
        counts = Counter(row["epochs"] for row in rows)
        self.epochs = max(counts, key=lambda epochs: (counts[epochs], epochs))
        self.rows = [row for row in rows if row["epochs"] == self.epochs]
        self.methods = [m for m in METHODS if any(row["method"] == m for row in self.rows)]
        usual = [row for row in self.rows if row["weight"] == METHODS[row["method"]][2]]
        self.dims = sorted({row["n_components"] for row in usual})
        of_middle = [row for row in self.rows if row["n_components"] == self.middle]
        self.weights = sorted({row["weight"] for row in of_middle})
        self.seeds = sorted({row["seed"] for row in self.rows})

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read ``paper-<data>.json``."""
        document = json.loads(path.read_text())
        return cls(document["rows"], document["environment"])

    def cells(self, method: str, d: int, weight: float | None = None) -> dict[int, Row]:
        """Return rows by seed."""
        key = (method, d, METHODS[method][2] if weight is None else weight)
        found = [r for r in self.rows if (r["method"], r["n_components"], r["weight"]) == key]
        return {row["seed"]: row for row in sorted(found, key=lambda row: row["seed"])}

    def values(
        self, method: str, key: str, d: int, weight: float | None = None
    ) -> dict[int, float]:
        """Return one number by seed, where there is one."""
        numbers = {s: number(row, key) for s, row in self.cells(method, d, weight).items()}
        return {seed: value for seed, value in numbers.items() if value is not None}

    def said(
        self, method: str, key: str, d: int, form: str = "{:.1f}", weight: float | None = None
    ) -> str:
        """Format the mean over seeds and the standard deviation."""
        found = list(self.values(method, key, d, weight).values())
        return spread_out(found, form) if found else "none"


def curve(row: Row, name: str) -> list[float]:
    """Return a training curve: ``"own"`` bound, its penalty at weight 1, or the ``"elbo"``."""
    history = row["history"]
    if name == "own":
        terms = zip(history["reconstruction"], history["penalty"], strict=True)
        return [-(reconstruction + penalty) for reconstruction, penalty in terms]
    return [-math.inf if value is None else value for value in history[name]]


def draw(run: Run, folder: Path) -> None:
    """Draw every figure that there are numbers for into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"bounds": bounds(run), "frechet": frechet(run), "covariance": covariance(run)}
    for name, figure in figures.items():
        if figure is not None:
            buffer = BytesIO()
            figure.savefig(buffer, dpi=150)
            # A palette: a third of the size, and no visible difference.
            whole = Image.open(buffer).convert("RGB").quantize(256)
            whole.save(folder / f"paper_{name}.png", optimize=True)


def key(method: str, style: str = "-", marker: str = "") -> Line2D:
    """Return the legend's line of a method."""
    how = {"linestyle": style, "marker": marker, "markersize": 5}
    return Line2D([], [], color=COLOURS[method], **how)


def legend(figure: Any, named: dict[str, Line2D]) -> None:
    """Name what is drawn above a figure."""
    how = {"loc": "outside upper center", "ncols": len(named), "frameon": False}
    figure.legend(list(named.values()), list(named), **how)


def bounds(run: Run) -> Figure:
    """Draw Fig. 1a: bounds against epoch at every d, and against the weight."""
    figure = Figure(figsize=(10, 6.8), layout="constrained")
    above, below = figure.subfigures(2, 1)
    axes = above.subplots(1, max(1, len(run.dims)), squeeze=False)[0]
    for axis, d in zip(axes, run.dims, strict=False):
        training(run, d, axis)
    axes[0].set_ylabel("training, nats per row")
    ours = {"HEBAE, the paper's bound": key("HEBAE"), "HEBAE, standard ELBO": key("HEBAE", ":")}
    legend(above, ours | {"VAE, standard ELBO": key("VAE")})
    axes = below.subplots(1, len(BOUNDS))
    for axis, (name, title) in zip(axes, BOUNDS.items(), strict=True):
        against_weight(run, name, axis)
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel(f"held out, nats per row, d = {run.middle}")
    legend(below, {method: key(method, marker=MARKERS[method]) for method in run.methods})
    return figure


def training(run: Run, d: int, axis: Axes) -> None:
    """Draw means over seeds of training curves; what lies far below is cut off."""
    shown = (("HEBAE", "own", "-"), ("VAE", "own", "-"), ("HEBAE", "elbo", ":"))
    ends = []
    for method, name, style in shown:
        rows = run.cells(method, d).values()
        if rows:
            line = np.mean([curve(row, name) for row in rows], axis=0)
            axis.plot(np.arange(1, len(line) + 1), line, style, color=COLOURS[method])
            if name == "own":
                # The first epoch is far below the others.
                ends += [line[min(1, len(line) - 1) :].min(), line.max()]
    axis.set_title(f"d = {d}", fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
    if ends:
        height = max(max(ends) - min(ends), 1.0)
        bottom = max(axis.get_ylim()[0], min(ends) - BELOW * height)
        axis.set_ylim(bottom, max(ends) + 0.1 * height)


def against_weight(run: Run, name: str, axis: Axes, decoded: str | None = None) -> None:
    """Draw a line through means over seeds, and a dot per seed; dashed what was decoded."""
    for method in run.methods:
        for shown, style in ((name, "-"), (decoded, "--")):
            by_seed = {w: run.values(method, shown, run.middle, w) for w in run.weights if shown}
            found = {w: list(values.values()) for w, values in by_seed.items() if values}
            means = [np.mean(values) for values in found.values()]
            axis.plot(list(found), means, style, color=COLOURS[method])
            for weight, values in found.items() if style == "-" else ():
                how = {"s": 18, "color": COLOURS[method], "marker": MARKERS[method], "zorder": 3}
                axis.scatter([weight] * len(values), values, **how)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(run.weights))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(run.weights, [f"{weight:g}" for weight in run.weights])
    axis.set_xlabel("penalty weight")
    axis.grid(alpha=0.3)


def frechet(run: Run) -> Figure | None:
    """Draw Fig. 1b: Fréchet distance against the weight, for every latent density."""
    floors = [value for row in run.rows if (value := number(row, "frechet_floor")) is not None]
    if not floors:
        return None
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    axes = figure.subplots(1, len(LATENTS), sharey=True)
    fitted = [f"a {name} fitted to the codes" for name in ("Gaussian", "mixture")]
    for axis, latent, title in zip(axes, LATENTS, ["N(0, I), the prior", *fitted], strict=True):
        decoded = "samples.decoded_training_codes"
        against_weight(run, f"samples.{latent}.frechet", axis, decoded)
        axis.axhline(np.mean(floors), color="0.4", linestyle=":")
        axis.set_title(f"samples of {title}", fontsize=10)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(f"Fréchet distance, d = {run.middle}\n(small classifier, not Inception)")
    named = {method: key(method, marker=MARKERS[method]) for method in run.methods}
    named["decoded training codes"] = Line2D([], [], color="0.4", linestyle="--")
    named["floor: train against test"] = Line2D([], [], color="0.4", linestyle=":")
    legend(figure, named)
    return figure


def covariance(run: Run) -> Figure | None:
    """Draw Fig. 2a, b: covariance and correlation of held-out codes on one scale."""
    shown = [("VAE", None), ("VAE", HEAVY), ("WAE", None), ("HEBAE", None)]
    cells = [run.cells(method, run.middle, weight) for method, weight in shown]
    rows = [of[min(of)] for of in cells if of and of[min(of)]["covariance"]]
    if not rows:
        return None
    figure = Figure(figsize=(2.4 * len(rows) + 0.9, 5.6), layout="compressed")
    axes = figure.subplots(2, len(rows), squeeze=False)
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad="0.8")
    for j, row in enumerate(rows):
        distance = row["distance_from_identity"]
        off = number(row, "mean_abs_off_diagonal_correlation")
        captions = (
            f"{row['method']}, weight {row['weight']:g}\n"
            f"{row['collapsed']:.0f} collapsed, {distance:.2f} from I",
            "undefined" if off is None else f"mean |off-diagonal| {off:.3f}",
        )
        for i, name in enumerate(("covariance", "correlation")):
            matrix = np.array(row[name], dtype=float)
            image = axes[i, j].imshow(matrix, cmap=colours, vmin=-1, vmax=1)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].set_title(captions[i], fontsize=10)
            axes[i, 0].set_ylabel(name, fontsize=11)
    figure.colorbar(image, ax=axes, extend="both", shrink=0.7, pad=0.02)
    return figure
