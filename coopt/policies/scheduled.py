"""Plan what is left in phases, by a measurement of the whole fleet, and fill the batches again on the way.

A forecast orders plans well and promises too much, so the plan is made once for a measurement and kept:
rounds, local steps and rates of its phases stay, while batches follow what is left of the limits. The last
phase grows or shrinks, so that training ends with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from coopt.errors import InfeasibleError, InvalidProblemError
from coopt.objectives.forecast.phases import Phases
from coopt.plans.phase import Phase
from coopt.plans.schedule import Schedule
from coopt.policies.cooldown import cooled
from coopt.policies.expected_delay import Draws, expected_delay
from coopt.policies.horizon import Horizon
from coopt.policies.schedule_progress import ScheduleProgress, replaced
from coopt.policies.situation import Choice, ExpectingPolicy, Ints, Policy, Situation
from coopt.problem import limits
from coopt.questions.schedule import solve_schedule
from coopt.solvers.schedule.batches import Batches

if TYPE_CHECKING:
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.problem.problem import Problem

# Batches are chosen anew each time that this share of what was left of a phase is done.
REFILL = 0.25
# The delays of rounds that were run count like this many when the expected delay is held against them.
BELIEF = 10.0
# A plan has failed where the loss fell by less than this share of what was forecast, and by so many standard
# errors: the ratio by which trust-region methods reject a model.
LEAST_RATIO, ERRORS = 0.1, 3.0
# Where training goes better than was thought possible, measuring again may take so much of each limit.
LITTLE = 0.05
# Batches are chosen anew at once where the rounds ahead would take so many times what is left.
TOO_LONG = 1.5
# Of a round like the last ones so much has to fit for one more after the plan.
ENOUGH = 0.6
# Where a loss is not convex rounds grow by this from one measurement to the next.
STEP_GROWTH = 4
# Measuring again takes about a tenth of the limits: longer rounds have to promise so much less error.
PAYS = 0.1
# Rounds of a plan, as long as it has so many steps.
LEAST_ROUNDS = 10
# How much longer rounds are taken to be until there is a plan whose delay can be reckoned.
USUAL_DELAY = 1.1


@dataclass(frozen=True)
class Scheduled:
    """Plan in phases by the forecast that was measured last; without a measurement, by another rule.

    Parameters
    ----------
    phases : int, default 2
        At most so many, each with its own rounds, local steps and batches.
    rates : {"given", "free"}, default "given"
        Whether every round has the controller's learning rate, or each phase one of its own. A free rate
        rests on the curvature at the model that was measured. Where the loss is not convex it never exceeds
        the controller's, and falls to zero over the last fifth of the rounds.
    without : Policy, default Horizon()
        The rule until there is a measurement, and where a plan cannot be made from it.

    References
    ----------
    Zhang et al., "Which Algorithmic Choices Matter at Which Batch Sizes? Insights From a Noisy Quadratic
    Model", NeurIPS 2019, arXiv:1907.04164; on when to trust a model, Conn, Gould and Toint, "Trust-Region
    Methods", SIAM 2000, chapter 6.
    """

    phases: int = 2
    rates: Literal["given", "free"] = "given"
    without: Policy = field(default_factory=Horizon)
    name: str = "schedule"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Go on with the plan, fill its batches again, or plan anew; all but the latter are quick."""
        forecast = _forecast(situation)
        if forecast is None:
            return self._otherwise(situation)
        previous, known = situation.previous, _with_draws(situation)
        progress = None if previous is None else previous.progress
        if previous is None or progress is None or not self._holds(progress, situation):
            planned = self._plan(known, forecast)
            if planned is None:
                return self._otherwise(situation)
            return _choice(known, forecast, planned)
        if progress.refill_in == 0 or _outlasts(known, progress):
            refilled = self._refilled(known, forecast, progress)
            return _over(progress) if refilled is None else _choice(known, forecast, refilled)
        return _next(progress, previous.predicted_error, previous.gap)

    def departed(self, situation: Situation) -> float:
        """Share of each limit that measuring again may take; 0 while training is as was forecast.

        All of it where the loss fell by so much less than was forecast that noise does not explain it, or
        rounds longer than the measurement is trusted for would pay; a little where it fell by more than the
        measured model can, so that the forecast sees nothing left to gain. Asked when batches are to be
        filled again; one batch or one round decides nothing, since the loss is an average with a standard
        error.
        """
        forecast, previous = _forecast(situation), situation.previous
        progress = None if previous is None else previous.progress
        if forecast is None or progress is None or progress.refill_in or not progress.behind:
            return 0.0
        if progress.longer_pays:
            return 1.0
        # Devices tell the loss of the model that they are sent: what the last round did is not known yet.
        last = progress.behind[-1]
        known = progress.behind[:-1]
        if last.rounds > 1:
            known = (*known, replaced(last, rounds=last.rounds - 1))
        if not known:
            return 0.0
        expected = forecast.initial_gap - _gap(_with_draws(situation), forecast, known)
        before, error = situation.measured_loss, situation.loss_error
        if not math.isfinite(before.standard_error + error + situation.loss):
            return 0.0
        fallen, noise = before.value - situation.loss, ERRORS * math.hypot(before.standard_error, error)
        if fallen + noise < LEAST_RATIO * expected:
            return 1.0
        return LITTLE if fallen - noise > forecast.initial_gap else 0.0

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """What the other rule expects, where it chooses; a forecast predicts no calibrated gap."""
        if situation.forecast is not None:
            return math.nan
        return self.without.gap_after(situation, local_steps, batch_sizes)

    def expects(self, situation: Situation, enough: float = -math.inf) -> float:
        """What the other rule expects, if it expects anything; else all devices are worth the same."""
        return self.without.expects(situation, enough) if isinstance(self.without, ExpectingPolicy) else 0.0

    def expects_at_least(self, situation: Situation) -> float:
        """What the other rule cannot expect less than, if it expects anything."""
        return self.without.expects_at_least(situation) if isinstance(self.without, ExpectingPolicy) else 0.0

    def _otherwise(self, situation: Situation) -> Choice:
        return replace(self.without.choose(situation), policy=self.without.name)

    def _holds(self, progress: ScheduleProgress, situation: Situation) -> bool:
        """Whether the plan rests on the last measurement and on the rate that is wanted."""
        if progress.measured_at != situation.measured_at:
            return False
        rate = situation.problem.constants.learning_rate
        return self.rates == "free" or all(phase.learning_rate == rate for phase in progress.ahead)

    def _plan(self, situation: Situation, forecast: Forecast) -> ScheduleProgress | None:
        """A plan for all that is left; None where there is none at this rate, or none that fits."""
        problem, delay = situation.problem, USUAL_DELAY
        trusted = _trusted_steps(situation, forecast)
        within = problem if trusted is None else _with_steps(problem, trusted)
        # The delay depends on how many devices sit at their caps, which the plan decides.
        uncertain = situation.spread > 0.0 or situation.drawn is not None
        for _ in range(2 if problem.budget.time < math.inf and uncertain else 1):
            shorter = _shorter(within, delay)
            try:
                plan = self._schedule(shorter, forecast)
                if sum(phase.rounds for phase in plan.phases) < _least_rounds(problem):
                    # Nothing could be learned on the way of what so few rounds rest on.
                    plan = self._schedule(_in_more_rounds(shorter, plan.phases), forecast)
            except (InfeasibleError, InvalidProblemError):
                return None
            delay = _expected_delay(situation, plan.phases)
        longer_pays = False
        if any(phase.local_steps == trusted for phase in plan.phases):
            free = self._schedule(_with_steps(shorter, problem.budget.max_local_steps), forecast)
            longer_pays = free.predicted_error < (1.0 - PAYS) * plan.predicted_error
        fall = self.rates == "free" and not forecast.curvature_stays
        phases = cooled(plan.phases) if fall else plan.phases
        return ScheduleProgress(situation.measured_at, phases, (), _pause(phases[0]), delay, longer_pays)

    def _schedule(self, problem: Problem, forecast: Forecast) -> Schedule:
        rate: Literal["auto"] | None = "auto" if self.rates == "free" else None
        return solve_schedule(problem, forecast, phases=self.phases, learning_rate=rate)

    def _refilled(
        self, situation: Situation, forecast: Forecast, progress: ScheduleProgress
    ) -> ScheduleProgress | None:
        """The same rounds, steps and rates with batches for what is left; the last phase ends with it.

        None where the plan is done, and too little is left for another round like its last ones.
        """
        ahead = progress.ahead or (replaced(progress.behind[-1], rounds=1),)
        delay = _delay(situation, ahead)
        problem = _shorter(situation.problem, delay)
        if not progress.ahead and _further_rounds(problem, ahead[0]) < ENOUGH:
            return None
        phases, batches = ahead, Batches.trusted(problem, forecast, free=self.rates == "free")
        if not batches.stable(tuple(phase.setting for phase in phases)):
            # As where devices have left since the plan was made: it is kept all the same.
            batches = Batches(problem, forecast)
        while (filled := batches.whole(tuple(phase.setting for phase in phases))) is None:
            if sum(phase.rounds for phase in phases) == 1:
                # Not even one more round fits with the smallest batches: the controller stops.
                return replace(progress, ahead=phases, refill_in=0)
            phases = _fewer(phases)
        chosen = zip(phases, filled.batch_sizes, strict=True)
        phases = tuple(replaced(phase, batch_sizes=sizes) for phase, sizes in chosen)
        return replace(progress, ahead=phases, refill_in=_pause(phases[0]), delay=delay)


