"""The contract of inner problems, kept by all three implementations: bounds hold, and whole batches fit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from coopt import Budget, Certified, Constants, Fleet, Problem
from coopt.objectives.monotone import inverse_batches
from coopt.problem import limits
from coopt.solvers.exact.choose_inner import inner_of
from coopt.solvers.exact.cost_and_energy import TwoLimits
from coopt.solvers.exact.inner import EqualCosts, UnequalCosts

CONSTANTS = Constants(
    learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0
)
EQUAL = Fleet(
    samples=[6, 5, 4],
    gradient_noise=[4.0, 2.0, 1.0],
    divergence=0.05,
    throughput=[40.0, 20.0, 80.0],
    round_time=0.5,
    sample_energy=[0.5, 2.0, 1.0],
)
UNEQUAL = replace(EQUAL, sample_cost=[1.0, 1.7, 0.6])
PROBLEMS = {
    EqualCosts: Problem(EQUAL, CONSTANTS, Budget(cost=100, time=20, round_cost=2)),
    UnequalCosts: Problem(UNEQUAL, CONSTANTS, Budget(cost=100, time=20, round_cost=2)),
    TwoLimits: Problem(UNEQUAL, CONSTANTS, Budget(cost=100, time=20, round_cost=2, energy=90)),
}
PLACES = list(itertools.product((2, 4, 7), (1, 2)))
both = pytest.mark.parametrize("kind", PROBLEMS)


def least_noise(problem: Problem, weights: np.ndarray, rounds: int, local_steps: int) -> float:
    """The smallest sum of weights over whole batches that fit, from all of them."""
    lower, upper = problem.fleet.batch_range()
    every = itertools.product(*(range(low, high + 1) for low, high in zip(lower, upper, strict=True)))
    return min(
        (
            float(np.sum(weights * inverse_batches(np.array(batches, dtype=float), None)))
            for batches in every
            if not problem.violations(rounds, local_steps, list(batches))
        ),
        default=math.inf,
    )


@both
def test_the_limits_choose_the_implementation(kind):
    problem = PROBLEMS[kind]
    inner = inner_of(problem, Certified(1, 1).monotone_form(problem))
    assert type(inner) is kind
    assert (inner.unit_cost is not None) == (kind is EqualCosts)


@both
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.0])
def test_whole_batches_fit_and_are_the_best(kind, angle):
    problem = PROBLEMS[kind]
    form = Certified(1, 1).monotone_form(problem)
    inner = inner_of(problem, form)
    for rounds, local_steps in PLACES:
        floor = form.floor(local_steps, np.zeros(1, dtype=np.intp))
        best = least_noise(problem, inner.weights(floor, angle), rounds, local_steps)
        if best == math.inf:
            continue
        found = inner.exact(floor, rounds, local_steps, angle, cutoff=math.inf)
        assert problem.violations(rounds, local_steps, found.batch_sizes) == ()
        assert found.value == pytest.approx(best, rel=1e-12)
        assert found.lower_bound == pytest.approx(best, rel=1e-11)
        rough = inner.exact(floor, rounds, local_steps, angle)
        assert rough.lower_bound <= best * (1.0 + 1e-12) <= rough.value * (1.0 + 2e-12)
    assert inner.solves > 0


@both
def test_a_cut_bounds_every_other_place(kind):
    problem = PROBLEMS[kind]
    form = Certified(1, 1).monotone_form(problem)
    inner = inner_of(problem, form)
    angles = np.array([0.0, 0.5, 1.0])
    floor = form.floor(1, np.zeros(1, dtype=np.intp))
    cut, multipliers = inner.cut(floor, 4, 1, angles, PLACES[0])
    assert len(multipliers) == angles.size
    for rounds, local_steps in PLACES:
        product, steps = np.full(3, 1.0 / (rounds * local_steps)), np.full(3, 1.0 / local_steps)
        for angle, bound in zip(angles.tolist(), cut.at(angles, product, steps).tolist(), strict=True):
            best = least_noise(problem, inner.weights(floor, angle), rounds, local_steps)
            assert bound <= best * (1.0 + 1e-12)


@both
def test_prices_bound_whole_batches(kind):
    problem = PROBLEMS[kind]
    form = Certified(1, 1).monotone_form(problem)
    inner, fleet = inner_of(problem, form), problem.fleet
    rounds, local_steps = 8, 1
    weights = inner.weights(form.floor(local_steps, np.zeros(1, dtype=np.intp)), 0.0)
    cost, energy = inner.prices(weights, rounds, local_steps)
    assert cost >= 0.0
    assert energy >= 0.0
    assert cost + energy > 0.0
    each = cost * fleet.sample_cost + energy * fleet.sample_energy
    dual = sum(
        min(weight / s + price * s for s in range(1, most + 1))
        for weight, price, most in zip(weights, each, fleet.samples, strict=True)
    )
    dual -= cost * limits.step_budget(problem, rounds, local_steps)
    if energy:
        dual -= energy * limits.step_energy_budget(problem, rounds, local_steps)
    best = least_noise(problem, weights, rounds, local_steps)
    assert 0.5 * best <= dual <= best * (1.0 + 1e-9)


@both
def test_only_equal_costs_have_a_curve_of_optima(kind):
    problem = PROBLEMS[kind]
    form = Certified(1, 1).monotone_form(problem)
    inner = inner_of(problem, form)
    floor, angles = form.floor(1, np.zeros(1, dtype=np.intp)), np.array([0.0, 1.0])
    curve = inner.curve(floor, (1, 1), (3, 12), angles, 0.1)
    assert (curve is not None) == (kind is EqualCosts)
    if curve is not None:
        lower, upper = problem.fleet.batch_range()
        ranges = [range(low, high + 1) for low, high in zip(lower, upper, strict=True)]
        for units in (3, 7, 12):
            levels = curve.at(angles, np.full(2, float(units)))
            for angle, level in zip(angles.tolist(), levels.tolist(), strict=True):
                weights = inner.weights(floor, angle)
                plans = (s for s in itertools.product(*ranges) if sum(s) <= units)
                best = min(float(np.sum(weights / np.array(s))) for s in plans)
                assert level == pytest.approx(best, rel=1e-12)
