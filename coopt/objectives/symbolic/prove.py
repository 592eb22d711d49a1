"""Signs and slopes of formulas, by exact means: what cannot be proved counts as unknown, never as true."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from coopt_bounds.algebra import nonnegative as visibly_nonnegative

# Derivatives that a proof of a sign may take.
DEPTH = 3
# Operations beyond which rewriting a formula takes longer than a search that does without the proof.
LARGEST = 120
# Exponents beyond which factoring does.
HIGHEST = 20


def factored(expression: sp.Expr) -> sp.Expr:
    """The expression as a product; only common terms are taken out where factoring could take for ever."""
    if expression.count_ops() > LARGEST or any(abs(n) > HIGHEST for n in expression.atoms(sp.Integer)):
        common: sp.Expr = sp.factor_terms(expression)
        return common
    return sp.factor(expression)


def nonnegative(expression: sp.Expr, variable: sp.Symbol, depth: int = DEPTH) -> bool:
    """Whether the expression is proved nonnegative for every variable >= 0.

    Either its form shows it, or it is nonnegative at 0 and its derivative is nonnegative.
    """
    expression = sp.sympify(expression)
    if visibly_nonnegative(expression):
        return True
    if expression.count_ops() > LARGEST:
        return False
    if any(visibly_nonnegative(form) for form in (factored(expression), sp.expand(expression))):
        return True
    if depth == 0 or variable not in expression.free_symbols:
        return False
    start = expression.subs(variable, 0)
    if not (visibly_nonnegative(start) or visibly_nonnegative(factored(start))):
        return False
    return nonnegative(sp.diff(expression, variable), variable, depth - 1)


@dataclass(frozen=True)
class Split:
    """A formula in T = K tau and tau as start(T) + slope(T) (floor(tau) + sum of shares(tau) basis)."""

    start: sp.Expr
    slope: sp.Expr
    floor: sp.Expr
    shares: tuple[sp.Expr, ...]


class NotProvedError(Exception):
    """The message says what could not be proved."""


def split(offset: sp.Expr, shares: tuple[sp.Expr, ...], steps: sp.Symbol, tau: sp.Symbol) -> Split:
    """Find and prove the monotone form.

    Raises
    ------
    NotProvedError
        Where no monotone form is found or its properties are not proved.
    """
    start = offset.subs(tau, 1)
    pieces = [factored(offset - start), *(factored(share) for share in shares)]
    slope, parts = _common_factor(pieces, steps, tau)
    later = sp.Dummy("later", nonnegative=True)
    if not nonnegative(slope.subs(steps, 1 + later), later):
        slope, parts = -slope, [-part for part in parts]
        if not nonnegative(slope.subs(steps, 1 + later), later):
            raise NotProvedError("the sign of the factor that depends on K tau is not proved")
    for part in parts:
        after_one = part.subs(tau, 1 + later)
        if not nonnegative(after_one, later):
            raise NotProvedError(
                "the floor is not proved nondecreasing in tau"
                if part is parts[0]
                else "a weight is not proved nonnegative"
            )
        if not nonnegative(sp.diff(after_one, later), later):
            raise NotProvedError("the floor is not proved nondecreasing in tau")
    start, shift = _without_constant(start, slope, steps)
    _require_monotone_progress(start, slope, steps, later)
    return Split(start, slope, parts[0] + shift, tuple(parts[1:]))


def _without_constant(start: sp.Expr, slope: sp.Expr, steps: sp.Symbol) -> tuple[sp.Expr, sp.Expr]:
    """Move what of the start does not depend on K tau into the floor, where it is nonnegative.

    Then training that goes on for ever ends at the floor, and solvers see the plain progress r/T or q^T D0.
    """
    expanded = sp.expand(start)
    constant, _ = expanded.as_independent(steps, as_Add=True)
    unit, _ = sp.expand(slope).as_independent(steps, as_Add=True)
    if unit == sp.S.Zero or not visibly_nonnegative(factored(constant / unit)):
        return start, sp.S.Zero
    shift = constant / unit
    return sp.expand(expanded - slope * shift), shift


def _common_factor(pieces: list[sp.Expr], steps: sp.Symbol, tau: sp.Symbol) -> tuple[sp.Expr, list[sp.Expr]]:
    """slope(T) and the parts in tau, such that every piece is slope * part."""
    separated = [
        sp.separatevars(piece, symbols=[steps, tau], dict=True) for piece in pieces if piece != sp.S.Zero
    ]
    slopes = [factors[steps] for factors in separated if factors is not None]
    if not slopes:
        if separated:
            raise NotProvedError("the formula does not separate into factors in K tau and in tau")
        return sp.S.One, pieces
    parts = [sp.simplify(piece / slopes[0]) for piece in pieces]
    if any(part.has(steps) for part in parts):
        raise NotProvedError("the formula does not separate into factors in K tau and in tau")
    return slopes[0], parts


def _require_monotone_progress(start: sp.Expr, slope: sp.Expr, steps: sp.Symbol, later: sp.Symbol) -> None:
    """Start + slope G is monotone in T for every G >= 0."""
    moves = [sp.simplify(sp.diff(part, steps)) for part in (start, slope)]
    signs = [
        {sign for sign in (1, -1) if nonnegative((sign * move).subs(steps, 1 + later), later)}
        for move in moves
    ]
    if signs[0] & signs[1]:
        return
    proportional = moves[1] != sp.S.Zero and not sp.simplify(moves[0] / moves[1]).has(steps)
    if not (proportional and signs[1]):
        raise NotProvedError("the formula is not proved monotone in K tau at a fixed floor")
