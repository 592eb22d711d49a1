"""cvxpy's solvers by name, and how each is asked: at first, and again where it stumbled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coopt.errors import SolverError

if TYPE_CHECKING:
    import cvxpy as cp

DEFAULT_BACKEND = "CLARABEL"
# Constraints that curve keep Clarabel from its own 1e-8.
TOLERANCE, LOOSER = 3e-7, 1e-5
# What multipliers prove is this near the optimum where the default backend did well, relative to the value
# sought; where any other is farther than the second from its own proof, the next one is tried.
ACCURACY, ROUGH = 2e-6, 1e-3
# Cones are scaled over more decades than by default, and pivots kept farther from zero.
_ROBUST = {
    "static_regularization_constant": 1e-7,
    "equilibrate_max_iter": 50,
    "equilibrate_min_scaling": 1e-8,
    "equilibrate_max_scaling": 1e8,
    "max_step_fraction": 0.9,
    # An iterate from which no progress was possible is an answer too: what it proves is checked.
    "accept_unknown": True,
}
# First-order methods need bounds on their work.
_OPTIONS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "CLARABEL": (
        {"tol_gap_abs": TOLERANCE, "tol_gap_rel": TOLERANCE, "tol_feas": TOLERANCE},
        {"tol_gap_abs": LOOSER, "tol_gap_rel": LOOSER, "tol_feas": LOOSER, **_ROBUST},
    ),
    "SCS": ({"eps_abs": 1e-6, "eps_rel": 1e-6, "max_iters": 20_000}, {"eps_abs": 1e-4, "eps_rel": 1e-4}),
}
# Solvers for second-order cones that need no licence, in the order in which they stand in for the default.
_OTHERS = ("ECOS", "QOCO", "CVXOPT", "SCS")


@dataclass(frozen=True)
class Setting:
    """One way to ask a solver.

    Attributes
    ----------
    backend : str
        Its name in cvxpy.
    name : str
        What a record of tries calls it.
    options : mapping
    accuracy : float
        A point this near to what it proves is taken; otherwise the next way is tried as well.
    """

    backend: str
    name: str
    options: Mapping[str, Any]
    accuracy: float


def settings(backend: str | None) -> tuple[Setting, ...]:
    """The ways to try, in order: a solver that was named alone, else the default one and then others.

    Raises
    ------
    SolverError
        If cvxpy finds no solver of that name; the message lists those that it finds.
    """
    import cvxpy as cp

    names = cp.installed_solvers()
    if backend is not None and backend not in names:
        raise SolverError(
            f"backend = {backend!r}: cvxpy finds no such solver; installed are {', '.join(sorted(names))}"
        )
    wanted = (DEFAULT_BACKEND, *_OTHERS) if backend is None else (backend,)
    return tuple(
        Setting(
            name,
            f"{name}, looser" if place else name,
            options,
            ACCURACY if name == DEFAULT_BACKEND and not place else ROUGH,
        )
        for name in wanted
        if name in names
        for place, options in enumerate(_OPTIONS.get(name, ({},)))
    )


def run(problem: cp.Problem, backend: str, **options: Any) -> float | None:
    """Solve a cvxpy problem: its optimal value, or None if it is infeasible.

    Raises
    ------
    SolverError
        If the backend fails, cannot solve this kind of problem, or ends without an optimum.
    """
    import cvxpy as cp

    try:
        with warnings.catch_warnings():
            # That a solution may be inaccurate is in the status, and what it proves is checked.
            warnings.simplefilter("ignore", UserWarning)
            problem.solve(solver=backend, **options)
    except (cp.error.SolverError, ValueError, ArithmeticError) as error:
        raise SolverError(f"cvxpy backend {backend!r} failed: {error}") from error
    if problem.status == cp.INFEASIBLE:
        return None
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or problem.value is None:
        raise SolverError(f"cvxpy backend {backend!r} ended with status {problem.status!r}")
    return float(problem.value)
