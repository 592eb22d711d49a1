"""The names of coopt's own bounds, and the way back from a name to its bound."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from coopt.errors import InvalidProblemError
from coopt.objectives.certified import Certified
from coopt.objectives.nonconvex import NonConvex
from coopt.objectives.protocol import Bound, Objective
from coopt.objectives.published import AdaCoOpt, Dynamite
from coopt.objectives.tradeoff import TradeOff
from coopt.objectives.users_own import completed
from coopt.problem.validation import shown

KINDS: dict[str, Callable[..., Objective]] = {
    "certified": Certified,
    "dynamite": Dynamite,
    "adacoopt": AdaCoOpt,
    "nonconvex": NonConvex,
    "tradeoff": TradeOff,
}
# Such as "certified(gamma=0.3, z=2.0)": the kind, and all of its fields with their values, in order.
_NUMBERED = re.compile(r"(\w+)\((.+)\)")


def has_name(bound: Bound) -> bool:
    """Whether the bound can be read back from its name; one of the user's own cannot."""
    return type(bound) in KINDS.values()


def names_to_solve_with() -> tuple[str, ...]:
    """The names that need no numbers to be solved with."""
    return tuple(name for name, kind in KINDS.items() if not kind().needs_numbers)


def resolve_bound(bound: str | Bound) -> Objective:
    """Return the bound that a name stands for, or the given bound with all that solvers ask of it.

    Raises
    ------
    InvalidProblemError
        If the name is unknown or the object is no bound.
    """
    if not isinstance(bound, str):
        if isinstance(bound, Bound):
            return completed(bound)
        raise InvalidProblemError(
            f"bound = {shown(bound)}: must be a name or an object with the methods of coopt.Bound"
            + ("; that of a measurement is measurement.forecast()" if hasattr(bound, "forecast") else "")
        )
    match = _NUMBERED.fullmatch(bound)
    kind = KINDS.get(match[1] if match else bound)
    values = dict(part.partition("=")[::2] for part in match[2].split(", ")) if match else {}
    # Without its parameters a bound has their defaults; with some of them it has no name.
    if kind is not None and match and list(values) != list(inspect.signature(kind).parameters):
        numbers = ", ".join(f"{name}=..." for name in inspect.signature(kind).parameters)
        wanted = f"{match[1]}({numbers})" if numbers else f"{match[1]}, which takes no numbers"
        raise InvalidProblemError(f"bound = {shown(bound)}: must be written as {wanted}")
    if kind is None:
        raise InvalidProblemError(
            f"bound = {shown(bound)}: must be one of {', '.join(map(repr, KINDS))}, or a coopt.Bound"
        )
    try:
        return kind(**{name: text if text == "auto" else float(text) for name, text in values.items()})
    except ValueError as error:
        raise InvalidProblemError(f"bound = {shown(bound)}: {error}") from error
