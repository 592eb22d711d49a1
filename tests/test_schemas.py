"""The schemas in the reference are current, and what coopt writes and ships meets them."""

from __future__ import annotations

import importlib
import json
import math
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import coopt
from coopt import (
    Allocation,
    Budget,
    ClientReport,
    Constants,
    Fleet,
    Forecast,
    LocalModel,
    Problem,
    Schedule,
    solve_allocation,
    solve_schedule,
)
from coopt.cli import example_problem
from coopt.measuring.report import HalfBatches, SameBatchPair

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference" / "schemas"


def validator(name: str):
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def complaints(name: str, content: object) -> list[str]:
    return [error.message for error in validator(name).iter_errors(content)]


def forecast_and_problem() -> tuple[Forecast, Problem]:
    model = LocalModel(
        weights=[0.5, 0.5],
        gradients=[[1.0, 0.2], [1.0, -0.2]],
        curvatures=[np.diag([1.0, 0.5]), np.diag([1.0, 0.1])],
        covariances=[4.0 * np.eye(2)] * 2,
        samples=[2000, 2000],
    )
    fleet = Fleet([2000, 2000], 8.0, 0.2, names=["a", "b"], batch_multiple=2)
    return Forecast(model), Problem(fleet, Constants(0.2, 1.0, 0.5), Budget(cost=20_000, round_cost=5))


def test_schemas_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpydoc")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    written = importlib.import_module("write_schemas").schemas()
    sys.modules.pop("write_schemas")
    assert {path.name for path in FOLDER.glob("*")} == {f"{name}.schema.json" for name in written}
    for name, schema in written.items():
        kept = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert kept == schema, "docs/reference/schemas is out of date: run python tools/write_schemas.py"


def test_jobs() -> None:
    shipped = (Path(coopt.__file__).parent / "data" / "job.toml").read_text(encoding="utf-8")
    assert complaints("job", tomllib.loads(shipped)) == []
    with_units = tomllib.loads(shipped)
    with_units["budget"] |= {"time": "1h 30min", "cost": "5 epochs"}
    assert complaints("job", with_units) == []
    with_units["budget"]["rounds"] = 3
    del with_units["constants"]["smoothness"]
    assert [message.split()[0] for message in complaints("job", with_units)] == ["'smoothness'", "Additional"]


@pytest.mark.parametrize("beside", [{}, {"batch_choices": [[8, 16]] * 24, "replacement": False}])
def test_problems(tmp_path: Path, beside: dict[str, object]) -> None:
    problem = example_problem()
    problem = replace(problem, fleet=replace(problem.fleet, **beside))
    path = tmp_path / "problem.toml"
    problem.to_toml(path)
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert complaints("problem", content) == []
    for fleet in (
        "fleet.csv",
        {"csv": "fleet.csv", "replacement": False},
        {**content["fleet"], "divergence": 0.1},
    ):
        assert complaints("problem", {**content, "fleet": fleet}) == []
    assert complaints("problem", {**content, "fleet": {"sample": [1]}}) != []


def test_plans() -> None:
    forecast, problem = forecast_and_problem()
    bounded = solve_allocation(example_problem())
    by_time = solve_allocation(example_problem(), objective="time", target_error=0.2, local_steps=4)
    forecasts = solve_allocation(problem, bound=forecast)
    for plan in (bounded, by_time, forecasts):
        content = json.loads(plan.to_json())
        assert complaints("plan", content) == []
        assert Allocation.from_dict(content) == plan
        wrong = {**content, "batch_sizes": [1.5] * len(content["batch_sizes"])}
        assert len(complaints("plan", wrong)) == len(content["batch_sizes"])
    nameless = json.loads(bounded.to_json())
    del nameless["error_bound"]
    assert complaints("plan", nameless) != []


def test_schedules() -> None:
    forecast, problem = forecast_and_problem()
    for schedule in (
        solve_schedule(problem, forecast, phases=2),
        solve_schedule(problem, forecast, phases=1, learning_rate="auto"),
    ):
        content = json.loads(schedule.to_json())
        assert complaints("schedule", content) == []
        assert Schedule.from_dict(content) == schedule
        del content["phases"][0]["rounds"]
        assert complaints("schedule", content) != []


def test_reports() -> None:
    plain = ClientReport(3, 0, 500, 5, 8, 40, loss=0.7, seconds_computing=0.2)
    full = replace(
        plain,
        loss=math.nan,
        cost=4.0,
        halves=HalfBatches(4, 4, math.inf, 0.1),
        pair=SameBatchPair(0.1, 0.2, 0.3, 0.4, 0.5),
        gradient=[0.0, math.nan],
        change=[1.0, 2.0],
    )
    for report in (plain, full):
        content = json.loads(report.to_json())
        assert complaints("report", content) == []
        assert ClientReport.from_json(json.dumps(content)) == report
    assert complaints("report", {**json.loads(plain.to_json()), "loss": "much"}) != []


def test_optimisers_are_named() -> None:
    forecast, problem = forecast_and_problem()
    clients = coopt.Optimiser(client=coopt.ClientSGD(momentum=0.5))
    plan = solve_allocation(problem, bound=replace(forecast, optimiser=clients))
    content = json.loads(plan.to_json())
    assert "optimiser" in content["forecast"] and complaints("plan", content) == []
