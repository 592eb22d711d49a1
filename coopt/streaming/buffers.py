"""Bounded buffers that keep a sample of a stream: reservoir, random replacement, first-in first-out.

A device that receives data faster than it can store trains on what its buffer holds. Which arrivals the
buffer holds decides the bias of the gradient (:mod:`coopt.streaming.bias`); this module only keeps them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from coopt.errors import InvalidProblemError
from coopt.problem.validation import count, generator

Items = npt.NDArray[Any]


class Buffer(ABC):
    """A store of at most `capacity` items out of a stream.

    Parameters
    ----------
    capacity : int
        Most items held, at least 1.
    seed : int or numpy.random.Generator
        Source of every random choice.

    Notes
    -----
    The payload is whatever the blocks hold along their first axis: indices ``(n,)`` or arrays ``(n, ...)``.
    The first block fixes type and shape. Inserting a stream in one block or in many gives the same buffer.

    Raises
    ------
    InvalidProblemError
        If `capacity` is no positive integer, or a block does not fit the blocks before it.
    """

    name: ClassVar[str]

    def __init__(self, capacity: int, *, seed: int | np.random.Generator) -> None:
        self.capacity = count("capacity", capacity)
        self.arrivals = 0
        self._rng = generator("seed", seed)
        self._store: Items | None = None

    def __len__(self) -> int:
        """Count the items held."""
        return min(self.arrivals, self.capacity)

    @property
    def items(self) -> Items:
        """What the buffer holds, in storage order, shape ``(len(self), ...)``; a read-only view."""
        held = np.empty(0) if self._store is None else self._store[: len(self)]
        held.flags.writeable = False
        return held

    def insert(self, block: npt.ArrayLike) -> None:
        """Offer the next arrivals of the stream, in order.

        Parameters
        ----------
        block : array_like, shape (n, ...)
            The arrivals. O(1) amortised each for every buffer; a reservoir touches only what it keeps.
        """
        items = np.asarray(block)
        if items.ndim == 0:
            raise InvalidProblemError("block is a scalar: give an array with one arrival per row")
        if not len(items):
            return
        if self._store is None:
            # Zeros: what memory happens to hold belongs in no saved state.
            self._store = np.zeros((self.capacity, *items.shape[1:]), dtype=items.dtype)
        elif items.shape[1:] != self._store.shape[1:] or items.dtype != self._store.dtype:
            raise InvalidProblemError(
                f"block has items of type {items.dtype} and shape {items.shape[1:]}, the buffer holds items "
                f"of type {self._store.dtype} and shape {self._store.shape[1:]}"
            )
        free = self.capacity - len(self)
        head, rest = items[:free], items[free:]
        start = self.arrivals
        self._store[start : start + len(head)] = head
        self.arrivals += len(head)
        if len(rest):
            self._replace(self._store, rest)
            self.arrivals += len(rest)

    @abstractmethod
    def _replace(self, store: Items, block: Items) -> None:
        """Write what is kept of `block` into the full `store`; `self.arrivals` counts what came before."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on bit for bit.

        Returns
        -------
        dict
            Integers, strings, dictionaries and one array (or None).
        """
        return {
            "name": self.name,
            "capacity": self.capacity,
            "arrivals": self.arrivals,
            "store": None if self._store is None else self._store.copy(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        InvalidProblemError
            If the state is that of another kind of buffer or of another capacity.
        """
        for field in ("name", "capacity"):
            if state[field] != getattr(self, field):
                raise InvalidProblemError(
                    f"state has {field} = {state[field]!r}, this buffer has {getattr(self, field)!r}"
                )
        self.arrivals = int(state["arrivals"])
        self._store = None if state["store"] is None else np.array(state["store"])
        self._rng.bit_generator.state = state["rng"]


class Reservoir(Buffer):
    """Keep a uniform sample without replacement of everything that ever arrived.

    Instead of one random choice per arrival the buffer draws how many arrivals to skip until the next one
    that it keeps: O(capacity (1 + log(n / capacity))) work for n arrivals.

    References
    ----------
    Vitter, Random sampling with a reservoir, ACM TOMS 11(1), 1985 (skipping); Li, Reservoir-sampling
    algorithms of time complexity O(n(1 + log(N/n))), ACM TOMS 20(4), 1994 (algorithm L).

    Examples
    --------
    >>> import numpy as np
    >>> buffer = Reservoir(4, seed=0)
    >>> buffer.insert(np.arange(1000))
    >>> len(buffer), buffer.arrivals
    (4, 1000)
    """

    name = "reservoir"

    def __init__(self, capacity: int, *, seed: int | np.random.Generator) -> None:
        super().__init__(capacity, seed=seed)
        # Largest of the `capacity` smallest of n uniform keys, as a logarithm: exact however long the stream.
        self._log_threshold = 0.0
        self._next = self.capacity
        self._advance(self.capacity)

    def _advance(self, arrivals: int) -> None:
        self._log_threshold -= float(self._rng.standard_exponential()) / self.capacity
        low = min(self._log_threshold, -5e-324)  # an exponential draw of exactly 0 must not give log(0)
        above = math.log1p(-math.exp(low)) if low < -1 else math.log(-math.expm1(low))
        self._next = arrivals + int(float(self._rng.standard_exponential()) / -above)

    def _replace(self, store: Items, block: Items) -> None:
        start, stop = self.arrivals, self.arrivals + len(block)
        slots, kept = [], []
        while self._next < stop:
            slots.append(int(self._rng.integers(self.capacity)))
            kept.append(self._next - start)
            self._advance(self._next + 1)
        store[slots] = block[kept]  # the last write to a slot wins, as in the stream

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on bit for bit."""
        return {**super().state_dict(), "log_threshold": self._log_threshold, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state)
        self._log_threshold = float(state["log_threshold"])
        self._next = int(state["next"])


class RandomReplacement(Buffer):
    """Put every arrival in the place of an item chosen at random: recent arrivals count more, old ones fade.

    Examples
    --------
    >>> import numpy as np
    >>> buffer = RandomReplacement(3, seed=1)
    >>> buffer.insert(np.arange(100))
    >>> 99 in buffer.items
    True
    """

    name = "random"

    def _replace(self, store: Items, block: Items) -> None:
        store[self._rng.integers(self.capacity, size=len(block))] = block


class Fifo(Buffer):
    """Keep the latest `capacity` arrivals.

    Examples
    --------
    >>> import numpy as np
    >>> buffer = Fifo(3, seed=0)
    >>> buffer.insert(np.arange(5))
    >>> buffer.items
    array([3, 4, 2])
    """

    name = "fifo"

    def _replace(self, store: Items, block: Items) -> None:
        last = block[-self.capacity :]
        first = self.arrivals + len(block) - len(last)
        store[(first + np.arange(len(last))) % self.capacity] = last
