"""Rows that do not belong: p-values, alarms at a chosen rate, and the columns that explain them.

Run ``python examples/detect_anomalies.py --output demo_output``. A detector that has seen only
benign tumours (scikit-learn's breast cancer data) is given malignant ones, and one that has seen
nine digits the tenth. It prints what they found, beside nearest neighbours and an isolation
forest, and draws two figures. It needs ``pip install 'skhebae[plot]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, NoveltyDetector
from skhebae.plotting import NoveltyDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Array = NDArray[np.float64]
#: Rate of false alarms, share of false alarms among the alarms, and the digit that is not seen.
ALPHA, FALSE_SHARE, NOVEL_DIGIT = 0.05, 0.1, 4
SHOWN = 5
INLIERS, NOVELTIES = "#444444", "#d1495b"


def compare_aurocs(train: Any, test: Any, is_novel: Array, own: Array) -> dict[str, float]:
    """Return the AUROC of the detector's novelty, and those of two others."""
    scaler = StandardScaler().fit(train)
    known, new = scaler.transform(train), scaler.transform(test)
    distances = NearestNeighbors(n_neighbors=5).fit(known).kneighbors(new)[0]
    forest = IsolationForest(random_state=0).fit(known)
    scores = {
        "NoveltyDetector": own,
        "5 neighbours": distances[:, -1],
        "isolation forest": -forest.score_samples(new),
    }
    return {name: float(roc_auc_score(is_novel, score)) for name, score in scores.items()}


def report(detector: NoveltyDetector, train: Any, test: Any, is_novel: Array, what: str) -> Array:
    """Print how many alarms there are, and the AUROCs; return p-values."""
    p_values = detector.p_values(test)
    alarms = p_values <= ALPHA
    known, new = (alarms[is_novel == novel] for novel in (0, 1))
    print(f"  Alarms at p <= {ALPHA}: {new.mean():.1%} of {len(new)} {what},")
    print(f"    and {known.mean():.1%} of {len(known)} rows like those of the fit")
    called = detector.p_values(test, adjust="bh") <= FALSE_SHARE
    false = (is_novel[called] == 0).mean() if called.any() else 0.0
    print(f"  Adjusted p <= {FALSE_SHARE}: {called.sum()} rows, {false:.1%} of them false alarms")
    aurocs = compare_aurocs(train, test, is_novel, -detector.score_samples(test))
    for name, auroc in aurocs.items():
        print(f"  AUROC {name:17} {auroc:.3f}")
    return p_values


def draw_alarms(axis: Axes, p_values: Array, is_novel: Array) -> None:
    """Draw the share of alarms against the level, for rows that belong and for others."""
    for novel, colour, label in ((0, INLIERS, "benign, held out"), (1, NOVELTIES, "malignant")):
        axis.ecdf(p_values[is_novel == novel], color=colour, label=label)
    axis.plot([0, 1], [0, 1], color="#999999", lw=0.8, ls=":", label="promised at most")
    axis.set(xlabel="p-value at most", ylabel="share of rows", title="alarms at each level")
    axis.legend(frameon=False, loc="lower right", fontsize="small")


def find_malignant(output: Path) -> None:
    """Fit to benign tumours, and find malignant ones."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    train, rest = train_test_split(X[y == 1], test_size=0.4, random_state=0)
    malignant = X[y == 0]
    test = pd.concat([rest, malignant])
    is_novel = np.repeat([0.0, 1.0], [len(rest), len(malignant)])
    print(f"Tumours: fitted to {len(train)} benign ones")
    detector = NoveltyDetector(random_state=0).fit(train)
    p_values = report(detector, train, test, is_novel, "malignant ones")
    shares = detector.explain(malignant, code="columns").mean()
    print("  Mean shares in what makes malignant ones strange:")
    for name, share in shares.nlargest(SHOWN).items():
        print(f"    {name:24} {share:.1%}")

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.0), layout="constrained")
    draw_alarms(axes[0], p_values, is_novel)
    NoveltyDisplay.from_estimator(detector, malignant, n_rows=2, ax=axes[1:])
    save(figure, output / "anomalies_tumours.png")


def find_digit(output: Path) -> None:
    """Fit to nine digits, and find the tenth."""
    X, y = load_digits(return_X_y=True)
    train, rest = train_test_split(X[y != NOVEL_DIGIT], test_size=0.3, random_state=0)
    novel = X[y == NOVEL_DIGIT]
    test = np.vstack([rest, novel])
    is_novel = np.repeat([0.0, 1.0], [len(rest), len(novel)])
    print(f"\nDigits: fitted to {len(train)} without any {NOVEL_DIGIT}")
    detector = NoveltyDetector(HEBAETransformer(10), random_state=0).fit(train)
    report(detector, train, test, is_novel, f"images of {NOVEL_DIGIT}")
    first = range(SHOWN)  # not the strangest
    display = NoveltyDisplay.from_estimator(detector, novel, rows=first, image_shape=(8, 8))
    save(display.figure_, output / "anomalies_digits.png")


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file."""
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"  Figure: {path}")


def main(output: Path) -> None:
    """Find malignant tumours and a novel digit; print numbers, and draw figures."""
    output.mkdir(parents=True, exist_ok=True)
    find_malignant(output)
    find_digit(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)
