"""What rows and whole batches say of all (K, tau) at once, in one direction of the noise.

A *row*, from a continuous optimum at one (K, tau), is a lower bound on the inner problem at every other. The
lower bound on whole batches at one (K, tau) holds for every plan with as many rounds and local steps or more.
Any :class:`~coopt.solvers.contract.Inner` gives both (:mod:`coopt.solvers.exact.inner_oracle`); fleets of any
size at equal unit costs have ways of their own (:mod:`coopt.solvers.exact.equal_costs`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.monotone import MonotoneForm, floors_at
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers import fleet_passes as passes
from coopt.solvers.fleet_passes import GUESSED_FROM, DeviceColumns, compact

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Directions in which the noise without limits is computed; between them it is interpolated.
NODES = 5
# In place of floors that no float holds.
BEYOND = 1e300
# Directions are extended beyond those between the two noise terms by this at most.
FURTHEST = 100.0


@dataclass(frozen=True)
class Row:
    """v(angle) >= constant - slope / (K tau) + rise / tau for every (K, tau)."""

    angle: float
    constant: float
    slope: float
    rise: float

    @classmethod
    def of(cls, angle: float, constant: float, slope: float, rise: float) -> Self:
        """The row with these numbers; one that says nothing where they leave the range of floats."""
        if not math.isfinite(constant + slope + rise):
            constant = slope = rise = 0.0
        return cls(angle, constant, slope, rise)


@dataclass(frozen=True)
class WholeBatches:
    """Whole batches in one direction at one (K, tau), and what they prove.

    Attributes
    ----------
    batch_sizes : ndarray of int64, shape (N,)
    noise : ndarray, shape (k,)
        The noise terms, each over its sum at s = 1.
    level : float
        v(angle) is at least this, here and for as many rounds and local steps or more.
    closed : bool
        Whether `level` is v(angle), or reaches the cutoff: nothing more is to be proved here.
    units : float, default 0
        How many units a step may use here.
    price : float, default 0
        By so much the lower bound rises for each unit less that a step may use, at least.
    """

    batch_sizes: Ints
    noise: Floats
    level: float
    closed: bool
    units: float = 0.0
    price: float = 0.0


class Oracle(ABC):
    """The inner problem of a problem and a form, in every direction.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        self.problem = problem
        self.form = form
        self.solves = 0
        fleet, basis = problem.fleet, form.floor(1, np.zeros(1, dtype=np.intp)).basis
        lower, upper = fleet.batch_range()
        nobody = np.empty(0, dtype=np.int64)
        self.devices = DeviceColumns(
            first=np.ascontiguousarray(basis[0]),
            second=np.ascontiguousarray(basis[-1]),
            cost=compact(fleet.sample_cost),
            lower=compact(lower).astype(np.float64),
            upper=compact(upper).astype(np.float64),
            multiple=compact(fleet.batch_multiple),
            population=nobody if form.population is None else np.ascontiguousarray(form.population),
            throughput=compact(fleet.throughput),
            round_time=compact(fleet.round_time),
            step_time=compact(fleet.step_time),
            part=passes.parts_of(fleet)[0],
            part_throughput=passes.parts_of(fleet)[1],
        )
        self.terms = len(basis)
        self.norms = self._sums()
        self.scales = np.where(self.norms > 0.0, self.norms, 1.0)
        self.ends = self._ends()

    @abstractmethod
    def row(self, rounds: int, local_steps: int, angle: float) -> Row:
        """A row from the continuous optimum at (K, tau), or from close to it."""

    @abstractmethod
    def whole(self, rounds: int, local_steps: int, angle: float, cutoff: float | None = None) -> WholeBatches:
        """Whole batches at (K, tau), where the smallest batches must fit.

        Parameters
        ----------
        rounds, local_steps : int
        angle : float
        cutoff : float, optional
            A v from here on is of no interest: find the optimum if it is below. None is content with good
            batches and a lower bound.
        """

    def most_units(self, rounds: Floats, local_steps: Floats) -> Floats:
        """The most units that a step may use at several (K, tau); inf where units cost differently."""
        del local_steps
        return np.full(rounds.size, math.inf)

    def floors(self, local_steps: list[int], active: NDArray[np.intp]) -> Floats:
        """Offsets, sizes and angles of the members at every tau, shape (n, 3, m)."""
        offsets, shares = floors_at(self.form, local_steps, active)
        with np.errstate(invalid="ignore", over="ignore"):
            # Any share of no noise is nothing, an infinite one too.
            amounts = shares * self.norms
            amounts[..., self.norms == 0.0] = 0.0
            sizes = amounts.sum(axis=2)
            angles = amounts[..., -1] / np.where(sizes > 0.0, sizes, 1.0)
        # An infinite share, which is one of the last term, of no noise is nothing: a large one is as good.
        endless = np.isinf(sizes)
        sizes[endless], angles[endless] = BEYOND, 1.0
        found = np.stack([offsets, sizes, angles if self.terms == 2 else np.zeros_like(sizes)], axis=1)
        # What no float holds is larger than anything of interest.
        beyond = ~np.isfinite(found).all(axis=1)
        for place, value in enumerate((BEYOND, 0.0, 0.0)):
            found[:, place][beyond] = value
        return found

    def value(self, rounds: int, local_steps: int, noise: Floats) -> tuple[float, int]:
        """The smallest value over the members of a plan with so much of each noise term, and whose it is."""
        everyone = np.arange(len(self.form.members))
        floor = self.form.floor(local_steps, everyone)
        start, slope = self.form.progress(np.array([float(rounds * local_steps)]), everyone)
        with np.errstate(invalid="ignore"):
            amounts = np.where(noise > 0.0, floor.shares * self.norms * noise, 0.0).sum(axis=1)
        values = start[:, 0] + slope[:, 0] * (floor.offsets + amounts)
        best = int(values.argmin())
        return float(values[best]), best

    def unlimited(self, angles: Floats) -> Floats:
        """About v(angle) per unit of budget if only the cost limited batches, from some of the devices."""
        every = -(-len(self.devices) // GUESSED_FROM)
        nodes = np.linspace(0.0, 1.0, NODES) if self.terms == 2 else np.zeros(1)
        cost = self.devices.cost if self.devices.cost.size == 1 else self.devices.cost[::every]
        roots = []
        for angle in nodes.tolist():
            first, second = self._shares(angle)
            weights = self.devices.first[::every] * first + self.devices.second[::every] * second
            roots.append(float(np.sqrt(weights * cost).mean()) * len(self.devices))
        squares = np.array(roots) ** 2
        found: Floats = np.interp(angles, nodes, squares)
        return found

    def _ends(self) -> tuple[float, float]:
        """The directions, at most 0 and at least 1, between which no weight is negative."""
        if self.terms == 1 or not self.norms.all():
            return 0.0, 1.0
        least, most = math.inf, 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            for begin in range(0, len(self.devices), limits.BLOCK):
                block = slice(begin, begin + limits.BLOCK)
                ratio = self.devices.first[block] / self.devices.second[block]
                # No number where neither noise is any.
                least = min(least, float(np.fmin.reduce(ratio, initial=math.inf)))
                most = max(most, float(np.fmax.reduce(ratio, initial=0.0)))
        scale = float(self.norms[1] / self.norms[0])
        # A little inside, so that rounding makes no weight negative.
        least, most = least * scale * (1.0 - 1e-9), most * scale * (1.0 + 1e-9)
        low = -least / (1.0 - least) if least < 1.0 else -math.inf
        return max(low, -FURTHEST), min(most / (most - 1.0), 1.0 + FURTHEST) if 1.0 < most < math.inf else 1.0

    def _sums(self) -> Floats:
        terms = (self.devices.first, self.devices.second)[: self.terms]
        return np.array([float(np.sum(term)) for term in terms])

    def _shares(self, angle: float) -> tuple[float, float]:
        first, *second = (mix(angle, self.terms) / self.scales).tolist()
        return first, (second[0] if second else 0.0)


def mix(angle: float, terms: int) -> Floats:
    """How much of each normalised noise term a direction has."""
    return np.array([1.0 - angle, angle]) if terms == 2 else np.ones(1)
