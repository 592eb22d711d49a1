"""The rules of inference: each step of a proof draws one relation from relations already known.

Relations are read as holding for all values of their symbols that the symbols' assumptions allow.
There are eight rules, and nothing is ever decided by trying numbers:

* :class:`Identity`: two expressions are equal by exact simplification;
* :class:`Combine`: an inequality whose gap is a sum of nonnegative multiples of products of known gaps, or
  an equation that is a sum of multiples of known ones (of matrices: multiplied from the left and the right);
* :class:`Root`: from a^2 >= b^2 and a >= 0 conclude a >= b;
* :class:`Grow`: f(0) >= 0 and f' >= 0 give f >= 0;
* :class:`Induct`: a base and a step give all integers;
* :class:`SumOver`: a relation that holds for every device holds for weighted sums over the devices;
* :class:`Substitute`: put expressions in place of symbols, within the symbols' assumptions;
* :class:`Apply` (in :mod:`coopt_bounds.lemma`): an earlier lemma, once its hypotheses are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import sympy as sp

from coopt_bounds.algebra import equal, gap, nonnegative, vanishes


class ProofError(Exception):
    """A step does not follow: the message says which relation and why."""


class Step(Protocol):
    """One step of a proof: a conclusion and the means to check it."""

    @property
    def conclusion(self) -> sp.Rel:
        """The relation that the step establishes."""

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Raise :class:`ProofError` unless the conclusion follows from the known relations."""


def run(steps: Sequence[Step], known: Sequence[sp.Rel]) -> list[sp.Rel]:
    """Check steps in order; return what is known after the last one."""
    facts = list(known)
    for step in steps:
        step.check(facts)
        facts.append(step.conclusion)
    return facts


def _require_known(fact: sp.Rel, known: Sequence[sp.Rel]) -> None:
    if fact not in known:
        raise ProofError(f"uses {fact}, which is neither a hypothesis nor proved before")


@dataclass(frozen=True)
class Identity:
    """Two expressions are equal, by exact simplification."""

    left: sp.Expr
    right: sp.Expr

    @property
    def conclusion(self) -> sp.Rel:
        """``left == right``."""
        return equal(self.left, self.right)

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Simplify the difference to zero."""
        del known
        if not vanishes(self.left - self.right):
            raise ProofError(f"{self.left} and {self.right} differ")


@dataclass(frozen=True)
class Term:
    """``multiplier`` times the product of the gaps of ``facts`` times ``right``.

    Matrices and vectors do not commute: an equation between them is multiplied from the left by
    ``multiplier`` and from the right by ``right``.
    """

    multiplier: sp.Expr | int
    facts: tuple[sp.Rel, ...] = ()
    right: sp.Expr | int = 1

    def amount(self, known: Sequence[sp.Rel], *, of_equation: bool) -> sp.Expr:
        """The term as an expression, once its sign is certain."""
        for fact in self.facts:
            _require_known(fact, known)
        is_zero = any(isinstance(fact, sp.Eq) for fact in self.facts)
        if not is_zero and of_equation:
            raise ProofError("an equation can only be combined from equations")
        if not is_zero and not nonnegative(sp.sympify(self.multiplier)):
            raise ProofError(f"the multiplier {self.multiplier} is not visibly nonnegative")
        if not is_zero and self.right != 1:
            raise ProofError("only an equation is multiplied from the right")
        return sp.Mul(self.multiplier, *(gap(fact) for fact in self.facts), self.right)


def term(multiplier: sp.Expr | int, *facts: sp.Rel, right: sp.Expr | int = 1) -> Term:
    """A :class:`Term`, written on one line."""
    return Term(multiplier, facts, right)


@dataclass(frozen=True)
class Combine:
    """A relation whose gap equals a sum of terms, each nonnegative (or zero, where an equation enters)."""

    conclusion: sp.Rel
    terms: tuple[Term, ...]

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Verify the sign of each term and that their sum is the gap, exactly."""
        of_equation = isinstance(self.conclusion, sp.Eq)
        total = sum((t.amount(known, of_equation=of_equation) for t in self.terms), start=sp.Integer(0))
        if not vanishes(gap(self.conclusion) - total):
            raise ProofError(f"the certificate of {self.conclusion} does not add up")


