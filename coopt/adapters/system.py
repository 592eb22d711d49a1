"""A simulated fleet: how long each device takes in each round, and who is missing.

Simulated training needs a clock that is the same for every method that is compared. Here the times of a
device in a round depend on the seed, the round and the device alone, never on what was asked before, so two
methods that ask for the same work in the same round wait for the same devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.readable import readable
from coopt.problem.traces import speeds_and_round_times
from coopt.problem.validation import count, float_array, numeric_array, real, same_value

if TYPE_CHECKING:
    from coopt.online.round_plan import RoundPlan

Floats = NDArray[np.float64]


@readable
@dataclass(frozen=True, eq=False)
class RoundTimes:
    """What a round takes each device.

    Attributes
    ----------
    computing : numpy.ndarray, shape (N,)
        Seconds spent on gradients.
    communicating : numpy.ndarray, shape (N,)
        Seconds spent on receiving and sending the model.
    absent : numpy.ndarray of bool, shape (N,)
        Devices that do not take part, which the server knows.
    done : numpy.ndarray, shape (N,), optional
        Share of its local steps that each device does before it is cut short; None: all do all of them.
    """

    computing: Floats
    communicating: Floats
    absent: NDArray[np.bool_]
    done: Floats | None = None

    def steps(self, planned: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the local steps that each device does of those that are planned, at least one, shape (N,)."""
        if self.done is None:
            return planned
        whole: NDArray[np.int64] = np.ceil(self.done * planned).astype(np.int64)
        return np.maximum(whole, 1)

    @property
    def total(self) -> Floats:
        """Seconds from the start of the round until the device's answer is there, shape (N,)."""
        return self.computing + self.communicating

    def arrived(self, deadline: float = math.inf) -> NDArray[np.bool_]:
        """Tell which devices answer in time, shape (N,)."""
        return ~self.absent & (self.total <= deadline)

    def seconds(self, deadline: float = math.inf) -> float:
        """Give the seconds after which the server goes on: the last answer, or the deadline before it."""
        return min(float(np.max(self.total[~self.absent], initial=0.0)), deadline)

    def under(
        self, plan: RoundPlan, absent: NDArray[np.bool_] | None = None
    ) -> tuple[float, NDArray[np.bool_]]:
        """Tell how a round goes in which the server waits as a plan says.

        Parameters
        ----------
        plan : RoundPlan
            Who is given work, for whom the server waits, and how long.
        absent : numpy.ndarray of bool, shape (N,), optional
            More devices that do not take part.

        Returns
        -------
        seconds : float
            When the server goes on.
        arrived : numpy.ndarray of bool, shape (N,)
            Who has answered by then.
        """
        gone = self.absent if absent is None else self.absent | absent
        there = np.isin(np.arange(gone.size), plan.participants) & ~gone
        seconds = plan.closes(np.where(there, self.total, np.inf), np.flatnonzero(gone).tolist())
        return seconds, there & (self.total <= seconds)


