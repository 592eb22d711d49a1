"""What was measured of the whole fleet within a run, and when."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.measuring.continuation import continued
from coopt.measuring.estimates.trend import Estimate
from coopt.measuring.measurement import Measurement
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.optimiser import Optimiser
from coopt.problem.saved_state import Reader, number, optional, table, text, whole
from coopt.problem.validation import flag, instance

Floats = npt.NDArray[np.float64]

# Gradients of rows beside the products: at the start, at the end, of single rows, of fresh ones.
STEPS_BESIDE = 4


class Measured:
    """The last measurement; it changes only when another one is taken.

    Attributes
    ----------
    measurement : Measurement or None
    forecast : Forecast or None
        What it says of plans; remembers what it has computed for them.
    optimiser : Optimiser or None
        The steps that it is for; None: those that the measurement was taken for.
    at : int
        The round before which it was taken.
    steps : int
        Local steps of the round before it.
    loss : Estimate
        The loss then, above the lowest that it can have, and its standard error.
    attempts : int
        How often the fleet was measured, or was to be.
    asked : bool
        Whether the server asks what to measure.
    """

    def __init__(self) -> None:
        self.measurement: Measurement | None = None
        self.forecast: Forecast | None = None
        self.optimiser: Optimiser | None = None
        self.at, self.steps, self.attempts, self.asked = -1, 1, 0, False
        self.loss = Estimate(math.nan, math.inf)
        self._text: str | None = None

    def take(
        self,
        measurement: Measurement | None,
        optimiser: Optimiser | None,
        *,
        at: int,
        steps: int,
        loss: Estimate,
    ) -> None:
        """Take in a measurement before round `at`, which one of `steps` preceded; None: nobody answered.

        Raises
        ------
        InvalidProblemError
            If it says nothing of the optimiser; nothing is changed then.
        """
        forecast = None if measurement is None else _forecast(measurement, optimiser)
        self.attempts += 1
        if measurement is not None:
            self.measurement, self.forecast, self.optimiser = measurement, forecast, optimiser
            self._text = None
            self.at, self.steps, self.loss = at, steps, loss

    def forget(self) -> None:
        """Forget what was measured, since the fleet is another one."""
        self.measurement = self.forecast = self._text = None

    def state_dict(self) -> dict[str, Any]:
        """Give numbers and a text that `restored` turns back into the same."""
        if self._text is None and self.measurement is not None:
            stream = io.BytesIO()
            self.measurement.write(stream)
            self._text = base64.b64encode(stream.getvalue()).decode("ascii")
        return {
            "measurement": self._text,
            "optimiser": None if self.optimiser is None else self.optimiser.to_dict(),
            "at": self.at,
            "steps": self.steps,
            "attempts": self.attempts,
            "asked": self.asked,
            "loss": self.loss._asdict(),
        }

    def restored(self, place: str, state: object) -> Measured:
        """Return what `state_dict` gave; `place` is for messages."""
        made = Measured()
        for name, value in table(place, state, _ENTRIES).items():
            setattr(made, name, value)
        if made.measurement is not None:
            made.forecast = _forecast(made.measurement, made.optimiser)
        return made


def _forecast(measurement: Measurement, optimiser: Optimiser | None) -> Forecast:
    """The forecast, with curvature that goes on where limits left time for few directions only."""
    found = measurement.forecast(optimiser=optimiser)
    if not measurement.cut_off:
        return found
    return Forecast(continued(found.model), optimiser=found.optimiser, rate_growth=found.rate_growth)


def _measurement(place: str, value: object) -> Measurement:
    try:
        content = base64.b64decode(text(place, value), validate=True)
    except ValueError as error:
        raise InvalidProblemError(f"{place} is no text of base64: {error}") from error
    return Measurement.read(io.BytesIO(content), place)


def _optimiser(place: str, value: Any) -> Optimiser:
    try:
        return Optimiser.from_dict(value)  # whatever it is, it is refused by name
    except InvalidProblemError as error:
        raise InvalidProblemError(f"{place}: {error}") from error


def _loss(place: str, value: object) -> Estimate:
    found = table(
        place, value, {"value": number(nan=True), "standard_error": number(minimum=0.0, infinite=True)}
    )
    return Estimate(**found)


# What may stand in a state that was written down.
_ENTRIES: dict[str, Reader[Any]] = {
    "measurement": optional(_measurement),
    "optimiser": optional(_optimiser),
    "at": whole(-1),
    "steps": whole(1),
    "attempts": whole(),
    "asked": flag,
    "loss": _loss,
}


def check_fits(measurement: Measurement | None, devices: int) -> None:
    """Raise InvalidProblemError where a measurement is none, or of another fleet."""
    if measurement is None:
        return
    instance("measurement", measurement, Measurement)
    if len(measurement) != devices:
        raise InvalidProblemError(
            f"measurement is of {len(measurement)} devices, and the fleet has {devices}: it must be of all"
        )


def cost_of(
    measurement: Measurement | None, sample_cost: Floats, step_cost: Floats, round_cost: float
) -> float:
    """What a measurement cost: samples, steps, and the cost of a round for each exchange."""
    if measurement is None:
        return round_cost
    rows = measurement.rows.astype(np.float64)
    each = measurement.samples_used / float(rows.sum())
    steps = (measurement.directions + STEPS_BESIDE) * float(step_cost[measurement.rows > 0].sum())
    return each * float(rows @ sample_cost) + steps + (measurement.directions + 2) * round_cost
