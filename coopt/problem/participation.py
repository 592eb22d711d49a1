"""Only some devices a round: who can be drawn, and how likely each takes part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError

Floats = NDArray[np.float64]

# Weights that differ by no more than this are equal: 1 / N is not exact.
EQUAL_WEIGHTS = 1e-12


def probabilities(weights: Floats, participants: int, distinct: bool) -> Floats:
    """How likely each device takes part in a round, shape (N,)."""
    if distinct:
        return np.full(weights.size, participants / weights.size)
    with np.errstate(divide="ignore"):
        # 1 - (1 - p)^m without cancellation; a lone device has p = 1.
        likely: Floats = -np.expm1(participants * np.log1p(-np.minimum(weights, 1.0)))
    return likely


def check_participants(weights: Floats, participants: int | None, distinct: bool) -> None:
    """Raise InvalidProblemError unless so many devices of a fleet can be drawn in this way."""
    if participants is None:
        if distinct:
            raise InvalidProblemError(
                "distinct_participants = True: needs participants, the number of devices a round"
            )
        return
    if not distinct:
        return
    if participants > weights.size:
        raise InvalidProblemError(
            f"participants = {participants}: must not exceed the {weights.size} devices of the fleet where "
            "they are distinct"
        )
    spread = float(weights.max() - weights.min())
    if spread > EQUAL_WEIGHTS * float(weights.max()):
        i = int(np.abs(weights - 1.0 / weights.size).argmax())
        raise InvalidProblemError(
            f"distinct_participants = True: needs equal weights, and weights[{i}] = {float(weights[i])!r} of "
            f"{weights.size} devices; give weights=1/N, or draw devices independently"
        )
