"""An allocation certifies itself, survives JSON, and says what binds it and what more budget would buy."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Budget,
    CertificateError,
    Certified,
    Dynamite,
    InvalidProblemError,
    Problem,
    Status,
    evaluate,
    solve_allocation,
)
from coopt.solvers.whole_units.batches import relax
from fleets import SINGLE_BOUNDS, problems, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def solved(**options) -> Allocation:
    return solve_allocation(random_problem(3, time=3000.0, round_cost=1.0), bound="dynamite", **options)


OPTIMAL = solved()


def tampered(**changes) -> Allocation:
    return replace(OPTIMAL, **changes)


def test_an_honest_allocation_is_certified():
    certificate = OPTIMAL.certify()
    assert certificate.error_bound == pytest.approx(OPTIMAL.error_bound, rel=1e-12)
    assert certificate.cost == pytest.approx(OPTIMAL.cost, rel=1e-14)
    assert certificate.time == pytest.approx(OPTIMAL.time, rel=1e-14)
    assert certificate.relative_difference <= 1e-12


def one_more(batches: np.ndarray, i: int = 0, by: int = 1) -> np.ndarray:
    changed = batches.copy()
    changed[i] += by
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predicted_error": OPTIMAL.error_bound * (1 - 1e-9)}, "error_bound: claimed"),
        ({"predicted_error": OPTIMAL.error_bound * (1 + 1e-9)}, "error_bound: claimed"),
        ({"predicted_error": math.nan}, "error_bound: claimed nan"),
        ({"predicted_error": math.inf}, "error_bound: claimed inf"),
        ({"objective_value": OPTIMAL.objective_value / 2}, "objective_value = .*: is not the error"),
        ({"objective_value": math.nan}, "objective_value = nan: is not the error"),
        ({"objective": "cost"}, "objective_value = .*: is not the cost"),
        ({"objective": "luck"}, "objective_value = .*: is not the luck"),
        ({"cost": OPTIMAL.cost * 0.99}, "cost: claimed"),
        ({"cost": -OPTIMAL.cost}, "cost: claimed"),
        ({"time": OPTIMAL.time * (1 + 1e-9)}, "time: claimed"),
        ({"time": 0.0}, "time: claimed 0.0"),
        (
            {"batch_sizes": one_more(OPTIMAL.batch_sizes, by=10**6)},
            r"batch_sizes\[0\] = .*: breaks max_batch",
        ),
        ({"batch_sizes": OPTIMAL.batch_sizes * 0}, r"batch_sizes\[0\] = 0: breaks min_batch = 1"),
        ({"batch_sizes": one_more(OPTIMAL.batch_sizes, 2, by=-1)}, "cost: claimed"),
        ({"batch_sizes": OPTIMAL.batch_sizes[:-1].copy()}, r"batch_sizes has shape \(\d+,\): must be"),
        ({"batch_sizes": OPTIMAL.batch_sizes[::-1].copy()}, "claimed"),
        ({"rounds": OPTIMAL.rounds + 10}, "cost: .* exceeds the limit"),
        ({"rounds": OPTIMAL.rounds - 1}, "cost: claimed"),
        ({"rounds": 0}, "rounds = 0: must be at least 1"),
        ({"local_steps": -1}, "local_steps = -1: must be at least 1"),
        ({"local_steps": 61}, "exceeds the limit"),
        ({"lower_bound": OPTIMAL.objective_value * (1 + 1e-12)}, "lower_bound = .* exceeds the value"),
        ({"lower_bound": math.nan}, "lower_bound = nan exceeds the value"),
        ({"lower_bound": OPTIMAL.lower_bound * (1 - 1e-6)}, "status = OPTIMAL: the gap is"),
        ({"lower_bound": -math.inf}, "status = OPTIMAL: the gap is inf"),
        ({"status": Status.EVALUATED}, "lower_bound = .*: nothing is proved of a plan that was given"),
        ({"bound": "adacoopt"}, "error_bound: claimed"),
        ({"bound": "certified(gamma=1, z=1)"}, "error_bound: claimed"),
        ({"learning_rate": 0.04}, "learning_rate = 0.04: the problem has 0.05"),
        ({"target_error": OPTIMAL.error_bound / 2}, "error_bound = .*: misses the target"),
    ],
)
def test_every_tampering_is_caught(changes, message):
    with pytest.raises(CertificateError, match=message):
        tampered(**changes).certify()


@pytest.mark.parametrize(
    "field", ["learning_rate", "smoothness", "initial_gap", "pl_constant", "quadratic_continuity"]
)
def test_a_changed_constant_is_caught(field):
    known = OPTIMAL.problem.constants
    changed = replace(known, **{field: (getattr(known, field) or 1.0) * (1 - 1e-6)})
    with pytest.raises(CertificateError):
        tampered(problem=replace(OPTIMAL.problem, constants=changed)).certify()


@pytest.mark.parametrize("limit", ["cost", "time", "max_rounds", "max_local_steps"])
def test_a_tighter_limit_is_caught(limit):
    used = {
        "cost": OPTIMAL.cost,
        "time": OPTIMAL.time,
        "max_rounds": OPTIMAL.rounds,
        "max_local_steps": OPTIMAL.local_steps,
    }[limit]
    smaller = used - 1 if limit.startswith("max") else used * (1 - 1e-8)
    budget = replace(OPTIMAL.problem.budget, **{limit: smaller})
    with pytest.raises(CertificateError, match=f"^{limit}: .* exceeds the limit"):
        tampered(problem=replace(OPTIMAL.problem, budget=budget)).certify()


@settings(max_examples=30, deadline=None)
@given(problem=problems, bound=st.sampled_from(SINGLE_BOUNDS), data=st.data())
def test_one_sample_more_or_less_is_caught(problem, bound, data):
    plan = evaluate(problem, 3, 2, 5, bound)
    plan.certify()
    i = data.draw(st.integers(0, len(problem.fleet) - 1))
    for by in (1, -1):
        with pytest.raises(CertificateError):
            replace(plan, batch_sizes=one_more(plan.batch_sizes, i, by)).certify()


class Doubled:
    """A user's own bound without a monotone form."""

    name = "doubled"

    def coefficients(self, problem, rounds, local_steps):
        offset, weights = Dynamite().coefficients(problem, rounds, local_steps)
        return 2 * offset, 2 * weights

    def value(self, problem, rounds, local_steps, batch_sizes):
        return 2 * Dynamite().value(problem, rounds, local_steps, batch_sizes)

    def members(self):
        return (self,)


