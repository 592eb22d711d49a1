"""What is known of a running training: the state that client reports change."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.average import Average
from coopt.measuring.estimates.regression import FadingLine
from coopt.measuring.estimates.steady_mean import SteadyMean
from coopt.measuring.estimates.step_timing import StepTiming
from coopt.measuring.estimates.trend import Trend
from coopt.measuring.estimates.wall_clock import WallClock
from coopt.measuring.screening import Memory, restored_memory
from coopt.problem.saved_state import Reader, consistent, table, whole, wholes

DEVICE_DECAY = 0.9  # gradient noise changes with the model, but slowly: some 10 reports
FLEET_DECAY = 0.85  # some 7 rounds
PAIR_DECAY = 0.5  # curvature depends on the model, and pairs are rare but precise: 2 of them
LINE_DECAY = 0.9  # the relation of loss and gradient needs a range of losses: some 10 rounds


@dataclass(frozen=True, eq=False)
class Estimates:
    """What is known so far; frozen, `update` returns a new one.

    Attributes
    ----------
    samples : numpy.ndarray, shape (N,)
        Samples that each device holds, d_i.
    given : numpy.ndarray, shape (N,)
        Samples that it was said to hold before training.
    noise : Average, shape (N,)
        Gradient noise M_i of each device, gradient^2 * samples.
    timing : StepTiming
        Seconds per step and per sample of each device.
    clock : WallClock
        What the server's clock says about the speeds that devices claim.
    round_seconds : SteadyMean, shape (N,)
        Seconds of communication per round.
    sample_cost : Average, shape (N,)
        Cost per sample.
    fleet_noise : Average
        Mean M_i over the devices that reported, for those that never did.
    loss : Trend
        Global loss F.
    gradient : Trend
        Squared norm of the global gradient.
    partial : Average
        What missing devices add to it, already subtracted.
    participation : Average
        The same, of devices that did not take part at all: noise of the averaged gradient, gradient^2.
    divergence : Trend
        Squared gradient divergence, d_h^2 = sum p_i ||grad F_i - grad F||^2.
    pair_change, pair_slope, pair_step : Average
        Same-batch pairs: squared gradient change, its product with the step, squared step.
    coupling_change, coupling_step : Average
        Squared change of the averaged gradient by drift, weighted squared drift.
    line : FadingLine
        Squared gradient norm over loss, round by round.
    decay : FadingLine
        Logarithm of the squared gradient norm over the local steps taken so far.
    steps : int
        Local steps taken so far.
    memory : dict
        Values believed last, see `coopt.measuring.screening.remember`.
    """

    samples: npt.NDArray[np.int64]
    given: npt.NDArray[np.int64]
    noise: Average
    timing: StepTiming
    clock: WallClock
    round_seconds: SteadyMean
    sample_cost: Average
    fleet_noise: Average
    loss: Trend
    gradient: Trend
    partial: Average
    participation: Average
    divergence: Trend
    pair_change: Average
    pair_slope: Average
    pair_step: Average
    coupling_change: Average
    coupling_step: Average
    line: FadingLine
    decay: FadingLine
    steps: int
    memory: Memory

    @classmethod
    def empty(cls, samples: npt.ArrayLike, step_worth: npt.ArrayLike = 0.0) -> Self:
        """Know nothing but how many samples each device holds.

        And, where it is known, how many of them take as long as the fixed part of a step does.
        """
        held = np.array(samples, dtype=np.int64)
        parts: dict[str, Any] = {
            field.name: _empty(field.name, len(held)) for field in fields(cls) if field.name not in _OTHERS
        }
        return cls(
            samples=held,
            given=held,
            line=FadingLine(LINE_DECAY),
            decay=FadingLine(LINE_DECAY),
            steps=0,
            memory={},
            clock=WallClock(),
            round_seconds=SteadyMean.empty(len(held)),
            timing=StepTiming.empty(np.broadcast_to(np.asarray(step_worth, dtype=np.float64), held.shape)),
            **parts,
        )

    def of_another_loss(self) -> Self:
        """The same without what was observed of the loss and its gradient."""
        fresh = type(self).empty(self.samples)
        names = (*_TRENDS, "line", "decay", "memory")
        return replace(self, **{name: getattr(fresh, name) for name in names})

    def joined_by(self, samples: npt.ArrayLike) -> Self:
        """The same with more devices, of which nothing is known but the samples that they hold."""
        others = type(self).empty(samples)
        parts: dict[str, Any] = {
            name: getattr(self, name).joined(getattr(others, name))
            for name in (*_PER_DEVICE, "timing", "round_seconds")
        }
        for name in ("samples", "given"):
            parts[name] = np.concatenate([getattr(self, name), getattr(others, name)])
        return replace(self, **parts)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and dictionaries that `restored` turns back into the same state, bit for bit."""
        state: dict[str, Any] = {
            "samples": self.samples.tolist(),
            "given": self.given.tolist(),
            "steps": self.steps,
            "memory": self.memory,
        }
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in state}
        return state | {name: part.state_dict() for name, part in parts.items()}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` wrote of as many devices; `place` is for messages."""
        readers: dict[str, Reader[Any]] = {
            "samples": wholes(self.samples.shape, minimum=1),
            "given": wholes(self.samples.shape, minimum=1),
            "steps": whole(),
            "memory": restored_memory,
        }
        # Every other part restores itself.
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        readers |= {name: part.restored for name, part in parts.items() if name not in readers}
        read = table(place, state, readers)
        fits = len(read["clock"].shortest) <= len(self.samples)
        consistent(f"{place}.clock.shortest", fits, f"there are {len(self.samples)} devices")
        for name in _NOT_NEGATIVE:
            consistent(f"{place}.{name}.mean", read[name].mean >= 0, "what it averages is not negative")
        return replace(self, **read)


_OTHERS = ("samples", "given", "timing", "round_seconds", "clock", "line", "decay", "steps", "memory")
_TRENDS = ("loss", "gradient", "divergence")
_NOT_NEGATIVE = ("noise", "round_seconds", "sample_cost", "fleet_noise", "pair_step", "coupling_step")
_PER_DEVICE = {
    "noise": DEVICE_DECAY,
    "sample_cost": DEVICE_DECAY,
}


def _empty(name: str, devices: int) -> Average | Trend:
    if name in _TRENDS:
        return Trend.empty()
    if name in _PER_DEVICE:
        return Average.empty(_PER_DEVICE[name], (devices,))
    return Average.empty(FLEET_DECAY if name in ("fleet_noise", "partial", "participation") else PAIR_DECAY)
