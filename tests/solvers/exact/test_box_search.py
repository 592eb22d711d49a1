"""The exact solver against enumeration, and the laws that an optimum obeys."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from brute_force import optimum
from coopt import (
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    NonConvex,
    Problem,
    Status,
    evaluate,
    solve_allocation,
)
from problems import MOST_ROUNDS, MOST_STEPS, family_bounds, numeric_bounds, problems

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


PER_DEVICE = (
    "samples",
    "gradient_noise",
    "divergence",
    "throughput",
    "round_time",
    "sample_cost",
    "weights",
    "min_batch",
    "max_batch",
    "batch_multiple",
    "round_cost",
    "step_time",
    "step_cost",
)


def solve(problem, bound, **options):
    """The allocation, certified, or None where the problem is infeasible."""
    try:
        allocation = solve_allocation(problem, bound=bound, **options)
    except InfeasibleError:
        return None
    allocation.certify()
    assert problem.violations(allocation.rounds, allocation.local_steps, allocation.batch_sizes) == ()
    return allocation


@settings(max_examples=120, deadline=None)
@given(problem=problems(), bound=numeric_bounds)
def test_equals_enumeration_when_costs_are_equal(problem, bound):
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    found = solve(problem, bound)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.error_bound == pytest.approx(expected, rel=1e-12, abs=1e-300)
        assert found.gap <= 2e-12
        assert found.status is Status.OPTIMAL


@settings(max_examples=50, deadline=None)
@given(problem=problems(), bound=family_bounds)
def test_families_equal_enumeration_over_members(problem, bound):
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    found = solve(problem, bound)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.error_bound == pytest.approx(expected, rel=1e-12, abs=1e-300)


@settings(max_examples=80, deadline=None)
@given(problem=problems(equal_costs=False), bound=numeric_bounds)
def test_equals_enumeration_when_costs_differ(problem, bound):
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    found = solve(problem, bound)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.error_bound == pytest.approx(expected, rel=1e-12, abs=1e-300)
        assert found.gap <= 2e-12
        assert found.status is Status.OPTIMAL


@settings(max_examples=50, deadline=None)
@given(
    problem=problems(),
    bound=st.sampled_from([Certified(1, 1), Dynamite()]),
    kind=st.sampled_from(["flat", "free", "affordable"]),
)
def test_equals_enumeration_where_plans_match_others(problem, bound, kind):
    """Only K tau counts where rounds cost nothing that matters, or where tau changes no error floor."""
    if kind == "flat":
        problem = replace(problem, fleet=changed(problem.fleet, divergence=0.0 * problem.fleet.divergence))
    else:
        changes = {"round_cost": 0.0} if kind == "free" else {"cost": 4.0 * problem.budget.cost}
        problem = replace(
            problem,
            fleet=changed(problem.fleet, round_time=0.0 * problem.fleet.round_time),
            budget=replace(problem.budget, **changes),
        )
    expected = optimum(problem, bound, MOST_ROUNDS, MOST_STEPS)
    found = solve(problem, bound)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.error_bound == pytest.approx(expected, rel=1e-12, abs=1e-300)
        assert found.gap <= 2e-12


@pytest.mark.parametrize(
    ("divergence", "round_cost", "shape"), [(0.0, 5.0, "one round"), (0.1, 0.0, "one step")]
)
def test_a_billion_equivalent_plans_are_one(divergence, round_cost, shape):
    """Thousands of boxes, or no end, when every (K, tau) with the same product was looked at."""
    problem = Problem(
        Fleet(samples=[4, 9], gradient_noise=0.0, divergence=divergence),
        Constants(learning_rate=1e-9, smoothness=1.0, initial_gap=1.0, pl_constant=0.5),
        Budget(cost=1e9, round_cost=round_cost),
    )
    found = solve(problem, Dynamite())
    assert found.gap <= 2e-12
    assert found.trace["boxes"] <= 20
    assert (found.rounds if shape == "one round" else found.local_steps) == 1


def test_the_limits_leave_no_more_steps_than_they_pay_for():
    """Without noise only K and tau matter: ten thousand inner solves where corners of boxes counted alone."""
    problem = Problem(
        Fleet(samples=[2], gradient_noise=0.0, divergence=0.002, sample_cost=30.0),
        Constants(0.005, 180.0, 3500.0, curvature_floor=18.0, mean_smoothness=54.0),
        Budget(cost=2e10, round_cost=5.0, max_rounds=3000, max_local_steps=10**9),
    )
    found = solve(problem, NonConvex(1, 1))
    assert found.gap <= 2e-12
    assert found.trace["inner_solves"] <= 20
    neighbours = [
        evaluate(problem, found.rounds + k, found.local_steps + tau, [1], bound=NonConvex(1, 1)).error_bound
        for k, tau in ((-1, 0), (0, -1), (-1, 1), (-20, 1000))
        if not problem.violations(found.rounds + k, found.local_steps + tau, [1])
    ]
    assert len(neighbours) >= 3 and min(neighbours) >= found.error_bound


@settings(max_examples=20, deadline=None)
@given(problem=problems(most_samples=40), bound=numeric_bounds, growth=st.floats(1.0, 3.0))
def test_never_worse_when_a_limit_grows(problem, bound, growth):
    before = solve(problem, bound)
    assume(before is not None)
    for field in ("cost", "time"):
        budget = replace(problem.budget, **{field: getattr(problem.budget, field) * growth})
        after = solve(replace(problem, budget=budget), bound)
        assert after.error_bound <= before.error_bound * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(problem=problems(most_samples=40), bound=numeric_bounds, data=st.data())
def test_permuting_devices_permutes_nothing_else(problem, bound, data):
    first = solve(problem, bound)
    assume(first is not None)
    order = np.array(data.draw(st.permutations(range(len(problem.fleet)))))
    permuted = replace(problem, fleet=reindexed(problem.fleet, order))
    second = solve(permuted, bound)
    assert second.error_bound == pytest.approx(first.error_bound, rel=1e-12)
    # Another plan may be as good; the first one, permuted, is worth and uses the same.
    same = evaluate(permuted, first.rounds, first.local_steps, first.batch_sizes[order], bound=first.bound)
    assert same.error_bound == pytest.approx(first.error_bound, rel=1e-12)
    assert same.cost == pytest.approx(first.cost, rel=1e-12)
    assert same.time == first.time


def reindexed(fleet: Fleet, order: np.ndarray) -> Fleet:
    columns = {name: getattr(fleet, name)[order] for name in PER_DEVICE}
    micro = None if fleet.micro_batch is None else fleet.micro_batch[order]
    return Fleet(replacement=fleet.replacement, micro_batch=micro, **columns)


def scaled(problem: Problem, kind: str, factor: float) -> Problem:
    fleet, constants, budget = problem.fleet, problem.constants, problem.budget
    if kind == "cost units":
        return replace(
            problem,
            fleet=changed(
                fleet,
                **{
                    name: getattr(fleet, name) * factor for name in ("sample_cost", "step_cost", "round_cost")
                },
            ),
            budget=replace(budget, cost=budget.cost * factor, round_cost=budget.round_cost * factor),
        )
    if kind == "time units":
        return replace(
            problem,
            fleet=changed(
                fleet,
                throughput=fleet.throughput / factor,
                step_time=fleet.step_time * factor,
                round_time=fleet.round_time * factor,
            ),
            budget=replace(budget, time=budget.time * factor),
        )
    if kind == "loss units":
        return replace(
            problem,
            fleet=changed(
                fleet,
                gradient_noise=fleet.gradient_noise * factor**2,
                divergence=fleet.divergence * factor,
            ),
            constants=replace(constants, initial_gap=constants.initial_gap * factor**2),
        )
    curvatures = {
        name: value * factor
        for name in ("smoothness", "pl_constant", "curvature_floor", "mean_smoothness", "coupling")
        if (value := getattr(constants, name)) is not None
    }
    return replace(
        problem,
        fleet=changed(
            fleet,
            gradient_noise=fleet.gradient_noise * factor**2,
            divergence=fleet.divergence * factor,
        ),
        constants=replace(
            constants,
            learning_rate=constants.learning_rate / factor,
            initial_gap=constants.initial_gap * factor,
            **curvatures,
        ),
    )


def changed(fleet: Fleet, **arrays: np.ndarray) -> Fleet:
    names = (*PER_DEVICE, "replacement", "micro_batch")
    return Fleet(**{name: arrays.get(name, getattr(fleet, name)) for name in names})


SCALED_BOUNDS = st.sampled_from([Certified(1, 1), Certified(0.3, 2.0), Dynamite(), NonConvex(1, 1)])


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(most_samples=40),
    bound=SCALED_BOUNDS,
    kind=st.sampled_from(["cost units", "time units", "loss units"]),
    exponent=st.integers(-6, 6),
)
def test_units_do_not_change_the_decision(problem, bound, kind, exponent):
    problem = replace(problem, constants=replace(problem.constants, quadratic_continuity=None))
    first = solve(problem, bound)
    second = solve(scaled(problem, kind, 2.0**exponent), bound)
    assert (first is None) == (second is None)
    if first is not None:
        # Powers of two scale without rounding, so even ties are decided alike.
        assert (second.rounds, second.local_steps) == (first.rounds, first.local_steps)
        assert np.array_equal(second.batch_sizes, first.batch_sizes)


@settings(max_examples=25, deadline=None)
@given(problem=problems(most_samples=40), bound=SCALED_BOUNDS, exponent=st.integers(-6, 6))
def test_scaling_curvature_with_the_loss_scales_the_bound(problem, bound, exponent):
    """(D0, M / f, delta^2 / f, curvatures, 1 / eta) times f: the bound scales, the decision stays."""
    problem = replace(problem, constants=replace(problem.constants, quadratic_continuity=None))
    factor = 2.0**exponent
    first, second = solve(problem, bound), solve(scaled(problem, "curvature", factor), bound)
    assume(first is not None)
    power = 2 if isinstance(bound, NonConvex) else 1
    assert second.error_bound == pytest.approx(first.error_bound * factor**power, rel=1e-12)
    assert (second.rounds, second.local_steps) == (first.rounds, first.local_steps)


@settings(max_examples=25, deadline=None)
@given(problem=problems(), bound=numeric_bounds)
def test_when_only_the_smallest_plan_fits_it_is_the_answer(problem, bound):
    ones = np.ones(len(problem.fleet), dtype=np.int64)
    fleet = changed(
        problem.fleet, batch_multiple=ones, min_batch=ones, sample_cost=ones * 2.0, step_cost=0.0 * ones
    )
    budget = Budget(cost=2.0 * len(fleet) * 1.4, round_cost=0.3)
    found = solve(Problem(fleet, problem.constants, budget), bound)
    assume(len(fleet) > 2 or found is not None)
    assert (found.rounds, found.local_steps) == (1, 1)
    assert found.batch_sizes.sum() <= 1.4 * len(fleet)


def fleet_of(n: int, seed: int, **changes) -> Problem:
    rng = np.random.default_rng(seed)
    arguments = {
        "samples": rng.integers(50, 2000, n),
        "gradient_noise": rng.lognormal(1, 1, n),
        "divergence": rng.uniform(0.01, 0.2, n),
        "throughput": rng.lognormal(4, 1, n),
        "round_time": rng.uniform(0.1, 2, n),
    }
    return Problem(
        Fleet(**(arguments | changes)),
        Constants(learning_rate=0.05, smoothness=4, initial_gap=2, pl_constant=0.5, curvature_floor=0),
        Budget(cost=4000 * n, time=2000, round_cost=200 * n),
    )


@pytest.mark.parametrize("bound", ["certified", "dynamite", "nonconvex"])
def test_a_thousand_devices_are_proved_optimal(bound):
    found = solve(fleet_of(1000, seed=1), bound)
    assert found.gap <= 1e-12
    assert found.status is Status.OPTIMAL
    assert found.local_steps > 1


def test_time_limit_returns_the_best_plan_so_far():
    found = solve(fleet_of(50, seed=4), "certified", time_limit=0.0)
    assert found.status is Status.TIME_LIMIT
    assert found.gap > 0.0


def test_gap_tolerance_stops_early_and_says_so():
    problem = fleet_of(50, seed=4)
    loose, tight = solve(problem, "certified", gap_tolerance=0.05), solve(problem, "certified")
    assert tight.error_bound <= loose.error_bound <= tight.error_bound * 1.06
    assert loose.lower_bound <= tight.error_bound
    assert loose.gap <= 0.05 + 1e-12


def test_warm_start_finds_the_same_optimum():
    problem = fleet_of(50, seed=5)
    cold = solve(problem, "certified")
    tighter = replace(problem, budget=replace(problem.budget, cost=problem.budget.cost * 0.99))
    warm = solve(tighter, "certified", warm_start=cold)
    assert warm.error_bound == pytest.approx(solve(tighter, "certified").error_bound, rel=1e-12)
    fits = not tighter.violations(cold.rounds, cold.local_steps, cold.batch_sizes)
    assert warm.trace["warm_start_used"] == fits
    assert solve(problem, "certified", warm_start=cold).trace["warm_start_used"] == 1


@pytest.mark.parametrize(("rounds", "steps"), [(17, None), (None, 3), (9, 4)])
def test_fixed_rounds_and_steps_are_kept(rounds, steps):
    problem = fleet_of(30, seed=6)
    found = solve(problem, "certified", rounds=rounds, local_steps=steps)
    assert rounds in (None, found.rounds)
    assert steps in (None, found.local_steps)
    assert found.error_bound >= solve(problem, "certified").error_bound


def test_a_gap_below_the_floor_is_solved_and_warned_about():
    problem = replace(
        fleet_of(5, seed=7),
        constants=Constants(learning_rate=0.05, smoothness=4, initial_gap=1e-9, pl_constant=0.5),
    )
    with pytest.warns(BoundWarning, match="below the error floor"):
        found = solve_allocation(problem)
    assert (found.rounds, found.local_steps) == (1, 1)


def test_fewest_rounds_where_more_change_nothing():
    """q^(K tau) underflows long before max_rounds: fewer rounds are as good, so fewer are taken."""
    problem = Problem(
        Fleet(samples=[4], gradient_noise=1.0, divergence=0.0),
        Constants(learning_rate=1.0, smoothness=1.0, initial_gap=1.0, pl_constant=0.9),
        Budget(max_rounds=100_000, max_local_steps=1),
    )
    found = solve(problem, Dynamite())
    assert found.gap <= 2e-12
    assert found.rounds < 400


@pytest.mark.parametrize("bound", ["certified", "dynamite"])
def test_fewest_rounds_where_the_value_is_the_same_to_the_bit(bound):
    """q^(K tau) is lost in the floor's digits from K = 17 on, and underflows only from K = 165 on."""
    problem = Problem(
        Fleet(samples=[2], gradient_noise=1.0, divergence=0.0),
        Constants(learning_rate=1.0, smoothness=1.0, initial_gap=1.0, pl_constant=0.9),
        Budget(max_rounds=400, max_local_steps=1),
    )
    found = solve_allocation(problem, bound=bound)
    assert found.rounds == 17
    with_fewer = [evaluate(problem, k, 1, found.batch_sizes, bound=bound).error_bound for k in range(1, 17)]
    assert min(with_fewer) > found.error_bound


