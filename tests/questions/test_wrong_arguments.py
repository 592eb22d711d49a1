"""Arguments of the wrong type are refused by name, whatever the question."""

from __future__ import annotations

import pytest

from coopt import (
    Forecast,
    InvalidProblemError,
    Measurement,
    allocate_batches,
    choose_cohort,
    choose_participants,
    evaluate,
    evaluate_schedule,
    frontier,
    leave_out,
    sensitivity,
    solve_allocation,
    solve_many,
    solve_schedule,
)
from coopt.questions.baselines import baselines
from fleets import random_problem

PROBLEM = random_problem(3, time=3000.0, round_cost=1.0)
QUESTIONS = {
    "allocation": solve_allocation,
    "evaluate": lambda wrong: evaluate(wrong, 1, 1, 1),
    "frontier": frontier,
    "frontier of no values": lambda wrong: frontier(wrong, values=[]),
    "sensitivity": sensitivity,
    "cohort": choose_cohort,
    "participants": choose_participants,
    "leave out": lambda wrong: leave_out(wrong, []),
    "baselines": baselines,
    "schedule": lambda wrong: solve_schedule(wrong, None),
    "evaluate schedule": lambda wrong: evaluate_schedule(wrong, None, []),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("wrong", [None, 3, "problem", {}])
def test_what_is_no_problem_is_named(ask, wrong):
    with pytest.raises(InvalidProblemError, match=r"^problem = .*: must be a coopt.Problem, not "):
        ask(wrong)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: solve_allocation(PROBLEM, warm_start=3),
            "warm_start = 3: must be a coopt.Allocation",
        ),
        (lambda: solve_allocation(PROBLEM, solver=[]), r"solver = \[\]: must be one of"),
        (lambda: solve_allocation(PROBLEM, bound=3), "bound = 3: must be a name or"),
        (lambda: solve_allocation(PROBLEM, bound="tradeoff(gamma=x, ratio=2)"), "bound = 'tradeoff"),
        (lambda: solve_allocation(PROBLEM, constraints=3), "constraints = 3: must be a function"),
        (lambda: allocate_batches([[1], [1, 2]], 1, 1, 1, 1), "weights is not an array of numbers"),
        (lambda: PROBLEM.cost("1", 1, 1), "rounds = '1': must be a finite number"),
        (lambda: PROBLEM.time(1, None, 1), "local_steps = None: must be a finite number"),
        (lambda: PROBLEM.energy([1], 1, 1), r"rounds = \[1\]: must be a finite number"),
        (lambda: Forecast(None), "model = None: must be a coopt.LocalModel"),
        (lambda: Measurement.load(3), "3: is no measurement"),
        (lambda: frontier(PROBLEM, values=5), "values = 5: must be an iterable"),
        (lambda: frontier(PROBLEM, vary=[5]), r"vary = \[5\]: must be one of"),
        (lambda: frontier(PROBLEM, objective=5), "objective = 5: must be one of"),
        (lambda: leave_out(PROBLEM, 5), "devices = 5: must be an iterable"),
        (lambda: solve_many(5), "problems = 5: must be an iterable"),
        (lambda: solve_many([5]), r"problems\[0\] = 5: must be a coopt.Problem"),
        (lambda: PROBLEM.violations(1.5, 2, 1), r"^rounds = 1.5: must be an integer$"),
        (lambda: PROBLEM.violations(1, "2", 1), r"^local_steps = '2': must be an integer$"),
    ],
)
def test_other_arguments_are_named(ask, message):
    with pytest.raises(InvalidProblemError, match=message):
        ask()
