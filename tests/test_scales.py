"""Units are the user's: at 1e-308 or 1e308 of them plans are found or refused, and numpy warns of nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Budget,
    ClientReport,
    Constants,
    Controller,
    CooptError,
    Fleet,
    Problem,
    Stopped,
    TradeOff,
    allocate_batches,
    choose_cohort,
    choose_participants,
    evaluate,
    frontier,
    leave_out,
    sensitivity,
    solve_allocation,
)
from coopt.problem.exact_sum import exact_sum

LARGEST = 1.7e308
ENDS = [5e-324, 2.3e-308, LARGEST]
scale = st.one_of(
    st.floats(-2.0, 2.0).map(lambda power: 10.0**power),
    st.floats(-150.0, 150.0).map(lambda power: 10.0**power),
    st.floats(-306.0, 306.0).map(lambda power: 10.0**power),
    st.sampled_from(ENDS),
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Any units of loss, noise, time and cost; the learning rate is one that the bounds allow."""
    devices = draw(st.integers(1, 4))
    several = st.lists(scale, min_size=devices, max_size=devices)
    smoothness = draw(scale)
    nothing_or = st.one_of(st.just(0.0), scale)
    energy = draw(st.one_of(st.just(math.inf), scale))
    fleet = Fleet(
        draw(st.lists(st.integers(1, 200), min_size=devices, max_size=devices)),
        draw(several),
        draw(st.one_of(several, st.just(0.0))),
        throughput=draw(several),
        round_time=draw(nothing_or),
        sample_cost=draw(several),
        sample_energy=0.0 if energy == math.inf else draw(several),
        step_time=draw(nothing_or),
        step_noise=draw(nothing_or),
    )
    try:
        constants = Constants(
            draw(st.floats(0.01, 1.0)) / smoothness,
            smoothness,
            draw(scale),
            pl_constant=smoothness * 10 ** draw(st.floats(-6.0, 0.0)),
            curvature_floor=draw(st.sampled_from([None, 0.0])),
            gradient_bias=draw(nothing_or),
        )
    except (CooptError, ZeroDivisionError):
        assume(False)
    budget = Budget(
        cost=min(draw(scale) * 100, LARGEST),
        time=draw(st.one_of(st.just(math.inf), scale)),
        energy=energy,
        round_cost=draw(nothing_or),
        max_rounds=draw(st.integers(1, 40)),
        max_local_steps=draw(st.integers(1, 5)),
    )
    return Problem(fleet, constants, budget)


def three_rounds(problem: Problem) -> None:
    """Train with reports that hold the problem's own odd numbers."""
    fleet = problem.fleet
    controller = Controller(fleet, problem.budget, problem.constants.learning_rate)
    for each in range(3):
        plan = controller.plan()
        if isinstance(plan, Stopped):
            return
        reports = [
            ClientReport(
                client=i,
                round=each,
                samples=int(fleet.samples[i]),
                local_steps=plan.local_steps,
                batch_size=int(plan.batch_sizes[i]),
                samples_processed=int(plan.local_steps * plan.batch_sizes[i]),
                loss=float(fleet.gradient_noise[i]),
                seconds_computing=float(fleet.throughput[i]),
                cost=float(fleet.sample_cost[-1 - i]),
            )
            for i in range(len(fleet))
        ]
        controller.observe(reports, seconds=problem.constants.initial_gap if each else None)


def written_and_read(problem: Problem) -> None:
    plan = solve_allocation(problem)
    assert Allocation.from_json(plan.to_json()).rounds == plan.rounds
    assert str(plan) and repr(plan)


QUESTIONS: dict[str, Callable[[Problem], Any]] = {
    "evaluate": lambda problem: evaluate(problem, 3, 2, 1),
    "dynamite": lambda problem: solve_allocation(problem, bound="dynamite"),
    "nonconvex": lambda problem: solve_allocation(problem, bound="nonconvex"),
    "trade-off": lambda problem: evaluate(problem, 3, 2, 1, bound=TradeOff()),
    "closed form": lambda problem: solve_allocation(problem, bound="dynamite", solver="closed_form"),
    "certify": lambda problem: solve_allocation(problem).certify(),
    "certify deep": lambda problem: solve_allocation(problem).certify(deep=True),
    "file": written_and_read,
    "cheapest": lambda problem: solve_allocation(
        problem, objective="cost", target_error=problem.constants.initial_gap
    ),
    "sensitivity": lambda problem: sensitivity(problem, quantities=["cost"]),
    "frontier": lambda problem: frontier(problem, values=[problem.budget.cost / 2, problem.budget.cost]),
    "participants": lambda problem: choose_participants(
        replace(problem, budget=replace(problem.budget, time=math.inf, energy=math.inf, max_rounds=4))
    ),
    "cohort": choose_cohort,
    "leave out": lambda problem: leave_out(problem, devices=[0]),
    "batches": lambda problem: allocate_batches(
        problem.fleet.gradient_noise, problem.fleet.sample_cost, problem.budget.cost, 1, problem.fleet.samples
    ),
    "controller": three_rounds,
}


@pytest.mark.parametrize("question", QUESTIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(problem=problems())
def test_numpy_warns_of_nothing_at_any_scale(question: str, problem: Problem) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        try:
            QUESTIONS[question](problem)
        except CooptError:
            return


LEGAL = {
    "gradient_noise": [LARGEST] * 3,
    "divergence": [LARGEST] * 3,
    "round_time": [LARGEST] * 3,
    "sample_cost": [LARGEST] * 3,
    "step_cost": [LARGEST] * 3,
    "round_cost": [LARGEST] * 3,
    "step_time": [LARGEST] * 3,
    "step_noise": [LARGEST] * 3,
    "throughput": [5e-324] * 3,
    "weights": [LARGEST] * 3,
}


@pytest.mark.parametrize("name", LEGAL)
def test_fleets_at_the_end_of_floats_are_planned_or_refused(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        try:
            fleet = Fleet([60, 20, 30], **({"gradient_noise": 4.0, "divergence": 0.1} | {name: LEGAL[name]}))
            budget = Budget(cost=LARGEST, time=LARGEST, max_rounds=3, max_local_steps=2)
            constants = Constants(0.1, 1.0, 2.0, pl_constant=0.1)
            Controller(fleet, budget, 0.1).plan()
            plan = solve_allocation(Problem(fleet, constants, budget))
        except CooptError:
            return
    assert plan.cost <= LARGEST and plan.time <= LARGEST


def test_a_sum_beyond_floats_is_infinite() -> None:
    assert exact_sum([LARGEST, LARGEST]) == math.inf
    assert exact_sum(np.array([-LARGEST, -LARGEST])) == -math.inf
    assert exact_sum([LARGEST, LARGEST, -LARGEST]) == LARGEST
    assert exact_sum([1e16, 1.0, -1e16]) == 1.0