def test_the_plan_of_a_bound_of_ones_own_is_certified_but_not_written():
    plan = evaluate(OPTIMAL.problem, OPTIMAL.rounds, OPTIMAL.local_steps, OPTIMAL.batch_sizes, Doubled())
    assert plan.error_bound == pytest.approx(2 * OPTIMAL.error_bound, rel=1e-12)
    assert plan.certify().relative_difference <= 1e-12
    assert plan.parts is None
    assert "transient" not in str(plan)
    with pytest.raises(CertificateError, match="error_bound: claimed"):
        replace(plan, predicted_error=OPTIMAL.error_bound).certify()
    with pytest.raises(InvalidProblemError, match="bound = 'doubled' is not one of coopt's own"):
        plan.to_json()


# Values and files -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(problem=problems, bound=st.sampled_from(SINGLE_BOUNDS), solve=st.booleans())
def test_json_reads_back_an_equal_allocation(problem, bound, solve):
    plan = (
        solve_allocation(problem, bound=bound, gap_tolerance=0.1)
        if solve
        else evaluate(problem, 2, 3, 4, bound)
    )
    copy = Allocation.from_json(plan.to_json())
    assert copy == plan
    assert copy.solve_seconds == plan.solve_seconds
    assert copy.trace == plan.trace
    assert copy.gap == plan.gap
    copy.certify()


