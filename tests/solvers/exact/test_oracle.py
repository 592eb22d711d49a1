"""Passes; rows hold everywhere; a sample changes the way, not the result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    NonConvex,
    Problem,
    solve_allocation,
)
from coopt.problem import limits
from coopt.solvers import fleet_passes as passes
from coopt.solvers.exact import box_search as exact
from coopt.solvers.exact.choose_inner import inner_of, oracle_of
from coopt.solvers.fleet_passes import DeviceColumns, water_level
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_units.batches import relax, round_batches
from problems import feasible_pairs, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


bounds = st.sampled_from([Certified(1, 1), Dynamite(), NonConvex(0.5, 0.4)])


def random_devices(seed: int, size: int, shape: str) -> DeviceColumns:
    """Devices of every kind: with scalars, multiples, populations, infinite speed and no noise."""
    rng = np.random.default_rng(seed)
    upper = rng.integers(4, 2000, size).astype(float)
    plain = shape == "plain"
    return DeviceColumns(
        first=rng.lognormal(0, 1, size) * rng.integers(0, 2, size)
        if not plain
        else rng.lognormal(0, 1, size),
        second=rng.lognormal(0, 1, size),
        cost=np.ones(1) if plain else rng.choice([0.0, 0.5, 2.0], size),
        lower=np.ones(1) if plain else np.minimum(rng.integers(1, 3, size) * 2.0, upper),
        upper=upper,
        multiple=np.ones(1, dtype=np.int64) if plain else rng.choice([1, 2], size),
        population=np.empty(0, dtype=np.int64) if plain else upper.astype(np.int64),
        throughput=np.full(1, math.inf) if plain else rng.choice([1.0, 30.0, math.inf], size),
        round_time=np.zeros(1) if plain else rng.choice([0.0, 0.5, 4.0], size),
        step_time=np.zeros(1) if plain else rng.choice([0.0, 0.2], size),
        part=np.full(1, math.inf),
        part_throughput=np.full(1, math.inf),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 300), share=st.floats(0.001, 1.2))
def test_the_level_spends_the_budget_as_the_relaxation_does(seed, size, share):
    devices = random_devices(seed, size, "plain")
    spend = size + share * (float(devices.upper.sum()) - size)
    out = np.empty(size)
    level, price, sums = water_level(devices, (0.5, 0.5), spend, None, 1.0, 0.0)
    passes.dual(devices, (0.5, 0.5), level, price, None, out)
    weights = 0.5 * devices.first + 0.5 * devices.second
    best = relax(weights, np.ones(size), spend, np.ones(size), devices.upper)
    np.testing.assert_allclose(out, best.batch_sizes, rtol=1e-12)
    assert sums.value == pytest.approx(float(np.sum(weights / best.batch_sizes)), rel=1e-12)


any_costs = st.booleans().flatmap(problems)


def streamed(problem, bound):
    try:
        ranges = feasible_ranges(problem.plain, None, None)
    except InfeasibleError:
        assume(False)
    form = bound.monotone_form(problem)
    corner = ranges.rounds[0], ranges.local_steps[0]
    return oracle_of(problem.plain, form, inner_of(problem.plain, form), corner), ranges


@settings(max_examples=40, deadline=None)
@given(problem=any_costs, bound=bounds, angle=st.floats(0.0, 1.0))
def test_whole_batches_equal_those_of_the_batch_solver(problem, bound, angle):
    inner, ranges = streamed(problem, bound)
    fleet = problem.plain.fleet
    lower, upper = fleet.batch_range()
    first, *second = inner.devices.first, inner.devices.second
    weights = first / (inner.norms[0] or 1.0)
    if inner.terms == 2:
        weights = (1.0 - angle) * weights + angle * second[0] / (inner.norms[1] or 1.0)
    unit_cost = fleet.unit_cost
    for rounds, steps in feasible_pairs(problem, ranges):
        whole = inner.whole(rounds, steps, angle, cutoff=math.inf)
        caps = limits.largest_batches(problem.plain, rounds, steps, upper)
        spend = limits.step_budget(problem.plain, rounds, steps)
        expected = round_batches(
            weights,
            fleet.sample_cost,
            spend,
            lower,
            caps,
            relax(weights, fleet.sample_cost, spend, lower, caps).multiplier,
            None if unit_cost is None else limits.step_units(problem.plain, rounds, steps, unit_cost),
            fleet.batch_multiple,
            inner.form.population,
            cutoff=math.inf,
        )
        assert whole.closed
        assert whole.level == pytest.approx(expected.value, rel=1e-12, abs=1e-300)
        assert not limits.violations(problem.plain, rounds, steps, whole.batch_sizes.astype(float))


@settings(max_examples=25, deadline=None)
@given(problem=any_costs, bound=bounds, angle=st.floats(0.0, 1.0), data=st.data())
def test_a_row_holds_for_every_rounds_and_steps(problem, bound, angle, data):
    inner, ranges = streamed(problem, bound)
    every = list(feasible_pairs(problem, ranges))
    row = inner.row(*data.draw(st.sampled_from(every)), angle)
    for rounds, steps in every:
        claim = row.constant - row.slope / (rounds * steps) + row.rise / steps
        best = inner.whole(rounds, steps, angle, cutoff=math.inf).level
        assert claim <= best * (1.0 + 1e-12) + 1e-12


@settings(max_examples=25, deadline=None)
@given(problem=any_costs, bound=bounds, angle=st.floats(0.0, 1.0), data=st.data())
def test_whole_batches_bound_those_of_more_rounds_and_steps(problem, bound, angle, data):
    """And by more where a step may use fewer units."""
    inner, ranges = streamed(problem, bound)
    every = list(feasible_pairs(problem, ranges))
    first = data.draw(st.sampled_from(every))
    found = inner.whole(*first, angle)
    assert found.level <= inner.whole(*first, angle, cutoff=math.inf).level * (1.0 + 1e-12) + 1e-300
    for rounds, steps in every:
        if rounds >= first[0] and steps >= first[1]:
            units = inner.most_units(np.array([float(rounds)]), np.array([float(steps)]))[0]
            claim = found.level + found.price * max(found.units - units, 0.0)
            best = inner.whole(rounds, steps, angle, cutoff=math.inf).level
            assert claim <= best * (1.0 + 1e-11) + 1e-12


@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_no_weight_is_negative_between_the_ends(problem):
    inner, _ = streamed(problem, Certified(1, 1))
    scales = np.where(inner.norms > 0.0, inner.norms, 1.0)
    for angle in inner.ends:
        weights = (1.0 - angle) * inner.devices.first / scales[0] + angle * inner.devices.second / scales[1]
        assert weights.min() >= -1e-15


@pytest.mark.parametrize("bound", [Certified(1, 1), Dynamite(), Certified()])
def test_a_sample_changes_the_way_and_not_the_answer(bound, monkeypatch):
    rng = np.random.default_rng(5)
    size = 3000
    problem = Problem(
        Fleet(
            samples=rng.integers(50, 2000, size),
            gradient_noise=rng.lognormal(1, 1, size),
            divergence=rng.uniform(0.01, 0.2, size),
            throughput=rng.lognormal(4, 1, size),
            round_time=rng.uniform(0.1, 2, size),
        ),
        Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0),
        Budget(cost=4000 * size, time=2000, round_cost=200 * size),
    )
    whole = solve_allocation(problem, bound=bound)
    monkeypatch.setattr(exact, "SAMPLED_FROM", 1000)
    monkeypatch.setattr(exact, "SAMPLE", 100)
    sampled = solve_allocation(problem, bound=bound)
    assert (sampled.rounds, sampled.local_steps) == (whole.rounds, whole.local_steps)
    assert np.array_equal(sampled.batch_sizes, whole.batch_sizes)
    assert sampled.gap <= 2e-12 and whole.gap <= 2e-12
