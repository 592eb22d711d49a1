"""The contract between whatever plans the rounds and whatever runs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coopt.errors import BoundWarning, InvalidProblemError
from coopt.measuring.ignored import Ignored
from coopt.measuring.measurement import Measurement
from coopt.measuring.report import ClientReport
from coopt.objectives.forecast.optimiser import Optimiser
from coopt.online.measure_request import MeasureRequest
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.policies.situation import MeasuringPolicy, Policy
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.problem.validation import shown


class Planner(Protocol):
    """Plans rounds, hears what became of them, and keeps the account.

    :class:`coopt.Controller` and :class:`coopt.adapters.fixed_plan.FixedPlan` are planners. An adapter asks
    `plan` before every round and calls `observe` after it, or `wait` for time that passes in between; it
    writes to nothing. A planner opens no connection and holds no model.
    """

    @property
    def fleet(self) -> Fleet:
        """The devices, in the order of all arrays of a plan."""
        ...

    @property
    def budget(self) -> Budget:
        """What the whole training may spend; a planner that stops by rounds alone has no other limit."""
        ...

    @property
    def round(self) -> int:
        """Rounds observed so far, and so the number of the next one, from 0."""
        ...

    @property
    def spent_cost(self) -> float:
        """Cost of the rounds observed."""
        ...

    @property
    def spent_seconds(self) -> float:
        """Seconds that the rounds observed took, and that were waited for [s]."""
        ...

    @property
    def time_left(self) -> float:
        """Seconds that are left of the budget; infinite where it limits no time [s]."""
        ...

    @property
    def samples(self) -> npt.NDArray[np.float64]:
        """Samples by which each device's model counts in the average, shape (N,)."""
        ...

    def plan(self, *, absent: Iterable[int] = ()) -> RoundPlan | Stopped:
        """Plan the next round; the same again until its reports are observed, or the time is up.

        Devices that are `absent` are not drawn.
        """
        ...

    def wants(self, *, gradients_a_product: int = 1) -> MeasureRequest | None:
        """What to measure before the next round; an adapter that cannot measure need not ask."""
        ...

    def measured(
        self,
        measurement: Measurement | None,
        *,
        seconds: float,
        cost: float | None = None,
        optimiser: Optimiser | None = None,
    ) -> None:
        """Take in and charge a measurement that was wanted; None where nobody answered.

        `optimiser` is what devices and server train with.
        """
        ...

    def observe(
        self,
        reports: Iterable[ClientReport],
        *,
        seconds: float | None = None,
        answered: npt.ArrayLike | None = None,
        absent: Iterable[int] = (),
        gradient_error: float | None = None,
        witnessed: bool = False,
    ) -> list[Ignored]:
        """Take in what the clients reported about the planned round; what was not believed, and why.

        `answered` is when the answer of each device came, shape (N,), infinite where none did [s];
        `witnessed` says that the server itself saw how much work was done.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Charge time that passes between rounds [s]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `load_state_dict` needs to go on bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


def check_planner(planner: object, optimiser: Optimiser | None = None) -> None:
    """Check what an adapter is given.

    Parameters
    ----------
    planner : object
    optimiser : Optimiser, optional
        What devices and server train with.

    Raises
    ------
    InvalidProblemError
        If it is no planner, most of all a plan that nothing runs yet.

    Warns
    -----
    BoundWarning
        If it plans by estimates for bounds alone, which know plain steps, and the optimiser has others.
    """
    if not all(callable(getattr(planner, name, None)) for name in ("plan", "observe", "wait")):
        raise InvalidProblemError(
            f"planner = {shown(planner)}: give a Controller, or a plan as "
            "FixedPlan.from_allocation(plan) or FixedPlan.from_schedule(schedule)"
        )
    policy = getattr(planner, "policy", None)
    if optimiser is None or optimiser.plain or not isinstance(policy, Policy):
        return
    if policy.needs_estimates and not isinstance(policy, MeasuringPolicy):
        warnings.warn(
            f"policy {policy.name!r} plans for plain federated averaging, and training is by {optimiser}: "
            "its bounds know no other steps; policy='schedule' plans for these, where the fleet is measured",
            BoundWarning,
            stacklevel=3,
        )
