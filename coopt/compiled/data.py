"""What the compiled functions are given: plain tuples of arrays and numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Sums may be taken in any order where that fills wide registers; nothing else of the standard is given up.
quick = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
exact = njit(cache=True, nogil=True, error_model="numpy")


class Devices(NamedTuple):
    """:class:`coopt.solvers.passes.Devices` as floats; an array of one entry holds for all devices."""

    first: Floats
    second: Floats
    cost: Floats
    lower: Floats
    upper: Floats
    multiple: Floats
    population: Floats
    throughput: Floats
    round_time: Floats


class Limits(NamedTuple):
    """The budget, and how the devices that are taken share in it.

    Attributes
    ----------
    cost, time, round_cost, unit_cost : float
    least : float
        Cost of a step with the smallest batches, of all devices.
    step, wait : ndarray
        Seconds of the devices that can be the slowest with the smallest batches.
    own, share : float
        What the devices that are taken use of `least`, and what they have of the rest.
    """

    cost: float
    time: float
    round_cost: float
    unit_cost: float
    least: float
    step: Floats
    wait: Floats
    own: float
    share: float


class Members(NamedTuple):
    """Progress a + b G of the members of a family after T steps.

    a = gap exp(rate T) and b = 1 - exp(rate T), or, where `gap` is negative, a = rate / T and b = 1.

    Attributes
    ----------
    kind : ndarray of int, shape (m,)
        Which of the rates each member has.
    rate : ndarray, shape (kinds,)
    gap : float
    """

    kind: Ints
    rate: Floats
    gap: float


class System(NamedTuple):
    """What is searched: all devices, a sample of them to take first guesses from or nobody, and the bound.

    Attributes
    ----------
    devices, pilot : Devices
    limits, pilot_limits : Limits
    members : Members
    scales : ndarray, shape (2, 2)
        Sums of both noise terms over all devices, and over the sample.
    """

    devices: Devices
    limits: Limits
    pilot: Devices
    pilot_limits: Limits
    members: Members
    scales: Floats


class Spans(NamedTuple):
    """Ranges of local steps.

    Attributes
    ----------
    steps : ndarray, shape (n, 2)
        First and last of each range.
    floors : ndarray, shape (n, 3, m)
        Offsets, sizes and angles of the members at the first.
    active, counts : ndarray, shapes (n, m) and (n,)
        The members in some order, of which the first so many are not ruled out.
    """

    steps: Floats
    floors: Floats
    active: Ints
    counts: Ints


class Known(NamedTuple):
    """Rows and integer optima so far by direction, and the best plan.

    Attributes
    ----------
    counts : ndarray of int, shape (4,)
        How many directions, rows and integer optima there are, and which of `units` is that of the best plan.
    angles, levels : ndarray, shape (n,)
        Directions, ascending, and room for a bound in each.
    rows : ndarray, shape (n, 5)
        Place of the direction, constant, slope, rise, rounds.
    wholes : ndarray, shape (n, 6)
        Place of the direction, rounds, local steps, level, units, price.
    best : ndarray, shape (7,)
        Value, rounds, local steps and member of the best plan, the smallest bound of what was discarded, and
        both noise terms of the best plan, each over its scale.
    units : tuple of two ndarrays of int, shape (N,)
        Units of the best plan and of the last one.
    warm : ndarray, shape (2, 2)
        Level of water and logarithm of a price where the last solves ended, of all devices and of the sample.
    ends : tuple of float
        Directions beyond all others in which the inner problem is at least zero.
    """

    counts: Ints
    angles: Floats
    levels: Floats
    rows: Floats
    wholes: Floats
    best: Floats
    units: tuple[Ints, Ints]
    warm: Floats
    ends: tuple[float, float]


class Scratch(NamedTuple):
    """Room to work in: devices that take more at a lower price, their units, caps, and progress."""

    places: Ints
    many: Ints
    caps: Floats
    ahead: Floats


class Stop(NamedTuple):
    """The relative gap that does, the value from which on plans are of no interest, and solves in a scan."""

    tolerance: float
    ceiling: float
    solves: int
