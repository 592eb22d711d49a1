"""A plan as rows: one a device, and together what the plan says of itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Constants,
    Fleet,
    Forecast,
    LocalModel,
    Phase,
    Problem,
    evaluate,
    evaluate_schedule,
)
from fleets import random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 5))
def test_the_rows_of_a_plan_add_up_to_it(seed, rounds, steps):
    whole = random_problem(seed)
    problem = Problem(whole.fleet, whole.constants, Budget(round_cost=whole.budget.round_cost))
    plan = evaluate(problem, rounds, steps, problem.fleet.batch_range()[0], "dynamite")
    rows = plan.to_rows()
    assert [row["batch_size"] for row in rows] == plan.batch_sizes.tolist()
    server = rounds * problem.budget.round_cost
    assert math.fsum([server, *(row["cost"] for row in rows)]) == pytest.approx(plan.cost, rel=1e-12)
    assert max(row["seconds"] for row in rows) == pytest.approx(plan.time, rel=1e-12)


def test_the_rows_of_a_schedule_name_phase_and_device(tmp_path):
    model = LocalModel([0.5, 0.5], [[1.0], [0.5]], [[[1.0]], [[0.5]]], [[[4.0]], [[1.0]]], samples=[100, 50])
    fleet = Fleet([100, 50], 4.0, 0.2, throughput=10.0, names=["phone", "board"])
    problem = Problem(fleet, Constants(0.2, 1.0, 0.5), Budget())
    phases = [Phase(20, 5, [8, 4], learning_rate=0.2), Phase(10, 2, [16, 12], learning_rate=0.1)]
    schedule = evaluate_schedule(problem, Forecast(model), phases)
    rows = schedule.to_rows()
    assert [(row["phase"], row["device"], row["batch_size"]) for row in rows] == [
        (1, "phone", 8),
        (1, "board", 4),
        (2, "phone", 16),
        (2, "board", 12),
    ]
    assert math.fsum(row["cost"] for row in rows) == pytest.approx(schedule.cost, rel=1e-12)
    schedule.to_csv(tmp_path / "schedule.csv")
    with (tmp_path / "schedule.csv").open() as stream:
        assert stream.readline().startswith("phase,rounds,local_steps,learning_rate,device,batch_size")


def test_the_rows_of_a_simulated_run_start_before_the_first_round():
    from coopt.adapters.fixed_plan import FixedPlan
    from coopt.adapters.simulated import Softmax, digits, simulate
    from coopt.adapters.system import SystemModel

    federation, model = digits(devices=3), Softmax(64, 10)
    fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
    plan = FixedPlan(fleet, rounds=2, local_steps=2, batch_sizes=4, learning_rate=0.5)
    system = SystemModel(np.full(3, 100.0))
    run = simulate(plan, model.gradient, model.start(), federation.clients, system=system, progress=False)
    rows = run.to_rows()
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert [row["loss"] for row in rows] == run.losses.tolist()
    assert [row["cost"] for row in rows] == [0.0, 24.0, 48.0]
