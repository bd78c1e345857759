"""Figures of docs/reproduction.md, drawn from what `benchmarks.paper` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from benchmarks.paper import METHODS
from benchmarks.paper_claims import BOUNDS
from benchmarks.paper_measures import LATENTS
from benchmarks.paper_results import Row, Run, curve, image_shape, number
from skhebae.plotting._common import MISSING, PALETTE

COLOURS = dict(zip(METHODS, (PALETTE[0], PALETTE[2], PALETTE[1]), strict=True))
MARKERS = dict(zip(METHODS, "osD", strict=True))

#: Weight at which VAE's covariance is shown a second time.
HEAVY = 10.0

#: How far a training axis may go below its main curves, in their heights.
BELOW = 2.0

#: Kinds of images: heading, and rows of images that they are drawn in.
IMAGE_KINDS = {
    "original": ("test", 1),
    "reconstruction": ("reconstructed", 1),
    "interpolation": ("interpolated", 4),
    "prior": ("N(0, I)", 2),
    "mixture": ("mixture", 2),
}


#: Colours of files that need fewer than a palette has: images are mostly grey.
PALETTE_SIZES = {"paper_images.png": 64}


def draw(run: Run, images: dict[str, NDArray[np.uint8]], folder: Path) -> list[str]:
    """Draw every figure that there are numbers for into a folder, and list the files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "paper_bounds.png": bounds(run),
        "paper_frechet.png": frechet(run),
        "paper_covariance.png": covariance(run),
        "paper_information.png": information(run),
        "paper_images.png": pictures(images),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        buffer = BytesIO()
        figure.savefig(buffer, dpi=150)
        # A palette: a third of the size, and no visible difference.
        whole = Image.open(buffer).convert("RGB")
        whole.quantize(PALETTE_SIZES.get(name, 256)).save(folder / name, optimize=True)
    return list(drawn)


def key(method: str, style: str = "-", marker: str | None = "") -> Line2D:
    """Legend's line of a method."""
    marker = MARKERS[method] if marker is None else marker
    return Line2D([], [], color=COLOURS[method], linestyle=style, marker=marker, markersize=5)


def bounds(run: Run) -> Figure:
    """Fig. 1a: bounds against epoch at every d, and against the weight."""
    figure = Figure(figsize=(10, 6.8), layout="constrained")
    above, below = figure.subfigures(2, 1)
    axes = above.subplots(1, max(1, len(run.dims)), squeeze=False)[0]
    for axis, d in zip(axes, run.dims, strict=False):
        _training(run, d, axis)
    axes[0].set_ylabel("training, nats a row")
    lines = [key("HEBAE"), key("HEBAE", ":"), key("VAE")]
    names = ["HEBAE, the paper's bound", "HEBAE, standard ELBO", "VAE, standard ELBO"]
    above.legend(lines, names, loc="outside upper center", ncols=3, frameon=False)
    axes = below.subplots(1, len(BOUNDS))
    for axis, (of_bound, name) in zip(axes, BOUNDS.items(), strict=True):
        for method in run.methods:
            _against_weight(run, method, of_bound, axis)
        axis.set_title(name, fontsize=10)
        _weight_axis(run, axis)
    axes[0].set_ylabel(f"held out, nats a row, d = {run.middle}")
    _methods_legend(run, below)
    return figure


def _training(run: Run, d: int, axis: Axes) -> None:
    """Means over seeds of training curves; what lies far below is cut off, and said."""
    shown = (("HEBAE", "own", "-"), ("VAE", "own", "-"), ("HEBAE", "elbo", ":"))
    curves = {}
    for method, name, style in shown:
        rows = run.cells(method, d).values()
        if rows:
            curves[method, name] = np.mean([curve(row, name) for row in rows], axis=0)
            epochs = np.arange(1, len(curves[method, name]) + 1)
            axis.plot(epochs, curves[method, name], style, color=COLOURS[method])
    axis.set_title(f"d = {d}", fontsize=10)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.grid(alpha=0.3)
    main = [line[min(1, len(line) - 1) :] for (_, name), line in curves.items() if name == "own"]
    if not main:
        return
    # The first epoch is far below the others.
    low, high = min(map(np.min, main)), max(map(np.max, main))
    height = max(high - low, 1.0)
    standard = curves.get(("HEBAE", "elbo"), np.array([low]))
    bottom = max(low - BELOW * height, min(low, standard.min())) - 0.1 * height
    axis.set_ylim(bottom, high + 0.1 * height)
    if standard[-1] < bottom:
        text = f"HEBAE's standard ELBO is\nbelow: \N{MINUS SIGN}{-standard[-1]:.0f} at the end"
        axis.text(
            *(0.97, 0.04, text),
            transform=axis.transAxes,
            ha="right",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2},
        )


