"""One small piece of every table on controllers is measured anew, and shows what the table is to show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.online import (
    attacks,
    closed_loop,
    estimators,
    faults,
    honest_answers,
    logcosh,
    long_run,
    lying_answers,
    replan,
    report_noise,
)
from coopt import Budget
from coopt.adapters.simulated import digits


@pytest.fixture(scope="module")
def problem() -> logcosh.Instance:
    """An instance of the tables, of which some rounds are run."""
    drawn = logcosh.instance(100, jump=True)
    return replace(drawn, budget=replace(drawn.budget, max_rounds=5))


def gap_at_start(problem: logcosh.Instance) -> float:
    return float(problem.loss(problem.start)) - problem.minimum()


@pytest.mark.parametrize("name", ["horizon", "AdaCoOpt", "Dynamic-batch"])
def test_policies_of_the_closed_loop_lower_the_loss(problem: logcosh.Instance, name: str) -> None:
    setting = closed_loop.DEFAULTS.get(name, ())
    row = closed_loop.regret(problem, name, setting, 100, gap_at_start(problem))
    assert 0.0 < float(str(row["regret"])) < 1.0
    assert row["rounds"] == 5
    assert float(str(row["cost_used"])) < 1.0


@pytest.mark.parametrize("scenario", ["none", "all"])
def test_faults_are_named_and_the_loss_falls(problem: logcosh.Instance, scenario: str) -> None:
    simulation, controller, _, ignored = faults.run(problem, 100, scenario)
    dropout = 0.0 if scenario == "none" else faults.DROPOUT
    error = logcosh.expected_error(problem, simulation.history, 20, 1, dropout)
    assert 0.0 < error < gap_at_start(problem)
    assert controller.round == 5
    # Each liar is named for several of its numbers.
    assert (ignored > controller.round) == (scenario == "all")


def test_clients_that_send_no_numbers_are_named_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Budget(cost=3000, time=4, round_cost=attacks.ROUND_COST)
    monkeypatch.setitem(attacks.LIMITS, "small", small)
    row = attacks.run("not a number", 0, "small", "after")
    assert float(str(row["liars_named"])) == 1.0
    assert float(str(row["honest_named"])) < 0.05
    assert float(str(row["cost"])) <= 1.0
    start = attacks.Federation(0).expected_gap()
    assert 0.0 < float(str(row["gap"])) < start


@pytest.mark.parametrize("streaming", [False, True])
def test_corrected_estimates_are_near_the_truth(monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setattr(estimators, "ROUNDS", 12)
    images, labels = zip(*digits(8).clients, strict=True)
    task = estimators.Task("digits", list(images), list(labels), 10, "logistic", 0.5)
    rows = estimators.run(task, streaming=streaming)
    assert {row["quantity"] for row in rows} == set(estimators.QUANTITIES)
    for name in ("noise M", "divergence d_h", "smoothness beta"):
        late = [row for row in rows if row["quantity"] == name][-4:]
        ratios = [float(str(row["corrected"])) / float(str(row["truth"])) for row in late]
        assert 0.5 < np.median(ratios) < 2.0


@pytest.mark.parametrize(("name", "left_out"), [("none", "0%"), ("gradients x -5", "100%")])
def test_a_measurement_leaves_out_who_lies(name: str, left_out: str) -> None:
    row = lying_answers.judged(name, range(1))
    assert row["liars left out"] == left_out
    assert row["others left out"] == "0.0%"
    assert 0.999 < float(str(row["loss over the honest plan"])) < 1.5


def test_honest_devices_with_one_class_each_are_believed() -> None:
    model, _ = honest_answers.MODELS["softmax"]
    clients = honest_answers.FEDERATIONS["one class"]
    assert {len(set(labels.tolist())) for _, labels in clients} <= {1, 2}
    assert honest_answers.left_out(model, model.start(), clients, 0) == 0


def test_estimates_with_little_noise_on_reports_are_near_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_noise, "DEVICES", 12)
    found = report_noise.run(1e5, 0)
    assert all(0.5 < value < 2.0 for value in found.values())


def test_the_long_run_goes_on_where_it_ended_and_its_account_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CLIENTS": 10, "EVERY": 5, "LINE": 5, "FOLDER": tmp_path}.items():
        monkeypatch.setattr(long_run, name, value)
    for name in ("TABLE", "STATE", "BESIDE"):
        monkeypatch.setattr(long_run, name, tmp_path / name.lower())
    monkeypatch.setattr("sys.argv", ["long_run"])
    for rounds in (5, 10):
        monkeypatch.setattr(long_run, "ROUNDS", rounds)
        long_run.main()
        row = tables.read(tmp_path / "table")[-1]
        assert int(row["rounds"]) == rounds
        assert float(row["relative_difference"]) < 1e-12


@pytest.mark.parametrize("measuring", [False, True])
def test_planning_again_by_reports_and_by_a_measurement(
    monkeypatch: pytest.MonkeyPatch, measuring: bool
) -> None:
    monkeypatch.setattr(replan, "ROUNDS", 5)
    monkeypatch.setattr(replan, "DIRECTIONS", 3)
    times = replan.measure(3, measuring=measuring, slow=not measuring)
    assert all(np.isfinite(times)) and min(times) > 0.0
