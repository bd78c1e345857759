"""When bfloat16 training pays, to choose `BFLOAT16_WEIGHTS`.

``python -m benchmarks.precision`` writes ``results/precision.json``: seconds per
epoch in bfloat16 over float32, in turn, on random tables of several widths.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from benchmarks.common import write
from skhebae import HEBAETransformer
from skhebae.engine.devices import has_native_bfloat16

WIDTHS = (64, 256, 512, 784, 2000)


def seconds(X: np.ndarray[Any, Any], precision: str) -> float:
    """Fastest of the epochs after the first, whatever else the machine does."""
    estimator = HEBAETransformer(
        10, precision=precision, batch_size=128, max_iter=4, input_noise=0.0, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # four epochs, on purpose
        estimator.fit(X)
    return min(estimator.history_["seconds"][1:])


def main() -> None:
    """Measure each width three times, in turn."""
    rows: list[dict[str, Any]] = []
    native = has_native_bfloat16(torch.device("cpu"))
    for width in WIDTHS:
        X = np.random.default_rng(0).normal(size=(6400, width)).astype(np.float32)
        ratios = [seconds(X, "bfloat16") / seconds(X, "float32") for _ in range(3)]
        rows.append(
            {"n_features": width, "weights": 128 * width, "native": native, "ratios": ratios}
        )
        print(rows[-1], flush=True)
        write("precision", rows)


if __name__ == "__main__":
    main()
