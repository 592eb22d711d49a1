from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Controller, Fleet, InvalidProblemError, Problem
from coopt.cli import main
from coopt.measuring.estimates.step_seconds import fit_step_seconds
from coopt.measuring.from_records import from_records, read_reports
from coopt.measuring.report import ClientReport
from coopt.online.round_plan import RoundPlan
from online import LEARNING_RATE, Training


def recorded(rounds: int = 40, seed: int = 0, step_time: float = 0.03) -> tuple[Training, list[ClientReport]]:
    """Reports of a training whose batches vary, on devices of known speed."""
    training, reports = Training(5, seed), []
    rng = np.random.default_rng(seed)
    fleet = Fleet(training.samples, 1.0, 1.0)
    controller = Controller(fleet, Budget(cost=1e6), learning_rate=LEARNING_RATE)
    start = controller.plan()
    assert isinstance(start, RoundPlan)
    for k in range(rounds):
        sizes = rng.integers(4, 33, 5)
        steps = int(rng.integers(1, 4))
        plan = replace(start, round=k, local_steps=steps, batch_sizes=sizes, extra_evaluation=True)
        found, _ = training.run(plan)
        for report in found:
            calls = report.local_steps + 3
            seconds = calls * step_time + report.samples_processed / training.speed[report.client]
            reports.append(replace(report, seconds_computing=seconds * np.exp(0.03 * rng.normal())))
    return training, reports


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-4, 0), st.floats(0, 4))
def test_step_time_and_throughput_are_recovered(seed: int, step: float, speed: float) -> None:
    rng = np.random.default_rng(seed)
    alpha, pi = 10.0**step, 10.0**speed
    n, batch = rng.integers(1, 20, 200).astype(float), np.exp(rng.uniform(0, 4, 200)).round()
    seconds = n * (alpha + batch / pi) * np.exp(0.05 * rng.normal(size=200))
    seconds[::20] *= 8.0  # a device that was doing something else
    fit = fit_step_seconds(n, n * batch, seconds)
    assert fit.told_apart
    assert abs(fit.step_time - alpha) < 5 * fit.step_error + 1e-3 * (alpha + 1 / pi)
    assert abs(1 / fit.throughput - 1 / pi) < 5 * fit.sample_error + 1e-3 * (alpha + 1 / pi)


def test_batches_that_do_not_differ_leave_all_time_to_the_samples() -> None:
    fit = fit_step_seconds(np.full(9, 5.0), np.full(9, 40.0), np.full(9, 2.0))
    assert (fit.told_apart, fit.step_time) == (False, 0.0)
    assert fit.throughput == pytest.approx(20.0)
    nothing = fit_step_seconds(np.ones(3), np.ones(3), np.zeros(3))
    assert nothing.throughput == np.inf


def test_a_recorded_training_gives_back_its_fleet() -> None:
    training, reports = recorded(rounds=120)
    found = from_records(reports, learning_rate=LEARNING_RATE, convex=True)
    assert found.fleet.samples.tolist() == training.samples.tolist()
    np.testing.assert_allclose(found.fleet.throughput, training.speed, rtol=0.05)
    np.testing.assert_allclose(found.fleet.step_time, 0.03, rtol=0.15)
    for speed, true in zip(found.speeds, training.speed, strict=True):
        assert abs(speed.step_time - 0.03) < 5 * speed.step_error
        assert abs(1 / speed.throughput - 1 / true) < 5 * speed.sample_error
    constants = found.constants
    assert training.curvature.min() * 0.8 < constants.smoothness < training.curvature.max() * 1.2
    assert found.errors["smoothness"] < 0.5
    assert found.rounds == 120
    # Honest clients are named in at most one report of a hundred.
    assert len(found.ignored) <= 0.01 * len(reports)
    assert Problem(found.fleet, constants, Budget(cost=1000)).fleet is found.fleet


def test_the_order_of_the_lines_does_not_matter_and_clients_keep_their_numbers(tmp_path: Path) -> None:
    _, reports = recorded(rounds=6)
    some = [replace(r, client=3 * r.client) for r in reports if r.client != 1]
    path = tmp_path / "reports.jsonl"
    path.write_text("\n".join(r.to_json() for r in some[::-1]) + "\n\n")
    found = from_records(read_reports(path), learning_rate=LEARNING_RATE)
    assert found.fleet.names == ("client 0", "client 6", "client 9", "client 12")
    assert found.job() == from_records(some, learning_rate=LEARNING_RATE).job()


def test_what_records_do_not_tell_is_said() -> None:
    _, reports = recorded(rounds=6)
    silent = [replace(r, gradient=None, change=None, pair=None) for r in reports]
    with pytest.raises(InvalidProblemError, match="no two reports of one round carry gradients"):
        from_records(silent, learning_rate=0.1)
    found = from_records(silent, learning_rate=0.1, divergence=2.0)
    assert found.fleet.divergence.tolist() == [2.0] * 5
    assert any("no report carried a same-batch pair" in note for note in found.notes)
    assert found.constants.smoothness == pytest.approx(10.0)
    with pytest.raises(InvalidProblemError, match="no report tells the gradient noise"):
        from_records([replace(r, halves=None) for r in reports], learning_rate=0.1, divergence=1.0)
    with pytest.raises(InvalidProblemError, match="learning_rate"):
        from_records(reports, learning_rate=0.0)


def test_what_is_not_believed_is_named_by_its_client() -> None:
    _, reports = recorded(rounds=6)
    wrong = [replace(r, client=10 * r.client) for r in reports]
    wrong[2] = replace(wrong[2], loss=float("nan"))
    found = from_records(wrong, learning_rate=0.1)
    assert "client 20: ignored loss = nan: not a possible value" in [str(each) for each in found.ignored]
    assert {each.client for each in found.ignored} == {20}


def test_lines_that_are_no_reports_are_named(tmp_path: Path) -> None:
    path = tmp_path / "reports.jsonl"
    with pytest.raises(InvalidProblemError, match="cannot be read"):
        read_reports(path)
    path.write_text("\n")
    with pytest.raises(InvalidProblemError, match="holds no client reports"):
        read_reports(path)
    path.write_text(recorded(1)[1][0].to_json() + "\n{}\n")
    with pytest.raises(InvalidProblemError, match="line 2: a client report lacks the entry"):
        read_reports(path)


def test_the_command_writes_what_plan_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, reports = recorded(rounds=20)
    log, fleet, job = tmp_path / "reports.jsonl", tmp_path / "fleet.csv", tmp_path / "job.toml"
    log.write_text("\n".join(r.to_json() for r in reports))
    arguments = ["measure", log, fleet, job, "--learning-rate", LEARNING_RATE, "--convex"]
    assert main([str(a) for a in arguments]) == 0
    printed = capsys.readouterr()
    assert "standard error" in printed.out
    assert f"coopt plan {fleet} {job}" in printed.err
    document = tomllib.loads(job.read_text())
    assert "standard error" in job.read_text()
    assert document["budget"]["cost"] == pytest.approx(sum(r.samples_processed for r in reports))
    assert main(["plan", str(fleet), str(job)]) == 0
    capsys.readouterr()
    assert main([str(a) for a in [*arguments, "--cost", 5000, "--time", 60]]) == 0
    assert tomllib.loads(job.read_text())["budget"] == {"cost": 5000.0, "time": 60.0}
