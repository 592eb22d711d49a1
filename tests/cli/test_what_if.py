"""What the page computes is what the library says, and what it offers to take away gives the same plan."""

from __future__ import annotations

import csv
import io
import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import coopt
from coopt import (
    Allocation,
    Budget,
    Fleet,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    Problem,
    Schedule,
    evaluate,
    leave_out,
    measure,
    solve_allocation,
    solve_schedule,
)
from coopt.cli import example_problem
from coopt.cli.explore import charts, shown_rows, take_away, what_if
from coopt.cli.explore.open_case import open_case
from coopt.cli.explore.what_if import Case, Setting

DATA = Path(coopt.__file__).parent / "data"
FLEET, JOB = str(DATA / "fleet.csv"), str(DATA / "job.toml")


@pytest.fixture(scope="module")
def proved() -> Case:
    return open_case(FLEET, JOB, "certified")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Four devices with quadratic losses, measured."""
    rng = np.random.default_rng(3)
    clients = [rng.normal(loc=center, size=(60, 3)) for center in (0.0, 0.3, 0.6, 1.0)]

    def gradient(model, x):
        return float(((model - x) ** 2).sum() / (2 * len(x))), (model - x).mean(axis=0)

    folder = tmp_path_factory.mktemp("measured")
    found = measure(gradient, np.full(3, 4.0), clients, rows=8, directions=3, progress=False)
    found = replace(found, names=("a", "b", "c", "d"))
    fleet = found.fleet(throughput=40.0, round_time=1.0)
    fleet.to_csv(folder / "fleet.csv")
    found.save(folder / "measurement.npz")
    (folder / "job.toml").write_text(
        "[constants]\nlearning_rate = 0.3\nsmoothness = 1.0\ninitial_gap = 20.0\n"
        "[budget]\ncost = 3000\ntime = 200\nround_cost = 10\n"
    )
    files = (folder / "fleet.csv", folder / "job.toml", folder / "measurement.npz")
    return open_case(str(files[0]), str(files[1]), "certified", str(files[2]))


def test_a_setting_s_plan_is_the_library_s(proved: Case) -> None:
    problem = example_problem()
    setting = replace(what_if.start(proved), cost=1e6, learning_rate=0.05)
    changed = replace(
        problem,
        constants=replace(problem.constants, learning_rate=0.05),
        budget=replace(problem.budget, cost=1e6),
    )
    assert what_if.solve(proved, setting).plan == solve_allocation(changed)
    assert what_if.solve(proved, what_if.start(proved)).plan == solve_allocation(problem)


def test_devices_left_out_and_phases(measured: Case) -> None:
    setting = replace(what_if.start(measured), left_out=(1,))
    rest = leave_out(measured.problem, [1])
    assert isinstance(measured.forecast, Forecast)
    judge = measured.forecast.restricted([0, 2, 3])
    assert what_if.solve(measured, setting).plan == solve_allocation(rest, bound=judge)
    two = what_if.solve(measured, replace(what_if.start(measured), phases=2)).plan
    assert two == solve_schedule(measured.problem, measured.forecast, phases=2)
    assert isinstance(two, Schedule)
    with pytest.raises(InvalidProblemError, match="nobody"):
        what_if.solve(measured, replace(setting, left_out=(0, 1, 2, 3)))
    with pytest.raises(InfeasibleError, match="cost"):
        what_if.solve(measured, replace(setting, cost=1.0))


def test_sliders_stand_at_the_job_and_move_around_it(proved: Case, measured: Case) -> None:
    for case in (proved, measured):
        now, ranges = what_if.start(case), what_if.choices(case)
        for values, value in (
            (ranges.cost, now.cost),
            (ranges.time, now.time),
            (ranges.learning_rate, now.learning_rate),
        ):
            assert value in values
            assert list(values) == sorted(set(values))
    assert what_if.choices(proved).phases == (1,)
    assert what_if.choices(measured).phases == (1, 2, 3)
    assert measured.forecast is not None
    assert max(what_if.choices(measured).learning_rate) < measured.forecast.largest_rate


def test_a_job_without_a_limit_gets_one_to_try(proved: Case) -> None:
    problem = proved.problem
    free = replace(proved, problem=replace(problem, budget=replace(problem.budget, cost=math.inf)))
    costs = what_if.choices(free).cost
    assert costs[-1] == math.inf
    assert costs[0] < solve_allocation(free.problem).cost < costs[-2]
    instant = Problem(Fleet([60, 20], 4.0, 0.1), problem.constants, Budget(cost=2000))
    assert what_if.choices(Case(instant, "certified", None, "x.csv")).time == (math.inf,)


def test_the_curve_ends_at_the_plan(proved: Case, measured: Case) -> None:
    settings = ((proved, 1), (measured, 1), (measured, 3))
    for case, phases in settings:
        plan = what_if.solve(case, replace(what_if.start(case), phases=phases)).plan
        rows = shown_rows.curve_rows(plan)
        assert [row["round"] for row in rows] == sorted({row["round"] for row in rows})
        last = rows[-1]
        assert last["error"] == pytest.approx(plan.predicted_error, rel=1e-9)
        assert (last["time"], last["cost"]) == pytest.approx((plan.time, plan.cost))
        assert last["round"] == plan.rounds
    assert measured.forecast is not None
    assert rows[0] == {
        "round": 0,
        "time": 0.0,
        "cost": 0.0,
        "error": pytest.approx(measured.forecast.initial_gap),
    }


def test_limits_are_those_of_the_plan(proved: Case, measured: Case) -> None:
    plan = what_if.solve(proved, what_if.start(proved)).plan
    assert isinstance(plan, Allocation)
    rows = {row["limit"]: row for row in shown_rows.limit_rows(plan)}
    assert {name for name, row in rows.items() if row["binds"]} == set(plan.binding)
    assert rows["cost"]["used"] == plan.cost and rows["time"]["allowed"] == 3600
    assert rows["cost"]["price"] == plan.shadow_prices["cost"]
    more = {row["limit"]: row for rows in shown_rows.more_rows(plan, "certified") for row in rows}
    budget = replace(plan.problem.budget, cost=plan.problem.budget.cost * 1.01)
    better = solve_allocation(replace(plan.problem, budget=budget))
    assert more["cost"]["gain"] == pytest.approx(plan.error_bound - better.error_bound)
    schedule = what_if.solve(measured, replace(what_if.start(measured), phases=2)).plan
    assert [row["limit"] for row in shown_rows.limit_rows(schedule)] == ["cost", "time"]


def test_the_landscape_is_lowest_at_the_plan(measured: Case) -> None:
    plan = what_if.solve(measured, what_if.start(measured)).plan
    assert isinstance(plan, Allocation)
    rows = [row for column in shown_rows.landscape_rows(plan) for row in column]
    values = {(row["rounds"], row["local steps"]): row["error"] for row in rows if row["error"] is not None}
    # Batches are relaxed to real numbers here, so a cell may lie a little below the best whole plan.
    assert min(values.values()) >= plan.predicted_error * 0.97
    assert values[plan.rounds, plan.local_steps] <= plan.predicted_error * (1.0 + 1e-9)


def test_a_trade_off_forgets_where_its_own_slider_stands(measured: Case) -> None:
    ranges, now = what_if.choices(measured), what_if.start(measured)
    one, other = (
        [row for rows in shown_rows.trade_rows(measured, setting, "cost", ranges.cost) for row in rows]
        for setting in (now, replace(now, cost=ranges.cost[0]))
    )
    assert one == other
    errors = [row["error"] for row in one]
    assert errors == sorted(errors, reverse=True) and len(errors) > 3
    for row in (one[0], one[-1]):
        plan = what_if.solve(measured, replace(now, cost=row["value"])).plan
        assert plan.predicted_error == row["error"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"cost": 1234.0, "learning_rate": 0.2},
        {"phases": 2},
        {"left_out": (0, 2)},
        {"left_out": (3,), "phases": 2},
        {"time": math.inf},
    ],
)
def test_the_lines_of_python_give_the_plan(measured: Case, change: dict[str, object], tmp_path: Path) -> None:
    setting = replace(what_if.start(measured), **change)
    plan = what_if.solve(measured, setting).plan
    assert run(take_away.python_lines(measured, setting), tmp_path) == plan


def run(lines: str, folder: Path) -> object:
    """The plan that lines of Python give, away from the page."""
    script = folder / "lines.py"
    script.write_text(lines, encoding="utf-8")
    return runpy.run_path(str(script))["plan"]


def test_the_lines_of_python_for_a_bound(
    proved: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = replace(what_if.start(proved), cost=5e5, left_out=(3, 7))
    plan = what_if.solve(proved, setting).plan
    assert run(take_away.python_lines(proved, setting), tmp_path) == plan
    assert str(plan) in capsys.readouterr().out


def test_files_to_take_away(measured: Case, tmp_path: Path) -> None:
    setting = replace(what_if.start(measured), left_out=(1,))
    plan = what_if.solve(measured, setting).plan
    assert isinstance(plan, Allocation)
    rows = list(csv.DictReader(io.StringIO(take_away.plan_csv(measured, setting, plan))))
    assert [row["device"] for row in rows] == ["a", "c", "d"]
    assert [int(row["batch_size"]) for row in rows] == plan.batch_sizes.tolist()
    assert int(rows[0]["rounds"]) == plan.rounds and float(rows[0]["learning_rate"]) == 0.3
    (tmp_path / "problem.toml").write_text(take_away.problem_toml(plan.problem))
    assert Problem.from_toml(tmp_path / "problem.toml") == plan.problem
    assert Allocation.from_json(plan.to_json()) == plan


def test_what_says_little_is_said(proved: Case) -> None:
    assert what_if.solve(proved, what_if.start(proved)).cautions == ()
    problem = proved.problem
    near = replace(problem, constants=replace(problem.constants, initial_gap=1e-4))
    (caution,) = what_if.solve(replace(proved, problem=near), what_if.start(proved)).cautions
    assert caution.startswith("initial_gap = 0.0001 is below the error floor")


def test_files_that_do_not_fit_are_refused(measured: Case, tmp_path: Path) -> None:
    other = tmp_path / "fleet.csv"
    replace(measured.problem.fleet, names=list("abdc")).to_csv(other)
    job = Path(measured.fleet_file).with_name("job.toml")
    with pytest.raises(InvalidProblemError, match="device 2 is 'c'"):
        open_case(str(other), str(job), "certified", measured.measurement_file)
    fast = tmp_path / "fast.toml"
    fast.write_text(job.read_text().replace("0.3", "30.0"))
    with pytest.raises(InvalidProblemError, match="unstable"):
        open_case(measured.fleet_file, str(fast), "certified", measured.measurement_file)


def test_charts_hold_what_they_draw_and_say_it_in_words(measured: Case) -> None:
    setting = Setting(
        *(getattr(what_if.start(measured), name) for name in ("cost", "time", "learning_rate")), 2
    )
    plan = what_if.solve(measured, setting).plan
    batches = charts.batches(shown_rows.batch_rows(measured, setting, plan))
    drawn = batches["layer"][1]["data"]["values"]
    assert [(row["phase"], row["batch"]) for row in drawn] == [
        (place + 1, int(batch)) for place, phase in enumerate(plan.phases) for batch in phase.batch_sizes
    ]
    curve = charts.curve(shown_rows.curve_rows(plan), "Forecast error")
    alone = solve_allocation(measured.problem, bound=measured.forecast)
    cells = [row for rows in shown_rows.landscape_rows(alone) for row in rows]
    where = {"rounds": alone.rounds, "local steps": alone.local_steps}
    landscape = charts.landscape(cells, where, "Forecast error")
    trade = charts.trade([{"value": 1.0, "error": 2.0}, {"value": 3.0, "error": 1.0}], 2.0, "cost", "Error")
    for chart in (batches, curve, landscape, trade):
        assert len(chart["description"]) > 30
        # What a page is sent must be JSON without NaN.
        json.dumps(chart, allow_nan=False)
    assert f"{plan.predicted_error:.4g}" in curve["description"]
    assert "2 at 1, 1 at 3" in trade["description"]


def test_many_devices_are_ordered_by_their_batches() -> None:
    rng = np.random.default_rng(0)
    fleet = Fleet(samples=rng.integers(50, 500, size=60), gradient_noise=4.0, divergence=0.1)
    problem = Problem(fleet, example_problem().constants, Budget(cost=1e5, round_cost=100))
    case = Case(problem, "certified", None, "fleet.csv")
    plan = evaluate(problem, 20, 1, fleet.samples // 10)
    chart = charts.batches(shown_rows.batch_rows(case, what_if.start(case), plan))
    drawn = [row["batch"] for row in chart["layer"][1]["data"]["values"]]
    assert drawn == sorted(drawn, reverse=True) and len(drawn) == 60


def test_a_first_plan_in_phases_is_near_the_last_and_fits(measured: Case) -> None:
    before = what_if.solve(measured, replace(what_if.start(measured), phases=2)).plan
    setting = replace(what_if.start(measured), cost=3500.0, phases=2)
    told: list[int] = []
    best = what_if.solve(measured, setting, progress=told.append).plan
    first = what_if.solve(measured, setting, near=before).plan
    assert isinstance(first, Schedule) and first.cost <= 3500.0
    assert first.predicted_error < 1.1 * best.predicted_error
    assert told[-1] > 10
