"""Geometric sums and drift sums: recurrences, closed forms, and their removable singularities.

Four sums carry the theorems; each is the solution of a first-order recurrence, and each of its closed forms
(the general one and the ones at the singular points) is proved to solve that recurrence:

===================  ==============================================================================
``G(x, y, n)``       sum of x^(n-1-j) y^j for j < n
``S_a(q, r, n)``     sum of q^(n-1-j) ((r^j - 1)/(r - 1))^2 for j < n, the drift from divergence
``S_b(q, r, n)``     sum of q^(n-1-j) (r^(2j) - 1)/(r^2 - 1) for j < n, the drift from noise
``h``                see :mod:`coopt_bounds.drift`
===================  ==============================================================================

As numbers they are computed from the recurrences themselves by repeated squaring, which has no singular
point and adds nonnegative terms only.
"""

from __future__ import annotations

from typing import Any

import mpmath
import sympy as sp

from coopt_bounds.algebra import equal
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import Combine, Identity, Induct, term
from coopt_bounds.symbols import q, r

G = sp.Function("G", nonnegative=True)
S_a = sp.Function("S_a", nonnegative=True)
S_b = sp.Function("S_b", nonnegative=True)

power_11 = sp.Function("power_11", nonnegative=True)
"""``power_11(a11, a12, a21, a22, n)``: the first entry of the n-th power of a 2 x 2 matrix."""
series_1 = sp.Function("series_1", nonnegative=True)
"""``series_1(a11, a12, a21, a22, b1, b2, n)``: the first entry of the sum of A^j b for j < n."""

x, y = sp.symbols("x y", positive=True)
n = sp.Symbol("n", integer=True, nonnegative=True)
j = sp.Symbol("j", integer=True, nonnegative=True)


def geometric_sum(x: sp.Expr, y: sp.Expr, n: sp.Expr) -> sp.Expr:
    """Closed form of ``G(x, y, n)``: (x^n - y^n)/(x - y), and n x^(n-1) at x = y."""
    return sp.Piecewise((n * x ** (n - 1), sp.Eq(x, y)), ((x**n - y**n) / (x - y), True))


def divergence_sum(q: sp.Expr, r: sp.Expr, n: sp.Expr) -> sp.Expr:
    """Closed form of ``S_a(q, r, n)`` at every q, r >= 0."""
    general = (geometric_sum(q, r**2, n) - 2 * geometric_sum(q, r, n) + geometric_sum(q, sp.S.One, n)) / (
        r - 1
    ) ** 2
    return sp.Piecewise(
        (n * (n - 1) * (2 * n - 1) / 6, sp.And(sp.Eq(r, 1), sp.Eq(q, 1))),
        (_squares(q, n), sp.Eq(r, 1)),
        (general, True),
    )


def noise_sum(q: sp.Expr, r: sp.Expr, n: sp.Expr) -> sp.Expr:
    """Closed form of ``S_b(q, r, n)`` at every q, r >= 0."""
    general = (geometric_sum(q, r**2, n) - geometric_sum(q, sp.S.One, n)) / (r**2 - 1)
    return sp.Piecewise(
        (n * (n - 1) / 2, sp.And(sp.Eq(r, 1), sp.Eq(q, 1))),
        (_counts(q, n), sp.Eq(r, 1)),
        (general, True),
    )


def _squares(q: sp.Expr, n: sp.Expr) -> sp.Expr:
    return (q**n * (q + 1) - (q - 1) ** 2 * n**2 - 2 * (q - 1) * n - q - 1) / (q - 1) ** 3


def _counts(q: sp.Expr, n: sp.Expr) -> sp.Expr:
    return (q**n - 1 - n * (q - 1)) / (q - 1) ** 2


def closed(expression: sp.Expr) -> sp.Expr:
    """The expression with every sum replaced by its closed form."""
    expanded = expression.replace(S_a, divergence_sum).replace(S_b, noise_sum)
    result: sp.Expr = expanded.replace(G, geometric_sum)
    return result


def _power(matrix: Any, exponent: int) -> Any:
    result = mpmath.eye(matrix.rows)
    while exponent:
        if exponent & 1:
            result = result * matrix
        matrix = matrix * matrix
        exponent >>= 1
    return result


def _geometric_number(x: Any, y: Any, n: Any) -> Any:
    return (_power(mpmath.matrix([[x, 1], [0, y]]), int(n)))[0, 1]


def _divergence_number(q: Any, r: Any, n: Any) -> Any:
    # state: the sum, [j]^2, [j], 1 with [j + 1] = r [j] + 1
    step = mpmath.matrix([[q, 1, 0, 0], [0, r * r, 2 * r, 1], [0, 0, r, 1], [0, 0, 0, 1]])
    return _power(step, int(n))[0, 3]


def _noise_number(q: Any, r: Any, n: Any) -> Any:
    step = mpmath.matrix([[q, 1, 0], [0, r * r, 1], [0, 0, 1]])
    return _power(step, int(n))[0, 2]


def _matrix_number(a11: Any, a12: Any, a21: Any, a22: Any, n: Any) -> Any:
    return _power(mpmath.matrix([[a11, a12], [a21, a22]]), int(n))[0, 0]


def _series_number(a11: Any, a12: Any, a21: Any, a22: Any, b1: Any, b2: Any, n: Any) -> Any:
    return _power(mpmath.matrix([[a11, a12, b1], [a21, a22, b2], [0, 0, 1]]), int(n))[0, 2]


