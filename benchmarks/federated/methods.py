"""The methods that are compared: a policy from its name and its setting.

A setting of the published controllers is the samples that a device processes in a round: with the cost budget
it fixes the number of rounds in advance, as they need. 120 is what their experiments use. A setting may have
one number more than the method's default: by what to multiply the learning rate that all methods share.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.federated.federation import REFERENCE_SAMPLES, Federation
from coopt import BoundWarning, Optimiser, ServerSGD, solve_allocation
from coopt.policies import (
    AdaCoOpt,
    Choice,
    DynamicTau,
    FedAvg,
    Horizon,
    Marginal,
    Policy,
    Scheduled,
    Situation,
)
from coopt.policies.situation import clip_batches, rounds_left
from coopt.problem import limits

Setting = tuple[float, ...]

OURS, ALIKE = "coopt", "coopt, same batch everywhere"
SCHEDULE, FREE = "coopt, schedule", "coopt, schedule, free rates"
SCHEDULE_ALIKE = f"{SCHEDULE}, same batch everywhere"
CAPPED = "fixed plan, capped"
ONCE = ("certified", "nonconvex")


@dataclass(frozen=True)
class Method:
    """How to make a policy, its default setting and the settings to choose from.

    `rates`: multiples of the learning rate to try where the rate is tuned as well. `told_convex`: whether its
    controller is told so where the loss is. `ours`: whether coopt plans. `optimiser`: what the server makes
    of the average, by the setting.
    """

    make: Callable[[Federation, Setting], Policy]
    default: Setting = ()
    grid: tuple[Setting, ...] = ()
    rates: tuple[float, ...] = ()
    told_convex: bool = False
    ours: bool = False
    optimiser: Callable[[Setting], Optimiser] = lambda _setting: Optimiser()

    def rate(self, setting: Setting) -> float:
        """By what the common learning rate is multiplied."""
        return setting[len(self.default)] if len(setting) > len(self.default) else 1.0


@dataclass(frozen=True)
class SameBatch:
    """What a rule plans, but one batch size for all devices, in no more time and for no more cost."""

    rule: Horizon | Scheduled
    name: str = "same batch"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Take the planned round's duration, and the largest common batch up to its mean that fits it."""
        planned, fleet = self.rule.choose(situation), situation.problem.fleet
        tau, sizes = planned.local_steps, planned.batch_sizes
        seconds = float(limits.device_times(situation.problem, 1, tau, sizes).max())
        spare = (seconds - fleet.round_time) / tau - fleet.step_time
        common = min(float(np.mean(sizes)), float(np.min(spare * fleet.throughput)))
        return replace(planned, batch_sizes=fleet.rounded_down(np.full(len(fleet), common)))

    def departed(self, situation: Situation) -> float:
        """What the rule would have the fleet measured again for."""
        return self.rule.departed(situation) if isinstance(self.rule, Scheduled) else 0.0

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        """What the rule expects after such a round."""
        return self.rule.gap_after(situation, local_steps, batch_sizes)


