"""The problem: a fleet of devices, the constants of its loss, and the budget. Validated once, here.

Everything is frozen: arrays are read-only copies, so a solver, a controller and a certificate that
hold the same :class:`Problem` can never disagree about what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.problem import limits
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.exact_sum import exact_sum
from coopt.problem.fleet import Fleet
from coopt.problem.participation import check_participants, probabilities
from coopt.problem.readable import readable
from coopt.problem.validation import LARGEST_COUNT, count, float_array, instance, real, same_value

if TYPE_CHECKING:
    from coopt.problem.limits import Violation

# What a device uses only in the rounds in which it takes part.
EXPECTED = ("sample_cost", "step_cost", "round_cost", "sample_energy", "step_energy", "round_energy")


@readable
@dataclass(frozen=True, eq=False)
class Problem:
    """One question: which rounds, local steps and batch sizes train this fleet best within this budget.

    Parameters
    ----------
    fleet : Fleet
    constants : Constants
    budget : Budget

    Notes
    -----
    A limit is met when used <= limit * (1 + 1e-9); every solver and every certificate asks
    :meth:`violations`, so that decimal data at a boundary get one verdict everywhere.
    Problems compare by value and do not hash.

    Examples
    --------
    >>> from coopt import Budget, Constants, Fleet, Problem
    >>> problem = Problem(
    ...     Fleet(samples=[60, 20], gradient_noise=4.0, divergence=0.1, throughput=[10.0, 40.0]),
    ...     Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    ...     Budget(cost=1000, time=100),
    ... )
    >>> problem.cost(5, 4, [10, 2]), problem.time(5, 4, [10, 2])
    (240.0, 20.0)
    >>> [str(v) for v in problem.violations(5, 4, [60, 20])]
    ['cost: 1600 exceeds 1000', 'time: 120 s exceeds 100 s (device 0)']
    """

    __module__ = "coopt"

    fleet: Fleet
    constants: Constants
    budget: Budget

    def __post_init__(self) -> None:
        for field, expected in zip(fields(self), (Fleet, Constants, Budget), strict=True):
            instance(field.name, getattr(self, field.name), expected)
        budget = self.budget
        check_participants(self.fleet.weights, budget.participants, budget.distinct_participants)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    def _shown(self) -> list[str]:
        return [repr(part) for part in (self.fleet, self.constants, self.budget)]

    @cached_property
    def plain(self) -> Problem:
        """The problem as solvers take it: all devices take part, at the costs expected of them.

        All that a round costs is in the budget.
        """
        fleet, budget = self.fleet, self.budget
        if budget.participants is not None:
            likely = probabilities(fleet.weights, budget.participants, budget.distinct_participants)
            fleet = replace(
                fleet,
                **{name: getattr(fleet, name) * likely for name in EXPECTED},
            )
            budget = replace(budget, participants=None, distinct_participants=False)
        elif fleet.free_rounds:
            return self
        free = replace(fleet, round_cost=np.zeros(len(fleet)))
        return Problem(free, self.constants, budget.including(fleet))

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def cost(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Total cost K (tau (sum a_i s_i + sum f_i) + b + sum b_i) + w T of a plan, T its completion time.

        Where only some devices take part in a round it is the expected cost.
        """
        return limits.cost(self, *self._plan(rounds, local_steps, batch_sizes))

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def largest_cost(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Cost of a plan if the dearest devices were drawn every round; else that of :meth:`cost`."""
        fleet = self.fleet
        step = fleet.sample_cost * self._batches(batch_sizes) + fleet.step_cost
        spent = local_steps * step + fleet.round_cost
        most = min(self.budget.participants or len(fleet), len(fleet))
        rent = self.budget.second_cost * self.time(rounds, local_steps, batch_sizes)
        return rounds * (exact_sum(np.sort(spent)[-most:]) + self.budget.round_cost) + rent

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def energy(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Energy K (tau (sum e_i s_i + sum h_i) + sum g_i) of a plan [J].

        Where only some devices take part in a round it is the expected energy.
        """
        return limits.energy(self, *self._plan(rounds, local_steps, batch_sizes))

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def time(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Completion time max_i K (tau (alpha_i ceil(s_i / m_i) + s_i / pi_i) + u_i) of a plan [s]."""
        return float(limits.device_times(self, *self._plan(rounds, local_steps, batch_sizes)).max())

    @np.errstate(over="ignore")  # what is beyond floats is infinite, and never optimal
    def violations(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> tuple[Violation, ...]:
        """Every limit that a plan breaks; empty when the plan is feasible.

        Parameters
        ----------
        rounds, local_steps : int
            K and tau.
        batch_sizes : array_like, shape (N,)
            s_i; whole numbers for a plan that can be run.

        Returns
        -------
        tuple of Violation
        """
        # Whole numbers below one break limits of their own.
        k = count("rounds", rounds, minimum=-LARGEST_COUNT)
        tau = count("local_steps", local_steps, minimum=-LARGEST_COUNT)
        return limits.violations(self, k, tau, self._batches(batch_sizes))

    def _plan(
        self, rounds: int, local_steps: int, batch_sizes: ArrayLike
    ) -> tuple[int, int, NDArray[np.float64]]:
        # The formulas hold between whole numbers too, so that only numbers are asked for.
        real("rounds", rounds)
        real("local_steps", local_steps)
        return rounds, local_steps, self._batches(batch_sizes)

    def _batches(self, batch_sizes: ArrayLike) -> NDArray[np.float64]:
        return float_array("batch_sizes", batch_sizes, len(self.fleet), minimum=0.0)

    @classmethod
    def from_toml(cls, path: str | Path, fleet: Fleet | None = None) -> Self:
        """Read a problem from a TOML file with the tables ``fleet``, ``constants`` and ``budget``.

        With `fleet` given the file is a job: it has the other two tables alone, as ``coopt plan`` takes it
        beside the CSV file that :meth:`Fleet.from_csv` reads.
        ``fleet`` is a table of :class:`Fleet` fields, or the path of a CSV file relative to the TOML
        file; a table may also name its CSV file as ``csv`` and add the fields that it lacks. A job from
        somebody you do not trust may so name any file of yours; plans in JSON open none.

        Raises
        ------
        InvalidProblemError
            If the file cannot be read, a key is unknown (the nearest valid one is given) or a value
            is wrong.
        """
        from coopt.problem.files import read_problem

        if fleet is not None:
            instance("fleet", fleet, Fleet)
        return cls(*read_problem(path, fleet))

    def to_toml(self, path: str | Path) -> None:
        """Write the problem as one TOML file; :meth:`from_toml` gives back an equal problem."""
        from coopt.problem.files import write_problem

        write_problem(self, Path(path))
