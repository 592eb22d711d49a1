"""Small problems that between them call every compiled function."""

from __future__ import annotations

from coopt.bound import Certified, Dynamite, NonConvex
from coopt.problem import Budget, Constants, Fleet, Problem
from coopt.solve import solve_allocation


def run() -> None:
    """Plan them; whatever is not compiled yet is compiled on the way."""
    problem = Problem(
        Fleet(
            samples=[600, 300, 100],
            gradient_noise=[4.0, 3.0, 2.0],
            divergence=0.1,
            throughput=[40, 20, 80],
            round_time=1.0,
        ),
        Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0),
        Budget(cost=20_000, time=600, round_cost=20),
    )
    for bound in (Dynamite(), Certified(), NonConvex(1, 1)):
        solve_allocation(problem, bound=bound)
