"""The displays draw what the estimators say, legibly, and only when asked.

The pictures of `tests/baseline_images` are drawn from fixed data, so that they do
not depend on training. To draw them anew after a change that is meant, run
``SKHEBAE_REGENERATE_IMAGES=1 pytest tests/test_plotting.py -k baseline``, and look at them.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from matplotlib.patches import Ellipse
from matplotlib.testing.compare import compare_images
from numpydoc.validate import validate
from scipy.sparse import coo_matrix
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_docstrings import OLD_STYLE, OPTIONAL

from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer
from skhebae.diagnostics import BoundGap
from skhebae.plotting import (
    BoundGapDisplay,
    CovarianceDisplay,
    LatentDisplay,
    NoveltyDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
)

DISPLAYS = [
    BoundGapDisplay,
    CovarianceDisplay,
    LatentDisplay,
    NoveltyDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
]
BASELINES = Path(__file__).parent / "baseline_images"


@pytest.fixture(autouse=True)
def _default_style():
    """Default style whatever the user's, and no figure left open."""
    plt.close("all")
    with mpl.rc_context():
        mpl.rcdefaults()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def hebae(table, quick):
    return HEBAETransformer(**quick, early_stopping=True).fit(table)


@pytest.fixture(scope="module")
def vae(table, quick):
    return VAETransformer(**quick).fit(table)


def detector_like(estimator, X):
    """A detector by a clone of an autoencoder, fitted if that is."""
    detector = NoveltyDetector(estimator, calibration=0.2)
    return detector.fit(X) if hasattr(estimator, "fitted_") else detector


def draw(display, estimator, X, **options):
    """One way to call all of them."""
    if display is BoundGapDisplay:
        return display.from_estimator(estimator, X, max_rows=2, n_draws=400, **options)
    if display is NoveltyDisplay and isinstance(estimator, HEBAETransformer):
        estimator = detector_like(estimator, X)
    if display is TrainingDisplay:
        return display.from_estimator(estimator, **options)
    if display is ReconstructionDisplay:
        return display.from_estimator(estimator, X, image_shape=(3, 4), **options)
    return display.from_estimator(estimator, X, **options)


# All displays


@pytest.mark.slow
@pytest.mark.parametrize("display", DISPLAYS)
def test_draws_on_new_and_on_given_axes(display, hebae, table):
    drawn = draw(display, hebae, table)
    assert len(plt.get_fignums()) == 1
    first = drawn.ax_
    drawn.figure_.canvas.draw()

    figure, axes = plt.subplots(np.size(first), squeeze=False)
    assert drawn.plot(ax=axes if axes.size > 1 else axes[0, 0]) is drawn
    assert drawn.figure_ is figure
    assert set(np.ravel(drawn.ax_)) == set(axes.ravel())
    assert np.shape(drawn.ax_) == np.shape(first)
    figure.canvas.draw()
    assert len(plt.get_fignums()) == 2

    with pytest.raises(ValueError, match=rf"ax holds 7 axes.*needs {np.size(first)}: "):
        drawn.plot(ax=plt.subplots(7)[1])
    with pytest.raises(ValueError, match="must be matplotlib Axes"):
        drawn.plot(ax=[1] * np.size(first))


@pytest.mark.slow
@pytest.mark.parametrize("display", DISPLAYS)
def test_changes_no_setting(display, hebae, table):
    before = dict(mpl.rcParams)
    draw(display, hebae, table)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("display", DISPLAYS)
def test_refuses_what_is_not_fitted_or_no_autoencoder(display, hebae, table):
    with pytest.raises(NotFittedError):
        draw(display, HEBAETransformer(), table)
    pipeline = make_pipeline(StandardScaler(), hebae)
    if display is CovarianceDisplay:
        with pytest.raises(
            TypeError, match=r"latent_covariance_.*Pipeline does not have.*pipeline\[-1\]"
        ):
            display.from_estimator(pipeline)
    else:
        with pytest.raises(
            TypeError, match=r"which Pipeline does not have.*pipeline\[:-1\].transform"
        ):
            draw(display, pipeline, table)
    assert not plt.get_fignums()


def test_refuses_axes_of_two_figures():
    axes = [plt.subplots()[1], plt.subplots()[1]]
    with pytest.raises(ValueError, match="different figures"):
        CovarianceDisplay({"a": np.eye(2)}).plot(ax=axes)


@pytest.mark.parametrize("display", [CovarianceDisplay, TrainingDisplay])
@pytest.mark.parametrize("estimators", [{}, [HEBAETransformer()]], ids=["empty", "list"])
def test_several_estimators_need_names(display, estimators):
    with pytest.raises(ValueError, match="must be a dict of one or more"):
        display.from_estimators(estimators)


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize("method", ["", "plot", "from_estimator"])
def test_numpydoc(display, method):
    errors = validate(f"skhebae.plotting.{display.__name__}" + (f".{method}" if method else ""))
    ignored = OLD_STYLE | (OPTIONAL if method else set())
    assert [error for error in errors["errors"] if error[0] not in ignored] == []


