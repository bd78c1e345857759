"""Posterior collapse on digits: a VAE with a large penalty loses dimensions, HEBAE does not.

Run ``python examples/diagnose_collapse.py --output demo_output``. It prints a report
on each model and draws five figures. It needs ``pip install 'skhebae[plot]'``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import latent_report
from skhebae.exceptions import LatentWarning

mpl.use("Agg")
import matplotlib.pyplot as plt

from skhebae.plotting import (
    CovarianceDisplay,
    LatentDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
)

#: Weight of the penalty in both models; the usual weight is 1.
LARGE = 4.0


def main(output: Path) -> None:
    """Fit the models, print their reports and draw the figures."""
    output.mkdir(parents=True, exist_ok=True)
    X, y = load_digits(return_X_y=True)
    train, test, _, labels = train_test_split(X / 16, y, test_size=0.25, random_state=0)
    # Networks that start as principal component analysis hold on to their dimensions for longer.
    params = {"n_components": 10, "linear_path": False, "whiten": True, "random_state": 0}
    models = {
        "VAE, beta 1": VAETransformer(**params),
        f"VAE, beta {LARGE:g}": VAETransformer(**params, beta=LARGE),
        f"HEBAE, weight {LARGE:g}": HEBAETransformer(**params, reg_weight=LARGE),
    }
    for title, model in models.items():
        model.fit(train)
        print(f"--- {title} ---")
        with warnings.catch_warnings():
            # The printed report repeats each warning after an exclamation mark.
            warnings.simplefilter("ignore", LatentWarning)
            print(latent_report(model, test), end="\n\n")

    collapsed, hebae = list(models)[1:]
    displays = {
        "collapse_covariance": CovarianceDisplay.from_estimators(models, test),
        "collapse_training": TrainingDisplay.from_estimators(models),
        "collapse_codes": LatentDisplay.from_estimator(models[hebae], test, labels=labels),
    }
    for title, name in ((collapsed, "collapse_vae"), (hebae, "collapse_hebae")):
        displays[name] = ReconstructionDisplay.from_estimator(
            models[title], test, image_shape=(8, 8), random_state=0
        )
    for name, display in displays.items():
        display.figure_.savefig(output / f"{name}.png", dpi=110)
        plt.close(display.figure_)
    print("Figures:", ", ".join(str(output / f"{name}.png") for name in displays))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    main(parser.parse_args().output)
