"""Let learning rates fall at the end of a plan, where a forecast cannot tell that they should.

A network's curvature and noise grow while it trains, whatever was measured before: near the end the model
swings about where it could be, far more than was forecast. Rates that fall linearly to zero over the last
part let it settle, and need to know nothing of the loss.

References
----------
Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024,
arXiv:2405.18392, find that a cooldown over the last fifth does as well as a decay all the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from coopt.plans.phase import Phase
from coopt.policies.schedule_progress import replaced

# Share of the rounds in which rates fall, and in how many stairs.
COOLDOWN, STAIRS = 0.2, 5


def cooled(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The same rounds, steps and batches, with rates that fall over the last fifth of the rounds."""
    total = sum(phase.rounds for phase in phases)
    falling = round(COOLDOWN * total)

    def share(index: int) -> float:
        """What is left of the rate in a round: the middle of its stair."""
        done = index - (total - falling)
        return 1.0 if done < 0 else 1.0 - (done * STAIRS // falling + 0.5) / STAIRS

    found, first = [], 0
    for phase in phases:
        shares = map(share, range(first, first + phase.rounds))
        found += [
            replaced(phase, rounds=len(list(alike)), learning_rate=left * phase.learning_rate)
            for left, alike in itertools.groupby(shares)
        ]
        first += phase.rounds
    return tuple(found)
