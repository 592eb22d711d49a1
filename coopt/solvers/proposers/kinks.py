"""A user's constraints in a form that backends and proofs can use well: scaled inside, and without kinks.

One gradient of max(s) sees one device. Where several share the maximum, their multipliers together make the
proof. So each maximum, minimum and absolute value becomes a variable t with a rule for every piece, which is
what cvxpy would do out of sight, and the multipliers of those rules say in which shares the pieces stand in
for t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import cvxpy as cp

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Kink:
    """A variable that stands for the largest, or the smallest, of some pieces.

    Attributes
    ----------
    top : cvxpy.Variable
    pieces : tuple of cvxpy.Expression
        Either one, whose largest entry a scalar `top` is, or several of the shape of `top`.
    rules : tuple of cvxpy.Constraint
        One for each of `pieces`: that `top` is not below it, or not above.
    largest : bool
    """

    top: cp.Variable
    pieces: tuple[cp.Expression, ...]
    rules: tuple[cp.Constraint, ...]
    largest: bool

    def prices(self, price: Floats) -> list[Floats]:
        """What a price of `top` is as prices of the entries of each piece.

        Any shares that add up to one are valid, as long as the price has the sign that the place of the
        function in a convex constraint gives it; those of the multipliers are the best.
        """
        if (price < 0.0 if self.largest else price > 0.0).any():
            return [np.full(piece.size, np.nan) for piece in self.pieces]
        duals = [np.zeros(piece.size) for piece in self.pieces]
        for found, rule in zip(duals, self.rules, strict=True):
            if rule.dual_value is not None:
                found += np.maximum(np.nan_to_num(np.ravel(rule.dual_value, order="F")), 0.0)
        values = [np.ravel(piece.value, order="F") for piece in self.pieces]
        axis = 0 if len(duals) > 1 else 1
        shares, heights = np.array(duals), np.array(values) * (1.0 if self.largest else -1.0)
        active = (heights == heights.max(axis=axis, keepdims=True)).astype(np.float64)
        shares = np.where(shares.sum(axis=axis, keepdims=True) > 0.0, shares, active)
        shares /= shares.sum(axis=axis, keepdims=True)
        return list(shares * price)


def taken_apart(rules: Sequence[cp.Constraint]) -> tuple[list[cp.Constraint], list[Kink]]:
    """Constraints without maxima, minima and absolute values, and what stands in for those.

    The kinks come in an order in which each is about variables and earlier kinks alone. Values of the
    variables give the scale.
    """
    from cvxpy.constraints import Equality, Inequality

    kinks: list[Kink] = []
    found: list[cp.Constraint] = []
    for rule in rules:
        if isinstance(rule, Equality | Inequality):
            found.append(type(rule)(*(_unfolded(term, kinks) for term in rule.args)))
        else:
            found.append(rule)
    return found, kinks


def _unfolded(expression: cp.Expression, kinks: list[Kink]) -> cp.Expression:
    import cvxpy as cp

    if expression.is_affine():
        return expression
    inside = [_unfolded(argument, kinks) for argument in expression.args]
    kind = type(expression).__name__
    whole = getattr(expression, "axis", None) is None
    if kind in ("abs", "norm1", "norm_inf") and whole and inside[0].is_affine():
        size = _kink([inside[0], -inside[0]], kinks, largest=True)
        if kind == "abs":
            return size
        return cp.sum(size) if kind == "norm1" else _kink([size], kinks, largest=True)
    if kind in ("max", "maximum") and whole:
        return _kink(inside, kinks, largest=True)
    if kind in ("min", "minimum") and whole:
        return _kink(inside, kinks, largest=False)
    return _scaled_inside(expression, kind, inside)


def _scaled_inside(expression: cp.Expression, kind: str, inside: list[cp.Expression]) -> cp.Expression:
    """A power, a sum of squares or a logarithm of numbers near one, and what that leaves outside.

    As cones they hold their argument, their value and the number one, which must not be decades apart.
    """
    import cvxpy as cp

    unit = float(np.max(np.abs(inside[0].value))) if inside and inside[0].value is not None else 0.0
    if not 0.0 < unit < math.inf:
        return expression.copy(inside)
    near = expression.copy([inside[0] / unit, *inside[1:]])
    if kind == "log":
        return near + math.log(unit)
    exponent = 2.0 if kind == "quad_over_lin" else _exponent(expression) if "power" in kind.lower() else 0.0
    factor = unit**exponent
    if exponent == 0.0 or not 0.0 < factor < math.inf:
        return expression.copy(inside)
    return cp.multiply(factor, near)


def _exponent(expression: cp.Expression) -> float:
    """Of a power; zero where it is no number."""
    found: Any = getattr(expression, "p", None)
    value = getattr(found, "value", found)
    return float(value) if value is not None and np.ndim(value) == 0 else 0.0


def _kink(pieces: Sequence[cp.Expression], kinks: list[Kink], *, largest: bool) -> cp.Expression:
    """A new kink over pieces: one whose entries count, or several that are compared entry by entry."""
    import cvxpy as cp

    size = max(float(np.max(np.abs(piece.value))) for piece in pieces)
    unit = size if 0.0 < size < math.inf else 1.0
    shape = () if len(pieces) == 1 else max((piece.shape for piece in pieces), key=len)
    top = cp.Variable(shape)
    # Numbers among the pieces are the same for every entry.
    scaled = tuple(
        piece / unit if len(pieces) == 1 or piece.shape == shape else piece / unit + np.zeros(shape)
        for piece in pieces
    )
    extreme = np.max if largest else np.min
    if len(pieces) == 1:
        top.value = extreme(scaled[0].value)
    else:
        top.value = extreme(np.array([piece.value for piece in scaled]), axis=0)
    rules = tuple(piece <= top if largest else top <= piece for piece in scaled)
    kinks.append(Kink(top, scaled, rules, largest))
    return unit * top
