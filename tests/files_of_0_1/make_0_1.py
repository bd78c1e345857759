"""Write the model files of this folder with version 0.1.0, and what they answered then.

    python tests/files_of_0_1/make_0_1.py

Later versions only read the files (`tests/test_old_files.py`). Before a release that changes what
files hold, copy this script to a new folder under a new name, and run it there by the last version.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import skhebae  # noqa: E402
from skhebae import (  # noqa: E402
    AutoencoderTransformer,
    HEBAEImputer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)
from skhebae.objectives import VAEObjective  # noqa: E402
from tests.old_files import answers_of, pack_table  # noqa: E402

BRIEF: dict[str, Any] = {
    "n_components": 2,
    "hidden_layer_sizes": (5,),
    "max_iter": 6,
    "random_state": 0,
}


def own_encoder(shape: tuple[int, ...], n_outputs: int) -> torch.nn.Module:
    """Return an encoder of the user's own, which a file holds by name only."""
    return torch.nn.Sequential(
        torch.nn.Linear(shape[0], 4), torch.nn.Tanh(), torch.nn.Linear(4, n_outputs)
    )


def make_numbers(rng: np.random.RandomState) -> np.ndarray:
    """Draw 60 curved rows of 6 features around 2-d codes."""
    codes = rng.normal(size=(60, 2))
    features = np.concatenate([codes, np.sin(2 * codes)], axis=1)
    return features @ rng.normal(size=(4, 6)) + 0.1 * rng.normal(size=(60, 6)) + 3.0


def make_line(rng: np.random.RandomState) -> np.ndarray:
    """Draw 60 rows of 6 features around a plane, for which perceptrons find no use."""
    return rng.normal(size=(60, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(60, 6))


def make_counts(rng: np.random.RandomState) -> np.ndarray:
    """Draw 60 rows of 5 counts."""
    mean = 4.0 * np.exp(0.6 * rng.normal(size=(60, 1)) + 0.6 * rng.normal(size=5))
    return rng.poisson(mean).astype(float)


def make_holes(rng: np.random.RandomState) -> np.ndarray:
    """Draw numbers of which a tenth is missing."""
    X = make_numbers(rng)
    X[rng.random_sample(X.shape) < 0.1] = np.nan
    X[0, 1] = np.nan
    return X


def make_frame(rng: np.random.RandomState) -> pd.DataFrame:
    """Draw 60 rows of a frame with a column of each kind and missing entries."""
    age = rng.randint(18, 80, size=60)
    town = np.array(["Bath", "Leeds", "York"], dtype=object)[(age // 7) % 3]
    town[3] = None
    level = np.array(["low", "middle", "high"], dtype=object)[age // 30]
    income = 300.0 * age + 500.0 * rng.normal(size=60)
    income[5] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "income": income,
            "town": pd.Series(town, dtype=object),
            "level": pd.Categorical(level, ["low", "middle", "high"], ordered=True),
            "owner": pd.Series(age > 40, dtype="boolean"),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(age * 10, unit="D"),
        }
    )


def make_models() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Return an unfitted model, its table and the side information of rows by name of the file."""
    rng = np.random.RandomState(0)
    numbers, line, counts = make_numbers(rng), make_line(rng), make_counts(rng)
    within = (numbers - numbers.min(axis=0)) / np.ptp(numbers, axis=0)
    frame, holes = make_frame(rng), make_holes(rng)
    batch = {"batch": np.where(np.arange(60) % 2 == 0, "a", "b").tolist()}
    curved = {**BRIEF, "linear_path": False}
    negative_binomial = {**BRIEF, "likelihood": "negative_binomial"}
    return {
        "hebae": (HEBAETransformer(**curved, row_share=0.5), numbers, {}),
        "linear-path": (HEBAETransformer(**{**BRIEF, "max_iter": "auto"}), line, {}),
        "whitened": (HEBAETransformer(**BRIEF, whiten=True, linear_path=True), numbers, {}),
        "vae": (VAETransformer(**curved, beta=0.5), numbers, {}),
        "vae-tilted": (VAETransformer(**curved, prior="tilted"), numbers, {}),
        "vae-capacity": (
            VAETransformer(**curved, capacity=(0.0, 2.0, 3), capacity_weight=3.0),
            numbers,
            {},
        ),
        "wae": (WAETransformer(**curved), numbers, {}),
        "custom": (AutoencoderTransformer(**curved, objective=VAEObjective), numbers, {}),
        "own-encoder": (HEBAETransformer(**curved, encoder=own_encoder), numbers, {}),
        "bernoulli": (WAETransformer(**BRIEF, likelihood="bernoulli"), within, {}),
        "poisson": (VAETransformer(**BRIEF, likelihood="poisson"), counts, {}),
        "counts-batches": (HEBAETransformer(**negative_binomial), counts, batch),
        "counts-encoded-batches": (
            VAETransformer(**negative_binomial, encode_batch=True),
            counts,
            batch,
        ),
        "zero-inflated": (
            HEBAETransformer(**BRIEF, likelihood="zero_inflated_negative_binomial"),
            counts,
            {"size_factor": counts.sum(axis=1).tolist()},
        ),
        "missing": (HEBAETransformer(**BRIEF), holes, {}),
        "imputer": (HEBAEImputer(VAETransformer(**BRIEF)), holes, {}),
        "mixed": (HEBAETransformer(**BRIEF), frame, {}),
        "mixed-families": (
            VAETransformer(**BRIEF, likelihood={"income": "student_t", "age": "quantile"}),
            frame,
            {},
        ),
        "detector": (NoveltyDetector(HEBAETransformer(**curved), random_state=0), numbers, {}),
        "detector-of-counts": (
            NoveltyDetector(
                HEBAETransformer(**negative_binomial),
                novelty_score="bound",
                random_state=0,
            ),
            counts,
            batch,
        ),
    }


def main() -> None:
    """Fit and save each model, and write down what its file answers."""
    if not skhebae.__version__.startswith("0.1."):
        raise SystemExit(f"These files are of version 0.1, and this is {skhebae.__version__}.")
    expected = {}
    for name, (model, table, sides) in make_models().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(table, **sides)
        # The imputer has no file of its own: its autoencoder has.
        model = getattr(model, "autoencoder_", model) if name == "imputer" else model
        path = HERE / f"{name}.skhebae"
        model.save(path)
        rows = table.iloc[:4] if isinstance(table, pd.DataFrame) else table[:4]
        sides = {key: values[:4] for key, values in sides.items()}
        factories = {"custom": {"objective": VAEObjective}, "own-encoder": {"encoder": own_encoder}}
        loaded = type(model).load(path, **factories.get(name, {}))
        answers = answers_of(loaded, rows, sides)
        expected[name] = {
            "class": type(model).__name__,
            "rows": pack_table(rows),
            "sides": sides,
            "answers": {
                key: pack_table(value)
                if isinstance(value, pd.DataFrame)
                else {"array": np.asarray(value).tolist()}
                for key, value in answers.items()
            },
        }
    lines = [
        f"{json.dumps(name)}: {json.dumps(entry, default=lambda value: value.item())}"
        for name, entry in expected.items()
    ]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