def _against_weight(
    run: Run, method: str, of_what: str, axis: Axes, style: str = "-", *, dots: bool = True
) -> None:
    """Line through means over seeds, and a dot a seed."""
    values = {w: run.values(method, of_what, run.middle, w) for w in run.weights}
    found = {w: list(by_seed.values()) for w, by_seed in values.items() if by_seed}
    colour = COLOURS[method]
    axis.plot(list(found), [np.mean(v) for v in found.values()], style, color=colour)
    if dots:
        for weight, numbers in found.items():
            marker = MARKERS[method]
            axis.scatter(
                [weight] * len(numbers), numbers, s=18, color=colour, marker=marker, zorder=3
            )


def _weight_axis(run: Run, axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(run.weights))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(run.weights, [f"{weight:g}" for weight in run.weights])
    axis.set_xlabel("penalty weight")
    axis.grid(alpha=0.3)


def _methods_legend(run: Run, figure: Any, extra: Iterable[tuple[Line2D, str]] = ()) -> None:
    """Name methods above a figure, and what else is drawn."""
    named = [(key(method, marker=None), method) for method in run.methods] + list(extra)
    lines, names = zip(*named, strict=True)
    figure.legend(lines, names, loc="outside upper center", ncols=len(named), frameon=False)


def frechet(run: Run) -> Figure | None:
    """Fig. 1b: Fréchet distance against the weight, for every latent density."""
    floors = [value for row in run.rows if (value := number(row, "frechet_floor")) is not None]
    if not floors:
        return None
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    axes = figure.subplots(1, len(LATENTS), sharey=True)
    titles = (
        "N(0, I), the prior",
        "a Gaussian fitted to the codes",
        "a mixture fitted to the codes",
    )
    for axis, latent, title in zip(axes, LATENTS, titles, strict=True):
        for method in run.methods:
            _against_weight(run, method, f"samples.{latent}.frechet", axis)
            decoded = "samples.decoded_training_codes"
            _against_weight(run, method, decoded, axis, "--", dots=False)
        axis.axhline(np.mean(floors), color="0.4", linestyle=":")
        axis.set_title(f"samples of {title}", fontsize=10)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        _weight_axis(run, axis)
    axes[0].set_ylabel(f"Fréchet distance, d = {run.middle}\n(small classifier, not Inception)")
    extra = (
        (Line2D([], [], color="0.4", linestyle="--"), "decoded training codes"),
        (Line2D([], [], color="0.4", linestyle=":"), "floor: train against test"),
    )
    _methods_legend(run, figure, extra)
    return figure


def shown_covariances(run: Run) -> list[tuple[str, Row]]:
    """Title and cell of each column of the covariance figure: first seed, middle d."""
    columns = [("VAE", None), ("WAE", None), ("HEBAE", None)]
    heavier = [w for w in run.weights if w > METHODS["VAE"][2] and run.cells("VAE", run.middle, w)]
    if heavier:
        columns.insert(1, ("VAE", HEAVY if HEAVY in heavier else heavier[-1]))
    found = []
    for method, weight in columns:
        cells = run.cells(method, run.middle, weight)
        if cells:
            row = cells[min(cells)]
            found.append((f"{method}, weight {row['weight']:g}", row))
    return [(title, row) for title, row in found if row["covariance"]]