@pytest.mark.slow
def test_import_does_not_load_matplotlib():
    code = (
        "import sys, skhebae; assert 'skhebae.plotting' not in sys.modules;"
        "import skhebae.plotting; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("display", DISPLAYS)
def test_without_matplotlib_names_the_extra(display, hebae, table, monkeypatch):
    drawn = draw(display, hebae, table)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = rf"{display.__name__} needs matplotlib.*skhebae\[plot\]"
    with pytest.raises(ImportError, match=message):
        draw(display, hebae, table)
    with pytest.raises(ImportError, match=message):
        drawn.plot()


# LatentDisplay


def test_latent_codes_and_moments(hebae, table):
    drawn = LatentDisplay.from_estimator(hebae, table, components=(2, 0))
    np.testing.assert_array_equal(drawn.codes, hebae.transform(table)[:, [2, 0]])
    np.testing.assert_array_equal(drawn.mean, hebae.latent_mean_[[2, 0]])
    np.testing.assert_array_equal(drawn.covariance, hebae.latent_covariance_[[2, 0]][:, [2, 0]])
    assert (drawn.ax_.get_xlabel(), drawn.ax_.get_ylabel()) == ("code 2", "code 0")
    shown = np.concatenate([points.get_offsets() for points in drawn.ax_.collections])
    np.testing.assert_allclose(np.sort(shown, axis=0), np.sort(drawn.codes, axis=0), rtol=1e-6)


def test_latent_ellipses_are_those_of_the_covariance():
    # Standard deviations 3 along (cos 30, sin 30) and 1 across it.
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = rotation @ np.diag([9.0, 1.0]) @ rotation.T
    mean = np.array([0.5, -1.0])
    drawn = LatentDisplay([[0.0, 0.0]], mean=mean, covariance=covariance).plot()
    ellipses = [patch for patch in drawn.ax_.patches if isinstance(patch, Ellipse)]
    posterior, prior = ellipses[:2], ellipses[2:]
    t = np.linspace(0, 2 * np.pi, 9)
    circle = np.column_stack([np.cos(t), np.sin(t)])
    for n_deviations, ellipse in enumerate(posterior, start=1):
        np.testing.assert_allclose(
            sorted([ellipse.width, ellipse.height]), [2 * n_deviations, 6 * n_deviations]
        )
        long_axis = ellipse.angle + (90 if ellipse.height > ellipse.width else 0)
        assert np.tan(np.radians(long_axis)) == pytest.approx(np.tan(angle))
        # On its edge the Mahalanobis distance is the number of standard deviations.
        edge = ellipse.get_patch_transform().transform(circle) - mean
        distances = np.sqrt(np.sum(edge @ np.linalg.inv(covariance) * edge, axis=1))
        np.testing.assert_allclose(distances, n_deviations)
        assert ellipse.get_linestyle() == "-"
    assert [(e.width, e.height, e.get_linestyle()) for e in prior] == [(2, 2, ":"), (4, 4, ":")]
    assert drawn.ax_.get_aspect() == 1


@pytest.mark.parametrize("whiten", [True, False])
def test_latent_prior_has_the_scale_of_the_codes(hebae, table, whiten):
    scaled = copy.deepcopy(hebae)
    scaled.fitted_ = hebae.fitted_.rescaled(whiten)
    drawn = LatentDisplay.from_estimator(scaled, table, components=(2, 0))
    prior = [patch for patch in drawn.ax_.patches if isinstance(patch, Ellipse)][2]
    outline = prior.get_path().transformed(prior.get_patch_transform()).vertices
    np.testing.assert_allclose(
        np.ptp(outline, axis=0), 2.0 * scaled.fitted_.axes.scale[[2, 0]], rtol=1e-3
    )
    texts = [text.get_text() for text in drawn.ax_.artists[0].get_texts()]
    assert texts[1] == ("prior N(0, I)" if whiten else "prior")


def test_latent_without_ellipses_takes_any_transformer(table):
    model = make_pipeline(StandardScaler(), PCA(4)).fit(table)
    drawn = LatentDisplay.from_estimator(model, table, ellipses=False, components=(1, 3))
    np.testing.assert_allclose(drawn.codes, model.transform(table)[:, [1, 3]])
    assert not drawn.ax_.patches


def legend_texts(display):
    legend = display.ax_.get_legend()
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 9, 10], ["9", "10"]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (["b", None, "a"], ["None", "a", "b"]),
        (pd.Series(pd.Categorical(["s", "m", "s"], categories=["s", "m", "xl"])), ["s", "m"]),
        (pd.Categorical(["s", "m", None], categories=["s", "m"]), ["s", "m", "nan"]),
        (["_hidden", "$x$y$", "_hidden"], ["$x$y$", "_hidden"]),
    ],
)
def test_latent_label_order(labels, expected):
    drawn = LatentDisplay([[0, 0], [1, 0], [0, 1]], labels=labels).plot()
    assert legend_texts(drawn) == expected
    drawn.figure_.canvas.draw()


def test_latent_labels_choose_colours():
    codes = np.column_stack([np.arange(40.0), np.zeros(40)])
    labels = np.arange(40) % 4
    points = LatentDisplay(codes, labels=labels).plot().ax_.collections[0]
    order = np.asarray(points.get_offsets())[:, 0].astype(int)
    colours = points.get_facecolors()
    for k in range(4):
        assert len(np.unique(colours[labels[order] == k], axis=0)) == 1
    assert len(np.unique(colours, axis=0)) == 4


