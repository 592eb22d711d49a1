"""Units are the user's: at 1e-150 or 1e150 of them plans are found or refused, and numpy warns of nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    CooptError,
    Fleet,
    Problem,
    TradeOff,
    evaluate,
    frontier,
    sensitivity,
    solve_allocation,
)

scale = st.one_of(st.floats(-2.0, 2.0), st.floats(-150.0, 150.0)).map(lambda power: 10.0**power)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Any units of loss, noise, time and cost; the learning rate is one that the bounds allow."""
    devices = draw(st.integers(1, 4))
    several = st.lists(scale, min_size=devices, max_size=devices)
    smoothness = draw(scale)
    fleet = Fleet(
        draw(st.lists(st.integers(1, 200), min_size=devices, max_size=devices)),
        draw(several),
        draw(st.one_of(several, st.just(0.0))),
        throughput=draw(several),
        round_time=draw(st.one_of(st.just(0.0), scale)),
        sample_cost=draw(several),
        step_time=draw(st.one_of(st.just(0.0), scale)),
    )
    constants = Constants(
        draw(st.floats(0.01, 1.0)) / smoothness,
        smoothness,
        draw(scale),
        pl_constant=smoothness * 10 ** draw(st.floats(-6.0, 0.0)),
        curvature_floor=draw(st.sampled_from([None, 0.0])),
    )
    budget = Budget(
        cost=draw(scale) * 100,
        time=draw(st.one_of(st.just(math.inf), scale)),
        round_cost=draw(st.one_of(st.just(0.0), scale)),
        max_rounds=draw(st.integers(1, 40)),
        max_local_steps=draw(st.integers(1, 5)),
    )
    return Problem(fleet, constants, budget)


QUESTIONS: dict[str, Callable[[Problem], Any]] = {
    "evaluate": lambda problem: evaluate(problem, 3, 2, 1),
    "dynamite": lambda problem: solve_allocation(problem, bound="dynamite"),
    "trade-off": lambda problem: evaluate(problem, 3, 2, 1, bound=TradeOff()),
    "closed form": lambda problem: solve_allocation(problem, bound="dynamite", solver="closed_form"),
    "certify": lambda problem: solve_allocation(problem).certify(),
    "sensitivity": lambda problem: sensitivity(problem, quantities=["cost"]),
    "frontier": lambda problem: frontier(problem, values=[problem.budget.cost / 2, problem.budget.cost]),
}


@pytest.mark.parametrize("question", QUESTIONS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(problem=problems())
def test_numpy_warns_of_nothing_at_any_scale(question: str, problem: Problem) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        try:
            QUESTIONS[question](problem)
        except CooptError:
            return
