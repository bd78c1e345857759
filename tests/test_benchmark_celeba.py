"""The paper's convolutional experiment on a handful of images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import datasets, paper, work


@pytest.fixture
def faces(tmp_path):
    """Twelve colourful images of CelebA's size."""
    folder = tmp_path / "celeba"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = np.outer(np.linspace(0, 1, 218), np.linspace(0, 1, 178))[:, :, None]
        pixels = 255 * pixels * rng.random(3)
        pixels[:, :19] = 255.0  # left of the central square
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:06d}.png")
    return tmp_path


def test_images_are_cropped_and_scaled(faces):
    dataset = datasets.load("celeba", faces)
    assert dataset.image_shape == (3, 64, 64)
    assert (dataset.rows.shape, dataset.n_train) == ((12, 3 * 64 * 64), 8)
    assert dataset.rows.min() >= 0.0
    # The white border is cut off: the brightest corner is at the lower right.
    image = dataset.rows[0].reshape(3, 64, 64)
    assert image.max(axis=0).argmax() == 64 * 64 - 1
    with Image.open(faces / "celeba" / "000000.png") as original:
        centre = np.asarray(original)[109, 89] / 255
    np.testing.assert_allclose(image[:, 32, 32], centre, atol=0.02)
    # The folder itself may be named, too.
    np.testing.assert_array_equal(datasets.load("celeba", faces / "celeba").rows, dataset.rows)


def test_no_images(tmp_path, capsys):
    assert datasets.load("celeba", tmp_path) is None
    assert "celeba skipped: no images in" in capsys.readouterr().out


def test_published_convolutions_map_images_both_ways():
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        encoder = work.conv_encoder((3, 64, 64), 128)
        decoder = work.conv_decoder(64, (3, 64, 64))
        images = torch.rand(2, 3, 64, 64)
        assert encoder(images).shape == (2, 128)
        assert decoder(torch.rand(2, 64)).shape == images.shape
    shapes = [tuple(p.shape) for p in encoder.parameters() if p.ndim == 4]
    assert shapes == [(128, 3, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5), (1024, 512, 5, 5)]
    shapes = [tuple(p.shape) for p in decoder.parameters() if p.ndim == 4]
    assert shapes == [(1024, 512, 5, 5), (512, 256, 5, 5), (256, 128, 5, 5), (128, 3, 5, 5)]


@pytest.mark.slow
def test_the_experiment_runs(faces, tmp_path, monkeypatch):
    # The experiment of the paper but for its size.
    monkeypatch.setattr(datasets, "FACE_SIDE", 8)
    monkeypatch.setattr(work, "CHANNELS", (2, 3, 4, 5))
    where = ["--data-dir", str(faces), "--models", str(tmp_path), "--output", str(tmp_path)]
    small = ["--epochs", "1", "--seeds", "0", "--dims", "2", "--weights", "1"]
    paper.main(["--data", "celeba", "--methods", "HEBAE", "WAE", *where, *small])
    rows = json.loads((tmp_path / "paper-celeba.json").read_text())["rows"]
    methods = [(row["method"], row["weight"]) for row in rows]
    assert methods == [("HEBAE", 1.0), ("WAE", 10.0), ("WAE", 1.0)]
    for row in rows:
        assert row["epochs"] == len(row["history"]["loss"]) == 1
        assert np.isfinite(row["log_likelihood"])
        # Nobody labels faces, so there is no classifier to judge samples with.
        assert "samples" not in row
