"""``python -m benchmarks.table`` makes docs/benchmarks.md from the JSON in results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import compare_page, single_cell_page, speed_page
from benchmarks.pages import average, described, group, load, spread_out

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def defaults() -> list[str]:
    """Table of the estimators with their defaults against PCA."""
    environment, rows = load("defaults")
    lines = [
        "## Defaults against PCA of the same size",
        "",
        "Held-out squared error as a share of PCA's, nearest-neighbour accuracy on the codes",
        "(5 neighbours, 10 on Fashion-MNIST), seconds, and the accuracy at which 5 neighbours",
        "tell held-out rows from sampled ones (0.5 is chance). Means over seeds; each seed has",
        "its own split, except for Fashion-MNIST's. (Samples of the mixture: of 10 components, the",
        "default when this was measured.)",
        "",
        "| data | method | seeds | error / PCA | k-NN accuracy | fit s | mixture, share of fit "
        "| told apart: mixture | gaussian | prior |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (data,), of_data in group(rows, "data").items():
        methods = group(of_data, "method")
        pca = average(methods[("PCA",)], "held_out_squared_error")
        for (method,), cells in methods.items():
            error = average(cells, "held_out_squared_error") / pca
            line = (
                f"| {data} (d = {cells[0]['n_components']}) | {method} | {len(cells)} "
                f"| {error:.3f} | {average(cells, 'knn_accuracy'):.3f} "
                f"| {average(cells, 'fit_seconds'):.2f} "
            )
            if "n_iter" in cells[0]:
                apart = [cell["two_sample_accuracy"] for cell in cells]
                line += f"| {100 * average(cells, 'mixture_share_of_fit'):.1f} % "
                line += "".join(
                    f"| {average(apart, latent):.3f} "
                    for latent in ("mixture", "gaussian", "prior")
                )
                lines.append(line + "|")
            else:
                lines.append(line + "| | | | |")
    return [*lines, "", f"Made by `python -m benchmarks.defaults`: {described(environment)}.", ""]


def covariance_prior() -> list[str]:
    """Table behind the default of `covariance_prior`."""
    environment, rows = load("covariance_prior")
    lines = [
        "## The default of `covariance_prior`",
        "",
        "HEBAE on digits, 100 epochs, with more rows than dimensions in a minibatch and with",
        "fewer. `KL of moments` is the divergence of the held-out codes' covariance from the",
        "identity, in nats. Up to one pseudo-row nothing changes where there are enough rows,",
        "and where there are not, small values are best and as stable; larger ones narrow the",
        "codes. One row's weight is the default. Fewer rows than dimensions narrow the codes",
        'whatever the prior, which is why `batch_size="auto"` takes at least 4 rows a dimension.',
        "",
        "| n_components | batch_size | covariance_prior | held-out squared error | mean variance "
        "| KL of moments |",
        "|---|---|---|---|---|---|",
    ]
    keys = ("n_components", "batch_size", "covariance_prior")
    for key, cells in group(rows, *keys).items():
        numbers = [
            average(cells, name)
            for name in ("held_out_squared_error", "mean_variance", "kl_of_moments")
        ]
        lines.append(
            "| {} | {} | {:g} | ".format(*key) + "{:.5f} | {:.3f} | {:.3f} |".format(*numbers)
        )
    command = "python -m benchmarks.covariance_prior"
    return [*lines, "", f"Made by `{command}`, 3 seeds: {described(environment)}.", ""]


def precision() -> list[str]:
    """Table behind `precision="auto"`."""
    environment, rows = load("precision")
    lines = [
        "## When bfloat16 training pays",
        "",
        "Seconds per epoch in bfloat16 over float32, HEBAE with one hidden layer of 128 units and",
        'minibatches of 128 rows: median and range of three pairs. `precision="auto"` takes',
        "bfloat16 from 65,536 weights in a layer on.",
        "",
        "| features | weights of the widest layer | bfloat16 / float32 |",
        "|---|---|---|",
    ]
    for row in rows:
        low, middle, high = sorted(row["ratios"])
        lines.append(
            f"| {row['n_features']} | {row['weights']} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return [*lines, "", f"Made by `python -m benchmarks.precision`: {described(environment)}.", ""]


#: Numbers of the study of `row_share`: key, heading and format.
STUDY = (
    ("held_out_squared_error", "held-out squared error", "{:.4f}"),
    ("reconstruction", "-E log p(x given z)", "{:.1f}"),
    ("elbo", "standard ELBO", "{:.1f}"),
    ("log_likelihood", "log p(x)", "{:.1f}"),
    ("mutual_information", "mutual information", "{:.3f}"),
    ("noise_share", "noise, share of variance", "{:.1e}"),
    ("active", "active dimensions", "{:.1f}"),
    ("knn_accuracy", "k-NN accuracy", "{:.3f}"),
    ("told_apart_mixture", "told apart: mixture", "{:.3f}"),
    ("told_apart_prior", "told apart: prior", "{:.3f}"),
)


def row_share() -> list[str]:
    """Tables behind the default of `row_share`, and their figure."""
    environment, rows = load("row_share")
    plot_row_share(rows, PAGE.parent / "images" / "row_share.png")
    lines = [
        "## `row_share`, from the paper's objective to the ELBO",
        "",
        "HEBAE (d = 10, defaults) for six values of `row_share`, and VAE beside it, on held-out",
        "rows (2,000 of Fashion-MNIST's for the nats). `log p(x)` is the importance-weighted",
        "`log_likelihood` with 100 draws; mutual information of row and code is that of at most",
        "1,000 rows, and cannot exceed the ceiling named with each table; noise is the variance",
        "of posteriors as a share of the codes'; `told apart` is the accuracy at which 5",
        "neighbours tell held-out rows from sampled ones (0.5 is chance), in the first 20",
        "principal components. Means over seeds, with the standard deviation over seeds where it",
        "is not 0. (Samples of the mixture: of 10 components, the default when this was measured.)",
        "",
        "Between 0 and 1, likelihood and samples from the prior get better (the likelihood of",
        "pbmc3k, which varies by hundreds of nats from split to split, clearly only at 1), and",
        "reconstruction gets worse; neighbours, and samples of the mixture that `sample` takes by",
        "default, hardly change. So 0, the published method, stays the default; 1 is for those who",
        "need the density or the prior, and values between trade one for the other. The standard",
        "ELBO at 0 says little: each dimension pays for the precision of a noise that vanished.",
        "",
        "![Held-out numbers against row_share](images/row_share.png)",
        "",
    ]
    for (data,), of_data in group(rows, "data").items():
        ceiling = average(of_data, "mutual_information_ceiling")
        seeds = len({row["seed"] for row in of_data})
        lines += [
            f"### {data}: {of_data[0]['n_train']} rows, {seeds} seeds, ceiling {ceiling:.2f} nats",
            "",
            "| row_share | " + " | ".join(heading for _, heading, _ in STUDY) + " |",
            "|---" * (len(STUDY) + 1) + "|",
        ]
        for (share,), cells in group(of_data, "row_share").items():
            numbers = [spread_out([cell[key] for cell in cells], form) for key, _, form in STUDY]
            lines.append(f"| {share} | " + " | ".join(numbers) + " |")
        lines.append("")
    return [*lines, f"Made by `python -m benchmarks.row_share`: {described(environment)}.", ""]


#: Densities of the sampling study that every model has, and how the page calls them.
DENSITIES = {
    "training codes": "training codes themselves",
    "prior": "prior",
    "full 1": "one Gaussian",
    "full 10": "mixture of 10 (the default before)",
    "sized": "mixture of `sample`",
    "sized, sphere": "the same, shrunk to spheres",
    "sized, pooled": "the same, shrunk to the common covariance",
    "tied 50": "mixture of 50, one covariance",
    "diag 50": "mixture of 50, diagonal",
    "KDE 0.2": "kernels, bandwidth 0.2",
    "KDE scott": "kernels, Scott's bandwidth",
}


def multiple(cells: list[dict[str, Any]]) -> float:
    """Mean Fréchet distance as a multiple of the floor's."""
    return average(cells, "frechet") / average(cells, "floor")


