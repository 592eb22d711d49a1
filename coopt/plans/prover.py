"""Builds the proof that no plan has an error below a claimed value.

A plain depth-first division of the plans into boxes: multipliers are tried where a box is weakest, and a box
is divided until the checker accepts it. It needs only the claimed value, and nothing that the search found.
Its multipliers come from the inner solvers that the search uses too; what these get wrong cannot make a false
claim pass, since the checker recomputes every bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError
from coopt.objectives.monotone import Floor, MonotoneForm, member_values
from coopt.plans.proof import Checker, Judged, Leaf, Proof, Support
from coopt.problem import limits
from coopt.problem.problem import Problem
from coopt.solvers.exact.choose_inner import inner_of
from coopt.solvers.exact.cost_and_energy import best_share, limit_units
from coopt.solvers.whole_units.batches import cap_multipliers, relax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Directions that a family is bounded by at first, and further ones where a member is left over.
DIRECTIONS = 4
# Places at which a box is strengthened before it is divided; a single (K, tau) gets more.
TRIES, SINGLE_TRIES = 2, 24
# Multipliers that a box passes on.
INHERITED = 6
MOST_LEAVES = 100_000
NOTHING: tuple[NDArray[np.int64], Floats] = np.zeros(0, dtype=np.int64), np.zeros(0)


def prove(
    problem: Problem,
    form: MonotoneForm,
    target: float,
    rounds: int | None = None,
    local_steps: int | None = None,
) -> Proof:
    """A proof that no plan within the limits has an error below `target`.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
        The bound, or the family, tied to the problem.
    target : float
    rounds, local_steps : int, optional
        K and tau where the claim is about plans with these.

    Raises
    ------
    CertificateError
        If a plan with a smaller error is found, or the proof needs more than MOST_LEAVES boxes.
    """
    return _Prover(problem, form, target).prove(rounds, local_steps)


@dataclass(frozen=True)
class _Mixture:
    """Shares of the limits on cost and energy, what a sample uses of both together, and what a step may."""

    cost: float
    energy: float
    prices: Floats
    spend: float


class _Prover:
    def __init__(self, problem: Problem, form: MonotoneForm, target: float) -> None:
        self.problem = problem.plain
        self.form = form
        self.target = target
        self.checker = Checker(problem, form)
        self.inner = inner_of(self.problem, form)
        self.lower = self.inner.lower
        self.timed = self.problem.budget.time < math.inf
        self.leaves: list[Leaf] = []

    def prove(self, rounds: int | None, local_steps: int | None) -> Proof:
        k1, t1 = rounds or 1, local_steps or 1
        root = Leaf((k1, k1), (t1, t1))
        if self.checker.feasible(k1, t1):
            k2 = rounds or limits.most_rounds(self.problem, t1, self.lower)
            t2 = local_steps or limits.most_local_steps(self.problem, k1, self.lower)
            if k2 is None or t2 is None:
                raise CertificateError("lower_bound: nothing limits K or tau, so nothing can be divided")
            root = Leaf((k1, k2), (t1, t2))
        stack = [root]
        while stack:
            if len(self.leaves) > MOST_LEAVES:
                raise CertificateError(
                    f"lower_bound = {self.target!r}: neither proved with {MOST_LEAVES} boxes nor refuted"
                )
            stack += self._divide(stack.pop(), root)
        return Proof(self.target, root.rounds, root.local_steps, tuple(self.leaves))

    def _divide(self, leaf: Leaf, root: Leaf) -> list[Leaf]:
        """Keep a box as a leaf if it can be proved; else return what it is divided into."""
        if not self.checker.feasible(leaf.rounds[0], leaf.local_steps[0]):
            self.leaves.append(replace(leaf, supports=()))
            return []
        parts = self._without_infeasible(leaf)
        if len(parts) > 1:
            return parts
        matched = replace(leaf, supports=(), matched=True)
        if self.checker.matches(matched, root.rounds, root.local_steps):
            self.leaves.append(matched)
            return []
        judged = self.checker.judge(leaf)
        single = leaf.rounds[0] == leaf.rounds[1] and leaf.local_steps[0] == leaf.local_steps[1]
        for turn in range(SINGLE_TRIES if single else TRIES):
            if self.checker.reaches(judged.bound, self.target):
                self.leaves.append(leaf)
                return []
            leaf = replace(leaf, supports=(*leaf.supports, *self._supports(leaf, judged, turn, single)))
            judged = self.checker.judge(leaf)
        if self.checker.reaches(judged.bound, self.target):
            self.leaves.append(leaf)
            return []
        if single:
            self._refute(leaf, judged)
            raise CertificateError(
                f"lower_bound = {self.target!r}: at K = {leaf.rounds[0]}, tau = {leaf.local_steps[0]} only "
                f"{judged.bound!r} can be proved"
            )
        return _halves(replace(leaf, supports=leaf.supports[-INHERITED:]), judged)

    def _without_infeasible(self, leaf: Leaf) -> list[Leaf]:
        """Cut off the rounds, or else the local steps, that no feasible plan of the box has."""
        (k1, k2), (t1, t2) = leaf.rounds, leaf.local_steps
        most = limits.most_rounds(self.problem, t1, self.lower)
        if most is not None and k1 <= most < k2 and not self.checker.feasible(most + 1, t1):
            return [replace(leaf, rounds=(most + 1, k2)), replace(leaf, rounds=(k1, most))]
        most = limits.most_local_steps(self.problem, k1, self.lower)
        if most is not None and t1 <= most < t2 and not self.checker.feasible(k1, most + 1):
            return [replace(leaf, local_steps=(most + 1, t2)), replace(leaf, local_steps=(t1, most))]
        return [leaf]

    def _supports(self, leaf: Leaf, judged: Judged, turn: int, single: bool) -> list[Support]:
        """Multipliers at the weakest place: of directions that span the family first, then of the weakest."""
        t1 = leaf.local_steps[0]
        floor = self.checker.floor(t1)
        directions = self.inner.directions(floor)
        usable = np.isfinite(directions.sizes) & np.isfinite(directions.offsets)
        angles = directions.angles[usable]
        if turn == 0 and not single and angles.size > 1:
            chosen = np.unique(np.quantile(angles, np.linspace(0.0, 1.0, DIRECTIONS)))
        else:
            # An infinite share of the second noise term has no angle.
            chosen = np.nan_to_num(directions.angles[judged.member : judged.member + 1], nan=1.0)
        place = (judged.rounds, judged.local_steps)
        return [self._support(floor, place, float(angle), single) for angle in chosen.tolist()]

    def _support(self, floor: Floor, place: tuple[int, int], angle: float, single: bool) -> Support:
        weights = self.inner.weights(floor, angle)
        norms = [norm or 1.0 for norm in (float(np.sum(part)) for part in floor.basis)]
        direction = (1.0 / norms[0],) if len(norms) == 1 else ((1.0 - angle) / norms[0], angle / norms[1])
        if single or not self.timed:
            price, energy_price = self.inner.prices(weights, *place)
            open_gap = single and self.inner.unit_cost is None and price + energy_price > 0.0
            level = self._level(floor, place, angle) if open_gap else None
            return Support(direction, price, *NOTHING, level, energy_price)
        caps = limits.time_caps(self.problem, *place)
        upper = np.maximum(np.minimum(self.inner.upper, caps), self.lower)
        mixture = self._mixture(weights, place, upper)
        best = relax(weights, mixture.prices, mixture.spend, self.lower, upper, self.form.population)
        held, push = cap_multipliers(weights, mixture.prices, best, caps, self.inner.upper)
        price = best.multiplier
        return Support(
            direction, price * mixture.cost, held.astype(np.int64), push, None, price * mixture.energy
        )

    def _mixture(self, weights: Floats, place: tuple[int, int], upper: Floats | Ints) -> _Mixture:
        """The best mixture of the limits on cost and energy; the limit on cost itself where it is alone."""
        budget, fleet = self.problem.budget, self.problem.fleet
        spend = limits.step_budget(self.problem, *place)
        if budget.energy == math.inf:
            return _Mixture(1.0, 0.0, fleet.sample_cost, spend)
        share, _ = best_share(self.problem, weights, *place, self.lower, upper)
        units = limit_units(budget)
        cost, energy = (1.0 - share) / units[0], share / units[1]
        prices, total = energy * fleet.sample_energy, energy * limits.step_energy_budget(self.problem, *place)
        if cost > 0.0:
            prices, total = prices + cost * fleet.sample_cost, total + cost * spend
        return _Mixture(cost, energy, prices, total)

    def _level(self, floor: Floor, place: tuple[int, int], angle: float) -> float:
        """The smallest noise in a direction with whole batches; a plan below the claim refutes it."""
        found = self.inner.exact(floor, *place, angle, cutoff=math.inf)
        return found.lower_bound

    def _refute(self, leaf: Leaf, judged: Judged) -> None:
        """Raise CertificateError where the best plan of a single (K, tau) is below the claim."""
        rounds, steps = leaf.rounds[0], leaf.local_steps[0]
        floor = self.checker.floor(steps)
        angle = float(self.inner.directions(floor).angles[judged.member])
        found = self.inner.exact(floor, rounds, steps, angle, cutoff=math.inf)
        value = float(member_values(self.form, rounds, steps, found.batch_sizes.astype(np.float64)).min())
        if not self.checker.reaches(value, self.target):
            raise CertificateError(
                f"lower_bound = {self.target!r}: refuted by a plan with K = {rounds}, tau = {steps} and the "
                f"error bound {value!r}"
            )


def _halves(leaf: Leaf, judged: Judged) -> list[Leaf]:
    """Divide the wider side, in ratio."""
    (k1, k2), (t1, t2) = leaf.rounds, leaf.local_steps
    if k2 * t1 > t2 * k1:
        at = min(math.isqrt(k1 * k2), k2 - 1)
        return [replace(leaf, rounds=(k1, at)), replace(leaf, rounds=(at + 1, k2))]
    at = min(math.isqrt(t1 * t2), t2 - 1)
    return [replace(leaf, local_steps=(t1, at)), replace(leaf, local_steps=(at + 1, t2))]
