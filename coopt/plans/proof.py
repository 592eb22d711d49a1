"""A proof that no plan is better, as data, and the checker that believes none of it.

A proof divides the plans into boxes of (K, tau), called leaves, and gives for each leaf multipliers of the
limits. The checker makes sure that the leaves are disjoint and fill the range outside of which no plan is
feasible, and recomputes for each leaf a lower bound on the error of all its plans, from the limits and the
multipliers alone: by weak duality any nonnegative multipliers give a valid bound, so a wrong one can make
a proof fail, but not succeed. Sums over devices are correctly rounded and lowered by their rounding errors.
What is trusted is this file, the numeric form of the bound (held to its symbolic statement at 50 digits by
the tests) and that its floor never falls in tau, which the checker tests where it looks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError
from coopt.objectives.monotone import Floor, MonotoneForm, weighted
from coopt.plans.enumeration import smallest_value
from coopt.plans.outer_limits import OUTWARD, OuterLimits
from coopt.problem.exact_sum import exact_sum
from coopt.problem.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Range = tuple[int, int]

# Relative agreement of a leaf's bound with the claim: the rounding of bounds and of their numeric form.
AGREEMENT = 1e-11
# Where the terms of a bound cancel, so much of its value at a single step with single samples is rounding.
CANCELLATION = 5e-14
# Infinite shares count as this: of no noise at all they are nothing.
LARGEST_SHARE = 1e200
# A leaf is judged on at most so many pieces, and the floors of so many members on all its pieces.
PIECES, FLOORS = 256, 20_000
# Each term of a sum over devices is off by a few rounding errors at most.
TERM_ROUNDING = 5e-16


@dataclass(frozen=True, eq=False)
class Support:
    """Multipliers for the smallest noise sum_i w_i (1/s_i - ref_i), w = sum_k direction[k] basis[k].

    Attributes
    ----------
    direction : tuple of float
        One or two nonnegative numbers.
    price, energy_price : float
        Multipliers of the cost and of the energy of one local step [noise per cost, noise per J].
    held : ndarray of int64, shape (h,)
        Devices whose time limit has a multiplier.
    push : ndarray, shape (h,)
        These multipliers [noise per sample].
    level : float or None
        For a single (K, tau) where the prices alone prove too little: no whole batches have less noise than
        this. The checker enumerates what could.
    """

    direction: tuple[float, ...]
    price: float
    held: Ints
    push: Floats
    level: float | None = None
    energy_price: float = 0.0


@dataclass(frozen=True, eq=False)
class Leaf:
    """Plans with K and tau in these ranges, and why none of them is better than claimed.

    Attributes
    ----------
    rounds, local_steps : tuple of int
    supports : tuple of Support
        None are needed where the smallest plan of the leaf is infeasible, or its floor alone too high.
    matched : bool
        Every plan of the leaf that is feasible is matched by one with a single round, or with single steps.
    """

    rounds: Range
    local_steps: Range
    supports: tuple[Support, ...] = ()
    matched: bool = False


@dataclass(frozen=True, eq=False)
class Proof:
    """No plan within the limits, with K and tau in these ranges, has an error below `target`.

    Attributes
    ----------
    target : float
    rounds, local_steps : tuple of int
        Ranges that hold every feasible plan the claim is about.
    leaves : tuple of Leaf
    """

    target: float
    rounds: Range
    local_steps: Range
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Judged:
    """A lower bound on the error of a leaf's plans, and where it is attained."""

    bound: float
    rounds: int
    local_steps: int
    member: int


