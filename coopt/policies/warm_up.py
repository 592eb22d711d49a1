"""The first rounds, in which nothing is known yet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from coopt.policies.situation import Choice, clip_batches

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

SHARE = 0.02  # of what is left, per round
STEPS, BATCH = 2, 16
VARIED = (1.0, 2.0, 0.5)
# Where the fleet is measured afterwards the first round only tells who is slow: whoever takes seconds a
# sample must not spend the time of all.
BRIEF = (0.125, 2.0, 0.5)


def warm_up(problem: Problem, round: int = 0, *, brief: bool = False) -> Choice:
    """Choose a round that costs little of anything and measures everything.

    Where time is limited the batches differ from one `round` to the next: times of one batch alone do not
    tell what a step takes from what a sample takes. Rounds are `brief`, single steps, where more than the
    speeds of devices is measured later; a rule that plans by reports alone has to learn of the loss here.
    """
    fleet, left = problem.fleet, problem.budget
    timed = left.time < math.inf
    steps = 1 if timed and brief else min(STEPS, left.max_local_steps or STEPS)
    varied = BRIEF if brief else VARIED
    size = BATCH * (varied[round % len(varied)] if timed else 1.0)
    work = float(np.sum(fleet.sample_cost))
    if work > 0:
        spare = max(SHARE * left.cost - left.round_cost, 0.0) / steps - fleet.whole_step_cost
        size = min(size, max(spare, 0.0) / work)
    seconds = (SHARE * left.time - fleet.round_time) / steps - fleet.step_time
    with np.errstate(invalid="ignore"):
        caps = np.nan_to_num(fleet.throughput * seconds, nan=size, posinf=size)
    return Choice(steps, clip_batches(problem, np.maximum(np.minimum(size, caps), 2.0)))
