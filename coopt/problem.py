"""The problem: a fleet of devices, the constants of its loss, and the budget. Validated once, here.

Everything is frozen: arrays are read-only copies, so a solver, a controller and a certificate that
hold the same :class:`Problem` can never disagree about what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt import limits
from coopt.errors import InvalidProblemError
from coopt.validation import (
    float_array,
    integer_array,
    optional_count,
    optional_real,
    real,
    same_value,
)

if TYPE_CHECKING:
    from coopt.limits import Violation

WEIGHT_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Fleet:
    """The devices: what they hold, how noisy they are, how fast they are and what they cost.

    Every argument but `samples` and `names` may be a scalar, which then holds for every device.

    Parameters
    ----------
    samples : array_like of int, shape (N,)
        Training samples held by each device, d_i >= 1.
    gradient_noise : array_like, shape (N,) or scalar
        M_i >= 0, so that a mini-batch gradient of size s has variance (trace of the covariance) at
        most M_i / s [gradient^2 * samples].
    divergence : array_like, shape (N,) or scalar
        delta_i >= 0, the largest distance between the gradient of device i and the global gradient
        [gradient]. There is no default: a silent zero would make the bound false.
    throughput : array_like, shape (N,) or scalar, default inf
        pi_i > 0, samples processed per second.
    round_time : array_like, shape (N,) or scalar, default 0
        u_i >= 0, seconds of communication per round.
    sample_cost : array_like, shape (N,) or scalar, default 1
        a_i >= 0, cost of processing one sample.
    weights : array_like, shape (N,), optional
        Aggregation weights p_i >= 0 that sum to one; default samples / samples.sum().
    min_batch, max_batch : array_like of int, shape (N,) or scalar
        1 <= min_batch <= s_i <= max_batch; defaults 1 and the samples held.
    batch_multiple : array_like of int, shape (N,) or scalar, default 1
        Batch sizes are multiples of this.
    replacement : bool, default True
        Whether mini-batches are drawn with replacement. Without it the variance is at most
        M_i (1/s - 1/d_i), and max_batch may not exceed the samples held.
    names : sequence of str, optional
        Device names for tables and messages.

    Raises
    ------
    InvalidProblemError
        If a value is missing, not a number, out of range or of the wrong shape. The message names
        the field, the first offending device, the value and what would be valid.

    Notes
    -----
    Fleets compare by value and, since they hold arrays, do not hash.

    Examples
    --------
    >>> from coopt import Fleet
    >>> fleet = Fleet(samples=[600, 200], gradient_noise=4.0, divergence=0.1, throughput=[50, 400])
    >>> fleet.weights
    array([0.75, 0.25])
    >>> Fleet(samples=[600, 0], gradient_noise=4.0, divergence=0.1)
    Traceback (most recent call last):
    ...
    coopt.errors.InvalidProblemError: samples[1] = 0: must be an integer >= 1
    """

    samples: NDArray[np.int64]
    gradient_noise: NDArray[np.float64]
    divergence: NDArray[np.float64]
    throughput: NDArray[np.float64]
    round_time: NDArray[np.float64]
    sample_cost: NDArray[np.float64]
    weights: NDArray[np.float64]
    min_batch: NDArray[np.int64]
    max_batch: NDArray[np.int64]
    batch_multiple: NDArray[np.int64]
    replacement: bool
    names: tuple[str, ...] | None

    def __init__(
        self,
        samples: ArrayLike,
        gradient_noise: ArrayLike,
        divergence: ArrayLike,
        throughput: ArrayLike = np.inf,
        round_time: ArrayLike = 0.0,
        sample_cost: ArrayLike = 1.0,
        weights: ArrayLike | None = None,
        min_batch: ArrayLike = 1,
        max_batch: ArrayLike | None = None,
        batch_multiple: ArrayLike = 1,
        replacement: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:
        held = integer_array("samples", samples, None, minimum=1)
        size = held.size
        if weights is None:
            shares = held / float(held.sum())
            shares.flags.writeable = False
        else:
            shares = float_array("weights", weights, size, minimum=0.0)
            total = float(shares.sum())
            if abs(total - 1.0) > WEIGHT_SUM_TOLERANCE:
                raise InvalidProblemError(
                    f"weights sum to {total!r}: they must sum to 1 within {WEIGHT_SUM_TOLERANCE:g}; "
                    "divide them by their sum, or leave them out for samples / samples.sum()"
                )
        if not isinstance(replacement, bool | np.bool_):
            raise InvalidProblemError(f"replacement = {replacement!r}: must be true or false")
        values = {
            "samples": held,
            "gradient_noise": float_array("gradient_noise", gradient_noise, size, minimum=0.0),
            "divergence": float_array("divergence", divergence, size, minimum=0.0),
            "throughput": float_array(
                "throughput", throughput, size, minimum=0.0, strict=True, infinite=True
            ),
            "round_time": float_array("round_time", round_time, size, minimum=0.0),
            "sample_cost": float_array("sample_cost", sample_cost, size, minimum=0.0),
            "weights": shares,
            "min_batch": integer_array("min_batch", min_batch, size, minimum=1),
            "max_batch": held
            if max_batch is None
            else integer_array("max_batch", max_batch, size, minimum=1),
            "batch_multiple": integer_array("batch_multiple", batch_multiple, size, minimum=1),
            "replacement": bool(replacement),
            "names": _device_names(names, size),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_batch_range()

    def _check_batch_range(self) -> None:
        if not self.replacement:
            beyond = self.max_batch > self.samples
            if beyond.any():
                i = int(beyond.argmax())
                raise InvalidProblemError(
                    f"max_batch[{i}] = {self.max_batch[i]}: must not exceed samples[{i}] = "
                    f"{self.samples[i]} when batches are drawn without replacement"
                )
        lower, upper = self.batch_range()
        empty = lower > upper
        if empty.any():
            i = int(empty.argmax())
            raise InvalidProblemError(
                f"max_batch[{i}] = {self.max_batch[i]}: no multiple of batch_multiple[{i}] = "
                f"{self.batch_multiple[i]} lies between min_batch[{i}] = {self.min_batch[i]} and it; "
                f"max_batch must be at least {lower[i]}"
            )

    def batch_range(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Smallest and largest admissible batch of every device, as multiples of batch_multiple.

        Returns
        -------
        tuple of ndarray of int64, shape (N,)
        """
        multiple = self.batch_multiple
        lower = -(-self.min_batch // multiple) * multiple
        upper = self.max_batch // multiple * multiple
        return lower, upper

    @cached_property
    def common_cost(self) -> float | None:
        """The cost of a sample where it is the same on every device, else None."""
        first = float(self.sample_cost[0])
        return first if bool((self.sample_cost == first).all()) else None

    @cached_property
    def unit_cost(self) -> float | None:
        """The cost of batch_multiple samples where it is positive and the same on every device, else None."""
        costs = self.sample_cost * self.batch_multiple
        first = float(costs[0])
        return first if first > 0.0 and bool((costs == first).all()) else None

    def __len__(self) -> int:
        return int(self.samples.size)

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    def __repr__(self) -> str:
        return f"Fleet({len(self)} devices, {int(self.samples.sum())} samples)"

    @classmethod
    def from_csv(cls, path: str | Path, **fields: Any) -> Self:
        """Read a fleet from a CSV file with one row a device and one column a field.

        Parameters
        ----------
        path : str or Path
            The header names fields of :class:`Fleet` (``names``, ``samples``, ...), in any order.
        **fields
            Fields that the file does not hold, such as ``replacement``.

        Returns
        -------
        Fleet

        Raises
        ------
        InvalidProblemError
            If the file cannot be read, a column is unknown (the nearest valid name is given), or a
            cell is not a number (row and column are given).
        """
        from coopt.files import fleet_columns

        return cls(**fleet_columns(Path(path), fields))

    def to_csv(self, path: str | Path) -> None:
        """Write the fleet as CSV so that :meth:`from_csv` gives back an equal one.

        Raises
        ------
        InvalidProblemError
            If batches are drawn without replacement: that is not a column, so keep it in the TOML file.
        """
        from coopt.files import write_fleet_csv

        write_fleet_csv(self, Path(path))


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
        b >= 0, the cost of one round beyond its samples.
    max_rounds, max_local_steps : int, optional
        Upper limits on K and tau.

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

    def __post_init__(self) -> None:
        checked: dict[str, float | int | None] = {
            "cost": real("cost", self.cost, minimum=0.0, infinite=True),
            "time": real("time", self.time, minimum=0.0, infinite=True),
            "round_cost": real("round_cost", self.round_cost, minimum=0.0),
            "max_rounds": optional_count("max_rounds", self.max_rounds),
            "max_local_steps": optional_count("max_local_steps", self.max_local_steps),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


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

    def __eq__(self, other: object) -> bool:
        return same_value(self, other)

    def cost(self, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """Total cost K (tau sum a_i s_i + b) of a plan."""
        return limits.cost(self, rounds, local_steps, self._batches(batch_sizes))

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
        from coopt.files import read_problem

        return cls(*read_problem(Path(path)))

    def to_toml(self, path: str | Path) -> None:
        """Write the problem as one TOML file; :meth:`from_toml` gives back an equal problem."""
        from coopt.files import write_problem

        write_problem(self, Path(path))


def _device_names(names: object, size: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence | np.ndarray)
        or not all(isinstance(name, str) for name in names)
    ):
        raise InvalidProblemError(f"names = {names!r}: must be a sequence of {size} strings")
    if len(names) != size:
        raise InvalidProblemError(f"names has {len(names)} entries: must have {size}, as samples has")
    return tuple(map(str, names))
