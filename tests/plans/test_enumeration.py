"""The enumeration behind certificates against dynamic programming, at any price and level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import CertificateError
from coopt.plans.enumeration import smallest_value

gain = st.one_of(st.just(0.0), st.floats(-3.0, 3.0).map(lambda exponent: 10.0**exponent))


@st.composite
def knapsacks(draw):
    n = draw(st.integers(1, 7))

    def each(strategy):
        return np.array(draw(st.lists(strategy, min_size=n, max_size=n)))

    gains, costs, least = each(gain), each(st.integers(1, 7)), each(st.integers(1, 3))
    most = least + each(st.integers(0, 8))
    low, high = int(costs @ least), int(costs @ most)
    return gains, costs.astype(float), low + round(draw(st.floats(0.0, 1.0)) * (high - low)), least, most


def optimum(gains, costs, budget: int, least, most) -> float:
    best = np.zeros(budget + 1)
    for g, c, low, high in zip(gains, costs.astype(int), least, most, strict=True):
        after = np.full(budget + 1, math.inf)
        for t in range(int(low), int(high) + 1):
            if c * t <= budget:
                after[c * t :] = np.minimum(after[c * t :], best[: budget + 1 - c * t] + g / t)
        best = after
    return float(best[budget])


@settings(max_examples=200, deadline=None)
@given(knapsacks(), st.floats(-3.0, 1.0), st.floats(0.3, 3.0))
def test_whatever_the_price_and_the_level(knapsack, exponent, share):
    gains, costs, budget, least, most = knapsack
    expected = optimum(*knapsack)
    level = share * expected
    price = 10.0**exponent * expected / budget
    found = smallest_value(
        gains, costs[None], np.array([float(budget)]), least, most, np.array([price]), level
    )
    assert found == pytest.approx(min(expected, level), rel=1e-9)
    assert found <= expected * (1 + 1e-10)


@settings(max_examples=100, deadline=None)
@given(knapsacks(), st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(0.3, 3.0))
def test_two_budgets_against_all_plans(knapsack, seed, tightness, share):
    """Whatever the prices, one of which may be nothing."""
    gains, costs, budget, least, most = (each[:4] if np.ndim(each) else each for each in knapsack)
    rng = np.random.default_rng(seed)
    both = np.array([costs, rng.integers(0, 5, costs.size)])
    low, high = both @ least, both @ most
    budgets = np.array([max(budget, low[0]), low[1] + round(tightness * (high[1] - low[1]))])
    axes = [np.arange(a, b + 1) for a, b in zip(least, most, strict=True)]
    plans = np.array(np.meshgrid(*axes, indexing="ij")).reshape(costs.size, -1)
    fits = (both @ plans <= budgets[:, None]).all(axis=0)
    expected = float((gains[:, None] / plans).sum(axis=0)[fits].min())
    prices = rng.choice([0.0, 1.0, 1.0], 2) * 10.0 ** rng.uniform(-3.0, 1.0, 2) * expected
    found = smallest_value(gains, both, budgets, least, most, prices, share * expected)
    assert found == pytest.approx(min(1.0, share) * expected, rel=1e-9)


def test_it_gives_up_rather_than_guess(monkeypatch):
    monkeypatch.setattr("coopt.plans.enumeration.MOST_PARTIAL", 3)
    rng = np.random.default_rng(0)
    gains, costs = rng.uniform(1, 2, 20), rng.uniform(1, 2, (2, 20))
    least, most = np.ones(20, dtype=np.int64), np.full(20, 9)
    with pytest.raises(CertificateError, match="too many combinations"):
        smallest_value(gains, costs, 5.0 * costs.sum(axis=1), least, most, np.full(2, 0.02), 1e9)