def test_latent_categories_differ_in_colour_or_marker():
    rng = np.random.default_rng(0)
    codes, labels = rng.normal(size=(380, 2)), np.tile(np.arange(19), 20)
    series = pd.Series([f"a rather long name of category number {k}" for k in labels], name="kind")
    drawn = LatentDisplay(codes, labels=series, mean=[0, 0], covariance=np.eye(2)).plot()
    handles = drawn.ax_.get_legend().legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 19
    assert drawn.ax_.get_legend().get_title().get_text() == "kind"
    # The legend lies beside the axes, inside the figure.
    drawn.figure_.canvas.draw()
    legend, axes = drawn.ax_.get_legend().get_window_extent(), drawn.ax_.get_window_extent()
    assert legend.x0 > axes.x1
    assert legend.x1 <= drawn.figure_.bbox.x1
    assert legend.y0 >= 0
    with pytest.raises(ValueError, match="150 categories, and at most 100"):
        LatentDisplay(rng.normal(size=(150, 2)), labels=np.arange(150)).plot()


def test_latent_names_at_medians_only_where_they_fit():
    codes = np.repeat([[0.0, 0.0], [4.0, 4.0]], 6, axis=0)
    apart = LatentDisplay(codes, labels=["a"] * 6 + ["b"] * 6).plot()
    assert {text.get_text(): text.get_position() for text in apart.ax_.texts} == {
        "a": (0, 0),
        "b": (4, 4),
    }
    mixed = LatentDisplay(codes, labels=["a", "b"] * 6).plot()
    assert not mixed.ax_.texts


def test_latent_color_scale():
    codes = [[0, 0], [1, 1], [2, 2]]
    drawn = LatentDisplay(codes, color=pd.Series([1.0, np.nan, 3.0], name="age")).plot()
    bar = drawn.figure_.axes[1]
    assert bar.get_ylabel() == "age"
    assert bar.get_ylim() == (1, 3)
    drawn.figure_.canvas.draw()
    (points,) = drawn.ax_.collections
    missing = np.asarray(points.get_offsets())[:, 0] == 1
    np.testing.assert_allclose(points.get_facecolors()[missing, :3], 0.8)


def test_latent_many_points_are_small_and_rasterised():
    few, many = (
        LatentDisplay(np.random.default_rng(0).normal(size=(n, 2))).plot().ax_.collections[0]
        for n in (100, 20_000)
    )
    assert many.get_sizes()[0] < few.get_sizes()[0]
    assert many.get_alpha() < few.get_alpha()
    assert many.get_rasterized()
    assert not few.get_rasterized()


def test_latent_on_shared_axes():
    _, axes = plt.subplots(1, 2, sharex=True, sharey=True)
    drawn = LatentDisplay([[0, 0], [1, 1]], mean=[0, 0], covariance=np.eye(2)).plot(ax=axes[0])
    drawn.figure_.canvas.draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": (0, 3)}, r"components=\(0, 3\).*from 0 to 2"),
        ({"components": (1, 1)}, "two different"),
        *(({"components": c}, "two different") for c in ((0, 1, 2), 3, "ab", (0.0, 1.0))),
        ({"labels": [1, 2]}, r"labels has shape \(2,\).*240 rows"),
        ({"color": np.ones((240, 1))}, r"color has shape \(240, 1\)"),
        ({"labels": [1] * 240, "color": [1] * 240}, "labels and color are both given"),
        ({"color": ["a"] * 240}, "not numbers.*as labels"),
        ({"color": [np.nan] * 240}, "no finite value"),
    ],
)
def test_latent_errors(hebae, table, options, message):
    with pytest.raises(ValueError, match=message):
        LatentDisplay.from_estimator(hebae, table, **options)


def test_latent_needs_two_components(table):
    with pytest.raises(ValueError, match="n_components >= 2"):
        LatentDisplay.from_estimator(PCA(1).fit(table), table, ellipses=False)
    with pytest.raises(ValueError, match=r"codes has shape \(2, 3\)"):
        LatentDisplay(np.ones((2, 3)))


# CovarianceDisplay


@pytest.mark.slow
def test_covariance_of_the_posterior_and_of_rows(hebae, vae, table):
    models = {"HEBAE": hebae, "VAE": vae}
    posterior = CovarianceDisplay.from_estimators(models)
    of_rows = CovarianceDisplay.from_estimators(models, table)
    for column, (name, model) in enumerate(models.items()):
        np.testing.assert_array_equal(posterior.covariances[name], model.latent_covariance_)
        codes = model.transform(table).astype(float)
        centred = codes - codes.mean(axis=0)
        np.testing.assert_allclose(of_rows.covariances[name], centred.T @ centred / 239, atol=1e-9)
        np.testing.assert_allclose(of_rows.correlations[name], np.corrcoef(codes.T), atol=1e-6)
        for row, matrices in enumerate((of_rows.covariances, of_rows.correlations)):
            image = of_rows.ax_[row, column].images[0].get_array()
            np.testing.assert_array_equal(image, matrices[name])
    assert [axis.get_title() for axis in of_rows.ax_[0]] == ["HEBAE", "VAE"]
    single = CovarianceDisplay.from_estimator(hebae)
    assert list(single.covariances) == ["HEBAETransformer"]
    assert list(CovarianceDisplay.from_estimator(hebae, name="mine").covariances) == ["mine"]