def densities(cells: list[dict[str, Any]]) -> list[str]:
    """Table of every density of one model's codes."""
    found = group(cells, "latent")
    seeds = len({row["seed"] for row in cells})
    lines = [
        f"HEBAE, d = 10; {cells[0]['n_compared']} rows compared, {seeds} seeds, floor "
        f"{average(cells, 'floor'):.2f}, classifier's accuracy "
        f"{average(cells, 'classifier_accuracy'):.3f}.",
        "",
        "| codes from | distance / floor | coverage | nats | share of fit | kB |",
        "|---|---|---|---|---|---|",
    ]
    for key, name in DENSITIES.items():
        of = found.get((key,), [])
        numbers = [f"{multiple(of):.2f}", f"{average(of, 'coverage'):.3f}"] if of else []
        if of and "log_density" in of[0]:
            numbers.append(f"{average(of, 'log_density'):.2f}")
            numbers.append(f"{100 * average(of, 'share_of_fit'):.1f} %")
            numbers.append(f"{average(of, 'bytes') / 1000:.0f}")
        if of:
            lines.append(f"| {name} | " + " | ".join([*numbers, "", "", ""][:5]) + " |")
    return lines


def sampling() -> list[str]:
    """Tables behind the density that `sample` draws from."""
    environment, rows = load("sampling")
    default = [row for row in rows if row["n_components"] == 10 and row["model"] == "HEBAE"]
    multiples = []
    for (data,), cells in group(default, "data").items():
        found = group(cells, "latent")
        best = multiple(found[("training codes",)])
        multiples.append(f"{data} {multiple(found[('sized',)]):.1f} (training codes {best:.1f})")
    lines = [
        "## What `sample` draws from",
        "",
        "Fréchet distance of samples from held-out rows in features of a small classifier of the",
        "same data (not Inception), as a multiple of the floor: that of training rows from",
        "held-out ones, equally many. The distance of decoded *training codes* is what a perfect",
        "density of codes would have; above the floor it is the decoder's blur. Nats are the mean",
        "log density of held-out codes; shares are of the estimator's fit.",
        "",
        f"HEBAE (d = 10) with its mixture: {'; '.join(multiples)}. On",
        "digits the blur is small, and the mixture comes near what is possible. On Fashion-MNIST",
        "and patches the blur is nearly all of it: means have no texture, and no density of codes",
        "can give it back. A distance below that of the training codes themselves is no merit:",
        "codes spread wider than the real ones decode to more contrast.",
        "",
        "The mixture has as many components as there are 30 rows, and 3 a dimension, for each, up",
        "to 50, stops EM early, and shrinks each component's correlations, in which a tenth of",
        "those rows count as without any.",
        "",
    ]
    for (data,), of_data in group(rows, "data").items():
        models = group(of_data, "model", "n_components")
        lines += [f"### Samples of {data}", "", *densities(models.pop(("HEBAE", 10))), ""]
        if not models:
            continue
        chosen = ("training codes", "prior", "full 10", "sized")
        headings = " | ".join(DENSITIES[key] for key in chosen)
        lines += [f"| distance / floor | {headings} |", "|---" * (len(chosen) + 1) + "|"]
        for (model, d), cells in models.items():
            found = group(cells, "latent")
            numbers = [
                f"{multiple(found[(key,)]):.2f}" if (key,) in found else "-" for key in chosen
            ]
            lines.append(f"| {model}, d = {d} | " + " | ".join(numbers) + " |")
        lines.append("")
    return [*lines, f"Made by `python -m benchmarks sampling --few`: {described(environment)}.", ""]