@dataclass(frozen=True)
class PlanOnce:
    """The exact solver's plan for what is left after the measuring rounds, kept to the end."""

    bound: str
    name: str = "plan once"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Solve once, with the constants measured by then."""
        if situation.previous is not None:
            return situation.previous
        problem = situation.problem
        if self.bound == "nonconvex":  # a loss is not negative: no minimum needs to be known
            constants = replace(problem.constants, initial_gap=max(situation.loss, 1e-9))
            problem = replace(problem, constants=constants)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundWarning)
            plan = solve_allocation(problem, bound=self.bound, gap_tolerance=0.01, time_limit=20)
        return Choice(plan.local_steps, plan.batch_sizes, plan.rounds, plan.error_bound, plan.local_steps)

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        """What horizon planning expects after such a round."""
        return Horizon().gap_after(situation, local_steps, batch_sizes)


@dataclass(frozen=True)
class FixedBatches:
    """The same local steps in every round, and for each device a batch of its own."""

    local_steps: int
    batch_sizes: tuple[int, ...]
    name: str = "fixed batches"
    needs_estimates: bool = False
    measures_curvature: bool = False

    def choose(self, situation: Situation) -> Choice:
        """Choose what was fixed."""
        sizes, problem = np.array(self.batch_sizes), situation.problem
        batches = clip_batches(problem, sizes if situation.devices is None else sizes[situation.devices])
        return Choice(self.local_steps, batches, rounds_left(problem, self.local_steps, batches))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        """Nothing is expected."""
        return float("nan")


# How much longer rounds last than their slowest device needs on average: each time, the one that jitter
# delays most.
DELAY = 1.1


def _capped(federation: Federation, setting: Setting) -> Policy:
    """Fixed tau and batches by the true speeds: nobody is waited for beyond a round's share of the time.

    The second number is the batch that the cost budget would give all devices alike, which fixes the rounds.
    What slow devices cannot use of it goes to the others, up to the whole cost.
    """
    tau, batch = int(setting[0]), setting[1]
    budget, clock, devices = federation.budget, federation.system, len(federation.fleet)
    rounds = budget.cost / (devices * tau * batch + budget.round_cost)
    shortest = float(np.max(clock.round_time + tau * (clock.step_time + 1 / clock.throughput)))
    seconds = max(budget.time / rounds / DELAY, shortest)
    rounds = budget.time / seconds / DELAY
    caps = clock.throughput * ((seconds - clock.round_time) / tau - clock.step_time)
    caps = np.clip(np.floor(caps + 1e-9), 1, federation.fleet.samples)
    levels = np.sort(caps)
    used = np.minimum(caps, levels[:, None]).sum(axis=1)
    level = np.interp((budget.cost / rounds - budget.round_cost) / tau, [0.0, *used], [0.0, *levels])
    return FixedBatches(tau, tuple(int(size) for size in np.maximum(np.minimum(caps, level), 1)))


def preset_rounds(federation: Federation, samples: float) -> int:
    """K, so that the cost budget gives each device so many samples a round."""
    budget, devices = federation.budget, len(federation.fleet)
    return max(1, round(budget.cost / (samples * devices + budget.round_cost)))


# Multiples of the common learning rate; for linear models that is half of 1 over the largest curvature, and
# rates beyond four times it diverge on quadratic losses.
RATES = (2.0, 3.5)


def _published(make: Callable[[int], Policy]) -> Method:
    grid = tuple((float(samples),) for samples in (15, 30, 60))
    return Method(
        lambda federation, setting: make(preset_rounds(federation, setting[0])),
        (float(REFERENCE_SAMPLES),),
        grid,
        RATES,
        told_convex=True,
    )


def _fed_avg(federation: Federation, setting: Setting) -> Policy:
    steps, batch = int(setting[0]), int(setting[1])
    epoch = max(1, round(float(federation.fleet.samples.mean()) / batch))
    return FedAvg(steps or epoch, batch)


METHODS: dict[str, Method] = {
    OURS: Method(lambda _federation, _setting: Horizon(), ours=True),
    SCHEDULE: Method(lambda _federation, _setting: Scheduled(), ours=True),
    FREE: Method(lambda _federation, _setting: Scheduled(rates="free"), ours=True),
    ALIKE: Method(lambda _federation, _setting: SameBatch(Horizon()), ours=True),
    SCHEDULE_ALIKE: Method(lambda _federation, _setting: SameBatch(Scheduled()), ours=True),
    "planned once, certified": Method(lambda _federation, _setting: PlanOnce("certified"), ours=True),
    "planned once, nonconvex": Method(lambda _federation, _setting: PlanOnce("nonconvex"), ours=True),
    "DYNAMITE": _published(Marginal),
    "uniform": _published(lambda rounds: Marginal(rounds, "uniform")),
    "no straggler": _published(lambda rounds: Marginal(rounds, "speed")),
    "proportional to samples": _published(lambda rounds: Marginal(rounds, "data")),
    "AdaCoOpt": _published(AdaCoOpt),
    "Dynamic-tau": Method(
        lambda _federation, setting: DynamicTau(int(setting[0]), setting[1]),
        (32.0, 0.025),
        ((8.0, 0.025), (8.0, 0.0025)),
    ),
    "FedAvg": Method(  # zero steps: one epoch
        _fed_avg,
        (0.0, 32.0),
        ((1.0, 8.0), (5.0, 8.0), (10.0, 8.0), (20.0, 8.0), (20.0, 32.0)),
        RATES,
    ),
    "FedAvgM": Method(  # steps, batch, momentum and rate of the server
        _fed_avg,
        (0.0, 32.0, 0.9, 1.0),
        tuple(
            (steps, batch, momentum, rate)
            for steps, batch in ((5.0, 8.0), (10.0, 8.0))
            for momentum, rate in ((0.9, 0.3), (0.5, 1.0))
        ),
        RATES,
        optimiser=lambda setting: Optimiser(server=ServerSGD(setting[3], setting[2])),
    ),
    CAPPED: Method(
        _capped,
        (5.0, 8.0),
        tuple(
            (float(steps), float(batch))
            for steps in (1, 2, 4, 8, 16)
            for batch in (2, 4, 8, 16, 32)
            if 4 <= steps * batch <= 64
        ),
        RATES,
    ),
}
