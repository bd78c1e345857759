"""The benchmark of capacity: images of known factors, MIG and DCI with controls, and verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.utils import Bunch

from benchmarks import disentangle
from benchmarks.factors import (
    FACTORS,
    SIDE,
    concentration,
    dci,
    mutual_information_gap,
    mutual_informations,
    sprites,
)


@pytest.fixture(scope="module")
def images():
    return sprites()


def test_sprites_are_all_combinations_of_their_factors(images):
    rows, factors = images
    assert rows.shape == (len(factors), SIDE**2)
    assert factors.shape[1] == len(FACTORS)
    assert len(np.unique(factors, axis=0)) == len(factors) == 8 * 8 * 4 * 6 * 3
    assert 0.0 <= rows.min() <= rows.max() <= 1.0
    assert len(np.unique(rows.round(6), axis=0)) == len(rows), "each looks different"
    # The bright pixels of a square, which is symmetric, are where its factors say.
    square = rows[factors[:, 4] == 0].reshape(-1, SIDE, SIDE)
    axis = np.linspace(-1.0, 1.0, SIDE)
    column = (square.sum(axis=1) * axis).sum(axis=1) / square.sum(axis=(1, 2))
    expected = np.linspace(-0.5, 0.5, 8)[factors[factors[:, 4] == 0, 0]]
    assert_allclose(column, expected, atol=0.03)


def test_gap_of_known_codes(images):
    """Positive controls: the factors. Negative ones: noise, and each factor in two components."""
    _, factors = images
    rng = np.random.default_rng(0)
    own = factors + 1e-3 * rng.normal(size=factors.shape)
    noise = rng.normal(size=factors.shape)
    assert mutual_information_gap(np.hstack([own, noise]), factors) > 0.9
    assert mutual_information_gap(noise, factors) < 0.02
    assert mutual_information_gap(np.hstack([own, own]), factors) == pytest.approx(0.0, abs=1e-9)
    entropies = [np.log(len(np.unique(v))) for v in factors.T]
    assert np.all(mutual_informations(own, factors).max(axis=0) <= np.array(entropies) + 1e-9)


@pytest.mark.slow
def test_dci_of_known_codes(images):
    _, factors = images
    rng = np.random.default_rng(0)
    own = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    noise = rng.normal(size=factors.shape)
    best = dci(np.hstack([own, noise]), factors)
    assert min(best.values()) > 0.95
    assert max(dci(noise, factors).values()) < 0.1
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    mixed = dci(own @ turn, factors)
    assert mixed["informativeness"] > 0.8, "nothing is lost"
    assert max(mixed["disentanglement"], mixed["completeness"]) < 0.5, "but all are mixed"
    # Each factor in two components: the components are pure, but no factor is in one.
    doubled = dci(np.hstack([own, own + 0.01 * noise]), factors)
    assert doubled["disentanglement"] > 0.95 > doubled["completeness"]


def test_concentration_of_known_shares():
    weights = np.array([[1.0, 0.0, 0.0], [2.0, 2.0, 2.0], [3.0, 3.0, 0.0]])
    assert_allclose(concentration(weights), [1.0, 0.0, 1.0 - np.log(2) / np.log(3)], atol=1e-9)


def test_the_beta_of_a_divergence_is_found():
    """On a curve with the slope of an optimum, d reconstruction / d KL = -beta."""
    calls = []

    def measure(beta):
        calls.append(beta)
        return {"kl": 10.0 - 4.0 * np.log(beta), "reconstruction": 4.0 * beta}

    row = disentangle.find_beta(13.0, measure, (1.0, 0.5))
    assert row["beta"] == pytest.approx(np.exp(-0.75), rel=0.02)
    assert row["reconstruction"] == pytest.approx(4.0 * np.exp(-0.75), rel=0.01)
    assert len(calls) <= disentangle.SEARCHES


@pytest.mark.slow
def test_a_run_measures_every_cell_once(tmp_path, monkeypatch):
    rows, factors = sprites()
    digits = disentangle.load_digits()
    monkeypatch.setattr(disentangle, "sprites", lambda: (rows[::47], factors[::47]))
    monkeypatch.setattr(disentangle, "load_digits", lambda: Bunch(data=digits.data[:80]))
    monkeypatch.setattr(disentangle, "BETAS", (1.0,))
    monkeypatch.setattr(disentangle, "CAPACITIES", (6.0,))
    for more in ([], ["--resume"]):
        disentangle.main(["--seeds", "3", "--output", str(tmp_path), *more])
    found = json.loads((tmp_path / "disentangle.json").read_text())["rows"]
    assert len(found) == 3 + 4 + 3 + 4
    led = [row for row in found if row["method"] == "capacity" and row["data"] == "digits"]
    assert [row["likelihood"] for row in led] == list(disentangle.LIKELIHOODS)
    assert_allclose([row["kl"] for row in led], 6.0, rtol=0.1)


def made_up(gap=0.0, off=0.0, better=0.0):
    rows = []
    for seed in (0, 1):
        for target in disentangle.CAPACITIES:
            cell = {"data": "digits", "likelihood": "gaussian", "target": target, "seed": seed}
            cell |= {"n_features": 10, "beta": 1.0}
            led = {"kl": target * (1.0 + off), "reconstruction": 5.0 + 10 * gap}
            rows.append(cell | {"method": "capacity"} | led)
            rows.append(cell | {"method": "beta", "kl": target, "reconstruction": 5.0})
        for beta in disentangle.BETAS:
            for method in ("beta", "capacity"):
                row = {"data": "sprites", "method": method, "setting": beta, "seed": seed}
                row |= {"axes": disentangle.OWN, "n_features": 10, "kl": 5.0 / beta}
                row["reconstruction"] = 5.0 + beta + 10 * gap * (method == "capacity")
                score = 0.3 + 0.1 * beta + better * (method == "capacity")
                measures = dict.fromkeys((*disentangle.MEASURES, "informativeness"), score)
                rows.append(row | measures)
    return rows


def test_verdicts_follow_the_rule():
    def verdicts(**how):
        return [line[-1] for line in disentangle.claims(made_up(**how))]

    # As good as the best beta only where reconstruction is bad: the trade-off stays.
    assert verdicts() == ["holds"] * 4 + ["does not"]
    assert verdicts(better=0.5) == ["holds"] * 5
    assert verdicts(better=-0.1) == ["holds", "does not", "holds", "holds", "does not"]
    assert verdicts(gap=0.1)[3] == "does not"
    assert verdicts(off=0.2)[0] == "does not"
    assert "| claim | measured | verdict |" in disentangle.summary(made_up())
