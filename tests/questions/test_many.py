"""Collections: what each problem gives alone, failures kept in their place, the same every time."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from functools import cache

import pytest

from coopt import (
    Budget,
    CooptError,
    InvalidProblemError,
    MissingDependencyError,
    SolverError,
    frontier,
    sensitivity,
    solve_allocation,
    solve_many,
)
from coopt.objectives.certified import Certified
from coopt.questions.kept_form import KeptForm, keeping_form
from fleets import random_problem

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def sweep(seed: int = 3) -> list:
    """Neighbours that share a fleet, strangers, and two that cannot be solved."""
    base = random_problem(seed, time=300.0, round_cost=40.0)
    costs = [replace(base, budget=replace(base.budget, cost=base.budget.cost * f)) for f in (1.0, 1.1, 2.0)]
    broke = replace(base, budget=Budget(cost=1.0))
    no_pl = replace(base, constants=replace(base.constants, pl_constant=None))
    return [*costs, broke, no_pl, random_problem(seed + 1), random_problem(seed + 2, equal_costs=False)]


def few() -> list:
    """Two neighbours, and the two that cannot be solved."""
    return sweep()[1:5]


@pytest.mark.parametrize("bound", ["certified", "dynamite", "nonconvex"])
def test_each_outcome_is_what_the_problem_gives_alone(bound):
    problems = sweep()
    found = solve_many(problems, bound=bound)
    assert len(found) == len(problems)
    for problem, outcome in zip(problems, found.outcomes, strict=True):
        if isinstance(outcome, CooptError):
            with pytest.raises(type(outcome), match=re.escape(str(outcome))):
                solve_allocation(problem, bound=bound)
        else:
            alone = solve_allocation(problem, bound=bound)
            assert outcome.error_bound == pytest.approx(alone.error_bound, rel=1e-10)
            assert outcome.lower_bound <= alone.error_bound
            outcome.certify()


def test_names_follow_their_problems_and_failures_keep_their_place():
    problems = dict(zip("acdeb", [*few(), few()[0]], strict=True))
    found = solve_many(problems, bound="dynamite")
    assert found.names == tuple("acdeb")
    assert set(found.errors) == {"d", "e"}
    assert found.errors["d"].binding == "cost"
    assert [plan is None for plan in found.allocations] == [name in "de" for name in "acdeb"]
    assert solve_many(few(), bound="dynamite").names == tuple("0123")


def test_the_same_problems_give_the_same_table(tmp_path):
    for name in ("first.csv", "second.csv"):
        solve_many(iter(sweep()), bound="dynamite").to_csv(tmp_path / name)
    first, second = ((tmp_path / name).read_text() for name in ("first.csv", "second.csv"))
    assert first == second
    rows = list(csv.DictReader(io.StringIO(first)))
    assert [row["problem"] for row in rows] == [str(i) for i in range(7)]
    assert [bool(row["reason"]) for row in rows] == [False, False, False, True, True, False, False]


def test_progress_counts_every_problem_failures_too():
    calls = []
    solve_many(few(), bound="dynamite", progress=lambda *counts: calls.append(counts))
    assert calls == [(done, 4) for done in range(1, 5)]


def test_options_reach_the_solver():
    base = random_problem(4)
    cheapest = solve_many([base], bound="dynamite", objective="cost", target_error=0.5).outcomes[0]
    assert cheapest.objective == "cost" and cheapest.error_bound <= 0.5 * (1 + 1e-9)
    slower = solve_many([base], bound="dynamite", learning_rate=0.01).outcomes[0]
    assert slower.learning_rate == 0.01
    (refused,) = solve_many([replace(base, budget=Budget(time=300.0))], solver="coopt-fl").outcomes
    assert isinstance(refused, SolverError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bound": "guess"}, "bound = 'guess'"),
        ({"solver": "magic"}, "solver = 'magic'"),
        ({"objective": "joy"}, "objective = 'joy'"),
        ({"objective": "cost"}, "target_error is missing"),
        ({"problems": [random_problem(0), "no"]}, "problems[1] = 'no'"),
    ],
)
def test_what_is_wrong_for_every_problem_is_raised(arguments, message):
    with pytest.raises(InvalidProblemError) as caught:
        solve_many(**{"problems": sweep(), **arguments})
    assert message in str(caught.value)


def test_nothing_gives_an_empty_table(tmp_path):
    found = solve_many([])
    assert found.to_rows() == []
    with pytest.raises(InvalidProblemError, match="no row"):
        found.to_csv(tmp_path / "rows.csv")


def test_files_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(InvalidProblemError, match="cannot be written"):
        solve_many(sweep()[:1], bound="dynamite").to_csv(tmp_path / "nowhere" / "rows.csv")


def test_forms_are_shared_while_fleet_and_constants_stay():
    first, second, *_ = sweep()
    bound = keeping_form(Certified())
    form = bound.monotone_form(first)
    assert bound.monotone_form(second) is form
    assert bound.monotone_form(random_problem(9)) is not form
    changed = replace(first, constants=replace(first.constants, initial_gap=1.0))
    assert bound.monotone_form(changed) is not form
    some = replace(first, budget=replace(first.budget, participants=2))
    assert bound.monotone_form(some) is not form
    fewer = replace(some, budget=replace(some.budget, participants=1))
    assert bound.monotone_form(fewer) is not bound.monotone_form(some)
    batches = [2] * len(first.fleet)
    assert bound.value(first, 3, 2, batches) == Certified().value(first, 3, 2, batches)
    single = keeping_form(Certified(1, 1))
    assert single.name == Certified(1, 1).name and single.members() == (Certified(1, 1),)
    for ours, theirs in zip(
        single.coefficients(first, 3, 2), Certified(1, 1).coefficients(first, 3, 2), strict=True
    ):
        assert ours == pytest.approx(theirs)


def test_the_draw_of_participants_is_part_of_the_form():
    everyone = sweep()[0]
    problems = [
        replace(everyone, budget=replace(everyone.budget, participants=count)) for count in (None, 2, 1, None)
    ]
    for problem, plan in zip(problems, solve_many(problems).allocations, strict=True):
        assert plan.error_bound == pytest.approx(solve_allocation(problem).error_bound, rel=1e-10)


def test_results_name_the_bound_itself():
    (plan,) = solve_many(sweep()[:1], bound="dynamite").outcomes
    assert plan.custom_bound is None
    assert not isinstance(plan.bound_object, KeptForm)


@cache
def tables() -> tuple:
    base = random_problem(4)
    return (
        solve_many([base], bound="dynamite"),
        frontier(base, vary="cost", values=[base.budget.cost], bound="dynamite"),
        sensitivity(base, bound="dynamite", quantities="cost"),
    )


class TestDataFrames:
    @pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
    def test_every_library_gets_the_rows(self, backend):
        for module in ("narwhals", backend):
            pytest.importorskip(module)
        import narwhals

        for table in tables():
            frame = narwhals.from_native(table.to_dataframe(backend))
            rows = table.to_rows()
            assert frame.shape == (len(rows), len(rows[0]))
            assert frame["rounds"].to_list() == [row["rounds"] for row in rows]
            assert frame["reason"].to_list() == [row["reason"] for row in rows]
            assert frame["gap"].to_list() == [row["gap"] for row in rows]

    def test_what_is_missing_is_said(self, monkeypatch):
        table = tables()[0]
        with pytest.raises(InvalidProblemError, match="backend = 'excel': must be one of 'pandas', 'polars'"):
            table.to_dataframe("excel")
        have = {"narwhals"}
        monkeypatch.setattr("coopt.problem.data_frames.find_spec", lambda name: name in have or None)
        with pytest.raises(MissingDependencyError, match=r"needs polars.*pip install polars"):
            table.to_dataframe("polars")
        have.clear()
        with pytest.raises(MissingDependencyError, match=r"coopt\[dataframe\]"):
            table.to_dataframe()
