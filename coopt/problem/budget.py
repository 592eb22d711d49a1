"""What may be spent: cost, time, energy, rounds, local steps, and how many devices take part in a round."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from coopt.problem.fleet import Fleet
from coopt.problem.validation import flag, optional_count, real


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Parameters
    ----------
    cost : float, default inf
        R >= 0, the total cost of all rounds, in the unit of ``Fleet.sample_cost``.
    time : float, default inf
        theta >= 0, the completion time of all rounds [s]; the slowest device sets each round.
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
    energy : float, default inf
        E >= 0, the energy that all devices together may use in all rounds [J].

    Raises
    ------
    InvalidProblemError
        If a value is not a number in its range, or a count is fractional.
    """

    __module__ = "coopt"

    cost: float = float("inf")
    time: float = float("inf")
    round_cost: float = 0.0
    max_rounds: int | None = None
    max_local_steps: int | None = None
    participants: int | None = None
    distinct_participants: bool = False
    energy: float = float("inf")

    def __post_init__(self) -> None:
        checked: dict[str, float | int | None] = {
            "cost": real("cost", self.cost, minimum=0.0, infinite=True),
            "time": real("time", self.time, minimum=0.0, infinite=True),
            "round_cost": real("round_cost", self.round_cost, minimum=0.0),
            "max_rounds": optional_count("max_rounds", self.max_rounds),
            "max_local_steps": optional_count("max_local_steps", self.max_local_steps),
            "participants": optional_count("participants", self.participants),
            "energy": real("energy", self.energy, minimum=0.0, infinite=True),
        }
        flag("distinct_participants", self.distinct_participants)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def including(self, fleet: Fleet) -> Budget:
        """The budget whose price of a round includes what a round costs on every device."""
        return replace(self, round_cost=math.fsum([self.round_cost, *fleet.round_cost.tolist()]))
