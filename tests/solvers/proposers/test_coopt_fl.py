"""CoOptFL as published: its split is proportional, keeps every limit, and never beats the optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import InfeasibleError, InvalidProblemError, SolverError, evaluate, solve_allocation
from coopt.solvers.proposers.coopt_fl import no_straggler_split, proportional_split, uniform_split
from fleets import BOUNDS, problems, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


@settings(max_examples=12, deadline=None)
@given(problem=problems, name=st.sampled_from(BOUNDS))
def test_plan_is_feasible_certified_and_bounded(problem, name):
    plan = solve_allocation(problem, bound=name, solver="coopt-fl")
    plan.certify()
    assert plan.solver == "coopt-fl"
    optimum = solve_allocation(problem, bound=name, gap_tolerance=1e-2)
    assert optimum.lower_bound <= plan.error_bound * (1 + 1e-12)
    assert plan.lower_bound <= optimum.error_bound * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(problem=problems, rounds=st.integers(1, 20), local_steps=st.integers(1, 6))
def test_splits_keep_every_limit(problem, rounds, local_steps):
    lower, _ = problem.fleet.batch_range()
    feasible = not problem.violations(rounds, local_steps, lower)
    for split in (proportional_split, no_straggler_split, uniform_split):
        if feasible:
            batches = split(problem, rounds, local_steps)
            assert batches.dtype == np.int64
            assert problem.violations(rounds, local_steps, batches) == ()
        else:
            with pytest.raises(InfeasibleError):
                split(problem, rounds, local_steps)


def _published_split(shares, marginals, budget, caps):
    """The steps as published, one by one, for equal sample costs."""
    size = shares.size
    fixed = np.zeros(size, dtype=bool)
    batches = np.zeros(size)
    while True:
        left = budget - caps[fixed].sum()
        batches[~fixed] = left * shares[~fixed] / shares[~fixed].sum()
        over = ~fixed & (batches > caps)
        if not over.any():
            break
        batches[over] = caps[over]
        fixed |= over
        if fixed.all():
            break
    whole = np.floor(batches + 1e-9).astype(int)
    while whole.sum() < int(budget) and (whole < caps).any():
        gain = np.where(whole < caps, marginals / (np.maximum(whole, 0.5) * (whole + 1.0)), -1.0)
        whole[int(gain.argmax())] += 1
    return whole


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), time=st.sampled_from((np.inf, 300.0, 60.0)))
def test_split_is_the_published_one(seed, time):
    """Fix what is capped, split the rest again, then one sample at a time to the largest gain."""
    problem = random_problem(seed, time=time)
    fleet = problem.fleet
    rounds, local_steps = 10, 2
    caps = np.minimum(
        np.floor(fleet.throughput * (time * (1 + 1e-9) / rounds - fleet.round_time) / local_steps),
        fleet.samples,
    )
    budget = problem.budget.cost * (1 + 1e-9) / rounds / local_steps
    shares = fleet.weights * np.sqrt(fleet.gradient_noise)
    expected = _published_split(shares, shares**2, budget, caps)
    if expected.min() < 1:
        return  # the published steps know no smallest batch
    found = proportional_split(problem, rounds, local_steps)
    noise = fleet.weights**2 * fleet.gradient_noise
    # Ties may go to another device, at no difference in noise.
    assert float(np.sum(noise / found)) == pytest.approx(float(np.sum(noise / expected)), rel=1e-12)


def test_time_caps_shift_samples_to_the_others():
    problem = random_problem(5, time=60.0)
    free = proportional_split(replace(problem, budget=replace(problem.budget, time=np.inf)), 10, 2)
    capped = proportional_split(problem, 10, 2)
    assert capped.sum() == free.sum()
    slowed = capped < free
    assert slowed.any() and bool(np.all(capped[~slowed] > free[~slowed]))


def test_no_straggler_devices_compute_equally_long():
    problem = random_problem(6)
    batches = no_straggler_split(problem, 10, 1)
    within = batches < problem.fleet.samples
    seconds = (batches / problem.fleet.throughput)[within]
    assert np.ptp(seconds) <= 1.0 / problem.fleet.throughput.min()


def test_no_straggler_needs_a_finite_throughput():
    problem = random_problem(6)
    fast = replace(problem, fleet=replace(problem.fleet, throughput=np.full(len(problem.fleet), np.inf)))
    with pytest.raises(InvalidProblemError, match=r"throughput\[0\]"):
        no_straggler_split(fast, 10, 1)


def test_uniform_batches_are_equal_and_as_large_as_the_limits_allow():
    problem = random_problem(6)
    batches = uniform_split(problem, 20, 2)
    assert np.ptp(batches) == 0
    assert problem.violations(20, 2, batches + 1)


def test_equal_devices_get_equal_batches():
    problem = random_problem(6)
    size = len(problem.fleet)
    alike = replace(
        problem,
        fleet=replace(
            problem.fleet,
            samples=np.full(size, 500),
            max_batch=np.full(size, 500),
            weights=np.full(size, 1.0 / size),
            gradient_noise=np.full(size, 3.0),
        ),
    )
    assert np.ptp(proportional_split(alike, 10, 2)) <= 1


def test_best_rounds_are_no_worse_than_given_ones():
    problem = random_problem(9, round_cost=40.0)
    best = solve_allocation(problem, bound="dynamite", solver="coopt-fl")
    given_rounds = solve_allocation(problem, bound="dynamite", solver="coopt-fl", rounds=best.rounds)
    assert given_rounds.rounds == best.rounds
    assert given_rounds.error_bound == best.error_bound
    judged = evaluate(problem, best.rounds, best.local_steps, best.batch_sizes, bound="dynamite")
    assert judged.error_bound == pytest.approx(best.error_bound, rel=1e-12)


def test_a_cost_limit_is_needed():
    problem = random_problem(9, time=300.0)
    free = replace(problem, budget=replace(problem.budget, cost=np.inf))
    with pytest.raises(SolverError, match="cost budget"):
        solve_allocation(free, solver="coopt-fl")
