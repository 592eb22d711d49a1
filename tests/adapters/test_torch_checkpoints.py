"""A training that is killed goes on bit for bit, and no file is taken for that of another run."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import (
    History,
    ProbeOptions,
)
from coopt.errors import CheckpointError, CheckpointWarning, InvalidProblemError
from coopt.online.round_plan import StopReason
from torch_federation import (
    SPEED,
    InterruptedRunError,
    controller,
    datasets,
    fleet,
    model,
    parameters,
    same_records,
    stream,
    trainer,
)


@pytest.mark.parametrize("pair", ["next", "same"])
@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, mode: str, pair: Any) -> None:
    path = tmp_path / "run.npz"
    options = {"mode": mode, "probe": ProbeOptions(pair), "evaluate_every": 2}
    whole = trainer(**options)
    expected = whole.run(controller(4000, probe_every=2))

    def die(history: History) -> None:
        if len(history) == 8:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        trainer(checkpoint=path, checkpoint_every=3, callbacks=[die], **options).run(
            controller(4000, probe_every=2)
        )
    again = trainer(checkpoint=path, checkpoint_every=3, **options)
    history = again.run(controller(4000, probe_every=2))
    assert len(expected) > 10
    assert same_records(history, expected)
    assert np.array_equal(parameters(again), parameters(whole))
    finished = trainer(checkpoint=path, **options)
    assert same_records(finished.run(controller(4000, probe_every=2)), expected)


@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_data_may_arrive_while_training_runs_also_across_a_restart(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "run.npz"
    whole = trainer(data=stream(), mode=mode)
    expected = whole.run(FixedPlan(fleet(), 9, 2, 4, 0.2))
    assert expected.column("arrived").tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 5]

    def die(history: History) -> None:
        if len(history) == 5:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        trainer(data=stream(), mode=mode, checkpoint=path, checkpoint_every=2, callbacks=[die]).run(
            FixedPlan(fleet(), 9, 2, 4, 0.2)
        )
    again = trainer(data=stream(), mode=mode, checkpoint=path)
    assert same_records(again.run(FixedPlan(fleet(), 9, 2, 4, 0.2)), expected)
    assert np.array_equal(parameters(again), parameters(whole))


def shifted() -> torch.nn.Module:
    other = model()
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-9
    return other


def relabelled() -> list[tuple[torch.Tensor, torch.Tensor]]:
    data = datasets()
    inputs, targets = data[2]
    return [*data[:2], (inputs, targets.flip(0)), *data[3:]]


@pytest.mark.parametrize(
    ("field", "options", "plan"),
    [
        ("seed", {"seed": 6}, {}),
        ("targets", {"data": relabelled()}, {}),
        ("weight_decay", {"weight_decay": 0.1}, {}),
        ("probe", {"probe": None}, {}),
        ("system.seed", {"system": SystemModel(SPEED, 0.1, seed=9)}, {}),
        ("initial weights", {"model": shifted()}, {}),
        (r"phases\[0\].batch_sizes", {}, {"batches": 3}),
        (r"phases\[0\].learning_rate", {}, {"rate": 0.3}),
        ("fleet.samples", {}, {"samples": [13, 30, 7, 55, 20]}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_field_that_differs(
    tmp_path: Path, field: str, options: dict[str, Any], plan: dict[str, Any]
) -> None:
    def fixed(batches: int = 2, rate: float = 0.2, samples: list[int] | None = None) -> FixedPlan:
        devices = fleet() if samples is None else dataclasses.replace(fleet(), samples=samples)
        return FixedPlan(devices, 2, 1, batches, rate)

    path = tmp_path / "run.npz"
    trainer(checkpoint=path).run(fixed())
    with pytest.raises(InvalidProblemError, match=f"another run, with '{field}"):
        trainer(checkpoint=path, **options).run(fixed(**plan))


def test_what_is_no_checkpoint_is_neither_read_nor_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes(b"something else")
    with pytest.raises(InvalidProblemError, match="damaged, or no checkpoint"):
        trainer(checkpoint=path).run(FixedPlan(fleet(), 2, 1, 2, 0.2))
    assert path.read_bytes() == b"something else"


def test_a_larger_budget_may_be_given_when_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    first = trainer(checkpoint=path).run(controller(3000))
    with pytest.warns(CheckpointWarning, match=r"budget\.cost was 3000\.0, and is 6000\.0"):
        longer = trainer(checkpoint=path).run(controller(6000))
    assert len(longer) > len(first) and longer.records[: len(first) - 1] == first.records[:-1]
    assert longer.records[-1].cost <= 6000


def test_an_average_that_is_not_finite_is_not_taken_nor_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    plan = FixedPlan(fleet(), 40, 4, 8, 0.2)

    def overflow(history: History) -> None:
        if len(history) == 3:
            work = run._engine
            original = work.run

            def broken(*arguments: Any) -> Any:
                result = original(*arguments)
                return dataclasses.replace(result, state=result.state * math.inf)

            work.run = broken

    run = trainer(checkpoint=path, checkpoint_every=1, callbacks=[overflow])
    history = run.run(plan)
    assert len(history) == 4 and history.stopped.reason is StopReason.NOT_FINITE
    again = trainer(checkpoint=path)
    assert np.isfinite(parameters(run)).all()
    again.run(FixedPlan(fleet(), 40, 4, 8, 0.2))
    assert np.isfinite(parameters(again)).all()


def test_a_disk_that_fills_up_does_not_end_training_until_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "run.npz"
    run = trainer(
        checkpoint=path,
        checkpoint_every=2,
        callbacks=[lambda history: len(history) == 3 and monkeypatch.setattr(os, "fsync", full)],
    )
    with (
        pytest.warns(CheckpointWarning, match=r"No space left.*Training goes on"),
        pytest.raises(CheckpointError, match="No space left"),
    ):
        run.run(FixedPlan(fleet(), 5, 1, 2, 0.2))
    assert len(run.history) == 5
    monkeypatch.undo()
    resumed = trainer(checkpoint=path)
    assert same_records(resumed.run(FixedPlan(fleet(), 5, 1, 2, 0.2)), run.history)
    assert np.array_equal(parameters(resumed), parameters(run))
