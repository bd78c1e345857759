"""Conformal p-values against counts, and their adjustment against textbook forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binom

from skhebae.conformal import benjamini_hochberg, conformal_p_values, largest_quiet_score

#: Few distinct values, so that scores tie; and any other.
SCORES = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.floats(-1e300, 1e300, allow_subnormal=True)
)
ALPHAS = st.one_of(
    st.floats(1e-6, 1.0 - 1e-6), st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5, 1 / 3, 0.9])
)


def count(held_out, novelty):
    """What the formula says, one row at a time."""
    return [(1 + sum(h >= s for h in held_out)) / (len(held_out) + 1) for s in novelty]


@given(st.lists(SCORES, min_size=1, max_size=40), st.lists(SCORES, min_size=1, max_size=20))
def test_p_values_are_counts(held_out, novelty):
    ordered = np.sort(held_out)
    found = conformal_p_values(ordered, np.array(novelty + held_out))
    assert_array_equal(found, count(held_out, novelty + held_out))
    assert found.dtype == np.float64
    assert found.min() >= 1.0 / (len(held_out) + 1)
    assert found.max() <= 1.0


def test_p_values_of_infinite_scores():
    held_out = np.array([0.0, 1.0, 2.0])
    assert_array_equal(conformal_p_values(held_out, np.array([np.inf, -np.inf])), [0.25, 1.0])


@given(st.lists(SCORES, min_size=1, max_size=60), ALPHAS)
def test_rows_beyond_the_largest_quiet_score_are_alarms(held_out, alpha):
    ordered = np.sort(held_out)
    threshold = largest_quiet_score(ordered, alpha)
    around = np.concatenate(
        [ordered, np.nextafter(ordered, np.inf), np.nextafter(ordered, -np.inf)]
    )
    assert_array_equal(around > threshold, conformal_p_values(ordered, around) <= alpha)


@pytest.mark.parametrize("n_held_out", [1, 9, 19, 20, 39, 99, 100, 199, 999])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.2, 0.29, 1 / 3, 0.5, 0.7])
def test_threshold_where_alpha_times_rows_is_a_whole_number(n_held_out, alpha):
    held_out = np.arange(float(n_held_out))
    threshold = largest_quiet_score(held_out, alpha)
    around = np.concatenate([held_out, [-1.0, 1e9]])
    assert_array_equal(around > threshold, conformal_p_values(held_out, around) <= alpha)


def test_no_alarm_is_possible_with_too_few_rows():
    assert largest_quiet_score(np.arange(18.0), 0.05) == np.inf
    assert largest_quiet_score(np.arange(19.0), 0.05) == 18.0
    assert largest_quiet_score(np.arange(1.0), 0.999) == 0.0


@pytest.mark.parametrize("n_held_out", [3, 19, 100])
def test_uniform_under_the_null(n_held_out):
    """Every multiple of 1 / (m + 1) is as likely as any other."""
    rng = np.random.default_rng(n_held_out)
    n_tables = 4000
    tables = rng.normal(size=(n_tables, n_held_out + 1))
    found = np.array([conformal_p_values(np.sort(row[1:]), row[:1])[0] for row in tables])
    ranks = np.rint(found * (n_held_out + 1)).astype(int)
    assert_allclose(ranks / (n_held_out + 1), found, rtol=1e-12)
    for k in (1, (n_held_out + 1) // 2, n_held_out):
        share = k / (n_held_out + 1)
        low, high = binom.interval(0.9999, n_tables, share)
        assert low <= (ranks <= k).sum() <= high


@given(st.integers(0, 2**32 - 1))
def test_at_most_alpha_of_alarms_with_ties(seed):
    """Ties make p-values larger only: the rank of a row among equals is the least strange."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 3, 8).astype(float)
    found = [
        conformal_p_values(np.sort(np.delete(rows, i)), rows[i : i + 1])[0]
        for i in range(len(rows))
    ]
    for alpha in (0.125, 0.25, 0.5, 0.75):
        assert np.mean(np.array(found) <= alpha) <= alpha


def textbook(p_values):
    """The least of ``p_(j) n / j`` over the j at or above the rank, at most 1."""
    order = np.argsort(p_values)
    n = len(p_values)
    adjusted = np.empty(n)
    for rank, i in enumerate(order):
        adjusted[i] = min(1.0, *(p_values[order[j]] * n / (j + 1) for j in range(rank, n)))
    return adjusted


P_VALUES = st.lists(
    st.one_of(st.floats(1e-12, 1.0), st.sampled_from([0.01, 0.05, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


@given(P_VALUES)
def test_adjusted_as_in_the_textbook(p_values):
    assert_allclose(benjamini_hochberg(np.array(p_values)), textbook(p_values), rtol=1e-12)


@given(P_VALUES, st.floats(0.001, 0.999))
def test_adjusted_rejects_what_the_step_up_procedure_rejects(p_values, q):
    """Of n sorted p-values, all up to the largest k with ``p_(k) <= q k / n``."""
    ordered, n = np.sort(p_values), len(p_values)
    adjusted = benjamini_hochberg(np.array(p_values))
    if (np.abs(adjusted - q) < 1e-9).any():  # decided by rounding
        return
    passed = np.flatnonzero(ordered <= q * np.arange(1, n + 1) / n)
    n_rejected = 0 if len(passed) == 0 else passed[-1] + 1
    assert (adjusted <= q).sum() == n_rejected


def test_adjusted_false_discoveries_among_conformal_p_values():
    """At most q on average, although p-values share their held-out rows."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        held_out = np.sort(rng.normal(size=200))
        novelty = np.concatenate([rng.normal(size=90), rng.normal(size=10) + 5.0])
        is_found = benjamini_hochberg(conformal_p_values(held_out, novelty)) <= 0.2
        shares.append(is_found[:90].sum() / max(1, is_found.sum()))
    assert 0.1 < np.mean(shares) < 0.2 + 3 * np.std(shares) / len(shares) ** 0.5
