"""Devices left out: what it adds to the bound, and which are best left out."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Bound,
    Budget,
    Certified,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    NonConvex,
    Problem,
    Status,
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


def best_of_all(problem: Problem, most: int | None, bound: Bound) -> float:
    """The smallest error bound of every cohort, each solved on its own."""
    devices, best = range(len(problem.fleet)), math.inf
    for size in range(1, 1 + min(most or len(devices), len(devices))):
        for kept in itertools.combinations(devices, size):
            with contextlib.suppress(InfeasibleError):
                plan = solve_allocation(leave_out(problem, set(devices) - set(kept)), bound=bound)
                best = min(best, plan.error_bound)
    return best


@functools.cache
def best_of_seven(seed: int, most: int | None) -> float:
    return best_of_all(straggling(7, seed), most, Certified(1.0, 1.0))


def check_the_best(problem: Problem, most: int | None, bound: Bound, best: float | None = None) -> None:
    best = best_of_all(problem, most, bound) if best is None else best
    if best == math.inf:
        with pytest.raises(InfeasibleError):
            choose_cohort(problem, most, bound=bound)
        return
    plan = choose_cohort(problem, most, bound=bound).allocation
    assert plan.error_bound == pytest.approx(best, rel=2e-9)
    assert plan.lower_bound <= best * (1 + 1e-11) and plan.lower_bound <= plan.error_bound
    assert plan.gap <= 1.1e-9


@settings(max_examples=15, deadline=None)
@given(
    problem=st.one_of(problems(), problems(equal_costs=False)),
    bound=st.sampled_from(
        [Certified(), Certified(1.0, 1.0), Certified(0.3, 2.0), NonConvex(), NonConvex(0.5, 0.4)]
    ),
    most=st.sampled_from([None, 1, 2]),
)
def test_the_best_cohort_is_that_of_trying_all(problem, bound, most):
    check_the_best(problem, most, bound)


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("seed", range(2))
def test_the_best_of_seven_devices_is_that_of_trying_all(seed, most):
    check_the_best(straggling(7, seed), most, Certified(1.0, 1.0), best_of_seven(seed, most))


def test_energy_and_participants_limit_cohorts_too():
    problem = straggling(4, 2)
    hungry = replace(problem.fleet, sample_energy=0.01, round_energy=np.linspace(0.1, 2.0, 4))
    check_the_best(
        replace(problem, fleet=hungry, budget=replace(problem.budget, energy=300.0)),
        None,
        Certified(1.0, 1.0),
    )
    drawn = replace(problem, budget=replace(problem.budget, participants=2, cost=2e4))
    check_the_best(drawn, None, Certified(1.0, 1.0))


def test_as_many_devices_are_kept_as_are_drawn():
    """A cohort that is smaller than the number of distinct participants is no cohort, and raised an error."""
    problem = straggling(4, 0)
    fleet = replace(problem.fleet, weights=np.full(4, 0.25))
    budget = replace(problem.budget, participants=2, distinct_participants=True)
    found = choose_cohort(Problem(fleet, problem.constants, budget), bound=Certified(1.0, 1.0))
    assert len(found.devices) >= 2
    found.allocation.certify()


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_the_order_of_the_devices_does_not_matter(seed, data):
    problem = straggling(6, seed)
    order = data.draw(st.permutations(range(6)))
    shuffled = replace(problem, fleet=take(problem.fleet, order))
    first, second = (choose_cohort(each, 4, bound=Certified(1.0, 1.0)) for each in (problem, shuffled))
    assert second.allocation.error_bound == pytest.approx(first.allocation.error_bound, rel=3e-9)
    assert abs(second.allocation.lower_bound / first.allocation.lower_bound - 1.0) <= 3e-9


def test_a_time_limit_leaves_an_honest_gap():
    problem = straggling(7, 1)
    hurried = choose_cohort(problem, bound=Certified(1.0, 1.0), time_limit=0.0).allocation
    best = best_of_seven(1, None)
    assert 0.0 <= hurried.lower_bound <= best * (1 + 1e-11) and hurried.error_bound >= best * (1 - 1e-9)
    assert hurried.status is Status.TIME_LIMIT
    hurried.certify()


def take(fleet: Fleet, order: Sequence[int]) -> Fleet:
    columns = (
        *("samples", "gradient_noise", "divergence", "weights", "throughput"),
        *("round_time", "round_cost", "step_time", "step_cost", "step_energy"),
    )
    return Fleet(**{name: getattr(fleet, name)[list(order)] for name in columns})


def straggling(size: int, seed: int = 3) -> Problem:
    """Good devices, and two or three that hold next to nothing and take a minute a round."""
    problem = random_problem(seed, time=2000.0)
    fleet, constants = problem.fleet, problem.constants
    index = np.arange(size) % len(fleet)
    columns = {
        name: getattr(fleet, name)[index] * (1.0 + 0.01 * np.arange(size))
        for name in ("gradient_noise", "divergence", "throughput", "round_time")
    }
    samples = fleet.samples[index].copy()
    slow = columns["round_time"].copy()
    last = 3 if size > 6 else 2
    samples[-last:], slow[-last:] = 1, 60.0
    changed = Fleet(samples, **(columns | {"round_time": slow}))
    return Problem(changed, constants, Budget(cost=math.inf, time=2000.0, max_local_steps=20))


def test_stragglers_are_left_out_of_a_large_fleet():
    problem = straggling(14)
    found = choose_cohort(problem, bound=Certified(1.0, 1.0))
    assert not set(found.devices) & {11, 12, 13}
    everybody = solve_allocation(problem, bound=Certified(1.0, 1.0))
    assert found.allocation.error_bound < 0.5 * everybody.error_bound
    assert found.allocation.gap <= 1.1e-9 and found.allocation.status is Status.GAP_TOLERANCE
    assert found.allocation.trace["nodes"] > 0
    found.allocation.certify()
    few = choose_cohort(problem, 5, bound=Certified(1.0, 1.0))
    assert len(few.devices) <= 5 and few.allocation.error_bound >= found.allocation.error_bound * (1 - 2e-9)


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