def plot_row_share(rows: list[dict[str, Any]], path: Path) -> None:
    """One row of panels a data set, one panel a number, one dot a seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = (
        ("held-out squared error", ("held_out_squared_error",)),
        ("nats a row", ("log_likelihood", "elbo")),
        ("mutual information", ("mutual_information",)),
        ("k-NN accuracy", ("knn_accuracy",)),
        ("told apart", ("told_apart_prior", "told_apart_mixture")),
    )
    groups = group(rows, "data")
    size = (3.1 * len(panels), 2.6 * len(groups))
    figure, grid = plt.subplots(
        len(groups), len(panels), figsize=size, layout="constrained", squeeze=False, sharex=True
    )
    colours = ("#3f90da", "#bd1f01")
    for ((data,), of_data), axes in zip(groups.items(), grid, strict=True):
        models = group(of_data, "row_share")
        vae = models.pop(("VAE",))
        shares = [f"{share:g}" for (share,) in models]
        for axis, (title, keys) in zip(axes, panels, strict=True):
            for key, colour in zip(keys, colours, strict=False):
                label = key.replace("_", " ").replace("told apart ", "samples of the ")
                means = [average(cells, key) for cells in models.values()]
                axis.plot(shares, means, color=colour, label=label)
                for share, cells in zip(shares, models.values(), strict=True):
                    dots = [cell[key] for cell in cells]
                    axis.scatter([share] * len(dots), dots, color=colour, s=12)
                of_vae = average(vae, key)
                axis.axhline(of_vae, color=colour, linestyle=":", label=f"{label}, VAE")
            axis.set_title(f"{data}: {title}", fontsize=10)
            axis.grid(alpha=0.3)
            if len(keys) > 1:
                axis.legend(fontsize=7)
    for axis in grid[-1]:
        axis.set_xlabel("row_share (dotted: VAE)")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Write the page."""
    lines = ["# Benchmarks", "", "Generated by `python -m benchmarks.table`; do not edit.", ""]
    PAGE.parent.mkdir(exist_ok=True)
    top, details = compare_page.page(PAGE.parent)
    parts = [defaults(), sampling(), row_share(), covariance_prior(), precision(), details]
    PAGE.write_text("\n".join([*lines, *top, *(line for part in parts for line in part)]))
    print(f"wrote {PAGE}")
    single_cell_page.main()
    speed_page.main()


if __name__ == "__main__":
    main()
