"""What an adapter asks of whatever plans its rounds: :class:`coopt.Controller`, or a fixed plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from coopt.measuring.report import ClientReport
from coopt.online.round_plan import RoundPlan, Stopped


class Planner(Protocol):
    """Plans rounds, hears what became of them, and keeps the accounts."""

    @property
    def spent_cost(self) -> float:
        """Cost of the rounds observed."""
        ...

    @property
    def spent_seconds(self) -> float:
        """Seconds that the rounds observed took."""
        ...

    def plan(self) -> RoundPlan | Stopped:
        """Plan the next round; the same again until its reports are observed."""
        ...

    def observe(
        self,
        reports: Iterable[ClientReport],
        *,
        seconds: float | None = None,
        absent: Iterable[int] = (),
        gradient_error: float | None = None,
    ) -> object:
        """Take in what the clients reported about the planned round."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `load_state_dict` needs to go on bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...
