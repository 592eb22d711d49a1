"""The problem: a fleet of devices, the constants of its loss, and the budget. Validated once, here.

Everything is frozen: arrays are read-only copies, so a solver, a controller and a certificate that
hold the same :class:`Problem` can never disagree about what was asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.problem import limits
from coopt.problem.fleet import Fleet
from coopt.problem.participation import check_participants, probabilities
from coopt.problem.validation import float_array, optional_count, optional_real, real, same_value

if TYPE_CHECKING:
    from coopt.problem.limits import Violation

__all__ = ["Budget", "Constants", "Fleet", "Problem"]


@dataclass(frozen=True)
class Constants:
    """What is known of the loss, in the units of the loss, its gradient and its curvature.

    Parameters
    ----------
    learning_rate : float
        eta > 0 [1 / curvature].
    smoothness : float
        beta > 0: every device's loss has a beta-Lipschitz gradient [curvature].
    initial_gap : float
        D0 = F(w_0) - F* >= 0 [loss]; for the non-convex bound F(w_0) - inf F.
    pl_constant : float, optional
        c > 0 with 2 c (F - F*) <= ||grad F||^2 (Polyak-Lojasiewicz) [curvature]; needed by every
        bound but the non-convex one.
    curvature_floor : float, optional
        ell in [-beta, beta], a lower bound on the curvature of every device's loss: 0 when convex,
        mu when mu-strongly convex; default -beta, which smoothness alone guarantees [curvature].
    mean_smoothness : float, optional
        beta_F <= beta, the smoothness of the average loss; default beta [curvature].
    coupling : float, optional
        beta_d <= beta, how strongly drift of the devices moves the averaged gradient; default
        (beta - ell) / 2, which always holds [curvature].
    quadratic_continuity : float, optional
        rho of the published bound; default 1 / (eta tau) there [curvature].
    lipschitz : float, optional
        rho of the AdaCoOpt bound, a Lipschitz constant of the loss [gradient].
    gradient_bias : float, optional
        epsilon >= 0 with ||sum p_i grad F_i - grad F|| <= epsilon for every model [gradient]: how far the
        devices that train are from the loss F that counts, where they are not all of it; default 0.

    Raises
    ------
    InvalidProblemError
        If a value is not a finite number in its range, or curvatures are out of order.

    Examples
    --------
    >>> from coopt import Constants
    >>> Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=5.0)
    Traceback (most recent call last):
    ...
    coopt.errors.InvalidProblemError: pl_constant = 5.0: must not exceed smoothness = 4.0
    """

    learning_rate: float
    smoothness: float
    initial_gap: float
    pl_constant: float | None = None
    curvature_floor: float | None = None
    mean_smoothness: float | None = None
    coupling: float | None = None
    quadratic_continuity: float | None = None
    lipschitz: float | None = None
    gradient_bias: float | None = None

    def __post_init__(self) -> None:
        checked: dict[str, float | None] = {
            "learning_rate": real("learning_rate", self.learning_rate, minimum=0.0, strict=True),
            "smoothness": real("smoothness", self.smoothness, minimum=0.0, strict=True),
            "initial_gap": real("initial_gap", self.initial_gap, minimum=0.0),
            "pl_constant": optional_real("pl_constant", self.pl_constant, minimum=0.0, strict=True),
            "curvature_floor": optional_real("curvature_floor", self.curvature_floor),
            "mean_smoothness": optional_real(
                "mean_smoothness", self.mean_smoothness, minimum=0.0, strict=True
            ),
            "coupling": optional_real("coupling", self.coupling, minimum=0.0),
            "quadratic_continuity": optional_real(
                "quadratic_continuity", self.quadratic_continuity, minimum=0.0
            ),
            "lipschitz": optional_real("lipschitz", self.lipschitz, minimum=0.0),
            "gradient_bias": optional_real("gradient_bias", self.gradient_bias, minimum=0.0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name in ("pl_constant", "mean_smoothness", "coupling"):
            self._must_not_exceed(name, "smoothness")
        if self.mean_smoothness is not None:
            self._must_not_exceed("pl_constant", "mean_smoothness")
        floor = self.curvature_floor
        if floor is not None and abs(floor) > self.smoothness:
            raise InvalidProblemError(
                f"curvature_floor = {floor!r}: must lie between -smoothness = {-self.smoothness!r} "
                f"and smoothness = {self.smoothness!r}"
            )

    def _must_not_exceed(self, name: str, ceiling: str) -> None:
        value, limit = getattr(self, name), getattr(self, ceiling)
        if value is not None and value > limit:
            raise InvalidProblemError(f"{name} = {value!r}: must not exceed {ceiling} = {limit!r}")


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Parameters
    ----------
    cost : float, default inf
        R >= 0, the total cost of all rounds, in the unit of ``Fleet.sample_cost``.
    time : float, default inf
        theta >= 0, the completion time of all rounds [s]; the slowest device sets each round.
    round_cost : float, default 0
        b >= 0, the cost of one round beyond its samples and ``Fleet.round_cost``.
    max_rounds, max_local_steps : int, optional
        Upper limits on K and tau.
    participants : int, optional
        m >= 1: the server averages m devices a round, drawn independently, device i with the probability
        p_i, each with the weight 1/m. Default: every device takes part in every round. Costs are then
        expected ones, and the time limit holds whoever is drawn.
    distinct_participants : bool, default False
        Whether the m devices are distinct, each set of m as likely as any other; needs equal weights.
    energy : float, default inf
        E >= 0, the energy that all devices together may use in all rounds [J].

    Raises
    ------
    InvalidProblemError
        If a value is not a number in its range, or a count is fractional.
    """

    cost: float = float("inf")
    time: float = float("inf")
    round_cost: float = 0.0
    max_rounds: int | None = None
    max_local_steps: int | None = None
    participants: int | None = None
    distinct_participants: bool = False
    energy: float = float("inf")

    def __post_init__(self) -> None:
        checked: dict[str, float | int | None] = {
            "cost": real("cost", self.cost, minimum=0.0, infinite=True),
            "time": real("time", self.time, minimum=0.0, infinite=True),
            "round_cost": real("round_cost", self.round_cost, minimum=0.0),
            "max_rounds": optional_count("max_rounds", self.max_rounds),
            "max_local_steps": optional_count("max_local_steps", self.max_local_steps),
            "participants": optional_count("participants", self.participants),
            "energy": real("energy", self.energy, minimum=0.0, infinite=True),
        }
        if not isinstance(self.distinct_participants, bool | np.bool_):
            raise InvalidProblemError(
                f"distinct_participants = {self.distinct_participants!r}: must be true or false"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def including(self, fleet: Fleet) -> Budget:
        """The budget with what a round costs on each device added to what a round costs."""
        return replace(self, round_cost=math.fsum([self.round_cost, *fleet.round_cost.tolist()]))


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

    fleet: Fleet
    constants: Constants
    budget: Budget

    def __post_init__(self) -> None:
        for field, expected in zip(fields(self), (Fleet, Constants, Budget), strict=True):
            value = getattr(self, field.name)
            if not isinstance(value, expected):
                raise InvalidProblemError(
                    f"{field.name} = {value!r}: must be a coopt.{expected.__name__}, "
                    f"not {type(value).__name__}"
                )
        budget = self.budget
        check_participants(self.fleet.weights, budget.participants, budget.distinct_participants)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    @cached_property
    def plain(self) -> Problem:
        """The same limits as if all devices took part at the costs expected of them, as solvers take it.

        All that a round costs is in the budget.
        """
        fleet, budget = self.fleet, self.budget
        if budget.participants is not None:
            likely = probabilities(fleet.weights, budget.participants, budget.distinct_participants)
            fleet = replace(
                fleet,
                **{
                    name: getattr(fleet, name) * likely
                    for name in ("sample_cost", "round_cost", "sample_energy", "round_energy")
                },
            )
            budget = replace(budget, participants=None, distinct_participants=False)
        elif fleet.free_rounds:
            return self
        free = replace(fleet, round_cost=np.zeros(len(fleet)))
        return Problem(free, self.constants, budget.including(fleet))

    def cost(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Total cost K (tau sum a_i s_i + b + sum b_i) of a plan.

        Where only some devices take part in a round it is the expected cost.
        """
        return limits.cost(self, rounds, local_steps, self._batches(batch_sizes))

    def largest_cost(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Cost of a plan if the dearest devices were drawn every round; else that of :meth:`cost`."""
        spent = self.fleet.sample_cost * local_steps * self._batches(batch_sizes) + self.fleet.round_cost
        most = min(self.budget.participants or len(self.fleet), len(self.fleet))
        return rounds * (math.fsum(np.sort(spent)[-most:].tolist()) + self.budget.round_cost)

    def energy(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Energy K (tau sum e_i s_i + sum g_i) of a plan [J], expected where some devices take part."""
        return limits.energy(self, rounds, local_steps, self._batches(batch_sizes))

    def time(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Completion time max_i K (tau s_i / pi_i + u_i) of a plan [s]."""
        return float(limits.device_times(self, rounds, local_steps, self._batches(batch_sizes)).max())

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
        return limits.violations(self, rounds, local_steps, self._batches(batch_sizes))

    def _batches(self, batch_sizes: ArrayLike) -> NDArray[np.float64]:
        return float_array("batch_sizes", batch_sizes, len(self.fleet), minimum=0.0)

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a problem from a TOML file with the tables ``fleet``, ``constants`` and ``budget``.

        ``fleet`` is a table of :class:`Fleet` fields, or the path of a CSV file relative to the TOML
        file; a table may also name its CSV file as ``csv`` and add the fields that it lacks.

        Raises
        ------
        InvalidProblemError
            If the file cannot be read, a key is unknown (the nearest valid one is given) or a value
            is wrong.
        """
        from coopt.problem.files import read_problem

        return cls(*read_problem(Path(path)))

    def to_toml(self, path: str | Path) -> None:
        """Write the problem as one TOML file; :meth:`from_toml` gives back an equal problem."""
        from coopt.problem.files import write_problem

        write_problem(self, Path(path))
