"""The front door: which arguments it takes, which plans it judges, and what it does with any fleet."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brute_force import optimum
from coopt import (
    AdaCoOpt,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    InvalidProblemError,
    NonConvex,
    Problem,
    SolverError,
    Status,
    evaluate,
    solve_allocation,
)
from coopt.solvers import exhaustive
from fleets import random_problem
from problems import MOST_ROUNDS, MOST_STEPS, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")

ALL = ["certified", "dynamite", "adacoopt", "nonconvex"]
CONSTANTS = Constants(
    learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0, lipschitz=0.2
)


def problem_of(budget: Budget | None = None, **fleet) -> Problem:
    fields = {"samples": [60, 20, 30], "gradient_noise": [4.0, 1.0, 2.0], "divergence": 0.05, **fleet}
    return Problem(
        Fleet(**fields), CONSTANTS, budget or Budget(cost=3000.0, round_cost=5.0, max_local_steps=20)
    )


# Arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": 7}, "bound = 7: must be a name or an object with the methods of coopt.Bound"),
        (
            {"bound": SimpleNamespace(forecast=2)},
            (
                "bound = namespace(forecast=2): must be a name or an object with the methods of coopt.Bound; "
                "that of a measurement is measurement.forecast()"
            ),
        ),
        (
            {"solver": "exakt"},
            "solver = 'exakt': must be one of 'auto', 'exact', 'closed-form', 'cvxpy', 'coopt-fl'",
        ),
        ({"objective": "accuracy"}, "objective = 'accuracy': must be one of 'error', 'cost', 'time'"),
        ({"objective": "cost"}, "target_error is missing: the objective 'cost' needs the error to reach"),
        ({"target_error": 0.1}, "target_error = 0.1: needs the objective 'cost' or 'time'"),
        (
            {"objective": "time", "target_error": -0.1},
            "target_error = -0.1: must be a finite number >= 0",
        ),
        ({"rounds": 0}, "rounds = 0: must be an integer >= 1"),
        ({"rounds": 2.5}, "rounds = 2.5: must be an integer >= 1"),
        ({"rounds": "7"}, "rounds = '7': must be an integer >= 1"),
        ({"local_steps": -1}, "local_steps = -1: must be an integer >= 1"),
        ({"local_steps": True}, "local_steps = True: must be an integer >= 1"),
        ({"gap_tolerance": -1e-3}, "gap_tolerance = -0.001: must be a finite number >= 0"),
        ({"gap_tolerance": math.nan}, "gap_tolerance = nan: must be a finite number >= 0"),
        ({"time_limit": -1}, "time_limit = -1.0: must be a number >= 0"),
        ({"time_limit": "1 s"}, "time_limit = '1 s': must be a number >= 0"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_valid(options, message):
    with pytest.raises(InvalidProblemError) as caught:
        solve_allocation(problem_of(), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("call", [solve_allocation, lambda thing: evaluate(thing, 1, 1, 1)])
def test_what_is_no_problem_is_refused(call):
    with pytest.raises(InvalidProblemError, match=r"problem = 5: must be a coopt\.Problem"):
        call(5)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((0, 1, 1), "rounds = 0: must be an integer >= 1"),
        ((1.5, 1, 1), "rounds = 1.5: must be an integer >= 1"),
        ((1, math.nan, 1), "local_steps = nan: must be an integer >= 1"),
        ((1, 1, 0), "batch_sizes = 0: must be an integer >= 1"),
        ((1, 1, [1, 2.5, 1]), "batch_sizes[1] = 2.5: must be an integer >= 1"),
        ((1, 1, [1, 1, "2"]), "batch_sizes[0] = '1': must be a number"),
        (
            (1, 1, [1, 2]),
            "batch_sizes has shape (2,): must be a scalar or have shape (3,), one entry a device",
        ),
    ],
)
def test_a_wrong_plan_is_named(plan, message):
    with pytest.raises(InvalidProblemError) as caught:
        evaluate(problem_of(), *plan)
    assert str(caught.value) == message


# Other people's plans -------------------------------------------------------------------------------


def test_an_infeasible_plan_is_refused_with_every_limit_it_breaks():
    budget = Budget(cost=100, time=10, max_rounds=2, max_local_steps=2)
    problem = problem_of(budget, throughput=[10.0, 1.0, 100.0], batch_multiple=[1, 2, 1])
    with pytest.raises(InfeasibleError) as caught:
        evaluate(problem, 3, 4, [17, 5, 31])
    assert str(caught.value) == (
        "the plan breaks max_rounds: 3 exceeds 2; max_local_steps: 4 exceeds 2; cost: 636 exceeds 100; "
        "time: 60 s exceeds 10 s (device 1); max_batch: 31 exceeds 30 (device 2); "
        "batch_multiple: 5 is not a multiple of 2 (device 1)"
    )
    assert caught.value.binding == "max_rounds"


@settings(max_examples=60, deadline=None)
@given(problem=problems(equal_costs=False), bound=numeric_bounds, data=st.data())
def test_evaluate_judges_every_feasible_plan_and_no_other(problem, bound, data):
    fleet = problem.fleet
    rounds, steps = data.draw(st.integers(1, MOST_ROUNDS)), data.draw(st.integers(1, MOST_STEPS))
    batches = data.draw(st.tuples(*(st.integers(1, int(most)) for most in fleet.max_batch)))
    if problem.violations(rounds, steps, batches):
        with pytest.raises(InfeasibleError, match="the plan breaks"):
            evaluate(problem, rounds, steps, batches, bound)
        return
    plan = evaluate(problem, rounds, steps, batches, bound)
    plan.certify()
    assert plan.error_bound == pytest.approx(bound.value(problem, rounds, steps, batches), rel=1e-12)
    assert (plan.status, plan.lower_bound, plan.solver) == (Status.EVALUATED, -math.inf, "evaluate")
    best = solve_allocation(problem, bound=bound)
    assert best.lower_bound <= plan.error_bound * (1 + 1e-12)


def test_the_plan_of_a_solver_evaluates_to_itself():
    for bound in ALL:
        best = solve_allocation(problem_of(), bound=bound)
        judged = evaluate(problem_of(), best.rounds, best.local_steps, best.batch_sizes, bound)
        assert judged.error_bound == pytest.approx(best.error_bound, rel=1e-13)
        assert judged.bound == best.bound
        assert (judged.cost, judged.time, judged.binding) == (best.cost, best.time, best.binding)


def test_a_given_array_is_not_kept():
    batches = np.array([5, 5, 5])
    plan = evaluate(problem_of(), 2, 2, batches)
    batches[0] = 9
    assert plan.batch_sizes.tolist() == [5, 5, 5]


# Bounds of one's own --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """Another bound without its monotone form."""

    inner: object
    name: str = "plain"

    def coefficients(self, problem, rounds, local_steps):
        return self.inner.coefficients(problem, rounds, local_steps)

    def value(self, problem, rounds, local_steps, batch_sizes):
        offset, weights = self.coefficients(problem, rounds, local_steps)
        return offset + float(np.sum(weights / np.asarray(batch_sizes)))

    def members(self):
        return (self,)


@settings(max_examples=40, deadline=None)
@given(
    problem=st.one_of(problems(), problems(equal_costs=False)),
    bound=st.sampled_from([Certified(1, 1), Dynamite(), AdaCoOpt(), NonConvex(1, 1)]),
)
def test_a_bound_without_a_monotone_form_is_tried_everywhere(problem, bound):
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    if expected is None:
        with pytest.raises(InfeasibleError):
            solve_allocation(problem, bound=Plain(bound))
        return
    found = solve_allocation(problem, bound=Plain(bound))
    found.certify()
    # Without replacement the offset of the coefficients cancels digits of the noise.
    offset, _ = bound.coefficients(problem, found.rounds, found.local_steps)
    assert found.error_bound == pytest.approx(expected, rel=1e-11, abs=1e-13 * (abs(offset) + expected))
    assert found.lower_bound >= found.error_bound - 2e-12 * (abs(offset) + expected)
    assert found.solver == "exhaustive"
    assert found.bound == "plain"


class Descending(Plain):
    """Better with more local steps: nothing that the library assumes of bounds with a monotone form."""

    def coefficients(self, problem, rounds, local_steps):
        return 1.0 / local_steps + 0.1 * (rounds - 3) ** 2, problem.fleet.weights

    def __init__(self) -> None:
        super().__init__(None, "descending")


def test_any_shape_in_rounds_and_steps_is_minimised():
    found = solve_allocation(problem_of(Budget(max_rounds=30, max_local_steps=9)), bound=Descending())
    assert (found.rounds, found.local_steps) == (3, 9)
    assert found.batch_sizes.tolist() == [60, 20, 30]
    assert found.gap == 0.0
    assert found.parts is None


def test_too_many_pairs_are_refused_with_the_remedy():
    side = math.isqrt(exhaustive.MOST_PAIRS)
    problem = problem_of(Budget(max_rounds=side + 1, max_local_steps=side + 1))
    with pytest.raises(SolverError) as caught:
        solve_allocation(problem, bound=Plain(Dynamite()))
    message = str(caught.value)
    assert message.startswith(
        f"bound 'plain' declares no monotone form, and more than {exhaustive.MOST_PAIRS} pairs"
    )
    assert "Budget(max_rounds=..., max_local_steps=...)" in message
    # Fixing one of the two leaves few enough.
    fixed = solve_allocation(problem, bound=Plain(Dynamite()), local_steps=1, rounds=100)
    assert (fixed.rounds, fixed.local_steps) == (100, 1)


def test_a_time_limit_ends_the_trial_of_pairs_with_nothing_proved():
    problem = problem_of(Budget(max_rounds=50, max_local_steps=50))
    found = solve_allocation(problem, bound=Plain(Dynamite()), time_limit=0.0)
    assert found.status is Status.TIME_LIMIT
    assert found.lower_bound == -math.inf
    found.certify()


@pytest.mark.parametrize("solver", ["closed-form", "cvxpy", "coopt-fl"])
def test_solvers_that_need_a_monotone_form_say_so(solver):
    with pytest.raises(SolverError, match=rf"solver '{solver}' needs a bound with a monotone form.*'exact'"):
        solve_allocation(problem_of(), bound=Plain(Dynamite()), solver=solver)


# Fleets of every kind -------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ALL)
def test_full_batches_without_replacement_have_no_noise(bound):
    budget = Budget(max_rounds=40, max_local_steps=1)
    found = solve_allocation(problem_of(budget, replacement=False), bound=bound)
    assert found.batch_sizes.tolist() == [60, 20, 30]
    assert found.parts.noise == 0.0
    assert found.gap <= 2e-12
    found.certify()
    with_replacement = solve_allocation(problem_of(budget), bound=bound)
    assert found.error_bound < with_replacement.error_bound


@pytest.mark.parametrize("bound", ALL)
def test_batches_respect_their_least_and_their_multiple(bound):
    fleet = {"min_batch": [6, 1, 9], "max_batch": [50, 19, 30], "batch_multiple": [4, 3, 2]}
    found = solve_allocation(problem_of(**fleet), bound=bound)
    s = found.batch_sizes
    assert (s % [4, 3, 2] == 0).all()
    assert (s >= [8, 3, 10]).all()
    assert (s <= [48, 18, 30]).all()
    assert found.certify().relative_difference <= 1e-11
    free = solve_allocation(problem_of(), bound=bound)
    assert found.error_bound >= free.error_bound


@pytest.mark.parametrize("bound", ALL)
def test_a_fleet_of_one_device_has_no_drift_from_its_own_noise(bound):
    problem = problem_of(samples=[80], gradient_noise=[4.0], divergence=0.0)
    found = solve_allocation(problem, bound=bound)
    assert found.parts.drift == 0.0
    assert found.gap <= 2e-12
    # Local steps are free of drift here, and rounds cost money.
    assert found.local_steps > 1
    found.certify()


@pytest.mark.parametrize("bound", ALL)
def test_devices_that_cost_nothing_take_all_they_can(bound):
    problem = problem_of(sample_cost=[1.0, 0.0, 0.0], max_batch=[60, 20, 7])
    found = solve_allocation(problem, bound=bound)
    assert found.batch_sizes[1:].tolist() == [20, 7]
    assert found.gap < 0.05
    found.certify()


@pytest.mark.parametrize("bound", ALL)
def test_a_fleet_that_costs_nothing_is_limited_by_its_rounds(bound):
    problem = problem_of(Budget(cost=200.0, round_cost=5.0, max_local_steps=20), sample_cost=0.0)
    found = solve_allocation(problem, bound=bound)
    assert found.batch_sizes.tolist() == [60, 20, 30]
    assert found.cost <= 200.0
    assert found.gap <= 2e-12
    found.certify()


@pytest.mark.parametrize("bound", ALL)
def test_a_fleet_without_noise_or_divergence_contracts_as_long_as_it_can(bound):
    problem = problem_of(Budget(max_rounds=7, max_local_steps=5), gradient_noise=0.0, divergence=0.0)
    found = solve_allocation(problem, bound=bound)
    assert (found.rounds, found.local_steps) == (7, 5)
    assert found.gap <= 2e-12
    assert found.error_bound == pytest.approx(found.parts.transient, rel=1e-12)


def test_a_device_of_weight_zero_takes_the_least():
    problem = problem_of(weights=[0.5, 0.5, 0.0], divergence=0.0)
    found = solve_allocation(problem, bound="dynamite")
    assert found.batch_sizes[2] == 1
    found.certify()


def test_nothing_is_printed_or_warned_about_a_good_plan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve_allocation(problem_of())
    assert found.status is Status.OPTIMAL
    assert found.solver == "exact"
    assert found.solve_seconds > 0.0


@pytest.mark.parametrize(
    ("budget", "binding"), [(Budget(cost=1.0, max_rounds=1), "cost"), (Budget(time=1e-3, cost=1e9), "time")]
)
def test_infeasible_problems_name_the_limit_and_a_remedy_that_works(budget, binding):
    problem = problem_of(replace(budget, max_local_steps=3), throughput=10.0)
    with pytest.raises(InfeasibleError) as caught:
        solve_allocation(problem)
    assert caught.value.binding == binding
    enough = replace(
        problem.budget,
        cost=max(budget.cost, caught.value.smallest_cost),
        time=max(budget.time, caught.value.smallest_time),
    )
    assert solve_allocation(replace(problem, budget=enough)).batch_sizes.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("option", "limit"), [({"rounds": 9}, "max_rounds"), ({"local_steps": 4}, "max_local_steps")]
)
def test_a_fixed_count_beyond_its_limit_is_infeasible(option, limit):
    problem = problem_of(Budget(max_rounds=8, max_local_steps=3))
    with pytest.raises(InfeasibleError, match=limit) as caught:
        solve_allocation(problem, **option)
    assert caught.value.binding == limit


@pytest.mark.parametrize("objective", ["cost", "time"])
def test_inverse_objectives_reach_their_target_with_less(objective):
    problem = problem_of(Budget(round_cost=5.0), throughput=10.0, round_time=0.5)
    budget = replace(problem.budget, cost=3000.0, time=500.0)
    best = solve_allocation(replace(problem, budget=budget), bound="dynamite")
    found = solve_allocation(problem, bound="dynamite", objective=objective, target_error=best.error_bound)
    found.certify()
    assert found.error_bound <= best.error_bound * (1 + 1e-9)
    assert getattr(found, objective) <= getattr(best, objective) * (1 + 1e-8)
    assert found.objective_value == getattr(found, objective)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shares=st.lists(st.floats(0.0, 1.0), min_size=9, max_size=9))
def test_prices_of_rounds_on_devices_add_to_that_of_a_round(seed, shares):
    plain = random_problem(seed, round_cost=1.0)
    prices = 20.0 * np.array(shares[: len(plain.fleet)])
    problem = replace(plain, fleet=replace(plain.fleet, round_cost=prices))
    same = replace(plain, budget=replace(plain.budget, round_cost=1.0 + math.fsum(prices)))
    for solver in ("exact", "closed-form", "coopt-fl"):
        ours, theirs = (solve_allocation(p, solver=solver, bound="dynamite") for p in (problem, same))
        assert (ours.rounds, ours.local_steps) == (theirs.rounds, theirs.local_steps)
        assert np.array_equal(ours.batch_sizes, theirs.batch_sizes)
        # The prices are summed in another order.
        assert ours.lower_bound == pytest.approx(theirs.lower_bound, rel=1e-14)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-14)
        ours.certify()
