"""The passes of :mod:`coopt.solvers.passes` compiled: the same arithmetic without temporary arrays.

Needs numba. The first call in an environment compiles for some seconds; after that the machine code is read
from the cache beside this file.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from coopt.solvers.passes import Devices, Dual, Pace, Units

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Devices a block: sums are taken of blocks first, which keeps their rounding small.
BLOCK = 512
_D, _N, _OUT = types.float64, types.int64, types.Array(types.float64, 1, "C")
_WHOLE = types.Array(types.int64, 1, "C")
_F = types.Array(types.float64, 1, "C", readonly=True)
_I = types.Array(types.int64, 1, "C", readonly=True)
# Sums may be taken in any order, and so several at a time; nothing else is rearranged.
_NOWHERE = np.empty(0)
_FREE = {"reassoc", "nsz"}


@njit(types.void(_F, _N, _N, _OUT), cache=True, error_model="numpy", fastmath=_FREE)
def _load(source: Floats, begin: int, count: int, target: Floats) -> None:
    """One block of an array; an array of one entry fills it once and for all."""
    if source.size == 1:
        if begin == 0:
            target[:] = source[0]
    else:
        part = source[begin : begin + count]
        for j in range(count):
            target[j] = part[j]


@njit(types.void(_I, _N, _N, _OUT), cache=True, error_model="numpy", fastmath=_FREE)
def _load_whole(source: Ints, begin: int, count: int, target: Floats) -> None:
    """The same for whole numbers."""
    if source.size == 1:
        if begin == 0:
            target[:] = source[0]
    else:
        part = source[begin : begin + count]
        for j in range(count):
            target[j] = part[j]


@njit(types.void(_F, _F, _D, _D, _N, _N, _OUT), cache=True, error_model="numpy", fastmath=_FREE)
def _load_weights(
    first: Floats, second: Floats, share1: float, share2: float, begin: int, count: int, target: Floats
) -> None:
    one, two = first[begin : begin + count], second[begin : begin + count]
    if share2 != 0.0:
        for j in range(count):
            target[j] = one[j] * share1 + two[j] * share2
    else:
        for j in range(count):
            target[j] = one[j] * share1


@njit(types.void(_OUT, _OUT, _D, _D, _N, _OUT), cache=True, error_model="numpy", fastmath=_FREE)
def _load_caps(speed: Floats, wait: Floats, slack: float, steps: float, count: int, target: Floats) -> None:
    for j in range(count):
        target[j] = (slack - wait[j]) * speed[j] / steps


@njit(types.void(_OUT, _D, _OUT, _OUT, _N, _OUT), cache=True, error_model="numpy", fastmath=_FREE)
def _load_taken(gains: Floats, price: float, low: Floats, high: Floats, count: int, target: Floats) -> None:
    """Units of each device at a price."""
    for j in range(count):
        taken = np.floor(np.sqrt(gains[j] / price + 0.25) + 0.5)
        taken = max(low[j], taken)
        target[j] = min(taken, high[j])


@njit(_D(_OUT, _OUT, _I, _N, _N), cache=True, error_model="numpy", fastmath=_FREE)
def _noise_of(weights: Floats, batches: Floats, population: Ints, begin: int, count: int) -> float:
    """Sum w (1/s - ref) of a block."""
    total = 0.0
    if population.size == 0:
        for j in range(count):
            total += weights[j] / batches[j]
    else:
        part = population[begin : begin + count]
        for j in range(count):
            held = float(part[j])
            total += weights[j] * ((held - batches[j]) / (batches[j] * held))
    return total


@njit(
    _OUT(_F, _F, _F, _F, _F, _I, _F, _F, _D, _D, _D, _D, _D, _D, _OUT),
    cache=True,
    error_model="numpy",
    fastmath=_FREE,
)
def _dual(
    first: Floats,
    second: Floats,
    cost: Floats,
    lower: Floats,
    upper: Floats,
    population: Ints,
    throughput: Floats,
    round_time: Floats,
    share1: float,
    share2: float,
    level: float,
    price: float,
    slack: float,
    steps: float,
    out: Floats,
) -> Floats:
    total = np.zeros(6)
    c, low, high, w = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    s, speed, wait, wanted = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    cap = np.full(BLOCK, np.inf)
    for begin in range(0, first.size, BLOCK):
        count = min(BLOCK, first.size - begin)
        _load(cost, begin, count, c)
        _load(lower, begin, count, low)
        _load(upper, begin, count, high)
        _load_weights(first, second, share1, share2, begin, count, w)
        if slack < np.inf:
            _load(throughput, begin, count, speed)
            _load(round_time, begin, count, wait)
            _load_caps(speed, wait, slack, steps, count, cap)
        for j in range(count):
            wanted[j] = level * np.sqrt(w[j] / c[j])
        # Comparisons with what is no number are false: the batch is then the smallest, the cap none.
        for j in range(count):
            end = min(high[j], cap[j])
            batch = min(wanted[j], end)
            s[j] = max(low[j], batch)
        spent = movable = 0.0
        for j in range(count):
            spent += c[j] * s[j]
            movable += c[j] * s[j] if s[j] == wanted[j] else 0.0
        total[0] += spent
        total[1] += movable
        total[2] += _noise_of(w, s, population, begin, count)
        held = 0
        for j in range(count):
            held += 1 if s[j] >= cap[j] and cap[j] < high[j] else 0
        if held:
            for j in range(count):
                push = w[j] / (s[j] * s[j]) - price * c[j]
                if s[j] >= cap[j] and cap[j] < high[j] and push > 0.0:
                    total[3] += push * s[j]
                    total[4] += push * speed[j]
                    total[5] += push * speed[j] * wait[j]
        if out.size > 0:
            out[begin : begin + count] = s[:count]
    return total


@njit(
    _WHOLE(_F, _F, _F, _F, _I, _F, _F, _D, _D, _D, _D, _D, _D, _WHOLE, _WHOLE, _WHOLE, _WHOLE),
    cache=True,
    error_model="numpy",
    fastmath=_FREE,
)
def _units(
    first: Floats,
    second: Floats,
    lower: Floats,
    upper: Floats,
    multiple: Ints,
    throughput: Floats,
    round_time: Floats,
    share1: float,
    share2: float,
    dear: float,
    cheap: float,
    slack: float,
    steps: float,
    few: Ints,
    places: Ints,
    many: Ints,
    limited: Ints,
) -> Ints:
    total = moving = capped = 0
    w, low, high, unit = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    less, more, speed, wait = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    room = np.full(BLOCK, np.inf)
    for begin in range(0, first.size, BLOCK):
        count = min(BLOCK, first.size - begin)
        _load(lower, begin, count, low)
        _load(upper, begin, count, high)
        _load_whole(multiple, begin, count, unit)
        _load_weights(first, second, share1, share2, begin, count, w)
        if slack < np.inf:
            _load(throughput, begin, count, speed)
            _load(round_time, begin, count, wait)
            _load_caps(speed, wait, slack, steps, count, room)
        for j in range(count):
            w[j] /= unit[j]
            room[j] /= unit[j]
        for j in range(count):
            low[j], high[j] = np.floor(low[j] / unit[j]), np.floor(high[j] / unit[j])
        _load_taken(w, dear, low, high, count, less)
        _load_taken(w, cheap, low, high, count, more)
        taken = 0.0
        changed = near = 0
        for j in range(count):
            taken += less[j]
            changed += 1 if more[j] > less[j] else 0
            near += 1 if room[j] < more[j] + 2.0 else 0
        total += int(taken)
        part = few[begin : begin + count]
        for j in range(count):
            part[j] = int(less[j])
        if changed + near:
            for j in range(count):
                if more[j] > less[j]:
                    places[moving] = begin + j
                    many[moving] = int(more[j])
                    moving += 1
                if room[j] < more[j] + 2.0:
                    limited[capped] = begin + j
                    capped += 1
    return np.array([total, moving, capped])


@njit(_OUT(_F, _F, _I, _I), cache=True, error_model="numpy", fastmath=_FREE)
def _noise(first: Floats, second: Floats, population: Ints, batches: Ints) -> Floats:
    total = np.zeros(2)
    w, v, s = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for begin in range(0, first.size, BLOCK):
        count = min(BLOCK, first.size - begin)
        _load_whole(batches, begin, count, s)
        _load(first, begin, count, w)
        _load(second, begin, count, v)
        total[0] += _noise_of(w, s, population, begin, count)
        total[1] += _noise_of(v, s, population, begin, count)
    return total


class CompiledPasses:
    """The compiled passes."""

    def dual(
        self,
        devices: Devices,
        shares: tuple[float, float],
        level: float,
        price: float,
        pace: Pace | None,
        out: Floats = _NOWHERE,
    ) -> Dual:
        """See :class:`coopt.solvers.passes.Passes`."""
        d, (slack, steps) = devices, (np.inf, 1.0) if pace is None else (pace.slack, pace.steps)
        spent, movable, *others = _dual(
            d.first, d.second, d.cost, d.lower, d.upper, d.population, d.throughput, d.round_time,
            *shares, level, price, slack, steps, out,
        ).tolist()  # fmt: skip
        return Dual(spent, movable / level, *others)

    def units(
        self, devices: Devices, shares: tuple[float, float], dear: float, cheap: float, pace: Pace | None
    ) -> tuple[Units, NDArray[np.intp]]:
        """See :class:`coopt.solvers.passes.Passes`."""
        d, (slack, steps) = devices, (np.inf, 1.0) if pace is None else (pace.slack, pace.steps)
        few, places, many, limited = (np.empty(len(d), dtype=np.int64) for _ in range(4))
        total, moving, capped = _units(
            d.first, d.second, d.lower, d.upper, d.multiple, d.throughput, d.round_time,
            *shares, dear, cheap, slack, steps, few, places, many, limited,
        ).tolist()  # fmt: skip
        return Units(few, total, places[:moving].copy(), many[:moving].copy()), limited[:capped].copy()

    def noise(self, devices: Devices, batches: Ints) -> tuple[float, float]:
        """See :class:`coopt.solvers.passes.Passes`."""
        first, second = _noise(devices.first, devices.second, devices.population, batches).tolist()
        return first, second