MEANINGS: dict[str, str] = {
    "G(x, y, n)": "sum of x^(n-1-j) y^j for j < n",
    "S_a(q, r, n)": "sum of q^(n-1-j) ((r^j - 1)/(r - 1))^2 for j < n: drift from divergence",
    "S_b(q, r, n)": "sum of q^(n-1-j) (r^(2j) - 1)/(r^2 - 1) for j < n: drift from noise",
}
"""What the sums say, for readers of a statement."""

NUMERIC: dict[str, Any] = {
    "G": _geometric_number,
    "S_a": _divergence_number,
    "S_b": _noise_number,
    "power_11": _matrix_number,
    "series_1": _series_number,
}
"""Numbers for the sums at mpmath's working precision, for ``sympy.lambdify``."""


_S = sp.Function("S", nonnegative=True)
_T1, _T2, _T3 = (sp.Function(f"T_{k}", nonnegative=True) for k in (1, 2, 3))


def _recurrence(
    sequence: Any, factor: sp.Expr, forcing: sp.Expr, words: str
) -> tuple[Assumption, Assumption]:
    return (
        Assumption(f"{words}: it starts at 0", equal(sequence(0), 0)),
        Assumption(f"{words}: recurrence", equal(sequence(n + 1), factor * sequence(n) + forcing)),
    )


def solves(
    name: str,
    words: str,
    factor: sp.Expr,
    forcing: sp.Expr,
    solution: sp.Expr,
) -> Lemma:
    """The lemma that ``S(0) = 0``, ``S(n+1) = factor S(n) + forcing`` has the given solution in ``n``."""
    start, recurrence = _recurrence(_S, factor, forcing, "the sum")
    claim = equal(_S(n), solution)
    return Lemma(
        name=name,
        words=words,
        hypotheses=(start, recurrence),
        steps=(
            Induct(
                claim,
                index=n,
                start=0,
                base=(Combine(equal(_S(0), solution.subs(n, 0)), (term(1, start.relation),)),),
                step=(
                    Combine(
                        equal(_S(n + 1), solution.subs(n, n + 1)),
                        (term(1, recurrence.relation), term(factor, claim)),
                    ),
                ),
            ),
        ),
        source="elementary",
    )


def _from_geometric(
    name: str,
    words: str,
    forcing: sp.Expr,
    scaled: sp.Expr,
    combination: tuple[tuple[Any, int, sp.Expr], ...],
) -> Lemma:
    """``scaled`` times the sum is a combination of geometric sums, whatever closed form each of them has."""
    start, recurrence = _recurrence(_S, q, forcing, "the drift sum")
    others = [
        (_recurrence(sequence, q, base**n, f"G(q, {base}, n)"), weight)
        for sequence, weight, base in combination
    ]
    claim = equal(
        scaled * _S(n), sum((weight * sequence(n) for sequence, weight, _ in combination), sp.S.Zero)
    )
    base = Combine(
        equal(scaled * _S(0), claim.rhs.subs(n, 0)),
        (
            term(scaled, start.relation),
            *(term(-weight, first.relation) for (first, _), weight in others),
        ),
    )
    step = Combine(
        equal(scaled * _S(n + 1), claim.rhs.subs(n, n + 1)),
        (
            term(scaled, recurrence.relation),
            *(term(-weight, following.relation) for (_, following), weight in others),
            term(q, claim),
        ),
    )
    return Lemma(
        name=name,
        words=words,
        hypotheses=(start, recurrence, *(a for pair, _ in others for a in pair)),
        steps=(Induct(claim, index=n, start=0, base=(base,), step=(step,)),),
        source="elementary",
    )


_ratio = (r**n - 1) / (r - 1)

LEMMAS: tuple[Lemma, ...] = (
    solves(
        "geometric/sum",
        "G(x, y, n) = (x^n - y^n)/(x - y) for x != y.",
        x,
        y**n,
        (x**n - y**n) / (x - y),
    ),
    solves(
        "geometric/sum-equal", "G(x, x, n) = n x^(n-1): the singular point x = y.", x, x**n, n * x ** (n - 1)
    ),
    _from_geometric(
        "geometric/divergence",
        "(r-1)^2 S_a = G(q,r^2) - 2 G(q,r) + G(q,1): with the two closed forms of G this covers q = r, "
        "q = r^2 and q = 1.",
        _ratio**2,
        (r - 1) ** 2,
        ((_T1, 1, r**2), (_T2, -2, r), (_T3, 1, sp.S.One)),
    ),
    solves(
        "geometric/divergence-r1", "S_a at r = 1, q != 1: the sum of q^(n-1-j) j^2.", q, n**2, _squares(q, n)
    ),
    solves(
        "geometric/divergence-r1-q1",
        "S_a at r = q = 1: the sum of squares.",
        sp.S.One,
        n**2,
        n * (n - 1) * (2 * n - 1) / 6,
    ),
    _from_geometric(
        "geometric/noise",
        "(r^2-1) S_b = G(q,r^2) - G(q,1).",
        (r ** (2 * n) - 1) / (r**2 - 1),
        r**2 - 1,
        ((_T1, 1, r**2), (_T2, -1, sp.S.One)),
    ),
    solves("geometric/noise-r1", "S_b at r = 1, q != 1: the sum of q^(n-1-j) j.", q, n, _counts(q, n)),
    solves("geometric/noise-r1-q1", "S_b at r = q = 1: the sum of j.", sp.S.One, n, n * (n - 1) / 2),
    Lemma(
        name="geometric/limit",
        words="The closed form of G is continuous at x = y: the difference quotient (x^n - y^n)/(x - y) "
        "tends to "
        "the derivative of x^n, which is the singular value.",
        hypotheses=(),
        steps=(Identity(sp.Derivative(x**n, x), n * x ** (n - 1)),),
        source="definition of the derivative",
    ),
)
