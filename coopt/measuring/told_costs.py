"""What clients say that a round cost, held to what the fleet states and to what the others say.

A price is a told cost over what the same work costs as the fleet states it; who tells none has the price 1.
Of N prices up to a fifth may be lies. So a price counts as at least the one that three tenths of the devices
do not exceed, which a fifth cannot lower beyond what honest devices say, and as at most the larger of twice
the median and three robust deviations above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.measuring.ignored import Ignored
from coopt.measuring.robust import deviation

if TYPE_CHECKING:
    from coopt.measuring.observations import Observations

Floats = npt.NDArray[np.float64]

# Share of the devices that may ask for less than the lowest price that counts.
CHEAPEST = 0.3
# Factor over the median up to which a price counts in any case.
DEAREST = 2.0
# Robust deviations from the median beyond which a price is named, and the factor that is never named.
FAR, ORDINARY = 3.0, 1.5
NOTHING = 1e-60  # a price counts as at least this and at most one over it: 0 has no logarithm


@dataclass(frozen=True, eq=False)
class Prices:
    """What work costs on each device.

    Attributes
    ----------
    sample, step : numpy.ndarray, shape (N,)
        Cost of a sample and of a local step, as the fleet states them.
    learnt : numpy.ndarray, shape (N,)
        Cost of a sample as it was believed of the rounds before; as stated where nobody told.
    """

    sample: Floats
    step: Floats
    learnt: Floats


def believe_costs(seen: Observations, prices: Prices) -> list[Ignored]:
    """Hold the told costs to the limits; changes the column ``cost``.

    Parameters
    ----------
    seen : Observations
        Reports, without what is impossible.
    prices : Prices
        What the fleet states, and what was believed before.

    Returns
    -------
    list of Ignored
        The devices whose price is far from the median.

    Notes
    -----
    A round's account is at least what honest devices told, and, for liars, their planned work at the lowest
    price that counts: if no more than a fifth of the devices lie, that is at least the lowest honest price,
    and the stated one where honest devices tell none.
    """
    device = seen.client
    work, cost = seen["samples_processed"], seen["cost"]
    stated = work * prices.sample[device] + seen["local_steps"] * prices.step[device]
    told = np.isfinite(cost) & np.isfinite(stated)
    if not told.any():
        return []
    # A device that the fleet states as free is compared with what such devices tell.
    free = ~(stated > 0)
    if free.any():
        told_sample = np.where(told, cost, 0.0) / np.where(told, work, 1.0)
        stated = np.where(free, work * float(np.median(told_sample[free])), stated)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where(prices.sample > 0, prices.learnt / prices.sample, 1.0)
        price[device] = np.where(told & (stated > 0), cost / stated, 1.0)
    lowest = float(np.sort(price)[math.floor(CHEAPEST * len(price))])
    scale = np.log(np.clip(price, NOTHING, 1.0 / NOTHING))
    middle = float(np.median(scale))
    spread = deviation(scale)
    highest = math.exp(min(middle + max(math.log(DEAREST), FAR * spread), -math.log(NOTHING)))
    far = np.abs(scale[device] - middle) > max(FAR * spread, math.log(ORDINARY))
    counted = np.clip(price[device], lowest, highest) * stated
    named = [
        Ignored(
            int(device[row]),
            "cost",
            f"far from what the fleet states and the others tell: counted as {counted[row]:.4g}",
            float(cost[row]),
            math.exp(middle) * float(stated[row]),
        )
        for row in np.flatnonzero(told & far)
    ]
    cost[told] = counted[told]
    return named