@readable
@dataclass(frozen=True, init=False, eq=False)
class SystemModel:
    """Speeds, links, jitter, stragglers and dropouts of a simulated fleet.

    A device computes for steps * step_time + samples / throughput seconds and communicates for `round_time`
    seconds, each times lognormal jitter with mean one; a straggler computes `straggler_factor` times as long.

    Parameters
    ----------
    throughput : array_like, shape (N,)
        pi_i, samples per second.
    round_time : array_like, shape (N,) or scalar, default 0
        u_i, seconds of communication per round.
    compute_jitter, link_jitter : float, default 0
        Standard deviation of the logarithm of the jitter.
    straggler_rate : array_like, shape (N,) or scalar, default 0
        Probability that a device straggles in a round.
    straggler_factor : float, default 5
        Slowdown of a straggler.
    dropout : array_like, shape (N,) or scalar, default 0
        Probability that a device does not take part in a round.
    seed : int, default 0
        Source of all of it.
    step_time : array_like, shape (N,) or scalar, default 0
        alpha_i, seconds that every step takes whatever its batch.
    partial : array_like, shape (N,) or scalar, default 0
        Probability that a device is cut short in a round, and does a random share of its local steps.

    Raises
    ------
    InvalidProblemError
        If a value is out of range or of the wrong shape.

    Examples
    --------
    >>> from coopt.adapters.system import SystemModel
    >>> system = SystemModel([100.0, 20.0], round_time=0.5)
    >>> times = system.round(0, samples_processed=40)
    >>> times.total, times.seconds()
    (array([0.9, 2.5]), 2.5)
    >>> times.arrived(deadline=1.0)
    array([ True, False])
    """

    throughput: Floats
    round_time: Floats
    compute_jitter: float
    link_jitter: float
    straggler_rate: Floats
    straggler_factor: float
    dropout: Floats
    seed: int
    step_time: Floats
    partial: Floats

    def __init__(
        self,
        throughput: ArrayLike,
        round_time: ArrayLike = 0.0,
        *,
        compute_jitter: float = 0.0,
        link_jitter: float = 0.0,
        straggler_rate: ArrayLike = 0.0,
        straggler_factor: float = 5.0,
        dropout: ArrayLike = 0.0,
        seed: int = 0,
        step_time: ArrayLike = 0.0,
        partial: ArrayLike = 0.0,
    ) -> None:
        shape = numeric_array("throughput", throughput).shape
        if len(shape) != 1 or not shape[0]:
            raise InvalidProblemError(
                f"throughput has shape {shape}: must be one-dimensional with one entry a device"
            )
        size = shape[0]
        values: dict[str, Any] = {
            "throughput": float_array("throughput", throughput, size, minimum=0.0, strict=True),
            "round_time": float_array("round_time", round_time, size, minimum=0.0),
            "compute_jitter": real("compute_jitter", compute_jitter, minimum=0.0),
            "link_jitter": real("link_jitter", link_jitter, minimum=0.0),
            "straggler_rate": _probabilities("straggler_rate", straggler_rate, size),
            "straggler_factor": real("straggler_factor", straggler_factor, minimum=1.0),
            "dropout": _probabilities("dropout", dropout, size),
            "seed": count("seed", seed, minimum=0),
            "step_time": float_array("step_time", step_time, size, minimum=0.0),
            "partial": _probabilities("partial", partial, size),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        """Tell whether all parameters agree."""
        return same_value(self, other)

    def __len__(self) -> int:
        """Count the devices."""
        return len(self.throughput)

    @classmethod
    def from_traces(
        cls,
        latency: ArrayLike,
        links: ArrayLike,
        model_bytes: float,
        *,
        devices: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Make a fleet from measured devices and links, in the units of :meth:`coopt.Fleet.from_traces`.

        Parameters
        ----------
        latency : array_like, shape (n,)
            Measured time of computing for a sample [ms / sample].
        links : array_like, shape (m,) or (m, 2)
            Measured speeds of links; two columns are download and upload [kbit / s].
        model_bytes : float
            What is sent each way in a round [bytes].
        devices : int, optional
            Draw so many devices, and independently a link for each, at random with replacement; default:
            entry i of both arrays is device i.
        seed : int, default 0
            Source of the draw, and of what happens in the rounds.
        **options
            Further parameters of the model.

        Returns
        -------
        SystemModel
            The fleet.

        Raises
        ------
        InvalidProblemError
            If a value is out of range, or the arrays differ in length and `devices` is not given.

        Warns
        -----
        MeasurementWarning
            If the tables look like seconds and bit/s.

        Examples
        --------
        >>> SystemModel.from_traces([50.0, 200.0], [8000.0, 1000.0], 1e6).throughput
        array([20.,  5.])
        """
        rng = np.random.default_rng([count("seed", seed, minimum=0), 0])
        throughput, round_time = speeds_and_round_times(latency, links, model_bytes, devices, rng)
        return cls(throughput, round_time, seed=seed, **options)

    def round(
        self,
        round: int,
        samples_processed: ArrayLike,
        steps: ArrayLike = 0,
    ) -> RoundTimes:
        """Give the times of one round.

        Parameters
        ----------
        round : int
            Number of the round, from 0.
        samples_processed : array_like, shape (N,) or scalar
            Samples whose gradient each device evaluates, extra evaluations included.
        steps : array_like, shape (N,) or scalar, default 0
            Gradients that it evaluates, each of which takes its `step_time`.

        Returns
        -------
        RoundTimes
            The same for the same seed, round, device and samples, whatever was asked before; jitter,
            stragglers and dropouts do not depend on the samples.

        Raises
        ------
        InvalidProblemError
            If `round`, `samples_processed` or `steps` is out of range.
        """
        work = float_array("samples_processed", samples_processed, len(self), minimum=0.0) / self.throughput
        work = work + float_array("steps", steps, len(self), minimum=0.0) * self.step_time
        # One row a device, filled in order: more devices do not change the luck of those before them.
        rng = np.random.default_rng([self.seed, 1, count("round", round, minimum=0)])
        chance = rng.random((len(self), 2))
        normal = np.random.default_rng([self.seed, 2, round]).standard_normal((len(self), 2))
        slow = np.where(chance[:, 0] < self.straggler_rate, self.straggler_factor, 1.0)
        return RoundTimes(
            computing=work * slow * _jitter(self.compute_jitter, normal[:, 0]),
            communicating=self.round_time * _jitter(self.link_jitter, normal[:, 1]),
            absent=chance[:, 1] < self.dropout,
            done=self._done(round),
        )

    def _done(self, now: int) -> Floats | None:
        if not self.partial.any():
            return None
        luck = np.random.default_rng([self.seed, 3, now]).random((len(self), 2))
        return np.where(luck[:, 0] < self.partial, luck[:, 1], 1.0)


def _jitter(sigma: float, normal: Floats) -> Floats:
    return np.exp(sigma * normal - sigma**2 / 2)


def _probabilities(name: str, values: ArrayLike, size: int) -> Floats:
    checked = float_array(name, values, size, minimum=0.0)
    above = checked > 1
    if np.any(above):
        index = int(np.argmax(above))
        raise InvalidProblemError(f"{name}[{index}] = {float(checked[index])!r}: must be <= 1")
    return checked
