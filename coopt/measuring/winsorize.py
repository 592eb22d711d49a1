"""Hold what is believed to three robust deviations from the middle, so that nobody moves a mean far.

What no honest client would say is left out and named (:mod:`coopt.measuring.screening`); lies that are nearer
cannot be told from honest clients that differ. Their influence is bounded instead: a mean with weights p of
values that are held to a distance R from the middle is moved by liars of weight P by no more than P R.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coopt.measuring.gradient_sketch import count_sketch
from coopt.measuring.observations import Observations
from coopt.measuring.robust import LEAST_TO_JUDGE, geometric_median, reach

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Numbers of a vector that distances are taken of; longer ones are sketched.
LONGEST = 4096


def winsorize(seen: Observations, lowest_loss: float) -> None:
    """Hold losses, noise, curvatures and vectors of a round to what is usual; changes the table."""
    seen.column["loss"] = held_losses(seen["loss"], lowest_loss)
    seen.column["halves_difference"] = seen["halves_difference"] * _held_share(seen.noise)
    _hold_pairs(seen)
    _hold_gradients(seen)


def held_losses(losses: Floats, lowest: float) -> Floats:
    """Losses held to what is usual, by their distances or by their ratios over the lowest: the wider.

    Parameters
    ----------
    losses : numpy.ndarray, shape (m,)
    lowest : float
        What no loss is below, where that is known, else -inf.

    Examples
    --------
    >>> held_losses(np.array([1.0, 1.1, 0.9, 1.2, 25.0]), 0.0).round(2)
    array([1.  , 1.1 , 0.9 , 1.2 , 3.31])
    """
    known = losses[np.isfinite(losses)]
    if len(known) < LEAST_TO_JUDGE:
        return losses
    middle = float(np.median(known))
    far = reach(known, 0.0)
    above = far
    if middle > lowest > -math.inf:
        over = np.log(known[known > lowest] - lowest)
        above = max(above, (middle - lowest) * math.expm1(min(reach(over), 50.0)))
    return np.clip(losses, middle - far, middle + above)


def hold_above(values: Floats) -> Floats:
    """Values of at least 0 held to at most what is usual, by their ratios."""
    some = values[values > 0]
    if len(some) < LEAST_TO_JUDGE:
        return values
    logs = np.log(some)
    with np.errstate(over="ignore"):
        held: Floats = np.minimum(values, np.exp(np.median(logs) + reach(logs)))
    return held


def distances_from_middle(vectors: list[Floats | None]) -> tuple[Ints, Floats, Floats]:
    """Who sent a vector, how far it is from the geometric median of all, and the shares that make that up.

    Distances of long vectors are those of sketches, right to a few percent.
    """
    rows = np.array([row for row, vector in enumerate(vectors) if vector is not None], dtype=np.int64)
    sent = [vector for vector in vectors if vector is not None]
    if len(rows) < LEAST_TO_JUDGE:
        return rows, np.zeros(len(rows)), np.zeros(len(rows))
    if len(sent[0]) > LONGEST:
        sent = [count_sketch(vector, LONGEST // 4, seed=0) for vector in sent]
    points = np.array(sent)
    shares = geometric_median(points)
    return rows, np.linalg.norm(points - shares @ points, axis=1), shares


def _hold_pairs(seen: Observations) -> None:
    """Hold the steps, and the curvatures seen along them."""
    step, whole = seen["pair_step"], seen["pair_product"] + seen["pair_difference"] / 4.0
    steps = hold_above(step) / step
    curvature = _held_share(whole / step)
    for name, power in (("product", 1.0), ("difference", 1.0), ("slope", 0.5), ("loss_change", 0.5)):
        seen.column[f"pair_{name}"] = seen[f"pair_{name}"] * curvature**power * steps
    change = np.sqrt(_held_share(seen["change"] / step) * steps)
    seen.column["pair_step"] = step * steps
    vectors = seen.vectors["change"]
    for row in np.flatnonzero(change < 1.0):
        vector = vectors[row]
        if vector is not None:
            vectors[row] = vector * change[row]
            seen.column["change"][row] *= change[row] ** 2


def _held_share(values: Floats) -> Floats:
    """What `hold_above` leaves of each value, as a share."""
    shares = np.ones(len(values))
    return np.divide(hold_above(values), values, out=shares, where=values > 0)


def _hold_gradients(seen: Observations) -> None:
    """Hold gradients to a distance from their geometric median."""
    vectors = seen.vectors["gradient"]
    rows, distances, shares = distances_from_middle(vectors)
    kept = _held_share(distances)
    if not np.any(kept < 1.0):
        return
    sent = [vector for vector in vectors if vector is not None]
    middle = sum((share * vector for share, vector in zip(shares, sent, strict=True)), np.zeros_like(sent[0]))
    for row, share in zip(rows.tolist(), kept.tolist(), strict=True):
        vector = vectors[row]
        if share < 1.0 and vector is not None:
            held = middle + share * (vector - middle)
            vectors[row], seen.column["gradient"][row] = held, float(held @ held)
