"""A lower bound for many cohorts at once, by Lagrangian duality.

In a node (see `nodes`), with r = 1/P everything in which its plans differ is a sum over the
devices that train, linear in r once their batches are chosen. Prices of

* the limits on cost and on energy, and on the time of every device,
* the weights r p_i, which must sum to one,
* the bias, which is r sum p_i delta_i over those that train, or over those that do not, and
* the number of devices, where that is limited

make the sum separable: every open device trains if that lowers the sum, whatever the others do. Any prices
give a valid bound; good ones are found by following subgradients. Each step is proved in the documentation of
the exact solver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coopt.objectives.young import YoungFamily
from coopt.problem.participation import probabilities
from coopt.problem.problem import Problem
from coopt.solvers.cohort.effects import BEYOND, Effects
from coopt.solvers.cohort.nodes import IN, OPEN, OUT, CohortNodes, Evaluation
from coopt.solvers.cohort.rounds_in_pieces import weakest
from coopt.solvers.roundoff import LOOSENED, LOOSENED_LIMIT
from coopt.solvers.whole_units.unit_prices import units_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Sums of many terms have lost this much.
LOST = 1e-13
SMALLEST = 1e-300


@dataclass(frozen=True)
class _Bias:
    """The part of the floor that divergence and bias make, at a price of the bias: level + slope D."""

    level: Floats
    slope: Floats
    # Their derivatives in the price.
    level_rate: Floats
    slope_rate: Floats


@dataclass(frozen=True)
class _Terms:
    """The sum of R nodes, term by term: at V corners, E ends of r and N devices."""

    bias: _Bias
    r: Floats  # (R, E)
    steps: Floats  # (R, V)
    caps: Floats  # (R, V, N)
    push: Floats  # (R, N)
    batches: Floats  # (R, E, N)
    amount: Floats  # (R, E, N)
    change: Floats  # (R, V, E, N)
    budget: Floats  # (R, V, 2)
    magnitude: Floats  # (R,)


class CohortBound:
    """Bounds on the plans of nodes.

    Parameters
    ----------
    problem : Problem
    bound : YoungFamily
    most : int
        The most devices that may train.
    """

    def __init__(self, problem: Problem, bound: YoungFamily, most: int) -> None:
        fleet, budget = problem.fleet, problem.budget
        self.effects = Effects(problem, bound)
        self.most = most
        self.size = len(fleet)
        self.weights = fleet.weights / fleet.weights.sum()
        self.noise, self.divergence = fleet.gradient_noise, fleet.divergence
        self.disturbing = self.weights * fleet.divergence
        self.spread = self.disturbing * fleet.divergence
        self.lower, self.upper = fleet.batch_range()
        self.multiple = fleet.batch_multiple
        self.reference = np.zeros(self.size) if fleet.replacement else 1.0 / fleet.samples
        # A device of a cohort is drawn no less often than among all devices, or in the largest cohort.
        likely: Floats | float = 1.0
        if budget.participants is not None:
            distinct = budget.distinct_participants
            likely = probabilities(fleet.weights, budget.participants, distinct)
            likely = np.minimum(likely * self.size / most, 1.0) if distinct else likely
        # Cost and energy of a sample, of a step and of a round, shape (2, N), and the limits on them.
        self.sample = np.array([fleet.sample_cost, fleet.sample_energy]) * likely
        self.step = np.array([fleet.step_cost, fleet.step_energy]) * likely
        self.round = np.array([fleet.round_cost, fleet.round_energy]) * likely
        self.limits = np.array([budget.cost, budget.energy]) * LOOSENED_LIMIT
        self.shared = np.array([budget.round_cost, 0.0])
        self.limited = np.isfinite(self.limits)
        self.timed = budget.time < math.inf
        self.seconds = budget.time * LOOSENED_LIMIT
        self.throughput, self.round_time, self.step_time = fleet.throughput, fleet.round_time, fleet.step_time
        self.parted = fleet.part_throughput if fleet.accumulates else None
        # Devices of infinite throughput are never held by the time limit.
        self.pace = np.where(np.isfinite(fleet.throughput), fleet.throughput, 0.0)

    def caps(self, nodes: CohortNodes) -> Ints:
        """Largest batches that the time limit admits at the fewest rounds and steps; may be below `lower`."""
        if not self.timed:
            return np.broadcast_to(self.upper, nodes.state.shape)
        rounds, steps = nodes.rounds[:, :1], nodes.local_steps[:, :1]
        slack = (self.seconds / rounds - self.round_time) / steps - self.step_time
        with np.errstate(invalid="ignore", over="ignore"):
            caps = self.throughput * slack
            if self.parted is not None:
                caps = np.fmin(caps, self.parted * (slack + self.step_time))
        # inf * 0: what takes no time is processed in none.
        caps = np.where(np.isinf(self.throughput), np.where(slack >= 0.0, np.inf, -1.0), caps)
        units = np.floor(np.clip(caps, -1.0, self.upper) * (1.0 + LOOSENED) / self.multiple)
        return np.minimum((units * self.multiple).astype(np.int64), self.upper)

    def spread_range(self, nodes: CohortNodes) -> tuple[Floats, Floats]:
        """Smallest and largest D of the cohorts of each node."""
        inside, some = nodes.state == IN, nodes.state == OPEN
        square = self.divergence**2
        own, least = inside @ self.weights, inside @ self.spread
        every, largest = own + some @ self.weights, least + some @ self.spread
        anyone = some.any(axis=1)
        low = np.where(anyone, np.where(some, square, np.inf).min(axis=1), 0.0)
        high = np.where(anyone, np.where(some, square, 0.0).max(axis=1), 0.0)
        p1, p2 = nodes.share.T
        mean = np.where(own > 0.0, least / np.maximum(own, SMALLEST), np.where(anyone, low, 0.0))
        upper_mean = np.where(own > 0.0, mean, high)
        # What is added, and what is taken away, has a divergence between the smallest and the largest.
        smallest = np.minimum(mean, (least + (p2 - own) * low) / p2)
        smallest = np.maximum(smallest, high + (largest - every * high) / p1)
        biggest = np.maximum(upper_mean, (least + (p2 - own) * high) / p2)
        biggest = np.minimum(biggest, low + (largest - every * low) / p1)
        smallest = np.where(anyone, smallest, mean)
        biggest = np.where(anyone, biggest, mean)
        smallest = np.maximum(smallest, 0.0)
        return smallest * (1.0 - LOST), np.maximum(biggest, smallest) * (1.0 + LOST)

    def _bias(self, nodes: CohortNodes, coefficients: Floats) -> _Bias:
        _, _, kdd, kde, kee = coefficients.T
        ends = np.array(self.spread_range(nodes))
        # The smallest of 2 kde sqrt(D) e + kee e^2 - price e over e >= 0 is concave in D: above its chord.
        pull = np.maximum(nodes.prices[:, 3] - 2.0 * kde * np.sqrt(ends), 0.0)
        rates = -pull / (2.0 * np.maximum(kee, SMALLEST))
        values = 0.5 * rates * pull
        width = ends[1] - ends[0]
        wide = width > 1e-9 * ends[1]
        width = np.where(wide, width, 1.0)
        slope = np.where(wide, (values[1] - values[0]) / width, 0.0)
        slope_rate = np.where(wide, (rates[1] - rates[0]) / width, 0.0)
        level = np.minimum(*(values - slope * ends))
        return _Bias(level, kdd + slope, rates[0] - slope_rate * ends[0], slope_rate)

    def noise_weights(self, coefficients: Floats, r: Floats, square: Floats) -> Floats:
        """Weights of the reciprocal batches, shape (R, ..., N), for given r and its square."""
        alpha, kappa = (coefficients[:, i].reshape(-1, *([1] * r.ndim)) for i in (0, 1))
        p, r, square = self.weights, r[..., None], square[..., None]
        weights: Floats = self.noise * ((alpha - kappa) * p * p * square + kappa * p * r)
        return weights

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def evaluate(self, nodes: CohortNodes, threshold: float) -> Evaluation:
        """Bounds on the nodes at their prices, and what they show."""
        terms = self._terms(nodes)
        inside, some = nodes.state == IN, nodes.state == OPEN
        trained = inside[:, None, None] | (some[:, None, None] & (terms.change < 0.0))
        every = self.disturbing.sum() * nodes.outside[:, None]
        constant = terms.bias.level + nodes.prices[:, 2] - nodes.prices[:, 4] * self.most
        bought = np.einsum("rvl,rl->rv", terms.budget, nodes.prices[:, :2])
        floors = np.where(trained, terms.change, 0.0).sum(axis=-1)
        floors += (constant[:, None] - bought)[..., None] + (nodes.prices[:, 3:4] * every * terms.r)[:, None]
        size = (
            np.abs(constant)
            + np.abs(bought).max(axis=1)
            + np.abs(nodes.prices[:, 2:]).sum(axis=1) * self.most
        )
        floors -= LOST * (size + terms.magnitude)[:, None, None]
        # Prices on the way may be too large for floats: no number is no bound.
        floors = np.nan_to_num(floors, nan=-BEYOND, posinf=BEYOND, neginf=-BEYOND)
        end, levels = floors.argmin(axis=2), floors.min(axis=2)
        weakest_place = weakest(self.effects, nodes, levels, threshold)
        chosen = np.take_along_axis(trained, end[:, :, None, None], axis=2)[:, :, 0]
        gradient = self._gradient(nodes, terms, chosen, end)
        return Evaluation(
            bound=weakest_place.bound,
            lacking=weakest_place.lacking,
            most_lacking=weakest_place.most_lacking,
            gradient=np.einsum("rv,rvk->rk", weakest_place.mixture, gradient),
            trained=np.einsum("rv,rvn->rn", weakest_place.mixture, chosen),
            low=terms.change.min(axis=(1, 2)),
            high=terms.change.max(axis=(1, 2)),
            amount=terms.amount.mean(axis=1),
            ends=weakest_place.ends,
            pieces=weakest_place.pieces,
        )

    def _terms(self, nodes: CohortNodes) -> _Terms:
        coefficients = self.effects.smallest(nodes.local_steps[:, 0], nodes.gammas, nodes.zs)
        bias = self._bias(nodes, coefficients)
        # Corners (K, tau), the first two at the smallest tau; then both ends of r.
        tau = nodes.local_steps[:, [0, 0, 1, 1]].astype(np.float64)
        product = nodes.rounds[:, [0, 1, 0, 1]] * tau
        r = 1.0 / nodes.share[:, ::-1]
        middle = np.minimum(r.mean(axis=1), 2.0 * r[:, 0])
        # Weights that are concave in r are smallest at an end; below those that are convex is a tangent.
        convex = (coefficients[:, 0] > coefficients[:, 1])[:, None]
        square = np.where(convex, middle[:, None] * (2.0 * r - middle[:, None]), r * r)
        weights = self.noise_weights(coefficients, r, square)
        most = np.maximum(self.caps(nodes), self.lower)
        price = nodes.prices[:, :2] @ self.sample
        push = self._push(nodes, self.noise_weights(coefficients, middle, middle**2), price)
        price = price + push
        units = units_at(
            weights / self.multiple,
            (price * self.multiple)[:, None],
            self.lower // self.multiple,
            most[:, None] // self.multiple,
        )
        batches = (units * self.multiple).astype(np.float64)
        amount = weights * (1.0 / batches - self.reference) + price[:, None] * batches
        sign = np.where(nodes.outside, -1.0, 1.0)
        per_weight = self.weights * (
            bias.slope[:, None] * self.divergence**2
            + (sign * nodes.prices[:, 3])[:, None] * self.divergence
            - nodes.prices[:, 2:3]
        )
        whole = np.where(self.timed, self.pace * self._left(1.0 / product, 1.0 / tau), 0.0)
        fixed = (nodes.prices[:, :2] @ self.round)[:, None] / tau[..., None] + nodes.prices[:, 4, None, None]
        fixed = fixed + (nodes.prices[:, :2] @ self.step)[:, None] - push[:, None] * whole
        weighted = r[..., None] * per_weight[:, None]
        taking = (nodes.state != OUT)[:, None]
        return _Terms(
            bias=bias,
            r=r,
            steps=tau,
            caps=whole,
            push=push,
            batches=batches,
            amount=amount,
            change=(amount + weighted)[:, None] + fixed[:, :, None],
            budget=np.where(self.limited, self.limits, 0.0) / product[..., None]
            - np.where(self.limited, self.shared, 0.0) / tau[..., None],
            magnitude=np.where(
                taking, np.abs(amount) + np.abs(weighted) + np.abs(fixed).max(axis=1)[:, None], 0.0
            )
            .sum(axis=-1)
            .max(axis=-1),
        )

    def _left(self, per_product: Floats, per_step: Floats) -> Floats:
        """Seconds that the time limit leaves a device for a step, at 1/(K tau) and 1/tau."""
        seconds = self.seconds if self.timed else 0.0
        left: Floats = seconds * per_product[..., None] - self.round_time * per_step[..., None]
        return left - self.step_time

    def _push(self, nodes: CohortNodes, weights: Floats, price: Floats) -> Floats:
        """Prices of the caps that the time limit puts on batches in the middle of each node, shape (R, N)."""
        if not self.timed:
            return np.zeros_like(price)
        per_step = 1.0 / nodes.local_steps[:, 0]
        caps = self.pace * self._left(1.0 / nodes.centre, per_step)
        # A tangent at less than half of the largest cap would be negative there.
        first = self.pace * self._left(per_step / nodes.rounds[:, 0], per_step)
        caps = np.maximum(np.maximum(caps, 0.5 * first), self.lower)
        held = (self.pace > 0.0) & (caps < self.upper)
        return np.where(held, np.maximum(weights / caps**2 - price, 0.0), 0.0)

    def _gradient(self, nodes: CohortNodes, terms: _Terms, chosen: Bools, end: Ints) -> Floats:
        """Derivatives of the floors in the prices at every corner, shape (R, V, 5)."""
        batches = np.take_along_axis(terms.batches, end[..., None], axis=1)
        used = np.where(chosen, np.where(terms.push[:, None] > 0.0, terms.caps, batches), 0.0)
        spent = used @ self.sample.T + chosen @ self.step.T + (chosen @ self.round.T) / terms.steps[..., None]
        r = np.take_along_axis(terms.r, end, axis=1)
        sign = np.where(nodes.outside, -1.0, 1.0)[:, None]
        biased = sign * (chosen @ self.disturbing) + self.disturbing.sum() * nodes.outside[:, None]
        spread = terms.bias.slope_rate[:, None] * (chosen @ self.spread)
        return np.dstack(
            [
                np.where(self.limited, spent - terms.budget, 0.0),
                1.0 - r * (chosen @ self.weights),
                terms.bias.level_rate[:, None] + r * (biased + spread),
                chosen.sum(axis=-1) - self.most,
            ]
        )
