"""The paper's experiments: networks, grid, measures, verdicts, and the page made of them."""

from __future__ import annotations

import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
pytest.importorskip("prdc", reason="pip install prdc")

from benchmarks import __main__ as command
from benchmarks import architectures, frechet, paper, paper_measures, reproduction
from benchmarks import paper_claims as judge
from benchmarks.paper_figures import mosaic
from benchmarks.paper_measures import information_per_dimension, matrices
from benchmarks.paper_results import Run, converged_epoch, curve, first_epoch, image_shape, number

FIGURES = ("bounds", "frechet", "covariance", "information", "images")


# Networks and schedules


def widths(net):
    linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_dense_networks_have_the_paper_s_sizes():
    encoder = architectures.dense_encoder((1, 28, 28), 20)
    decoder = architectures.dense_decoder(10, (1, 28, 28))
    assert widths(encoder) == [784, 784, 800, 20]
    assert widths(decoder) == [10, 800, 800, 784]
    codes = encoder(torch.zeros(3, 1, 28, 28))
    assert codes.shape == (3, 20)
    assert decoder(codes[:, :10]).shape == (3, 1, 28, 28)


@pytest.mark.parametrize(("n_outputs", "n_components"), [(16, 8)])
def test_convolutional_networks_have_the_paper_s_channels(n_outputs, n_components):
    encoder = architectures.conv_encoder((3, 64, 64), n_outputs)
    decoder = architectures.conv_decoder(n_components, (3, 64, 64))
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
    assert architectures.mnist_decay(epoch) == pytest.approx(mnist)
    assert architectures.celeba_decay(epoch) == pytest.approx(celeba)


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
    assert paper.setting("celeba").encoder is architectures.conv_encoder
    assert paper.setting("celeba").batch_size == 100
    for data in ("mnist", "fashion-mnist", "digits"):
        assert paper.setting(data).encoder is architectures.dense_encoder
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


# Verdicts, on rows made up


def made_up(method, d=10, weight=None, seed=0, **numbers):
    """One cell, in which HEBAE does what the paper says of it."""
    level = {"HEBAE": 2.0, "VAE": 1.0, "WAE": 3.0}[method]
    best = {"HEBAE": 1.0, "VAE": 3.0, "WAE": 2.0}[method]
    usual = paper.METHODS[method][2]
    weight = usual if weight is None else weight
    # VAE and WAE depend on the weight.
    drift = 0.0 if method == "HEBAE" else abs(math.log10(weight / usual))
    bound = None if method == "WAE" else -100.0 + 10.0 * level - drift
    n_epochs = 4
    rise = {"HEBAE": [0.0, 95.0, 96.0, 96.0], "VAE": [0.0, 20.0, 50.0, 90.0]}
    own = [-200.0 + value for value in rise.get(method, [0.0] * n_epochs)]
    measured = dict.fromkeys(("value", "positive", "negative"), best + drift) | {"valid": True}
    row = {
        "data": "digits",
        "method": method,
        "n_components": d,
        "weight": weight,
        "seed": seed,
        "epochs": n_epochs,
        "n_train": 1347,
        "precision": "auto",
        "history": {
            "reconstruction": [-value for value in own],
            "penalty": [0.0] * n_epochs,
            "elbo": [None] * n_epochs if method == "WAE" else own,
            "seconds": [1.0] * n_epochs,
        },
        "classifier_accuracy": 0.9,
        "frechet_floor": 0.5,
        "held_out_squared_error": 0.1,
        "reconstruction": 70.0,
        "paper_bound": bound,
        "elbo": bound,
        "log_likelihood": -100.0 + 10.0 * level - drift,
        "mutual_information": level,
        "mutual_information_ceiling": 3.0,
        "mutual_information_per_dimension": level,
        "moments_kl": best,
        "mean_posterior_deviation": 3.0 - level,
        "collapsed": 2.0 if method == "VAE" else 0.0,
        "covariance": np.eye(d).tolist(),
        "correlation": np.eye(d).tolist(),
        "mean_abs_off_diagonal_correlation": best / 10,
        "distance_from_identity": best,
        "samples": {
            latent: dict.fromkeys(("frechet", *reproduction.SHARES), measured)
            for latent in ("prior", "gaussian", "mixture")
        }
        | {"decoded_training_codes": 0.6},
    }
    return row | numbers


def made_up_run(seeds=(0, 1), change=lambda row: {}):
    cells = paper.cells("digits", paper.setting("digits").grid, list(seeds), list(paper.METHODS))
    rows = [made_up(c.method, c.n_components, c.weight, c.seed) for c in cells]
    return Run([row | change(row) for row in rows])


