"""The files and servers that data sets come from: IDX files, OpenML, and what to do without."""

from __future__ import annotations

import gzip
import hashlib
import math
import socket
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets as bundled

#: Seconds after which a silent server counts as a missing one.
TIMEOUT = 20.0


class MissingDataError(Exception):
    """A set that is not here: why, and how to get it."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, gzipped or not: type, number of sizes, sizes, values."""
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        zeros, code, n_sizes = struct.unpack_from(">HBB", content)
        sizes = struct.unpack_from(f">{n_sizes}I", content, 4)
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is not an IDX file, or a truncated one: {error}") from error
    if (zeros, code) != (0, 8):
        raise ValueError(
            f"{path} is not an IDX file of bytes: it begins with {content[:4].hex(' ')}"
        )
    start = 4 + 4 * n_sizes
    wanted = start + math.prod(sizes)
    if len(content) != wanted:
        raise ValueError(
            f"{path} has {len(content)} bytes, but its header announces {wanted}: "
            "truncated or damaged; get it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


@contextmanager
def missing_unless_it_works(cure: str) -> Iterator[None]:
    """Say that a set is missing where the network or a package is; do not wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # the fetchers have no argument for it
    try:
        yield
    except (OSError, HTTPException, ImportError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise MissingDataError(f"{message}; {cure}") from error
    finally:
        socket.setdefaulttimeout(before)


IDX_PARTS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
#: SHA-256 of the published files, unpacked. Those of Fashion-MNIST are of contents that,
#: packed as published, have the MD5 sums of github.com/zalandoresearch/fashion-mnist.
PUBLISHED = {
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def idx_sha256(values: NDArray[np.uint8]) -> str:
    """SHA-256 of the IDX file that holds these bytes, wherever they came from."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return hashlib.sha256(header + values.tobytes()).hexdigest()


def read_mnist(name: str, openml: str, source: str, folder: Path) -> list[NDArray[np.uint8]]:
    """Return images and labels for training and for tests, split as published."""
    folder = folder / name
    if folder.is_dir():
        parts = [read_idx(_find_idx(folder, part, source)) for part in IDX_PARTS]
    else:
        cure = f"connect to the network once, or put the four files of {source} into {folder}"
        with missing_unless_it_works(cure):
            parts = _fetch_openml(openml)
    for part, values, published in zip(IDX_PARTS, parts, PUBLISHED[name], strict=True):
        if idx_sha256(values) != published:
            warnings.warn(f"{part} of {name} differ from what {source} published", stacklevel=2)
    sizes = [len(part) for part in parts]
    if sizes[0] != sizes[1] or sizes[2] != sizes[3]:
        raise ValueError(f"{folder} has other numbers of images than of labels: {sizes}")
    return parts


def _find_idx(folder: Path, part: str, source: str) -> Path:
    """Return the file of one part, in any of the spellings it goes by."""
    kind = "idx3-ubyte" if part.endswith("images") else "idx1-ubyte"
    for name in (f"{part}{mark}{kind}{end}" for mark in "-." for end in (".gz", "")):
        if (folder / name).is_file():
            return folder / name
    raise MissingDataError(f"no {part}-{kind}.gz in {folder}; take it from {source}")


def _fetch_openml(name: str) -> list[NDArray[np.uint8]]:
    """Return the four parts as OpenML has them; scikit-learn caches, and checks their MD5."""
    rows, labels = bundled.fetch_openml(
        name, version=1, as_frame=False, return_X_y=True, n_retries=1
    )
    images = rows.astype(np.uint8).reshape(-1, 28, 28)
    digits = labels.astype(np.uint8)
    return [images[:60000], digits[:60000], images[60000:], digits[60000:]]
