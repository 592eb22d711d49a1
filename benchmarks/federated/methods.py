"""The methods that are compared: a policy from its name and its one setting.

A setting of the published controllers is the samples that a device processes in a round: with the cost budget
it fixes the number of rounds in advance, as they need. 120 is what their experiments use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.federated.federation import REFERENCE_SAMPLES, Federation
from coopt import BoundWarning, solve_allocation
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
from coopt.problem import limits

Setting = tuple[float, ...]

OURS, ALIKE = "coopt", "coopt, same batch everywhere"
SCHEDULE, FREE = "coopt, schedule", "coopt, schedule, free rates"
ONCE = ("certified", "nonconvex")


@dataclass(frozen=True)
class Method:
    """How to make a policy, its default setting and the settings to choose from.

    `told_convex`: whether its controller is told so where the loss is.
    """

    make: Callable[[Federation, Setting], Policy]
    default: Setting = ()
    grid: tuple[Setting, ...] = ()
    told_convex: bool = False


@dataclass(frozen=True)
class SameBatch:
    """Horizon planning, but one batch size for all devices, in no more time and for no more cost."""

    name: str = "same batch"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def choose(self, situation: Situation) -> Choice:
        """Take the planned round's duration, and the largest common batch up to its mean that fits it."""
        planned, fleet = Horizon().choose(situation), situation.problem.fleet
        tau, sizes = planned.local_steps, planned.batch_sizes
        seconds = float(limits.device_times(situation.problem, 1, tau, sizes).max())
        spare = (seconds - fleet.round_time) / tau - fleet.step_time
        common = min(float(np.mean(sizes)), float(np.min(spare * fleet.throughput)))
        return replace(planned, batch_sizes=fleet.rounded_down(np.full(len(fleet), common)))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        """What horizon planning expects after such a round."""
        return Horizon().gap_after(situation, local_steps, batch_sizes)


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


def preset_rounds(federation: Federation, samples: float) -> int:
    """K, so that the cost budget gives each device so many samples a round."""
    budget, devices = federation.budget, len(federation.fleet)
    return max(1, round(budget.cost / (samples * devices + budget.round_cost)))


def _published(make: Callable[[int], Policy]) -> Method:
    grid = tuple((float(samples),) for samples in (30, 60, 120, 240, 480))
    return Method(
        lambda federation, setting: make(preset_rounds(federation, setting[0])),
        (float(REFERENCE_SAMPLES),),
        grid,
        told_convex=True,
    )


def _fed_avg(federation: Federation, setting: Setting) -> Policy:
    steps, batch = int(setting[0]), int(setting[1])
    epoch = max(1, round(float(federation.fleet.samples.mean()) / batch))
    return FedAvg(steps or epoch, batch)


METHODS: dict[str, Method] = {
    OURS: Method(lambda _federation, _setting: Horizon()),
    SCHEDULE: Method(lambda _federation, _setting: Scheduled()),
    FREE: Method(lambda _federation, _setting: Scheduled(rates="free")),
    ALIKE: Method(lambda _federation, _setting: SameBatch()),
    "planned once, certified": Method(lambda _federation, _setting: PlanOnce("certified")),
    "planned once, nonconvex": Method(lambda _federation, _setting: PlanOnce("nonconvex")),
    "DYNAMITE": _published(Marginal),
    "uniform": _published(lambda rounds: Marginal(rounds, "uniform")),
    "no straggler": _published(lambda rounds: Marginal(rounds, "speed")),
    "proportional to samples": _published(lambda rounds: Marginal(rounds, "data")),
    "AdaCoOpt": _published(AdaCoOpt),
    "Dynamic-tau": Method(
        lambda _federation, setting: DynamicTau(int(setting[0]), setting[1]),
        (32.0, 0.025),
        ((8.0, 0.025), (16.0, 0.025), (32.0, 0.025), (8.0, 0.0025), (16.0, 0.0025)),
    ),
    "FedAvg": Method(  # zero steps: one epoch
        _fed_avg,
        (0.0, 32.0),
        ((1.0, 32.0), (5.0, 8.0), (5.0, 32.0), (10.0, 8.0), (20.0, 8.0), (20.0, 32.0)),
    ),
}
