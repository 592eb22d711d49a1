"""Plan all that is left of the training, take the first round of that plan, and plan again.

The objective is the certified bound's formula with calibrated constants and a smaller answer to noise, see
`_Landscape._response`. For given batches its best z is known in closed form, so only gamma is tried over a
few values; the search over rounds and local steps starts from the last plan and moves by shrinking ratios.
For continuous batches the bound is unimodal in K and in tau along each axis in every case tried, so the
search ends at the optimum or next to it; how near is measured, not proved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt.objectives.drift import drift_sums
from coopt.policies.situation import Choice, Floats, Ints, Situation, clip_batches
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.roundoff import LOOSENED
from coopt.solvers.whole_units.batches import relax, round_batches

GAMMAS = (1.0, 0.3, 0.1, 0.03, 0.0)
FIRST_RATIO, LAST_RATIO = 2.0, 1.06
WARM_RATIO = 1.2
# Where only what is expected is asked for, not the plan: near its lowest value the error hardly changes.
ROUGH_RATIO = 1.3
# The first plan stakes at most a fifth of what is left on estimates that nothing has confirmed yet.
FIRST_ROUNDS = 5
# The next round is tried with these multiples of the plan's local steps and batches.
STEP_RATIOS = (0.5, 0.7, 1.0, 1.4, 2.0)
BATCH_SHARES = (0.25, 0.4, 0.6, 0.8, 1.0)
# Batches of the rest may fall a little below the smallest ones before a round is ruled out, and grow by this
# at most.
LEAST_SCALED, LARGEST_SCALE = 0.9, 4.0
# Every other round is larger, and the others smaller, by this while times do not tell steps from samples.
VARIED = math.sqrt(2.0)
TINY = 1e-100  # seconds: a device that takes no time leaves room for everything
LARGEST_STEPS = 100_000
# Noise that is reckoned with, over what stays on a quadratic: curvature changes along the way.
NOISE_EXCESS = 2.0


@dataclass(frozen=True)
class _Step:
    """What gamma and tau decide: contraction, and the terms of the error floor per unit of noise."""

    log_q: float
    noise: float
    diverging: float
    per_noise: float
    biased: float


@dataclass(frozen=True, eq=False)
class _Plan:
    value: float
    rounds: int
    local_steps: int
    batches: Floats
    multiplier: float
    gamma: float
    tilt: float  # weight of the noise that drives drift, relative to the noise of the average


class _Landscape:
    """The bound over (K, tau) with the best continuous batches at each point."""

    def __init__(
        self,
        problem: Problem,
        gradient_error: float,
        participation_noise: float,
        noise_excess: float = NOISE_EXCESS,
    ) -> None:
        fleet, constants = problem.fleet, problem.constants
        self.problem = problem
        self.lower, self.upper = problem.fleet.batch_range()
        self.mean_noise, self.drift_noise = fleet.noise_terms
        self.lasting_mean, self.lasting_drift = fleet.step_noise_terms.tolist()
        self.error = gradient_error
        self.participation = participation_noise
        self.divergence = math.sqrt(float(fleet.weights @ fleet.divergence**2)) + gradient_error
        self.eta = constants.learning_rate
        self.step = min(self.eta * constants.smoothness, 1.0)
        self.coupling = float(constants.coupling or 0.0)
        self.floor = float(constants.curvature_floor or 0.0)
        self.c = float(constants.pl_constant or 0.0)
        self.kept = noise_excess * self.eta / (2 * (2 - self.step))
        self.tilt = 0.0
        self._seen: dict[tuple[int, int], _Plan | None] = {}
        self._steps: dict[tuple[float, int], _Step] = {}
        self._most: dict[int, int] = {}

    def noise(self, inverse: Floats) -> tuple[float, float]:
        """Give sigma^2, the noise of the average, and nu^2, that which drives drift, at these 1/s_i."""
        mean, drifting = float(self.mean_noise @ inverse), float(self.drift_noise @ inverse)
        return mean + self.lasting_mean, drifting + self.lasting_drift

    def at(self, rounds: int, local_steps: int) -> _Plan | None:
        key = rounds, local_steps
        if key not in self._seen:
            self._seen[key] = self._solve(rounds, local_steps)
        return self._seen[key]

    def most_rounds(self, local_steps: int) -> int:
        if local_steps not in self._most:
            most = limits.most_rounds(self.problem, local_steps, self.lower)
            self._most[local_steps] = LARGEST_STEPS if most is None else min(most, LARGEST_STEPS)
        return self._most[local_steps]

    def _solve(self, rounds: int, local_steps: int) -> _Plan | None:
        problem, fleet = self.problem, self.problem.fleet
        upper = self.upper
        if math.isfinite(problem.budget.time):
            upper = limits.largest_batches(problem, rounds, local_steps, upper)
            if np.any(upper < self.lower):
                return None
        spend = limits.step_budget(problem, rounds, local_steps)
        if spend < limits.work(problem, self.lower):
            return None
        population = None if fleet.replacement else fleet.samples
        tilt = self.tilt if local_steps > 1 else 0.0
        weights = self.mean_noise + tilt * self.drift_noise
        found = relax(weights, fleet.sample_cost, spend, self.lower, upper, population)
        inverse = 1 / found.batch_sizes - (0 if population is None else 1 / population)
        mean, drifting = self.noise(inverse)
        value, gamma = self.value(rounds, local_steps, mean, drifting)
        return _Plan(
            value=value,
            rounds=rounds,
            local_steps=local_steps,
            batches=found.batch_sizes,
            multiplier=found.multiplier,
            gamma=gamma,
            tilt=self.tilt_at(gamma, rounds, local_steps, drifting),
        )

    def value(self, rounds: int, local_steps: int, mean: float, drifting: float) -> tuple[float, float]:
        """Give the bound at these noise levels, and the gamma that makes it smallest."""
        drifts = (local_steps > 1 and self.coupling > 0) or self.error > 0
        usable = [gamma for gamma in GAMMAS if gamma > 0 or not drifts]
        gap = self.problem.constants.initial_gap
        return min((self.after(gamma, gap, rounds, local_steps, mean, drifting), gamma) for gamma in usable)

    def least(self) -> float:
        """Give what the bound never falls below: the smaller of the gap and what biased gradients leave."""
        biased = min(self._step(gamma, 1).biased ** 2 for gamma in GAMMAS if gamma > 0)
        return min(self.problem.constants.initial_gap, biased) * (1.0 - LOOSENED)

    def after(
        self, gamma: float, gap: float, rounds: int, local_steps: int, mean: float, drifting: float
    ) -> float:
        """Give the bound with one gamma, from any gap."""
        at = self._step(gamma, local_steps)
        spread = math.sqrt(at.per_noise * drifting)
        # (a + b)^2 is what the best z gives; a buffer's error adds to the drift at every step.
        # Who takes part stays the same during a round, so that noise adds up over its steps.
        variance = mean + local_steps * self.participation
        left = math.exp(rounds * local_steps * at.log_q)
        drift = (at.diverging + spread + at.biased) ** 2
        return left * gap + (1 - left) * (self._response(at, left) * variance + drift)

    def _response(self, at: _Step, left: float) -> float:
        """Give what a unit of noise adds to the error floor.

        The certified floor assumes that noise enters along the steepest direction and is forgotten along the
        flattest. On a quadratic a direction keeps at most eta / (2 (2 - eta beta)) of its noise, however flat
        others are.
        """
        return min(at.noise, self.kept / (1 - left)) if left < 1 else at.noise

    def tilt_at(self, gamma: float, rounds: int, local_steps: int, drifting: float) -> float:
        """Weigh the noise that drives drift relative to the noise of the average, at the best z."""
        at = self._step(gamma, local_steps)
        spread = math.sqrt(at.per_noise * drifting)
        response = self._response(at, math.exp(rounds * local_steps * at.log_q))
        return at.per_noise * (1 + (at.diverging / spread if spread > 0 else 0.0)) / response

    def _step(self, gamma: float, local_steps: int) -> _Step:
        key = gamma, local_steps
        if key not in self._steps:
            rate = min(self.eta * self.c * (1 + (1 - self.step) * (1 - gamma)), 1 - 1e-15)
            log_q = math.log1p(-rate)
            young = self.eta / 2 * (self.step + (1 - self.step) / gamma) if gamma else 0.0
            diverging = per_noise = 0.0
            if local_steps > 1 and self.coupling > 0:
                factor = young * self.coupling**2 / -math.expm1(local_steps * log_q)
                log_r = math.log1p(-min(self.eta * self.floor, 1 - 1e-15))
                sums = drift_sums(log_q, log_r, local_steps, self.eta)
                diverging = self.divergence * math.sqrt(factor * sums.square)
                per_noise = factor * self.eta**2 * sums.variance
            self._steps[key] = _Step(
                log_q=log_q,
                noise=self.eta * self.step / (2 * rate),
                diverging=diverging,
                per_noise=per_noise,
                biased=self.error * math.sqrt(young / rate),
            )
        return self._steps[key]


def calibrated_gap(
    problem: Problem,
    local_steps: int,
    batch_sizes: npt.NDArray[np.int64],
    gradient_error: float,
    participation_noise: float,
    noise_excess: float = NOISE_EXCESS,
    rounds: int = 1,
) -> float:
    """Give the gap F - F* that the calibrated bound predicts after some rounds.

    Parameters
    ----------
    problem : Problem
        Devices and constants; `initial_gap` is the gap before the round.
    local_steps : int
        tau.
    batch_sizes : numpy.ndarray, shape (N,)
        s_i.
    gradient_error : float
        Error that bounded buffers add to the gradient.
    participation_noise : float
        Variance of the averaged gradient because devices miss rounds.
    noise_excess : float, default 2
        See `Horizon`.
    rounds : int, default 1
        How many rounds.
    """
    landscape = _Landscape(problem, gradient_error, participation_noise, noise_excess)
    inverse = 1 / batch_sizes - (0 if problem.fleet.replacement else 1 / problem.fleet.samples)
    mean, drifting = landscape.noise(inverse)
    return landscape.value(rounds, local_steps, mean, drifting)[0]


def _longest_round(problem: Problem, plan: _Plan) -> int:
    """Local steps that take at most a share of what is left, and no fewer than those of the plan."""
    fleet, budget = problem.fleet, problem.budget
    step = float(fleet.sample_cost @ plan.batches) + fleet.whole_step_cost
    seconds = float(np.max(limits.step_times(problem, plan.batches)))
    room = [
        left / FIRST_ROUNDS / used
        for left, used in ((budget.cost, step), (budget.time, seconds))
        if math.isfinite(left) and used > 0.0
    ]
    return max(plan.local_steps, int(min(room, default=LARGEST_STEPS)))


def _search(
    landscape: _Landscape,
    start: tuple[int, int],
    steps: tuple[int, int],
    ratio: float,
    least_rounds: int = 1,
    last: float = LAST_RATIO,
    enough: float = -math.inf,
) -> _Plan | None:
    """Descend from `start` over (K, tau) by ratios that shrink to `last`; tau stays in the range `steps`.

    The first plan with a value of at most `enough` ends the search.
    """
    rounds, tau = start
    tau = min(max(tau, steps[0]), steps[1])
    rounds = min(max(rounds, 1), max(landscape.most_rounds(tau), 1))
    best = landscape.at(rounds, tau)
    while ratio > last:
        moved = False
        k, t = (rounds, tau) if best is None else (best.rounds, best.local_steps)
        for next_k, next_t in (
            (_up(k, ratio), t),
            (_down(k, ratio), t),
            (k, _up(t, ratio)),
            (k, _down(t, ratio)),
            (_up(k, ratio), _down(t, ratio)),
            (_down(k, ratio), _up(t, ratio)),
        ):
            if best is not None and best.value <= enough:
                return best
            next_t = min(max(next_t, steps[0]), steps[1])
            next_k = min(max(next_k, least_rounds), landscape.most_rounds(next_t))
            if next_k < 1:
                continue
            plan = landscape.at(next_k, next_t)
            if plan is not None and (best is None or plan.value < best.value):
                best, moved = plan, True
        if not moved:
            ratio = math.sqrt(ratio)
    return best


def _first_round(landscape: _Landscape, plan: _Plan, steps: tuple[int, int]) -> tuple[int, float]:
    """Choose the next round's local steps, and its batches as a share of the plan's.

    What this round adds to the error shrinks with every step that follows, so an early round may be longer
    and noisier than the average one and leave more of the budget to the last ones.
    """
    problem, fleet = landscape.problem, landscape.problem.fleet
    gap, budget = problem.constants.initial_gap, problem.budget
    base = plan.batches
    work, step_cost = float(fleet.sample_cost @ base), fleet.whole_step_cost
    tau_now = min(max(plan.local_steps, steps[0]), steps[1])
    best = (plan.value, tau_now, 1.0)
    if plan.rounds < 2:
        return best[1:]
    mean, drifting = landscape.noise(1 / base)
    ratios = [tau_now * ratio for ratio in STEP_RATIOS] + [plan.local_steps * ratio for ratio in STEP_RATIOS]
    candidates = sorted({min(max(round(tau), steps[0]), steps[1]) for tau in ratios})
    for share in BATCH_SHARES:
        batches = np.clip(share * base, landscape.lower, landscape.upper)
        inverse = 1 / batches
        mean_now, drift_now = landscape.noise(inverse)
        cost_step = float(fleet.sample_cost @ batches) + step_cost
        seconds_step = limits.step_times(problem, batches)
        for tau in candidates:
            left = budget.cost - tau * cost_step - budget.round_cost
            time = budget.time - float(np.max(tau * seconds_step + fleet.round_time))
            after = landscape.after(plan.gamma, gap, 1, tau, mean_now, drift_now)
            for rounds in {plan.rounds - 1, max(1, plan.rounds - max(1, round(tau / plan.local_steps)))}:
                spend = (left / rounds - budget.round_cost) / plan.local_steps - step_cost
                scale = spend / work if work > 0 else 1.0
                if math.isfinite(time):
                    slack = (time / rounds - fleet.round_time) / plan.local_steps - fleet.step_time
                    if np.any(slack < 0):
                        continue
                    room = slack / (base / fleet.throughput + TINY)
                    scale = min(scale, float(np.min(room)))
                if scale <= 0 or np.any(scale * base < landscape.lower * LEAST_SCALED):
                    continue
                scale = min(scale, LARGEST_SCALE)
                end = landscape.after(
                    plan.gamma, after, rounds, plan.local_steps, mean / scale, drifting / scale
                )
                best = min(best, (end, tau, share))
    return best[1:]


def _up(value: int, ratio: float) -> int:
    return max(value + 1, round(value * ratio))


def _down(value: int, ratio: float) -> int:
    return max(1, min(value - 1, round(value / ratio)))


@dataclass(frozen=True)
class Horizon:
    """Minimise the calibrated bound over all that is left of the budget.

    Parameters
    ----------
    max_change : float, default 2
        Factor by which local steps may change from one round to the next, and by which the number of rounds
        left may fall, so that one odd estimate cannot spend everything at once.
    noise_excess : float, default 2
        Mini-batch noise in the final model that is reckoned with, over what a quadratic loss keeps of it.
        Infinity for the certified formula, which is safe for all losses and on most many times too large:
        plans then spend on large batches what would be better spent on more steps.
    """

    max_change: float = 2.0
    noise_excess: float = NOISE_EXCESS
    name: str = "horizon"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Plan the rest with equal rounds, then choose the round that is best if those follow."""
        problem, previous = situation.problem, situation.previous
        most = problem.budget.max_local_steps or LARGEST_STEPS
        landscape = self._landscape(situation)
        range_now = 1, most
        if previous is None:
            best = self._coarse(landscape, most)
            # It rests on the warm-up alone: an estimate that is far off must not spend the budget at once.
            range_now = 1, most if best is None else _longest_round(problem, best)
        else:
            rest, tau = max(previous.rounds - 1, 1), previous.rest_local_steps
            inverse = 1 / previous.batch_sizes
            mean, drifting = landscape.noise(inverse)
            _, gamma = landscape.value(rest, max(tau, 2), mean, drifting)
            landscape.tilt = landscape.tilt_at(gamma, rest, max(tau, 2), drifting)
            best = _search(
                landscape, (rest, tau), self._around(tau, most), WARM_RATIO, math.ceil(rest / self.max_change)
            )
            range_now = self._around(previous.local_steps, most)
        if best is None:
            lower, _ = problem.fleet.batch_range()
            return Choice(1, lower)
        tau, share = _first_round(landscape, best, range_now)
        batches = self._whole(landscape, best, tau, share)
        if situation.untimed is not None:
            larger = situation.round % 2 == 0
            varied = clip_batches(problem, batches * (VARIED if larger else 1.0 / VARIED))
            batches = np.where(situation.untimed, varied, batches)
        return Choice(tau, batches, best.rounds, best.value, best.local_steps)

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """The gap F - F* that the calibrated bound predicts after one such round."""
        return calibrated_gap(
            situation.problem,
            local_steps,
            batch_sizes,
            situation.gradient_error,
            situation.participation_noise,
            self.noise_excess,
        )

    def expects(self, situation: Situation, enough: float = -math.inf) -> float:
        """The gap F - F* that it expects at the end of a plan of equal rounds for all that is left."""
        problem, previous = situation.problem, situation.previous
        most = problem.budget.max_local_steps or LARGEST_STEPS
        landscape = self._landscape(situation)
        if previous is None:
            best = self._coarse(landscape, most)
        else:
            start = max(previous.rounds - 1, 1), previous.rest_local_steps
            best = _search(landscape, start, (1, most), FIRST_RATIO, last=ROUGH_RATIO, enough=enough)
        return math.inf if best is None else best.value

    def expects_at_least(self, situation: Situation) -> float:
        """What an error of the gradient leaves of the gap, without noise and after any number of steps."""
        return self._landscape(situation).least()

    def _landscape(self, situation: Situation) -> _Landscape:
        return _Landscape(
            situation.problem, situation.gradient_error, situation.participation_noise, self.noise_excess
        )

    def _around(self, steps: int, most: int) -> tuple[int, int]:
        """Give the local steps that may follow."""
        return max(1, math.ceil(steps / self.max_change)), min(
            most, max(steps + 1, int(steps * self.max_change))
        )

    @staticmethod
    def _coarse(landscape: _Landscape, most: int) -> _Plan | None:
        """Search from several starts, since nothing is known of where the optimum lies."""
        best: _Plan | None = None
        tau = 1
        while tau <= most and landscape.most_rounds(tau) >= 1:
            start = max(1, landscape.most_rounds(tau) // 4), tau
            plan = _search(landscape, start, (1, most), FIRST_RATIO, FIRST_ROUNDS)
            if plan is not None and (best is None or plan.value < best.value):
                best = plan
            tau *= 8
        return best

    @staticmethod
    def _whole(landscape: _Landscape, plan: _Plan, tau: int, share: float) -> npt.NDArray[np.int64]:
        """Round the batches of the next round, `share` times those of the plan."""
        problem, fleet = landscape.problem, landscape.problem.fleet
        costs = fleet.sample_cost * fleet.batch_multiple
        wanted = np.clip(share * plan.batches, landscape.lower, landscape.upper)
        spend = float(fleet.sample_cost @ wanted) * (1 + limits.TOLERANCE)
        units = None
        if costs[0] > 0 and np.all(costs == costs[0]):
            units = int(spend / costs[0])
        tilt = plan.tilt if plan.local_steps > 1 else 0.0
        upper = landscape.upper
        if math.isfinite(problem.budget.time):
            upper = limits.largest_batches(problem, 1, tau, upper)
            roomy = np.ceil(wanted / fleet.batch_multiple).astype(np.int64) * fleet.batch_multiple
            upper = np.maximum(np.minimum(upper, roomy), landscape.lower)
        best = round_batches(
            landscape.mean_noise + tilt * landscape.drift_noise,
            fleet.sample_cost,
            spend,
            landscape.lower,
            upper,
            plan.multiplier / max(share, 1e-9) ** 2,
            units,
            None if np.all(fleet.batch_multiple == 1) else fleet.batch_multiple,
            None if fleet.replacement else fleet.samples,
        )
        return fleet.rounded_down(best.batch_sizes)
