"""Schedules as results: they add up, certify, survive a file, draw themselves, and refuse what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from coopt import (
    Budget,
    CertificateError,
    Forecast,
    InvalidProblemError,
    Phase,
    Schedule,
    Status,
    evaluate_schedule,
)
from quadratics import problem_of, random_model

MODEL = random_model(4, 3, 3)


@cache
def made() -> Schedule:
    """Two phases on three devices, with limits on cost and time that it keeps."""
    problem = problem_of(
        MODEL,
        Budget(cost=2000.0, time=100.0, round_cost=3.0),
        throughput=[10.0, 20.0, 30.0],
        round_time=0.5,
        step_time=0.01,
        sample_cost=[1.0, 2.0, 3.0],
        names=["a", "b", "c"],
    )
    return evaluate_schedule(
        problem, Forecast(MODEL), [Phase(12, 4, [2, 3, 1], 0.7), Phase(9, 1, [10, 12, 8], 0.2)]
    )


def test_it_adds_up() -> None:
    plan = made()
    assert plan.rounds == 21
    assert plan.cost == 12 * (4 * (2 + 6 + 3) + 3) + 9 * (10 + 24 + 24 + 3)
    slowest = max(4 * (2 / 10 + 0.01), 4 * (3 / 20 + 0.01)) + 0.5, max(10 / 10, 12 / 20, 8 / 30) + 0.51
    assert plan.time == pytest.approx(12 * slowest[0] + 9 * slowest[1], rel=1e-12)
    assert plan.status is Status.EVALUATED
    assert plan.lower_bound == -np.inf and plan.gap == np.inf
    curve = plan.curve()
    assert curve.shape == (22,)
    assert curve[-1] == pytest.approx(plan.predicted_error, rel=1e-9)
    text = str(plan)
    assert (
        "predicted error" in text and "none is proved" in text and "12        4           0.7  1 to 3" in text
    )


def test_the_certificate_recomputes_everything() -> None:
    certificate = made().certify()
    assert certificate.cost == made().cost
    assert certificate.time == pytest.approx(made().time, rel=1e-12)
    assert certificate.relative_difference < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost": 1000.0}, "cost: claimed 1000.0"),
        ({"time": 1.0}, "time: claimed 1.0"),
        ({"predicted_error": 0.5}, "predicted_error: claimed 0.5"),
        ({"lower_bound": 0.0}, "nothing is proved"),
        ({"lower_bound": 9.0}, "exceeds the value"),
    ],
)
def test_false_claims_are_found(changes: dict[str, float], message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        replace(made(), **changes).certify()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"cost": 1100.0}, "cost: .* exceeds the limit 1100.0"),
        ({"time": 20.0}, "time: .* exceeds the limit 20.0"),
        ({"max_rounds": 20}, "max_rounds: 21.0 exceeds the limit 20"),
        ({"max_local_steps": 3}, "max_local_steps: 4.0 exceeds the limit 3"),
    ],
)
def test_broken_limits_are_found(limits: dict[str, float], message: str) -> None:
    plan = made()
    problem = replace(plan.problem, budget=replace(plan.problem.budget, **limits))
    with pytest.raises(CertificateError, match=message):
        replace(plan, problem=problem).certify()


def test_broken_batches_are_found() -> None:
    plan = made()
    fleet = replace(plan.problem.fleet, max_batch=np.array([9, 50, 50]))
    with pytest.raises(CertificateError, match=r"phases\[1\].batch_sizes\[0\] = 10: breaks max_batch = 9"):
        replace(plan, problem=replace(plan.problem, fleet=fleet)).certify()


def test_a_file_gives_back_the_same_schedule(tmp_path) -> None:
    plan = made()
    path = tmp_path / "schedule.json"
    text = plan.to_json(path)
    read = Schedule.from_json(path.read_text(encoding="utf-8"))
    assert read == plan
    assert read.to_json() == text
    assert json.loads(text)["forecast"]["measurement"] == MODEL.digest
    # The measurement is not in the file.
    with pytest.raises(InvalidProblemError, match="measurement is missing"):
        read.curve()
    with pytest.raises(InvalidProblemError, match="measurement is another one"):
        read.certify(Forecast(random_model(5, 3, 3)))
    assert read.certify(Forecast(MODEL)).predicted_error == plan.certify().predicted_error
    np.testing.assert_array_equal(read.curve(Forecast(MODEL)), plan.curve())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("phases"), "not a schedule: 'phases'"),
        (lambda data: data["phases"][0].pop("rounds"), "not a phase"),
        (
            lambda data: data["phases"][1].update(batch_sizes=[1, 2]),
            r"phases\[1\] has 2 batch sizes: must have 3",
        ),
        (lambda data: data["phases"][0].update(learning_rate="0.1"), "learning_rate = '0.1'"),
        (lambda data: data.update(status="FINE"), "not a schedule: 'FINE'"),
    ],
)
def test_wrong_files_are_refused(change, message: str) -> None:
    data = made().to_dict()
    change(data)
    with pytest.raises(InvalidProblemError, match=message):
        Schedule.from_json(json.dumps(data))
    with pytest.raises(InvalidProblemError, match="not a schedule"):
        Schedule.from_json("[]")


def test_phases_are_checked_and_cannot_be_written_to() -> None:
    with pytest.raises(InvalidProblemError, match="rounds = 0"):
        Phase(0, 1, 1, 0.1)
    with pytest.raises(InvalidProblemError, match=r"batch_sizes\[1\] = 0"):
        Phase(1, 1, [1, 0], 0.1)
    with pytest.raises(InvalidProblemError, match="learning_rate = nan"):
        Phase(1, 1, 1, float("nan"))
    assert not made().phases[0].batch_sizes.flags.writeable
    assert Phase(1, 2, [3], 0.1) == Phase(1, 2, [3], 0.1) != Phase(1, 2, [4], 0.1)


def test_it_draws_itself(tmp_path) -> None:
    figure = made().plot()
    assert len(figure.axes) == 8
    labels = [axes.get_ylabel() for axes in figure.axes]
    names = ["learning rate", "local steps", "batch size", "forecast of F - F*"]
    assert [label[: len(name)] for label, name in zip(labels[::2], names, strict=True)] == names
    assert [axes.get_xlabel() for axes in figure.axes[-2:]] == ["cost", "time [s]"]
    figure.savefig(tmp_path / "schedule.png", dpi=40)
    # Without speeds there is no time to draw over.
    free = problem_of(MODEL, Budget(cost=2000.0))
    alone = evaluate_schedule(free, Forecast(MODEL), [Phase(5, 2, 3, 0.1)])
    assert len(alone.plot().axes) == 4
