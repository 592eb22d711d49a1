"""cvxpy's solvers by name, and constraints that a user writes for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from coopt.errors import InvalidProblemError, SolverError

if TYPE_CHECKING:
    import cvxpy as cp

Constraints = Callable[[Any], Sequence[Any]]


def installed(backend: str) -> str:
    """The name itself.

    Raises
    ------
    SolverError
        If cvxpy finds no such solver; the message lists those that it finds.
    """
    import cvxpy as cp

    names = cp.installed_solvers()
    if backend not in names:
        raise SolverError(
            f"backend = {backend!r}: cvxpy finds no such solver; installed are {', '.join(sorted(names))}"
        )
    return backend


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
            # That a solution may be inaccurate is in the status, which the caller reads.
            warnings.simplefilter("ignore", UserWarning)
            problem.solve(solver=backend, **options)
    except (cp.error.SolverError, ValueError, ArithmeticError) as error:
        raise SolverError(f"cvxpy backend {backend!r} failed: {error}") from error
    if problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        return None
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or problem.value is None:
        raise SolverError(f"cvxpy backend {backend!r} ended with status {problem.status!r}")
    return float(problem.value)


def own_constraints(constraints: Constraints | None, batch_sizes: cp.Expression) -> list[cp.Constraint]:
    """The user's constraints on an expression of the batch sizes.

    Raises
    ------
    InvalidProblemError
        If they are not a list of cvxpy constraints, or one is not convex.
    """
    import cvxpy as cp

    if constraints is None:
        return []
    found = constraints(batch_sizes)
    if not isinstance(found, Sequence):
        raise InvalidProblemError(
            f"constraints returned {type(found).__name__}: it must return a list of cvxpy constraints"
        )
    for place, rule in enumerate(found):
        if not isinstance(rule, cp.Constraint):
            raise InvalidProblemError(
                f"constraints[{place}] = {rule!r}: must be a cvxpy constraint on the batch sizes"
            )
        if not rule.is_dcp():
            raise InvalidProblemError(
                f"constraints[{place}] is not convex by cvxpy's rules: it must have the form "
                "convex <= concave, or affine == affine"
            )
    return list(found)
