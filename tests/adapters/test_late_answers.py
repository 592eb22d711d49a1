"""Who is late finishes its work, is not averaged, and is heard then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coopt import Budget, ClientReport, Controller, Fleet, InvalidProblemError
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.late_answers import LateAnswers
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel

DEVICES = 5
SPEEDS = np.array([200.0, 200.0, 200.0, 200.0, 20.0])  # samples a second: the last one is slow
FEDERATION = digits(DEVICES)
MODEL = Softmax(64, 10)


def fleet() -> Fleet:
    return Fleet(FEDERATION.samples, 1.0, 1.0)


def run(planner: Any, *, torch_too: bool = False, **options: Any) -> Any:
    system = SystemModel(SPEEDS, 0.05)
    if not torch_too:
        return simulate(
            planner, MODEL.gradient, MODEL.start(), FEDERATION.clients, system=system, progress=False
        )
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FederatedTrainer

    torch.manual_seed(0)
    clients = [(torch.from_numpy(x).float(), torch.from_numpy(y)) for x, y in FEDERATION.clients]
    trainer = FederatedTrainer(
        torch.nn.Linear(64, 10),
        torch.nn.functional.cross_entropy,
        clients,
        system=system,
        progress=False,
        **options,
    )
    trainer.run(planner)
    return trainer


@pytest.mark.parametrize("torch_too", [False, True], ids=["simulated", "torch"])
def test_the_speed_of_a_device_that_is_always_late_is_learned(torch_too: bool) -> None:
    """The four fast ones end every round, so nobody ever waits for the fifth."""
    planner = Controller(
        fleet(), Budget(time=30.0), learning_rate=0.1, policy="horizon", quorum_count=DEVICES - 1
    )
    run(planner, torch_too=torch_too)
    found = planner._state.knowledge.measured()
    spent = found.step_time + 16.0 / found.throughput
    assert spent[:-1] == pytest.approx(16.0 / SPEEDS[:-1], rel=0.05)
    assert spent[-1] == pytest.approx(16.0 / SPEEDS[-1], rel=0.05)


@pytest.mark.parametrize("torch_too", [False, True], ids=["simulated", "torch"])
def test_whoever_is_late_costs_its_work_once_and_none_while_it_is_busy(torch_too: bool) -> None:
    """Batches of 8 take .09 s, and .45 s on the slow one: with a deadline of .1 s it begins thrice."""
    plan = FixedPlan(fleet(), 12, 1, 8, 0.1, deadline=0.1)
    run(plan, torch_too=torch_too)
    # After the first deadline that passed in vain rounds end when the others have answered.
    assert 12 * 0.09 <= plan.spent_seconds <= 12 * 0.1
    assert plan.spent_cost == 8 * (4 * 12 + 3)


def test_a_late_model_is_not_averaged() -> None:
    alone = FixedPlan(fleet(), 3, 1, 8, 0.1, deadline=0.1)
    left_out = simulate(
        FixedPlan(fleet(), 3, 1, 8, 0.1),
        MODEL.gradient,
        MODEL.start(),
        FEDERATION.clients,
        system=SystemModel(SPEEDS, 0.05, dropout=[0.0, 0.0, 0.0, 0.0, 1.0]),
        progress=False,
    )
    assert np.array_equal(run(alone).parameters, left_out.parameters)


@pytest.mark.parametrize("torch_too", [False, True], ids=["simulated", "torch"])
def test_a_round_waits_where_everybody_is_busy(torch_too: bool) -> None:
    """Rounds in which nobody can work would take no time, and never end."""
    plan = FixedPlan(fleet(), 4, 1, 8, 0.1, deadline=0.01)
    run(plan, torch_too=torch_too)
    assert plan.spent_seconds >= 3 * 0.09


def test_a_run_with_late_devices_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def planner() -> Controller:
        return Controller(fleet(), Budget(time=4.0), learning_rate=0.1, quorum_count=DEVICES - 1)

    def die(history: Any) -> bool:
        if len(history) == 7:
            raise KeyboardInterrupt
        return False

    path = tmp_path / "run.pt"
    whole = run(planner(), torch_too=True)
    with pytest.raises(KeyboardInterrupt):
        run(planner(), torch_too=True, checkpoint=path, checkpoint_every=1, callbacks=[die])
    again = run(planner(), torch_too=True, checkpoint=path)
    assert torch.equal(whole._global.state, again._global.state)
    assert whole.history.records[-1].seconds == again.history.records[-1].seconds


def test_what_is_under_way_survives_being_written_down() -> None:
    late, again = LateAnswers(), LateAnswers()
    report = ClientReport(
        client=1,
        round=3,
        samples=9,
        local_steps=1,
        batch_size=4,
        samples_processed=4,
        loss=float("nan"),
        seconds_computing=7.0,
        gradient=[0.1, 0.2],
    )
    assert late.heard([report], np.array([0.0, 7.0]), over=2.0) == []
    again.load_state_dict("late", late.state_dict())
    assert again.pause(np.array([1]), now=2.0) == 5.0
    assert again.pause(np.array([0, 1]), now=2.0) == 0.0
    assert again.heard([], np.zeros(2), over=7.0) == [report]
    with pytest.raises(InvalidProblemError, match=r"late\[0\]\.due"):
        again.load_state_dict("late", [{"due": -1.0, "report": report.to_json()}])
