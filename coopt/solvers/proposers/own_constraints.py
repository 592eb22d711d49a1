"""Constraints that a user writes on the batch sizes: checked, scaled, and linearised for a proof."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.solvers.proposers.dual_bound import Floats, Priced

if TYPE_CHECKING:
    import cvxpy as cp
    from cvxpy.constraints import Equality, Inequality

Constraints = Callable[[Any], Sequence[Any]]

# A constraint is met within this fraction of the largest number in it: the rounding of its sums.
SLACK = 1e-9
# A multiplier that adds less than this to a value near one is taken for zero.
NEGLIGIBLE = 1e-9


def own_constraints(constraints: Constraints | None, batch_sizes: cp.Expression) -> list[cp.Constraint]:
    """The user's constraints on an expression of the batch sizes.

    Raises
    ------
    InvalidProblemError
        If they are not a list of cvxpy constraints, or one is not convex, or has variables of its own.
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
        if not set(rule.variables()) <= set(batch_sizes.variables()):
            raise InvalidProblemError(
                f"constraints[{place}] has variables of its own: it must be about the batch sizes alone"
            )
    return list(found)


def scaled(rules: Sequence[cp.Constraint]) -> list[cp.Constraint]:
    """The same constraints, each side divided by how large it is at the variables' values.

    A user's units may be anything, and backends compare a constraint's error with one.
    """
    from cvxpy.constraints import Equality, Inequality

    found: list[cp.Constraint] = []
    for rule in rules:
        size = _size(rule)
        if isinstance(rule, Equality | Inequality) and 0.0 < size < math.inf:
            found.append(type(rule)(rule.args[0] / size, rule.args[1] / size))
        else:
            found.append(rule)
    return found


def meets(constraints: Constraints, batch_sizes: NDArray[np.int64]) -> bool:
    """Whether whole batches meet the user's constraints."""
    import cvxpy as cp

    return all(
        float(np.max(rule.violation())) <= SLACK * _size(rule)
        for rule in own_constraints(constraints, cp.Constant(batch_sizes))
    )


class Linearised:
    """Constraints as lines at the variables' values, to be added up with the multipliers of a backend.

    What cannot be linearised is left out, which only makes a bound weaker: cones, and what has no gradient at
    a point.

    Parameters
    ----------
    rules : sequence of cvxpy.Constraint
    batches : cvxpy.Variable
    """

    def __init__(self, rules: Sequence[cp.Constraint], batches: cp.Variable) -> None:
        from cvxpy.constraints import Equality, Inequality

        self._batches = batches
        self._rules = [
            # The gradient of an affine function is the same everywhere.
            (rule, _gradient(rule, batches) if rule.expr.is_affine() else None)
            for rule in rules
            if isinstance(rule, Equality | Inequality)
        ]

    def priced(self) -> Priced:
        """Their sum, each times its multiplier."""
        from cvxpy.constraints import Inequality

        point = np.asarray(self._batches.value, dtype=np.float64)
        slopes, constant, magnitude = np.zeros(point.size), 0.0, 0.0
        for rule, known in self._rules:
            if rule.dual_value is None:
                continue
            price = np.ravel(rule.dual_value, order="F")
            if isinstance(rule, Inequality):
                price = np.maximum(price, 0.0)
            size = float(np.sum(np.abs(price))) * _size(rule)
            if not size > NEGLIGIBLE:
                continue
            gradient = _gradient(rule, self._batches) if known is None else known
            if gradient is None:
                continue
            here = gradient @ price
            value = np.ravel(rule.expr.value, order="F")
            part = float(price @ value - here @ point) - 2.0 * SLACK * size
            if np.isfinite(here).all() and math.isfinite(part):
                slopes += here
                constant += part
                magnitude += size + float(np.abs(point) @ np.abs(gradient) @ np.abs(price))
        return Priced(slopes, constant=constant, size=magnitude)


def _gradient(rule: Equality | Inequality, batches: cp.Variable) -> Floats | None:
    """Shape (N, entries of the constraint); None where it has none."""
    found = rule.expr.grad.get(batches)
    if found is None:
        return None
    dense = found.toarray() if hasattr(found, "toarray") else np.asarray(found, dtype=np.float64)
    return dense.reshape(batches.size, -1)


def _size(rule: cp.Constraint) -> float:
    return max(float(np.max(np.abs(term.value))) for term in rule.args)
