"""Which of the two known ways a bound progresses in, and the number of steps that is best for it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.errors import SolverError
from coopt.objectives.monotone import MonotoneForm
from coopt.objectives.progress import ExponentialProgress, SublinearProgress

Floats = NDArray[np.float64]
# Of a single bound: its arrays have one entry.
Progress = ExponentialProgress | SublinearProgress

# Progress is read off at these steps to see which of the two forms it has.
PROBES = (1.0, 2.0, 7.0, 30.0)
HALVINGS = 200


def lambert_steps(excess: float) -> float:
    """The root y of y + e^y = 1 + excess, which is 1 + excess - W(e^(1 + excess)).

    Parameters
    ----------
    excess : float
        kappa - 1 >= 0.

    Returns
    -------
    float

    Examples
    --------
    >>> y = lambert_steps(20.0)
    >>> round(y, 12), round(y + math.exp(y), 12)
    (2.896125951214, 21.0)
    """
    from scipy.special import wrightomega

    # W(e^kappa) without forming e^kappa; its logarithm is y. One Newton step restores the digits of small y.
    y = math.log(float(wrightomega(1.0 + excess)))
    return y - (y + math.expm1(y) - excess) / (1.0 + math.exp(y))


def value_after(progress: Progress, steps: float, offset: float, noise: float) -> float:
    """The bound after T steps for given parts of the floor."""
    if isinstance(progress, ExponentialProgress):
        if not steps:
            return progress.gap
        exponent = progress.log_q.item() * steps
        return math.exp(exponent) * progress.gap - math.expm1(exponent) * (offset + noise)
    rate: float = progress.rate.item()
    return (rate / steps if rate else 0.0) + offset + noise if steps else math.inf


def best_steps(progress: Progress, offset: float, amount: float, share: float) -> float:
    """The T that minimises the bound with noise amount T / (1 - share T)."""
    rate: float
    if isinstance(progress, SublinearProgress):
        rate = progress.rate.item()
        slowest = share + math.sqrt(amount / rate) if rate else math.inf
        return 1.0 / slowest if slowest else math.inf
    if progress.gap <= offset:
        return 0.0
    pole = 1.0 / share if share else math.inf
    if amount == 0.0:
        return pole
    rate = -progress.log_q.item()
    excess = rate * (progress.gap - offset) / amount
    # Costly rounds only lower the number of steps, so the root without them brackets the other.
    high = lambert_steps(excess) / rate
    if share == 0.0:
        return high
    low, high = 0.0, min(high, pole)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        y, left = rate * middle, 1.0 - share * middle
        if math.expm1(y) + y * left > left * left * excess:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


def progress_of(form: MonotoneForm, solver: str) -> Progress:
    """The progress of a single bound, read off its form.

    Raises
    ------
    SolverError
        If it is neither geometric nor reciprocal; the message names the solver that needs to know.
    """
    steps, member = np.array(PROBES), np.zeros(1, dtype=np.intp)
    start, slope = form.progress(steps, member)
    first = float(slope[0, 0])
    found: Progress
    if first == 1.0:
        # Nothing is left of the initial gap after one step, or progress is reciprocal.
        found = SublinearProgress(start[:, 0])
    else:
        found = ExponentialProgress(np.array([math.log1p(-first)]), float(start[0, 0]) / (1.0 - first))
    if not all(
        np.allclose(want, got, rtol=1e-9, atol=0.0)
        for want, got in zip(found(steps, member), (start, slope), strict=True)
    ):
        raise SolverError(
            f"solver {solver!r} knows geometric and reciprocal progress, and bound "
            f"{form.members[0].name!r} has neither: use solver='exact'"
        )
    return found


def floor_at(form: MonotoneForm, local_steps: int) -> tuple[float, Floats]:
    """Offset and weights of the floor of a single bound at tau, without the reference of the batches."""
    floor = form.floor(local_steps, np.zeros(1, dtype=np.intp))
    weights = np.zeros_like(floor.basis[0])
    for share, part in zip(floor.shares[0].tolist(), floor.basis, strict=True):
        weights += np.multiply(part, share, out=np.zeros_like(part), where=part > 0.0)
    return float(floor.offsets[0]), weights
