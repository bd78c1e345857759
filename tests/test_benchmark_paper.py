"""The paper's experiments: networks, grid, measures, verdicts, and the page made of them."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks import frechet, paper, paper_measures, reproduction, work
from benchmarks.paper_figures import Run, curve, number
from benchmarks.paper_measures import information_per_dimension, matrices

FIGURES = ("bounds", "frechet", "covariance")


# Networks and schedules


def widths(net):
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_dense_networks_have_the_paper_s_sizes():
    encoder = work.dense_encoder((1, 28, 28), 20)
    decoder = work.dense_decoder(10, (1, 28, 28))
    assert widths(encoder) == [784, 784, 800, 20]
    assert widths(decoder) == [10, 800, 800, 784]
    codes = encoder(torch.zeros(3, 1, 28, 28))
    assert codes.shape == (3, 20)
    assert decoder(codes[:, :10]).shape == (3, 1, 28, 28)


@pytest.mark.parametrize(("n_outputs", "n_components"), [(16, 8)])
def test_convolutional_networks_have_the_paper_s_channels(n_outputs, n_components):
    encoder = work.conv_encoder((3, 64, 64), n_outputs)
    decoder = work.conv_decoder(n_components, (3, 64, 64))
    down = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in down] == [128, 256, 512, 1024]
    assert {(*layer.kernel_size, *layer.stride) for layer in down} == {(5, 5, 2, 2)}
    assert all(layer.bias is None for layer in down)
    up = [layer for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in up] == [512, 256, 128, 3]
    assert [layer.stride[0] for layer in up] == [2, 2, 2, 1]
    assert {layer.kernel_size for layer in up} == {(5, 5)}
    with torch.inference_mode():
        codes = encoder(torch.zeros(2, 3, 64, 64))
        assert codes.shape == (2, n_outputs)
        assert decoder(codes[:, :n_components]).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("epoch", "mnist", "celeba"),
    [
        (0, 1.0, 1.0),
        (1, 0.995, 1.0),
        (29, 0.995**29, 1.0),
        (30, 0.995**30, 1 / 2),
        (50, 0.995**50, 1 / 5),
        (70, 0.995**70, 1 / 10),
    ],
)
def test_learning_rates_decay_as_published(epoch, mnist, celeba):
    assert work.mnist_decay(epoch) == pytest.approx(mnist)
    assert work.celeba_decay(epoch) == pytest.approx(celeba)


# The grid


def test_grid_has_18_cells_a_seed_one_seed_after_the_other():
    grid = paper.setting("fashion-mnist").grid
    cells = list(paper.cells("fashion-mnist", grid, [0, 1], list(paper.METHODS)))
    assert len(cells) == len(set(cells)) == 36
    assert [cell.seed for cell in cells] == [0] * 18 + [1] * 18
    assert {cell.epochs for cell in cells} == {30}
    own = {"HEBAE": 1.0, "VAE": 1.0, "WAE": 10.0}
    for method, weight in own.items():
        pairs = [(c.n_components, c.weight) for c in cells[:18] if c.method == method]
        assert pairs[:3] == [(d, weight) for d in (2, 10, 50)]
        assert sorted(w for d, w in pairs if d == 10) == [0.1, 1.0, 10.0, 50.0]
    assert len({cell.file for cell in cells}) == 36


def test_celeba_has_its_own_setting_and_all_else_the_dense_one():
    assert paper.setting("celeba").encoder is work.conv_encoder
    assert paper.setting("celeba").batch_size == 100
    for data in ("mnist", "fashion-mnist", "digits"):
        assert paper.setting(data).encoder is work.dense_encoder
        assert paper.setting(data).batch_size == 128
        assert paper.setting(data).full.epochs == 100


def test_estimators_have_the_paper_s_parameters():
    table = SimpleNamespace(image_shape=(1, 8, 8))
    for method, weight in (("HEBAE", "reg_weight"), ("VAE", "beta"), ("WAE", "reg_weight")):
        cell = paper.Cell("digits", method, 10, 7.0, 3, 5)
        params = paper.estimator(cell, table, "float32").get_params()
        assert params[weight] == 7.0
        assert (params["random_state"], params["max_iter"], params["tol"]) == (3, 5, 0.0)
        assert (params["learning_rate_init"], params["batch_size"]) == (1e-3, 128)
        assert params["likelihood"] == "bernoulli"
        assert (params["linear_path"], params["whiten"], params["input_noise"]) == (
            False,
            True,
            0.0,
        )


def test_estimators_of_faces_differ_in_networks_and_optimiser_only():
    table = SimpleNamespace(image_shape=(3, 64, 64))
    for method, rate in (("HEBAE", 1e-4), ("VAE", 1e-4), ("WAE", 1e-3)):
        cell = paper.Cell("celeba", method, 64, 1.0, 0, 100)
        faces = paper.estimator(cell, table, "float32").get_params()
        others = paper.estimator(replace(cell, data="mnist"), table, "float32").get_params()
        assert (faces["learning_rate_init"], faces["batch_size"]) == (rate, 100)
        assert (faces["likelihood"], faces["decoder"]) == ("gaussian", work.conv_decoder)
        differing = {name for name, value in faces.items() if others[name] != value}
        optimiser = {"learning_rate_init", "learning_rate", "batch_size"}
        assert differing - optimiser == {"encoder", "decoder", "likelihood"}


# Measures


class Posterior:
    """What `information_per_dimension` and `matrices` ask of a model."""

    def __init__(self, mean, deviation):
        self.mean, self.deviation = mean, deviation

    def posterior(self, rows):
        factor = self.deviation * np.eye(self.mean.shape[1])
        return self.mean[: len(rows)], np.tile(factor, (len(rows), 1, 1))

    def transform(self, rows):
        return self.mean[: len(rows)]


def gaussian_codes(n_rows=1000, d=3):
    return np.random.default_rng(0).normal(size=(n_rows, d))


def test_information_of_points_is_the_log_of_their_number():
    model = Posterior(gaussian_codes(300), 0.0)
    rows = np.zeros((300, 4))
    assert information_per_dimension(model, rows) == pytest.approx(math.log(300))
    # Far apart on each axis, and hardly any noise: all can be told apart too.
    spaced = np.stack([np.arange(300.0), np.arange(300.0)[::-1]], axis=1)
    assert information_per_dimension(Posterior(spaced, 1e-3), rows) == pytest.approx(math.log(300))


def test_information_of_wide_noise_is_none():
    information = information_per_dimension(Posterior(gaussian_codes(), 1e3), np.zeros((1000, 4)))
    assert information == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_information_of_gaussian_codes_is_the_closed_form(deviation):
    # I(mu; mu + noise) of two Gaussians is half the log of 1 + signal to noise.
    information = information_per_dimension(
        Posterior(gaussian_codes(d=10), deviation), np.zeros((1000, 4))
    )
    assert information == pytest.approx(0.5 * math.log1p(deviation**-2), abs=0.03)


def test_matrices_of_known_codes():
    codes = gaussian_codes(500, 2)
    codes -= codes.mean(axis=0)
    white = codes @ np.linalg.inv(np.linalg.cholesky(np.cov(codes.T)).T)
    mixed = white @ np.linalg.cholesky([[4.0, 1.0], [1.0, 1.0]]).T
    measured = matrices(Posterior(mixed, 0.0), np.zeros((500, 4)))
    assert np.allclose(measured["covariance"], [[4.0, 1.0], [1.0, 1.0]])
    assert np.allclose(measured["correlation"], [[1.0, 0.5], [0.5, 1.0]])
    assert measured["mean_abs_off_diagonal_correlation"] == pytest.approx(0.5)
    assert measured["distance_from_identity"] == pytest.approx(math.sqrt(9 + 2))


# Rows made up, and the page made of them


def made_up(method, d=10, weight=None, seed=0, **numbers):
    measured = {"value": 2.0, "positive": 0.5, "negative": 50.0, "valid": True}
    point = method == "WAE"
    own = [-200.0, -105.0, -104.0]
    row = {
        "data": "digits",
        "method": method,
        "n_components": d,
        "seed": seed,
        "weight": paper.METHODS[method][2] if weight is None else weight,
        "epochs": 3,
        "n_train": 1347,
        "precision": "auto",
        "history": {
            "reconstruction": [-value for value in own],
            "penalty": [0.0] * 3,
            "elbo": [None] * 3 if point else own,
        },
        "classifier_accuracy": 0.9,
        "frechet_floor": 0.5,
        "held_out_squared_error": 0.1,
        **dict.fromkeys(("paper_bound", "elbo"), None if point else -104.0),
        "reconstruction": 70.0,
        "log_likelihood": -90.0,
        "mutual_information": 2.0,
        "mutual_information_ceiling": 3.0,
        "mutual_information_per_dimension": 1.0,
        "moments_kl": 0.1,
        "mean_posterior_deviation": 0.2,
        "collapsed": 0.0,
        "covariance": np.eye(d).tolist(),
        "correlation": np.eye(d).tolist(),
        "mean_abs_off_diagonal_correlation": 0.1,
        "distance_from_identity": 0.3,
        "samples": {
            **{latent: {"frechet": measured} for latent in paper_measures.LATENTS},
            "decoded_training_codes": 0.6,
        },
    }
    return row | numbers


def test_missing_numbers_and_failed_controls_are_none():
    failed = {"value": 1.0, "positive": 0.0, "negative": 0.0, "valid": False}
    assert number({"samples": {"prior": failed}}, "samples.prior") is None
    assert number({"samples": {"prior": failed | {"valid": True}}}, "samples.prior") == 1.0
    assert number({"elbo": None}, "elbo") is None
    assert number({"correlation": math.nan}, "correlation") is None
    assert number({}, "samples.prior.frechet") is None
    assert curve(made_up("WAE"), "elbo") == [-math.inf] * 3
    assert curve(made_up("WAE"), "own") == [-200.0, -105.0, -104.0]


def test_trials_of_another_length_are_left_out():
    run = Run([made_up("HEBAE"), made_up("VAE"), made_up("WAE", epochs=100)])
    assert (run.epochs, run.methods) == (3, ["HEBAE", "VAE"])


def test_cells_are_found_by_method_size_and_weight():
    rows = [made_up("HEBAE", seed=1, elbo=-3.0), made_up("HEBAE", elbo=-1.0)]
    run = Run([*rows, made_up("HEBAE", weight=50.0), made_up("HEBAE", d=2)])
    assert (run.dims, run.weights, run.seeds) == ([2, 10], [1.0, 50.0], [0, 1])
    assert run.values("HEBAE", "elbo", 10) == {0: -1.0, 1: -3.0}
    assert run.said("HEBAE", "elbo", 10) == "-2.0 ± 1.4"
    assert run.said("WAE", "elbo", 10) == "none"


def test_page_of_images_without_labels(tmp_path):
    kept = {"covariance": None, "correlation": None, "data": "celeba", "n_components": 64}
    rows = [made_up(method) | kept for method in paper.METHODS]
    for row in rows:
        del row["samples"], row["frechet_floor"], row["classifier_accuracy"]
    (tmp_path / "paper-celeba.json").write_text(json.dumps({"environment": {}, "rows": rows}))
    reproduction.main(["--data", "celeba", "--results", str(tmp_path), "--output", str(tmp_path)])
    text = (tmp_path / "reproduction.md").read_text()
    assert "| data | celeba, 1,347 training rows |" in text
    assert "classifier" not in text
    assert {file.name for file in (tmp_path / "images").iterdir()} == {"paper_bounds.png"}


def test_page_needs_results(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduction.main(["--results", str(tmp_path), "--output", str(tmp_path)])
    assert "run python -m benchmarks paper" in capsys.readouterr().err


# All of it


@pytest.mark.slow
def test_paper_and_its_page_from_the_command_line(tmp_path, monkeypatch):
    from matplotlib import image

    monkeypatch.setattr(frechet, "MIN_UPDATES", 60)
    monkeypatch.setattr(paper_measures, "LIKELIHOOD_ROWS", 40)
    models = tmp_path / "models"
    arguments = ["--data", "digits", "--epochs", "1", "--seeds", "0", "--dims", "10"]
    arguments += ["--weights", "1", "--methods", "HEBAE", "WAE", "--models", str(models)]
    arguments += ["--output", str(tmp_path)]
    paper.main(arguments)
    path = tmp_path / "paper-digits.json"
    rows = json.loads(path.read_text())["rows"]
    assert [(r["method"], r["weight"]) for r in rows] == [
        ("HEBAE", 1.0),
        *(("WAE", 10.0), ("WAE", 1.0)),
    ]
    assert {r["n_components"] for r in rows} == {10}
    assert {r["n_train"] for r in rows} == {1347}
    for row in rows:
        assert len(row["history"]["loss"]) == 1
        assert (row["elbo"] is None) == (row["method"] == "WAE")
        assert np.shape(row["covariance"]) == (row["n_components"],) * 2
        assert row["log_likelihood"] < 0.0 < row["frechet_floor"]

    # Nothing is trained or measured again, and a model without its row only measured.
    times = {file.name: file.stat().st_mtime_ns for file in models.iterdir()}
    before = path.read_text()
    paper.main([*arguments, "--resume"])
    assert path.read_text() == before
    document = json.loads(before)
    path.write_text(json.dumps(document | {"rows": rows[:-1]}))
    paper.main([*arguments, "--resume"])
    assert {file.name: file.stat().st_mtime_ns for file in models.iterdir()} == times
    assert json.loads(path.read_text())["rows"] == rows

    (tmp_path / "docs").mkdir()
    how = ["reproduction", "--data", "digits", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *how, "--output", str(tmp_path / "docs")])
    command.main()
    text = (tmp_path / "docs" / "reproduction.md").read_text()
    assert "| HEBAE | 10 | 1 | " in text
    assert "seeds 0." in text
    assert not re.search(r"\bnan\b", text)
    for name in FIGURES:
        file = tmp_path / "docs" / "images" / f"paper_{name}.png"
        picture = image.imread(file)[..., :3]
        assert 400 < picture.shape[1] < 2000
        # Not blank: more than a title's worth of ink.
        assert (picture.min(axis=2) < 0.9).mean() > 0.02
