"""Sizes from lists: those taken at a price, those that fill limits, and the best among all that could be.

At a price per sample every device takes the size with the smallest w / s + price s, which bounds all plans
from below; the best price is found by bisection, since dearer samples never make batches larger. From there
on a plan is found by greedy filling. What separates the two is closed by enumeration where it can be: a plan
that is better than the one at hand must choose, on every device, a size whose loss at the price is less than
the gap; partial plans that another one beats in noise and in spending are dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from coopt.objectives.monotone import inverse_batches
from coopt.solvers.exact.inner import Spending
from coopt.solvers.whole_units.batches import Floats, Ints

# Halvings of the logarithm of the price, from the range in which anything happens.
HALVINGS = 60
# Partial plans that are kept at most before the gap is left open.
MOST_PARTIAL = 20_000


@dataclass(frozen=True)
class Priced:
    """The sizes taken at a price of a limit, as places in the table, and the lower bound that they prove."""

    places: Ints
    bound: float
    price: float
    limit: Spending


@dataclass(frozen=True)
class ListedSizes:
    """The sizes that each device may choose from at one (K, tau).

    Attributes
    ----------
    table : ndarray of int64, shape (N, C)
        The sizes of each device, ascending.
    noise : ndarray, shape (N, C)
        The noise of each size.
    most : ndarray of int64, shape (N,)
        Largest size within the limit on time; may be below the smallest, which is then taken all the same.
    """

    table: Ints
    noise: Floats
    most: Ints

    @classmethod
    def of(cls, table: Ints, weights: Floats, population: Ints | None, most: Ints) -> Self:
        """With the noise w_i / s, or less where batches are drawn without replacement."""
        held = None if population is None else population[:, None]
        noise = weights[:, None] * inverse_batches(table.astype(np.float64), held)
        return cls(table, noise, most)

    def taken(self, prices: Floats) -> tuple[Ints, Floats]:
        """Places of the sizes with the smallest noise + price s, the smaller of equals, and these sums."""
        sums = self._sums(prices)
        places = sums.argmin(axis=1)
        return places, sums[np.arange(len(self.table)), places]

    def _sums(self, prices: Floats) -> Floats:
        """Noise + price s of every size; infinite where it is too large, but for the smallest."""
        admitted = self.table <= np.maximum(self.most, self.table[:, 0])[:, None]
        found: Floats = np.where(admitted, self.noise + prices[:, None] * self.table, math.inf)
        return found

    def best_price(self, limit: Spending) -> Priced:
        """The price of a limit, or of a mixture of limits, at which the bound is largest."""
        rows = np.arange(len(self.table))

        def at(price: float) -> tuple[Priced, float]:
            places, sums = self.taken(price * limit.sample)
            used = float(np.sum(limit.sample * self.table[rows, places]))
            bound = float(np.sum(sums)) - (price * limit.limit if price > 0.0 else 0.0)
            return Priced(places, bound, price, limit), used

        free, used = at(0.0)
        if used <= limit.limit:
            return free
        with np.errstate(divide="ignore", invalid="ignore"):
            used_more = np.diff(self.table, axis=1) * limit.sample[:, None]
            ratios = np.abs(np.diff(self.noise, axis=1)) / used_more
        known = ratios[np.isfinite(ratios) & (ratios > 0.0)]
        if known.size == 0:
            return free
        low, high = math.log(float(known.min()) / 2.0), math.log(float(known.max()) * 2.0)
        best, _ = at(math.exp(high))
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            found, used = at(math.exp(middle))
            best = max(best, found, key=lambda each: each.bound)
            low, high = (middle, high) if used > limit.limit else (low, middle)
        # At the end of the bisection nothing more is wanted than fits.
        last, _ = at(math.exp(high))
        price = last.price if last.bound >= best.bound else best.price
        return Priced(last.places, max(best.bound, last.bound), price, limit)

    def filled(self, uses: Floats, budgets: Floats, priced: Priced) -> Ints:
        """Sizes within all limits: those at the price where they fit, then the most useful steps upwards."""
        rows, places = np.arange(len(self.table)), priced.places.copy()
        if (uses @ self.table[rows, places] > budgets).any():
            places = np.zeros(len(self.table), dtype=np.int64)
        left = budgets - uses @ self.table[rows, places]
        steps = []
        for i in rows.tolist():
            for place in range(int(places[i]), self.table.shape[1] - 1):
                size = int(self.table[i, place + 1] - self.table[i, place])
                if size > 0 and self.table[i, place + 1] <= self.most[i]:
                    gain = float(self.noise[i, place] - self.noise[i, place + 1])
                    used = float(priced.limit.sample[i]) * size
                    steps.append((-gain / used if used > 0.0 else -math.inf, i, place, size))
        for _, i, place, size in sorted(steps):
            need = uses[:, i] * size
            if places[i] == place and (need <= left).all():
                places[i] += 1
                left = left - need
        return places

    def enumerated(self, uses: Floats, budgets: Floats, priced: Priced, places: Ints) -> Ints | None:
        """The best sizes, which are those at `places` unless others are better; None if not known."""
        value = float(np.sum(self.noise[np.arange(len(places)), places]))
        count = len(self.table)
        prices = priced.price * priced.limit.sample
        _, least = self.taken(prices)
        room = value - (float(np.sum(least)) - priced.price * priced.limit.limit)
        loss = self._sums(prices) - least[:, None]
        repeated = np.zeros(self.table.shape, dtype=bool)
        repeated[:, 1:] = self.table[:, 1:] == self.table[:, :-1]
        loss[repeated] = math.inf
        # Of what the devices still to come use at least.
        smallest = (uses * np.where(loss < room, self.table, np.iinfo(np.int64).max).min(axis=1)).T[::-1]
        ahead = np.vstack([np.cumsum(smallest, axis=0)[::-1], np.zeros(uses.shape[0])])
        left, lost, total = budgets[None], np.zeros(1), np.zeros(1)
        trail: list[tuple[Ints, Ints]] = []
        for i in range(count):
            options = np.flatnonzero(loss[i] < room)
            if options.size == 0:
                return places
            left = (left[:, None] - uses[:, i] * self.table[i, options, None]).reshape(-1, uses.shape[0])
            lost = (lost[:, None] + loss[i, options]).ravel()
            total = (total[:, None] + self.noise[i, options]).ravel()
            parent = np.repeat(np.arange(lost.size // options.size), options.size)
            option = np.tile(options, lost.size // options.size)
            kept = np.flatnonzero((lost < room) & (left >= ahead[i + 1]).all(axis=1))
            kept = kept[_undominated(left[kept], total[kept])]
            if kept.size == 0:
                return places
            if kept.size > MOST_PARTIAL:
                return None
            left, lost, total = left[kept], lost[kept], total[kept]
            trail.append((parent[kept], option[kept]))
        best = int(total.argmin())
        if total[best] >= value:
            return places
        better = np.zeros(count, dtype=np.int64)
        for i in range(count - 1, -1, -1):
            parents, chosen = trail[i]
            better[i], best = chosen[best], int(parents[best])
        return better


def _undominated(left: Floats, total: Floats) -> Ints:
    """Partial plans that no other one beats in noise and in what is left; with two limits, only in order."""
    if left.shape[1] != 1:
        return np.arange(total.size)
    order = np.lexsort((-left[:, 0], total))
    most = np.maximum.accumulate(left[order, 0])
    ahead = np.concatenate([[-math.inf], most[:-1]])
    kept: Ints = order[left[order, 0] > ahead]
    return kept
