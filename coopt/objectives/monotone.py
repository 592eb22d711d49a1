"""The structure that every bound of coopt shares, and that the exact solver prunes with.

With T = K tau a bound is

    B(K, tau, s) = a(T) + b(T) G(tau, s),    G(tau, s) = offset(tau) + sum_i weight_i(tau) (1/s_i - ref_i),

where a and b are the progress of training, G is the error floor, and the offset and every weight of the
floor are nonnegative and nondecreasing in tau. The reference ref_i is 1/d_i when batches are drawn
without replacement and zero otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coopt.errors import InvalidProblemError
from coopt.objectives.protocol import Bound, Floats, Ints, Objective, Parts
from coopt.problem.problem import Problem
from coopt.problem.validation import LARGEST_COUNT, count, float_array


@dataclass(frozen=True)
class Floor:
    """The error :term:`floors <floor>` G_m(tau, .) of a :term:`family` of m bounds at one tau.

    Attributes
    ----------
    offsets : ndarray, shape (m,)
    shares : ndarray, shape (m, k)
        Member m has weights sum_k shares[m, k] * basis[k].
    basis : tuple of k ndarrays, shape (N,)
        k is 1 or 2, and the arrays are the same at every tau: only the shares change with it.
    noise : ndarray, shape (m,), or 0
        How much of the offsets is noise of the averaged gradient that no batch removes.
    """

    offsets: Floats
    shares: Floats
    basis: tuple[Floats, ...]
    noise: Floats | float = 0.0


class SeveralFloors(ABC):
    """A form that evaluates the floors at several tau together, faster than one by one."""

    @abstractmethod
    def floors(self, local_steps: Ints, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Offsets, of shape (n, m), and shares, of shape (n, m, k), of the floors."""


