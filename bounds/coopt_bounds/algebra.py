"""Exact algebra: when an expression is zero, and when it is nonnegative by its form alone."""

from __future__ import annotations

import sympy as sp

# Names whose last digit is a power, not an index.
_SQUARES = {"sigma2": r"\sigma^{2}", "nu2": r"\nu^{2}", "e2": "e^{2}", "n2": "n^{2}"}
_NAMES = _SQUARES | {"grad2": r"\overline{\|\nabla F\|^{2}}"}


def latex(expression: sp.Basic) -> str:
    r"""LaTeX of an expression, with names such as ``sigma2`` set as \sigma^2."""
    names = {symbol: _NAMES[str(symbol)] for symbol in expression.free_symbols if str(symbol) in _NAMES}
    return sp.latex(expression, symbol_names=names)


def at_least(left: sp.Expr, right: sp.Expr | int) -> sp.Rel:
    """``left >= right``, kept as written even where sympy could decide it."""
    return sp.Ge(left, right, evaluate=False)


def at_most(left: sp.Expr, right: sp.Expr | int) -> sp.Rel:
    """``left <= right``, kept as written even where sympy could decide it."""
    return sp.Le(left, right, evaluate=False)


def equal(left: sp.Expr, right: sp.Expr | int) -> sp.Rel:
    """``left == right``, kept as written even where sympy could decide it."""
    return sp.Eq(left, right, evaluate=False)


def gap(relation: sp.Rel) -> sp.Expr:
    """The expression that the relation says is nonnegative (for an equation: zero).

    >>> x = sp.Symbol("x")
    >>> gap(at_most(x, 3))
    3 - x
    """
    reversed_sides = isinstance(relation, (sp.Le, sp.Lt))
    difference: sp.Expr = relation.rhs - relation.lhs if reversed_sides else relation.lhs - relation.rhs
    return difference


def vanishes(expression: sp.Expr) -> bool:
    """Whether the expression is identically zero, decided by exact rewriting and never by numbers.

    ``False`` means that no proof was found. Symbols that do not commute stand for matrices and vectors:
    products are only multiplied out and neighbouring powers joined.

    >>> x, n = sp.Symbol("x"), sp.Symbol("n", integer=True)
    >>> vanishes(x ** (n + 1) - x * x**n)
    True
    >>> A, B = sp.symbols("A B", commutative=False)
    >>> vanishes(A * (A + B) - A**2 - A * B), vanishes(A * B - B * A)
    (True, False)
    """
    expression = sp.sympify(expression).doit()
    if not expression.is_commutative:
        return bool(sp.powsimp(sp.expand(expression)) == sp.S.Zero)
    expanded = sp.expand(expression.replace(sp.Sum, _split_sum) if expression.has(sp.Sum) else expression)
    numerator, _ = sp.fraction(sp.together(expanded))
    simplest = sp.expand(numerator)
    if simplest == sp.S.Zero or sp.expand(sp.powsimp(simplest)) == sp.S.Zero:
        return True
    if expanded.has(sp.sinh, sp.cosh, sp.tanh, sp.coth):
        expanded = expanded.rewrite(sp.exp)
    return bool(sp.simplify(expanded) == sp.S.Zero)


def _split_sum(summand: sp.Expr, *limits: sp.Basic) -> sp.Expr:
    """Linearity: a sum of terms as a sum of sums, with what does not depend on the index in front."""
    (limit,) = limits
    index = limit.args[0]
    parts = []
    for part in sp.expand(summand).as_ordered_terms():
        outside, inside = part.as_independent(index, as_Add=False)
        parts.append(outside * sp.Sum(inside, limit))
    return sp.Add(*parts)


def nonnegative(expression: sp.Expr) -> bool:
    """Whether the form of the expression shows that it is nonnegative.

    Uses only the declared assumptions of its symbols, through sums, products,
    powers, and e^a >= 1 for a >= 0.

    >>> x, y = sp.Symbol("x", real=True), sp.Symbol("y", nonnegative=True)
    >>> nonnegative((x - 3) ** 2 * y + 1), nonnegative(y - 1)
    (True, False)
    """
    expression = sp.sympify(expression)
    if expression.is_nonnegative:
        return True
    exponential = expression + 1
    if exponential.func is sp.exp and exponential.args[0].is_nonnegative:
        return True
    if expression.is_Add or expression.is_Mul:
        return all(nonnegative(part) for part in expression.args)
    if expression.is_Pow:
        base, exponent = expression.args
        return bool(exponent.is_real) and nonnegative(base)
    return isinstance(expression, sp.Sum) and nonnegative(expression.function)
