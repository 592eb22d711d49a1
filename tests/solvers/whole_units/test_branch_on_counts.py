"""Whole batches at costs that are nearly equal, or nearly whole multiples of one cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    Problem,
    Status,
    allocate_batches,
    solve_allocation,
)
from coopt.solvers.whole_units.knapsack import fill

gain = st.one_of(st.just(1.0), st.floats(-1.0, 1.0).map(lambda exponent: 10.0**exponent))


LIMITS = tuple(
    f"coopt.solvers.whole_units.{name}"
    for name in (
        "branch_on_counts.MOST_COUNTS",
        "near_prices.MOST_STATES",
        "near_prices.MOST_WORK",
        "near_prices.MOST_CHOICES",
    )
)


@st.composite
def nearly_multiples(draw, most_devices: int = 4, most_units: int = 6):
    """(gains, costs, budget, least, most): the budget is what some plan costs, or nearly that."""
    n = draw(st.integers(2, most_devices))

    def each(strategy):
        return np.array(draw(st.lists(strategy, min_size=n, max_size=n)))

    multiples = draw(st.sampled_from([(1,), (1, 2), (2, 3), (1, 2, 5), (1, 2, 4, 8)]))
    spread = 10.0 ** draw(st.integers(-9, -1))
    costs = each(st.sampled_from(multiples)) * (1.0 + spread * each(st.floats(0.0, 1.0)))
    least = each(st.integers(1, 3))
    most = least + each(st.integers(0, most_units))
    plan = least + (each(st.floats(0.0, 1.0)) * (most - least)).astype(np.int64)
    budget = float(costs @ plan) + draw(st.sampled_from([0.0, 1e-9, 0.3])) * float(costs.max())
    return each(gain), costs, budget, least, most


def every_plan(costs, budget: float, least, most) -> np.ndarray:
    """All whole plans within the budget, with the tolerance that every limit has."""
    axes = [range(low, high + 1) for low, high in zip(least.tolist(), most.tolist(), strict=True)]
    plans = np.array(list(itertools.product(*axes)))
    return plans[(plans * costs).sum(axis=1) <= budget * (1 + 1e-9)]


@settings(max_examples=40, deadline=None)
@given(nearly_multiples())
def test_equals_enumeration(knapsack):
    gains, costs, budget, least, most = knapsack
    expected = float((gains / every_plan(costs, budget, least, most)).sum(axis=1).min())
    plan = allocate_batches(gains, costs, budget, least, most)
    assert plan.value == pytest.approx(expected, rel=1e-12)
    assert plan.lower_bound == pytest.approx(expected, rel=1e-12)
    assert plan.lower_bound <= plan.value
    assert float((costs * plan.batch_sizes).sum()) <= budget * (1 + 1e-9) * (1 + 1e-15)
    assert ((least <= plan.batch_sizes) & (plan.batch_sizes <= most)).all()


@settings(max_examples=100, deadline=None)
@given(nearly_multiples(), st.floats(0.8, 1.2))
def test_a_cutoff_is_proved_or_undercut(knapsack, share):
    gains, costs, budget, least, most = knapsack
    expected = float((gains / every_plan(costs, budget, least, most)).sum(axis=1).min())
    most = np.where(gains > 0.0, most, least)
    found = fill(gains, costs, budget * (1 + 1e-9), least, most, 1.0, cutoff=expected * share)
    assert found.lower_bound <= expected * (1 + 1e-12)
    assert found.lower_bound >= min(expected, expected * share) * (1 - 1e-12)
    if share > 1.0 + 1e-9:
        assert found.value == pytest.approx(expected, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    nearly_multiples(),
    st.sampled_from(LIMITS[:3]),
)
def test_what_is_not_looked_at_weakens_the_lower_bound(knapsack, limit):
    gains, costs, budget, least, most = knapsack
    expected = float((gains / every_plan(costs, budget, least, most)).sum(axis=1).min())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limit, 2)
        plan = allocate_batches(gains, costs, budget, least, most)
    assert plan.lower_bound <= expected * (1 + 1e-12)
    assert plan.value >= expected * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(
    nearly_multiples(most_devices=12, most_units=30),
    st.randoms(use_true_random=False),
    st.integers(-40, 40),
)
def test_order_and_units_change_nothing(knapsack, random, exponent):
    gains, costs, budget, least, most = knapsack
    order = list(range(gains.size))
    random.shuffle(order)
    first = allocate_batches(gains, costs, budget, least, most)
    second = allocate_batches(gains[order], costs[order], budget, least[order], most[order])
    assert second.value == pytest.approx(first.value, rel=1e-12)
    unit = 2.0**exponent
    scaled = allocate_batches(gains, costs * unit, budget * unit, least, most)
    assert scaled.value == pytest.approx(first.value, rel=1e-12)


@pytest.mark.parametrize("devices", [100, 1000, 10_000])
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 0.01, 0.03, 0.1])
def test_large_fleets_close(devices, spread):
    """Up to 3e-5 was left open at a thousand devices with one price alone."""
    rng = np.random.default_rng([devices, 3])
    costs, weights = rng.uniform(1.0, 1.0 + spread, devices), rng.lognormal(0.0, 1.0, devices)
    budget = 20.0 * float(costs.sum())
    plan = allocate_batches(weights, costs, budget, 1, rng.integers(20, 200, devices))
    assert plan.value - plan.lower_bound <= 1e-12 * plan.value
    assert float(costs @ plan.batch_sizes) <= budget * (1 + 1e-9) * (1 + 1e-14)


@pytest.mark.parametrize("multiples", [(1.0, 1.5), (1.0, 2.0, 5.0), (1.0, 2.0, 4.0, 8.0)])
def test_large_fleets_close_at_nearly_multiples_of_one_cost(multiples):
    rng = np.random.default_rng(1)
    costs = rng.choice(multiples, 1000) * rng.uniform(1.0, 1.01, 1000)
    plan = allocate_batches(rng.lognormal(0.0, 1.0, 1000), costs, 20.0 * float(costs.sum()), 1, 200)
    assert plan.value - plan.lower_bound <= 1e-12 * plan.value


@pytest.mark.parametrize("spread", [1e-6, 0.01, 0.1])
def test_large_fleets_of_equal_devices_close(spread):
    """Plans with the same units in another order are worth the same, but for the rounding of their sums."""
    rng = np.random.default_rng([1000, 3])
    costs = rng.uniform(1.0, 1.0 + spread, 1000)
    plan = allocate_batches(np.ones(1000), costs, 20.3 * float(costs.sum()), 1, 200)
    assert plan.value - plan.lower_bound <= 1e-12 * plan.value


def test_ends_of_the_boxes_that_no_budget_reaches_may_be_as_large_as_numbers_are():
    rng = np.random.default_rng(2)
    costs, weights = rng.uniform(1.0, 1.01, 100), rng.lognormal(0.0, 1.0, 100)
    budget = 20.0 * float(costs.sum())
    plan = allocate_batches(weights, costs, budget, 1, 2**53)
    bounded = allocate_batches(weights, costs, budget, 1, 2000)
    assert plan == bounded
    assert plan.value - plan.lower_bound <= 1e-12 * plan.value


def test_a_unit_less_and_the_devices_that_gain_most_or_a_unit_more_on_cheaper_ones():
    """Both counts are looked at, and the better one is taken, whichever it is."""
    gains, costs = np.array([9.0, 9.0, 1.0, 1.0]), np.array([1.01, 1.01, 1.0, 1.0])
    tried = set()
    for budget in np.arange(8.0, 12.0, 0.05).tolist():
        plan = allocate_batches(gains, costs, budget, 1, 9)
        plans = every_plan(costs, budget, np.ones(4, dtype=np.int64), np.full(4, 9))
        values = (gains / plans).sum(axis=1)
        assert plan.value == pytest.approx(float(values.min()), rel=1e-14)
        tried.add(int(plan.batch_sizes.sum()) == int(plans.sum(axis=1).max()))
    assert tried == {True, False}


@pytest.mark.parametrize("bound", [Dynamite(), Certified(1, 1)])
@pytest.mark.parametrize("spread", [1e-6, 0.01])
def test_a_fleet_with_nearly_equal_costs_is_proved_optimal(bound, spread):
    rng = np.random.default_rng(4)
    problem = Problem(
        Fleet(
            samples=rng.integers(50, 2000, 300),
            gradient_noise=rng.lognormal(1, 1, 300),
            divergence=rng.uniform(0.01, 0.2, 300),
            throughput=rng.lognormal(4, 1, 300),
            round_time=rng.uniform(0.1, 2, 300),
            sample_cost=rng.uniform(1.0, 1.0 + spread, 300),
        ),
        Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0),
        Budget(cost=600_000, time=2000, round_cost=20_000),
    )
    plan = solve_allocation(problem, bound=bound)
    plan.certify()
    assert plan.gap <= 1e-12
    assert plan.status is Status.OPTIMAL