class MonotoneForm(Protocol):
    """A bound, or a :term:`family` of bounds, tied to a problem, in the :term:`form` that allows pruning."""

    @property
    def members(self) -> tuple[Bound, ...]:
        """The bounds of the family, in the order of the arrays below."""
        ...

    @property
    def population(self) -> NDArray[np.int64] | None:
        """d_i with ref_i = 1 / d_i, shape (N,); None where ref_i is zero."""
        ...

    def floor(self, local_steps: int, active: NDArray[np.intp]) -> Floor:
        """Floors of the `active` members at tau; offsets and weights nondecreasing in tau."""
        ...

    def progress(self, steps: Floats, active: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(a, b), each of shape (len(active), len(steps)), at T = steps; b >= 0.

        For fixed G the value a + b G must be monotone in T, in either direction.
        """
        ...


def floors_at(form: MonotoneForm, local_steps: list[int], active: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Offsets, of shape (n, m), and shares, of shape (n, m, k), of the floors at several tau."""
    if isinstance(form, SeveralFloors):
        return form.floors(np.array(local_steps), active)
    floors = [form.floor(tau, active) for tau in local_steps]
    return np.array([floor.offsets for floor in floors]), np.array([floor.shares for floor in floors])


@runtime_checkable
class MonotoneBound(Bound, Protocol):
    """A bound that declares its monotone form, so that the exact solver may prune."""

    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""
        ...


def member_values(form: MonotoneForm, rounds: int, local_steps: int, batches: Floats) -> Floats:
    """Values of every member of a form for one plan, shape (m,)."""
    everyone = np.arange(len(form.members))
    start, slope = form.progress(np.array([float(rounds * local_steps)]), everyone)
    floor = form.floor(local_steps, everyone)
    # All members share the basis, so the fleet is passed over once or twice, however many members there are.
    inverse = inverse_batches(batches, form.population)
    noise = np.array([float(basis @ inverse) for basis in floor.basis])
    return start[:, 0] + slope[:, 0] * (floor.offsets + weighted(floor.shares, noise))


def inverse_batches(batches: Floats, population: NDArray[np.int64] | None) -> Floats:
    """1/s_i - ref_i without cancellation, shape (N,)."""
    if population is None:
        return 1.0 / batches
    # Not 1/s - 1/d: where nearly all samples are in the batch, that is a difference of equal numbers.
    inverse: Floats = (population - batches) / (batches * population)
    return inverse


def weighted(shares: Floats, amounts: Floats) -> Floats:
    """Return shares @ amounts, where an infinite share of nothing is nothing."""
    with np.errstate(invalid="ignore"):
        products = shares * amounts
    total: Floats = np.where(amounts == 0.0, 0.0, products).sum(axis=1)
    return total


def scaled(amounts: Floats, factor: float) -> Floats:
    """Return amounts * factor, where nothing of what is infinite is nothing."""
    if not factor:
        return np.zeros_like(amounts)
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond floats is infinite
        found = amounts * factor
    return found if factor < np.inf else np.where(amounts == 0.0, 0.0, found)


def product(share: float, amount: float) -> float:
    """Return share * amount, where an infinite share of nothing is nothing."""
    return 0.0 if amount == 0.0 else share * amount


def _batches(problem: Problem, batch_sizes: ArrayLike) -> Floats:
    return float_array("batch_sizes", batch_sizes, len(problem.fleet), minimum=0.0, strict=True)


def _at(form: MonotoneForm, rounds: int, local_steps: int) -> tuple[float, float, Floor]:
    one = np.zeros(1, dtype=np.intp)
    steps = count("rounds", rounds) * count("local_steps", local_steps)
    start, slope = form.progress(np.array([float(steps)]), one)
    floor = form.floor(local_steps, one)
    scale = float(slope[0, 0])
    return float(start[0, 0]) + scale * float(floor.offsets[0]), scale, floor


def _weights(slope: float, floor: Floor) -> Floats:
    # Weights are shares times basis. Without infinities, which are rare, that is one product an array.
    shares = slope * floor.shares[0]
    if np.isfinite(shares).all():
        weights: Floats = floor.basis[0] * shares[0]
        for share, basis in zip(shares[1:].tolist(), floor.basis[1:], strict=True):
            weights += basis * share
        return weights
    total = np.zeros(floor.basis[0].size)
    for share, basis in zip(shares.tolist(), floor.basis, strict=True):
        # An infinite share of nothing is nothing.
        total += np.multiply(basis, share, out=np.zeros_like(basis), where=basis > 0.0)
    return total


class MonotoneBase(Objective):
    """An objective with a monotone form: coefficients, value and parts are all read off the form."""

    @abstractmethod
    def monotone_form(self, problem: Problem) -> MonotoneForm:
        """Tie the bound to a problem; raises InvalidProblemError for constants it lacks."""

    @property
    def prunable(self) -> MonotoneBase:
        """The bound itself: its form lets a search prune."""
        return self

    def coefficients(self, problem: Problem, rounds: int, local_steps: int) -> tuple[float, Floats]:
        """(offset, weights), weights of shape (N,), of B = offset + sum(weights / batch_sizes).

        Raises
        ------
        InvalidProblemError
            If a constant that the bound needs is missing, the learning rate is above its limit, or the
            bound is a family: take one of its :meth:`members` then.
        """
        form = self.monotone_form(problem)
        if len(form.members) > 1:
            raise InvalidProblemError(
                f"bound {self.name!r} is the minimum of {len(form.members)} bounds and has no single set of "
                "coefficients: use one of its members()"
            )
        offset, slope, floor = _at(form, rounds, local_steps)
        weights = _weights(slope, floor)
        if form.population is not None:
            offset -= float(np.sum(weights / form.population))
        return offset, weights

    def value(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> float:
        """The bound for one plan; of a family, the smallest member's.

        Parameters
        ----------
        problem : Problem
        rounds, local_steps : int
        batch_sizes : array_like, shape (N,)

        Returns
        -------
        float
            In the unit of the loss; of the squared gradient for the non-convex bound.
        """
        return self.best_member(problem, rounds, local_steps, batch_sizes)[0]

    def best_member(
        self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike
    ) -> tuple[float, Bound]:
        """The smallest value over the members, and the first member that has it."""
        form = self.monotone_form(problem)
        values = member_values(form, rounds, local_steps, _batches(problem, batch_sizes))
        best = int(values.argmin())
        return float(values[best]), form.members[best]

    def parts(self, problem: Problem, rounds: int, local_steps: int, batch_sizes: ArrayLike) -> Parts:
        """The bound split into transient, noise and drift.

        Raises
        ------
        InvalidProblemError
            If the bound is a family: the parts are those of one member.
        """
        form = self.monotone_form(problem)
        if len(form.members) > 1:
            raise InvalidProblemError(
                f"bound {self.name!r} is a family: take the parts of one of its members()"
            )
        batches = _batches(problem, batch_sizes)
        one = np.zeros(1, dtype=np.intp)
        start, slope = form.progress(np.array([float(rounds * local_steps)]), one)
        floor = form.floor(local_steps, one)
        scale = float(slope[0, 0])
        noise, *drift = (
            scale * product(share, float(np.sum(basis * inverse_batches(batches, form.population))))
            for share, basis in zip(floor.shares[0].tolist(), floor.basis, strict=True)
        )
        lasting = float(np.broadcast_to(floor.noise, 1)[0])
        drifting = scale * (float(floor.offsets[0]) - lasting) + sum(drift)
        return Parts(float(start[0, 0]), noise + scale * lasting, drifting)

    def floor_value(self, problem: Problem, local_steps: int, batch_sizes: Floats) -> float:
        """What the value tends to as rounds grow, with these local steps and batches."""
        form = self.monotone_form(problem)
        # After so many rounds nothing of the initial gap is left.
        return float(member_values(form, LARGEST_COUNT, local_steps, batch_sizes)[0])