def verdicts(run):
    return [[judge.verdict(m.outcomes) for m in claim.measures] for claim in judge.claims(run)]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([True], judge.HOLDS),
        ([True, True], judge.HOLDS),
        ([True, False], judge.PARTLY),
        ([False, False], judge.FAILS),
        ([], judge.UNKNOWN),
    ],
)
def test_verdict_counts_comparisons(outcomes, expected):
    assert judge.verdict(outcomes) == expected


def test_every_claim_holds_where_the_rows_say_what_the_paper_says():
    assert {said for claim in verdicts(made_up_run()) for said in claim} == {judge.HOLDS}


def test_a_bound_that_is_lower_at_one_d_holds_partly_and_at_all_not():
    low = {"elbo": -1000.0}
    one = made_up_run(
        change=lambda row: low if row["method"] == "HEBAE" and row["n_components"] == 2 else {}
    )
    all_of_them = made_up_run(change=lambda row: low if row["method"] == "HEBAE" else {})
    assert verdicts(one)[0] == [judge.HOLDS, judge.PARTLY, judge.HOLDS]
    assert verdicts(all_of_them)[0] == [judge.HOLDS, judge.FAILS, judge.HOLDS]


def test_sensitivity_needs_half_the_range():
    def drifting(share):
        def change(row):
            if row["method"] == "HEBAE" and row["n_components"] == 10:
                return {"log_likelihood": -80.0 - share * abs(math.log10(row["weight"]))}
            return {}

        return made_up_run(change=change)

    assert verdicts(drifting(0.4))[2][2] == judge.HOLDS
    assert verdicts(drifting(0.8))[2][2] == judge.PARTLY
    assert verdicts(drifting(1.2))[2][2] == judge.FAILS


def test_information_at_its_ceiling_does_not_count_as_less_than_wae_s():
    run = made_up_run(
        change=lambda row: {"mutual_information": 2.9999} if row["method"] == "HEBAE" else {}
    )
    information, smooth = verdicts(run)[6:]
    assert information == [judge.PARTLY, judge.HOLDS]
    assert smooth == [judge.HOLDS, judge.FAILS]


def test_collapse_is_expected_of_vae_alone():
    def collapsing(method, count):
        return made_up_run(
            change=lambda row: {"collapsed": count} if row["method"] == method else {}
        )

    assert verdicts(collapsing("VAE", 0.0))[4] == [judge.PARTLY] * 2
    assert verdicts(collapsing("HEBAE", 1.0))[4] == [judge.PARTLY] * 2


def test_speed_is_counted_in_epochs():
    values = [-200.0, -105.0, -104.0, -104.0]
    assert first_epoch(values, -110.0) == 2
    assert first_epoch(values, 0.0) == math.inf
    assert converged_epoch(values) == 2
    assert converged_epoch([-4.0, -3.0, -2.0, -1.0]) == 4
    slow = {"history": made_up("VAE")["history"]}
    run = made_up_run(change=lambda row: slow if row["method"] == "HEBAE" else {})
    assert verdicts(run)[1] == [judge.FAILS] * 3


def test_missing_cells_and_failed_controls_are_not_compared():
    run = Run([made_up("HEBAE"), made_up("VAE", seed=1)])
    assert {said for claim in verdicts(run)[:4] for said in claim} == {judge.UNKNOWN}
    failed = {"value": 1.0, "positive": 0.0, "negative": 0.0, "valid": False}
    assert number({"samples": {"prior": failed}}, "samples.prior") is None
    assert number({"samples": {"prior": failed | {"valid": True}}}, "samples.prior") == 1.0
    assert number({"elbo": None}, "elbo") is None
    assert number({"correlation": math.nan}, "correlation") is None
    assert number({}, "samples.prior.frechet") is None
    assert curve(made_up("WAE"), "elbo") == [-math.inf] * 4


def test_trials_of_another_length_are_left_out():
    run = Run([made_up("HEBAE"), made_up("VAE"), made_up("WAE") | {"epochs": 100}])
    assert (run.epochs, run.methods) == (4, ["HEBAE", "VAE"])


def test_page_says_what_is_missing(tmp_path):
    rows = [row for row in made_up_run().rows if (row["method"], row["seed"]) != ("WAE", 1)]
    (tmp_path / "paper-digits.json").write_text(
        json.dumps({"environment": {"cores": 2}, "rows": rows})
    )
    reproduction.main(["--data", "digits", "--results", str(tmp_path), "--output", str(tmp_path)])
    text = (tmp_path / "reproduction.md").read_text()
    assert "Not every cell has every seed yet" in text
    assert "| HEBAE (1) | 2 | 2 | 2 | 2 | 2 | 2 | 2 |" in text
    assert "| WAE (10) | 1 | 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "paper_images.png" not in text  # no images were kept
    assert "cores 2" in text


