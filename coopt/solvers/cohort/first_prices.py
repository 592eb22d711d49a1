"""Prices from which the lower bound of a node begins: those of the devices that are believed to train."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.cohort.effects import BEYOND
from coopt.solvers.cohort.lower_bound import SMALLEST, CohortBound
from coopt.solvers.cohort.nodes import IN, OPEN, OUT, CohortNodes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Steps towards the level of batches from which prices begin.
LEVELS = 8


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def first_prices(relaxed: CohortBound, nodes: CohortNodes) -> tuple[Floats, Floats]:
    """Prices at which the devices that `trained` says would train, and the scales of the prices."""
    coefficients = relaxed.effects.smallest(nodes.local_steps[:, 0], nodes.gammas, nodes.zs)
    _, _, kdd, kde, kee = coefficients.T
    p1, p2 = nodes.share.T
    chosen = ((nodes.trained >= 0.5) & (nodes.state == OPEN)) | (nodes.state == IN)
    chosen |= ~chosen.any(axis=1)[:, None] & (nodes.state != OUT)
    r = 1.0 / np.clip(chosen @ relaxed.weights, p1, p2)
    spread = r * (chosen @ relaxed.spread)
    total = np.where(nodes.outside, ~chosen @ relaxed.disturbing, chosen @ relaxed.disturbing)
    weights = np.maximum(relaxed.noise_weights(coefficients, r, r * r), 0.0)
    caps = np.maximum(relaxed.caps(nodes), relaxed.lower)
    prices, batches = _levels(relaxed, nodes, chosen, weights, caps)
    root = np.sqrt(spread)
    bias_price = 2.0 * (kee * total * r + kde * root)
    slope = kdd + np.where(root > 0.0, kde * total * r / np.maximum(root, SMALLEST), 0.0)
    sign = np.where(nodes.outside, -1.0, 1.0)
    reciprocal = np.where(chosen, 1.0 / batches - relaxed.reference, 0.0)
    # The derivative of the sum in r, which the price of the weights makes zero.
    rate = relaxed.noise_weights(coefficients, np.ones_like(r), 2.0 * r)
    weight_price = r * (
        slope * (chosen @ relaxed.spread)
        + bias_price * (sign * (chosen @ relaxed.disturbing) + nodes.outside * relaxed.disturbing.sum())
        + (rate * reciprocal).sum(axis=1)
    )
    value = (kdd * root + 2.0 * kde * total * r) * root + kee * (total * r) ** 2
    value = np.maximum(value + (weights * reciprocal).sum(axis=1), SMALLEST)
    found = np.column_stack([prices, weight_price, bias_price, np.zeros_like(r)])
    budget = np.maximum(np.where(relaxed.limited, relaxed.limits, 0.0) / nodes.centre[:, None], SMALLEST)
    smallest = 1e-3 * value[:, None] / budget
    scales = np.column_stack(
        [
            np.maximum(prices, smallest),
            np.maximum(np.abs(weight_price), value),
            np.maximum(bias_price, value),
            value / relaxed.most,
        ]
    )
    return np.minimum(found, BEYOND), np.minimum(scales, BEYOND)


def _levels(
    relaxed: CohortBound, nodes: CohortNodes, chosen: Bools, weights: Floats, caps: Ints
) -> tuple[Floats, Floats]:
    """Prices of cost and energy at which batches about use up the tighter limit, and these batches."""
    prices, batches = np.zeros((len(nodes), 2)), caps.astype(np.float64)
    centre = nodes.centre
    for i in np.flatnonzero(relaxed.limited):
        unit, round_ = relaxed.sample[i], relaxed.round[i]
        budget = relaxed.limits[i] / centre - (relaxed.shared[i] + chosen @ round_) / nodes.local_steps[:, 0]
        budget -= chosen @ relaxed.step[i]
        budget = np.maximum(budget, chosen @ (unit * relaxed.lower))
        root = np.where(chosen, np.sqrt(weights * unit), 0.0).sum(axis=1)
        level = (root / np.maximum(budget, SMALLEST)) ** 2
        for _ in range(LEVELS):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                found = np.sqrt(weights / (level[:, None] * unit))
            found = np.clip(np.nan_to_num(found, nan=0.0, posinf=np.inf), relaxed.lower, caps)
            spent = (chosen * found) @ unit
            level = level * (spent / np.maximum(budget, SMALLEST)) ** 2
        tighter = level > prices.max(axis=1)
        prices[tighter] = 0.0
        prices[tighter, i] = level[tighter]
        batches = np.where(tighter[:, None], found, batches)
    return prices, batches
