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
    seconds : float, optional
        When the round is over; None where that is measured [s].
    times : numpy.ndarray, shape (N, 2), optional
        Seconds of computing and of communicating; None where they are measured [s].
    """

    steps: Ints
    arrived: Flags
    late: Flags
    absent: Flags
    seconds: float | None = None
    times: Floats | None = None

    @property
    def answered(self) -> Floats | None:
        """When each answered, infinite for who did not; None where that is measured, shape (N,) [s]."""
        return None if self.times is None else np.where(self.arrived, self.times.sum(axis=1), np.inf)


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


def course_of(
    plan: RoundPlan, ready: Flags, system: SystemModel | None, *, probing: bool, micro_batch: Ints | None
) -> RoundCourse:
    """Tell how a round goes.

    Parameters
    ----------
    plan : RoundPlan
    ready : numpy.ndarray of bool, shape (N,)
        Who has samples, and no other work.
    system : SystemModel, or None
        The simulated clock; without one everybody answers.
    probing : bool
        Whether clients measure beside training.
    micro_batch : numpy.ndarray of int64, shape (N,), or None
        Most samples that each takes at once.
    """
    absent = ~ready
    absent[np.setdiff1d(np.arange(len(absent)), plan.participants)] = True
    if system is None:
        return RoundCourse(plan.steps, ~absent, np.zeros_like(absent), absent)
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
    return RoundCourse(steps, arrived, ~arrived & ~absent, absent, seconds, times)
