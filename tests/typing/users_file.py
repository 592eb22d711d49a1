"""What a user writes, for type checkers: each line says which type it expects."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

import numpy as np
from numpy.typing import NDArray

import coopt
from coopt import (
    Allocation,
    Budget,
    Certificate,
    Constants,
    Controller,
    Fleet,
    Forecast,
    Frontier,
    Measurement,
    Problem,
    RoundPlan,
    Schedule,
    Solutions,
    Stopped,
)
from coopt.adapters.fixed_plan import FixedPlan

if TYPE_CHECKING:
    import polars as pl


def plan(fleet: Fleet) -> Allocation:
    constants = Constants(learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.02)
    problem = Problem(fleet, constants, Budget(cost=5 * fleet.epoch_cost, time=timedelta(hours=1)))
    allocation = coopt.solve_allocation(problem, bound="certified", learning_rate="auto")
    assert_type(allocation, Allocation)
    assert_type(allocation.rounds, int)
    assert_type(allocation.batch_sizes, NDArray[np.int64])
    assert_type(allocation.certify(), Certificate)
    assert_type(coopt.frontier(problem, values=[1.0, 2.0]), Frontier)
    assert_type(coopt.solve_many({"it": problem}), Solutions)
    return allocation


def schedule(problem: Problem, measurement: Measurement) -> Schedule:
    forecast = measurement.forecast()
    assert_type(forecast, Forecast)
    found = coopt.solve_schedule(problem, forecast, phases=2)
    assert_type(found.curve(), NDArray[np.float64])
    assert_type(FixedPlan.from_schedule(found), FixedPlan)
    return found


def serve(controller: Controller) -> Stopped:
    while isinstance(next_round := controller.plan(), RoundPlan):
        assert_type(next_round.local_steps, int)
        controller.observe([])
    return next_round


def table(allocation: Allocation) -> pl.DataFrame:
    return allocation.to_dataframe("polars")


fleet = Fleet(samples=[600, 200], gradient_noise=4.0, divergence=0.1, names=["phone", "board"])
budget = Budget(time="1h 30min")
