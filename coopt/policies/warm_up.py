"""The first rounds, in which nothing is known yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coopt.policies.situation import Choice, clip_batches

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

SHARE = 0.02  # of what is left, per round
STEPS, BATCH = 2, 16


def warm_up(problem: Problem) -> Choice:
    """Choose a round that costs little of anything and measures everything."""
    fleet, left = problem.fleet, problem.budget
    steps = min(STEPS, left.max_local_steps or STEPS)
    size = float(BATCH)
    work = steps * float(np.sum(fleet.sample_cost))
    if work > 0:
        size = min(size, max(SHARE * left.cost - left.round_cost, 0.0) / work)
    seconds = SHARE * left.time - fleet.round_time
    with np.errstate(invalid="ignore"):
        caps = np.nan_to_num(fleet.throughput * seconds / steps, nan=size, posinf=size)
    return Choice(steps, clip_batches(problem, np.maximum(np.minimum(size, caps), 2.0)))
