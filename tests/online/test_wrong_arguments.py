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


def test_a_state_of_something_else_is_refused():
    controller, before = Controller(FLEET, BUDGET, 0.1), Controller(FLEET, BUDGET, 0.1).state_dict()
    for wrong in (None, [], 5, {}, {"version": 5}):
        with pytest.raises(InvalidProblemError, match=r"^state"):
            controller.load_state_dict(wrong)
    assert repr(controller.state_dict()) == repr(before)


@pytest.mark.parametrize("text", [None, "", "5", "[" * 100_000, "1" * 5000])
def test_a_file_that_is_no_state_is_refused(tmp_path, text):
    path = tmp_path / "state.npz"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidProblemError, match=r"cannot be read|is damaged, or no checkpoint"):
        Controller(FLEET, BUDGET, 0.1).load(path)
