"""Exact differences: never negative where a limit is loosened, what an independent solve finds, and near the
shadow prices where batches are large."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    Problem,
    sensitivity,
    solve_allocation,
)
from fleets import SINGLE_BOUNDS, random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


@st.composite
def capped_problems(draw):
    problem = random_problem(
        draw(st.integers(0, 10**6)),
        time=draw(st.sampled_from([math.inf, 300.0])),
        round_cost=draw(st.sampled_from([0.0, 40.0])),
        equal_costs=draw(st.booleans()),
    )
    cap = draw(st.integers(1, 40))
    return replace(problem, fleet=replace(problem.fleet, max_batch=cap))


@settings(max_examples=6, deadline=None)
@given(problem=capped_problems(), bound=st.sampled_from(SINGLE_BOUNDS))
def test_loosened_limits_never_hurt(problem, bound):
    found = sensitivity(
        problem, bound=bound, quantities=["cost", "max_batch"], extra_cost=50.0, devices=[0, 1]
    )
    assert [change.device for change in found.changes] == [None, 0, 1]
    for change in found.changes:
        assert change.gain >= 0.0
        assert change.predicted_gain >= 0.0
        assert change.same_plan_error == pytest.approx(found.allocation.error_bound, rel=1e-12)


PROBLEM = replace(
    random_problem(5, time=300.0, round_cost=40.0),
    budget=Budget(cost=20_000, time=300.0, round_cost=40.0, max_rounds=150, max_local_steps=4),
)


def changed(problem: Problem, change) -> Problem:
    """The problem after a change, put together here."""
    name, amount = change.quantity, change.amount
    if name in ("cost", "time", "energy", "max_rounds", "max_local_steps"):
        limit = getattr(problem.budget, name) + amount
        return replace(problem, budget=replace(problem.budget, **{name: limit}))
    if name == "max_batch":
        caps = np.where(np.arange(len(problem.fleet)) == change.device, amount, 0) + problem.fleet.max_batch
        return replace(problem, fleet=replace(problem.fleet, max_batch=caps))
    if name in ("gradient_noise", "divergence"):
        values = getattr(problem.fleet, name) * (1 + amount)
        return replace(problem, fleet=replace(problem.fleet, **{name: values}))
    value = getattr(problem.constants, name) + amount
    return replace(problem, constants=replace(problem.constants, **{name: value}))


@pytest.mark.parametrize("bound", ["dynamite", "certified"])
def test_every_change_is_what_an_independent_solve_finds(bound):
    problem = replace(PROBLEM, fleet=replace(PROBLEM.fleet, max_batch=30))
    found = sensitivity(problem, bound=bound, relative=0.02)
    names = {change.quantity for change in found.changes}
    assert names >= {"cost", "time", "max_rounds", "max_local_steps", "learning_rate", "divergence"}
    for change in found.changes:
        fresh = solve_allocation(changed(problem, change), bound=bound)
        assert change.allocation.error_bound == pytest.approx(fresh.error_bound, rel=1e-11)
        assert change.gain == pytest.approx(
            found.allocation.error_bound - change.allocation.error_bound, abs=1e-11 * fresh.error_bound
        )
        # The plan from before remains one of the plans.
        assert change.allocation.error_bound <= change.same_plan_error * (1 + 1e-12)


LARGE = Problem(
    Fleet(
        samples=[10**7, 10**7, 10**7],
        gradient_noise=[4e6, 2e6, 1e6],
        divergence=0.05,
        throughput=[4e4, 2e4, 8e4],
        round_time=0.1,
    ),
    Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0),
    Budget(cost=2e8, round_cost=100),
)


def test_differences_approach_the_price_of_cost_where_batches_are_large():
    found = sensitivity(
        LARGE, bound=Dynamite(), rounds=100, local_steps=2, quantities="cost", extra_cost=200 * 1000.0
    )
    (change,) = found.changes
    assert change.gain == pytest.approx(change.predicted_gain, rel=2e-3)


def test_differences_approach_the_price_of_time_where_batches_are_large():
    timed = replace(LARGE, budget=replace(LARGE.budget, time=2000.0))
    found = sensitivity(timed, bound=Dynamite(), rounds=100, local_steps=2, quantities="time")
    (change,) = found.changes
    assert found.allocation.shadow_prices["time"] > 0.0
    assert change.gain == pytest.approx(change.predicted_gain, rel=2e-3)


def test_differences_approach_the_price_of_a_cap_where_batches_are_large():
    capped = replace(LARGE, fleet=replace(LARGE.fleet, max_batch=[100_000, 10**7, 10**7]))
    found = sensitivity(capped, bound=Dynamite(), rounds=100, local_steps=2, quantities="max_batch")
    (change,) = found.changes
    assert change.device == 0
    assert found.allocation.cap_prices[1:] == pytest.approx([0.0, 0.0])
    assert change.gain == pytest.approx(change.predicted_gain, rel=1e-3)


def test_differences_approach_the_price_of_energy_where_batches_are_large():
    hungry = replace(
        LARGE,
        fleet=replace(LARGE.fleet, sample_energy=[1.0, 2.0, 0.5]),
        budget=Budget(energy=2e8, round_cost=100),
    )
    found = sensitivity(
        hungry, bound=Dynamite(), rounds=100, local_steps=2, quantities="energy", extra_energy=200 * 1000.0
    )
    (change,) = found.changes
    assert change.gain == pytest.approx(change.predicted_gain, rel=2e-3)


def test_a_cap_has_no_price_where_the_deadline_is_tighter():
    held = replace(LARGE, budget=replace(LARGE.budget, time=200.0))
    plan = solve_allocation(held, bound=Dynamite(), rounds=100, local_steps=2)
    assert plan.shadow_prices["time"] > 0.0
    assert not plan.cap_prices.any()


def test_inverse_objectives_move_with_their_target():
    found = sensitivity(
        PROBLEM,
        objective="cost",
        target_error=0.5,
        bound=Dynamite(),
        quantities=["target_error", "pl_constant"],
    )
    looser, tighter, *_ = found.changes
    assert found.allocation.objective == "cost"
    assert looser.gain >= 0.0 >= tighter.gain
    fresh = solve_allocation(PROBLEM, objective="cost", target_error=0.5 * 1.01, bound=Dynamite())
    assert looser.allocation.cost == pytest.approx(fresh.cost, rel=1e-8)


def test_one_participant_more_or_less():
    few = replace(PROBLEM, budget=replace(PROBLEM.budget, participants=2))
    found = sensitivity(few, bound="certified(gamma=1, z=1)", quantities="participants")
    assert [change.amount for change in found.changes] == [1, -1]
    for change in found.changes:
        other = replace(few, budget=replace(few.budget, participants=2 + change.amount))
        fresh = solve_allocation(other, bound="certified(gamma=1, z=1)")
        assert change.allocation.error_bound == pytest.approx(fresh.error_bound, rel=1e-10)
        assert not change.allocation.problem.violations(
            change.allocation.rounds, change.allocation.local_steps, change.allocation.batch_sizes
        )


def test_a_change_that_cannot_be_says_why():
    short = replace(PROBLEM, constants=replace(PROBLEM.constants, learning_rate=0.25))
    found = sensitivity(short, bound=Dynamite(), quantities=["learning_rate"])
    upwards, downwards = found.changes
    assert upwards.allocation is None and math.isnan(upwards.gain)
    assert "learning_rate" in upwards.reason and upwards.reason in str(found)
    assert downwards.allocation is not None


def test_more_samples_than_a_device_holds_cannot_be_drawn_without_replacement():
    fleet = replace(PROBLEM.fleet, replacement=False)
    found = sensitivity(
        replace(PROBLEM, fleet=fleet), bound=Dynamite(), quantities=["max_batch"], devices=[0]
    )
    assert "without replacement" in found.changes[0].reason


def test_rows_have_the_same_columns_and_go_to_a_file(tmp_path):
    found = sensitivity(PROBLEM, bound=Dynamite(), quantities=["cost", "initial_gap"])
    rows = found.to_rows()
    assert len(rows) == len(found.changes) == 3
    assert len({tuple(row) for row in rows}) == 1
    found.to_csv(tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    assert all(change.quantity in str(found) for change in found.changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantities": ["money"]}, "'money' is unknown"),
        ({"quantities": ["lipschitz", "coupling"]}, "cannot change coupling"),
        ({"quantities": ["cost"], "objective": "cost", "target_error": 1.0}, "the objective itself"),
        ({"relative": 1.0}, "must be below 1"),
        ({"relative": 0.0}, "relative = 0.0"),
        ({"extra_time": -1.0}, "extra_time = -1.0"),
        ({"devices": [99]}, "99 is not a device"),
        ({"devices": [-1]}, "devices[0] = -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InvalidProblemError) as caught:
        sensitivity(PROBLEM, bound=Dynamite(), **arguments)
    assert message in str(caught.value)
