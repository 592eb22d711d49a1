"""Whole batches within two budgets against dynamic programming over both, and laws of an optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.solvers.common_measure import common_measure, whole_multiple
from coopt.solvers.whole_units.two_limits import fill_both
from coopt.solvers.whole_units.two_limits_prices import Demand, at, best_prices

gain = st.one_of(st.just(0.0), st.floats(-4.0, 4.0).map(lambda exponent: 10.0**exponent))


@st.composite
def knapsacks(draw, most_devices: int = 20, most_units: int = 8):
    """(gains, whole prices of shape (2, N), two whole limits, least, most), with limits that often bind."""
    n = draw(st.integers(1, most_devices))

    def each(strategy):
        return np.array(draw(st.lists(strategy, min_size=n, max_size=n)))

    gains, prices = each(gain), np.array([each(st.integers(0, 5)), each(st.integers(0, 5))])
    least = each(st.integers(1, 2))
    most = np.where(gains > 0.0, least + each(st.integers(0, most_units)), least)
    low, high = prices @ least, prices @ most
    shares = np.array([draw(st.floats(0.0, 1.0)), draw(st.floats(0.0, 1.0))])
    return gains, prices, low + np.rint(shares * (high - low)).astype(np.int64), least, most


def optimum(gains, prices, budgets, least, most) -> float:
    """Smallest sum g / t: dynamic programming over both budgets, device by device."""
    best = np.zeros(tuple(budgets + 1))
    for g, c, e, low, high in zip(gains, *prices, least, most, strict=True):
        after = np.full_like(best, math.inf)
        for t in range(int(low), int(high) + 1):
            x, y = c * t, e * t
            if x <= budgets[0] and y <= budgets[1]:
                rest = best[: best.shape[0] - x, : best.shape[1] - y]
                after[x:, y:] = np.minimum(after[x:, y:], rest + g / t)
        best = after
    return float(best[-1, -1])


def demand_of(knapsack, slack: float = 1e-9) -> Demand:
    gains, prices, budgets, least, most = knapsack
    limits = np.where(budgets > 0, budgets * (1.0 + slack), 1.0)
    return Demand(gains, prices / limits[:, None], least, most)


start = st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)).map(lambda pair: 10.0 ** np.array(pair))


@settings(max_examples=50, deadline=None)
@given(knapsacks(), start)
def test_equals_dynamic_programming(knapsack, prices):
    """Whatever prices the search starts from."""
    found = fill_both(demand_of(knapsack), prices, cutoff=math.inf)
    expected = optimum(*knapsack)
    assert found.value == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert found.lower_bound == pytest.approx(expected, rel=1e-12, abs=1e-300)
    _, uses, budgets, least, most = knapsack
    assert ((least <= found.units) & (found.units <= most)).all()
    assert (uses @ found.units <= budgets).all()


@settings(max_examples=50, deadline=None)
@given(knapsacks(), start, st.floats(0.5, 1.5))
def test_a_cutoff_is_proved_or_undercut(knapsack, prices, share):
    expected = optimum(*knapsack)
    cutoff = expected * share
    found = fill_both(demand_of(knapsack), prices, cutoff=cutoff)
    assert found.lower_bound <= expected * (1 + 1e-12)
    assert found.lower_bound >= min(expected, cutoff) * (1 - 1e-12)
    if expected < cutoff * (1 - 1e-9):
        assert found.value == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(knapsacks(), start)
def test_a_quick_bound_holds_and_its_plan_fits(knapsack, prices):
    found = fill_both(demand_of(knapsack), prices)
    assert found.lower_bound <= optimum(*knapsack) * (1 + 1e-12) <= found.value * (1 + 2e-12)
    assert (knapsack[1] @ found.units <= knapsack[2]).all()


@settings(max_examples=50, deadline=None)
@given(knapsacks(), start, st.integers(0, 10**6))
def test_no_prices_have_a_larger_dual_value(knapsack, prices, seed):
    demand = demand_of(knapsack)
    best = best_prices(demand, prices, 1e-12)
    rng = np.random.default_rng(seed)
    for other in best.prices * 10.0 ** rng.normal(0.0, 0.3, (20, 2)):
        assert at(demand, other).dual <= best.dual + 1e-9 * (demand.value(demand.least) + 1e-9)


@pytest.mark.parametrize("devices", [20, 100, 300])
@pytest.mark.parametrize("kind", ["real", "cents", "two kinds of device", "equal costs"])
def test_fleets_close(devices, kind):
    rng = np.random.default_rng(devices)
    real = rng.uniform(0.5, 2.0, (2, devices))
    uses = {
        "real": real,
        "cents": np.round(real, 2),
        "two kinds of device": np.array([[1.0, 0.3], [0.123456, 0.654321]])[:, rng.integers(0, 2, devices)],
        "equal costs": np.array([np.ones(devices), real[1]]),
    }[kind]
    limit = np.array([20.0, 19.0]) * uses.sum(axis=1) * (1 + 1e-9)
    limit = np.array([whole_multiple(*each) for each in zip(limit, map(common_measure, uses), strict=True)])
    least, most = np.ones(devices, dtype=np.int64), rng.integers(20, 200, devices)
    found = fill_both(
        Demand(rng.lognormal(0.0, 1.0, devices), uses / limit[:, None], least, most), np.ones(2), math.inf
    )
    assert found.value - found.lower_bound <= 1e-12 * found.value
    assert (uses @ found.units <= limit).all()


def test_what_is_dropped_weakens_the_lower_bound(monkeypatch):
    """With room for few partial plans, or few pairs of them, the claim is weaker, and true."""
    rng = np.random.default_rng(1)
    prices = rng.integers(5, 10, (2, 12))
    knapsack = (
        rng.lognormal(0.0, 1.0, 12), prices, 5 * prices.sum(axis=1), np.ones(12, int), np.full(12, 20)
    )  # fmt: skip
    expected, demand = optimum(*knapsack), demand_of(knapsack)
    for name in ("MOST_STATES", "MOST_PAIRS"):
        with monkeypatch.context() as patch:
            patch.setattr("coopt.solvers.whole_units.two_limits_branching.MOST_WORK", 0)
            patch.setattr(f"coopt.solvers.whole_units.two_limits_listing.{name}", 2)
            found = fill_both(demand, np.ones(2), cutoff=math.inf)
        assert found.lower_bound <= expected <= found.value
        assert found.lower_bound < found.value


@settings(max_examples=30, deadline=None)
@given(knapsack=knapsacks(most_devices=6))
def test_branches_close_what_lists_do_not(knapsack):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coopt.solvers.whole_units.two_limits_listing.MOST_STATES", 2)
        patch.setattr("coopt.solvers.whole_units.two_limits.NO_PRICE", -1.0)
        patch.setattr("coopt.solvers.whole_units.two_limits_branching.MOST_WORK", 20_000)
        found = fill_both(demand_of(knapsack), np.ones(2), cutoff=math.inf)
    expected = optimum(*knapsack)
    assert found.value == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert found.lower_bound == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_where_one_limit_binds_it_decides(monkeypatch):
    """Lists that are too short to prove anything leave the problem under that limit alone."""
    monkeypatch.setattr("coopt.solvers.whole_units.two_limits_listing.MOST_STATES", 2)
    monkeypatch.setattr("coopt.solvers.whole_units.two_limits_branching.MOST_WORK", 0)
    rng = np.random.default_rng(1)
    prices = rng.integers(5, 10, (2, 12))
    budgets = np.array([5, 20]) * prices.sum(axis=1)
    knapsack = rng.lognormal(0.0, 1.0, 12), prices, budgets, np.ones(12, int), np.full(12, 20)
    found = fill_both(demand_of(knapsack), np.array([1.0, 0.0]), cutoff=math.inf)
    expected = optimum(*knapsack)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.lower_bound == pytest.approx(expected, rel=1e-12)


def test_a_device_whose_units_use_next_to_nothing():
    """It has ten thousand numbers of units of nearly the same worth: too many to list."""
    gains, least, most = np.array([1.0, 1.0, 2.0]), np.ones(3, int), np.array([10_000, 40, 40])
    uses = np.array([[1e-9, 0.031, 0.042], [2e-9, 0.043, 0.032]])
    found = fill_both(Demand(gains, uses, least, most), np.ones(2), math.inf)
    plans = np.array(np.meshgrid(np.arange(1, 41), np.arange(1, 41))).reshape(2, -1)
    fits = (uses[:, 1:] @ plans + 1e4 * uses[:, :1] <= 1.0).all(axis=0)
    expected = 1e-4 + float((gains[1:, None] / plans).sum(axis=0)[fits].min())
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.lower_bound == pytest.approx(expected, rel=1e-12)


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=8),
    st.floats(-6.0, 6.0).map(lambda exponent: 10.0**exponent),
    st.integers(0, 10**6),
)
def test_a_measure_divides_all_amounts_and_limits(multiples, unit, units):
    amounts = np.array([0.0, *multiples]) * unit
    measure = common_measure(amounts)
    assert measure == pytest.approx(math.gcd(*multiples) * unit, rel=1e-12)
    # A limit that is a whole multiple stays as it is, and what lies between two becomes the lower one.
    for part in (0.0, 0.3, 0.99):
        limit = whole_multiple((units + part) * measure * (1 + 1e-9), measure)
        assert units * measure <= limit <= units * measure * (1 + 1e-9)


def test_real_amounts_have_no_measure():
    amounts = np.random.default_rng(1).uniform(0.5, 2.0, 50)
    assert common_measure(amounts) is None
    assert common_measure(np.zeros(3)) is None
    assert whole_multiple(7.5, None) == 7.5
