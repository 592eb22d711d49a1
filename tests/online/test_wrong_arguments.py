"""Arguments of the wrong type are refused by a controller before anything is charged."""

from __future__ import annotations

import pytest

from coopt import Budget, Controller, Fleet, InvalidProblemError

FLEET, BUDGET = Fleet([60, 40], 1.0, 1.0), Budget(cost=1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Controller(None, BUDGET, 0.1), "fleet = None: must be a coopt.Fleet, not NoneType"),
        (lambda: Controller(FLEET, 1000, 0.1), "budget = 1000: must be a coopt.Budget, not int"),
        (lambda: Controller(FLEET, BUDGET, 0.1, streaming="no"), "streaming = 'no': must be true or false"),
        (lambda: Controller(FLEET, BUDGET, 0.1, policy=None), "policy = None is unknown"),
    ],
)
def test_a_controller_names_what_it_cannot_take(make, message):
    with pytest.raises(InvalidProblemError, match=message):
        make()


@pytest.mark.parametrize(
    ("reports", "options", "message"),
    [
        (None, {}, "reports = None: must be an iterable"),
        ([None], {}, r"reports\[0\] = None: must be a coopt.ClientReport, not NoneType"),
        ([], {"absent": 1}, "absent = 1: must be an iterable"),
        ([], {"absent": [0.5]}, "absent = 0.5: must be an integer >= 0"),
        ([], {"seconds": "1"}, "seconds = '1': must be"),
    ],
)
def test_nothing_is_charged_for_what_cannot_be_observed(reports, options, message):
    controller = Controller(FLEET, BUDGET, 0.1)
    controller.plan()
    with pytest.raises(InvalidProblemError, match=message):
        controller.observe(reports, **options)
    assert controller.spent_cost == controller.round == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda state: [], "state = "),
        (lambda state: {**state, "devices": 3}, "state has devices = 3, this controller has 2"),
        (
            lambda state: {name: state[name] for name in state if name != "attendance"},
            "controller: 'attendance'",
        ),
        (lambda state: {**state, "estimates": 5}, "state is not one of a controller: "),
        (lambda state: {**state, "plan": {"rounds": 5}}, "state is not one of a controller: "),
        (lambda state: {**state, "attendance": {"missed": [0], "in_vain": [0, 0]}}, "missed has shape"),
        (lambda state: {**state, "learning_rate": "fast"}, "learning_rate = 'fast': must be"),
        (lambda state: {**state, "spent_seconds": -1}, "spent_seconds = -1.0: must be"),
    ],
)
def test_a_state_that_is_refused_changes_nothing(wrong, message):
    controller, other = Controller(FLEET, BUDGET, 0.1), Controller(FLEET, BUDGET, 0.2)
    other.plan()
    other.observe([])
    before = controller.state_dict()
    with pytest.raises(InvalidProblemError, match=message):
        controller.load_state_dict(wrong(other.state_dict()))
    assert repr(controller.state_dict()) == repr(before)


@pytest.mark.parametrize("text", [None, "", "5", "[" * 100_000, "1" * 5000])
def test_a_file_that_is_no_state_is_refused(tmp_path, text):
    path = tmp_path / "state.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidProblemError, match=r"cannot be read|is no saved controller"):
        Controller(FLEET, BUDGET, 0.1).load(path)