def covariance(run: Run) -> Figure | None:
    """Fig. 2a, b: covariance and correlation of held-out codes on one scale."""
    columns = shown_covariances(run)
    if not columns:
        return None
    figure = Figure(figsize=(2.4 * len(columns) + 0.9, 5.6), layout="compressed")
    axes = figure.subplots(2, len(columns), squeeze=False)
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad=MISSING)
    for j, (title, row) in enumerate(columns):
        off, distance = (
            number(row, name)
            for name in ("mean_abs_off_diagonal_correlation", "distance_from_identity")
        )
        captions = (
            f"{title}\n{row['collapsed']:.0f} collapsed, {distance:.2f} from I",
            "undefined" if off is None else f"mean |off-diagonal| {off:.3f}",
        )
        for i, name in enumerate(("covariance", "correlation")):
            matrix = np.array(row[name], dtype=float)
            image = axes[i, j].imshow(matrix, cmap=colours, vmin=-1, vmax=1)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].set_title(captions[i], fontsize=10)
    for axis, name in zip(axes[:, 0], ("covariance", "correlation"), strict=True):
        axis.set_ylabel(name, fontsize=11)
    figure.colorbar(image, ax=axes, extend="both", shrink=0.7, pad=0.02)
    return figure


def information(run: Run) -> Figure:
    """Fig. 2c, d: mutual information of row index and code."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    kinds = (
        ("mutual_information", "whole code"),
        ("mutual_information_per_dimension", "one dimension, mean over dimensions"),
    )
    order = [method for method in ("VAE", "HEBAE", "WAE") if method in run.methods]
    width = 0.8 / len(order)
    for axis, (of_what, title) in zip(axes, kinds, strict=True):
        for i, method in enumerate(order):
            for j, d in enumerate(run.dims):
                values = list(run.values(method, of_what, d).values())
                where = j + (i - (len(order) - 1) / 2) * width
                if values:
                    axis.bar(where, np.mean(values), 0.9 * width, color=COLOURS[method])
                    axis.scatter([where] * len(values), values, s=8, color="black", zorder=3)
        ceilings = [value for row in run.rows if (value := number(row, CEILING)) is not None]
        axis.axhline(max(ceilings), color="0.4", linestyle=":")
        axis.set_xticks(range(len(run.dims)), [f"d = {d}" for d in run.dims])
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel("I(row; code), nats")
    handles = [Patch(color=COLOURS[method]) for method in order]
    figure.legend(
        [*handles, Line2D([], [], color="0.4", linestyle=":")],
        [*order, "ceiling log n"],
        loc="outside upper center",
        ncols=len(order) + 1,
        frameon=False,
    )
    return figure


#: Key of log n.
CEILING = "mutual_information_ceiling"


def pictures(images: dict[str, NDArray[np.uint8]]) -> Figure | None:
    """Fig. 3: originals, reconstructions, interpolations and samples, a column a model."""
    methods = [method for method in METHODS if f"{method} original" in images]
    shape = image_shape(images[f"{methods[0]} original"].shape[1]) if methods else None
    if shape is None:
        return None
    rows = sum(n_rows for _, n_rows in IMAGE_KINDS.values())
    n_columns = len(images[f"{methods[0]} original"])
    size = (3.1 * len(methods) + 0.9, 3.1 * (rows + 1) / n_columns + 0.4)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(1, len(methods), squeeze=False)[0]
    for axis, method in zip(axes, methods, strict=True):
        parts, middles, height = [], [], 0
        for kind, (_, n_rows) in IMAGE_KINDS.items():
            part = mosaic(images[f"{method} {kind}"], n_rows, shape)
            middles.append(height + len(part) / 2 - 1)
            # A gap of a quarter of an image below each kind.
            gap = ((0, shape[1] // 4), *((0, 0),) * (part.ndim - 1))
            parts.append(np.pad(part, gap, constant_values=255))
            height += len(parts[-1])
        axis.imshow(np.concatenate(parts), cmap="gray", vmin=0, vmax=255)
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set_title(method, fontsize=11)
    axes[0].set_yticks(middles, [heading for heading, _ in IMAGE_KINDS.values()])
    axes[0].tick_params(length=0)
    return figure


def mosaic(flat: NDArray[np.uint8], n_rows: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Images beside and below each other in one array, with a line of white between them."""
    tiles = flat.reshape(n_rows, -1, *shape)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)), constant_values=255)
    _, n_columns, channels, height, width = tiles.shape
    whole = tiles.transpose(0, 3, 1, 4, 2).reshape(n_rows * height, n_columns * width, channels)
    return whole.squeeze(axis=2) if channels == 1 else whole