def _forecast(situation: Situation) -> Forecast | None:
    """The forecast for the devices that can be reckoned with."""
    forecast, devices = situation.forecast, situation.devices
    if forecast is None or devices is None or len(devices) == forecast.devices:
        return forecast
    return forecast.restricted(devices.tolist())


def _with_draws(situation: Situation) -> Situation:
    """The same with the problem that says how many devices are drawn, where they are."""
    return situation if situation.drawn is None else replace(situation, problem=situation.drawn)


def _choice(situation: Situation, forecast: Forecast, progress: ScheduleProgress) -> Choice:
    """The next round of a plan, with what is forecast of it now."""
    whole = (*progress.behind, *progress.ahead)
    now = forecast.initial_gap if not progress.behind else _gap(situation, forecast, progress.behind)
    return _next(progress, _gap(situation, forecast, whole), now)


def _next(progress: ScheduleProgress, predicted_error: float, gap: float | None) -> Choice:
    phase = progress.ahead[0]
    later = phase if phase.rounds > 1 or len(progress.ahead) == 1 else progress.ahead[1]
    return Choice(
        phase.local_steps,
        phase.batch_sizes,
        sum(each.rounds for each in progress.ahead),
        predicted_error,
        later.local_steps,
        learning_rate=phase.learning_rate,
        gap=gap,
        progress=progress,
    )


