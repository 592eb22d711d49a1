"""One thing of a report that was not believed, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ignored:
    """One thing that was left out of the estimates, or counted as less extreme than it was told.

    Attributes
    ----------
    client : int
        Index of the device.
    what : str
        Part of the report.
    why : str
        Reason, for a person.
    value : float, optional
        What was told, where it is one number.
    typical : float, optional
        What is usual among the others.

    Examples
    --------
    >>> print(Ignored(3, "loss", "far from what all other clients report", -20.0, 1.5))
    client 3: ignored loss = -20: far from what all other clients report, typically 1.5
    """

    client: int
    what: str
    why: str
    value: float | None = None
    typical: float | None = None

    def __str__(self) -> str:
        """Format as one line."""
        value = "" if self.value is None else f" = {self.value:.4g}"
        typical = "" if self.typical is None else f", typically {self.typical:.4g}"
        return f"client {self.client}: ignored {self.what}{value}: {self.why}{typical}"