def test_json_is_written_to_a_file(tmp_path):
    path = tmp_path / "plan.json"
    text = OPTIMAL.to_json(path)
    assert path.read_text(encoding="utf-8") == text + "\n"
    assert Allocation.from_json(path.read_text(encoding="utf-8")) == OPTIMAL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "{}",
        json.dumps({**OPTIMAL.to_dict(), "status": "PERFECT"}),
        json.dumps({**OPTIMAL.to_dict(), "luck": 1}),
        json.dumps({key: value for key, value in OPTIMAL.to_dict().items() if key != "rounds"}),
        json.dumps({**OPTIMAL.to_dict(), "problem": {}}),
        json.dumps({**OPTIMAL.to_dict(), "batch_sizes": ["many"] * 7}),
        json.dumps({**OPTIMAL.to_dict(), "batch_sizes": [2.5] * 7}),
        json.dumps({**OPTIMAL.to_dict(), "batch_sizes": [2]}),
        json.dumps({**OPTIMAL.to_dict(), "rounds": 2.5}),
        json.dumps({**OPTIMAL.to_dict(), "problem": 5}),
    ],
    ids=[
        "nothing",
        "list",
        "number",
        "empty",
        "status",
        "unknown key",
        "missing key",
        "problem",
        "no numbers",
        "fractions",
        "too few",
        "rounds",
        "no tables",
    ],
)
def test_what_is_no_allocation_is_refused(text):
    with pytest.raises(InvalidProblemError):
        Allocation.from_json(text)


@pytest.mark.parametrize("entry", ["path", "csv"])
def test_a_plan_opens_no_file_that_it_names(tmp_path, entry):
    secret = tmp_path / "secret.txt"
    secret.write_text("password=hunter2\n", encoding="utf-8")
    data = OPTIMAL.to_dict()
    data["problem"]["fleet"] = str(secret) if entry == "path" else {"csv": str(secret)}
    with pytest.raises(
        InvalidProblemError, match="must be a table of fields: only TOML files may name"
    ) as caught:
        Allocation.from_json(json.dumps(data))
    assert "hunter2" not in str(caught.value)


def test_allocations_compare_by_value_and_do_not_hash():
    copy = Allocation.from_dict(OPTIMAL.to_dict())
    assert copy == OPTIMAL
    assert replace(copy, solve_seconds=1e9, trace={}) == OPTIMAL
    assert replace(copy, rounds=OPTIMAL.rounds + 1) != OPTIMAL
    assert OPTIMAL != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(OPTIMAL)
    with pytest.raises(FrozenInstanceError):
        OPTIMAL.rounds = 1
    with pytest.raises(ValueError, match="read-only"):
        OPTIMAL.batch_sizes[0] = 1


def test_the_table_says_what_matters():
    text = str(OPTIMAL)
    assert f"rounds         {OPTIMAL.rounds}\n" in text
    assert f"local steps    {OPTIMAL.local_steps}\n" in text
    assert " ".join(map(str, OPTIMAL.batch_sizes)) in text
    assert f"error bound    {OPTIMAL.error_bound:.6g} (dynamite)" in text
    assert Status.OPTIMAL.value in text
    assert ", ".join(OPTIMAL.binding) in text
    assert "gap            0" in text
    many = evaluate(many_devices(), 1, 1, 3)
    assert "21 devices, 3 to 3, median 3" in str(many)
    assert "gap            unknown" in str(many)
    assert Status.EVALUATED.value in str(many)


def many_devices() -> Problem:
    problem = random_problem(1)
    fleet = type(problem.fleet)([50] * 21, 1.0, 0.0)
    return replace(problem, fleet=fleet, budget=Budget())


@settings(max_examples=40, deadline=None)
@given(problem=problems, bound=st.sampled_from(SINGLE_BOUNDS), k=st.integers(1, 8), tau=st.integers(1, 5))
def test_parts_add_up_to_the_bound(problem, bound, k, tau):
    # Whatever the plan uses: what a step takes beside its samples may break limits.
    free = replace(problem, budget=replace(problem.budget, cost=math.inf, time=math.inf, energy=math.inf))
    plan = evaluate(free, k, tau, 3, bound)
    parts = plan.parts
    assert parts.transient + parts.noise + parts.drift == pytest.approx(plan.error_bound, rel=1e-12)
    assert plan.gap == math.inf
    assert plan.status is Status.EVALUATED


