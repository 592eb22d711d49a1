"""Pictures of plans: what they show is the plan, for every shape of problem."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from coopt import (
    Bound,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    MissingDependencyError,
    Problem,
    solve_allocation,
)
from coopt.cli import example_problem
from coopt.plans.plot import bound_surface, plot_allocation, save_figure

CONSTANTS = Constants(
    learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.02, curvature_floor=0.02
)
SMALL = Fleet(samples=[60, 200], gradient_noise=4.0, divergence=0.1, throughput=[50, np.inf], round_time=1.0)


def test_the_plan_stands_in_both_panels() -> None:
    plan = solve_allocation(example_problem())
    left, right = plot_allocation(plan).axes[:2]
    starred = [line for line in left.lines if line.get_marker() == "*"]
    assert [(line.get_xdata().item(), line.get_ydata().item()) for line in starred] == [
        (plan.local_steps, plan.rounds)
    ]
    dots = next(line for line in right.lines if line.get_marker() == "o")
    assert np.array_equal(dots.get_ydata(), plan.batch_sizes)
    assert [label.get_text() for label in right.get_xticklabels()] == list(plan.problem.fleet.names or ())


@pytest.mark.parametrize("bound", [Certified(), Certified(gamma=1.0, z=1.0), Dynamite()], ids=str)
def test_the_surface_relaxes_the_plan_and_ends_at_the_limits(bound: Bound) -> None:
    problem = Problem(SMALL, CONSTANTS, Budget(cost=20_000, time=300, round_cost=20))
    plan = solve_allocation(problem, bound=bound)
    at_plan = bound_surface(plan, np.array([plan.rounds]), np.array([plan.local_steps])).item()
    assert plan.error_bound * 0.9 <= at_plan <= plan.error_bound * (1 + 1e-9)
    beyond = bound_surface(plan, np.array([299, 300, 301]), np.array([1, 2]))
    fits = [[not problem.violations(k, tau, [1, 1]) for tau in (1, 2)] for k in (299, 300, 301)]
    assert np.array_equal(np.isfinite(beyond), fits)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(cost=20_000, round_cost=20),
        Budget(time=300, cost=20_000),
        Budget(max_rounds=1, max_local_steps=1),
        Budget(cost=260, max_local_steps=1),
        Budget(max_rounds=50, max_local_steps=5),
    ],
    ids=["cost", "both", "only K = tau = 1", "tau = 1", "counts"],
)
def test_every_kind_of_limit_can_be_drawn(budget: Budget) -> None:
    figure = solve_allocation(Problem(SMALL, CONSTANTS, budget), bound="dynamite").plot()
    # Everything is laid out and its numbers are formatted; only the pixels are left out.
    figure.draw_without_rendering()
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == ["rounds, K", "samples per local step"]


def test_a_picture_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    budget = Budget(max_rounds=1, max_local_steps=1)
    save_figure(solve_allocation(Problem(SMALL, CONSTANTS, budget)).plot(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_many_devices_are_ranked_rather_than_named(tmp_path: Path) -> None:
    size = 200
    fleet = Fleet(samples=np.arange(50, 50 + size), gradient_noise=np.linspace(1, 9, size), divergence=0.1)
    plan = solve_allocation(Problem(fleet, CONSTANTS, Budget(cost=1_000_000, round_cost=100)))
    right = plot_allocation(plan).axes[1]
    dots = next(line for line in right.lines if line.get_marker() == "o")
    assert np.array_equal(dots.get_ydata(), np.sort(plan.batch_sizes)[::-1])
    assert "largest batch first" in right.get_xlabel()


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    plan = solve_allocation(Problem(SMALL, CONSTANTS, Budget(max_rounds=1, max_local_steps=1)))
    with pytest.raises(InvalidProblemError, match=r"plan\.xyz.*png"):
        save_figure(plan.plot(), tmp_path / "plan.xyz")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = solve_allocation(Problem(SMALL, CONSTANTS, Budget(max_rounds=1, max_local_steps=1)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"coopt\[plot\]"):
        plot_allocation(plan)
