"""Compare HEBAE with PCA on handwritten digits and on single cells.

Run ``python examples/quickstart.py --output demo_output``. It fits both methods as steps of a
pipeline, prints held-out errors, accuracies and times, and draws four figures. It needs two
extras: ``pip install 'skhebae[anndata,plot]'``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, VAETransformer

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from skhebae.plotting import CovarianceDisplay, LatentDisplay, TrainingDisplay

Array = NDArray[np.float64]


class Split(NamedTuple):
    """Training rows and test rows with their labels."""

    train: Array
    test: Array
    y_train: NDArray[np.str_]
    y_test: NDArray[np.str_]


def digits() -> Split:
    """Load 1,797 images of 8 x 8 pixels and scale them to [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return Split(*train_test_split(X / 16, y.astype(str), test_size=0.25, random_state=0))


def cells() -> Split:
    """Load the 700 blood cells and 765 normalised genes that ship with scanpy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file has an old format
        import scanpy

        adata = scanpy.datasets.pbmc68k_reduced()
    labels = adata.obs["bulk_labels"].to_numpy(dtype=str)
    X = np.asarray(adata.X, dtype=np.float64)
    return Split(*train_test_split(X, labels, test_size=0.25, random_state=0))


def compare(name: str, data: Split, pipelines: dict[str, Pipeline]) -> None:
    """Fit each pipeline and print a line of results."""
    for method, pipeline in pipelines.items():
        start = time.perf_counter()
        codes = pipeline.fit_transform(data.train)
        fitted = time.perf_counter()
        new = pipeline.transform(data.test)
        mapped = time.perf_counter()
        error = np.mean((pipeline.inverse_transform(new) - data.test) ** 2)
        neighbours = KNeighborsClassifier(5).fit(codes, data.y_train)
        accuracy = neighbours.score(new, data.y_test)
        print(
            f"{name:8} {method:10} {error:10.4f} {accuracy:13.3f} "
            f"{fitted - start:10.2f} {mapped - fitted:13.4f}"
        )


def two_sample_accuracy(real: Array, generated: Array) -> float:
    """Return how well 5 nearest neighbours tell real from generated rows. 0.5 is chance."""
    X = np.concatenate([real, generated])
    y = np.repeat([0, 1], [len(real), len(generated)])
    return float(cross_val_score(KNeighborsClassifier(5), X, y, cv=5).mean())


def plot_codes(model: HEBAETransformer, data: Split, path: Path) -> None:
    """Draw the first two components of held-out digits, by PCA and by HEBAE."""
    pca = PCA(model.n_components).fit(data.train)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, method in zip(axes, (pca, model), strict=True):
        LatentDisplay.from_estimator(method, data.test, labels=data.y_test, ellipses=False, ax=axis)
        axis.set_title(f"{type(method).__name__}: first two of {model.n_components} components")
    save(figure, path)


def plot_digits(model: HEBAETransformer, data: Split, path: Path) -> None:
    """Draw held-out digits, their reconstructions, and generated digits."""
    rows = data.test[:12]
    pca = PCA(model.n_components).fit(data.train)
    pictures = {
        "original": rows,
        f"PCA({model.n_components})": pca.inverse_transform(pca.transform(rows)),
        f"HEBAE({model.n_components})": model.inverse_transform(model.transform(rows)),
        "generated": model.sample(12, random_state=0),
        "generated ": model.sample(12, random_state=1),
    }
    figure, axes = plt.subplots(len(pictures), 12, figsize=(10, 4.4), layout="constrained")
    for line, (title, images) in zip(axes, pictures.items(), strict=True):
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file and close it."""
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(output: Path) -> None:
    """Print the table and draw the figures."""
    output.mkdir(parents=True, exist_ok=True)
    for line in (
        ("data", "method", "held-out", "5-neighbour", "fit", "transform"),
        ("", "", "sq. error", "accuracy", "seconds", "seconds"),
    ):
        print("{:8} {:10} {:>10} {:>13} {:>10} {:>13}".format(*line))
    images = digits()
    hebae = HEBAETransformer(10, random_state=0)
    compare(
        "digits", images, {"PCA(10)": make_pipeline(PCA(10)), "HEBAE(10)": make_pipeline(hebae)}
    )
    compare(
        "cells",
        cells(),
        {
            "PCA(10)": make_pipeline(StandardScaler(), PCA(10, random_state=0)),
            "HEBAE(10)": make_pipeline(StandardScaler(), HEBAETransformer(10, random_state=0)),
        },
    )

    print(
        "\nAccuracy of 5 neighbours at telling 450 generated from 450 real digits (0.5 is chance):"
    )
    for latent in ("mixture", "gaussian", "prior"):
        generated = hebae.sample(len(images.test), latent, random_state=0)
        print(f"  latent={latent!r:11} accuracy {two_sample_accuracy(images.test, generated):.3f}")

    vae = VAETransformer(10, random_state=0).fit(images.train)
    models = {"HEBAE": hebae, "VAE": vae}
    plot_codes(hebae, images, output / "codes.png")
    plot_digits(hebae, images, output / "digits.png")
    covariance = CovarianceDisplay.from_estimators(models, images.test)
    save(covariance.figure_, output / "covariance.png")
    save(TrainingDisplay.from_estimators(models).figure_, output / "training.png")
    print(f"\nFigures: {', '.join(sorted(str(path) for path in output.glob('*.png')))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for the figures"
    )
    main(parser.parse_args().output)