# What binds, and at what price ----------------------------------------------------------------------


def relaxed_bound(problem: Problem, bound, rounds: int, steps: int) -> float:
    """The bound at (K, tau) with the best continuous batches."""
    fleet, budget = problem.fleet, problem.budget
    offset, weights = bound.coefficients(problem, rounds, steps)
    lower, upper = fleet.batch_range()
    caps = fleet.throughput * ((budget.time / rounds - fleet.round_time) / steps - fleet.step_time)
    spend = (budget.cost / rounds - budget.round_cost) / steps - fleet.step_cost.sum()
    return offset + relax(weights, fleet.sample_cost, spend, lower, np.minimum(upper, caps)).value


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    time=st.sampled_from([3000.0, 300.0, 60.0]),
    equal=st.booleans(),
    bound=st.sampled_from([Dynamite(), Certified(1, 1)]),
    k=st.integers(5, 10),
    tau=st.integers(1, 5),
    overhead=st.sampled_from([0.0, 1.0]),
)
def test_shadow_prices_are_slopes_of_the_continuous_relaxation(seed, time, equal, bound, k, tau, overhead):
    problem = random_problem(seed, time=time, round_cost=1.0, equal_costs=equal, overhead=overhead)
    if problem.violations(k, tau, 2):
        return
    prices = evaluate(problem, k, tau, 1, bound).shadow_prices
    for limit in ("cost", "time"):
        amount = getattr(problem.budget, limit)
        step = 1e-5 * amount
        worse, here, better = (
            relaxed_bound(
                replace(problem, budget=replace(problem.budget, **{limit: amount + move})), bound, k, tau
            )
            for move in (-step, 0.0, step)
        )
        falls = sorted([(worse - here) / step, (here - better) / step])
        # The relaxation is convex in either limit: its slope lies between the difference quotients.
        slack = 1e-3 * falls[1] + 1e-9 * here / step
        assert falls[0] - slack <= prices[limit] <= falls[1] + slack


def binding_of(budget: Budget, batches=40, k=4, tau=2, **fleet) -> tuple[str, ...]:
    problem = random_problem(1)
    fields = {"samples": [100, 100], "gradient_noise": 1.0, "divergence": 0.0, "throughput": 10.0, **fleet}
    problem = replace(problem, fleet=type(problem.fleet)(**fields), budget=budget)
    return evaluate(problem, k, tau, batches, "dynamite").binding


def test_binding_names_each_limit_that_forbids_an_increase():
    loose = {"cost": 1e6, "time": 1e6, "max_rounds": 100, "max_local_steps": 100}
    assert binding_of(Budget()) == ()
    assert binding_of(Budget(**loose)) == ()
    # The plan costs 4 * 2 * 80 = 640 and takes 4 * 2 * 4 = 32 s.
    assert binding_of(Budget(**{**loose, "cost": 640.0})) == ("cost",)
    assert binding_of(Budget(**{**loose, "time": 32.0})) == ("time",)
    assert binding_of(Budget(**{**loose, "max_rounds": 4})) == ("max_rounds",)
    assert binding_of(Budget(**{**loose, "max_local_steps": 2})) == ("max_local_steps",)
    assert binding_of(Budget(**loose), max_batch=[40, 100]) == ("max_batch",)
    everything = {"cost": 640.0, "time": 32.0, "max_rounds": 4, "max_local_steps": 2}
    assert binding_of(Budget(**everything), max_batch=40) == (
        "cost",
        "time",
        "max_rounds",
        "max_local_steps",
        "max_batch",
    )


def test_a_cap_binds_only_where_more_batch_would_help():
    assert binding_of(Budget(), max_batch=[40, 100], gradient_noise=[0.0, 1.0]) == ()
    assert binding_of(Budget(), max_batch=[47, 100], batch_multiple=[8, 1]) == ("max_batch",)
