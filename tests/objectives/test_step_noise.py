"""Noise that no batch removes: variance M_i / s_i + V_i in every bound, solver and certificate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from brute_force import optimum
from coopt import (
    Budget,
    Certified,
    Constants,
    Fleet,
    InvalidProblemError,
    NonConvex,
    Problem,
    Status,
    TradeOff,
    choose_cohort,
    evaluate,
    leave_out,
    solve_allocation,
)
from coopt.symbolic import from_sympy
from problems import MOST_ROUNDS, MOST_STEPS, family_bounds, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

CONSTANTS = Constants(
    learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
)


def noisy(problem: Problem, seed: int) -> Problem:
    """The same with step noise on some of its devices, about as much as a batch of three leaves."""
    rng = np.random.default_rng(seed)
    fleet = problem.fleet
    amounts = fleet.gradient_noise * rng.choice([0.0, 0.3, 2.0], len(fleet))
    return replace(problem, fleet=replace(fleet, step_noise=amounts))


def moved(problem: Problem, batch_sizes: np.ndarray) -> Problem:
    """Another fleet with the same variances at these batches: M_i + V_i s_i, and no step noise."""
    fleet = problem.fleet
    inverse = 1.0 / batch_sizes - (0.0 if fleet.replacement else 1.0 / fleet.samples)
    variance = fleet.gradient_noise * inverse + fleet.step_noise
    return replace(
        problem, fleet=replace(fleet, gradient_noise=variance * batch_sizes, step_noise=0.0, replacement=True)
    )


@given(
    problems(),
    st.one_of(numeric_bounds, family_bounds, st.sampled_from([TradeOff(), TradeOff(0.5, 1.0)])),
    st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=60)
def test_only_the_variances_count(problem, bound, seed):
    problem = noisy(problem, seed)
    batches = problem.fleet.batch_range()[0]
    other = moved(problem, batches)
    if isinstance(bound, TradeOff):
        # Its parameters follow the noise, which must be the same; nothing else is compared.
        assume(problem.fleet.step_noise.any() and not problem.budget.participants)
    try:
        value = bound.value(problem, 3, 2, batches)
    except InvalidProblemError:
        assume(False)
    assert value == pytest.approx(bound.value(other, 3, 2, batches), rel=1e-9)


@given(problems(), st.one_of(numeric_bounds, family_bounds), st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_no_plan_is_better_and_the_proof_holds(problem, bound, seed):
    problem = noisy(problem, seed)
    try:
        best = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    except InvalidProblemError:
        assume(False)
    assume(best is not None)
    allocation = solve_allocation(problem, bound=bound)
    assert allocation.error_bound == pytest.approx(best, rel=1e-9, abs=1e-300)
    assert allocation.lower_bound <= best * (1 + 1e-12)
    allocation.certify()


def test_a_deep_proof_covers_it():
    fleet = Fleet([60, 40, 20], [4.0, 2.0, 1.0], 0.1, step_noise=[0.0, 0.5, 1.0])
    problem = Problem(fleet, CONSTANTS, Budget(cost=4000, round_cost=5))
    for bound in (Certified(), NonConvex(1, 1), "dynamite"):
        allocation = solve_allocation(problem, bound=bound)
        assert allocation.status is Status.OPTIMAL
        proof = allocation.certify(deep=True).proof
        assert proof is not None


@pytest.mark.parametrize("solver", ["cvxpy", "closed-form", "coopt-fl"])
def test_the_other_solvers_reckon_with_it(solver):
    fleet = Fleet([600, 400, 200], [4.0, 2.0, 1.0], 0.1, step_noise=[0.0, 0.02, 0.05])
    problem = Problem(fleet, CONSTANTS, Budget(cost=40_000, round_cost=50))
    bound = Certified(1, 1) if solver != "coopt-fl" else "dynamite"
    exact = solve_allocation(problem, bound=bound)
    found = solve_allocation(problem, bound=bound, solver=solver)
    assert exact.error_bound <= found.error_bound <= exact.error_bound * 1.05
    found.certify()


def test_more_noise_is_never_better():
    fleet = Fleet([600, 400], 4.0, 0.1)
    budget = Budget(cost=20_000, round_cost=50)
    values = [
        solve_allocation(Problem(replace(fleet, step_noise=v), CONSTANTS, budget)).error_bound
        for v in (0.0, 0.001, 0.01, 0.1, 1.0)
    ]
    assert values == sorted(values) and values[0] < values[-1]


def test_many_small_steps_average_it():
    """No batch removes it, but every step draws it anew: a smaller rate, more steps and smaller batches."""
    fleet = Fleet([2000] * 10, 4.0, 0.1)
    budget = Budget(cost=20_000, round_cost=100)
    quiet, loud = (
        solve_allocation(
            Problem(replace(fleet, step_noise=amount), CONSTANTS, budget),
            bound=Certified(1, 1),
            learning_rate="auto",
            gap_tolerance=5e-2,
        )
        for amount in (0.0, 4.0)
    )
    assert loud.learning_rate < quiet.learning_rate / 10
    assert loud.rounds * loud.local_steps > 10 * quiet.rounds * quiet.local_steps
    assert loud.batch_sizes.max() < quiet.batch_sizes.min()


def test_the_parts_say_that_it_is_noise():
    problem = Problem(Fleet([60, 40], 0.0, 0.0, step_noise=0.3), CONSTANTS, Budget())
    parts = Certified(1, 1).parts(problem, 10, 1, [5, 5])
    assert parts.noise > 0.0 and parts.drift == 0.0


@pytest.mark.parametrize("participants", [None, 1])
def test_the_best_learning_rate_is_found(participants):
    fleet = Fleet([60, 40, 20], [4.0, 2.0, 1.0], 0.1, step_noise=[0.1, 0.5, 1.0])
    problem = Problem(
        fleet, CONSTANTS, Budget(cost=600, max_rounds=20, max_local_steps=4, participants=participants)
    )
    found = solve_allocation(problem, bound=Certified(1, 1), learning_rate="auto", gap_tolerance=1e-3)
    grid = [
        solve_allocation(problem, bound=Certified(1, 1), learning_rate=float(rate)).error_bound
        for rate in np.geomspace(1e-3, 0.999, 25)
    ]
    assert found.lower_bound <= min(grid)
    assert found.error_bound <= min(grid) * (1 + 1e-3)


def test_cohorts_keep_it():
    fleet = Fleet([60, 40, 20], [4.0, 2.0, 1.0], 0.1, step_noise=[0.1, 0.5, 50.0])
    problem = Problem(fleet, CONSTANTS, Budget(cost=6000, round_cost=5))
    kept = leave_out(problem, [2])
    assert kept.fleet.step_noise.tolist() == [0.1, 0.5]
    cohort = choose_cohort(problem, bound=Certified(1, 1))
    everyone = solve_allocation(problem, bound=Certified(1, 1)).error_bound
    assert cohort.allocation.error_bound <= everyone


def test_formulas_have_it_in_their_sums_and_never_drop_it():
    i, size = sp.symbols("i N", integer=True, positive=True)
    p, noise, step, s = (sp.IndexedBase(name) for name in ("p", "M", "V", "s"))
    rounds, tau, eta, beta, gap, sigma2 = sp.symbols("K tau eta beta D_0 sigma2", positive=True)
    problem = Problem(Fleet([60, 40], 4.0, 0.1, step_noise=[0.3, 0.1]), CONSTANTS, Budget(cost=2000))
    transient = 2 * gap / (eta * rounds * tau)
    short = from_sympy(transient + beta * eta * sigma2, name="short")
    long = from_sympy(
        transient + beta * eta * sp.Sum(p[i] ** 2 * (noise[i] / s[i] + step[i]), (i, 1, size)), name="long"
    )
    plan = problem, 10, 2, [4, 8]
    expected = 2 * 2.0 / (0.1 * 20) + 0.1 * (0.36 * (1.0 + 0.3) + 0.16 * (0.5 + 0.1))
    assert short.value(*plan) == pytest.approx(expected) == pytest.approx(long.value(*plan))
    assert solve_allocation(problem, bound=short).error_bound == pytest.approx(
        solve_allocation(problem, bound=long).error_bound
    )
    without = from_sympy(
        transient + beta * eta * sp.Sum(p[i] ** 2 * noise[i] / s[i], (i, 1, size)), name="old"
    )
    with pytest.raises(InvalidProblemError, match=r"step_noise is set: the formula has M\[i\]/s\[i\]"):
        without.value(*plan)


def test_a_negative_amount_is_named():
    with pytest.raises(InvalidProblemError, match=r"step_noise\[1\] = -1.0: must be"):
        Fleet([60, 40], 4.0, 0.1, step_noise=[0.0, -1.0])


def test_noise_of_each_batch_is_found_by_repeating():
    """Noise of a batch as a whole has variance R/s^2 in the mean: M + R/s at the batches of the last plan."""
    repeated = 1000.0
    budget = Budget(cost=4e6, time=3600)

    def problem(batch_sizes, lowest=1):
        noise = 4.0 + (repeated / np.asarray(batch_sizes, float) if np.size(batch_sizes) else 0.0)
        return Problem(
            Fleet([2000] * 10, noise, 0.1, throughput=200.0, round_time=1.0, min_batch=lowest),
            CONSTANTS,
            budget,
        )

    def truth(plan):
        return evaluate(
            problem(plan.batch_sizes), plan.rounds, plan.local_steps, plan.batch_sizes
        ).error_bound

    ignored = solve_allocation(problem([]))
    plan = ignored
    for _ in range(20):
        plan, last = solve_allocation(problem(plan.batch_sizes)), plan
        if np.array_equal(plan.batch_sizes, last.batch_sizes):
            break
    best = min(
        truth(solve_allocation(problem([lowest] * 10, lowest)))
        for lowest in (1, 8, 32, 64, 128, 256, 512, 1024)
    )
    assert round(ignored.error_bound, 4) == 0.0006 and round(truth(ignored), 4) == 0.0010
    assert truth(plan) <= 1.01 * best
