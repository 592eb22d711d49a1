"""What a controller knows before it plans: the devices, the loss, a measurement, and what is left."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from coopt.measuring.estimates.calibrate import calibrate
from coopt.measuring.estimates.state import Estimates
from coopt.measuring.estimates.trend import Estimate
from coopt.measuring.measurement import Measurement
from coopt.objectives.forecast.optimiser import Optimiser
from coopt.online.accounting import Account
from coopt.online.keeps_account import KeepsAccount
from coopt.online.measure_request import MeasureRequest, request
from coopt.online.measured import check_fits, cost_of
from coopt.online.membership import Membership
from coopt.online.own_steps import holding_up
from coopt.online.roster import Call
from coopt.online.worth_waiting import worth_waiting
from coopt.policies.situation import Choice, ExpectingPolicy, MeasuringPolicy, Policy, Situation
from coopt.problem import validation
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.problem.validation import real
from coopt.streaming import SamplerAdvice

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# One of so many rounds is a small one at the start, where rounds are limited.
FEW_OF = 5
# How often the fleet is measured at most.
MOST_MEASUREMENTS = 3
# Directions at most where devices are drawn for each round: the forecast then follows squares of so many.
MOST_DRAWN = 16


class Outlook(Membership, KeepsAccount):
    """The part of :class:`coopt.Controller` that knows, and has measured; the controller sets all of it."""

    policy: Policy
    lowest_loss: float
    curvature_floor: float | None
    caution: float
    warm_up_rounds: int
    probe_every: int

    @property
    def _account(self) -> Account:
        return self._state.account

    @property
    def learning_rate(self) -> float:
        """Eta of the rounds to come; may be set between rounds, and is part of the state [1 / curvature].

        A round that is planned already keeps the rate that it was planned with.
        """
        return self._state.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._state.learning_rate = validation.real("learning_rate", value, minimum=0.0, strict=True)

    @property
    def samples(self) -> Floats:
        """Samples by which each device's model counts in the average, shape (N,)."""
        return self._state.knowledge.samples

    @property
    def estimates(self) -> Estimates:
        """What is known from the reports so far."""
        return self._state.knowledge.estimates

    @property
    def gradient_error(self) -> float:
        """Error that bounded buffers add to the gradient, as `observe` was told last."""
        return self._state.gradient_error

    @gradient_error.setter
    def gradient_error(self, value: float) -> None:
        self._state.gradient_error = validation.real("gradient_error", value, minimum=0.0)

    @property
    def measurement(self) -> Measurement | None:
        """The last measurement that was taken in, if any."""
        return self._state.measured.measurement

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def wants(self, *, gradients_a_product: int = 1) -> MeasureRequest | None:
        """What to measure before the next round, asked before `plan` by a server that can measure.

        A server that cannot never asks, and the controller plans by the reports alone.

        Parameters
        ----------
        gradients_a_product : int, default 1
            Gradients that a product with the curvature takes: one by differences of gradients, two where it
            is computed forward over reverse.

        Returns
        -------
        MeasureRequest or None
            None for nothing: in most rounds.
        """
        often = validation.count("gradients_a_product", gradients_a_product)
        policy, known = self.policy, self._state.measured
        if not isinstance(policy, MeasuringPolicy) or known.attempts >= MOST_MEASUREMENTS:
            return None
        if self.availability is not None:
            # What is measured of those that are there says little of those that come.
            return None
        known.asked = True
        done = self.budget.max_rounds is not None and self.round >= self.budget.max_rounds
        call = self._state.roster.call(self.round, self.spent_seconds)
        if done or call is None or self._warming_up(self._before_measuring) or self.time_left <= 0.0:
            return None
        most = 1.0
        if known.forecast is not None:
            progress = None if self._state.previous is None else self._state.previous.progress
            if progress is None or progress.refill_in:
                return None
            most = policy.departed(self._worthwhile(call)[1])
        return request(
            self._state.knowledge.measured(),
            call.active,
            left=self._left(call, (call.likely > 0.0).astype(np.float64)),
            total=self.budget,
            gradients_a_product=often,
            seed=self.round,
            most_share=most,
            most_directions=MOST_DRAWN if self.budget.participants is not None else None,
        )

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def measured(
        self,
        measurement: Measurement | None,
        *,
        seconds: float,
        cost: float | None = None,
        optimiser: Optimiser | None = None,
    ) -> None:
        """Take in a measurement that was wanted, and charge what it took.

        The next `plan` is by it. None says that no device answered, which is charged as well.

        Parameters
        ----------
        measurement : Measurement or None
            At the present model.
        seconds : float
            What all exchanges took together [s].
        cost : float, optional
            In the unit of the budget; default: the samples that were processed, and the cost of a round for
            each exchange.
        optimiser : Optimiser, optional
            What devices and server train with, which the next plans are for; default: plain federated
            averaging, with Adam on the devices where the measurement was taken for it.

        Raises
        ------
        InvalidProblemError
            If it is of another fleet, says nothing of the optimiser, or `seconds` or `cost` is no number of
            at least 0. Nothing is charged then.
        """
        seconds = validation.real("seconds", seconds, minimum=0.0)
        check_fits(measurement, len(self.fleet))
        if cost is None:
            price = self.budget.round_cost + float(self.fleet.round_cost.sum())
            costs = self._state.knowledge.sample_cost(), self.fleet.step_cost
            cost = cost_of(measurement, *costs, price)
        cost = validation.real("cost", cost, minimum=0.0)
        if optimiser is not None:
            validation.instance("optimiser", optimiser, Optimiser)
        loss = self.estimates.loss.now
        loss = loss._replace(value=loss.value - self.lowest_loss)
        before = self._state.previous
        steps = 1 if before is None else before.local_steps
        self._state.measured.take(measurement, optimiser, at=self.round, steps=steps, loss=loss)
        self._account.charge(cost, seconds)
        self._state.plan = self._state.choice = None

    def recommend_sampler(
        self, *, capacity: int, arrivals: int, arrivals_per_round: float, gradient_diameter: float
    ) -> SamplerAdvice:
        """Recommend a buffer for devices that receive more than they can store.

        Parameters
        ----------
        capacity : int
            Items that the buffer holds.
        arrivals : int
            Items that have arrived so far.
        arrivals_per_round : float
            Items that arrive per round.
        gradient_diameter : float
            Diameter of the per-sample gradients; 0 for a stream without order.

        Returns
        -------
        SamplerAdvice
            By the rule of `coopt.streaming.recommend_sampler`, with the measured noise and contraction.
        """
        constants = self._constants()
        steps = 1 if self._state.previous is None else self._state.previous.local_steps
        return self._state.knowledge.recommend_sampler(
            capacity=capacity,
            arrivals=arrivals,
            arrivals_per_step=real("arrivals_per_round", arrivals_per_round, minimum=0.0) / steps,
            gradient_diameter=gradient_diameter,
            contraction=constants.learning_rate * float(constants.pl_constant or 0.0),
        )

    def _constants(self) -> Constants:
        return calibrate(
            self.estimates,
            learning_rate=self.learning_rate,
            lowest_loss=self.lowest_loss,
            curvature_floor=self.curvature_floor,
            caution=self.caution,
            forecast=self._state.forecast,
        )

    def _worthwhile(self, call: Call) -> tuple[Call, Situation]:
        """The call without devices that are not worth waiting for, and what is known of the others."""
        policy, everybody = self.policy, self._situation(call)
        if not isinstance(policy, ExpectingPolicy) or self._warming_up(self._warm_up_rounds):
            return call, everybody

        def only(kept: Mask) -> Situation:
            return self._situation(replace(call, active=call.active[kept]))

        kept, situation = worth_waiting(everybody, only, policy)
        return call if kept.all() else replace(call, active=call.active[kept]), situation

    def _situation(self, call: Call, slow: Mask | None = None) -> Situation:
        """Describe the devices that can be reckoned with, all that is known of them, and what is left.

        Those that are `slow` take fewer steps than is planned; default: as in the round before.
        """
        known, active, measured = self._state.knowledge, call.active, self._state.measured
        warm = self._warm_up_rounds
        # The plan for the devices that were there says nothing of the one for those that come.
        previous = self._state.previous if call.begin <= self.spent_seconds else None
        # What the extra evaluations of later rounds will cost: half a batch, every so many rounds.
        extra, gradients = 1.0, float(known.halves)
        if self._probing:
            steps = 1 if previous is None else max(previous.rest_local_steps, 1)
            extra += 0.5 / (steps * self.probe_every)
            gradients += 2.0 / self.probe_every
        describe = partial(
            known.describe,
            active,
            slow=self._slow(call) if slow is None else slow,
            least=self._least_batch,
            samples=extra,
            gradients=gradients,
        )
        left = self._left(call, call.likely)
        problem = Problem(describe(call.likely), self._constants(), left)
        drawn = None
        if measured.forecast is not None and self.budget.participants is not None:
            drawn = replace(
                problem, fleet=describe(np.ones(len(self.fleet))), budget=self._drawn(left, len(active))
            )
        if previous is not None:
            progress = None if previous.progress is None else previous.progress.of(active)
            previous = replace(previous, batch_sizes=previous.batch_sizes[active], progress=progress)
        loss, gradient, delay = self.estimates.loss.now, self.estimates.gradient.now, self._state.delay
        return Situation(
            round=self.round,
            problem=problem,
            total=self.budget,
            loss=loss.value - self.lowest_loss,
            squared_gradient=gradient.value,
            published=known.published,
            gradient_error=self.gradient_error,
            participation_noise=float(self.estimates.participation.mean),
            previous=previous if not self._warming_up(warm) and self.round > warm else None,
            untimed=known.untimed()[active] if self.budget.time < math.inf else None,
            devices=active,
            loss_error=loss.standard_error,
            spread=known.spread(),
            delay=Estimate(float(delay.mean), float(delay.standard_error)),
            forecast=measured.forecast,
            measured_at=measured.at,
            measured_steps=measured.steps,
            measured_loss=measured.loss,
            drawn=drawn,
        )

    def _left(self, call: Call, likely: Floats) -> Budget:
        """What is left, with what a round costs on the devices in the price of a round.

        All take part at the costs that are expected of them.
        """
        left = call.left(self._state.account.left(self.budget), self.spent_cost, self.spent_seconds)
        price = left.round_cost + float(likely @ self.fleet.round_cost)
        return replace(left, round_cost=price, participants=None, distinct_participants=False)

    @property
    def _trusted_batch(self) -> int:
        """The smallest batch that the measurement is to be trusted with."""
        measurement = self._state.measured.measurement
        return 1 if measurement is None else measurement.smallest_batch

    @property
    def _trusted_fleet(self) -> Fleet:
        """The fleet as measured: rather no last round than one whose batches are not to be trusted."""
        measured, least = self._state.knowledge.measured(), self._trusted_batch
        if least == 1:
            return measured
        return replace(measured, min_batch=np.clip(least, measured.min_batch, measured.max_batch))

    @property
    def _least_batch(self) -> int:
        if self._state.measured.measurement is not None:
            return self._trusted_batch
        # One sample has no halves: nothing could be measured any more.
        return 2 if self.policy.needs_estimates else 1

    def _drawn(self, left: Budget, devices: int) -> Budget:
        """What is left where devices are drawn among so many; all that a round costs is in its price."""
        many, distinct = self.budget.participants or devices, self.budget.distinct_participants
        many = min(many, devices) if distinct else many
        return replace(left, participants=many, distinct_participants=distinct)

    def _slow(self, call: Call, planned: Choice | None = None) -> Mask:
        """Devices that take fewer local steps, so that they do not hold up the others.

        Judged by what is planned for all devices, or else by the round before. A policy plans the same steps
        for all, and sees devices that take the time of one.
        """
        judged, known = planned or self._state.previous, self._state.knowledge.measured()
        if judged is None or math.isinf(self.budget.time) or not self.policy.needs_estimates:
            return np.zeros(len(known), dtype=bool)
        return holding_up(known, call.active, judged.local_steps, judged.batch_sizes)

    @property
    def _before_measuring(self) -> int:
        """Small rounds at the start before a measurement: fewer where rounds are what there is little of."""
        if self.budget.max_rounds is None:
            return self.warm_up_rounds
        return min(self.warm_up_rounds, max(self.budget.max_rounds // FEW_OF, 1))

    @property
    def _warm_up_rounds(self) -> int:
        """Small rounds at the start: estimates from reports alone need more of them than a measurement."""
        return self.warm_up_rounds if self._state.measured.forecast is None else self._before_measuring

    def _warming_up(self, rounds: int) -> bool:
        """Whether to learn before planning; not for ever, if clients never report what is needed."""
        if not self.policy.needs_estimates or self.round >= 3 * rounds:
            return False
        known = self.estimates
        return self.round < rounds or not (known.loss.known and known.fleet_noise.known)

    @property
    def _probing(self) -> bool:
        """Whether clients evaluate extra gradients from time to time: not where the fleet was measured."""
        return bool(
            self.probe_every and self.policy.measures_curvature and self._state.measured.forecast is None
        )
