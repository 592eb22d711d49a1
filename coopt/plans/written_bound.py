"""A bound as mathematicians write it: its theorem as text or LaTeX, and with the numbers of a plan put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coopt.errors import InvalidProblemError
from coopt.objectives.statement import Number
from coopt.plans.certificate import error_bound, plan_values

if TYPE_CHECKING:
    import sympy as sp

    from coopt.plans.allocation import Allocation
    from coopt_bounds.theorem import Theorem

# Digits of a number in a formula: powers with thousands of steps need more than a table does.
DIGITS = 10


@dataclass(frozen=True)
class WrittenBound:
    """A theorem, and the numbers of a plan where there is one.

    Attributes
    ----------
    theorem : Theorem
        Of ``coopt_bounds``.
    numbers : dict of str to number
        By the names of the symbols, those that the theorem derives included; empty without a plan.
    value : float or None
        The bound of the plan, from 50 digits.
    """

    theorem: Theorem
    numbers: dict[str, Any]
    value: float | None = None

    def _put_in(self) -> str:
        """The formula as text with numbers for symbols, nothing computed."""
        from sympy.printing.str import StrPrinter

        printer = StrPrinter()
        printer._print_Symbol = self._named
        return printer.doprint(self.theorem.bound)

    def _named(self, symbol: sp.Symbol) -> str:
        name = str(symbol)
        return _decimal(self.numbers[name]) if name in self.numbers else name

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict a symbol: what it means, its unit, its name in coopt and, with a plan, its value."""
        return [
            {
                "symbol": str(quantity.symbol),
                "meaning": quantity.meaning,
                "unit": quantity.unit,
                "field": quantity.field,
                "value": _float(self.numbers.get(str(quantity.symbol))),
            }
            for quantity in self.theorem.symbols()
        ]

    def text(self) -> str:
        """The theorem as text: statement, definitions, symbols, and the formula with numbers put in."""
        theorem = self.theorem
        relation = "=" if theorem.exact else "<="
        lines = [
            f"{theorem.name} ({theorem.number}): {theorem.title}",
            f"{theorem.citation}",
            "",
            f"  {theorem.left} {relation} {theorem.bound}",
            "",
            "where",
        ]
        for symbol, expression in theorem.definitions:
            number = self.numbers.get(str(symbol))
            lines.append(f"  {symbol} = {expression}" + ("" if number is None else f" = {_decimal(number)}"))
        lines += ["", "with"]
        for row in self.rows():
            value = "" if row["value"] is None else f" = {_decimal(row['value'])}"
            unit = "" if row["unit"] == "-" else f" [{row['unit']}]"
            lines.append(f"  {row['symbol'] + value:24} {row['meaning']}{unit}")
        lines += [f"  {name:24} {meaning}" for name, meaning in self._sums().items()]
        if self.value is not None:
            lines += [
                "",
                "numbers put in",
                f"  {theorem.left} {relation} {self._put_in()}",
                f"  {' ' * len(str(theorem.left))} = {self.value:.12g}",
            ]
        return "\n".join(lines)

    def _sums(self) -> dict[str, str]:
        """What the sums over local steps say that the statement is written with."""
        import sympy as sp

        from coopt_bounds.geometric import MEANINGS

        used = {str(each.func) for each in self.theorem.bound.atoms(sp.Function)}
        return {name: words for name, words in MEANINGS.items() if name.partition("(")[0] in used}

    def latex(self) -> str:
        """The theorem as LaTeX, and the formula with numbers put in as a second block."""
        import sympy as sp

        from coopt_bounds.algebra import latex

        statement: str = self.theorem.to_latex()
        if self.value is None:
            return statement
        relation = "=" if self.theorem.exact else r"\le"
        # Numbers side by side would read as one: a dot stands between factors.
        names = {
            symbol: _latex_decimal(self.numbers[str(symbol)])
            for symbol in self.theorem.bound.free_symbols
            if str(symbol) in self.numbers
        }
        formula = sp.latex(self.theorem.bound, mul_symbol="dot", symbol_names=names)
        left = latex(self.theorem.left)
        block = rf"{left} &{relation} {formula} \\ &= {self.value:.12g}"
        return (
            f"{statement}\n"
            rf"\begin{{equation*}}\begin{{aligned}} {block} \end{{aligned}}\end{{equation*}}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain strings, numbers and lists."""
        return {
            "name": self.theorem.name,
            "number": self.theorem.number,
            "title": self.theorem.title,
            "citation": self.theorem.citation,
            "statement": str(self.theorem.statement),
            "latex": self.latex(),
            "symbols": self.rows(),
            "value": self.value,
        }


def written_bound(allocation: Allocation) -> WrittenBound:
    """The theorem behind the bound of a plan, with the plan's numbers.

    Parameters
    ----------
    allocation : Allocation

    Raises
    ------
    InvalidProblemError
        If the plan has a forecast or a bound of the user's own, which no theorem of coopt's says, or the
        trade-off bound, whose theorem takes other free numbers.
    """
    statement = allocation.bound_object.statement(allocation.problem, allocation.local_steps)
    if statement is None:
        raise InvalidProblemError(
            f"bound = {allocation.bound!r}: has no statement that numbers could be put in"
        )
    values: dict[str, Number] = plan_values(allocation) | dict(statement.values)
    return WrittenBound(statement.theorem, dict(statement.theorem.derived(values)), error_bound(allocation))


def _float(value: Any) -> float | None:
    return None if value is None or isinstance(value, list) else float(value)


def _decimal(value: Any) -> str:
    """A number for a formula; a negative one in brackets."""
    text = f"{float(value):.{DIGITS}g}"
    return f"({text})" if text.startswith("-") else text


def _latex_decimal(value: Any) -> str:
    """The same for LaTeX, which has no 1e-05."""
    text = _decimal(value)
    mantissa, sign, power = text.strip("()").partition("e")
    return rf"\left({mantissa} \cdot 10^{{{int(power)}}}\right)" if sign else text