def test_covariance_scale_is_shared_and_symmetric():
    drawn = CovarianceDisplay({"a": np.eye(2), "b": [[1.0, -3.0], [-3.0, 10.0]]}).plot()
    assert [axis.images[0].get_clim() for axis in drawn.ax_[0]] == [(-10, 10)] * 2
    assert [axis.images[0].get_clim() for axis in drawn.ax_[1]] == [(-1, 1)] * 2
    # Four heat maps and one colour bar a row.
    assert len(drawn.figure_.axes) == 6
    assert [axis.get_ylabel() for axis in drawn.figure_.axes[4:]] == ["covariance", "correlation"]


def test_covariance_of_a_collapsed_component():
    covariance = np.diag([1.0, 4.0, 1e-12])
    covariance[0, 1] = covariance[1, 0] = 1.0
    drawn = CovarianceDisplay({"model": covariance}).plot()
    expected = [[1, 0.5, np.nan], [0.5, 1, np.nan], [np.nan] * 3]
    np.testing.assert_allclose(drawn.correlations["model"], expected)
    assert "grey" in drawn.ax_[1, 0].get_xlabel()
    assert "grey" not in drawn.ax_[0, 0].get_xlabel()
    drawn.figure_.canvas.draw()
    grey = drawn.ax_[1, 0].images[0].to_rgba(drawn.ax_[1, 0].images[0].get_array())[2, 0, :3]
    np.testing.assert_allclose(grey, 0.8)
    # Nothing at all varies.
    CovarianceDisplay({"model": np.zeros((2, 2))}).plot().figure_.canvas.draw()


def test_covariance_numbers():
    covariance = np.array([[2.0, -0.001], [-0.001, 0.25]])
    drawn = CovarianceDisplay({"model": covariance}).plot()
    texts = drawn.ax_[0, 0].texts
    assert [text.get_text() for text in texts] == ["2.00", "0.00", "0.00", "0.25"]
    assert [text.get_color() for text in texts] == ["white", "black", "black", "black"]
    assert not CovarianceDisplay({"model": np.eye(13)}).plot().ax_[0, 0].texts
    _, tiny = plt.subplots(2, figsize=(1, 1))
    assert not CovarianceDisplay({"model": np.eye(12)}).plot(ax=tiny).ax_[0, 0].texts


@pytest.mark.slow
@pytest.mark.parametrize("n_components", [2, 12])
def test_covariance_numbers_fit_their_cells(n_components):
    matrix = np.full((n_components, n_components), -0.25)
    drawn = CovarianceDisplay({"a": matrix, "b": matrix, "c": matrix}).plot()
    drawn.figure_.canvas.draw()
    for axis in drawn.ax_[0]:
        cell = axis.get_window_extent().width / n_components
        assert len(axis.texts) == n_components**2
        assert max(text.get_window_extent().width for text in axis.texts) < 0.95 * cell


def test_covariance_of_one_component_and_errors(table):
    drawn = CovarianceDisplay.from_estimator(PCA(1).fit(table), table)
    assert drawn.covariances["PCA"].shape == (1, 1)
    with pytest.raises(ValueError, match="X has 1 row"):
        CovarianceDisplay.from_estimator(PCA(1).fit(table), table[:1])
    with pytest.raises(ValueError, match=r"covariances\['a'\] has shape \(2, 3\)"):
        CovarianceDisplay({"a": np.ones((2, 3))})


# TrainingDisplay


def test_training_draws_the_history(hebae, vae):
    drawn = TrainingDisplay.from_estimators({"HEBAE": hebae, "VAE": vae})
    assert [axis.get_title() for axis in drawn.ax_] == [
        "reconstruction",
        "penalty",
        "validation loss",
    ]
    assert drawn.ax_[0].get_ylabel() == "nats per row"
    keys = ("reconstruction", "penalty", "validation_loss")
    for axis, key in zip(drawn.ax_, keys, strict=True):
        for line, model in zip(axis.get_lines(), (hebae, vae), strict=False):
            epochs, values = line.get_data()
            np.testing.assert_array_equal(epochs, np.arange(1, len(model.history_[key]) + 1))
            np.testing.assert_array_equal(values, model.history_[key])
    # The VAE was fitted without early stopping.
    assert [len(axis.get_lines()) for axis in drawn.ax_] == [2, 2, 1]
    (legend,) = drawn.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == ["HEBAE", "VAE"]
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn.ax_[0].get_lines()}
    assert len(styles) == 2


def test_training_without_validation_has_two_panels(vae):
    drawn = TrainingDisplay.from_estimator(vae, name="mine")
    assert drawn.ax_.shape == (2,)
    assert list(drawn.histories) == ["mine"]
    assert not drawn.figure_.legends
    _, axes = plt.subplots(3)
    with pytest.raises(ValueError, match="needs 2: reconstruction, penalty"):
        TrainingDisplay.from_estimator(vae, ax=axes)


