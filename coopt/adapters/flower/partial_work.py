"""Let the models of nodes that did fewer local steps count as much as those of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Array, ArrayRecord

from coopt.adapters.aggregate import aggregation_shares, step_factors
from coopt.adapters.flower.records import read_array, read_arrays
from coopt.adapters.flower.server_optimiser import RUNNING
from coopt.objectives.forecast.optimiser import effective_steps

if TYPE_CHECKING:
    from coopt.adapters.flower.replies import Contribution
    from coopt.online.round_plan import RoundPlan


def normalised(
    contributions: Sequence[Contribution],
    model: ArrayRecord,
    plan: RoundPlan,
    weights: Mapping[int, float],
    momentum: float,
) -> list[Contribution]:
    """Scale the changes of the models, see :func:`coopt.adapters.aggregate.step_factors`.

    Any strategy that averages by the weights then averages what it should. The server saw no steps, so a node
    that says it did few gains no more than its change is shorter than the others'. Running statistics, which
    are no sums of gradients, stay as they are.

    Parameters
    ----------
    contributions : sequence of Contribution
        What came back.
    model : ArrayRecord
        The model that was sent.
    plan : RoundPlan
        How many steps each was told.
    weights : dict
        Weight of each device.
    momentum : float
        That of the clients.
    """
    done = [_steps(item, int(plan.steps[item.device])) for item in contributions]
    usable = [item.arrays is not None for item in contributions]
    counted = [steps for steps, able in zip(done, usable, strict=True) if able]
    if len(set(counted)) < 2:
        return list(contributions)
    start = read_arrays(model)
    moved = [name for name in start if not name.endswith(RUNNING) and start[name].dtype.kind == "f"]
    changes = [
        {}
        if item.arrays is None
        else {name: read_array(name, item.arrays[name]).astype(np.float64) - start[name] for name in moved}
        for item in contributions
    ]
    norms = [math.sqrt(sum(float(np.sum(part**2)) for part in change.values())) for change in changes]
    shares = aggregation_shares([weights[item.device] for item in contributions], usable)
    factors = step_factors(shares, effective_steps(done, momentum), norms)
    found = []
    for item, change, factor in zip(contributions, changes, factors.tolist(), strict=True):
        if item.arrays is None or factor == 1.0:
            found.append(item)
            continue
        arrays = dict(item.arrays)
        for name, part in change.items():
            arrays[name] = Array((start[name] + factor * part).astype(start[name].dtype))
        found.append(replace(item, arrays=ArrayRecord(arrays)))
    return found


def _steps(item: Contribution, planned: int) -> int:
    """The local steps that a node says it did: no more than planned, which is also what silence means."""
    told = float(planned if item.report is None else item.report.local_steps)
    return int(told) if 1 <= told < planned else planned
