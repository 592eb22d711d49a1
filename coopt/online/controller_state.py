"""What a controller's state consists of, and how one that was written down is read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from coopt.errors import CheckpointWarning
from coopt.measuring.estimates.average import Average
from coopt.online.accounting import ROUNDING, Account
from coopt.online.fingerprint import Fingerprint, same_run
from coopt.online.knowledge import Knowledge
from coopt.online.measured import Measured
from coopt.online.roster import Roster
from coopt.online.round_plan import RoundPlan
from coopt.policies.situation import Choice
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.problem.saved_state import anything, consistent, number, optional, same, table

STATE_VERSION = 10
DELAY_DECAY = 0.95  # some 20 rounds
# What may change while a training rests without making it another one.
MAY_DIFFER = ("budget.cost", "budget.time", "budget.max_rounds", "min_gain")


@dataclass(eq=False)
class ControllerState:
    """All that changes in a controller while it runs.

    Attributes
    ----------
    account : Account
        What was spent.
    knowledge : Knowledge
        What the devices reported.
    roster : Roster
        Who of them answers.
    learning_rate : float
        Eta of the rounds to come.
    gradient_error : float
        Error that bounded buffers add to the gradient.
    forecast : float or None
        Gap predicted for the model after the planned round.
    measured : Measured
        What was measured of the whole fleet within the run.
    delay : Average
        Seconds of rounds over those predicted.
    plan : RoundPlan or None
        The round that is planned.
    choice : Choice or None
        What the policy chose for it.
    previous : Choice or None
        The choice before that.
    """

    account: Account
    knowledge: Knowledge
    roster: Roster
    learning_rate: float
    gradient_error: float = 0.0
    forecast: float | None = None
    measured: Measured = field(default_factory=Measured)
    delay: Average = field(default_factory=lambda: Average.empty(DELAY_DECAY))
    plan: RoundPlan | None = None
    choice: Choice | None = None
    previous: Choice | None = None

    def to_dict(self, fingerprint: Fingerprint) -> dict[str, Any]:
        """Give numbers, strings, lists and dictionaries from which `restored` makes the same state."""
        return {
            "version": STATE_VERSION,
            "fingerprint": fingerprint,
            "account": self.account.state_dict(),
            "knowledge": self.knowledge.state_dict(),
            "roster": self.roster.state_dict(),
            "learning_rate": self.learning_rate,
            "gradient_error": self.gradient_error,
            "forecast": self.forecast,
            "measured": self.measured.state_dict(),
            "delay": self.delay.state_dict(),
            "plan": None if self.plan is None else self.plan.to_dict(),
            "choice": None if self.choice is None else self.choice.state_dict(),
            "previous": None if self.previous is None else self.previous.state_dict(),
        }

    def restored(
        self, state: Mapping[str, Any], fingerprint: Fingerprint, *, fleet: Fleet, budget: Budget
    ) -> Self:
        """Read what `to_dict` gave in a controller like this one; see `Controller.load_state_dict`."""
        changes = same_run(state, STATE_VERSION, fingerprint, may_differ=MAY_DIFFER)
        read = table(
            "state",
            state,
            {
                "version": same(STATE_VERSION),
                "fingerprint": anything,
                "account": self.account.restored,
                "knowledge": self.knowledge.restored,
                "roster": self.roster.restored,
                "learning_rate": number(minimum=0.0, strict=True),
                "gradient_error": number(minimum=0.0),
                "forecast": optional(number()),
                "measured": self.measured.restored,
                "delay": self.delay.restored,
                "plan": optional(RoundPlan.from_state),
                "choice": optional(Choice.from_state),
                "previous": optional(Choice.from_state),
            },
        )
        del read["version"], read["fingerprint"]
        found = replace(self, **read)
        found._check(fleet, budget)
        for change in changes:
            warnings.warn(change, CheckpointWarning, stacklevel=4)
        return found

    def _check(self, fleet: Fleet, budget: Budget) -> None:
        """Raise InvalidProblemError unless the parts agree with each other and with the controller."""
        self.roster.check("state.roster", self.account.round)
        if self.measured.measurement is not None:
            fits = len(self.measured.measurement) == len(fleet)
            consistent("state.measured.measurement", fits, f"there are {len(fleet)} devices")
        for name, part in (("plan", self.plan), ("choice", self.choice), ("previous", self.previous)):
            if part is not None:
                place, sizes = f"state.{name}.batch_sizes", part.batch_sizes
                consistent(place, sizes.shape == (len(fleet),), f"there are {len(fleet)} devices")
                consistent(place, sizes <= fleet.max_batch, "max_batch is the most")
        if self.plan is not None:
            consistent("state.plan.round", self.plan.round == self.account.round, "the next round is planned")
            cost = self.account.cost + self.plan.predicted_cost
            fits = cost <= budget.cost * (1 + ROUNDING)
            consistent("state.plan.predicted_cost", fits, "it is more than what is left of the budget")
