"""What floors at the corners of a node bound, for ranges of its rounds: its weakest place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.solvers.cohort.effects import Effects
from coopt.solvers.cohort.nodes import CohortNodes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The rounds of a node with one tau are looked at in so many parts.
PIECES = 64


@dataclass(frozen=True)
class Weakest:
    """Where the bound of R nodes is smallest; what is not of an evaluation mixes the corners."""

    bound: Floats
    lacking: Floats
    most_lacking: Floats
    mixture: Floats
    ends: Ints
    pieces: Floats


def weakest(effects: Effects, nodes: CohortNodes, levels: Floats, threshold: float) -> Weakest:
    """The bounds that floors of at least `levels` at the corners, shape (R, 4), make together."""
    rows = np.arange(len(nodes))
    single = nodes.local_steps[:, 0] == nodes.local_steps[:, 1]
    first, last = nodes.rounds.T.astype(np.float64)
    # With one tau the floor is above its chord in 1/K; else it is above the smallest corner.
    ends = np.floor(first[:, None] * (last / first)[:, None] ** np.linspace(0.0, 1.0, PIECES + 1))
    ends[:, -1] = last
    width = np.where(last > first, 1.0 / first - 1.0 / last, 1.0)
    along = np.where((last > first)[:, None], (1.0 / first[:, None] - 1.0 / ends) / width[:, None], 0.0)
    floors = np.where(
        single[:, None],
        levels[:, :1] * (1.0 - along) + levels[:, 1:2] * along,
        levels.min(axis=1)[:, None],
    )
    steps = ends * (nodes.local_steps[:, :1] + (nodes.local_steps[:, 1:] - nodes.local_steps[:, :1]) * along)
    steps[:, -1] = last * nodes.local_steps[:, 1]
    floors = np.minimum(floors[:, :-1], floors[:, 1:])
    pieces, needed = np.full_like(floors, np.inf), np.full_like(floors, -np.inf)
    raw = np.full_like(floors, np.inf)
    for start, slope in effects.progress(steps, nodes.gammas):
        for part in (slice(None, -1), slice(1, None)):
            np.minimum(raw, start[:, part] + slope[:, part] * floors, out=raw)
            # A floor is never negative.
            np.minimum(pieces, start[:, part] + slope[:, part] * np.maximum(floors, 0.0), out=pieces)
            np.maximum(needed, (threshold - start[:, part]) / slope[:, part], out=needed)
    lacking = needed - floors
    place = raw.argmin(axis=1)
    share = along[rows, np.where(levels[:, 0] <= levels[:, 1], place, place + 1)]
    mixture = np.zeros_like(levels)
    mixture[:, 0], mixture[:, 1] = 1.0 - share, share
    mixture[~single] = np.eye(4)[levels.argmin(axis=1)[~single]]
    return Weakest(
        bound=pieces.min(axis=1),
        lacking=lacking[rows, place],
        most_lacking=lacking.max(axis=1),
        mixture=mixture,
        ends=ends.astype(np.int64),
        pieces=pieces,
    )
