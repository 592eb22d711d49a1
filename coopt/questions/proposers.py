"""The solvers by name: those that prove what they find, and those that propose a plan."""

from __future__ import annotations

from coopt.solvers.contract import Solver
from coopt.solvers.proposers import closed_form, convex, coopt_fl

# Solvers that propose a plan, which the exact solver then bounds.
PROPOSERS: dict[str, Solver] = {
    "closed-form": closed_form.solve,
    "cvxpy": convex.solve,
    "coopt-fl": coopt_fl.solve,
}
SOLVERS = ("auto", "exact", *PROPOSERS)
