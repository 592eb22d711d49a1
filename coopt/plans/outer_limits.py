"""What limits admit, rounded outwards: for checkers, which share no code with the solvers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coopt.problem.exact_sum import exact_sum
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Outward slack on quotients that are rounded down to whole units.
OUTWARD = 1e-12


class OuterLimits:
    """The limits on cost, time and energy, and on batches.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        plain = problem.plain
        self.fleet, self.budget = plain.fleet, plain.budget
        self.multiple = self.fleet.batch_multiple
        self.lower = -(-self.fleet.min_batch // self.multiple) * self.multiple
        self.upper = self.fleet.max_batch // self.multiple * self.multiple
        self.sizes = self._allowed()
        if self.sizes is not None:
            self.lower = np.array([each[0] for each in self.sizes])
            self.upper = np.array([each[-1] for each in self.sizes])
        self.cost_limit = self.budget.cost * (1.0 + TOLERANCE)
        self.time_limit = self.budget.time * (1.0 + TOLERANCE)
        self.energy_limit = self.budget.energy * (1.0 + TOLERANCE)
        self.round_energy = exact_sum(self.fleet.round_energy)
        self.step_cost = exact_sum(self.fleet.step_cost)
        self.step_energy = exact_sum(self.fleet.step_energy)
        units = self.fleet.sample_cost * self.multiple
        self.unit = float(units[0]) if bool((units == units[0]).all()) and units[0] > 0.0 else None
        self.least_work = exact_sum(self.fleet.sample_cost * self.lower)
        self.least_energy = exact_sum(self.fleet.sample_energy * self.lower)

    def feasible(self, rounds: int, local_steps: int) -> bool:
        """Whether the smallest batches fit; where they do not, nothing with more rounds or steps does."""
        return self._fits(rounds, local_steps, self.lower, self.least_work, self.least_energy)

    def admits(self, rounds: int, local_steps: int, batches: Ints) -> bool:
        """Whether batches fit, and are no larger than the largest."""
        whole = -(-batches // self.multiple) * self.multiple
        work = exact_sum(self.fleet.sample_cost * whole)
        energy = exact_sum(self.fleet.sample_energy * whole)
        return bool((whole <= self.upper).all()) and self._fits(rounds, local_steps, whole, work, energy)

    def _fits(self, rounds: int, local_steps: int, batches: Ints, work: float, energy: float) -> bool:
        spent = rounds * (local_steps * (work + self.step_cost) + self.budget.round_cost)
        with np.errstate(over="ignore"):
            step = self.fleet.step_time * self._parts(batches) + batches / self.fleet.throughput
            busy = rounds * (local_steps * step + self.fleet.round_time)
        burnt = rounds * (local_steps * (energy + self.step_energy) + self.round_energy)
        return all(
            used <= limit * (1.0 + OUTWARD)
            for used, limit in (
                (spent, self.cost_limit),
                (float(busy.max()), self.time_limit),
                (burnt, self.energy_limit),
            )
        )

    def step_limits(self, product: Floats | float, steps: Floats | float) -> Floats:
        """What one step may cost and burn at most, for given K tau and tau; inf where there is no limit."""
        cost = self.cost_limit / product - self.budget.round_cost / steps - self.step_cost
        # Where a unit costs the same everywhere only whole units are spent: what is left over buys nothing.
        if self.unit is not None:
            cost = self.unit * np.floor(cost / self.unit * (1.0 + OUTWARD))
        with np.errstate(invalid="ignore"):
            energy = self.energy_limit / product - self.round_energy / steps - self.step_energy
        # What is beyond floats on both sides limits nothing: outwards.
        return np.nan_to_num([cost, energy], nan=math.inf, posinf=math.inf, neginf=-math.inf)

    def largest_batches(self, rounds: int, local_steps: int) -> Ints:
        """Largest batches within the time limit, rounded outwards."""
        if self.budget.time == math.inf:
            return self.upper
        slack = self.time_limit / rounds - self.fleet.round_time
        slack = slack / local_steps
        start, speed = self.fleet.step_time, self.fleet.throughput
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            caps = speed * np.maximum(slack - start, 0.0)
            caps = np.where(np.isnan(caps), math.inf, caps)
            if self.fleet.micro_batch is not None:
                part = self.fleet.micro_batch
                # So many parts take their own time and that of their samples; one more may be begun.
                full = np.floor(np.maximum(slack, 0.0) * (1.0 + OUTWARD) / (start + part / speed))
                rest = np.minimum(speed * (slack - start * (full + 1.0)), part * (full + 1.0))
                caps = np.where(start > 0.0, np.fmax(part * full, rest), caps)
        caps = caps * (1.0 + OUTWARD)
        units = np.floor(np.minimum(caps, self.upper) / self.multiple).astype(np.int64)
        most: Ints = np.clip(units * self.multiple, self.lower, self.upper)
        return most

    def lines(self, rounds: int, local_steps: int) -> tuple[Floats, Floats]:
        """Samples a second and seconds besides, by which each device takes no longer for a step than it does.

        Parts of m samples take alpha ceil(s/m) + s/pi, at least alpha + s/pi and s (alpha/m + 1/pi): that of
        the two which says more at (K, tau).
        """
        start, speed, micro = self.fleet.step_time, self.fleet.throughput, self.fleet.micro_batch
        if micro is None:
            return speed, start
        slack = (self.time_limit / rounds - self.fleet.round_time) / local_steps
        parted = (start > 0.0) & (slack > start + micro / speed)
        with np.errstate(divide="ignore"):
            together = 1.0 / (start / micro + 1.0 / speed)
        return np.where(parted, together, speed), np.where(parted, 0.0, start)

    def _allowed(self) -> list[Ints] | None:
        """The sizes that each device may take, ascending, where they are listed."""
        choices = self.fleet.batch_choices
        if choices is None:
            return None
        low, high = self.fleet.min_batch, self.fleet.max_batch
        listed = [np.array(sorted(each), dtype=np.int64) for each in choices]
        return [each[(each >= low[i]) & (each <= high[i])] for i, each in enumerate(listed)]

    def _parts(self, batches: Ints) -> Floats | float:
        """Parts in which batches are taken."""
        micro = self.fleet.micro_batch
        return 1.0 if micro is None else -(-batches // micro).astype(np.float64)