@dataclass(frozen=True)
class Root:
    """``a >= b`` from ``a^2 >= b^2`` and a visibly nonnegative ``a``."""

    conclusion: sp.Rel
    squared: sp.Rel

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Verify the sign of the larger side and that the squares are those of the conclusion."""
        _require_known(self.squared, known)
        smaller, larger = self.conclusion.lhs, self.conclusion.rhs
        if isinstance(self.conclusion, sp.Ge):
            smaller, larger = larger, smaller
        if not nonnegative(larger):
            raise ProofError(f"{larger} is not visibly nonnegative")
        if not vanishes(larger**2 - smaller**2 - gap(self.squared)):
            raise ProofError(f"{self.squared} is not the square of {self.conclusion}")


@dataclass(frozen=True)
class Grow:
    """``f >= 0`` for a nonnegative variable, from ``f >= 0`` at 0 and a known sign of the derivative."""

    conclusion: sp.Rel
    variable: sp.Symbol
    slope: sp.Rel

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Verify the value at zero and that ``slope`` is the derivative's sign."""
        _require_known(self.slope, known)
        if not self.variable.is_nonnegative:
            raise ProofError(f"{self.variable} must be declared nonnegative")
        difference = gap(self.conclusion)
        at_zero = difference.subs(self.variable, 0)
        if not (nonnegative(at_zero) or vanishes(at_zero)):
            raise ProofError(f"{self.conclusion} is not clear at {self.variable} = 0")
        if not vanishes(sp.diff(difference, self.variable) - gap(self.slope)):
            raise ProofError(f"{self.slope} is not about the derivative of {difference}")


@dataclass(frozen=True)
class Induct:
    """A relation for all integers from ``start`` on; the step may use the relation itself at ``index``."""

    conclusion: sp.Rel
    index: sp.Symbol
    start: int
    base: tuple[Step, ...]
    step: tuple[Step, ...]

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Check both sub-proofs and that they end where they should."""
        declared = {0: self.index.is_nonnegative, 1: self.index.is_positive}.get(self.start)
        if not (self.index.is_integer and declared):
            raise ProofError(f"{self.index} must be declared an integer from {self.start} on")
        at_start = _replace(self.conclusion, {self.index: sp.Integer(self.start)})
        if at_start not in run(self.base, known):
            raise ProofError(f"the base does not prove {at_start}")
        for step in self.step:
            # The relation is assumed at the index alone: nothing that follows from it may be moved elsewhere.
            moved = (
                self.index in getattr(step, "replacement", {}) and getattr(step, "fact", None) not in known
            )
            if moved or hasattr(step, "lemma"):
                raise ProofError(f"{step} would use the induction hypothesis beyond {self.index}")
        after = _replace(self.conclusion, {self.index: self.index + 1})
        if after not in run(self.step, [*known, self.conclusion]):
            raise ProofError(f"the step does not prove {after}")


@dataclass(frozen=True)
class SumOver:
    """The weighted sum over an index of a relation that holds at every index."""

    fact: sp.Rel
    weight: sp.Expr
    limits: sp.Tuple

    @property
    def conclusion(self) -> sp.Rel:
        """``sum of weight * left`` against ``sum of weight * right``."""
        left, right = (sp.Sum(self.weight * side, self.limits) for side in (self.fact.lhs, self.fact.rhs))
        return self.fact.func(left, right, evaluate=False)

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Check that the relation is known and the weight visibly nonnegative."""
        _require_known(self.fact, known)
        if not nonnegative(self.weight):
            raise ProofError(f"the weight {self.weight} is not visibly nonnegative")


def _replace(relation: sp.Rel, replacement: Mapping[sp.Basic, sp.Basic]) -> sp.Rel:
    left, right = (side.subs(replacement, simultaneous=True) for side in (relation.lhs, relation.rhs))
    return relation.func(left, right, evaluate=False)


def replaced(relation: sp.Rel, replacement: Mapping[sp.Basic, sp.Basic], known: Sequence[sp.Rel]) -> sp.Rel:
    """The relation with symbols replaced, after checking that the replacement keeps their assumptions."""
    for old, new in replacement.items():
        if isinstance(old, sp.Symbol):
            _require_admissible(old, sp.sympify(new), known)
    return _replace(relation, replacement)


def _require_admissible(symbol: sp.Symbol, value: sp.Expr, known: Sequence[sp.Rel]) -> None:
    for name in ("integer", "real"):
        if getattr(symbol, f"is_{name}") and not getattr(value, f"is_{name}"):
            raise ProofError(f"{value} in place of {symbol} is not visibly {name}")
    if symbol.is_positive and not value.is_positive:
        raise ProofError(f"{value} in place of {symbol} is not visibly positive")
    if symbol.is_nonnegative and not (nonnegative(value) or sp.Ge(value, 0, evaluate=False) in known):
        raise ProofError(f"{value} in place of {symbol} is not visibly nonnegative")


@dataclass(frozen=True)
class Substitute:
    """A known relation with expressions in place of symbols."""

    fact: sp.Rel
    replacement: Mapping[sp.Basic, sp.Basic] = field(hash=False)

    @property
    def conclusion(self) -> sp.Rel:
        """The relation after replacement."""
        return _replace(self.fact, self.replacement)

    def check(self, known: Sequence[sp.Rel]) -> None:
        """Check that the relation is known and that each replacement is admissible."""
        _require_known(self.fact, known)
        replaced(self.fact, self.replacement, known)
