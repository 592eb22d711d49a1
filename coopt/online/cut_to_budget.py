"""Cut a chosen round to what is left of the budget, so that its predicted spend fits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coopt.online.accounting import gradients_planned, samples_processed
from coopt.online.own_steps import own_steps
from coopt.online.round_plan import StopReason
from coopt.policies.situation import Choice
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FittedRound:
    """A round that fits: what devices do, what it should cost and how long it should take."""

    local_steps: int
    steps: Ints
    batch_sizes: Ints
    extra_evaluation: bool
    cost: float
    seconds: float


def fit_round(
    choice: Choice,
    *,
    active: Ints,
    participants: Ints,
    fleet: Fleet,
    left: Budget,
    slow: npt.NDArray[np.bool_],
    extra_evaluation: bool,
    halves: bool,
) -> FittedRound | StopReason:
    """Cut batches, then local steps, until cost and time fit.

    Parameters
    ----------
    choice : Choice
        What the policy wants, for all N devices.
    active : numpy.ndarray of int
        Devices that the round waits for.
    participants : numpy.ndarray of int
        Devices that are given work, and cost something.
    fleet : Fleet
        Batch limits of all devices, and what is known of their speeds and costs.
    left : Budget
        What is left.
    slow : numpy.ndarray of bool, shape (N,)
        Devices that take as many steps as fit in the time of the others.
    extra_evaluation : bool
        Whether clients should measure curvature; given up first.
    halves : bool
        Whether clients evaluate their first batch in two parts.

    Returns
    -------
    FittedRound or StopReason
        The limit that rules out even one step with the smallest batches, if one does.
    """
    lower, _ = fleet.batch_range()

    def judge(tau: int, batches: Ints, extra: bool) -> FittedRound:
        steps, batches = own_steps(fleet, active, slow, tau, batches)
        work = samples_processed(steps, batches, extra)
        gradients = gradients_planned(steps, batches, extra, halves, fleet.micro_batch)
        seconds = gradients * fleet.step_time + work / fleet.throughput + fleet.round_time
        spent = (fleet.sample_cost * work)[participants]
        cost = float(np.sum(spent) + np.sum((steps * fleet.step_cost)[participants])) + left.round_cost
        return FittedRound(tau, steps, batches, extra, cost, float(np.max(seconds[active])))

    def fits(trial: FittedRound) -> bool:
        return trial.cost <= left.cost and trial.seconds <= left.time

    tau = min(choice.local_steps, left.max_local_steps or choice.local_steps)
    wanted = judge(tau, np.maximum(choice.batch_sizes, lower), extra_evaluation)
    if fits(wanted):
        return wanted
    least = judge(1, lower, False)
    if least.cost > left.cost:
        return StopReason.COST
    if least.seconds > left.time:
        return StopReason.TIME
    while tau > 1 and not fits(judge(tau, lower, False)):
        tau = max(1, min(tau - 1, int(tau * 0.9)))
    batches = _cut_to_time(wanted.batch_sizes, tau, active, fleet, left.time, halves)
    scale, high = 0.0, 1.0
    for _ in range(30):
        middle = (scale + high) / 2
        if fits(judge(tau, _scaled(batches, middle, fleet), False)):
            scale = middle
        else:
            high = middle
    return judge(tau, _scaled(batches, scale, fleet), False)


def _scaled(batches: Ints, scale: float, fleet: Fleet) -> Ints:
    return fleet.rounded_down(batches * scale)


def _cut_to_time(batches: Ints, tau: int, active: Ints, fleet: Fleet, left: float, halves: bool) -> Ints:
    if math.isinf(left):
        return batches
    with np.errstate(invalid="ignore"):
        gradients = gradients_planned(tau, batches, False, halves, fleet.micro_batch)
        still = gradients * fleet.step_time + fleet.round_time
        caps = np.nan_to_num(fleet.throughput * (left - still) / tau, nan=0.0, posinf=2.0**52)
    result = batches.copy()
    result[active] = np.minimum(batches, fleet.rounded_down(caps))[active]
    return result
