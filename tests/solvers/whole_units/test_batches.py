"""Batch sizes for given (K, tau) against dynamic programming, enumeration and the optimality conditions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import BatchAllocation, InfeasibleError, InvalidProblemError, allocate_batches
from coopt.problem.limits import TOLERANCE
from coopt.solvers.whole_units.batches import relax, round_batches, unit_curve

weight = st.one_of(st.just(0.0), st.floats(-6.0, 6.0).map(lambda exponent: 10.0**exponent))
prices = st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.1, 2.0, 7.0])


@st.composite
def boxes(draw, most_devices: int = 5, most: int = 9):
    n = draw(st.integers(1, most_devices))

    def each(strategy):
        return np.array(draw(st.lists(strategy, min_size=n, max_size=n)))

    lower = each(st.integers(1, 3))
    return each(weight), lower, lower + each(st.integers(0, most))


def integer_optima(weights, lower, upper, units: int) -> np.ndarray:
    """Smallest sum w / s over whole s with sum s <= u, for every u up to `units`: dynamic programming."""
    best = np.zeros(units + 1)
    for w, low, high in zip(weights, lower, upper, strict=True):
        ways = [
            np.concatenate([np.full(min(s, units + 1), math.inf), best[: max(units + 1 - s, 0)] + w / s])
            for s in range(int(low), int(high) + 1)
        ]
        best = np.min(ways, axis=0)
    return best


def same(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=1e-12, abs=1e-300)


@settings(max_examples=120, deadline=None)
@given(boxes(), prices, st.floats(0.0, 1.2))
def test_equal_costs_equal_dynamic_programming(box, price, share):
    weights, lower, upper = box
    least, most = int(lower.sum()), int(upper.sum())
    units = least + round(share * (most - least))
    # A budget for exactly so many units, as decimals round.
    plan = allocate_batches(weights, price, price * units, lower, upper)
    spent = int(plan.batch_sizes.sum())
    assert spent <= units
    assert ((lower <= plan.batch_sizes) & (plan.batch_sizes <= upper)).all()
    assert plan.batch_sizes.dtype == np.int64
    assert same(plan.value, integer_optima(weights, lower, upper, units)[units])
    assert same(plan.value, float((weights / plan.batch_sizes).sum()))
    assert same(plan.lower_bound, plan.value)
    # Part of a unit buys nothing.
    if units < most:
        assert allocate_batches(weights, price, price * (units + 0.9), lower, upper).value == plan.value


@settings(max_examples=100, deadline=None)
@given(boxes(), st.integers(0, 12), st.integers(0, 12), st.floats(-9.0, 9.0))
def test_the_curve_of_optima_equals_dynamic_programming(box, skip, width, exponent):
    """Whatever price the search for its ends starts from."""
    weights, lower, upper = box
    first = int(lower.sum()) + skip
    last = first + width
    curve = unit_curve(weights, lower, upper, first, last, 10.0**exponent)
    expected = integer_optima(weights, lower, upper, last)[first:]
    assert curve.shape == (width + 1,)
    assert curve == pytest.approx(expected, rel=1e-11, abs=1e-300)


@settings(max_examples=50, deadline=None)
@given(boxes(most=4), st.integers(1, 3), st.floats(0.0, 1.0), st.booleans())
def test_multiples_and_populations_equal_enumeration(box, multiple, share, replacement):
    """Batches in multiples, drawn without replacement from d_i samples."""
    weights, least, most = box
    n = weights.size
    assume(n <= 3)
    multiples = np.full(n, multiple)
    lower, upper = least * multiple, most * multiple
    population = None if replacement else upper.copy()
    units = int(least.sum()) + round(share * int((most - least).sum()))
    reference = 0.0 if replacement else 1.0 / upper
    expected = min(
        float(np.sum(weights * (1.0 / (multiple * np.array(taken)) - reference)))
        for taken in itertools.product(*(range(low, high + 1) for low, high in zip(least, most, strict=True)))
        if sum(taken) <= units
    )
    start = relax(weights, np.ones(n), float(units * multiple), lower, upper, population).multiplier
    found = round_batches(
        weights,
        np.ones(n),
        float(units * multiple),
        lower,
        upper,
        start,
        units,
        multiples,
        population,
    )
    scale = float(np.sum(weights))
    assert found.value == pytest.approx(expected, rel=1e-11, abs=1e-14 * scale)
    assert found.batch_sizes.sum() <= units * multiple
    assert (found.batch_sizes % multiple == 0).all()
    first = int(least.sum())
    curve = unit_curve(weights, lower, upper, first, units, 1.0, multiples, population)
    assert curve[-1] == pytest.approx(expected, rel=1e-11, abs=1e-14 * scale)


def test_the_floor_of_the_continuous_optimum_is_no_start():
    """Filling up the rounded-down continuous optimum reaches 1787.500, the integer optimum 1787.133."""
    weights = np.append(1e4, np.full(1000, 2.25))
    plan = allocate_batches(weights, 1.0, 1600.0, 1, 10**6)
    # One unit or two on each of the equal devices: what is left to try is the batch of the first.
    expected = min(1e4 / s + 2.25 * (1000 - (600 - s) / 2) for s in range(1, 601))
    assert plan.value == pytest.approx(expected, rel=1e-14)
    assert plan.value == pytest.approx(1787.133, abs=5e-4)
    assert plan.batch_sizes.sum() == 1600
    assert plan.lower_bound == plan.value


@settings(max_examples=100, deadline=None)
@given(boxes(most_devices=4, most=5), st.data())
def test_unequal_costs_are_bracketed_by_enumeration(box, data):
    weights, lower, upper = box
    n = weights.size
    cost = np.array(data.draw(st.lists(st.one_of(st.just(0.0), prices), min_size=n, max_size=n)))
    least, most = float((cost * lower).sum()), float((cost * upper).sum())
    budget = least + data.draw(st.floats(0.0, 1.0)) * (most - least)
    plan = allocate_batches(weights, cost, budget, lower, upper)
    every = np.array(
        list(itertools.product(*(range(lo, hi + 1) for lo, hi in zip(lower, upper, strict=True))))
    )
    allowed = every[(every * cost).sum(axis=1) <= budget * (1 + TOLERANCE)]
    best = float((weights / allowed).sum(axis=1).min())
    assert plan.lower_bound <= best * (1 + 1e-12)
    assert best <= plan.value * (1 + 1e-12)
    assert float((cost * plan.batch_sizes).sum()) <= budget * (1 + TOLERANCE) * (1 + 1e-12)
    assert ((lower <= plan.batch_sizes) & (plan.batch_sizes <= upper)).all()


@settings(max_examples=80, deadline=None)
@given(boxes(most_devices=30, most=50), st.data())
def test_the_continuous_optimum_meets_its_optimality_conditions(box, data):
    """Each device is where its marginal gain per cost is the multiplier, or at the end of its box."""
    weights, lower, upper = box
    n = weights.size
    cost = np.array(data.draw(st.lists(st.one_of(st.just(0.0), prices), min_size=n, max_size=n)))
    least, most = float((cost * lower).sum()), float((cost * upper).sum())
    budget = least + data.draw(st.floats(0.0, 1.1)) * (most - least)
    plan = allocate_batches(weights, cost, budget, lower, upper, integer=False)
    s, price = plan.batch_sizes, plan.multiplier
    assert s.dtype == np.float64
    assert ((lower <= s) & (s <= upper)).all()
    assert price >= 0.0
    spent = float((cost * s).sum())
    limit = budget * (1 + TOLERANCE)
    assert spent <= limit * (1 + 1e-12)
    if price > 0.0:
        assert spent == pytest.approx(limit, rel=1e-9) or spent == pytest.approx(least)
    gain, charge = weights / s**2, price * cost
    slack = 1e-6 * np.maximum(gain, charge)
    assert (gain[s < upper] <= (charge + slack)[s < upper]).all()
    assert (gain[s > lower] >= (charge - slack)[s > lower]).all() or spent == pytest.approx(least)
    # Weak duality: the dual value bounds every feasible point, and here it is the value.
    assert plan.lower_bound <= plan.value
    assert plan.lower_bound == pytest.approx(plan.value, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(boxes(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.booleans())
def test_more_budget_is_never_worse_and_integers_never_better(box, one, other, integer):
    weights, lower, upper = box
    least, most = int(lower.sum()), int(upper.sum())
    small, large = sorted(least + share * (most - least) for share in (one, other))
    plans = [allocate_batches(weights, 1.0, budget, lower, upper, integer) for budget in (small, large)]
    assert plans[1].value <= plans[0].value * (1 + 1e-12)
    relaxed = allocate_batches(weights, 1.0, small, lower, upper, integer=False)
    assert relaxed.lower_bound <= plans[0].value * (1 + 1e-12)


def test_the_multiplier_is_the_price_of_the_budget():
    weights, cost = np.array([9.0, 4.0, 1.0]), np.array([1.0, 2.0, 0.5])
    values = [
        allocate_batches(weights, cost, budget, 0.1, 100.0, integer=False).value for budget in (10.0, 10.001)
    ]
    price = allocate_batches(weights, cost, 10.0, 0.1, 100.0, integer=False).multiplier
    assert price == pytest.approx((values[0] - values[1]) / 0.001, rel=1e-3)
    # Cauchy-Schwarz.
    assert values[0] == pytest.approx(np.sqrt(weights * cost).sum() ** 2 / 10.0, rel=1e-8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=6), st.integers(0, 30))
def test_ties_and_small_weights_change_nothing(exponents, extra):
    """Powers of four tie often; scaling by a power of two down to underflow keeps the batches."""
    weights = 4.0 ** np.array(exponents)
    budget = float(weights.size + extra)
    first = allocate_batches(weights, 1.0, budget, 1, 1000)
    for scale in (2.0**-900, 2.0**800):
        scaled = allocate_batches(weights * scale, 1.0, budget, 1, 1000)
        assert np.array_equal(scaled.batch_sizes, first.batch_sizes)


def test_degenerate_boxes():
    assert allocate_batches([3.0], 0.0, 0.0, 1, 7).batch_sizes.tolist() == [7]
    assert allocate_batches([0.0, 0.0], 1.0, 10.0, [1, 2], 9).batch_sizes.tolist() == [1, 2]
    assert allocate_batches([1.0, 2.0], 1.0, math.inf, 1, [4, 6]).batch_sizes.tolist() == [4, 6]
    exact = allocate_batches([1.0, 2.0], 1.0, 2.0, 1, [4, 6])
    assert (exact.batch_sizes.tolist(), exact.value, exact.lower_bound) == ([1, 1], 3.0, 3.0)
    fixed = allocate_batches([1.0, 2.0], [1.0, 3.0], 100.0, [2, 3], [2, 3])
    assert fixed.batch_sizes.tolist() == [2, 3]


def test_allocations_compare_by_value():
    plan = allocate_batches([9.0, 1.0], 1.0, 8.0, 1, 100)
    assert plan == allocate_batches([9.0, 1.0], 1.0, 8.0, 1, 100)
    assert plan != allocate_batches([9.0, 1.0], 1.0, 9.0, 1, 100)
    assert isinstance(plan, BatchAllocation)
    assert plan != 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1.0, -1.0]}, "weights[1] = -1.0: must be a finite number >= 0"),
        ({"weights": [math.nan, 1.0]}, "weights[0] = nan: must be a finite number >= 0"),
        ({"weights": [math.inf, 1.0]}, "weights[0] = inf: must be a finite number >= 0"),
        ({"weights": ["a", 1.0]}, "weights[0] = 'a': must be a number"),
        ({"sample_cost": [1.0, -2.0]}, "sample_cost[1] = -2.0: must be a finite number >= 0"),
        (
            {"sample_cost": [1.0, 1.0, 1.0]},
            "sample_cost has shape (3,): must be a scalar or have shape (2,), one entry a device",
        ),
        ({"budget": -1.0}, "budget = -1.0: must be a number >= 0"),
        ({"budget": math.nan}, "budget = nan: must be a number >= 0"),
        ({"budget": "5"}, "budget = '5': must be a number >= 0"),
        ({"lower": 0}, "lower = 0: must be an integer >= 1"),
        ({"lower": [1, 1.5]}, "lower[1] = 1.5: must be an integer >= 1"),
        ({"upper": [2, math.nan]}, "upper[1] = nan: must be an integer >= 1"),
        ({"lower": [1, 5], "upper": 4}, "upper[1] = 4: must be at least lower[1] = 5"),
        ({"lower": 0.0, "integer": False}, "lower = 0.0: must be a finite number > 0"),
        ({"upper": math.inf, "integer": False}, "upper = inf: must be a finite number > 0"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {"weights": [9.0, 1.0], "sample_cost": 1.0, "budget": 8.0, "lower": 1, "upper": 100}
    with pytest.raises(InvalidProblemError) as caught:
        allocate_batches(**{**arguments, **changes})
    assert str(caught.value) == message


def test_no_devices_are_refused():
    with pytest.raises(InvalidProblemError, match="weights is empty"):
        allocate_batches([], 1.0, 8.0, 1, 100)


@pytest.mark.parametrize("integer", [True, False])
def test_a_budget_below_the_smallest_batches_is_infeasible(integer):
    with pytest.raises(InfeasibleError, match=r"budget = 4\.9 is below 5\.0") as caught:
        allocate_batches([9.0, 1.0], [1.0, 2.0], 4.9, [1, 2], 9, integer)
    assert caught.value.binding == "cost"
    assert caught.value.smallest_cost == 5.0
    assert allocate_batches([9.0, 1.0], [1.0, 2.0], 5.0, [1, 2], 9, integer).value == pytest.approx(
        9.5, rel=1e-8
    )


def test_a_budget_that_just_pays_the_smallest_batches_leaves_free_devices_free():
    found = relax(np.array([1.0, 4.0, 0.0]), np.array([0.0, 1.0, 1.0]), 2.0, np.ones(3), np.full(3, 9.0))
    assert found.batch_sizes.tolist() == [9.0, 1.0, 1.0]
    assert 0.0 < found.multiplier < math.inf
    assert found.value <= 1.0 / 9.0 + 4.0 + 1e-12
