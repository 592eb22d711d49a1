"""Best-first branch and bound, once for every search that divides what it has not ruled out.

Of all parts that are left the one with the smallest bound is taken and divided into smaller parts, each with
a bound of its own. A part whose bound reaches the threshold, the value that a plan has to beat, is discarded.
What has been discarded and what is left when the search ends bound everything from below: that is the proof,
and it is as honest when a time limit ends the search.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

Part = TypeVar("Part")
Data = TypeVar("Data")


@dataclass(frozen=True)
class SearchProof:
    """What a search proved.

    Attributes
    ----------
    lower_bound : float
        No plan that is not the best found has a smaller value; inf where nothing was discarded or left.
    parts : int
        How many were divided.
    finished : bool
        False when a limit ended the search before the threshold did.
    """

    lower_bound: float
    parts: int
    finished: bool


def search(
    roots: Iterable[tuple[float, Part]],
    branch: Callable[[Part, float], Iterable[tuple[float, Part | None]]],
    threshold: Callable[[], float],
    deadline: float = math.inf,
    most_parts: float = math.inf,
) -> SearchProof:
    """Divide the part with the smallest bound until that reaches the threshold.

    Parameters
    ----------
    roots : iterable of (bound, part)
        Parts that together hold everything, and lower bounds on them.
    branch : callable
        Takes a part and its bound, and returns smaller parts with their bounds. None in place of a part says
        that nothing is left to divide: the bound is all that is known of it.
    threshold : callable
        Returns the value that is to be beaten; it falls as better plans are found.
    deadline : float, optional
        On the performance counter [s].
    most_parts : float, optional
        How many parts may be divided.

    Returns
    -------
    SearchProof

    Examples
    --------
    The smallest value of (x - 0.3)^2 over whole x from -10 to 9, bounded by the distance to an interval.

    >>> best = [math.inf]
    >>> def bound(low, high):
    ...     return max(low - 0.3, 0.3 - high, 0.0) ** 2
    >>> def halves(part, _bound):
    ...     low, high = part
    ...     if low == high:
    ...         best[0] = min(best[0], bound(low, high))
    ...         return [(bound(low, high), None)]
    ...     middle = (low + high) // 2
    ...     return [(bound(*half), half) for half in ((low, middle), (middle + 1, high))]
    >>> proof = search([(0.0, (-10, 9))], halves, lambda: best[0])
    >>> round(best[0], 12), proof.lower_bound == best[0], proof.finished
    (0.09, True, True)
    """
    # Among parts with the same bound the newest comes first: that goes deep, where plans are found.
    queue = [(bound, 0, place, part) for place, (bound, part) in enumerate(roots)]
    heapq.heapify(queue)
    discarded, parts, finished = math.inf, 0, True
    while queue and queue[0][0] < threshold():
        if parts >= most_parts or time.perf_counter() > deadline:
            finished = False
            break
        bound, *_, part = heapq.heappop(queue)
        parts += 1
        for place, (own_bound, child) in enumerate(branch(part, bound)):
            # A part of it cannot hold less than the whole.
            child_bound = max(bound, own_bound)
            if child is None or child_bound >= threshold():
                discarded = min(discarded, child_bound)
            else:
                heapq.heappush(queue, (child_bound, -parts, place, child))
    left = queue[0][0] if queue else math.inf
    return SearchProof(min(discarded, left), parts, finished)


def lowest(
    first: int, last: int, within: Callable[[int, int], tuple[float, Data] | None], most: int = 1
) -> list[tuple[int, float, Data]]:
    """The whole numbers with the lowest values, by bounding whole ranges of them.

    Parameters
    ----------
    first, last : int
        The range.
    within : callable
        Takes the ends of a range, and returns a lower bound on the values in it, which for a single number
        is its value, and what belongs to that; None where nothing in the range is of use.
    most : int, default 1
        How many numbers are wanted.

    Returns
    -------
    list of (number, value, what belongs to it)
        The lowest value first.
    """
    found: list[tuple[int, float, Data]] = []

    def bounded(low: int, high: int) -> Iterable[tuple[float, tuple[int, int, Data]]]:
        inside = within(low, high)
        return [] if inside is None else [(inside[0], (low, high, inside[1]))]

    def branch(
        part: tuple[int, int, Data], value: float
    ) -> Iterable[tuple[float, tuple[int, int, Data] | None]]:
        low, high, data = part
        if low == high:
            found.append((low, value, data))
            return []
        return [each for half in halves(low, high) for each in bounded(*half)]

    search(bounded(first, last), branch, lambda: math.inf if len(found) < most else -math.inf)
    return found


def halves(low: int, high: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """A range of whole numbers in two, at its geometric middle: bounds loosen with the ratio of the ends."""
    middle = min(math.isqrt(low * high), high - 1)
    return (low, middle), (middle + 1, high)
