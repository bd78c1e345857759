"""Noise from a pool is as good as noise drawn afresh."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from scipy import stats

from skhebae import HEBAETransformer, noise
from skhebae.noise import NoisePool

SHAPE = torch.Size((100, 300))


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(noise, "POOL_SIZE", 100_000)
    return NoisePool(torch.Generator().manual_seed(0))


def test_draws_are_standard_normal_and_not_each_others(pool):
    draws = np.stack([pool.draw(SHAPE).numpy().ravel() for _ in range(40)])
    assert stats.kstest(draws.ravel()[::7], "norm").pvalue > 1e-3
    correlation = np.corrcoef(draws)[np.triu_indices(40, 1)]
    # Of 780 pairs the largest by chance; the same stretch twice would give 1.
    assert np.abs(correlation).max() < 6.0 / SHAPE.numel() ** 0.5
    # Features of a row, and rows of a feature, are as independent.
    first = draws[0].reshape(SHAPE)
    assert np.abs(np.corrcoef(first)[np.triu_indices(100, 1)]).max() < 6.0 / 300**0.5


def test_pools_are_renewed_and_follow_the_generator(pool):
    first = pool.draw(SHAPE)._base
    pools = {id(first)}
    for _ in range(100):
        pools.add(id(pool.draw(SHAPE)._base))
    assert len(pools) > 1
    again = NoisePool(torch.Generator().manual_seed(0))
    assert torch.equal(again.draw(SHAPE), first[: SHAPE.numel()].view(SHAPE)) or torch.equal(
        again._numbers, first
    )
    # A request that a pool cannot serve is drawn afresh.
    large = pool.draw(torch.Size((400, 300)))
    assert large.shape == (400, 300)
    assert float(large.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_training_uses_a_pool_where_it_pays(monkeypatch):
    """The fit is as good as with noise drawn afresh, and reproducible."""
    monkeypatch.setattr("skhebae.training.loop.POOL_SIZE", 10_000)
    monkeypatch.setattr(noise, "POOL_SIZE", 10_000)
    used, pools = [], weakref.WeakSet()
    draw = NoisePool.draw

    def noted(pool, shape):
        used.append(1)
        pools.add(pool)
        return draw(pool, shape)

    monkeypatch.setattr(NoisePool, "draw", noted)
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1200, 3)) @ rng.normal(size=(3, 30))).astype(np.float32)
    # (Beside a linear path there is no noise.)
    params = {"max_iter": 30, "random_state": 0, "linear_path": False}
    models = [HEBAETransformer(3, **params).fit(X) for _ in range(2)]
    assert used
    np.testing.assert_array_equal(models[0].transform(X), models[1].transform(X))
    used.clear()
    monkeypatch.setattr("skhebae.training.loop.POOL_SIZE", 10**9)
    afresh = HEBAETransformer(3, **params).fit(X)
    assert not used
    errors = [((m.inverse_transform(m.transform(X)) - X) ** 2).mean() for m in (models[0], afresh)]
    assert errors[0] == pytest.approx(errors[1], rel=0.3)
    # No fitted model keeps a pool.
    gc.collect()
    assert not pools
