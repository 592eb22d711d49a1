"""`coopt demo` trains what it compares, and leaves files that the other commands take."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from command_line import run
from coopt import Budget, Measurement, Schedule


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_demo_trains_what_it_compares_and_proves_what_it_plans(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coopt.cli.demo.LIMITS", Budget(cost=12_000, time=700.0, max_local_steps=12))
    files = ("--json", tmp_path / "demo.json", "--csv", tmp_path / "demo.csv", "--save", tmp_path)
    assert run("demo", "--plot", tmp_path / "demo.png", *files) == 0
    out = capsys.readouterr().out
    for expected in (
        "measured and planned",
        "5 epochs of batch 32",
        "best proved bound",
        "FedAvg",
        "proved optimal",
    ):
        assert expected in out
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    with (tmp_path / "demo.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [
        row["label"] for row in json.loads((tmp_path / "demo.json").read_text())["rows"]
    ]

    fleet, job, measurement = (tmp_path / name for name in ("fleet.csv", "job.toml", "measurement.npz"))
    assert len(Measurement.load(measurement)) == 24
    assert run("plan", fleet, job, "--measurement", measurement, "--csv", "-") == 0
    (planned,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert planned["rounds"] == rows[0]["rounds"] and planned["local_steps"] == rows[0]["local_steps"]

    made = tmp_path / "schedule.json"
    assert run("schedule", fleet, job, "--measurement", measurement, "--json", made) == 0
    schedule = Schedule.from_json(made.read_text())
    assert "phase" in capsys.readouterr().out
    assert run("simulate", "--plan", made, "--csv", "-") == 0
    *_, last = csv.DictReader(capsys.readouterr().out.splitlines())
    assert int(last["round"]) == schedule.rounds
    assert float(last["cost"]) == pytest.approx(schedule.cost)


def test_a_folder_that_is_not_there_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", "--save", tmp_path / "nowhere") == 2
    assert "must be a folder that exists" in capsys.readouterr().err
