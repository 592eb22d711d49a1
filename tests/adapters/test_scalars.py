"""Training as scalars: what is written is what the history says, and TensorBoard reads it back."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from coopt import Budget, Controller, Fleet
from coopt.adapters.scalars import TAGS, LogScalars
from coopt.adapters.torch.history import History, RoundRecord
from coopt.online.estimate_trail import EstimateTrail
from online import plain_reports


class Kept:
    def __init__(self) -> None:
        self.scalars: dict[tuple[str, int], float] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        assert isinstance(scalar_value, float) and global_step is not None
        self.scalars[tag, global_step] = scalar_value


def record(number: int, test_loss: float = math.nan) -> RoundRecord:
    return RoundRecord(
        round=number,
        local_steps=5 - number,
        batch_sizes=(2, 4),
        learning_rate=0.1,
        arrived=2,
        train_loss=1.0 / (number + 1),
        test_loss=test_loss,
        metric=math.nan,
        cost=30.0 * (number + 1),
        seconds=2.0 * (number + 1),
    )


def test_each_round_is_written_once_and_what_is_unknown_is_not():
    writer, history = Kept(), History("loop")
    callback = LogScalars(writer)
    for number, loss in enumerate((math.nan, 0.7)):
        history.records.append(record(number, loss))
        assert callback(history) is False
    assert writer.scalars["loss/train", 2] == 0.5
    assert writer.scalars["plan/mean_batch", 1] == 3.0
    assert ("loss/test", 1) not in writer.scalars and writer.scalars["loss/test", 2] == 0.7
    assert {tag for tag, _ in writer.scalars} == set(TAGS.values()) - {"metric/test"}


def test_estimates_go_along_with_their_errors():
    controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=5000), learning_rate=0.1)
    writer, history, trail = Kept(), History("loop"), EstimateTrail(controller)
    callback = LogScalars(writer, trail)
    for number in range(3):
        plan = controller.plan()
        controller.observe(plain_reports(plan, 2.0))
        history.records.append(record(number))
        callback(history)
    assert writer.scalars["estimate/loss", 3] == 2.0 and writer.scalars["estimate/loss_error", 3] == 0.0
    assert len(trail) == 3 and ("estimate/smoothness", 3) not in writer.scalars


def test_tensorboard_reads_it_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    history = History("loop")
    with SummaryWriter(tmp_path) as writer:
        callback = LogScalars(writer)
        for number in range(3):
            history.records.append(record(number))
            callback(history)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("spent/cost")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("spent/cost")] == [30.0, 60.0, 90.0]
