"""A state that was written down is taken if a controller can be in it, and refused by name if not."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coopt import Budget, CheckpointWarning, Controller, Fleet, InvalidProblemError, RoundPlan
from coopt.adapters.fixed_plan import FixedPlan
from online import Training

WRONG = [
    None,
    -1,
    -1.5,
    0,
    1e308,
    math.inf,
    -math.inf,
    math.nan,
    "x",
    [],
    {},
    [1],
    True,
    10**400,
    [[]],
    1e-320,
]
Path_ = tuple[str | int, ...]


def make(cost: float = 4000.0, **options: Any) -> Controller:
    fleet = Fleet(Training(4, seed=5).samples, 1.0, 1.0)
    return Controller(fleet, Budget(cost=cost, time=1e5, round_cost=20), 0.1, **options)


def trained(rounds: int = 6) -> Controller:
    training, controller = Training(4, seed=5), make()
    for _ in range(rounds):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
    controller.plan()
    return controller


def places(value: Any, above: Path_ = ()) -> Iterator[Path_]:
    """Every entry of a state; of lists the first two."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, item in items:
        yield (*above, key)
        if isinstance(item, dict | list):
            yield from places(item, (*above, key))


def changed(state: dict[str, Any], place: Path_, value: Any) -> dict[str, Any]:
    made = copy.copy(state)
    inner: Any = made
    for key in place[:-1]:  # nothing else is written to
        inner[key] = copy.copy(inner[key])
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return made


def refusal(controller: Controller, state: dict[str, Any]) -> str | None:
    """Why a state is refused; other exceptions than the one that is documented pass through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            controller.load_state_dict(state)
    except InvalidProblemError as error:
        return str(error)
    return None


def test_whatever_stands_in_an_entry_is_consistent_or_refused_by_its_name() -> None:
    state = json.loads(json.dumps(trained().state_dict()))
    written, before = repr(state), repr(make().state_dict())
    rng = np.random.default_rng(0)
    refused, taken = 0, 0
    controller = make()
    for place in list(places(state)):
        picked = [..., *(WRONG[k] for k in rng.choice(len(WRONG), size=2, replace=False))]
        for value in picked:
            mutant = changed(state, place, value)
            if repr(mutant) == written:
                continue
            message = refusal(controller, mutant)
            if message is not None:
                assert place == ("fingerprint",) or any(str(key) in message for key in place)
                assert repr(controller.state_dict()) == before
                refused += 1
                continue
            taken += 1
            # It is a state like any other: planning from it and writing it down again work.
            assert controller.plan() is not None
            json.dumps(controller.state_dict())
            controller = make()
    assert refused > 2 * taken > 0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("version",), 3, r"state\.version = 3: this version of coopt reads"),
        (("account", "round"), 0, r"state\.account\.round contradicts itself"),
        (("account", "cost"), 1.0, r"state\.account\.cost contradicts itself: 6 rounds cost 120"),
        (("plan", "round"), 5, r"state\.plan\.round contradicts itself"),
        (("plan", "predicted_cost"), 1e6, r"state\.plan\.predicted_cost contradicts itself: it is more"),
        (("previous", "batch_sizes"), [1, 2], r"previous\.batch_sizes contradicts itself: there are 4"),
        (("plan", "expected"), [0, 9], r"state\.plan\.expected contradicts itself: some of those"),
        (("plan", "quorum"), 1.5, r"state\.plan\.quorum contradicts itself: a share"),
        (("plan", "batch_sizes", 1), 10**9, r"state\.plan\.batch_sizes\[1\] contradicts itself: max_batch"),
        (
            ("roster", "attendance", "missed", 2),
            7,
            r"attendance\.missed\[2\] contradicts itself: there were 6",
        ),
        (("knowledge", "estimates", "noise", "decay"), 0.5, r"noise\.decay = 0\.5: this has 0\.9"),
        (("knowledge", "estimates", "loss", "count"), 0, r"loss\.count contradicts itself"),
        (("knowledge", "estimates", "line", "xy"), 1e9, r"line\.xy contradicts itself"),
        (("knowledge", "estimates", "memory", "loss"), [0.0] * 9, r"memory\.loss has 9 entries"),
        (("fingerprint", "fleet.samples"), "int64 (4,) 00", r"another run, with 'fleet\.samples'"),
        (("fingerprint", "patience"), 4, r"another run, with 'patience' = 4 instead of 3"),
        (("extra",), 1, "state has an unknown entry 'extra'"),
    ],
)
def test_what_contradicts_itself_is_named(place: Path_, value: Any, message: str) -> None:
    state = json.loads(json.dumps(trained().state_dict()))
    with pytest.raises(InvalidProblemError, match=message):
        make().load_state_dict(changed(state, place, value))


def test_a_fixed_plan_takes_only_its_own_state() -> None:
    def plan(rounds: int = 3) -> FixedPlan:
        return FixedPlan(Fleet([9, 9], 1.0, 1.0), rounds, 2, 4, 0.1)

    planner = plan()
    planner.observe([], seconds=1.0)
    state = planner.state_dict()
    for place in places(state):
        for value in (..., *WRONG):
            mutant = changed(state, place, value)
            possible = value in (0, 1, 1e-320) and place[-1] in ("cost", "seconds", 0, 1)
            if repr(mutant) != repr(state) and not possible:
                with pytest.raises(InvalidProblemError):
                    plan().load_state_dict(mutant)
    with pytest.raises(InvalidProblemError, match=r"phases\[0\]\.rounds' = 3 instead of 4"):
        plan(4).load_state_dict(state)


def test_what_may_change_while_training_rests_is_reported() -> None:
    state = trained().state_dict()
    longer = make(9000.0, min_gain=0.01)
    with pytest.warns(CheckpointWarning) as told:
        longer.load_state_dict(state)
    assert sorted(str(each.message) for each in told) == [
        "budget.cost was 4000.0, and is 9000.0 from here on",
        "min_gain was 0.0, and is 0.01 from here on",
    ]
    with pytest.raises(InvalidProblemError, match=r"'caution' = 1\.0 instead of 2\.0"):
        make(caution=2.0).load_state_dict(state)


def test_a_file_belongs_to_the_controllers_of_one_process(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    controller = trained()
    controller.save(path)
    again = make()
    again.load(path)  # the same process
    assert again.state_dict() == controller.state_dict()
    controller.save(path)
    path.write_bytes(b"damaged")
    with pytest.warns(CheckpointWarning, match="goes on from state.npz.previous"):
        again.load(path)
    assert again.plan() == controller.plan()
    with pytest.raises(InvalidProblemError, match=r"other\.npz cannot be read: there is no such file"):
        again.load(tmp_path / "other.npz")
    with pytest.raises(InvalidProblemError, match="checkpoint = 3"):
        again.save(3)
    with pytest.raises(InvalidProblemError, match="no file can be written"):
        again.save("/nowhere/state.npz")
    del again
    copied = copy.deepcopy(controller)
    assert copied.plan() == controller.plan()