def _over(progress: ScheduleProgress) -> Choice:
    """No further round."""
    last = progress.behind[-1]
    return Choice(last.local_steps, last.batch_sizes, rounds=0, progress=progress)


def _gap(situation: Situation, forecast: Forecast, phases: Sequence[Phase]) -> float:
    """Forecast of F - F* after some phases."""
    batches = np.array([phase.batch_sizes for phase in phases], dtype=np.float64)
    return Phases(forecast, situation.problem).value([phase.setting for phase in phases], batches)


def _trusted_steps(situation: Situation, forecast: Forecast) -> int | None:
    """Local steps that a plan may take; None where the measurement says nothing against more.

    Where training begins a network is nearly flat, and flat losses call for long rounds. So its curvature is
    trusted for rounds a few times as long as the one before it was measured: a trust region, which grows with
    every measurement. Where rounds are limited, only long ones spend the rest.
    """
    trusted, budget = STEP_GROWTH * situation.measured_steps, situation.problem.budget
    if forecast.curvature_stays or budget.max_rounds is not None:
        return None
    return trusted if trusted < (budget.max_local_steps or math.inf) else None


def _with_steps(problem: Problem, most: int | None) -> Problem:
    """The problem with another limit on local steps."""
    return replace(problem, budget=replace(problem.budget, max_local_steps=most))


