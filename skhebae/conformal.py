"""p-values of novelty scores from those of rows that were held out.

References
----------
.. [1] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with conformal
   p-values", Annals of Statistics 51, 2023 (arXiv:2104.08279).
.. [2] Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal
   Statistical Society B 57, 1995.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

FloatArray = NDArray[np.float64]


def conformal_p_values(held_out: FloatArray, novelty: FloatArray) -> FloatArray:
    """Return ``(1 + #{i: h_i >= s}) / (m + 1)`` of each score s [1]_, (n,).

    If a row comes from where the held-out rows come from, its p-value is at most alpha with a
    probability of at most alpha. None is below ``1 / (m + 1)``.

    Parameters
    ----------
    held_out : ndarray of shape (m,)
        Scores of held-out rows in ascending order; higher is stranger.
    novelty : ndarray of shape (n,)
        Scores of the rows in question.
    """
    at_least = len(held_out) - np.searchsorted(held_out, novelty, side="left")
    p_values: FloatArray = (1.0 + at_least.astype(np.float64)) / (len(held_out) + 1.0)
    return p_values


def largest_quiet_score(held_out: FloatArray, alpha: float) -> float:
    """Return the largest score whose `conformal_p_values` is above alpha: an alarm is beyond it.

    Infinite if no p-value can be as small as alpha, and minus infinity if all are.
    """
    # An alarm may have k held-out scores at or above its own: (1 + k) / (m + 1) <= alpha. The
    # product of two exact numbers may round to just below an integer.
    k = math.floor(alpha * (len(held_out) + 1) * (1.0 + 1e-12)) - 1
    if k < 0:
        return math.inf
    return float(held_out[-1 - k]) if k < len(held_out) else -math.inf


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Return p-values adjusted for their number [2]_, (n,).

    Of the rows whose adjusted value is at most q, a share of at most q on average are no novelties.
    """
    adjusted: FloatArray = false_discovery_control(p_values, method="bh")
    return adjusted
