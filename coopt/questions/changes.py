"""What changes with a little more of each limit and constant: exact differences between proved optima.

Shadow prices are derivatives at the K and tau of the plan, with continuous batches. Whole numbers move in
steps: a unit of cost that does not pay for one more sample buys nothing, and one that admits another round
may buy more than the price says. So each change is solved for, and the price is shown beside the difference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coopt.errors import BoundWarning, InfeasibleError, InvalidProblemError
from coopt.objectives.protocol import Bound
from coopt.objectives.registry import resolve_bound
from coopt.plans.allocation import Allocation
from coopt.plans.plan_columns import plan_columns
from coopt.problem.problem import Problem
from coopt.problem.readable import Fact, readable
from coopt.problem.result_table import ResultTable
from coopt.problem.validation import entries, instance, real, shown
from coopt.questions.kept_form import keeping_form
from coopt.questions.single_changes import (
    CONSTANTS,
    FLEET,
    Trial,
    looser_caps,
    looser_limits,
    other_participants,
    relative_changes,
)
from coopt.questions.solve import evaluate, solve_allocation
from coopt.solvers.roundoff import SAME_VALUE

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure

LIMITS = ("cost", "time", "energy", "max_rounds", "max_local_steps", "max_batch", "target_error")
QUANTITIES = (*LIMITS, "participants", *CONSTANTS, *FLEET)


@readable
@dataclass(frozen=True)
class Change:
    """One quantity changed alone, and the optimum there.

    Attributes
    ----------
    quantity : str
        ``"cost"``, ``"time"``, ``"energy"``, ``"max_rounds"``, ``"max_local_steps"``, ``"max_batch"``,
        ``"target_error"``, ``"participants"``, or a field of :class:`Constants` or :class:`Fleet`.
    device : int or None
        Whose ``max_batch`` it is.
    amount : float
        By how much it was raised, in its own unit; for ``"gradient_noise"`` and ``"divergence"``, which
        change on all devices together, the relative amount.
    allocation : Allocation or None
        The optimum after the change; None where there is none.
    gain : float
        By how much the objective fell; zero within 2e-12 of the objective, which is rounding; nan where there
        is no optimum.
    predicted_gain : float or None
        The shadow price times the amount; None where there is no price.
    same_plan_error : float or None
        The error bound of the plan before the change, after it; None where it does not fit or has no bound.
    reason : str
        Why there is no optimum; empty where there is one.
    """

    __module__ = "coopt"

    quantity: str
    device: int | None
    amount: float
    allocation: Allocation | None
    gain: float
    predicted_gain: float | None
    same_plan_error: float | None
    reason: str = ""


@readable
@dataclass(frozen=True)
class Sensitivity(ResultTable):
    """How the optimum moves with each limit and each constant.

    Attributes
    ----------
    allocation : Allocation
        The optimum of the problem itself.
    changes : tuple of Change
    """

    __module__ = "coopt"

    allocation: Allocation
    changes: tuple[Change, ...]

    def _shown(self) -> list[Fact]:
        plan = self.allocation
        return [(plan.objective, plan.objective_value), f"{len(self.changes)} changes"]

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a change, as data frames take them."""
        return [
            {
                "quantity": change.quantity,
                "device": change.device,
                "amount": change.amount,
                "gain": change.gain,
                "predicted_gain": change.predicted_gain,
                "same_plan_error": change.same_plan_error,
                **plan_columns(change.allocation),
                "reason": change.reason,
            }
            for change in self.changes
        ]

    def plot(self) -> DescribedFigure:
        """Draw what each change gains, beside its shadow price; needs the extra ``plot``."""
        from coopt.questions.plot_changes import plot_changes

        return plot_changes(self)

    def __str__(self) -> str:
        plan, base = self.allocation, self.allocation.objective_value
        lines = [
            f"{plan.objective} {base:.6g}: {plan.rounds} rounds, {plan.local_steps} local steps",
            f"{'changed':>24} {'by':>12} {'gain':>12} {'in %':>9} {'by the price':>12}",
        ]
        for change in self.changes:
            place = "" if change.device is None else f"[{change.device}]"
            start = f"{change.quantity + place:>24} {change.amount:>+12.4g}"
            if change.allocation is None:
                lines.append(f"{start} {change.reason}")
                continue
            price = "" if change.predicted_gain is None else f"{change.predicted_gain:.4g}"
            share = 100.0 * change.gain / abs(base) if base else math.nan
            lines.append(f"{start} {change.gain:>12.4g} {share:>9.3f} {price:>12}".rstrip())
        return "\n".join(lines)


