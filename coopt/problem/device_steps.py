"""Local steps of a device's own: what a plan uses in which some devices take fewer steps than others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem.validation import integer_array

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

Ints = NDArray[np.int64]

# What a device uses in every local step, and in every sample of it.
OF_A_STEP = ("sample_cost", "sample_energy", "step_time", "step_cost", "step_energy")


def checked_steps(device_steps: ArrayLike, local_steps: int, devices: int) -> Ints | None:
    """tau_i of every device, the largest of which is tau; None where all are.

    Raises
    ------
    InvalidProblemError
        If one is below 1 or above `local_steps`, or none is as many.
    """
    steps = integer_array("device_steps", device_steps, devices, minimum=1)
    if int(steps.max()) != local_steps:
        i = int(steps.argmax())
        raise InvalidProblemError(
            f"device_steps[{i}] = {steps[i]}: the most steps of a device must be local_steps = {local_steps}"
        )
    return None if bool((steps == local_steps).all()) else steps.copy()


def steps_of(device_steps: Ints | None, local_steps: int, devices: int) -> Ints:
    """tau_i of every device, where None stands for tau of all, shape (N,)."""
    return np.full(devices, local_steps, dtype=np.int64) if device_steps is None else device_steps


def at_device_steps(problem: Problem, local_steps: int, device_steps: Ints | None) -> Problem:
    """The problem in which tau local steps of device i use what tau_i of them do in this one.

    Cost, time and energy of a plan are sums over local steps: with what a step uses multiplied by tau_i/tau
    all formulas for equal steps hold.
    """
    if device_steps is None:
        return problem
    share = device_steps / local_steps
    fleet = problem.fleet
    scaled = {name: getattr(fleet, name) * share for name in OF_A_STEP}
    return replace(problem, fleet=replace(fleet, throughput=fleet.throughput / share, **scaled))
