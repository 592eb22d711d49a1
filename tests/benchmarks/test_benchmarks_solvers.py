"""One small piece of every table on solvers is measured anew, and shows what the table is to show."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.solvers import (
    cohort,
    coopt_fl_gap,
    energy,
    exact_speed,
    forecast_speed,
    many,
    peers,
    stress,
    unequal_costs,
)
from coopt import solve_allocation

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def test_the_best_cohort_is_that_of_enumeration() -> None:
    assert cohort.ENUMERATED >= 3
    row = cohort.row_of(3, 1, 2)
    assert int(row["trained"]) <= 2
    assert float(row["gap"]) <= cohort.CLOSED and float(row["nested_excess"]) >= 0.0
    assert "| 3 | 2 | 1 of 1 |" in cohort.report([row])


def test_published_methods_are_never_below_the_proved_optimum() -> None:
    rng = np.random.default_rng(0)
    latency, speed = rng.lognormal(-1.0, 0.5, 50), rng.lognormal(8.0, 0.5, 50)
    problem, rounds = coopt_fl_gap.draw(7, latency, speed)
    found = coopt_fl_gap.excesses(problem, rounds)
    assert list(found) == list(coopt_fl_gap.METHODS)
    known = np.array([value for value in found.values() if np.isfinite(value)])
    assert (known >= -1e-9).all()
    assert found["closed form"] < 0.1 and found["CoOptFL, best K"] < 0.5


@pytest.mark.parametrize("costs", energy.COSTS)
def test_plans_under_cost_and_energy_close_and_both_limits_bind(costs: str) -> None:
    bound = energy.BOUNDS["dynamite"]
    plan = solve_allocation(energy.powered(5, 1, costs, bound), bound=bound)
    assert plan.gap <= energy.CLOSED
    assert plan.shadow_prices["cost"] > 0.0 and plan.shadow_prices["energy"] > 0.0


@pytest.mark.parametrize("engine", exact_speed.ENGINES)
@pytest.mark.parametrize("problem", [exact_speed.INNER, exact_speed.PEER])
def test_the_exact_solver_beside_cvxpy(monkeypatch: pytest.MonkeyPatch, engine: str, problem: str) -> None:
    monkeypatch.setattr(exact_speed, "REPEATS", 1)
    row = exact_speed.measure(3, problem, engine, 0, 1e-6)
    assert float(str(row["seconds"])) > 0.0
    if problem == exact_speed.INNER:
        assert float(str(row["gap"])) < (1e-6 if engine == "cvxpy" else 1e-12)


@pytest.mark.parametrize("name", exact_speed.BOUNDS)
def test_the_exact_solver_proves_its_plans(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(exact_speed, "REPEATS", 1)
    row = exact_speed.measure(30, name, "coopt", 0, 1e-6)
    assert float(str(row["gap"])) <= 2e-12 and int(str(row["inner_solves"])) > 0


def test_the_plan_found_first_for_a_forecast_is_near_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DIRECTIONS": 3, "REPEATS": 1, "SIZES": (4,)}.items():
        monkeypatch.setattr(forecast_speed, name, value)
    row = forecast_speed.measured(4, "unlike", 0)
    assert -1e-9 <= float(row["excess"]) < 0.1
    assert 1 <= int(row["rounds"]) <= 200 and float(row["megabytes"]) > 0.0
    assert "| 4 | unlike |" in forecast_speed.report([{key: str(value) for key, value in row.items()}])


@pytest.mark.parametrize("collection", [many.sweep, many.strangers])
def test_all_ways_through_a_collection_come_to_the_same(
    monkeypatch: pytest.MonkeyPatch, collection: type
) -> None:
    monkeypatch.setattr(many, "COUNT", 2)
    problems = collection(4)
    assert len(problems) == 2
    found = [way(problems, "dynamite") for way in many.WAYS.values()]
    np.testing.assert_allclose(found, [found[0]] * len(found), rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "excess"),
    [
        ("coopt exact", 1e-9),
        ("coopt closed form", 0.01),
        ("CoOptFL, best K", 0.2),
        ("AdaCoOpt's greedy, best K", 0.5),
        ("cvxpy + Clarabel (DPP), by hand", 0.05),
    ],
)
def test_peers_on_a_small_fleet(monkeypatch: pytest.MonkeyPatch, name: str, excess: float) -> None:
    monkeypatch.setitem(peers.PEERS, name, peers.Peer(peers.PEERS[name].solve, 1))
    row = peers.row_of(3, name, "")
    assert -1e-9 <= float(row["worst_excess"]) <= excess
    assert "false" not in row["claim"] and "breaks" not in row["claim"]


@pytest.mark.parametrize("seed", range(6))
def test_wild_problems_close_and_agree_with_enumeration(seed: int) -> None:
    row = {key: str(value) for key, value in stress.solve(seed, small=True).items()}
    assert stress.agrees(row)
    assert row["status"] == "INFEASIBLE" or float(row["gap"]) <= 2e-12


def test_unequal_costs_close(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: unequal_costs.COSTS[name] for name in ("equal", "1, 2 or 5")}
    for name, value in {"SIZES": (6,), "SEEDS": 1, "COSTS": few}.items():
        monkeypatch.setattr(unequal_costs, name, value)
    rows = [{key: str(value) for key, value in row.items()} for row in unequal_costs.measured()]
    assert len(rows) == 6
    assert all(float(row["gap"]) <= 1e-12 for row in rows)
    assert unequal_costs.report(rows).count("| 1 of 1 |") == len(rows)