@np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
def sensitivity(
    problem: Problem,
    *,
    bound: str | Bound = "certified",
    objective: str = "error",
    target_error: float | None = None,
    rounds: int | None = None,
    local_steps: int | None = None,
    quantities: Iterable[str] | None = None,
    devices: Sequence[int] | None = None,
    extra_cost: float = 1.0,
    extra_time: float = 1.0,
    extra_energy: float = 1.0,
    relative: float = 0.01,
    warm_start: Allocation | None = None,
) -> Sensitivity:
    """Change each limit and each constant alone and solve again: exact differences between optima.

    Limits are loosened by one step: `extra_cost`, `extra_time`, `extra_energy`, one more round, one more
    local step, one more unit (``batch_multiple`` samples) of a device's ``max_batch``. Where some devices
    take part in a round, one more and one less do. Constants, gradient noise and divergence of the whole
    fleet, and a target error move up and down by the share `relative`.

    Parameters
    ----------
    problem : Problem
    bound, objective, target_error, rounds, local_steps
        As for :func:`solve_allocation`.
    quantities : iterable of str, optional
        What to change; default everything that the problem has: limits that are finite, constants that are
        given and not zero.
    devices : sequence of int, optional
        Whose ``max_batch`` to raise; default the ten with the highest price, see
        :attr:`Allocation.cap_prices`, that have one.
    extra_cost : float, default 1
        In the unit of the cost.
    extra_time : float, default 1
        In seconds.
    extra_energy : float, default 1
        In joules.
    relative : float, default 0.01
        In (0, 1).
    warm_start : Allocation, optional
        The optimum of the problem, where it is known.

    Returns
    -------
    Sensitivity
        Gains of loosened limits are never negative where the objective is "error"; for the objectives
        "cost" and "time" up to the relative tolerance of 1e-9 with which every limit is met.

    Raises
    ------
    InfeasibleError
        If no plan fits the problem itself.
    InvalidProblemError
        If an argument is wrong, or the problem lacks a quantity that was asked for.

    Warns
    -----
    BoundWarning
        Of the problem itself; changed problems do not warn again.

    Notes
    -----
    Every plan of the problem remains feasible after each change but that of participants, so its optimum
    starts the other searches.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem, sensitivity
    >>> problem = Problem(
    ...     Fleet(samples=[600, 300, 100], gradient_noise=4.0, divergence=0.05, throughput=[40, 20, 80]),
    ...     Constants(
    ...         learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0
    ...     ),
    ...     Budget(cost=20_000, time=600, round_cost=20),
    ... )
    >>> print(sensitivity(problem, quantities=["cost", "time", "learning_rate"], extra_cost=200))
    error 0.00535622: 172 rounds, 1 local steps
                     changed           by         gain      in % by the price
                        cost         +200    6.382e-05     1.192    5.573e-05
                        time           +1            0     0.000            0
               learning_rate      +0.0005    3.649e-06     0.068
               learning_rate      -0.0005   -6.485e-07    -0.012
    """
    instance("problem", problem, Problem)
    wanted = _wanted(quantities)
    share = real("relative", relative, minimum=0.0, strict=True)
    if share >= 1.0:
        raise InvalidProblemError(f"relative = {relative!r}: must be below 1")
    fixed: dict[str, Any] = {
        "bound": keeping_form(resolve_bound(bound)),
        "objective": objective,
        "rounds": rounds,
        "local_steps": local_steps,
    }
    base = solve_allocation(problem, target_error=target_error, warm_start=warm_start, **fixed)
    forecast = base.bound_object.forecast
    if forecast is not None:
        # The rate is the problem's from here on: it is one of the quantities that change.
        fixed["bound"] = forecast.with_learning_rate(None)
    steps = {
        "cost": real("extra_cost", extra_cost, minimum=0.0, strict=True),
        "time": real("extra_time", extra_time, minimum=0.0, strict=True),
        "energy": real("extra_energy", extra_energy, minimum=0.0, strict=True),
        "max_rounds": 1,
        "max_local_steps": 1,
    }
    trials = [
        *looser_limits(base, steps),
        *(looser_caps(base, devices) if wanted is None or "max_batch" in wanted else ()),
        *other_participants(base),
        *relative_changes(base, share),
    ]
    chosen = [trial for trial in trials if wanted is None or trial.quantity in wanted]
    missing = (wanted or set()) - {trial.quantity for trial in trials} - {"max_batch"}
    if missing:
        raise InvalidProblemError(
            f"quantities: cannot change {', '.join(sorted(missing))}: the problem has no such limit or "
            "constant, or it is zero or the objective itself"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundWarning)
        return Sensitivity(base, tuple(_solved(base, trial, fixed) for trial in chosen))


def _wanted(quantities: Iterable[str] | None) -> set[str] | None:
    if quantities is None:
        return None
    wanted = (quantities,) if isinstance(quantities, str) else entries("quantities", quantities)
    for name in wanted:
        if str(name) not in QUANTITIES:
            raise InvalidProblemError(
                f"quantities: {shown(name)} is unknown: valid are {', '.join(map(repr, QUANTITIES))}"
            )
    return set(wanted)


def _solved(base: Allocation, trial: Trial, fixed: dict[str, Any]) -> Change:
    predicted = None if trial.price is None else trial.price * trial.amount

    def failed(reason: str, same_plan: float | None = None) -> Change:
        return Change(
            trial.quantity, trial.device, trial.amount, None, math.nan, predicted, same_plan, reason
        )

    if isinstance(trial.problem, str):
        return failed(trial.problem)
    same_plan = None
    with suppress(InfeasibleError, InvalidProblemError):
        same_plan = evaluate(
            trial.problem, base.rounds, base.local_steps, base.batch_sizes, fixed["bound"]
        ).predicted_error
    try:
        plan = solve_allocation(trial.problem, target_error=trial.target_error, warm_start=base, **fixed)
    except (InfeasibleError, InvalidProblemError) as error:
        return failed(str(error), same_plan)
    gain = base.objective_value - plan.objective_value
    if abs(gain) <= SAME_VALUE * abs(base.objective_value):
        gain = 0.0
    return Change(trial.quantity, trial.device, trial.amount, plan, gain, predicted, same_plan)