def test_infeasible_says_what_would_do():
    problem = replace(fleet_of(10, seed=8), budget=Budget(cost=5.0, round_cost=1.0))
    with pytest.raises(InfeasibleError, match=r"smallest feasible cost is 11\.0") as caught:
        solve_allocation(problem)
    assert caught.value.binding == "cost"
    assert "time" not in str(caught.value)  # which nobody limited
    assert caught.value.smallest_cost == 11.0
    cheapest = replace(problem, budget=Budget(cost=caught.value.smallest_cost, round_cost=1.0))
    assert solve_allocation(cheapest).rounds == 1


def test_infeasible_time_says_how_long_it_takes():
    problem = replace(fleet_of(10, seed=8), budget=Budget(time=0.01, max_rounds=5, max_local_steps=5))
    with pytest.raises(InfeasibleError) as caught:
        solve_allocation(problem)
    assert caught.value.binding == "time"
    enough = replace(problem, budget=replace(problem.budget, time=caught.value.smallest_time))
    assert solve_allocation(enough).rounds == 1


def test_warnings_name_what_is_wrong():
    problem = fleet_of(5, seed=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BoundWarning, match="quadratic_continuity"):
            solve_allocation(
                replace(problem, constants=replace(problem.constants, quadratic_continuity=1e-3)),
                bound="dynamite",
            )


