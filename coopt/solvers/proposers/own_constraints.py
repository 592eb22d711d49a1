"""Constraints that a user writes on the batch sizes: checked, scaled, and linearised for a proof."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.solvers.proposers.dual_bound import Floats, Priced
from coopt.solvers.proposers.kinks import Kink

if TYPE_CHECKING:
    import cvxpy as cp

Constraints = Callable[[Any], Sequence[Any]]
Gradients = dict[Any, Floats | None]

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
        Without the kinks.
    kinks : sequence of Kink
    batches : cvxpy.Variable
    """

    def __init__(self, rules: Sequence[cp.Constraint], kinks: Sequence[Kink], batches: cp.Variable) -> None:
        from cvxpy.constraints import Equality, Inequality

        self._batches, self._kinks = batches, kinks
        self._rules = [rule for rule in rules if isinstance(rule, Equality | Inequality)]
        # The gradient of an affine function is the same everywhere.
        self._known: dict[int, Gradients] = {}

    def priced(self) -> Priced:
        """Their sum, each times its multiplier."""
        from cvxpy.constraints import Inequality

        total = _Sum(np.zeros(self._batches.size), {})
        for rule in self._rules:
            if rule.dual_value is None:
                continue
            price = np.ravel(rule.dual_value, order="F")
            if isinstance(rule, Inequality):
                price = np.maximum(price, 0.0)
            size = float(np.sum(np.abs(price))) * _size(rule)
            if size > NEGLIGIBLE:
                self._add(total, rule.expr, price)
                total.constant -= 2.0 * SLACK * size
        # A kink's price is known once all that it occurs in has been added.
        for kink in reversed(self._kinks):
            price = total.tops.pop(kink.top.id, np.zeros(kink.top.size))
            if price.any():
                for piece, part in zip(kink.pieces, kink.prices(price), strict=True):
                    self._add(total, piece, part)
        return Priced(total.slopes, constant=total.constant, size=total.size)

    def _add(self, total: _Sum, expression: cp.Expression, price: Floats) -> None:
        """Add prices times what is below an expression everywhere, and equal to it at this point."""
        gradients = self._known.get(expression.id)
        if gradients is None:
            gradients = {
                variable: _dense(found, variable.size) for variable, found in expression.grad.items()
            }
            if expression.is_affine():
                self._known[expression.id] = gradients
        if any(gradient is None for gradient in gradients.values()):
            return
        value = np.ravel(expression.value, order="F")
        total.constant += float(price @ value)
        total.size += float(np.abs(price) @ np.abs(value))
        for variable, gradient in gradients.items():
            if gradient is None:
                continue
            here, point = gradient @ price, np.ravel(variable.value, order="F")
            total.constant -= float(here @ point)
            total.size += float(np.abs(here) @ np.abs(point))
            if variable.id == self._batches.id:
                total.slopes += here
            else:
                total.tops[variable.id] = total.tops.get(variable.id, 0.0) + here


@dataclass
class _Sum:
    slopes: Floats
    tops: dict[int, Floats]
    constant: float = 0.0
    size: float = 0.0


def _dense(found: Any, size: int) -> Floats | None:
    """Shape (entries of the variable, entries of the expression); None where there is none."""
    if found is None:
        return None
    dense: Floats = found.toarray() if hasattr(found, "toarray") else np.asarray(found, dtype=np.float64)
    return dense.reshape(size, -1)


def _size(rule: cp.Constraint) -> float:
    return max(float(np.max(np.abs(term.value))) for term in rule.args)
