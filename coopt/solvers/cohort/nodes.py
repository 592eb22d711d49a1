"""Sets of nodes of the search for a cohort, as arrays, and what an evaluation shows of them.

A node leaves open which of some devices train, and ranges of rounds, local steps, members of the bound and
P, the weight of those that train.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OUT, OPEN, IN = 0, -1, 1


@dataclass(frozen=True)
class CohortNodes:
    """Sets of cohorts with their plans, as arrays with one row a node.

    Attributes
    ----------
    rounds, local_steps, gammas, zs : ndarray of int64, shape (R, 2)
        First and last K and tau, and places of gamma and of z among those of the bound.
    share : ndarray, shape (R, 2)
        Smallest and largest P.
    outside : ndarray of bool, shape (R,)
        Whether the bias is counted over those left out; over those that train if not.
    state : ndarray of int8, shape (R, N)
        IN, OUT or OPEN.
    prices : ndarray, shape (R, 5)
        Of cost and energy, zero where there is no limit on them; of weights, bias and number. Those of limits
        are not negative.
    trained : ndarray, shape (R, N)
        How often each device trained on the way to these prices, from 0 to 1.
    bound : ndarray, shape (R,)
    """

    rounds: Ints
    local_steps: Ints
    gammas: Ints
    zs: Ints
    share: Floats
    outside: Bools
    state: NDArray[np.int8]
    prices: Floats
    trained: Floats
    bound: Floats

    def __len__(self) -> int:
        return int(self.bound.size)

    @property
    def centre(self) -> Floats:
        """K tau in the middle of each node, at its smallest tau, shape (R,)."""
        product: Floats = np.sqrt(self.rounds.astype(np.float64).prod(axis=1)) * self.local_steps[:, 0]
        return product

    def take(self, index: Ints | Bools | slice) -> Self:
        """Some of the nodes, copied."""
        return type(self)(*(getattr(self, field.name)[index].copy() for field in fields(self)))

    @classmethod
    def together(cls, parts: list[Self]) -> Self:
        """All nodes of several sets."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation shows of R nodes.

    Attributes
    ----------
    bound : ndarray, shape (R,)
    lacking, most_lacking : ndarray, shape (R,)
        By how much the floor is too low for the threshold, where the bound is smallest and at most.
    gradient : ndarray, shape (R, 5)
        Of the floor there, in the prices.
    trained : ndarray, shape (R, N)
        Who trains there.
    low, high : ndarray, shape (R, N)
        Smallest and largest change of the floor if the device trains.
    amount : ndarray, shape (R, N)
        What noise and batches of the device come to.
    ends : ndarray of int64, shape (R, J + 1)
    pieces : ndarray, shape (R, J)
        Ends of the parts into which the rounds are cut, and the bounds on the parts.
    """

    bound: Floats
    lacking: Floats
    most_lacking: Floats
    gradient: Floats
    trained: Floats
    low: Floats
    high: Floats
    amount: Floats
    ends: Ints
    pieces: Floats
