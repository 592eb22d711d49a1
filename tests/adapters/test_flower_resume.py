"""A server that dies goes on where it was: nothing is lost but the round, and that is charged."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flwr") is None:
    pytest.skip("flwr is not installed", allow_module_level=True)

from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    Strategy,
)

from coopt import (
    Budget,
    CheckpointError,
    CheckpointWarning,
    Controller,
    CooptError,
    Fleet,
    InvalidProblemError,
)
from coopt.adapters.flower import CoOptResult, CoOptStrategy, base_state
from coopt.adapters.flower import checkpoint as checkpoints
from fake_grid import DIMENSION, FakeGrid, FakeTime, Quadratic, is_training

SAMPLES = [60, 40, 80]


class ServerDied(BaseException):
    """Nothing in the strategy may catch this."""


def run(clock: FakeTime, folder: Path, base: Strategy | None = None, **options: Any) -> tuple[Any, ...]:
    """One life of a server; `die_at` messages sent, or evaluations."""
    work = Quadratic(SAMPLES)
    grid = FakeGrid(clock, {10 + i: work.node(i) for i in range(len(SAMPLES))})
    left = options.pop("die_at", None)

    def on_push(message: Message) -> None:
        nonlocal left
        if left is not None and is_training(message):
            left -= 1
            if left < 0:
                raise ServerDied

    grid.on_push = on_push
    fleet = Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0)
    budget = Budget(cost=1500, time=100, round_cost=20)
    controller = Controller(fleet, budget, learning_rate=0.1)
    strategy = CoOptStrategy(controller, base or FedAvg(fraction_evaluate=0.0), checkpoint=folder)
    arrays = ArrayRecord({"w": Array(np.full(DIMENSION, 5.0))})
    try:
        result = strategy.start(grid, arrays, **options)
    except ServerDied:
        result = None
    return result, strategy, work


def numbers(result: CoOptResult) -> list[tuple[Any, ...]]:
    return [(record.round, record.local_steps, record.batch_sizes, record.cost) for record in result.rounds]


def adam() -> Strategy:
    return FedAdam(eta=0.1, fraction_evaluate=0.0)


def momentum() -> Strategy:
    return FedAvgM(server_learning_rate=0.8, server_momentum=0.5, fraction_evaluate=0.0)


@pytest.mark.parametrize("base", [adam, momentum])
def test_stopping_between_rounds_changes_nothing(clock: FakeTime, tmp_path: Path, base: Any) -> None:
    whole, _, _ = run(clock, tmp_path / "whole", base())
    for rounds in (4, 3, None):
        parts, strategy, _ = run(clock, tmp_path / "parts", base(), num_rounds=rounds)
    assert numbers(parts) == numbers(whole) and len(whole.rounds) > 10
    assert parts.stopped.reason == whole.stopped.reason
    np.testing.assert_array_equal(parts.arrays["w"].numpy(), whole.arrays["w"].numpy())
    assert parts.train_metrics_clientapp == whole.train_metrics_clientapp
    assert strategy.controller.spent_cost <= 1500


@pytest.mark.parametrize("die_at", [0, 1, 10, 20])
def test_dying_in_the_middle_of_a_round_charges_it_and_keeps_the_model(
    clock: FakeTime, tmp_path: Path, die_at: int
) -> None:
    assert run(clock, tmp_path, die_at=die_at)[0] is None
    saved = checkpoints.Checkpoint(tmp_path).load()
    planned = saved.controller["plan"]
    before = saved.controller["account"]["cost"]
    lost = die_at // 3
    assert planned["round"] == lost and saved.begun.absent == []
    clock.sleep(1000)  # the server stays dead for longer than the budget's time
    result, strategy, work = run(clock, tmp_path)
    assert [record.round for record in result.rounds] == list(range(len(result.rounds)))
    assert [record.round for record in result.rounds if record.interrupted] == [lost]
    record = result.rounds[lost]
    assert record.arrived == record.reports == 0 and record.sent == 3
    assert record.cost - before >= planned["predicted_cost"]
    assert not [task for task in work.tasks if task.round <= lost]  # no round is run twice
    used = strategy.controller
    assert used.spent_cost <= 1500 and used.spent_seconds <= 100
    assert result.rounds[-1].train_loss < 0.5 * 45


@pytest.mark.parametrize("jump", [-1e6, -3.0, 3.0, 1e9])
def test_a_clock_that_is_set_while_the_server_is_dead_charges_no_more_than_the_round(
    clock: FakeTime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    run(clock, tmp_path, die_at=10)
    before = checkpoints.Checkpoint(tmp_path).load().controller["account"]["seconds"]
    monkeypatch.setattr(clock, "time", lambda: 1e9 + clock.now + jump)
    result, strategy, _ = run(clock, tmp_path)
    (lost,) = [record for record in result.rounds if record.interrupted]
    assert 0 <= lost.seconds - before <= 100
    assert strategy.controller.spent_cost <= 1500 and strategy.controller.spent_seconds <= 100


def test_dying_again_and_again_still_ends_within_the_budget(clock: FakeTime, tmp_path: Path) -> None:
    result, lives = None, 0
    while result is None:
        result, strategy, _ = run(clock, tmp_path, die_at=7)
        lives += 1
    assert lives > 3 and sum(record.interrupted for record in result.rounds) == lives - 1
    assert strategy.controller.spent_cost <= 1500 and strategy.controller.spent_seconds <= 100
    assert result.stopped is not None


@pytest.mark.parametrize("last", range(2, 12))
def test_dying_while_a_file_is_written_leaves_a_whole_run(
    clock: FakeTime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    replace = Path.replace
    left = last

    def dying(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise ServerDied
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dying)
    assert run(clock, tmp_path)[0] is None
    monkeypatch.setattr(Path, "replace", replace)
    result, strategy, _ = run(clock, tmp_path)
    assert sum(record.interrupted for record in result.rounds) <= 1
    assert strategy.controller.spent_cost <= 1500 and result.rounds[-1].train_loss < 0.5 * 45
    files = {path.name for path in tmp_path.iterdir()}
    assert files <= {"run.npz", "run.npz.previous", "begun.npz", "begun.npz.previous"}


def test_metrics_survive_and_the_first_evaluation_is_not_repeated(clock: FakeTime, tmp_path: Path) -> None:
    seen = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        return MetricRecord({"w": float(arrays["w"].numpy()[0]), "curve": [1.0, 2.0]})

    run(clock, tmp_path, num_rounds=2, evaluate_fn=evaluate)
    result, _, _ = run(clock, tmp_path, num_rounds=2, evaluate_fn=evaluate)
    assert seen == [0, 1, 2, 3, 4] == sorted(result.evaluate_metrics_serverapp)
    assert result.evaluate_metrics_serverapp[0]["w"] == 5
    assert result.evaluate_metrics_serverapp[1]["curve"] == [1.0, 2.0]


def test_a_finished_run_stays_finished(clock: FakeTime, tmp_path: Path) -> None:
    first, _, _ = run(clock, tmp_path)
    second, _, work = run(clock, tmp_path)
    assert numbers(first) == numbers(second) and not work.tasks
    assert second.stopped is not None and second.stopped.reason == first.stopped.reason


def test_the_run_before_is_taken_where_the_newest_is_damaged(clock: FakeTime, tmp_path: Path) -> None:
    whole, _, _ = run(clock, tmp_path / "whole")
    run(clock, tmp_path / "parts", num_rounds=5)
    newest = tmp_path / "parts" / "run.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(CheckpointWarning, match=r"run\.npz is damaged.*goes on from run\.npz\.previous"):
        result, strategy, _ = run(clock, tmp_path / "parts")
    assert numbers(result) == numbers(whole) and strategy.controller.spent_cost <= 1500


@pytest.mark.parametrize("damage", ["another file", "cut off", "nothing"])
def test_a_damaged_checkpoint_is_named(clock: FakeTime, tmp_path: Path, damage: str) -> None:
    run(clock, tmp_path, num_rounds=1)
    state = tmp_path / "run.npz"
    content = {"another file": b"{}", "cut off": state.read_bytes()[:1000], "nothing": b""}[damage]
    state.write_bytes(content)
    (tmp_path / "run.npz.previous").unlink()
    with pytest.raises(InvalidProblemError, match=str(tmp_path)):
        run(clock, tmp_path)


def test_a_folder_belongs_to_one_run_and_one_server_at_a_time(clock: FakeTime, tmp_path: Path) -> None:
    run(clock, tmp_path, num_rounds=1, base=adam())
    with pytest.raises(InvalidProblemError, match=r"another run, with 'strategy' = .*FedAdam"):
        run(clock, tmp_path)
    faster = FedAdam(eta=0.2, fraction_evaluate=0.0)
    with pytest.raises(InvalidProblemError, match=r"'base\.eta\.scalar' = 0\.1 instead of 0\.2"):
        run(clock, tmp_path, base=faster)
    with (
        checkpoints.Checkpoint(tmp_path),
        pytest.raises(CheckpointError, match=f"in use by another run in this process, {os.getpid()}"),
    ):
        run(clock, tmp_path, base=adam())
    result, _, _ = run(clock, tmp_path, base=adam())
    assert result.stopped is not None


def test_a_model_that_is_not_finite_is_not_saved(clock: FakeTime, tmp_path: Path) -> None:
    class Overflows(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            return (
                ArrayRecord({"w": Array(np.full(DIMENSION, np.inf))}) if server_round == 3 else arrays
            ), metrics

    with pytest.raises(CooptError, match="Overflows made a model that is not finite in round 2"):
        run(clock, tmp_path, base=Overflows(fraction_evaluate=0.0))
    saved = checkpoints.Checkpoint(tmp_path).load()
    assert np.isfinite(saved.result.arrays["w"].numpy()).all() and len(saved.result.rounds) == 2


def test_a_wrapped_strategys_state_and_changed_numbers_are_kept() -> None:
    def make(norm: float) -> Any:
        inner = FedAdam(fraction_evaluate=0.0)
        return DifferentialPrivacyServerSideFixedClipping(inner, 0.1, norm, 3)

    old = make(1.0)
    initial = base_state.dump(old, {}, {})
    old.clipping_norm = 0.5
    old.current_arrays = ArrayRecord({"a": Array(np.arange(3.0))})
    old.strategy.m_t = {"a": np.ones(3)}
    arrays: base_state.Arrays = {}
    described = json.loads(json.dumps(base_state.dump(old, initial, arrays)))
    new = make(1.0)
    new.noise_multiplier = 0.7  # configured anew: stays
    base_state.load(new, described, arrays)
    assert new.clipping_norm == 0.5 and new.noise_multiplier == 0.7
    np.testing.assert_array_equal(new.strategy.m_t["a"], np.ones(3))
    np.testing.assert_array_equal(new.current_arrays["a"].numpy(), np.arange(3.0))
