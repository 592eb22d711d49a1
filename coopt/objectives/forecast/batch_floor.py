"""The smallest batch that a learning rate asks for, which a forecast on its own does not see.

Its noise is that of gradients at one point. A batch also sees a curvature of its own, and along a direction
where single samples are much more curved than their average, a small batch at a large rate overshoots: the
error is multiplied by more than one. With a = 1 - eta lambda on the average, a batch of s multiplies the
square of the error along a direction of curvature lambda by a^2 + eta^2 lambda (beta - lambda) / s each step,
where beta = E[c^2] / E[c] over the curvatures c of single samples. Averaging over N_e devices divides what a
round of tau steps adds; the floor keeps at least half of the contraction that full batches would have. All
devices are taken for the average one, and within several steps each is taken to be alone: a rule that was
checked on trained plans, where it was better than stability alone
(:mod:`coopt.objectives.forecast.stability`), and no theorem. Momentum beta
makes a rate go as far as one of eta / (1 - beta), and counts as that, on the server too.

References
----------
Compare Ma, Bassily and Belkin, "The Power of Interpolation: Understanding the Effectiveness of SGD in Modern
Over-parametrized Learning", ICML 2018, arXiv:1712.06559, for one step on one device.
"""

from __future__ import annotations

import math

import numpy as np

from coopt.objectives.forecast.federation import LARGEST_STEP
from coopt.objectives.forecast.geometric import decay
from coopt.objectives.forecast.model import Floats, LocalModel
from coopt.objectives.forecast.optimiser import AVERAGING, LinearSteps


def smallest_batch(
    model: LocalModel, shares: Floats, rate: float, local_steps: int, how: LinearSteps = AVERAGING.linear
) -> int:
    """The smallest batch that the rate asks for on every device.

    Parameters
    ----------
    model : LocalModel
    shares : ndarray, shape (N,)
        Weights of the devices that train.
    rate : float
        eta, below 2 over the largest curvature.
    local_steps : int
        tau.
    how : LinearSteps

    Returns
    -------
    int
        At least 1.
    """
    loss = model.loss
    curvatures = loss.curvatures[loss.curvatures > loss.floor]
    single = loss.trace if model.sample_curvature is None else model.sample_curvature
    # Within a round of several steps a device is alone with its own batches.
    devices = 1.0 / float(np.sum(shares**2)) if local_steps == 1 else 1.0
    most = LARGEST_STEP / max(loss.largest, 1e-300)
    rate = min(rate * how.reach(local_steps), most if how.unbiased else max(rate, most))
    step = rate * curvatures
    lost = step * (2.0 - step)
    over_a_round = decay(lost, local_steps)
    with np.errstate(divide="ignore"):
        room = np.expm1(np.log1p(over_a_round * (devices / 2.0 - 1.0)) / local_steps) + lost
    excess = rate * step * np.maximum(single - curvatures, 0.0)
    least = float(np.max(excess / room, initial=0.0))
    return max(math.ceil(least * (1.0 - 1e-12)), 1)