class Checker(OuterLimits):
    """Recomputes proofs for one problem and one bound.

    Parameters
    ----------
    problem : Problem
    form : MonotoneForm
        The bound, or the family, tied to the problem.
    """

    def __init__(self, problem: Problem, form: MonotoneForm) -> None:
        super().__init__(problem)
        self.form = form
        self.everyone = np.arange(len(form.members))
        self._floors: dict[int, Floor] = {}
        self.scale = self._largest_value()

    def check(self, proof: Proof, rounds: int | None = None, local_steps: int | None = None) -> None:
        """Raise CertificateError unless the proof holds; `rounds`, `local_steps` are K and tau if fixed."""
        self._check_range(proof, rounds, local_steps)
        _check_cover(proof)
        for leaf in proof.leaves:
            if leaf.matched:
                if not self.matches(leaf, proof.rounds, proof.local_steps):
                    raise CertificateError(f"proof: plans of {_name(leaf)} are not matched by others")
                continue
            judged = self.judge(leaf)
            if not self.reaches(judged.bound, proof.target):
                raise CertificateError(
                    f"proof: {_name(leaf)} may hold plans with an error down to {judged.bound!r}, below the "
                    f"claimed {proof.target!r}"
                )

    def reaches(self, bound: float, target: float) -> bool:
        """Whether a bound proves the target, up to rounding."""
        return bound >= target - AGREEMENT * abs(target) - CANCELLATION * self.scale

    def _largest_value(self) -> float:
        """The bound for K = tau = 1 and one sample from each device."""
        floor, (start, slope) = self.floor(1), self.form.progress(np.ones(1), self.everyone)
        totals = np.array([exact_sum(part) for part in floor.basis])
        values = start[:, 0] + slope[:, 0] * (floor.offsets + weighted(floor.shares, totals))
        return float(values.min())

    def matches(self, leaf: Leaf, rounds: Range, local_steps: Range) -> bool:
        """Whether each feasible plan of a leaf is matched by one round of K tau steps, or by single steps.

        One round costs and takes no more than K; it is worth as much if the floor is the same for all tau.
        Single steps use as much where rounds use nothing, and their floor is no higher. The matching plan
        is in range if the limits end the range, or if the whole leaf has few enough steps.
        """
        most = leaf.rounds[1] * leaf.local_steps[1]
        if rounds[0] == 1 < leaf.rounds[0] and local_steps[0] == 1:
            first, last = self.floor(local_steps[0]), self.floor(local_steps[1])
            flat = np.array_equal(first.offsets, last.offsets) and np.array_equal(first.shares, last.shares)
            inside = not self.feasible(1, local_steps[1] + 1) or most <= local_steps[1]
            if flat and inside:
                return True
        free = self.budget.round_cost == self.round_energy == 0.0 and not self.fleet.round_time.any()
        inside = not self.feasible(rounds[1] + 1, 1) or most <= rounds[1]
        return free and inside and local_steps[0] == 1 < leaf.local_steps[0] and rounds[0] == 1

    def floor(self, local_steps: int) -> Floor:
        """Floors of every member at tau."""
        if local_steps not in self._floors:
            self._floors[local_steps] = self.form.floor(local_steps, self.everyone)
        return self._floors[local_steps]

    def judge(self, leaf: Leaf) -> Judged:
        """A lower bound on the error of every plan of a leaf."""
        (k1, _), (t1, _) = leaf.rounds, leaf.local_steps
        if not self.feasible(k1, t1):
            return Judged(math.inf, k1, t1, 0)
        pieces = _pieces(leaf)
        offsets, shares = self._floors_on(pieces)
        noise = self._noise(leaf, pieces, shares)
        with np.errstate(invalid="ignore", over="ignore"):
            levels = offsets + noise
        # Between the ends of a piece progress is monotone, falling or rising: the better end bounds both.
        values = np.full_like(levels, math.inf)
        for product in (pieces.first_product, pieces.last_product):
            start, slope = self.form.progress(product, self.everyone)
            np.minimum(values, start + slope * levels, out=values)
        member, piece = np.unravel_index(int(values.argmin()), values.shape)
        where = pieces.inside(int(piece), leaf)
        return Judged(float(values[member, piece]), *where, int(member))

    def _floors_on(self, pieces: _LeafPieces) -> tuple[Floats, Floats]:
        """Offsets (m, P) and shares (m, P, k) at the fewest local steps of each piece."""
        steps = pieces.least_steps
        if len(self.everyone) * steps.size > FLOORS:
            steps = steps[:1]
        used, back = np.unique(steps, return_inverse=True)
        floors = [self.floor(int(tau)) for tau in used.tolist()]
        offsets = np.column_stack([floor.offsets for floor in floors])
        shares = np.stack([floor.shares for floor in floors], axis=1)
        if bool((offsets[:, 1:] < offsets[:, :-1] * (1.0 - OUTWARD)).any()) or bool(
            (shares[:, 1:] < shares[:, :-1] * (1.0 - OUTWARD)).any()
        ):
            raise CertificateError("proof: the floor of the bound falls in tau, against its declaration")
        return offsets[:, back], shares[:, back]

    def _noise(self, leaf: Leaf, pieces: _LeafPieces, shares: Floats) -> Floats:
        """Lower bounds on sum_k share_k sum_i basis_ki (1/s_i - ref_i), shape (m, P)."""
        levels: dict[tuple[float, ...], Floats] = {}
        for support in leaf.supports:
            level = self.level(leaf, support, pieces)
            known = levels.get(support.direction)
            levels[support.direction] = level if known is None else np.maximum(known, level)
        width = pieces.first_product.size
        noise = np.zeros((shares.shape[0], width))
        if not levels:
            return noise
        usable = np.minimum(shares, LARGEST_SHARE)
        # As a function of the two shares the smallest noise is concave and homogeneous: of shares that are
        # a sum of two directions it is at least the sum, and it never falls when a share grows.
        directions = sorted(levels, key=lambda each: math.atan2(each[-1], each[0]))
        for direction in directions:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = usable / np.array(direction)
            ratios[..., np.array(direction) == 0.0] = math.inf
            np.maximum(noise, ratios.min(axis=-1) * levels[direction], out=noise)
        for low, high in itertools.pairwise(directions if shares.shape[2] == 2 else []):
            determinant = low[0] * high[1] - low[1] * high[0]
            if determinant <= 0.0:
                continue
            x, y = usable[..., 0], usable[..., 1]
            first = (x * high[1] - y * high[0]) / determinant
            second = (y * low[0] - x * low[1]) / determinant
            with np.errstate(invalid="ignore"):  # nothing of what is infinite says nothing
                combined = first * levels[low] + second * levels[high]
            between = (first >= 0.0) & (second >= 0.0) & ~np.isnan(combined)
            noise = np.where(between, np.maximum(noise, combined * (1.0 - OUTWARD)), noise)
        return noise

    def level(self, leaf: Leaf, support: Support, pieces: _LeafPieces | None = None) -> Floats:
        """Lower bounds on the noise in the direction of a support, on each piece of a leaf."""
        pieces = _pieces(leaf) if pieces is None else pieces
        self._check_multipliers(leaf, support)
        # Weak duality. For any prices >= 0, plans within the limits have
        # sum w_i/s_i >= sum_i min_s (w_i/s + price_i s) - (what the limits allow, at these prices),
        # so whoever chose the multipliers need not be believed: bad ones only make the bound low.
        weights = self.weights(support.direction)
        fleet, prices = self.fleet, support.price * self.fleet.sample_cost
        prices += support.energy_price * fleet.sample_energy
        prices[support.held] += support.push
        most = self.largest_batches(leaf.rounds[0], leaf.local_steps[0])
        least, rounding = self._dual(weights, prices, most)
        # What the limits admit at most, at the multipliers: on each piece, and at the corner of the leaf.
        spend = np.minimum(
            self._spend(support, pieces.first_product, pieces.most_steps),
            self._spend(support, leaf.rounds[0] * leaf.local_steps[0], leaf.local_steps[0]),
        )
        bound = least - spend
        rounding += 2.0 * TERM_ROUNDING * float(np.abs(spend).max())
        # Devices that the deadline holds back have a price of time as well. What the deadline leaves them is
        # linear in 1/(K tau) and 1/tau: s_i <= pi_i (theta/(K tau) - u_i/tau - alpha_i).
        if support.held.size:
            first, last = pieces.first_product, pieces.most_steps
            speed, start = (line[support.held] for line in self.lines(leaf.rounds[0], leaf.local_steps[0]))
            idle = fleet.round_time[support.held]
            pull = exact_sum(support.push * speed)
            spare = exact_sum(support.push * speed * idle)
            still = exact_sum(support.push * speed * start)
            bound -= pull * self.time_limit / first - spare / last - still
            rounding += 2.0 * TERM_ROUNDING * (pull * self.time_limit / float(first.min()) + spare + still)
        bound = np.maximum(bound - rounding, 0.0)
        if support.level is not None and pieces.single:
            reference = 0.0 if self.form.population is None else exact_sum(weights / self.form.population)
            budgets = self.step_limits(pieces.first_product[0], pieces.most_steps[0])
            limited = np.isfinite(budgets)
            value = smallest_value(
                weights / self.multiple,
                np.array([fleet.sample_cost, fleet.sample_energy])[limited] * self.multiple,
                budgets[limited],
                self.lower // self.multiple,
                most // self.multiple,
                np.array([support.price, support.energy_price])[limited],
                support.level + reference,
                self.sizes,
            )
            bound = np.maximum(bound, value - reference)
        return bound

    def _check_multipliers(self, leaf: Leaf, support: Support) -> None:
        numbers = [*support.direction, support.price, support.energy_price, *support.push.tolist()]
        if not all(0.0 <= number < math.inf for number in numbers) or math.isnan(support.level or 0.0):
            raise CertificateError(f"proof: {_name(leaf)} has a multiplier that is not a finite number >= 0")
        held = support.held
        if held.shape != support.push.shape or not bool(((held >= 0) & (held < len(self.fleet))).all()):
            raise CertificateError(f"proof: {_name(leaf)} has multipliers of devices that there are not")
        if len(np.unique(held)) < held.size:
            raise CertificateError(f"proof: {_name(leaf)} has several multipliers of one device")

    def _spend(self, support: Support, product: Floats | int, steps: Floats | int) -> Floats:
        """What cost and energy of one step can be worth together, for given K tau and tau."""
        total = np.zeros(np.shape(product))
        for price, limit in zip(
            (support.price, support.energy_price), self.step_limits(product, steps), strict=True
        ):
            if price > 0.0:
                total += price * limit
        return total

    def weights(self, direction: tuple[float, ...]) -> Floats:
        """Weights of the noise in a direction, shape (N,)."""
        basis = self.floor(1).basis
        if len(direction) != len(basis):
            raise CertificateError(f"proof: direction {direction}: must have {len(basis)} numbers")
        total = np.zeros_like(basis[0])
        for share, part in zip(direction, basis, strict=True):
            total += share * part
        return total

    def _dual(self, weights: Floats, prices: Floats, most: Ints) -> tuple[float, float]:
        """sum_i min_s w_i (1/s - ref_i) + price_i s over whole batches, and its rounding error."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wanted = np.sqrt(weights / prices) / self.multiple
        wanted = np.where(np.isnan(wanted), 0.0, wanted)
        least = np.full(weights.size, math.inf)
        # The function is convex: the best whole number is next to the best real one.
        for units in (np.floor(wanted), np.floor(wanted) + 1.0):
            batches = np.clip(units * self.multiple, self.lower, most)
            np.minimum(least, weights / batches + prices * batches, out=least)
        if self.sizes is not None:
            # Few sizes: all of them.
            for i, sizes in enumerate(self.sizes):
                fitting = sizes[sizes <= most[i]]
                least[i] = float(np.min(weights[i] / fitting + prices[i] * fitting))
        reference = 0.0 if self.form.population is None else weights / self.form.population
        scale = exact_sum(least)
        return exact_sum(least - reference), TERM_ROUNDING * scale

    def _check_range(self, proof: Proof, rounds: int | None, local_steps: int | None) -> None:
        (k1, k2), (t1, t2) = proof.rounds, proof.local_steps
        if (k1, t1) != (rounds or 1, local_steps or 1):
            raise CertificateError(f"proof: starts at K = {k1}, tau = {t1}")
        if not (k2 == rounds or k2 >= (self.budget.max_rounds or math.inf) or not self.feasible(k2 + 1, t1)):
            raise CertificateError(f"proof: says nothing about K > {k2}, which the limits admit")
        if not (
            t2 == local_steps
            or t2 >= (self.budget.max_local_steps or math.inf)
            or not self.feasible(k1, t2 + 1)
        ):
            raise CertificateError(f"proof: says nothing about tau > {t2}, which the limits admit")


@dataclass(frozen=True)
class _LeafPieces:
    """Pieces of a leaf: ranges of K tau and of tau that together hold its plans, arrays of shape (P,)."""

    first_product: Floats
    last_product: Floats
    least_steps: Floats
    most_steps: Floats

    @property
    def single(self) -> bool:
        """Whether this is a single (K, tau)."""
        return self.first_product.size == 1 and bool(
            self.first_product[0] == self.last_product[0] and self.least_steps[0] == self.most_steps[0]
        )

    def inside(self, piece: int, leaf: Leaf) -> tuple[int, int]:
        """A (K, tau) in a piece."""
        (k1, k2), (t1, t2) = leaf.rounds, leaf.local_steps
        product = math.sqrt(self.first_product[piece]) * math.sqrt(self.last_product[piece])
        if k1 == k2:
            return k1, min(max(round(product / k1), t1), t2)
        return min(max(round(product / t1), k1), k2), t1


def _pieces(leaf: Leaf) -> _LeafPieces:
    """One piece for each K where tau is fixed and there are few; for each tau where K is; else a grid."""
    (k1, k2), (t1, t2) = leaf.rounds, leaf.local_steps
    if t1 == t2:
        low, high = _runs(k1, k2)
        steps = np.full_like(low, t1)
        return _LeafPieces(low * t1, high * t1, steps, steps)
    if k1 == k2:
        low, high = _runs(t1, t2)
        return _LeafPieces(low * k1, high * k1, low, high)
    low, high = _runs(k1 * t1, k2 * t2)
    least, most = np.maximum(t1, np.ceil(low / k2)), np.minimum(t2, np.floor(high / k1))
    some = least <= most
    return _LeafPieces(low[some], high[some], least[some], most[some])


def _runs(first: int, last: int) -> tuple[Floats, Floats]:
    """Divide the whole numbers from `first` to `last` into at most PIECES ranges; return their ends."""
    if last - first < PIECES:
        low = np.arange(first, last + 1, dtype=np.float64)
        return low, low
    low = np.unique(np.floor(np.geomspace(float(first), float(last), PIECES)))
    low[0] = first
    return low, np.append(low[1:] - 1.0, float(last))


def _check_cover(proof: Proof) -> None:
    """The leaves are disjoint, lie in the range, and have its area: so they fill it."""
    root = (*proof.rounds, *proof.local_steps)
    boxes = [(*leaf.rounds, *leaf.local_steps) for leaf in proof.leaves]
    for leaf, (k1, k2, t1, t2) in zip(proof.leaves, boxes, strict=True):
        if not (root[0] <= k1 <= k2 <= root[1] and root[2] <= t1 <= t2 <= root[3]):
            raise CertificateError(f"proof: {_name(leaf)} lies outside the range")
    area = sum((k2 - k1 + 1) * (t2 - t1 + 1) for k1, k2, t1, t2 in boxes)
    if area != (root[1] - root[0] + 1) * (root[3] - root[2] + 1):
        raise CertificateError("proof: its leaves do not fill the range of K and tau")
    ends = np.array(sorted(boxes), dtype=np.int64).reshape(-1, 4)
    for place, (_, k2, t1, t2) in enumerate(ends.tolist()):
        later = ends[place + 1 :]
        # Sorted by their first K: only those that start before this one ends can overlap it.
        later = later[: np.searchsorted(later[:, 0], k2, side="right")]
        if bool(((later[:, 2] <= t2) & (later[:, 3] >= t1)).any()):
            raise CertificateError("proof: two of its leaves overlap")


def _name(leaf: Leaf) -> str:
    (k1, k2), (t1, t2) = leaf.rounds, leaf.local_steps
    return f"the leaf K = {k1} to {k2}, tau = {t1} to {t2}"