def test_page_of_images_without_labels(tmp_path):
    kept = {"covariance": None, "correlation": None, "data": "celeba", "n_components": 64}
    rows = [row | kept for row in made_up_run().rows if row["n_components"] == 10]
    for row in rows:
        del row["samples"], row["frechet_floor"], row["classifier_accuracy"]
    (tmp_path / "paper-celeba.json").write_text(json.dumps({"environment": {}, "rows": rows}))
    faces = np.random.default_rng(0).integers(0, 255, (32, 3 * 64 * 64), dtype=np.uint8)
    counts = {"original": 8, "reconstruction": 8, "interpolation": 32, "prior": 16, "mixture": 16}
    parts = {f"{m} {k}": faces[:n] for m in paper.METHODS for k, n in counts.items()}
    np.savez(tmp_path / "paper-celeba.npz", **parts)
    reproduction.main(["--data", "celeba", "--results", str(tmp_path), "--output", str(tmp_path)])
    text = (tmp_path / "reproduction.md").read_text()
    assert "128-256-512-1024" in text
    assert text.count(judge.UNKNOWN) == 4  # Fréchet distances
    drawn = {file.name for file in (tmp_path / "images").iterdir()}
    assert drawn == {f"paper_{name}.png" for name in ("bounds", "information", "images")}


def test_page_needs_results(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduction.main(["--results", str(tmp_path), "--output", str(tmp_path)])
    assert "run python -m benchmarks paper" in capsys.readouterr().err


# Pictures


def test_images_are_told_from_other_rows():
    assert image_shape(784) == (1, 28, 28)
    assert image_shape(3 * 64 * 64) == (3, 64, 64)
    assert image_shape(30) is None


def test_mosaic_puts_images_in_reading_order():
    flat = np.repeat(np.arange(6, dtype=np.uint8)[:, None], 4, axis=1)
    picture = mosaic(flat, 2, (1, 2, 2))
    assert picture.shape == (6, 9)
    assert picture[::3, ::3].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (picture[2] == 255).all()
    assert mosaic(np.zeros((2, 12), dtype=np.uint8), 1, (3, 2, 2)).shape == (3, 6, 3)


# All of it


def test_paper_and_its_page_from_the_command_line(tmp_path, monkeypatch):
    from matplotlib import image

    monkeypatch.setattr(frechet, "MIN_UPDATES", 60)
    monkeypatch.setattr(paper_measures, "LIKELIHOOD_ROWS", 40)
    models = tmp_path / "models"
    arguments = ["--data", "digits", "--epochs", "1", "--seeds", "0", "--dims", "10"]
    arguments += ["--weights", "1", "10", "--models", str(models), "--output", str(tmp_path)]
    paper.main(arguments)
    path = tmp_path / "paper-digits.json"
    rows = json.loads(path.read_text())["rows"]
    assert [(r["method"], r["weight"]) for r in rows] == [
        *(("HEBAE", 1.0), ("HEBAE", 10.0)),
        *(("VAE", 1.0), ("VAE", 10.0)),
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

    page(tmp_path, monkeypatch)
    text = (tmp_path / "docs" / "reproduction.md").read_text()
    for claim in judge.claims(Run(rows)):
        line = next(line for line in text.splitlines() if claim.text in line)
        assert re.search(r"\*\*(holds|holds partly|does not hold)\*\*", line)
    assert "### Seeds of each cell" in text
    assert "| HEBAE (1) | 1 | 1 | 1 |" in text
    assert not re.search(r"\bnan\b", text)
    assert "64-64-800-20 and 10-800-800-64" in text
    for name in FIGURES:
        assert f"(images/paper_{name}.png)" in text
        file = tmp_path / "docs" / "images" / f"paper_{name}.png"
        assert file.stat().st_size < 300_000
        picture = image.imread(file)[..., :3]
        assert 700 < picture.shape[1] < 2000
        # Not blank: more than a title's worth of ink.
        assert (picture.min(axis=2) < 0.9).mean() > 0.02


def page(folder, monkeypatch):
    (folder / "docs").mkdir(exist_ok=True)
    arguments = ["reproduction", "--data", "digits", "--results", str(folder)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--output", str(folder / "docs")])
    command.main()


@pytest.mark.slow
def test_the_command_of_the_page_runs(tmp_path, monkeypatch):
    arguments = ["paper", "--data", "digits", "--epochs", "5", "--seeds", "0"]
    arguments += ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    command.main()
    run = Run.read(tmp_path / "paper-digits.json")
    assert len(run.rows) == 18
    page(tmp_path, monkeypatch)
    # HEBAE is in its element: no collapse, and the mixture's samples are its best.
    assert set(run.values("HEBAE", "collapsed", 10).values()) == {0.0}
    assert run.values("VAE", "collapsed", 10, 50.0)[0] > 5
    prior, mixture = (
        run.values("HEBAE", f"samples.{latent}.frechet", 10)[0] for latent in ("prior", "mixture")
    )
    assert mixture < prior
