"""Our own speed; ``make speed`` compares it with that of the last run on the same machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.work import BATCH_SIZE, counts, images, log_values, ours, paper
from skhebae import HEBAETransformer
from skhebae.objectives.aggregate import aggregate
from skhebae.objectives.fused import fused_aggregate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_ROWS = 20 * BATCH_SIZE

FITS = {
    "paper": lambda: paper("HEBAE", images(N_ROWS)),
    "counts": lambda: ours("HEBAE", counts(N_ROWS), likelihood="negative_binomial"),
    "gaussian": lambda: ours("HEBAE", log_values(N_ROWS)),
    "VAE": lambda: ours("VAE", images(N_ROWS)),
    "WAE": lambda: ours("WAE", images(N_ROWS)),
}


@pytest.mark.parametrize("name", FITS)
def test_fit(benchmark: Any, name: str) -> None:
    """Time two epochs, with all that comes before and after them."""
    benchmark.pedantic(FITS[name](), args=(2,), rounds=5, warmup_rounds=1)


def test_small_table(benchmark: Any) -> None:
    """Time a fit to 500 rows of 20 features, with defaults."""
    rows = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    fit = HEBAETransformer(random_state=0).fit
    benchmark.pedantic(fit, args=(rows,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("method", ["transform", "score_samples", "inverse_transform", "one_row"])
def test_inference(benchmark: Any, method: str) -> None:
    """Time what a fitted model does with rows."""
    rows = images(4096)
    model = HEBAETransformer(10, max_iter=1, random_state=0).fit(rows[:1000])
    given = {
        "score_samples": rows[:512],
        "inverse_transform": model.transform(rows),
        "one_row": rows[:1],
    }
    benchmark(getattr(model, method.replace("one_row", "transform")), given.get(method, rows))


@pytest.mark.parametrize("form", [aggregate, fused_aggregate])
def test_aggregate(benchmark: Any, form: Callable[..., Any]) -> None:
    """Evaluate HEBAE's equation and its gradient on a minibatch, readable and fused."""
    mu, eps = torch.randn(2, BATCH_SIZE, 10, generator=torch.Generator().manual_seed(0))
    mu.requires_grad_()
    benchmark(
        lambda: torch.autograd.grad(sum(of.sum() for of in form(mu, eps, 1.0, False)[:2]), mu)
    )
