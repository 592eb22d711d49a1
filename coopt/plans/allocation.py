"""The answer: a plan, what it costs, how good it is, and a certificate that recomputes all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.source import Source
from coopt.objectives.protocol import Bound, Objective, Parts
from coopt.objectives.registry import resolve_bound
from coopt.plans.device_rows import device_rows
from coopt.plans.plan_text import plan_text
from coopt.problem.device_steps import at_device_steps, checked_steps, steps_of
from coopt.problem.json_text import json_object, write_json
from coopt.problem.problem import Problem
from coopt.problem.readable import Fact, readable
from coopt.problem.result_table import ResultTable
from coopt.problem.saved_state import listed, text
from coopt.problem.validation import (
    choice,
    count,
    integer_array,
    optional_count,
    optional_real,
    real,
    same_value,
    shown,
)

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure
    from coopt.plans.forecast_proof import Enumerated
    from coopt.plans.proof import Proof

# What a file calls the value of a plan: a forecast, or a bound.
VALUE = ("predicted_error", "error_bound")


class Status(Enum):
    """How a result came to be; the value is advice to the user."""

    __module__ = "coopt"

    OPTIMAL = "proved optimal: no plan within the limits has a smaller bound"
    GAP_TOLERANCE = (
        "within the requested gap of the optimum; a smaller gap_tolerance searches on, down to 0.01 where "
        "the learning rate is free"
    )
    INTEGRALITY_GAP = "good whole batches found; costs or energies that differ between devices left a gap"
    TIME_LIMIT = "best plan found when the time limit ended the search: raise time_limit to close the gap"
    HEURISTIC = "a plan within all limits, not proved best: its gap bounds how far from the optimum it can be"
    EVALUATED = "a given plan, evaluated: nothing is claimed about better ones"

    def advice(self, *, proved: bool) -> str:
        """The advice, for a value that is a proved bound or for one that is a forecast."""
        if proved:
            return str(self.value)
        if self is Status.OPTIMAL:
            return "proved optimal for this forecast: no plan within the limits is forecast a smaller error"
        return f"{self.value} (for this forecast)"


@dataclass(frozen=True)
class Claim:
    """Which plans a lower bound is about: all within the limits of the problem, but for what is fixed.

    Attributes
    ----------
    bound : Bound
        The bound that was minimised; of a family, the family.
    rounds, local_steps : int or None
        K and tau where the caller fixed them.
    """

    bound: Bound
    rounds: int | None = None
    local_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "local_steps"):
            object.__setattr__(self, name, optional_count(f"claim.{name}", getattr(self, name)))


class HasForecast(Protocol):
    """A measurement, which makes a forecast, or a forecast."""

    @property
    def forecast(self) -> Callable[[], Forecast] | Forecast:
        """The forecast, or what makes it."""
        ...


def measured(given: HasForecast) -> Forecast:
    """The forecast that was given, or that of a measurement."""
    found: Callable[[], Forecast] | Forecast | None = getattr(given, "forecast", None)
    if found is None or isinstance(given, type):
        raise InvalidProblemError(
            f"forecast = {shown(given)}: must be a coopt.Forecast or Measurement, not {type(given).__name__}"
        )
    return found() if callable(found) else found


@readable
@dataclass(frozen=True)
class Certificate:
    """What :meth:`Allocation.certify` recomputed.

    Attributes
    ----------
    predicted_error : float
        The value of the plan: a bound at 50 digits, from its symbolic statement, rounded to float64; a
        forecast step by step, from what was measured.
    cost, time : float
        From exact sums.
    relative_difference : float
        Between the claimed and the recomputed value.
    proof : Proof, Enumerated or None
        The checked proof of ``lower_bound``, where it was asked for; none is needed where that is a cost or
        a time of zero.
    is_bound : bool
        Whether the value is a proved bound on the error.
    """

    __module__ = "coopt"

    predicted_error: float
    cost: float
    time: float
    relative_difference: float
    proof: Proof | Enumerated | None = field(default=None, repr=False)
    is_bound: bool = True

    @property
    def error_bound(self) -> float:
        """The bound that was recomputed; InvalidProblemError where the plan has a forecast."""
        return _only_bounds(self.predicted_error, self.is_bound)


@readable
@dataclass(frozen=True, eq=False)
class Allocation(ResultTable):
    """A plan for training, the error that is expected of it, and how far from optimal it can be at most.

    Attributes
    ----------
    problem : Problem
    rounds, local_steps : int
        K and tau.
    batch_sizes : ndarray of int64, shape (N,)
        s_i.
    predicted_error : float
        Value of the objective that judges plans: an error bound, or a forecast [loss; gradient^2 for the
        non-convex bound].
    objective : str
        What was minimised: ``"error"``, ``"cost"`` or ``"time"``.
    objective_value, lower_bound : float
        Value of the objective, and a proved lower bound on that of every feasible plan; -inf where
        nothing was proved.
    cost, time : float
        What the plan uses [cost, s].
    status : Status
    binding : tuple of str
        The limits that keep the plan from being better: ``"cost"``, ``"time"``, ``"energy"``,
        ``"max_rounds"``, ``"max_local_steps"``, ``"max_batch"``.
    shadow_prices : dict of str to float
        By how much the predicted error falls per unit of ``"cost"`` and per second of ``"time"``, at this K
        and tau with continuous batch sizes.
    solver, bound : str
        Which solver found it, and which bound (the member, for a family) it has.
    learning_rate : float
    target_error : float or None
        The error to be reached, for the objectives ``"cost"`` and ``"time"``.
    solve_seconds : float
        Wall-clock time; not compared.
    trace : dict of str to number
        What the solver did, such as ``"inner_solves"`` and ``"boxes"``; not compared.
    custom_bound : Bound or None
        The bound itself where it is the user's own, and the forecast; not compared.
    claim : Claim or None
        Which plans `lower_bound` is about; None where that is more than the limits say (constraints of the
        user's own, a learning rate that was chosen as well), or nothing is claimed. Not compared.
    source : Source or None
        The measurement that a forecast was made from (its SHA-256 in ``measurement``); None for a bound.
    device_steps : ndarray of int64, shape (N,), or None
        tau_i, where some devices take fewer local steps than `local_steps`.

    Notes
    -----
    Allocations compare by value and do not hash.
    """

    __module__ = "coopt"

    problem: Problem
    rounds: int
    local_steps: int
    batch_sizes: NDArray[np.int64]
    predicted_error: float
    objective: str
    objective_value: float
    lower_bound: float
    cost: float
    time: float
    status: Status
    binding: tuple[str, ...]
    shadow_prices: dict[str, float]
    solver: str
    bound: str
    learning_rate: float
    target_error: float | None = None
    solve_seconds: float = field(compare=False, default=0.0)
    trace: dict[str, float] = field(compare=False, default_factory=dict)
    custom_bound: Bound | None = field(compare=False, default=None, repr=False)
    claim: Claim | None = field(compare=False, default=None, repr=False)
    source: Source | None = field(default=None, repr=False)
    device_steps: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.batch_sizes.flags.writeable = False
        if self.device_steps is not None:
            self.device_steps.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    @property
    def steps(self) -> NDArray[np.int64]:
        """tau_i: the local steps that each device takes in a round, shape (N,)."""
        return steps_of(self.device_steps, self.local_steps, len(self.batch_sizes))

    @property
    def as_run(self) -> Problem:
        """The problem in which tau local steps of a device use what its own steps do in this plan."""
        return at_device_steps(self.problem, self.local_steps, self.device_steps)

    @property
    def is_bound(self) -> bool:
        """Whether the value is an error bound: a forecast is none."""
        return self.source is None

    @property
    def error_bound(self) -> float:
        """The error bound of the plan.

        Raises
        ------
        InvalidProblemError
            If the plan was chosen by a forecast: that is no bound, see :attr:`predicted_error`.
        """
        return _only_bounds(self.predicted_error, self.is_bound)

    @property
    def quantity(self) -> str:
        """What to call the value of the plan, as the heading of a table."""
        return self.bound_object.quantity if self.is_bound else Forecast.quantity

    @property
    def gap(self) -> float:
        """(objective_value - lower_bound) / abs(objective_value): zero is a proof of optimality.

        inf where that is no number: the value is not finite, or zero without a proof.
        """
        if not math.isfinite(self.objective_value):
            return math.inf
        if self.objective_value == self.lower_bound:
            return 0.0
        if self.objective_value == 0.0:
            return math.inf
        return (self.objective_value - self.lower_bound) / abs(self.objective_value)

    @property
    def energy(self) -> float:
        """What the plan uses of ``Budget.energy`` [J]."""
        return self.as_run.energy(self.rounds, self.local_steps, self.batch_sizes)

    @property
    def parts(self) -> Parts | None:
        """The error bound split into transient, noise and drift; None for bounds that do not say."""
        if not self.is_bound:
            return None
        return self.bound_object.parts(self.problem, self.rounds, self.local_steps, self.batch_sizes)

    @property
    def cap_prices(self) -> NDArray[np.float64]:
        """By how much the predicted error falls per sample of each device's ``max_batch``, shape (N,).

        Like `shadow_prices` at this K and tau with continuous batch sizes; zero where the cap does not hold
        the batch back.
        """
        from coopt.plans.describe import cap_prices

        return cap_prices(self.as_run, self.bound_object, self.rounds, self.local_steps)

    @property
    def bound_object(self) -> Objective:
        """The bound or the forecast itself, with all that it says of itself.

        Raises
        ------
        InvalidProblemError
            If the plan was read from a file, which holds no forecast.
        """
        if self.source is not None and self.custom_bound is None:
            raise InvalidProblemError(
                "the file of this plan holds no forecast, only the SHA-256 of its measurement, "
                f"{self.source.measurement[:12]}...: certify(measurement) recomputes the value"
            )
        return resolve_bound(self.bound if self.custom_bound is None else self.custom_bound)

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def certify(self, measurement: HasForecast | None = None, *, deep: bool = False) -> Certificate:
        """Recompute feasibility, cost, time and value from scratch with independent code.

        Sums are exact. A bound is evaluated at 50 digits from its symbolic statement, a forecast step by step
        from what was measured.

        Parameters
        ----------
        measurement : Measurement or Forecast, optional
            What the forecast was made from, where the plan was read from a file.
        deep : bool, default False
            Whether to prove `lower_bound` once more: the plans are divided anew into boxes, and a checker
            that shares no code with the solvers recomputes a bound for each box. For a forecast every pair of
            rounds and local steps is tried, up to 20,000 of them. This takes longer than the solve.

        Returns
        -------
        Certificate

        Raises
        ------
        CertificateError
            If anything disagrees with what this allocation claims; with `deep`, also if `lower_bound`
            cannot be proved, or a plan refutes it. If `measurement` is not that of the plan.
        InvalidProblemError
            If a forecast has to be recomputed and there is no `measurement`.

        Notes
        -----
        A certificate covers what the plan is, what it uses, the value it has under the bound or forecast
        that it names, that a target is reached, and that ``lower_bound`` and ``status`` contradict none of
        this. That ``lower_bound`` is true is proved with `deep` alone. Not covered is what explains a plan
        or tells where it came from: ``binding``, ``shadow_prices``, ``solver``, ``solve_seconds``,
        ``trace``, and which of the reasons short of a proof ``status`` gives.
        """
        from coopt.plans.certificate import certify

        return certify(self, deep, None if measurement is None else measured(measurement))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists; :meth:`from_dict` gives back an equal allocation.

        Raises
        ------
        InvalidProblemError
            If the bound is the user's own: it cannot be read back from its name.
        """
        from coopt.problem.files import problem_to_dict

        if self.custom_bound is not None and self.is_bound:
            raise InvalidProblemError(
                f"bound = {self.bound!r} is not one of coopt's own: a file cannot hold it"
            )
        return {
            "problem": problem_to_dict(self.problem),
            "rounds": self.rounds,
            "local_steps": self.local_steps,
            "batch_sizes": self.batch_sizes.tolist(),
            VALUE[self.is_bound]: self.predicted_error,
            "objective": self.objective,
            "objective_value": self.objective_value,
            "lower_bound": self.lower_bound,
            "cost": self.cost,
            "time": self.time,
            "status": self.status.name,
            "binding": list(self.binding),
            "shadow_prices": dict(self.shadow_prices),
            "solver": self.solver,
            "bound": self.bound,
            "learning_rate": self.learning_rate,
            "target_error": self.target_error,
            "solve_seconds": self.solve_seconds,
            "trace": dict(self.trace),
            "claim": None
            if self.claim is None
            else {
                "bound": self.claim.bound.name,
                "rounds": self.claim.rounds,
                "local_steps": self.claim.local_steps,
            },
            **({} if self.source is None else {"forecast": self.source.to_dict()}),
            **({} if self.device_steps is None else {"device_steps": self.device_steps.tolist()}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild an allocation from :meth:`to_dict`; wrong or missing keys are InvalidProblemError."""
        from coopt.problem.files import problem_from_dict

        try:
            values = dict(data)
            values["problem"] = problem_from_dict(values["problem"])
            devices = len(values["problem"].fleet)
            values["batch_sizes"] = integer_array(
                "batch_sizes", values["batch_sizes"], devices, minimum=1
            ).copy()
            for name in ("rounds", "local_steps"):
                values[name] = count(name, values[name])
            steps = values.get("device_steps")
            if steps is not None:
                values["device_steps"] = checked_steps(steps, values["local_steps"], devices)
            made_from = values.pop("forecast", None)
            values["source"] = None if made_from is None else Source.from_dict(made_from)
            values["predicted_error"] = values.pop(VALUE[values["source"] is None])
            for name in ("predicted_error", "objective_value", "cost", "time", "learning_rate"):
                values[name] = real(name, values[name], infinite=True)
            choice("objective", values["objective"], ("error", "cost", "time"))
            values["target_error"] = optional_real("target_error", values["target_error"])
            values["status"] = Status[values["status"]]
            lower = values["lower_bound"]
            values["lower_bound"] = lower if lower == -math.inf else real("lower_bound", lower, infinite=True)
            values["binding"] = tuple(listed(text)("binding", values["binding"]))
            values["solver"] = text("solver", values["solver"])
            values["solve_seconds"] = real("solve_seconds", values["solve_seconds"], minimum=0.0)
            if values["source"] is not None:
                # A claim names an objective, and there is none without the measurement.
                values["claim"] = None
            elif values.get("claim") is not None:
                claim = dict(values["claim"])
                values["claim"] = Claim(resolve_bound(claim.pop("bound")), **claim)
            return cls(**values)
        except InvalidProblemError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidProblemError(f"not an allocation: {error}") from error

    def to_json(self, path: str | Path | None = None) -> str:
        """The allocation as JSON text (infinities as in Python's json), written to `path` if given."""
        return write_json(self.to_dict(), path)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild an allocation from :meth:`to_json`; no file that the text names is opened."""
        return cls.from_dict(json_object(text, "not an allocation"))

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a device: what the plan asks of it, and what that takes in all rounds [cost, s]."""
        return device_rows(self.problem, self, device_steps=self.device_steps)

    def _shown(self) -> list[Fact]:
        names = ("rounds", "local_steps", "batch_sizes", "predicted_error", "cost", "time", "gap", "bound")
        pairs: list[Fact] = [(name, getattr(self, name)) for name in names]
        return [f"{len(self.batch_sizes)} devices", *pairs, self.status.name]

    def _first_rows(self, count: int) -> tuple[list[dict[str, Any]], int]:
        return device_rows(self.problem, self, count, self.device_steps), len(self.batch_sizes)

    def plot(self) -> DescribedFigure:
        """Draw the predicted error over (K, tau) and the batch sizes; needs the extra ``plot``."""
        from coopt.plans.plot import plot_allocation

        return plot_allocation(self)

    def __str__(self) -> str:
        return plan_text(self)


def _only_bounds(value: float, is_bound: bool) -> float:
    if not is_bound:
        raise InvalidProblemError(
            "error_bound: this plan has a forecast, which bounds nothing; its value is predicted_error"
        )
    return value
