"""A table with holes: values filled in with intervals, and codes of incomplete rows.

Run ``python examples/impute_survey.py --output demo_output``. The table has thirty quantities of
569 tumours (scikit-learn's breast cancer data); half of the sheets were filled in carelessly. It
prints errors, and draws one figure. It needs ``pip install 'skhebae[plot]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAEImputer, HEBAETransformer

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Array = NDArray[np.float64]
#: Share of the careless rows, and of the entries that each lacks.
CARELESS, LACKING = 0.5, 0.4
DRAWS, SHOWN = 100, 60
COMPLETE, FILLED = "#444444", "#d1495b"


def survey() -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Return complete rows, which of their entries are missing, and a label per row."""
    rows, y = load_breast_cancer(return_X_y=True)
    rng = np.random.RandomState(0)
    careless = rng.uniform(size=(len(rows), 1)) < CARELESS
    return rows, careless & (rng.uniform(size=rows.shape) < LACKING), y


def draw_intervals(axis: Axes, true: Array, mean: Array, draws: Array) -> None:
    """Draw true values of a column against imputed ones, with 90 % intervals of the draws."""
    low, high = np.quantile(draws, [0.05, 0.95], axis=0, method="weibull")
    expected = draws.mean(axis=0)
    errors = np.stack([expected - low, high - expected]).clip(min=0.0)
    how = {"fmt": "o", "ms": 3, "lw": 0.8, "color": FILLED}
    axis.errorbar(true, expected, errors, label=f"{len(draws)} draws: mean, 90 %", **how)
    axis.plot(true, mean, "_", color=COMPLETE, label="mean of the column")
    ends = [true.min(), true.max()]
    axis.plot(ends, ends, color="#999999", lw=0.8, zorder=0)
    axis.legend(frameon=False)


def draw_codes(axis: Axes, codes: Array, complete: Array, is_incomplete: NDArray[np.bool_]) -> None:
    """Draw codes of rows, and join those of some incomplete ones to those of the complete rows."""
    some = np.flatnonzero(is_incomplete)[:SHOWN]
    axis.scatter(*complete[:, :2].T, s=6, color="#cccccc", label="complete rows")
    for before, after in zip(complete[some, :2], codes[some, :2], strict=True):
        axis.plot(*np.stack([before, after]).T, color=FILLED, lw=0.8, alpha=0.6)
    axis.scatter(*codes[some, :2].T, s=14, color=FILLED, label="with 40 % missing")
    axis.set(xlabel="component 1", ylabel="component 2")
    axis.margins(y=0.2)  # room for the legend
    axis.legend(frameon=False, loc="upper right", ncols=2)


def main(output: Path) -> None:
    """Fill in the table, print errors, and draw the figure."""
    output.mkdir(parents=True, exist_ok=True)
    rows, missing, y = survey()
    holed = np.where(missing, np.nan, rows)
    is_incomplete = missing.any(axis=1)
    holes = f"{is_incomplete.sum()} of them with holes"
    print(f"{len(rows)} rows, {holes}; {missing.mean():.0%} of all entries missing")

    model = HEBAETransformer(10, random_state=0).fit(holed)
    filled = model.impute(holed)
    draws = model.impute(holed, n_draws=DRAWS)
    mean = SimpleImputer().fit_transform(holed)
    unit = rows.std(axis=0)

    def error(values: Array) -> float:
        return float(np.square((values - rows) / unit)[missing].mean() ** 0.5)

    print("\nRoot mean squared error of missing entries, in standard deviations:")
    for name, values in {"mean": mean, "HEBAE": filled, "one draw": draws[0]}.items():
        print(f"  {name:9} {error(values):.3f}")
    low, high = np.quantile(draws, [0.05, 0.95], axis=0, method="weibull")
    covered = ((low <= rows) & (rows <= high))[missing].mean()
    print(f"90 % intervals of {DRAWS} draws cover {covered:.1%} of them")

    complete = model.transform(rows)
    codes = {"transform(X)": holed, "transform(impute(X))": filled, "mean": mean}
    print("\nSquared error of the codes of incomplete rows, as a share of their variance:")
    spread = np.square(complete - complete.mean(axis=0))[is_incomplete].sum()
    for name, known in codes.items():
        lost = np.square(model.transform(known) - complete)[is_incomplete].sum() / spread
        print(f"  {name:21} {lost:.3f}")

    print("\nAccuracy of a logistic regression behind each imputer, five folds:")
    imputers = {"mean": SimpleImputer(), "HEBAE": HEBAEImputer(HEBAETransformer(random_state=0))}
    for name, imputer in imputers.items():
        pipeline = make_pipeline(imputer, StandardScaler(), LogisticRegression(max_iter=1000))
        print(f"  {name:9} {cross_val_score(pipeline, holed, y, cv=5).mean():.3f}")

    names = load_breast_cancer().feature_names
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for axis, column in zip(axes, (0, 4), strict=False):
        chosen = np.flatnonzero(missing[:, column])[:SHOWN]
        values = (rows[chosen, column], mean[chosen, column], draws[:, chosen, column])
        draw_intervals(axis, *values)
        axis.set(title=str(names[column]), xlabel="true", ylabel="imputed")
    draw_codes(axes[2], model.transform(holed), complete, is_incomplete)
    axes[2].set_title("codes of incomplete rows")
    path = output / "impute_survey.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"\nFigure: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)
