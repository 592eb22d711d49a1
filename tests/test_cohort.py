"""Devices left out: what it adds to the bound, and which are best left out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Certified,
    InfeasibleError,
    InvalidProblemError,
    NonConvex,
    Problem,
    choose_cohort,
    evaluate,
    leave_out,
    solve_allocation,
)
from fleets import random_problem
from problems import problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def biased(problem: Problem, bias: float | None) -> Problem:
    return replace(problem, constants=replace(problem.constants, gradient_bias=bias))


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(most_samples=30),
    bound=st.sampled_from([Certified(), NonConvex(), Certified(1.0, 1.0)]),
    tau=st.integers(1, 9),
    bias=st.floats(1e-6, 10.0),
)
def test_bias_never_helps_and_none_is_none(problem, bound, tau, bias):
    batches = problem.fleet.batch_range()[0]
    values = [bound.value(biased(problem, b), 5, tau, batches) for b in (None, 0.0, bias / 2, bias)]
    assert values[0] == values[1]
    assert values[1] <= values[2] * (1 + 1e-12) and values[2] <= values[3] * (1 + 1e-12)
    form = bound.monotone_form(biased(problem, bias))
    everyone = np.arange(len(form.members))
    for less, more in itertools.pairwise([form.floor(t, everyone) for t in (1, 2, 3, 8, 9, 200)]):
        assert np.all(more.offsets >= less.offsets * (1 - 1e-13))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), out=st.sets(st.integers(0, 7), max_size=7))
def test_the_rest_keeps_its_share_and_the_bias_is_the_smaller_sum(seed, out):
    problem = random_problem(seed)
    fleet = problem.fleet
    out = {i for i in out if i < len(fleet)}
    kept = [i for i in range(len(fleet)) if i not in out]
    if not kept:
        with pytest.raises(InvalidProblemError, match="nobody of any weight"):
            leave_out(problem, out)
        return
    rest = leave_out(problem, out)
    share = math.fsum(fleet.weights[kept])
    assert rest.fleet.weights == pytest.approx(fleet.weights[kept] / share, rel=1e-12)
    assert rest.fleet.samples.tolist() == fleet.samples[kept].tolist()
    sums = [math.fsum((fleet.weights * fleet.divergence)[list(part)]) for part in (kept, out)]
    assert (rest.constants.gradient_bias or 0.0) == pytest.approx(min(sums) / share, rel=1e-12)
    if not out:
        assert rest == problem


def test_the_limit_on_the_bias_holds_for_gradients():
    """Random gradients at one model: the bias of any cohort is within what the divergences say."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        problem = random_problem(int(rng.integers(10**6)))
        size = len(problem.fleet)
        gradients = rng.normal(size=(size, 3)) * rng.uniform(0.1, 3.0, (size, 1))
        p = problem.fleet.weights
        divergence = np.linalg.norm(gradients - p @ gradients, axis=1)
        problem = replace(problem, fleet=replace(problem.fleet, divergence=divergence))
        out = rng.choice(size, size=int(rng.integers(0, size)), replace=False)
        rest = leave_out(problem, out)
        kept = np.setdiff1d(np.arange(size), out)
        bias = np.linalg.norm(rest.fleet.weights @ gradients[kept] - p @ gradients)
        assert bias <= (rest.constants.gradient_bias or 0.0) * (1 + 1e-9) + 1e-12


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.sampled_from([None, 2]))
def test_the_best_cohort_is_that_of_trying_all(seed, most):
    problem = random_problem(seed, time=300.0)
    small = range(min(len(problem.fleet), 4))
    fleet = leave_out(problem, [i for i in range(len(problem.fleet)) if i not in small]).fleet
    problem = replace(problem, fleet=replace(fleet, divergence=0.02 * fleet.divergence))
    bound = Certified(1.0, 1.0)
    plans = {}
    for size in range(1, 1 + min(most or len(fleet), len(fleet))):
        for kept in itertools.combinations(range(len(fleet)), size):
            try:
                rest = leave_out(problem, set(range(len(fleet))) - set(kept))
                plans[kept] = solve_allocation(rest, bound=bound)
            except InfeasibleError:
                continue
    best = min(plan.error_bound for plan in plans.values())
    found = choose_cohort(problem, most, bound=bound)
    assert found.allocation.error_bound == pytest.approx(best, rel=1e-8)
    assert found.allocation.lower_bound <= best * (1 + 1e-12)
    assert plans[found.devices].error_bound == pytest.approx(found.allocation.error_bound, rel=1e-11)
    assert found.allocation.gap <= 1e-8
    found.allocation.certify()


def straggling(size: int) -> Problem:
    """Many good devices and three that hold next to nothing and take a minute a round."""
    problem = random_problem(3, time=2000.0)
    fleet, constants = problem.fleet, problem.constants
    index = np.arange(size) % len(fleet)
    columns = {
        name: getattr(fleet, name)[index]
        for name in ("gradient_noise", "divergence", "throughput", "round_time")
    }
    samples = fleet.samples[index].copy()
    slow = columns["round_time"].copy()
    samples[-3:], slow[-3:] = 1, 60.0
    changed = type(fleet)(samples, **(columns | {"round_time": slow}))
    return Problem(changed, constants, Budget(cost=math.inf, time=2000.0, max_local_steps=20))


def test_stragglers_are_left_out_of_a_large_fleet():
    problem = straggling(14)
    found = choose_cohort(problem)
    assert not set(found.devices) & {11, 12, 13}
    everybody = solve_allocation(problem)
    assert found.allocation.error_bound < 0.5 * everybody.error_bound
    assert found.allocation.lower_bound == -math.inf and found.allocation.status.name == "HEURISTIC"
    found.allocation.certify()
    few = choose_cohort(problem, 5)
    assert len(few.devices) <= 5 and few.allocation.error_bound >= found.allocation.error_bound * (1 - 1e-3)


def test_what_cannot_be_left_out_is_said():
    problem = random_problem(0)
    for devices, message in (([99], "must be below"), ([-1], "must be an integer >= 0"), ([0.5], "integer")):
        with pytest.raises(InvalidProblemError, match=message):
            leave_out(problem, devices)
    with pytest.raises(InvalidProblemError, match="without one"):
        leave_out(biased(problem, 0.1), [0])
    with pytest.raises(InvalidProblemError, match="must be 'certified' or 'nonconvex'"):
        choose_cohort(problem, bound="dynamite")
    with pytest.raises(InvalidProblemError, match="most = 0"):
        choose_cohort(problem, 0)
    with pytest.raises(InfeasibleError):
        choose_cohort(replace(problem, budget=replace(problem.budget, cost=1e-3)))


@pytest.mark.parametrize("bound", ["dynamite", "adacoopt", "tradeoff(gamma=1, ratio=1)"])
def test_bounds_for_unbiased_gradients_say_so(bound):
    problem = biased(random_problem(0), 0.1)
    with pytest.raises(InvalidProblemError, match="unbiased gradients"):
        evaluate(problem, 2, 2, problem.fleet.batch_range()[0], bound)
    with pytest.raises(InvalidProblemError, match="learning rate in numbers"):
        solve_allocation(problem, learning_rate="auto")
