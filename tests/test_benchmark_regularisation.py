"""The benchmark of regularisation: known couplings, the L2 fit, and verdicts by rule."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from benchmarks import regularisation, regularisation_page
from benchmarks.regularisation import GRAPHS, STRENGTHS, coupled_precision, curves, l2_precisions


def sample_covariance(p, n, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, p)) @ np.diag(np.linspace(0.5, 1.5, p))
    return rows.T @ rows / n


@pytest.mark.parametrize("graph", GRAPHS)
def test_couplings_have_the_squares_asked_for_and_unit_variance(graph):
    precision = coupled_precision(graph, 50, 0.3, np.random.default_rng(0))
    couplings = np.diag(np.diag(precision)) - precision
    assert_allclose(couplings, couplings.T)
    assert_allclose(np.square(couplings).sum(axis=1).mean(), 0.3)
    assert np.ptp(np.diag(precision)) == 0.0
    assert np.trace(np.linalg.inv(precision)) == pytest.approx(50.0)
    assert (np.linalg.eigvalsh(precision) > 0.0).all()
    degree = {"ring": 2, "torus": 4, "dense": 49}.get(graph)
    if degree is not None:
        assert ((couplings != 0.0).sum(axis=1) == degree).all()


@pytest.mark.parametrize(("n", "strength"), [(3, 0.5), (20, 0.1), (20, 10.0)])
def test_the_l2_fit_is_the_optimisers(n, strength):
    """Over all entries of the precision, with mu at the mean of its diagonal."""
    p = 4
    covariance = sample_covariance(p, n)
    lower = np.tril_indices(p)

    def loss(entries):
        factor = np.zeros((p, p))
        factor[lower] = entries
        precision = factor @ factor.T
        log_det = np.linalg.slogdet(precision)[1]
        off = precision - np.trace(precision) / p * np.eye(p)
        penalty = 0.5 * strength * p / n * np.square(off).sum()
        return (precision * covariance).sum() - log_det + penalty

    # The function's own penalty is gamma p / 4 |.|^2 beside n / 2 times the likelihood.
    found = minimize(loss, np.eye(p)[lower], method="BFGS", options={"gtol": 1e-9})
    factor = np.zeros((p, p))
    factor[lower] = found.x
    expected = np.linalg.eigvalsh(factor @ factor.T)
    eigenvalues = l2_precisions(np.linalg.eigvalsh(covariance), np.array([strength]), n)[0]
    assert_allclose(np.sort(eigenvalues), expected, rtol=1e-4)


def test_the_l2_fit_solves_its_equations_at_all_strengths():
    variances = np.linalg.eigvalsh(sample_covariance(30, 20)).clip(min=0.0)
    fitted = l2_precisions(variances, STRENGTHS["L2"], 20)
    assert_allclose((1.0 / fitted).sum(axis=1), variances.sum(), rtol=1e-7)
    g = STRENGTHS["L2"] * 30 / 20
    mu = fitted.mean(axis=1)
    residual = 1.0 / fitted - variances - (g * (fitted.T - mu)).T
    assert_allclose(residual, 0.0, atol=1e-5)
    # Couplings shrink, from whatever the rows say to none.
    assert (np.diff(fitted.std(axis=1)) < 0.0).all()


@pytest.mark.parametrize("scheme", ["L2", "pseudo-rows", "L1"])
def test_curves_are_scipys_likelihoods(scheme, monkeypatch):
    monkeypatch.setitem(STRENGTHS, scheme, np.array([0.02, 0.1]))
    truth = np.linalg.inv(coupled_precision("ring", 8, 0.3, np.random.default_rng(0)))
    rows = np.random.default_rng(1).multivariate_normal(np.zeros(8), truth, size=40)
    found = curves(scheme, rows.T @ rows / 40, truth, 40)
    assert (np.diff(found.train) < 0.0).all()
    # The exact expectation under the truth, against many of its rows.
    many = np.random.default_rng(2).multivariate_normal(np.zeros(8), truth, size=40_000)
    if scheme == "L1":
        from sklearn.covariance import graphical_lasso

        fitted = graphical_lasso(rows.T @ rows / 40, 0.1)[0]
    elif scheme == "pseudo-rows":
        fitted = (0.1 * np.eye(8) + rows.T @ rows) / 40.1
    else:
        values, axes = np.linalg.eigh(rows.T @ rows / 40)
        fitted = axes / l2_precisions(values, np.array([0.1]), 40)[0] @ axes.T
    gaussian = multivariate_normal(np.zeros(8), fitted)
    assert found.train[1] == pytest.approx(gaussian.logpdf(rows).mean(), rel=1e-3)
    assert found.held_out[1] == pytest.approx(gaussian.logpdf(many).mean(), abs=0.05)
    assert found.generated[1] == pytest.approx(-gaussian.entropy(), rel=1e-3)


def model(best, crossing, generated, **kind):
    cell = {"scheme": "L2", "graph": "ring", "size": 100, "per_site": 1.0, "squared": 0.5} | kind
    found = {"best": best, "crossing": crossing, "train": 1.0, "held_out": 0.0}
    return {"part": "model", **cell, **found, "generated": generated}


def test_columns_that_hardly_vary_are_left_out():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[2:, 1] = 0.5
    rows[10:, 2] = 0.5
    np.testing.assert_array_equal(regularisation.varied(rows), rows[:, [0, 2]])


def test_verdicts_follow_the_rule():
    rows = [
        model(2.0, 2.1, 0.01, graph=graph, size=size, per_site=n, squared=squared)
        for graph in GRAPHS
        for size in (50, 100)
        for n in (1.0, 2.0)
        for squared in (0.5, 0.6)
    ]
    assert {line[-1] for line in regularisation.claims(rows)[:-1]} == {"holds"}
    rows[0] |= {"best": 20.0, "crossing": None, "generated": 0.5}
    verdicts = [line[-1] for line in regularisation.claims(rows)]
    assert verdicts == ["partly"] * 7 + ["not tested"]
    rows = [row | {"best": 20.0 * row["squared"], "crossing": None} for row in rows]
    verdicts = [line[-1] for line in regularisation.claims(rows)]
    assert verdicts[1:3] == ["does not"] * 2
    rows.append({"part": "real", "best": 1.0, "crossing": 1.9})
    assert regularisation.claims(rows)[-2][-1] == "holds"


def test_tables_and_figure(tmp_path):
    pytest.importorskip("matplotlib")
    grid = {"values": [1.0, 2.0, 4.0], "train": [3.0, 2.0, 1.0]}
    grid |= {"held_out": [0.0, 1.0, 0.5], "generated": [3.0, 0.9, 0.0]}
    cells = [model(2.0, 2.1, 0.01), model(3.0, None, 0.5, graph="torus") | {"curves": grid}]
    real = {
        "part": "real",
        "data": "breast-cancer",
        "model": "VAE",
        "parameter": "beta",
        "best": 2.0,
    }
    real |= {"crossing": None, "train": 2.0, "held_out": 1.0, "generated": 0.9, "curves": grid}
    cells.append({**real, "at_an_end": False, "one_standard_error": 4.0})
    cells.append({**cells[-1], "crossing": 1.9, "lost": 0.1, "lost_error": 0.2})
    parts = regularisation_page.parts(cells)
    assert "| 0.1 ± 0.2 |" in parts["real"][-1].replace("0.10", "0.1").replace("0.20", "0.2")
    assert len(parts["models"]) == 4 + 4  # in a fold
    regularisation_page.draw(cells, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
