"""An allocation in words, one fact a line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.problem import limits
from coopt.problem.problem import Problem

if TYPE_CHECKING:
    from coopt.plans.allocation import Allocation

# Batch sizes are listed one by one up to this many devices, and summarised beyond.
LISTED_DEVICES = 20
# A few devices hold up the others if, with the smallest batches, they take so many times as long as the
# slowest of all but this share.
HELD_UP, FEW = 2.0, 0.1


def plan_text(allocation: Allocation) -> str:
    """What print shows of an allocation."""
    budget = allocation.problem.budget
    expected = "" if budget.participants is None else ", expected"
    lines = [
        f"rounds         {allocation.rounds}",
        *_participants_lines(allocation.problem),
        f"local steps    {allocation.local_steps}{_fewer(allocation.device_steps, allocation.local_steps)}",
        f"batch sizes    {_batches_text(allocation.batch_sizes)}",
        f"{allocation.quantity.lower():14} {allocation.predicted_error:.6g} ({allocation.bound})",
    ]
    parts = allocation.parts
    if parts is not None:
        lines.append(
            f"  of which     transient {parts.transient:.4g}, noise {parts.noise:.4g}, "
            f"drift {parts.drift:.4g}"
        )
    lines += [
        f"cost           {allocation.cost:.6g} of {budget.cost:.6g}{expected}",
        f"time           {allocation.time:.6g} s of {budget.time:.6g} s",
        *(f"  of which     {hint}" for hint in held_up(allocation)),
        *(
            [f"energy         {allocation.energy:.6g} J of {budget.energy:.6g} J"]
            * (budget.energy < math.inf)
        ),
        f"binding        {', '.join(allocation.binding) or 'nothing'}",
        f"gap            {allocation.gap:.2g}"
        if math.isfinite(allocation.lower_bound)
        else "gap            unknown",
        f"status         {allocation.status.advice(proved=allocation.is_bound)}",
    ]
    return "\n".join(lines)


def held_up(allocation: Allocation) -> list[str]:
    """A hint where a few devices hold up all others whatever their batches are."""
    problem, rounds, steps = allocation.as_run, allocation.rounds, allocation.local_steps
    least = limits.device_times(problem, rounds, steps, problem.fleet.batch_range()[0])
    typical = float(np.quantile(least, 1.0 - FEW))
    if "time" not in allocation.binding or least.max() < max(HELD_UP * typical, allocation.time / 2.0):
        return []
    few = int((least > HELD_UP * typical).sum())
    return [
        f"{few} of {least.size} devices need most of it with any batch: coopt.choose_cohort leaves some out"
    ]


def _fewer(device_steps: NDArray[np.int64] | None, local_steps: int) -> str:
    if device_steps is None:
        return ""
    fewer = device_steps[device_steps < local_steps]
    devices = "1 device" if fewer.size == 1 else f"{fewer.size} devices"
    return f", {fewer.min()} to {fewer.max()} on {devices}"


def _participants_lines(problem: Problem) -> list[str]:
    budget = problem.budget
    if budget.participants is None:
        return []
    kind = "distinct" if budget.distinct_participants else "drawn independently"
    return [f"participants   {budget.participants} a round of {len(problem.fleet)}, {kind}"]


def _batches_text(batches: NDArray[np.int64]) -> str:
    if batches.size <= LISTED_DEVICES:
        return " ".join(map(str, batches.tolist()))
    low, middle, high = np.percentile(batches, [0, 50, 100])
    return f"{batches.size} devices, {low:.0f} to {high:.0f}, median {middle:.0f}"
