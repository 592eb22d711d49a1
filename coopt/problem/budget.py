"""What may be spent: cost, time, energy, rounds, local steps, and how many devices take part in a round."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta

from coopt.errors import InvalidProblemError
from coopt.problem import units
from coopt.problem.exact_sum import exact_sum
from coopt.problem.fleet import Fleet
from coopt.problem.readable import readable
from coopt.problem.validation import flag, optional_count, real


@readable
@dataclass(frozen=True, init=False)
class Budget:
    """What may be spent.

    Parameters
    ----------
    cost : float, default inf
        R >= 0, the total cost of all rounds, in the unit of ``Fleet.sample_cost``. For epochs give
        ``5 * fleet.epoch_cost``; a job file and the command line also read ``"5 epochs"``.
    time : float, str or timedelta, default inf
        theta >= 0, the completion time of all rounds [s]; the slowest device sets each round. Texts have
        units: ``"90s"``, ``"30min"``, ``"1h 30min"``, ``"2 days"``.
    round_cost : float, default 0
        b >= 0, the cost of one round beyond its samples and ``Fleet.round_cost``.
    max_rounds, max_local_steps : int, optional
        Upper limits on K and tau.
    participants : int, optional
        m >= 1: the server averages m devices a round, drawn independently, device i with the probability
        p_i, each with the weight 1/m. Default: every device takes part in every round. Costs are then
        expected ones, and the time limit holds whoever is drawn.
    distinct_participants : bool, default False
        Whether the m devices are distinct, each set of m as likely as any other; needs equal weights.
    energy : float or str, default inf
        E >= 0, the energy that all devices together may use in all rounds [J], or such as ``"2 kWh"``.
    second_cost : float, default 0
        w >= 0, the cost of every second from the first round to the last, whatever the devices do: the
        rent of all machines together [cost / s]. It is part of the cost of a plan: w times its completion
        time.

    Raises
    ------
    InvalidProblemError
        If a value is not a number in its range, a unit is unknown, or a count is fractional.

    Examples
    --------
    >>> from coopt import Budget
    >>> Budget(cost=20_000, time="1h 30min").time
    5400.0
    """

    __module__ = "coopt"

    cost: float = math.inf
    time: float = math.inf
    round_cost: float = 0.0
    max_rounds: int | None = None
    max_local_steps: int | None = None
    participants: int | None = None
    distinct_participants: bool = False
    energy: float = math.inf
    second_cost: float = 0.0

    def __init__(
        self,
        cost: float = math.inf,
        time: float | str | timedelta = math.inf,
        round_cost: float = 0.0,
        max_rounds: int | None = None,
        max_local_steps: int | None = None,
        participants: int | None = None,
        distinct_participants: bool = False,
        energy: float | str = math.inf,
        second_cost: float = 0.0,
    ) -> None:
        checked: dict[str, float | int | None] = {
            "cost": real("cost", units.cost("cost", cost), minimum=0.0, infinite=True),
            "time": real("time", units.seconds("time", time), minimum=0.0, infinite=True),
            "round_cost": real("round_cost", round_cost, minimum=0.0),
            "max_rounds": optional_count("max_rounds", max_rounds),
            "max_local_steps": optional_count("max_local_steps", max_local_steps),
            "participants": optional_count("participants", participants),
            "distinct_participants": flag("distinct_participants", distinct_participants),
            "energy": real("energy", units.joules("energy", energy), minimum=0.0, infinite=True),
            "second_cost": real("second_cost", second_cost, minimum=0.0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def refuse_rent(self, who: str) -> None:
        """Raise InvalidProblemError that `who` reckons with no cost of seconds, if there is one."""
        if self.second_cost:
            raise InvalidProblemError(
                f"second_cost = {self.second_cost!r}: {who} does not reckon with what seconds cost; "
                "solve_allocation, evaluate, frontier and solve_many do"
            )

    def including(self, fleet: Fleet) -> Budget:
        """The budget whose price of a round includes what a round costs on every device."""
        return replace(self, round_cost=exact_sum([self.round_cost, *fleet.round_cost.tolist()]))
