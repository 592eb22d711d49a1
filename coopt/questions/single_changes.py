"""Problems that differ from one in a single quantity: a limit, a constant, or what a fleet is like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.plans.allocation import Allocation
from coopt.problem.constants import Constants
from coopt.problem.problem import Problem
from coopt.problem.validation import count

CONSTANTS = tuple(field.name for field in fields(Constants))
FLEET = ("gradient_noise", "divergence")
# Devices whose cap is raised where none are named: those whose price is highest.
MOST_DEVICES = 10


@dataclass(frozen=True)
class Trial:
    """One quantity, changed alone.

    Attributes
    ----------
    quantity : str
    amount : float
        By how much it is raised.
    problem : Problem or str
        The changed problem, or why it cannot be.
    target_error : float or None
    device : int or None
        Whose quantity it is.
    price : float or None
        The shadow price of the quantity.
    """

    quantity: str
    amount: float
    problem: Problem | str
    target_error: float | None
    device: int | None = None
    price: float | None = None


def looser_limits(base: Allocation, steps: Mapping[str, float]) -> Iterator[Trial]:
    """Each limit that there is, one step looser."""
    problem = base.problem
    for name, step in steps.items():
        limit = getattr(problem.budget, name)
        if limit is None or limit == math.inf or name == base.objective:
            continue
        price = base.shadow_prices.get(name) if base.objective == "error" else None
        looser = _changed(problem, "budget", name, limit + step)
        yield Trial(name, step, looser, base.target_error, price=price)


def looser_caps(base: Allocation, devices: Sequence[int] | None) -> Iterator[Trial]:
    """The largest batch of each of some devices, one unit larger."""
    fleet, prices = base.problem.fleet, base.cap_prices
    if devices is None:
        order = np.argsort(-prices, kind="stable")[:MOST_DEVICES]
        chosen = [int(i) for i in order if prices[i] > 0.0]
    else:
        chosen = [count(f"devices[{place}]", i, minimum=0) for place, i in enumerate(devices)]
    for i in chosen:
        if i >= len(fleet):
            raise InvalidProblemError(f"devices: {i} is not a device: there are {len(fleet)}")
        unit = int(fleet.batch_multiple[i])
        raised = fleet.max_batch.copy()
        raised[i] += unit
        looser = _changed(base.problem, "fleet", "max_batch", raised)
        price = float(prices[i]) if base.objective == "error" else None
        yield Trial("max_batch", unit, looser, base.target_error, device=i, price=price)


def other_participants(base: Allocation) -> Iterator[Trial]:
    """One device a round more, and one less, where only some take part."""
    number = base.problem.budget.participants
    if number is None:
        return
    for change in (1, -1) if number > 1 else (1,):
        other = _changed(base.problem, "budget", "participants", number + change)
        yield Trial("participants", change, other, base.target_error)


def relative_changes(base: Allocation, share: float) -> Iterator[Trial]:
    """The target, each constant, and noise and divergence of the fleet, larger and smaller by a share."""
    problem, target = base.problem, base.target_error
    both = (share, -share)
    if target:
        for sign in both:
            yield Trial("target_error", sign * target, problem, target * (1.0 + sign))
    # A forecast knows curvatures, noise and divergence from the measurement.
    for name in CONSTANTS if base.is_bound else ("learning_rate",):
        value = getattr(problem.constants, name)
        for sign in both if value else ():
            changed = _changed(problem, "constants", name, value * (1.0 + sign))
            yield Trial(name, sign * value, changed, target)
    for name in FLEET if base.is_bound else ():
        values = getattr(problem.fleet, name)
        for sign in both if values.any() else ():
            yield Trial(name, sign, _changed(problem, "fleet", name, values * (1.0 + sign)), target)


def _changed(problem: Problem, part: str, field: str, value: object) -> Problem | str:
    """The problem with another value in a field of its fleet, constants or budget, or why it cannot be."""
    try:
        return replace(problem, **{part: replace(getattr(problem, part), **{field: value})})
    except InvalidProblemError as error:
        return str(error)
