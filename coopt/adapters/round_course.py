"""How a round goes: who answers in time, who later, and how many steps each does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.online.accounting import gradients_planned, samples_of

if TYPE_CHECKING:
    from coopt.adapters.system import SystemModel
    from coopt.online.round_plan import RoundPlan

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RoundCourse:
    """What every client does in a round.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (N,)
        Local steps that each does of those that are planned.
    arrived : numpy.ndarray of bool, shape (N,)
        Who answers before the round is over.
    late : numpy.ndarray of bool, shape (N,)
        Who answers when it is over.
    absent : numpy.ndarray of bool, shape (N,)
        Who is known not to work.
    """

    steps: Ints
    arrived: Flags
    late: Flags
    absent: Flags

    @property
    def working(self) -> Ints:
        """Who trains, whether or not it is done in time: the positions."""
        return np.flatnonzero(self.arrived | self.late)

    @property
    def away(self) -> list[int]:
        """Who is known not to work, by number."""
        return np.flatnonzero(self.absent).tolist()


@dataclass(frozen=True, eq=False)
class TimedCourse(RoundCourse):
    """A round on a simulated clock; elsewhere what follows is measured.

    Attributes
    ----------
    seconds : float
        When the round is over [s].
    times : numpy.ndarray, shape (N, 2)
        Seconds of computing and of communicating.
    """

    seconds: float
    times: Floats

    @property
    def done(self) -> Floats:
        """When each is done, if it works, shape (N,) [s]."""
        total: Floats = self.times.sum(axis=1)
        return total

    @property
    def answered(self) -> Floats:
        """When each answered, infinite for who did not, shape (N,) [s]."""
        return np.where(self.arrived, self.done, np.inf)


def check_sizes(plan: RoundPlan, clients: int, system: SystemModel | None) -> None:
    """Raise InvalidProblemError where plan, data and simulated clock are not for as many clients."""
    if len(plan.batch_sizes) != clients:
        raise InvalidProblemError(
            f"the plan has batch sizes for {len(plan.batch_sizes)} clients, client_datasets has "
            f"{clients}: give one data set for each device of the fleet"
        )
    if system is not None and len(system) != clients:
        raise InvalidProblemError(
            f"system has {len(system)} devices, client_datasets {clients}: give as many"
        )


def everybody(plan: RoundPlan, ready: Flags) -> RoundCourse:
    """The course of a round in which all that have work, and are `ready` for it, answer."""
    absent = _without_work(plan, ready)
    return RoundCourse(plan.steps, ~absent, np.zeros_like(absent), absent)


def simulated(
    plan: RoundPlan,
    ready: Flags,
    system: SystemModel,
    *,
    probing: bool = True,
    micro_batch: Ints | None = None,
) -> TimedCourse:
    """Tell how a round goes on a simulated clock.

    Parameters
    ----------
    plan : RoundPlan
    ready : numpy.ndarray of bool, shape (N,)
        Who has samples, and no other work.
    system : SystemModel
    probing : bool
        Whether clients measure beside training.
    micro_batch : numpy.ndarray of int64, shape (N,), or None
        Most samples that each takes at once.
    """
    absent = _without_work(plan, ready)
    # Some may be cut short: what they take and give is by what they do.
    steps = system.round(plan.round, 0.0).steps(plan.steps)
    done = replace(plan, device_steps=steps)
    gradients = gradients_planned(
        steps, plan.batch_sizes, plan.extra_evaluation and probing, probing, micro_batch
    )
    clock = system.round(plan.round, samples_of(done), gradients)
    seconds, arrived = clock.under(plan, absent)
    times = np.stack([clock.computing, clock.communicating], axis=1)
    absent |= clock.absent
    return TimedCourse(steps, arrived, ~arrived & ~absent, absent, seconds, times)


def _without_work(plan: RoundPlan, ready: Flags) -> Flags:
    absent = ~ready
    absent[np.setdiff1d(np.arange(len(absent)), plan.participants)] = True
    return absent