def test_training_of_one_epoch_is_a_point(table, quick):
    model = HEBAETransformer(**quick).partial_fit(table)
    drawn = TrainingDisplay.from_estimator(model)
    for axis in drawn.ax_:
        (line,) = axis.get_lines()
        assert line.get_marker() == "o"
        np.testing.assert_array_equal(axis.get_xticks() % 1, 0)


# ReconstructionDisplay


def test_reconstruction_values(hebae, table):
    drawn = ReconstructionDisplay.from_estimator(
        hebae, table, n_rows=6, n_interpolations=3, n_samples=4, random_state=1
    )
    codes = hebae.transform(table[:6])
    decoded = hebae.inverse_transform(codes)
    np.testing.assert_array_equal(drawn.originals, table[:6])
    np.testing.assert_allclose(drawn.reconstructions, decoded, rtol=1e-6)
    np.testing.assert_array_equal(drawn.samples, hebae.sample(4, random_state=1))
    assert drawn.interpolations.shape == (3, 6, 12)
    np.testing.assert_allclose(drawn.interpolations[:, 0], decoded[::2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn.interpolations[:, -1], decoded[1::2], rtol=1e-4, atol=1e-5)
    step = hebae.inverse_transform((0.8 * codes[2] + 0.2 * codes[3])[None])[0]
    np.testing.assert_allclose(drawn.interpolations[1, 1], step, rtol=1e-4, atol=1e-5)


def test_reconstruction_images_share_the_originals_range():
    originals = np.arange(12.0).reshape(3, 4)
    drawn = ReconstructionDisplay(
        originals, originals * 3, samples=-originals, image_shape=(2, 2)
    ).plot()
    assert [axis.get_title(loc="left") for axis in drawn.ax_] == [
        "originals",
        "reconstructions",
        "samples",
    ]
    assert {axis.images[0].get_clim() for axis in drawn.ax_} == {(0, 11)}
    sheet = drawn.ax_[0].images[0].get_array().filled(-1)
    np.testing.assert_array_equal(sheet[:, :5], [[0, 1, -1, 4, 5], [2, 3, -1, 6, 7]])
    drawn.figure_.canvas.draw()


def test_reconstruction_samples_wrap():
    rows = np.zeros((13, 4))
    drawn = ReconstructionDisplay(rows[:5], rows[:5], samples=rows, image_shape=(2, 2)).plot()
    assert drawn.ax_[0].images[0].get_array().shape == (2, 14)
    assert drawn.ax_[-1].images[0].get_array().shape == (8, 14)


def test_reconstruction_colour_images():
    rows = np.linspace(0, 255, 2 * 12).reshape(2, 12)
    drawn = ReconstructionDisplay(rows, 2 * rows, image_shape=(2, 2, 3)).plot()
    sheet = drawn.ax_[0].images[0].get_array()
    np.testing.assert_allclose(sheet[:2, :2], rows[0].reshape(2, 2, 3) / 255)
    np.testing.assert_array_equal(sheet[:, 2], 1.0)  # The gap.
    assert drawn.ax_[1].images[0].get_array().max() == 1


def test_reconstruction_profiles(hebae, table):
    drawn = ReconstructionDisplay.from_estimator(hebae, table, n_rows=7, random_state=0)
    assert drawn.ax_.shape == (7 + 2 + 1,)
    for i, axis in enumerate(drawn.ax_[:7]):
        original, reconstruction = axis.get_lines()
        np.testing.assert_array_equal(original.get_ydata(), drawn.originals[i])
        np.testing.assert_array_equal(reconstruction.get_ydata(), drawn.reconstructions[i])
        assert original.get_color() != reconstruction.get_color()
        assert original.get_linestyle() != reconstruction.get_linestyle()
    for axis, line in zip(drawn.ax_[7:9], drawn.interpolations, strict=True):
        np.testing.assert_array_equal([step.get_ydata() for step in axis.get_lines()], line)
    np.testing.assert_array_equal(
        [sample.get_ydata() for sample in drawn.ax_[-1].get_lines()], drawn.samples
    )
    assert len({axis.get_ylim() for axis in drawn.ax_}) == 1
    drawn.figure_.canvas.draw()


@pytest.mark.parametrize("container", [pd.DataFrame, coo_matrix, np.ndarray.tolist])
def test_reconstruction_of_other_containers(table, quick, container):
    X = container(table)
    model = HEBAETransformer(**quick).partial_fit(X)
    drawn = ReconstructionDisplay.from_estimator(model, X, n_rows=4)
    np.testing.assert_allclose(drawn.originals, table[:4])


def test_reconstruction_without_samples_takes_any_invertible(table):
    model = make_pipeline(StandardScaler(), PCA(3)).fit(table)
    drawn = ReconstructionDisplay.from_estimator(
        model, table, n_rows=1, n_interpolations=0, n_samples=0
    )
    np.testing.assert_allclose(
        drawn.reconstructions, model.inverse_transform(model.transform(table[:1]))
    )
    assert drawn.ax_.shape == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (3, 5)}, r"image_shape=\(3, 5\) has 15 values.*12 features"),
        ({"image_shape": (3, 2, 2)}, r"\(height, width, 3\)"),
        ({"n_rows": 1000}, "X has 240 rows, but n_rows=1000"),
        ({"n_rows": 0}, "n_rows=0 must be an integer >= 1"),
        ({"n_samples": 1.5}, "n_samples=1.5 must be an integer >= 0"),
        ({"n_rows": 3}, "n_interpolations=2 needs 2 rows each.*n_interpolations=1 or fewer"),
    ],
)
def test_reconstruction_errors(hebae, table, options, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionDisplay.from_estimator(hebae, table, **options)


# BoundGapDisplay


def made_gap(gaussian, family, amortisation, kind="diagonal", independence=None):
    """Two rows whose parts are a tenth less and more than these, with two blocks."""
    parts = np.array([0.9, 1.1])[:, None] * [gaussian, family, amortisation]
    full = np.repeat(-parts[:, :1], 2, axis=1)
    best = full - parts[:, 1:2]
    diagonal = best if independence is None else full - independence
    return BoundGap(
        estimator="VAETransformer",
        posterior_family=kind,
        indices=np.arange(2),
        n_draws=100,
        log_likelihood=np.zeros(2),
        log_likelihood_error=np.full(2, 0.01),
        effective_draws=np.full(2, 90.0),
        full=full,
        diagonal=diagonal,
        family=best,
        encoder=best - parts[:, 2:],
        precision=np.broadcast_to(np.eye(3), (2, 3, 3)),
    )


def test_bars_are_the_parts_of_the_gap():
    gaps = {
        "VAE": made_gap(0.5, 1.0, 2.0),
        "HEBAE": made_gap(0.4, 0.2, 1.0, "scaled", independence=0.7),
        "far": made_gap(0.4, 0.2, 90.0, "scaled", independence=0.3),
        "WAE": made_gap(0.4, 0.2, np.inf, "point"),
    }
    drawn = BoundGapDisplay(gaps).plot()
    whole, detail = (
        np.array([[bar.get_width() for bar in bars] for bars in axis.containers[::2]])
        for axis in drawn.ax_
    )
    np.testing.assert_allclose(whole[:, 0], [0.5, 1.0, 2.0])
    np.testing.assert_allclose(whole[:, 1], [0.4, 0.2, 1.0])
    np.testing.assert_allclose(detail, [[0.5, 0.4, 0.4, 0.4], [1.0, 0.2, 0.2, 0.2]])
    # The shortest is 1.6, the longest within 6 times that is 3.5; others end at the edge.
    edges = [axis.get_xlim()[1] for axis in drawn.ax_]
    np.testing.assert_allclose(edges, [1.2 * 3.5, 1.2 * 1.5])
    np.testing.assert_allclose(whole.sum(axis=0)[2:], edges[0])
    assert [text.get_text() for text in drawn.ax_[0].texts] == ["90.6 →", "∞"]
    marks = [line.get_xdata()[0] for line in drawn.ax_[1].lines if line.get_marker() == "D"]
    np.testing.assert_allclose(marks, [1.1, 0.7])
    for axis in drawn.ax_:
        assert [label.get_text() for label in axis.get_yticklabels()] == list(gaps)


def test_gaps_must_be_results_of_bound_gap():
    with pytest.raises(ValueError, match=r"gaps\['VAE'\] is of type float. Pass what bound_gap"):
        BoundGapDisplay({"VAE": 3.0})


# NoveltyDisplay


@pytest.fixture(scope="module")
def detector(hebae, table):
    return detector_like(hebae, table)


def bars(axis):
    """Names and lengths of the bars of a panel, from above."""
    names = [label.get_text() for label in axis.get_yticklabels()]
    return names, [bar.get_width() for bar in axis.patches]


def test_novelty_bars_are_the_largest_shares(detector, table):
    strange = table.copy()
    strange[7, 5] += 30.0
    drawn = NoveltyDisplay.from_estimator(detector, strange, n_rows=3, max_features=4)
    scores = detector.score_samples(strange)
    order = np.argsort(scores)[:3]
    shares = detector.explain(strange).to_numpy()[order]
    np.testing.assert_allclose(drawn.shares, shares, rtol=1e-6)
    p_values = detector.p_values(strange)[order]
    for i, axis in enumerate(drawn.ax_):
        names, lengths = bars(axis)
        assert len(names) == 5
        assert names[-1] == "9 others"
        np.testing.assert_allclose(lengths[:4], np.sort(shares[i])[:-5:-1], rtol=1e-6)
        assert sum(lengths) == pytest.approx(1.0)
        assert axis.get_title(loc="left") == f"row {order[i]}: p = {p_values[i]:.2g}"
    assert order[0] == 7
    assert bars(drawn.ax_[0])[0][0] == f"x5 = {strange[7, 5]:.3g}"
    assert len({axis.get_xlim() for axis in drawn.ax_}) == 1
    assert len(drawn.figure_.axes) == 3  # none is empty


def test_novelty_code_has_its_own_colour_or_is_divided(detector, table):
    apart = NoveltyDisplay.from_estimator(detector, table, rows=[0], max_features=13)
    names, _ = bars(apart.ax_[0])
    colours = [bar.get_facecolor() for bar in apart.ax_[0].patches]
    assert len(names) == 13
    assert colours.count(colours[names.index("code")]) == 1
    columns = NoveltyDisplay.from_estimator(
        detector, table, rows=[0], code="columns", max_features=13
    )
    names, lengths = bars(columns.ax_[0])
    assert len(names) == 12
    assert "code" not in names
    assert sum(lengths) == pytest.approx(1.0)


def test_novelty_names_are_those_of_the_frame(hebae, table):
    frame = pd.DataFrame(table, columns=[f"${j}$ " + 15 * "long " for j in range(12)])
    frame.index = [f"patient {i}" for i in range(len(frame))]
    model = detector_like(hebae, frame)
    drawn = NoveltyDisplay.from_estimator(model, frame, rows=np.array([3]), max_features=13)
    assert drawn.ax_[0].get_title(loc="left").startswith("patient 3: p = ")
    assert any(name.replace("\n", " ").startswith("$0$ long") for name in bars(drawn.ax_[0])[0])
    drawn.figure_.canvas.draw()
    same = NoveltyDisplay.from_estimator(model, frame.iloc[[3]])
    np.testing.assert_array_equal(same.shares, drawn.shares)


def test_novelty_writes_dates_as_dates(brief):
    dates = pd.date_range("2020-01-01", periods=60, freq="D")
    frame = pl.DataFrame({"day": dates.to_numpy(), "size": np.arange(60.0) ** 2})
    model = NoveltyDetector(HEBAETransformer(**brief), calibration=0.5).fit(frame)
    drawn = NoveltyDisplay.from_estimator(model, frame, rows=[1, 40])
    names = bars(drawn.ax_[1])[0]
    assert "day = 2020-02-10 00:00:00" in names
    assert "size = 1,600" in names


@pytest.mark.slow
def test_novelty_takes_any_table_batches_and_mixed_values(hebae, table):
    batch = np.arange(len(table)) % 2
    model = NoveltyDetector(hebae, calibration=0.2).fit(table, batch=batch)
    drawn = NoveltyDisplay.from_estimator(model, coo_matrix(table), rows=[4, 1], batch=batch)
    expected = model.explain(table, batch=batch).to_numpy()[[4, 1]]
    np.testing.assert_allclose(drawn.shares, expected, rtol=1e-4, atol=1e-6)
    for other in (table.tolist(), torch.tensor(table)):
        same = NoveltyDisplay.from_estimator(model, other, rows=[4, 1], batch=batch)
        np.testing.assert_allclose(same.shares, expected, rtol=1e-4, atol=1e-6)
    values = np.array([["red", 1234.5, True, 7]], dtype=object)
    drawn = NoveltyDisplay([[0.4, 0.3, 0.2, 0.1]], values, [0.5]).plot()
    assert bars(drawn.ax_[0])[0] == ["x0 = red", "x1 = 1,234", "x2 = True", "x3 = 7"]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_novelty_maps_show_the_share_of_each_pixel(channels):
    rng = np.random.default_rng(0)
    shape = (2, 3, *channels)
    n_pixels = int(np.prod(shape))
    shares = rng.dirichlet(np.ones(n_pixels + 1), size=2)
    rows = rng.uniform(size=(2, n_pixels))
    drawn = NoveltyDisplay(shares, rows, [0.5, 0.25], image_shape=shape).plot()
    assert drawn.ax_.shape == (2, 2)
    pictures = drawn.ax_[1, 1].get_images()[-1]
    pixels = shares[1, :-1].reshape(shape)
    expected = pixels.sum(axis=2) if channels else pixels
    np.testing.assert_allclose(pictures.get_array(), expected)
    assert drawn.ax_[0, 1].get_title(loc="left") == f"row 1: p = 0.25\ncode {shares[1, -1]:.0%}"
    assert len({axis.get_images()[-1].get_clim() for axis in drawn.ax_[1]}) == 1
    drawn.figure_.canvas.draw()
    scale = drawn.figure_.axes[-1]
    ticks = [label.get_text() for label in scale.get_yticklabels()]
    assert ticks == [f"{100 * place:.3g}%" for place in scale.get_yticks()]
    assert scale.get_ylim() == (0.0, pytest.approx(drawn.ax_[1, 0].get_images()[-1].get_clim()[1]))
    with pytest.raises(ValueError, match=r"needs 4: one for each of 2 images"):
        drawn.plot(ax=plt.subplots(2)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"rows": rows}, r"rows=.*positions from 0 to 239")
            for rows in ([], [240], [-1], [0.5], 3, "ab", [True])
        ),
        *(({"n_rows": n}, f"n_rows={n}") for n in (0, 1.5, True)),
        ({"max_features": 0}, "max_features=0"),
        ({"code": "both"}, "code='both'"),
        ({"image_shape": (5, 5)}, "image_shape="),
    ],
)
def test_novelty_errors(detector, table, options, message):
    with pytest.raises(ValueError, match=message):
        NoveltyDisplay.from_estimator(detector, table, **options)


