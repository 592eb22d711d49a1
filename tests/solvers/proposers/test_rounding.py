"""Rounding next to continuous batches: against every choice of neighbours."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest

from coopt.solvers.proposers.rounding import meets, next_to
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole_batches import rounds_near, whole_batches
from fleets import random_problem


def _best_neighbours(problem, rule, batches, weights, rounds, local_steps):
    down = np.maximum(np.floor(batches).astype(int), 1)
    best, chosen = np.inf, None
    for up in itertools.product((0, 1), repeat=down.size):
        whole = down + np.array(up)
        if problem.violations(rounds, local_steps, whole) or not meets(rule, whole):
            continue
        value = float(np.sum(weights / whole))
        if value < best:
            best, chosen = value, whole
    return best, chosen


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("rule", "exact"),
    [
        (lambda s: [cp.sum(s[:2]) <= 9], True),
        (lambda s: [s >= 0.3 * cp.sum(s) / s.shape[0]], True),
        (lambda s: [cp.sum_squares(s) <= 900], False),
    ],
)
def test_neighbours_are_the_best_there_are(rule, exact, seed):
    problem = random_problem(seed, equal_costs=seed % 2 == 0)
    weights = problem.fleet.weights**2 * problem.fleet.gradient_noise
    rng = np.random.default_rng(seed)
    batches = rng.uniform(2.0, 6.0, len(problem.fleet))
    batches[:2] *= 8.0 / batches[:2].sum()
    rounds, local_steps = 20, 2
    best, chosen = _best_neighbours(problem, rule, batches, weights, rounds, local_steps)
    found = next_to(problem, rule, batches, weights, rounds, local_steps)
    if chosen is None:
        assert found is None
        return
    assert found is not None
    assert meets(rule, found)
    assert problem.violations(rounds, local_steps, found) == ()
    value = float(np.sum(weights / found))
    assert value >= best * (1 - 1e-12)
    # An integer program where constraints are linear; where they curve, the greedy choice is close.
    assert value <= best * (1 + (1e-5 if exact else 0.2))


def test_meets_allows_rounding_only():
    batches = np.array([3, 7, 11])
    assert meets(lambda s: [0.1 * cp.sum(s) <= 2.1], batches)
    assert not meets(lambda s: [0.1 * cp.sum(s) <= 2.1 - 1e-6], batches)
    assert not meets(lambda s: [s[0] == s[1]], batches)


@pytest.mark.parametrize("seed", range(6))
def test_whole_batches_are_the_best_for_equal_costs(seed):
    """Moving a sample from one device to another never helps: enough for a separable convex sum."""
    problem = random_problem(seed)
    fleet = problem.fleet
    rounds = int(problem.budget.cost // (3 * len(fleet) * 2))
    weights = fleet.weights**2 * fleet.gradient_noise
    found = whole_batches(problem, weights, rounds, 2)
    assert problem.violations(rounds, 2, found.batch_sizes) == ()
    assert found.value == pytest.approx(found.lower_bound, rel=1e-12)
    batches = found.batch_sizes
    for i, j in itertools.permutations(range(len(fleet)), 2):
        moved = batches.copy()
        moved[i] -= 1
        moved[j] += 1
        if moved[i] >= 1 and moved[j] <= fleet.max_batch[j]:
            assert float(np.sum(weights / moved)) >= found.value * (1 - 1e-12)


@pytest.mark.parametrize("rounds", [0.4, 12.3, 40.0, 1e6])
def test_rounds_near_are_feasible_and_hold_the_neighbours(rounds):
    problem = random_problem(3, round_cost=40.0)
    ranges = feasible_ranges(problem, None, None)
    most = ranges.most_rounds(2)
    near = rounds_near(problem, ranges, rounds, 2)
    assert near == sorted(set(near))
    assert near[0] >= 1 and near[-1] <= most
    for neighbour in (int(rounds), int(rounds) + 1):
        assert min(max(neighbour, 1), most) in near
