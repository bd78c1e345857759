"""Where the bound is lost: between log p(x) and the bound of the encoder's posterior."""

from __future__ import annotations

import math
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_random_state

from skhebae.data import Matrix
from skhebae.diagnostics._checks import check_autoencoder
from skhebae.diagnostics.gap_report import BoundGap
from skhebae.estimators import BaseAutoencoder
from skhebae.exceptions import UnreliableBoundWarning, warn_caller
from skhebae.process import in_plain_modes
from skhebae.quadrature import Proposal, Rule

#: Directions along which the best Gaussians are sought, at least, and blocks of these; the same
#: for the evaluation of bounds.
SEARCH, EVALUATION = (16, 2), (64, 4)


@in_plain_modes
def bound_gap(
    estimator: BaseAutoencoder,
    X: ArrayLike | Matrix,
    *,
    max_rows: int | None = 300,
    n_draws: int = 2000,
    random_state: int | np.random.RandomState | None = 0,
    batch: ArrayLike | None = None,
    size_factor: ArrayLike | None = None,
) -> BoundGap:
    """Split the gap between log p(x) and the evidence lower bound by its causes.

    The gap is ``log p(x) - ELBO = KL(q(z) || p(z | x))`` for the posterior q that the encoder
    gives. With the decoder fixed, the best Gaussian of all, and the best one in the encoder's
    family, are found for each row. The gap is then the sum of three parts: what the best Gaussian
    misses, what the encoder's family misses beyond that, and what the encoder misses in its family
    (amortisation; Cremer, Li and Duvenaud, arXiv:1801.03558).

    The family of a VAE is the diagonal Gaussians, so its second part is the price of conditionally
    independent codes. Codes are those of the model, before they are turned to principal axes.

    Parameters
    ----------
    estimator : HEBAETransformer, VAETransformer or WAETransformer
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows with the features of `fit`. Held-out rows say how the model treats new rows.
    max_rows : int or None, default=300
        Number of rows to measure, chosen at random. None measures all. 300 rows of 64 features
        with 5 components take some seconds on one core.
    n_draws : int, default=2000
        Number of draws of the code for log p(x). All rows share them.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws, of the directions along which bounds are evaluated, and of the choice
        of rows.
    batch, size_factor : array-like of shape (n_samples,), optional
        Batches and size factors of the rows, as in `fit`.

    Returns
    -------
    BoundGap
        ``print`` shows a summary, and `to_frame` has the numbers per row.

    Raises
    ------
    TypeError
        If `estimator` is not one of this library's, for example a Pipeline around one.
    NotFittedError
        Before `fit`.
    ValueError
        If `X` does not match the rows of `fit`, or `max_rows` or `n_draws` is not usable.

    Warns
    -----
    UnreliableBoundWarning
        If few draws carry most of the importance weight of some rows.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skhebae import VAETransformer
    >>> from skhebae.diagnostics import bound_gap
    >>> X = load_wine().data
    >>> vae = VAETransformer(3, random_state=0).fit(X)
    >>> gap = bound_gap(vae, X, max_rows=50)
    >>> list(gap.summary)
    ['gaussian', 'family', 'amortisation', 'total', 'independence']
    """
    check_autoencoder(estimator, "bound_gap")
    check_whole("n_draws", n_draws, 100, "draws behind log p(x)")
    if max_rows is not None:
        check_whole("max_rows", max_rows, 1, "rows to measure, or None for all")
    rng = check_random_state(random_state)
    rows, fitted = estimator.validate_rows(X), estimator.fitted_
    rules = choose_rules(fitted.n_components, rng)
    proposal = Proposal.draw(n_draws, fitted.n_components, rng)
    n_rows = int(rows.shape[0])
    if max_rows is not None and n_rows > max_rows:
        chosen = np.sort(rng.permutation(n_rows)[:max_rows])
        rows = take_rows(rows, chosen)
        batch, size_factor = (
            None if side is None else np.asarray(side)[chosen] for side in (batch, size_factor)
        )
    else:
        chosen = np.arange(n_rows)
    parts = fitted.bound_parts(rows, rules, proposal, batch, size_factor)
    gap = BoundGap(
        estimator=type(estimator).__name__,
        posterior_family=fitted.posterior_family,
        indices=chosen,
        n_draws=n_draws,
        **parts.as_arrays(),
    )
    if gap.unreliable.any():
        warn_caller(gap.remark, UnreliableBoundWarning)
    return gap


def choose_rules(n_components: int, rng: np.random.RandomState) -> tuple[Rule, Rule]:
    """Return the rules that find and that evaluate the best Gaussians.

    Of one component a single block, of Gauss and Hermite, needs no rotations.
    """
    if n_components == 1:
        return Rule.rotated(1, 4, 1, rng), Rule.rotated(1, 10, 1, rng)
    n_blocks = [
        max(fewest, math.ceil(directions / (2 * n_components)))
        for directions, fewest in (SEARCH, EVALUATION)
    ]
    search = Rule.rotated(n_components, 2, n_blocks[0], rng)
    return search, Rule.rotated(n_components, 3, n_blocks[1], rng)


def take_rows(rows: Matrix, chosen: NDArray[np.intp]) -> Matrix:
    """Return some rows of a validated table, also of one outside memory."""
    if isinstance(rows, np.ndarray) or sparse.issparse(rows):
        return rows[chosen]
    parts = [rows[row : row + 1] for row in chosen]
    return (
        sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)
    )


def check_whole(name: str, value: object, least: int, meaning: str) -> None:
    """Raise unless a parameter is an integer and large enough."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer >= {least}, the {meaning}.")