def _shorter(problem: Problem, delay: float) -> Problem:
    return replace(problem, budget=replace(problem.budget, time=problem.budget.time / delay))


def _least_rounds(problem: Problem) -> int:
    return min(LEAST_ROUNDS, problem.budget.max_rounds or LEAST_ROUNDS)


def _in_more_rounds(problem: Problem, phases: Sequence[Phase]) -> Problem:
    """The problem with local steps limited to what leaves the steps of a plan for enough rounds."""
    steps = sum(phase.rounds * phase.local_steps for phase in phases)
    most = max(steps // _least_rounds(problem), 1)
    return _with_steps(problem, most)


def _expected_delay(situation: Situation, phases: Sequence[Phase], spread: float | None = None) -> float:
    """Seconds that the rounds of a plan are expected to take, over those of the slowest of all devices."""
    varied = situation.spread if spread is None else spread
    draws = Draws.of(situation.problem)
    planned = delayed = 0.0
    for phase in phases:
        seconds = limits.device_times(situation.problem, 1, phase.local_steps, phase.batch_sizes)
        whole = phase.rounds * float(seconds.max())
        planned += whole
        delayed += whole * expected_delay(seconds, varied, draws)
    return delayed / planned if planned > 0.0 else 1.0


def _delay(situation: Situation, phases: Sequence[Phase]) -> float:
    """The expected delay, corrected by those of the rounds that were run."""
    expected = _expected_delay(situation, phases)
    met = situation.delay
    if not math.isfinite(met.value) or met.standard_error <= 0.0:
        return expected
    # What the slowest of those that are drawn takes on time, over the slowest of all.
    drawn = 1.0 if situation.drawn is None else _expected_delay(situation, phases, 0.0)
    # As many rounds as would have this standard error, were each as uncertain as the expectation.
    seen = min((situation.spread / met.standard_error) ** 2, BELIEF)
    return drawn * max((BELIEF * expected / drawn + seen * met.value) / (BELIEF + seen), 1.0)


def _outlasts(situation: Situation, progress: ScheduleProgress) -> bool:
    """Whether the rounds ahead no longer fit, as where a device turns out to be far slower than was known."""
    problem, ahead = situation.problem, progress.ahead
    if problem.budget.time == math.inf:
        return False
    slowest = (
        phase.rounds * float(limits.device_times(problem, 1, phase.local_steps, phase.batch_sizes).max())
        for phase in ahead
    )
    return sum(slowest) * progress.delay > TOO_LONG * problem.budget.time


def _pause(phase: Phase) -> int:
    return max(math.ceil(REFILL * phase.rounds), 1)


def _further_rounds(problem: Problem, phase: Phase) -> float:
    """How many rounds like those of a phase fit in what is left."""
    seconds = float(limits.device_times(problem, 1, phase.local_steps, phase.batch_sizes).max())
    cost = limits.cost(problem, 1, phase.local_steps, phase.batch_sizes)
    room = ((problem.budget.time, seconds), (problem.budget.cost, cost))
    return min(limit / used if used > 0.0 else math.inf for limit, used in room)


def _fewer(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """A tenth of the rounds less, from the last phase as long as it has any to give."""
    kept = [replaced(p, rounds=max(min(p.rounds - 1, round(0.9 * p.rounds)), 1)) for p in phases]
    if phases[-1].rounds > 1:
        return (*phases[:-1], kept[-1])
    if len(phases) > 1 and all(p.rounds == 1 for p in phases):
        return phases[:-1]
    return tuple(kept)
