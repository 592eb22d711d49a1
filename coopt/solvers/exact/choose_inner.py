"""Which inner problem a problem has, and how it is solved for bounds on all rounds and local steps."""

from __future__ import annotations

import math

from coopt.objectives.monotone import MonotoneForm
from coopt.problem.problem import Problem
from coopt.solvers.contract import Inner
from coopt.solvers.exact.batch_choices import BatchChoices
from coopt.solvers.exact.cost_and_energy import TwoLimits
from coopt.solvers.exact.equal_costs import EqualCostOracle
from coopt.solvers.exact.inner import EqualCosts, UnequalCosts
from coopt.solvers.exact.inner_oracle import InnerOracle
from coopt.solvers.exact.oracle import Oracle


def inner_of(problem: Problem, form: MonotoneForm) -> Inner:
    """The inner problem under the limits that the problem has.

    Raises
    ------
    SolverError
        If the form has more than two noise terms.
    """
    if problem.fleet.batch_choices is not None:
        return BatchChoices(problem, form)
    if problem.budget.energy < math.inf:
        return TwoLimits(problem, form)
    unit_cost = problem.fleet.unit_cost
    return UnequalCosts(problem, form) if unit_cost is None else EqualCosts(problem, form, unit_cost)


def oracle_of(problem: Problem, form: MonotoneForm, inner: Inner, corner: tuple[int, int]) -> Oracle:
    """What rows for all plans with as many rounds and local steps as the corner, or more, are made from."""
    if inner.unit_cost is not None:
        return EqualCostOracle(problem, form, inner.unit_cost)
    return InnerOracle(problem, form, inner, corner)
