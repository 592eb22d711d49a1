"""What an objective says of itself, and what happens where a user's own says less."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coopt
from coopt import (
    AdaCoOpt,
    Bound,
    Budget,
    Certified,
    Dynamite,
    Fleet,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    NonConvex,
    Problem,
    SolverError,
    TradeOff,
    evaluate,
    solve_allocation,
)
from coopt.objectives.protocol import Objective, Parts
from coopt.objectives.registry import KINDS, names_to_solve_with
from problems import THREE_DEVICES, constants, numeric_bounds, problems

PACKAGE = Path(coopt.__file__).parent


@dataclass(frozen=True)
class Least:
    """The least that a bound can be: a name and coefficients."""

    inner: Objective
    name: str = "least"

    def coefficients(self, problem, rounds, local_steps):
        return self.inner.coefficients(problem, rounds, local_steps)


@dataclass(frozen=True)
class WithForm(Least):
    """A name, coefficients and a monotone form, without any class of coopt's."""

    def monotone_form(self, problem):
        return self.inner.monotone_form(problem)


class WithParts(Least):
    """Also says how its value splits."""

    def parts(self, problem, rounds, local_steps, batch_sizes):
        return Parts(1.0, 2.0, 3.0)


@pytest.mark.filterwarnings("ignore::coopt.BoundWarning")
@settings(max_examples=25, deadline=None)
@given(problem=problems(), inner=numeric_bounds)
def test_a_name_and_coefficients_are_enough_for_the_exact_solver(problem, inner):
    own = Least(inner)
    assert isinstance(own, Bound)
    try:
        expected = solve_allocation(problem, bound=inner)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            solve_allocation(problem, bound=own, solver="exact")
        return
    found = solve_allocation(problem, bound=own, solver="exact")
    found.certify()
    offset, _ = inner.coefficients(problem, expected.rounds, expected.local_steps)
    # Without replacement the offset of the coefficients cancels digits of the noise.
    slack = 1e-13 * (abs(offset) + expected.error_bound)
    assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-11, abs=slack)
    assert (found.solver, found.bound) == ("exhaustive", "least")
    assert found.custom_bound is own
    assert found.parts is None


def test_a_form_without_a_class_of_ours_lets_every_solver_work():
    problem = replace(THREE_DEVICES, budget=replace(THREE_DEVICES.budget, max_local_steps=20))
    own = WithForm(Certified(1, 1))
    for solver in ("exact", "closed-form", "cvxpy", "coopt-fl"):
        expected = solve_allocation(problem, bound=own.inner, solver=solver)
        found = solve_allocation(problem, bound=own, solver=solver)
        assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-12)
        assert (found.rounds, found.local_steps) == (expected.rounds, expected.local_steps)


@pytest.mark.parametrize("solver", ["closed-form", "cvxpy", "coopt-fl"])
def test_solvers_that_need_the_form_say_so(solver):
    with pytest.raises(SolverError, match="needs a bound with a monotone form, and 'least' declares none"):
        solve_allocation(THREE_DEVICES, bound=Least(Dynamite()), solver=solver)


def test_what_a_users_own_bound_says_of_itself_is_used():
    plan = evaluate(THREE_DEVICES, 3, 2, 5, WithParts(Dynamite()))
    assert plan.parts == Parts(1.0, 2.0, 3.0)
    assert plan.error_bound == pytest.approx(Dynamite().value(THREE_DEVICES, 3, 2, [5, 5, 5]), rel=1e-12)
    with pytest.raises(InvalidProblemError, match="bound = 'least' is not one of coopt's own"):
        plan.to_json()


@settings(max_examples=100, deadline=None)
@given(known=constants(), bound=numeric_bounds)
def test_a_bound_holds_up_to_its_largest_learning_rate_and_not_beyond(known, bound):
    problem = Problem(Fleet([5, 3], 1.0, 0.1), known, Budget())
    rates = bound.rates(problem)
    bound.value(rates.at(rates.largest), 3, 2, [1, 1])
    with pytest.raises(InvalidProblemError, match="learning_rate = "):
        bound.value(rates.at(1.001 * rates.largest), 3, 2, [1, 1])


def test_what_values_are_called_and_measured_in():
    loss = {Certified(): "loss", Dynamite(): "loss", AdaCoOpt(): "loss", TradeOff(): "loss"}
    for bound, unit in loss.items():
        assert (bound.quantity, bound.unit, bound.proved) == ("Error bound", unit, True)
    assert NonConvex().quantity == "Bound on the mean squared gradient"
    assert NonConvex().unit == "gradient^2"
    assert (Forecast.quantity, Forecast.unit, Forecast.proved) == ("Predicted error", "loss", False)


def test_each_value_agrees_with_the_statement_of_its_theorem():
    for bound in (Certified(0.3, 2.0), NonConvex(0.5, 0.4), Dynamite(), AdaCoOpt()):
        known = replace(THREE_DEVICES.constants, lipschitz=0.7)
        plan = evaluate(replace(THREE_DEVICES, constants=known), 7, 3, [40, 20, 8], bound)
        assert plan.certify().error_bound == pytest.approx(plan.error_bound, rel=1e-13)
        assert bound.statement(plan.problem, 3).theorem.name == KIND_NAMES[type(bound)]


KIND_NAMES = {kind: name for name, kind in KINDS.items()}


def test_the_command_line_takes_every_name_that_needs_no_numbers():
    from coopt.cli.inputs import BOUNDS

    assert names_to_solve_with() == BOUNDS


@settings(max_examples=50, deadline=None)
@given(rounds=st.integers(1, 1000), steps=st.integers(1, 30))
def test_an_objective_without_a_value_of_its_own_sums_its_coefficients(rounds, steps):
    batches = np.array([40.0, 20.0, 8.0])
    plan = replace(THREE_DEVICES, budget=Budget())
    judged = evaluate(plan, rounds, steps, batches.astype(int), Least(Dynamite()))
    offset, weights = Dynamite().coefficients(plan, rounds, steps)
    assert judged.error_bound == pytest.approx(math.fsum([offset, *(weights / batches)]), rel=1e-14)


def kinds_of(objective: type) -> set[str]:
    """The names of a class and of all that are derived from it."""
    return {objective.__name__}.union(*map(kinds_of, objective.__subclasses__()))


def test_nobody_outside_the_room_asks_which_class_an_objective_has():
    classes = kinds_of(Objective) | {"Bound", "MonotoneBound"}
    assert {"Certified", "Dynamite", "TradeOff", "Forecast", "YoungFamily", "MonotoneBase"} <= classes
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "objectives" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                assert not asked & classes, f"{path}:{node.lineno} asks for {asked & classes}"
