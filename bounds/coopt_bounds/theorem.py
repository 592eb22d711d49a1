"""A theorem: assumptions, lemmas, statement, citation; in symbols, in LaTeX and in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import mpmath
import sympy as sp

from coopt_bounds.algebra import at_most, equal, latex, vanishes
from coopt_bounds.geometric import NUMERIC, closed
from coopt_bounds.lemma import Assumption, Lemma
from coopt_bounds.proof import ProofError
from coopt_bounds.symbols import QUANTITIES, N, Quantity, i, s

Number: TypeAlias = int | float | str | Fraction
Values: TypeAlias = Mapping[str, Number | Sequence[Number]]

MOST_DIGITS = 50_000
# With so many working digits, a number that has all but the last SPARE of them behind the point is nothing.
ENOUGH_TO_CANCEL, SPARE = 1_000, 100
_SCALARS = (int, float, str, Fraction)


@dataclass(frozen=True)
class Theorem:
    """A statement ``left <= bound``, or ``left = bound`` where it is exact.

    A convergence bound, the least value that a formula attains, or an expected loss.

    Parameters
    ----------
    name, title : str
        Short name (that of the bound in :mod:`coopt` where it has one) and one line.
    number : str
        Equation number within this package, as in ``bounds/README.md``.
    citation : str
        Where the statement comes from, with its equation number there.
    assumptions : tuple of Assumption
        All that is taken as given.
    left : sympy expression
        What is bounded.
    bound : sympy expression
        The bound, in documented symbols and the sums of :mod:`coopt_bounds.geometric`.
    definitions : tuple of (symbol, expression)
        The derived symbols in the order in which they can be computed.
    lemmas : tuple of Lemma
        The proof; the last lemma claims the statement itself.
    quantities : tuple of Quantity
        Symbols of this theorem alone; the shared ones are in :data:`coopt_bounds.symbols.QUANTITIES`.
    exact : bool
        Whether the statement is an equation.
    matrices : tuple of (expression, expression)
        What is behind the symbols where that takes matrices: for reading. As numbers these symbols are given
        to :meth:`evaluate`; functions of the theorem's module compute them.
    """

    name: str
    title: str
    number: str
    citation: str
    assumptions: tuple[Assumption, ...]
    left: sp.Expr
    bound: sp.Expr
    definitions: tuple[tuple[sp.Symbol, sp.Expr], ...]
    lemmas: tuple[Lemma, ...]
    quantities: tuple[Quantity, ...] = ()
    exact: bool = False
    matrices: tuple[tuple[sp.Expr, sp.Expr], ...] = ()

    @property
    def statement(self) -> sp.Rel:
        """``left <= bound``, or ``left == bound``."""
        return equal(self.left, self.bound) if self.exact else at_most(self.left, self.bound)

    def check(self) -> None:
        """Re-prove every lemma and compare the last claim with the statement.

        Raises
        ------
        ProofError
            Names the lemma and the step that fails.
        """
        for lemma in self.lemmas:
            lemma.check()
        claim = self.lemmas[-1].claim
        agrees = claim.lhs == self.left and vanishes(claim.rhs - self.bound)
        if not agrees or (self.exact and not isinstance(claim, sp.Eq)):
            raise ProofError(f"{self.name}: the last lemma does not claim the statement")

    def expression(self) -> sp.Expr:
        """The bound in the constants of the problem alone, derived symbols written out."""
        result = self.bound
        for symbol, value in reversed(self.definitions):
            result = result.subs(symbol, value)
        return result

    def closed_form(self) -> sp.Expr:
        """:meth:`expression` with every sum in closed form, singular points included."""
        return closed(self.expression())

    def coefficients(self, devices: int) -> tuple[sp.Expr, tuple[sp.Expr, ...]]:
        """Offset and weights of 1/s_i for a given number of devices, in the derived symbols.

        Raises
        ------
        ProofError
            The bound is not affine in the 1/s_i.
        """
        inverse = sp.symbols(f"x1:{devices + 1}", nonnegative=True)
        expression = self.bound
        for symbol, value in reversed(self.definitions):
            if _mentions_batches(value):
                expression = expression.subs(symbol, value)
        if _mentions_batches(expression):
            expression = expression.subs(N, devices).doit()
        for index, symbol in enumerate(inverse, start=1):
            expression = expression.subs(s[index], 1 / symbol)
        weights = tuple(sp.factor_terms(sp.diff(expression, symbol)) for symbol in inverse)
        if any(weight.has(*inverse) for weight in map(sp.expand, weights)):
            raise ProofError(f"{self.name} is not affine in 1/s_i")
        return expression.subs(dict.fromkeys(inverse, 0)), weights

    def symbols(self) -> tuple[Quantity, ...]:
        """The quantities that the statement and its definitions mention, with meaning and unit."""
        own = {str(quantity.symbol): quantity for quantity in self.quantities}
        table = {**QUANTITIES, **own}
        used = self.left + self.bound + sum((value for _, value in self.definitions), sp.S.Zero)
        names = {str(atom) for atom in used.atoms(sp.Symbol, sp.Indexed)}
        return tuple(quantity for name, quantity in table.items() if name in names)

    def to_latex(self) -> str:
        """The statement and its definitions as a LaTeX ``aligned`` block with its number."""
        relation = "=" if self.exact else r"\le"
        rows = [rf"{latex(self.left)} &{relation} {latex(self.bound)}"]
        rows += [
            rf"{latex(symbol)} &= {latex(value)}" for symbol, value in (*self.definitions, *self.matrices)
        ]
        body = r" \\ ".join(rows)
        start = rf"\begin{{equation}}\tag{{{self.number}}}\begin{{aligned}}"
        return rf"{start} {body} \end{{aligned}}\end{{equation}}"

    def evaluate(self, values: Values, digits: int = 50) -> Any:
        """The bound as a number, correct to the given digits.

        Parameters
        ----------
        values : mapping
            From symbol names (``"tau"``, ``"eta"``, ...) to numbers, and from ``"p"``, ``"M"``, ``"s"``,
            ``"delta"`` to one number per device, and ``"V"`` where it is not zero. A derived symbol such as
            ``"sigma2"`` may be given instead of what it is made of. Floats are taken at their exact binary
            value, strings as decimals.
        digits : int
            Significant digits.

        Returns
        -------
        mpmath.mpf
            Computed at rising precision until two results agree.

        Raises
        ------
        KeyError
            A symbol has no value.
        """
        working = digits + 30
        previous = None
        while working <= MOST_DIGITS:
            with mpmath.workdps(working):
                result = self._number(values)
                if previous is not None and abs(result - previous) <= mpmath.mpf(10) ** -digits * abs(result):
                    return result
                # Terms that cancel exactly leave what rounding makes of nothing: less with every digit.
                if working >= ENOUGH_TO_CANCEL and abs(result) < mpmath.mpf(10) ** (SPARE - working):
                    return mpmath.mpf(0)
                previous = result
            working *= 2
        raise ArithmeticError(f"{self.name}: no {digits} digits with {MOST_DIGITS} working digits")

    def derived(self, values: Values, digits: int = 50) -> dict[str, Any]:
        """The values given and those of the derived symbols, by name, computed with so many digits.

        Parameters
        ----------
        values : mapping
            As for :meth:`evaluate`.
        digits : int
            Working digits.

        Raises
        ------
        KeyError
            A symbol has no value.
        """
        with mpmath.workdps(digits):
            return self._known(values)

    def _number(self, values: Values) -> Any:
        return _value(self.bound, self._known(values))

    def _known(self, values: Values) -> dict[str, Any]:
        known: dict[str, Any] = {
            name: _exact(value) if isinstance(value, _SCALARS) else [_exact(entry) for entry in value]
            for name, value in values.items()
        }
        # Most problems have no step noise, and need not say so.
        if isinstance(known.get("M"), list):
            known.setdefault("V", [mpmath.mpf(0)] * len(known["M"]))
        for symbol, expression in self.definitions:
            name = str(symbol)
            if name not in known:
                known[name] = _value(expression, known)
        return known


def _mentions_batches(expression: sp.Expr) -> bool:
    return s in {entry.base for entry in expression.atoms(sp.Indexed)}


def _exact(value: Any) -> Any:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value)


def _value(expression: sp.Expr, known: Mapping[str, Any]) -> Any:
    """A number at the working precision: sums over devices term by term, then the rest."""
    sums, symbols, function = _compiled(expression)
    totals = [_device_sum(total, known) for total in sums]
    for symbol in symbols:
        if str(symbol) not in known:
            raise KeyError(f"no value for {symbol}")
    return function(*totals, *(known[str(symbol)] for symbol in symbols))


@cache
def _compiled(expression: sp.Expr) -> tuple[list[sp.Sum], list[sp.Symbol], Callable[..., Any]]:
    sums = sorted(expression.atoms(sp.Sum), key=str)
    stand_ins = [sp.Dummy("total") for _ in sums]
    expression = expression.xreplace(dict(zip(sums, stand_ins, strict=True)))
    symbols = sorted(expression.free_symbols - set(stand_ins), key=str)
    return sums, symbols, sp.lambdify([*stand_ins, *symbols], expression, modules=[NUMERIC, "mpmath"])


def _device_sum(total: sp.Sum, known: Mapping[str, Any]) -> Any:
    columns, function = _compiled_row(total.function)
    names = [str(column.base) for column in columns]
    for name in names:
        if not isinstance(known.get(name), list):
            raise KeyError(f"no value for {name}[{i}]: give one number per device")
    rows = zip(*(known[name] for name in names), strict=True)
    return mpmath.fsum(function(*row) for row in rows)


@cache
def _compiled_row(summand: sp.Expr) -> tuple[list[sp.Indexed], Callable[..., Any]]:
    columns = sorted(summand.atoms(sp.Indexed), key=str)
    stand_ins = [sp.Dummy("entry") for _ in columns]
    return columns, sp.lambdify(
        stand_ins, summand.xreplace(dict(zip(columns, stand_ins, strict=True))), "mpmath"
    )
