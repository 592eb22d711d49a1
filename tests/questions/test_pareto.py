"""Trade-offs: every point an optimum, monotone, and honest where nothing is feasible."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from coopt import InvalidProblemError, frontier
from problems import NUMBERS
from problems import THREE_DEVICES as PROBLEM

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def plans(trade):
    return [point.allocation for point in trade.points]


@pytest.mark.parametrize(("vary", "values"), [("cost", [3e3, 1e4, 4e4]), ("time", [50, 200, 900])])
def test_error_falls_as_a_limit_grows(vary, values):
    found = plans(frontier(PROBLEM, vary=vary, values=values, bound=NUMBERS))
    errors = [plan.error_bound for plan in found]
    assert errors == sorted(errors, reverse=True)
    assert all(plan.gap <= 1e-12 for plan in found)


def test_cost_falls_as_the_target_is_relaxed():
    trade = frontier(PROBLEM, "cost", "target_error", [0.06, 0.1, 0.4], bound=NUMBERS)
    costs = [plan.cost for plan in plans(trade)]
    assert costs == sorted(costs, reverse=True)


def test_cost_and_time_trade_at_a_fixed_error():
    trade = frontier(PROBLEM, "cost", "time", [60, 120, 1000], bound=NUMBERS, target_error=0.3)
    assert [plan.cost for plan in plans(trade)] == sorted((p.cost for p in plans(trade)), reverse=True)
    assert all(plan.error_bound <= 0.3 * (1 + 1e-12) for plan in plans(trade))


def test_infeasible_points_say_why():
    trade = frontier(PROBLEM, vary="cost", values=[1.0, 1e4], bound=NUMBERS)
    assert trade.points[0].allocation is None
    assert "smallest feasible cost" in trade.points[0].reason
    assert [row["rounds"] is None for row in trade.to_rows()] == [True, False]


def test_a_plot_has_a_point_for_every_plan():
    trade = frontier(PROBLEM, vary="cost", values=[1.0, 1e4, 4e4], bound=NUMBERS)
    axes = trade.plot().axes[0]
    assert len(axes.lines[0].get_xdata()) == 2


@pytest.mark.parametrize(
    ("objective", "vary", "message"),
    [
        ("error", "money", "must be one of"),
        ("cost", "cost", "objective itself"),
        ("error", "target_error", "itself"),
    ],
)
def test_wrong_arguments_are_named(objective, vary, message):
    with pytest.raises(InvalidProblemError, match=message):
        frontier(PROBLEM, objective, vary, [1.0])


def test_values_are_checked():
    with pytest.raises(InvalidProblemError, match="cost = nan"):
        frontier(replace(PROBLEM), vary="cost", values=[float("nan")])


def test_values_may_have_units():
    trade = frontier(PROBLEM, vary="time", values=["1 min", timedelta(minutes=2), 180], bound=NUMBERS)
    assert [point.value for point in trade.points] == [60.0, 120.0, 180.0]
    trade = frontier(PROBLEM, vary="cost", values=["10 epochs"], bound=NUMBERS)
    assert trade.points[0].value == 10 * PROBLEM.fleet.epoch_cost
    with pytest.raises(InvalidProblemError, match="'moons' is no unit here"):
        frontier(PROBLEM, vary="time", values=["2 moons"])
    with pytest.raises(InvalidProblemError, match="target_error = '5 epochs'"):
        frontier(PROBLEM, "cost", "target_error", ["5 epochs"])