def test_novelty_needs_a_detector(hebae, table):
    with pytest.raises(TypeError, match=r"does not have. Pass NoveltyDetector\(HEBAETransformer"):
        NoveltyDisplay.from_estimator(hebae, table)
    with pytest.raises(ValueError, match=r"p_values \(2,\)"):
        NoveltyDisplay(np.ones((1, 3)), np.ones((1, 3)), [0.1, 0.2])


# Pictures


def gap_picture(shift=0.0):
    gaps = {
        "VAE": made_gap(0.5, 1.0 + 4.0 * shift, 2.0),
        "WAE": made_gap(0.4, 0.2, np.inf, "point"),
    }
    gaps["HEBAE"] = made_gap(0.4 + 4.0 * shift, 0.2, 1.0, "scaled", independence=0.7)
    return BoundGapDisplay(gaps)


def latent_picture(shift=0.0):
    t = np.linspace(0, 8 * np.pi, 240)
    codes = np.column_stack([np.cos(t) + t / 15, np.sin(t + shift) - t / 30])
    labels = np.repeat([f"category {k}" for k in range(12)], 20)
    return LatentDisplay(codes, labels=labels, mean=[0.8, -0.4], covariance=[[1, 0.4], [0.4, 0.7]])


def covariance_picture(shift=0.0):
    d = np.arange(4)
    decaying = 0.6 ** np.abs(d[:, None] - d) * np.cos((2 + 3 * shift) * (d[:, None] - d))
    return CovarianceDisplay({"decaying": decaying, "collapsed": np.diag([1.5, 1, 0.5, 0])})


