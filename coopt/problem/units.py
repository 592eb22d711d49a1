"""Amounts as people write them: "1h 30min" or a timedelta, "2 kWh", "5 epochs".

Inside coopt a time is a number of seconds, an energy one of joules and a cost one in the user's own unit.
Texts become numbers here and nowhere else, so that a job file, an option of the command line and
:class:`Budget` read the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from coopt.errors import InvalidProblemError
from coopt.problem.validation import shown

if TYPE_CHECKING:
    from coopt.problem.fleet import Fleet

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
SECONDS = {
    "ms": 1e-3,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), MINUTE),
    **dict.fromkeys(("h", "hr", "hour", "hours"), HOUR),
    **dict.fromkeys(("d", "day", "days"), DAY),
    **dict.fromkeys(("week", "weeks"), 7 * DAY),
}
# Case counts: mJ and MJ are nine orders of magnitude apart.
JOULES = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9}
EPOCHS = {"epoch": 1.0, "epochs": 1.0}

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*([a-z]+)", re.ASCII | re.IGNORECASE)
_BARE = re.compile(rf"\s*[+-]?(?:{_NUMBER}|inf)\s*", re.ASCII | re.IGNORECASE)


def seconds(name: str, value: object) -> object:
    """A time as a number of seconds, where it is a text or a timedelta; anything else as it is.

    Parameters
    ----------
    name : str
        What messages call it.
    value : object
        Such as ``"90s"``, ``"30 min"``, ``"1h 30min"``, ``timedelta(hours=1)`` or ``1800.0``.

    Raises
    ------
    InvalidProblemError
        If a text is no time.

    Examples
    --------
    >>> from datetime import timedelta
    >>> from coopt.problem.units import seconds
    >>> seconds("time", "1h 30min"), seconds("time", timedelta(minutes=2)), seconds("time", 1800)
    (5400.0, 120.0, 1800)
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    lower = value.lower()
    return _total(name, lower, SECONDS, "a number of seconds, or a text such as '90s', '30min' or '1h 30min'")


def joules(name: str, value: object) -> object:
    """An energy as a number of joules, where it is a text such as ``"2 kWh"``; anything else as it is.

    Raises
    ------
    InvalidProblemError
        If a text is no energy.

    Examples
    --------
    >>> from coopt.problem.units import joules
    >>> joules("energy", "2 kWh"), joules("energy", "500kJ")
    (7200000.0, 500000.0)
    """
    if not isinstance(value, str):
        return value
    return _total(name, value, JOULES, "a number of joules, or a text such as '500 kJ' or '2 kWh'")


def cost(name: str, value: object, fleet: Fleet | None = None) -> object:
    """A cost as a number, where it is a text such as ``"5 epochs"``; anything else as it is.

    Parameters
    ----------
    name : str
    value : object
    fleet : Fleet, optional
        Whose epochs they are: one epoch costs what every sample costs that the devices hold, once.

    Raises
    ------
    InvalidProblemError
        If a text is no number of epochs, or there is no fleet.

    Examples
    --------
    >>> from coopt import Fleet
    >>> from coopt.problem.units import cost
    >>> cost("cost", "5 epochs", Fleet(samples=[60, 40], gradient_noise=1.0, divergence=0.1, sample_cost=2.0))
    1000.0
    """
    if not isinstance(value, str):
        return value
    epochs = _total(name, value.lower(), EPOCHS, "a number, or a text such as '5 epochs'")
    if fleet is None:
        raise InvalidProblemError(
            f"{name} = {shown(value)}: what an epoch costs depends on the fleet: give {epochs:g} * "
            "fleet.epoch_cost"
        )
    return epochs * fleet.epoch_cost


def with_units(table: Mapping[str, Any], fleet: Fleet) -> dict[str, Any]:
    """A table of :class:`Budget` fields with the epochs of a fleet as costs.

    Times and energies need no fleet, and :class:`Budget` reads them itself.
    """
    return {name: cost(name, value, fleet) if name == "cost" else value for name, value in table.items()}


def number_or_text(text: str) -> float | str:
    """What stands on a command line: a number where it is one alone, else a text with units."""
    return float(text) if _BARE.fullmatch(text) else text


def _total(name: str, text: str, units: Mapping[str, float], valid: str) -> float:
    """The sum of all parts of a text, each a number and a unit."""
    place, total = 0, 0.0
    while found := _PART.match(text, place):
        number, unit = found.groups()
        if unit not in units:
            raise InvalidProblemError(
                f"{name} = {shown(text)}: {shown(unit)} is no unit here: use {', '.join(units)}"
            )
        total += float(number) * units[unit]
        place = found.end()
    if place == 0 or text[place:].strip():
        raise InvalidProblemError(f"{name} = {shown(text)}: must be {valid}")
    return total
