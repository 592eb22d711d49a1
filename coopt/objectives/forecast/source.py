"""Where a forecast comes from, as a file can say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.optimiser import AVERAGING, Optimiser


@dataclass(frozen=True)
class Source:
    """What a forecast was made from.

    Attributes
    ----------
    measurement : str
        SHA-256 of what was measured, :attr:`LocalModel.digest`.
    trained : tuple of int, or None
        The devices of the measurement that train, where some never do.
    optimiser : Optimiser
        How they and the server step.
    """

    measurement: str
    trained: tuple[int, ...] | None = None
    optimiser: Optimiser = AVERAGING

    def to_dict(self) -> dict[str, Any]:
        """What a file says of it."""
        said: dict[str, Any] = {"measurement": self.measurement, "trained": self.trained}
        return said if self.optimiser.plain else said | {"optimiser": self.optimiser.to_dict()}

    @classmethod
    def from_dict(cls, data: object) -> Source:
        """Read what a file says; InvalidProblemError where that is nothing of the kind."""
        if not isinstance(data, dict) or not isinstance(data.get("measurement"), str):
            raise InvalidProblemError("not an allocation: forecast must hold the SHA-256 of its measurement")
        trained, how = data.get("trained"), data.get("optimiser")
        return cls(
            data["measurement"],
            None if trained is None else tuple(int(i) for i in trained),
            AVERAGING if how is None else Optimiser.from_dict(how),
        )