def training_picture(shift=0.0):
    t = np.linspace(0, 1, 30)
    return TrainingDisplay(
        {
            name: {
                "reconstruction": 10 * k * np.exp(-(5 - 3 * shift) * t),
                "penalty": np.sin((3 + 5 * shift) * t) + k,
                "validation_loss": (k - 1 or np.nan) * np.exp(-t * (1 + 3 * shift)),
            }
            for k, name in enumerate(["first", "second"], start=1)
        }
    )


def rows_picture(shift=0.0, n_features=12, image_shape=None):
    rows = np.sin(np.arange(4 * n_features).reshape(4, n_features) * (0.3 + shift))
    lines = np.linspace(rows[[0, 2]], rows[[1, 3]], 5, axis=1)
    return ReconstructionDisplay(rows, 0.8 * rows, lines, rows[::-1], image_shape=image_shape)


def images_picture(shift=0.0):
    return rows_picture(shift, 36, (6, 6))


PICTURES = [
    gap_picture,
    latent_picture,
    covariance_picture,
    training_picture,
    rows_picture,
    images_picture,
]
# Root mean square difference of pixels in 0..255. The matplotlib that drew the baselines gives
# 0, the wrong data below 17 to 87. Half of the least of these leaves room for other processors
# and builds of its fonts. Other releases lay out and hint differently, by up to 43.
TOLERANCE = 8.0
DRAWN_WITH = "3.11"

