"""The estimators as published with Dynamic-tau and AdaCoOpt, without correction for mini-batch noise.

They are here to be compared with, and to drive the published policies as their authors run them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from coopt.measuring.screening import SMALLEST
from coopt.problem.saved_state import number, table

if TYPE_CHECKING:
    from coopt.measuring.observations import Observations

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PublishedEstimates:
    """One round's estimates; NaN where no report had what is needed.

    Attributes
    ----------
    smoothness : float
        beta = sum p_i ||g_i(w_i) - g_i(w)|| / ||w_i - w||, on the same mini-batch.
    lipschitz : float
        rho = sum p_i |F_i(w_i) - F_i(w)| / ||w_i - w||, on the same mini-batch.
    divergence : float
        delta = sum p_i ||g_i - g||, mini-batch gradients.
    convexity : float
        c = sum p_i ||g_i||^2 / F_i, mini-batch gradients and losses.
    """

    smoothness: float
    lipschitz: float
    divergence: float
    convexity: float

    def restored(self, place: str, state: object) -> Self:
        """Return what `dataclasses.asdict` wrote; `place` is for messages."""
        value = number(minimum=0.0, nan=True)
        return replace(self, **table(place, state, {field.name: value for field in fields(self)}))


def estimate(seen: Observations, samples: npt.NDArray[np.int64]) -> PublishedEstimates:
    """Evaluate the published formulas on the believed parts of one round's reports.

    Parameters
    ----------
    seen : Observations
        Screened reports.
    samples : numpy.ndarray, shape (N,)
        Samples that each device holds, the weights of the averages.

    Returns
    -------
    PublishedEstimates
        This round's values; smoothing them is up to the policy.

    References
    ----------
    Wang et al., Adaptive federated learning in resource constrained edge computing systems, JSAC 37(6), 2019,
    arXiv 1804.05271, section VI; Liu et al., Adaptive control of batch size and aggregation frequency
    (AdaCoOpt), IWQoS 2023, for the constant c.
    """
    weight = samples[seen.client].astype(np.float64)
    distance = np.sqrt(seen["pair_step"])
    # The whole batch is the mean of its halves: |a + b|^2 / 4 = <a, b> + |a - b|^2 / 4.
    change = np.sqrt(np.maximum(seen["pair_product"] + seen["pair_difference"] / 4, 0.0))
    convexity = np.full(len(weight), np.nan)
    np.divide(seen["gradient"], seen["loss"], out=convexity, where=seen["loss"] > SMALLEST)
    return PublishedEstimates(
        smoothness=_mean(change / distance, weight),
        lipschitz=_mean(np.abs(seen["pair_loss_change"]) / distance, weight),
        divergence=_mean(_distances(seen, weight), weight),
        convexity=_mean(convexity, weight),
    )


def _mean(values: Floats, weight: Floats) -> float:
    known = np.isfinite(values)
    return float(values[known] @ weight[known] / weight[known].sum()) if known.any() else math.nan


def _distances(seen: Observations, weight: Floats) -> Floats:
    vectors = seen.vectors["gradient"]
    rows = [row for row, vector in enumerate(vectors) if vector is not None]
    distances = np.full(len(weight), np.nan)
    if rows:
        total = weight[rows].sum()
        mean = sum(
            (weight[row] / total * vectors[row] for row in rows[1:]),
            weight[rows[0]] / total * vectors[rows[0]],
        )
        for row in rows:
            distances[row] = float(np.linalg.norm(vectors[row] - mean))
    return distances
