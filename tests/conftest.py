from __future__ import annotations

import os

# scikit-learn's array API checks want this set before scipy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skhebae import HEBAETransformer, VAETransformer, WAETransformer

# A busy machine is no reason to fail, and the same commit has the same examples.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ESTIMATORS = [HEBAETransformer, VAETransformer, WAETransformer]


@pytest.fixture(params=ESTIMATORS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture(scope="session")
def digits():
    """Train and test rows in [0, 1] and their labels, 75/25."""
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.25, random_state=0)


@pytest.fixture(scope="session")
def table():
    """240 rows of 12 correlated features around curved 2-d codes."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(240, 2))
    features = np.concatenate([codes, np.sin(codes), codes**2], axis=1)
    return features @ rng.normal(size=(6, 12)) + 0.1 * rng.normal(size=(240, 12)) + 3.0


@pytest.fixture(scope="session")
def quick():
    """Parameters of a fit that takes a moment."""
    return {"n_components": 3, "hidden_layer_sizes": (16,), "random_state": 0}


@pytest.fixture
def brief(quick):
    """Parameters of a fit of a few epochs, which learns little and may say so without failing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield {**quick, "max_iter": 5}


@pytest.fixture(scope="session")
def hebae_of_digits(digits):
    """HEBAE with all defaults, fitted on the train rows of `digits`. Do not refit."""
    return HEBAETransformer(random_state=0).fit(digits[0])


@pytest.fixture(scope="session", params=ESTIMATORS, ids=lambda cls: cls.__name__)
def fitted(request, table, quick):
    """Each estimator fitted on `table`. Do not refit: shared by the session."""
    return request.param(**quick).fit(table)


@pytest.fixture(scope="session")
def vanished(table, quick):
    """HEBAE trained on `table` until its noise has vanished. Do not refit."""
    with pytest.warns(ConvergenceWarning):
        return HEBAETransformer(**quick, max_iter=600, tol=0.0, linear_path=False).fit(table)


@pytest.fixture
def shared_data():
    """Folder of real data sets that are not part of the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKHEBAE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set SKHEBAE_DATA to run this test")
    return folder