def test_an_infinite_share_of_noise_that_can_vanish_rules_nothing_out():
    # Without contraction lost to gamma, drift counts infinitely: nothing where whole data sets are batches.
    problem = Problem(
        Fleet(samples=[6, 7], gradient_noise=[1.0, 2.0], divergence=0.0, replacement=False),
        Constants(learning_rate=0.5, smoothness=1.0, initial_gap=1.0, pl_constant=0.5),
        Budget(cost=195, max_rounds=8, max_local_steps=5),
    )
    plan = solve_allocation(problem)
    values = [
        evaluate(problem, rounds, steps, [6, 7]).error_bound
        for rounds in range(1, 9)
        for steps in range(1, 6)
        if not problem.violations(rounds, steps, [6, 7])
    ]
    assert plan.error_bound == pytest.approx(min(values), rel=1e-12)
    assert plan.bound.startswith("certified(gamma=0.0")


def test_members_that_share_an_inner_problem_are_all_settled():
    # All members of the family look for the same batches, each up to a level of its own.
    problem = Problem(
        Fleet([6, 5, 5], [6.6, 1.72, 12.4], [0.0855, 0, 0.1468], sample_cost=[0.001, 0.001, 8.33]),
        Constants(1.066, 0.679, 0.0153, mean_smoothness=0.4846, gradient_bias=0.117),
        Budget(cost=22.1, max_rounds=8, max_local_steps=1),
    )
    plan = solve_allocation(problem, bound="nonconvex")
    assert (plan.rounds, plan.batch_sizes.tolist()) == (1, [6, 5, 2])
    assert plan.gap < 1e-12
