"""What is known of the devices: learnt from their reports, and described to a policy."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates import estimate, estimate_published, readings
from coopt.measuring.estimates.estimate_published import PublishedEstimates
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.observations import Observations
from coopt.online.accounting import Closed, samples_of
from coopt.online.own_steps import with_one_step
from coopt.online.round_plan import RoundPlan
from coopt.problem.fleet import Fleet
from coopt.problem.saved_state import table
from coopt.streaming import SamplerAdvice, recommend_sampler, total_variation
from coopt.streaming.bias import SAMPLERS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Standard error of the fixed part of a step, as a share of it, up to which times tell enough.
UNSURE = 0.1


class Knowledge:
    """Learns from what devices report, and describes those that can be reckoned with.

    Parameters
    ----------
    fleet : Fleet
        The devices as they were given.
    caution : float
        Standard errors by which estimates are moved to their unfavourable side.
    streaming : bool
        Whether devices receive data while training.
    """

    def __init__(self, fleet: Fleet, *, caution: float, streaming: bool) -> None:
        self.fleet, self.caution, self.streaming = fleet, caution, streaming
        with np.errstate(over="ignore"):
            worth = np.where(fleet.step_time > 0, fleet.step_time, np.nan) * fleet.throughput
        self.estimates = Estimates.empty(fleet.samples, np.nan_to_num(worth, nan=0.0, posinf=0.0))
        self.published = PublishedEstimates(math.nan, math.nan, math.nan, math.nan)
        self._measured: tuple[Estimates, Fleet] | None = None

    def time(self, plan: RoundPlan, closed: Closed, seconds: float) -> None:
        """Learn from how long a round took by the server's clock."""
        seen = closed.seen
        told = (seen["seconds_computing"] + seen["seconds_communicating"])[seen.current]
        clients = seen.client[seen.current]
        if closed.answered is not None:
            told = np.where(np.isfinite(told), told, closed.answered[clients])
        here = np.zeros(len(self.fleet), dtype=bool)
        here[clients] = True
        asked = np.zeros(len(self.fleet), dtype=bool)
        asked[plan.participants] = True
        missing = asked & ~here & ~closed.absent
        self.estimates = replace(self.estimates, clock=self.estimates.clock.late(missing))
        # Whoever never answered may be what the server waited for, unless enough others had.
        enough = int(here.sum()) >= plan.enough(int((asked & ~closed.absent).sum()))
        if not missing.any() or enough:
            work = np.where(here, samples_of(plan), 0.0)
            clock = self.estimates.clock.add(seconds, told, work, closed.answered)
            self.estimates = replace(self.estimates, clock=clock)

    def absorb(self, seen: Observations, steps: Ints, draws: Ints | None) -> None:
        """Learn from the reports of a round in which the devices did so many local steps.

        Where devices are drawn by their weights, each counts as often as it was drawn.
        """
        self.estimates = estimate.absorb(
            self.estimates,
            seen,
            local_steps=round(float(self.fleet.weights @ steps)),
            replacement=self.fleet.replacement,
            streaming=self.streaming,
            step_cost=self.fleet.step_cost,
            micro_batch=self.fleet.micro_batch,
            weight=None if draws is None else draws[seen.client].astype(np.float64),
        )
        latest = estimate_published.estimate(seen, self.estimates.samples)
        known = {name: value for name, value in asdict(latest).items() if math.isfinite(value)}
        self.published = replace(self.published, **known)

    def forget_loss(self) -> None:
        """Forget loss and gradient, as of a federation of other devices; what is known of each one stays."""
        self.estimates = self.estimates.of_another_loss()

    def grow(self, fleet: Fleet) -> None:
        """Know of devices that have joined; `fleet` begins with those that were there."""
        self.estimates = self.estimates.joined_by(fleet.samples[len(self.fleet) :])
        self.fleet = fleet

    @property
    def samples(self) -> Floats:
        """Samples by which each device's model counts in the average, shape (N,)."""
        if self.streaming:
            return self.estimates.samples.astype(np.float64)
        return self.fleet.weights * float(self.fleet.samples.sum())

    @property
    def halves(self) -> bool:
        """Whether clients evaluate their first batch in two parts, which takes the time of one step more."""
        return bool(self.estimates.fleet_noise.known)

    def sample_cost(self) -> Floats:
        """Cost per sample as reported, or else as given, shape (N,)."""
        known = self.estimates.sample_cost
        return np.where(known.known, known.mean, self.fleet.sample_cost)

    def measured(self) -> Fleet:
        """The fleet with the speeds and costs that are measured in place of those given."""
        # Asked again and again for one plan: made once for the estimates that it is made of.
        if self._measured is None or self._measured[0] is not self.estimates:
            self._measured = self.estimates, self._with_what_is_measured()
        return self._measured[1]

    def _with_what_is_measured(self) -> Fleet:
        fleet, timing, link = self.fleet, self.estimates.timing, self.estimates.round_seconds
        clock = self.estimates.clock
        alpha, per_sample = timing.seconds()
        with np.errstate(divide="ignore", over="ignore"):
            throughput = np.where(timing.known, 1 / per_sample, fleet.throughput)
            throughput = np.minimum(throughput, 1 / np.float64(clock.least))
        return replace(
            fleet,
            throughput=throughput,
            step_time=np.where(timing.known, alpha, fleet.step_time),
            round_time=np.where(link.known, np.minimum(link.mean, clock.links(len(fleet))), fleet.round_time)
            + (clock.overhead or 0.0),
            sample_cost=self.sample_cost(),
        )

    def untimed(self) -> npt.NDArray[np.bool_]:
        """Devices of which nobody knows yet what a step takes from what a sample takes."""
        _, error = self.estimates.timing.fixed_share()
        return np.isfinite(error) & (error > UNSURE)

    def spread(self) -> float:
        """Standard deviation of the logarithm of a device's computing time, the usual one of the fleet."""
        timing = self.estimates.timing
        return float(np.median(timing.spread[timing.known])) if timing.known.any() else 0.0

    def describe(
        self,
        active: Ints,
        likely: Floats,
        slow: npt.NDArray[np.bool_],
        *,
        least: int,
        samples: float,
        gradients: float,
    ) -> Fleet:
        """Describe some devices to a policy, with all that is known of them.

        Parameters
        ----------
        active : numpy.ndarray of int
            Which devices.
        likely : numpy.ndarray, shape (N,)
            How likely each takes part, and has its costs.
        slow : numpy.ndarray of bool, shape (N,)
            Devices that take fewer steps, as many as fit in the time of the others: it is planned without
            regard to them.
        least : int
            The smallest batch that says something: two to measure noise, since one sample has no halves, and
            what a measurement asks for. A device that may process fewer processes its most.
        samples : float
            Samples that a device processes for each one that it trains on, extra evaluations included.
        gradients : float
            Gradients that it evaluates in a round beyond those of its steps.
        """
        given, estimates = self.fleet, self.estimates
        lower, upper = given.batch_range()
        lower = np.maximum(lower, np.minimum(upper, least))
        if self.streaming:
            upper = np.maximum(np.minimum(upper, estimates.samples), lower)
        divergence = readings.divergence(estimates)
        prior = math.sqrt(float(given.weights @ given.divergence**2))
        error = divergence.standard_error if math.isfinite(divergence.standard_error) else 0.0
        spread = divergence.value + self.caution * error if math.isfinite(divergence.value) else prior
        noise = given.gradient_noise
        if estimates.fleet_noise.known:
            noise = readings.device_noise(estimates, self.caution)
        weights = estimates.samples[active] if self.streaming else given.weights[active]
        measured = with_one_step(self.measured(), slow)
        return Fleet(
            samples=estimates.samples[active],
            gradient_noise=noise[active],
            divergence=spread if len(active) > 1 else 0.0,
            throughput=measured.throughput[active] / samples,
            step_time=measured.step_time[active],
            round_time=(measured.round_time + gradients * measured.step_time)[active],
            sample_cost=(measured.sample_cost * likely)[active] * samples,
            step_cost=(measured.step_cost * likely)[active],
            step_noise=measured.step_noise[active],
            micro_batch=None if measured.micro_batch is None else measured.micro_batch[active],
            batch_choices=None
            if measured.batch_choices is None
            else [measured.batch_choices[device] for device in active.tolist()],
            weights=weights / weights.sum(),
            min_batch=lower[active],
            max_batch=upper[active],
            batch_multiple=given.batch_multiple[active],
            replacement=given.replacement,
        )

    def recommend_sampler(
        self,
        *,
        capacity: int,
        arrivals: int,
        arrivals_per_step: float,
        gradient_diameter: float,
        contraction: float,
    ) -> SamplerAdvice:
        """Recommend a buffer with the measured noise; `contraction` is that of a local step."""
        weights = self.estimates.samples / self.estimates.samples.sum()
        turns = arrivals_per_step > 0
        return recommend_sampler(
            gradient_diameter=gradient_diameter,
            distances={sampler: total_variation(sampler, capacity, arrivals) for sampler in SAMPLERS},
            sample_variance=float(weights @ readings.device_noise(self.estimates)),
            capacity=capacity,
            turnover=contraction * capacity / arrivals_per_step if turns else math.inf,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give everything that `restored` needs."""
        return {"estimates": self.estimates.state_dict(), "published": asdict(self.published)}

    def restored(self, place: str, state: object) -> Self:
        """Return what `state_dict` gave of the same devices; `place` is for messages."""
        read = table(
            place,
            state,
            {"estimates": self.estimates.restored, "published": self.published.restored},
        )
        found = copy(self)
        found.estimates, found.published = read["estimates"], read["published"]
        return found