same_matplotlib = pytest.mark.skipif(
    not mpl.__version__.startswith(f"{DRAWN_WITH}."),
    reason=f"the baselines were drawn with matplotlib {DRAWN_WITH}, as constraints.txt has it",
)


def save(display, path):
    display.plot().figure_.savefig(path, dpi=40, metadata={"Software": None})


def difference(display, name, folder):
    """Draw a picture and return its root mean square difference from the baseline."""
    save(display, folder / name)
    result = compare_images(BASELINES / name, folder / name, tol=0, in_decorator=True)
    return 0.0 if result is None else result["rms"]


@same_matplotlib
@pytest.mark.parametrize("picture", PICTURES)
def test_baseline(picture, tmp_path):
    name = f"{picture.__name__}.png"
    if os.environ.get("SKHEBAE_REGENERATE_IMAGES") == "1":
        BASELINES.mkdir(exist_ok=True)
        save(picture(), BASELINES / name)
    assert difference(picture(), name, tmp_path) <= TOLERANCE
    assert (BASELINES / name).stat().st_size < 40_000


@same_matplotlib
@pytest.mark.parametrize("picture", PICTURES)
def test_wrong_picture_differs_from_the_baseline(picture, tmp_path):
    assert difference(picture(0.5), f"{picture.__name__}.png", tmp_path) > TOLERANCE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingDisplay({}), "histories={} must be a dict"),
        (lambda: BoundGapDisplay({}), "gaps={} must be a dict"),
        (lambda: CovarianceDisplay({}), "covariances={} must be a dict"),
        (lambda: CovarianceDisplay([[1.0]]), "covariances=.* must be a dict"),
        (lambda: LatentDisplay(np.eye(2), mean=[0, 0]), "mean and covariance belong together"),
        (lambda: ReconstructionDisplay([1, 2], [1, 2]), r"originals has shape \(2,\)"),
        (lambda: ReconstructionDisplay(np.eye(3), np.eye(2)), "reconstructions .2, 2."),
        (lambda: ReconstructionDisplay(np.eye(4), np.eye(4), samples=np.eye(3)), "samples has"),
        *(
            (lambda s=s: ReconstructionDisplay(np.eye(4), np.eye(4), image_shape=s), "image_shape=")
            for s in (4, "ab", (-2, -2), (2.0, 2.0), (4,))
        ),
    ],
)
def test_displays_refuse_odd_data_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
