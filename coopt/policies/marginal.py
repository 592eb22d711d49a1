"""Minimise the bound of one round within its share of the budget: the published online controllers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.objectives.published import AdaCoOpt as AdaCoOptBound
from coopt.objectives.published import Dynamite
from coopt.policies.horizon import Horizon
from coopt.policies.situation import Choice, Floats, Ints, Situation, clip_batches
from coopt.problem import limits
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.problem import Problem
from coopt.solvers.whole_units.batches import relax, round_batches

Split = Literal["noise", "data", "speed", "uniform"]
LARGEST_TAU = 10


def _one_round(situation: Situation, rounds: int) -> Problem:
    """Give one round's share of the whole budget, fixed in advance, cut to what is left."""
    total, left = situation.total, situation.problem.budget
    share = Budget(
        cost=min(total.cost / rounds, left.cost),
        time=min(total.time / rounds, left.time),
        round_cost=total.round_cost,
        max_local_steps=total.max_local_steps,
    )
    return replace(situation.problem, budget=share)


def _batches(problem: Problem, tau: int, split: Split) -> Ints | None:
    """Divide what the round may process in one local step; None if the smallest batches do not fit."""
    fleet = problem.fleet
    lower, upper = fleet.batch_range()
    upper = limits.largest_batches(problem, 1, tau, upper)
    spend = limits.step_budget(problem, 1, tau)
    if np.any(upper < lower) or spend < limits.work(problem, lower):
        return None
    if split == "noise":
        weights: Floats = fleet.weights**2 * fleet.gradient_noise
    elif split == "data":
        weights = fleet.weights**2
    elif split == "speed":
        known = np.where(np.isfinite(fleet.throughput), fleet.throughput, 1.0)
        weights = fleet.sample_cost * known**2
    else:
        weights = fleet.sample_cost * 1.0
    found = relax(weights, fleet.sample_cost, spend, lower, upper)
    if split in ("speed", "uniform"):
        return clip_batches(problem, found.batch_sizes)
    units = None
    costs = fleet.sample_cost * fleet.batch_multiple
    if costs[0] > 0 and np.all(costs == costs[0]):
        units = limits.step_units(problem, 1, tau, float(costs[0]))
    multiple = None if np.all(fleet.batch_multiple == 1) else fleet.batch_multiple
    cost = fleet.sample_cost
    best = round_batches(weights, cost, spend, lower, upper, found.multiplier, units, multiple)
    return fleet.rounded_down(best.batch_sizes)


def _best(
    problem: Problem, judged: Problem, bound: Dynamite | AdaCoOptBound, split: Split, rounds: int
) -> Choice:
    best: Choice | None = None
    most = min(LARGEST_TAU, problem.budget.max_local_steps or LARGEST_TAU)
    for tau in range(1, most + 1):
        batches = _batches(problem, tau, split)
        if batches is None:
            break
        value = bound.value(judged, 1, tau, batches.astype(np.float64))
        if best is None or value < best.predicted_error:
            best = Choice(tau, batches, rounds, value)
    return best or Choice(1, problem.fleet.batch_range()[0], rounds)


def _check(rounds: int, split: str) -> None:
    if rounds < 1:
        raise InvalidProblemError(f"rounds = {rounds!r} is invalid: give an integer of at least 1")
    if split not in ("noise", "data", "speed", "uniform"):
        raise InvalidProblemError(f"split = {split!r} is unknown: choose noise, data, speed or uniform")


@dataclass(frozen=True)
class Marginal:
    """DYNAMITE's controller: the published bound of one round, with the corrected estimators.

    Parameters
    ----------
    rounds : int
        K, fixed in advance; every round may spend cost R/K and time theta/K.
    split : {"noise", "data", "speed", "uniform"}, default "noise"
        How a round's samples are divided: s_i proportional to p_i sqrt(M_i), to d_i, to the throughput ("no
        straggler"), or the same for all.

    References
    ----------
    Liu et al., DYNAMITE, IEEE TMC 2024, arXiv 2310.14906: the marginal form of eq. (11), with rho = 1/(eta
    tau).
    """

    rounds: int
    split: Split = "noise"
    name: str = "marginal"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def __post_init__(self) -> None:
        _check(self.rounds, self.split)

    def choose(self, situation: Situation) -> Choice:
        """Choose the tau in 1 .. 10 with the smallest bound after this round."""
        problem = _one_round(situation, self.rounds)
        return _best(problem, problem, Dynamite(), self.split, max(1, self.rounds - situation.round))

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """The gap F - F* that the calibrated bound predicts after one such round."""
        return Horizon().gap_after(situation, local_steps, batch_sizes)


@dataclass(frozen=True)
class AdaCoOpt:
    """AdaCoOpt's controller with its own estimators, uncorrected, as released.

    Parameters
    ----------
    rounds : int
        K, fixed in advance; every round may spend cost R/K and time theta/K.
    split : {"noise", "data", "speed", "uniform"}, default "data"
        How a round's samples are divided; as released in proportion to the samples held, within what each
        device can process in time.

    Notes
    -----
    The released code divides the noise term by (1 - q^tau) once too often and takes M_i = 1; here the term is
    as in the paper and M_i as estimated, which can only help.

    References
    ----------
    Liu et al., Adaptive control of batch size and aggregation frequency for federated learning, IWQoS 2023.
    """

    rounds: int
    split: Split = "data"
    name: str = "adacoopt"
    needs_estimates: bool = True
    measures_curvature: bool = True

    def __post_init__(self) -> None:
        _check(self.rounds, self.split)

    def choose(self, situation: Situation) -> Choice:
        """Choose the tau in 1 .. 10 with the smallest bound after this round."""
        problem, known = _one_round(situation, self.rounds), situation.published
        eta = problem.constants.learning_rate
        left = max(1, self.rounds - situation.round)
        values = (known.smoothness, known.lipschitz, known.divergence, known.convexity)
        if not all(map(math.isfinite, values)):
            batches = _batches(problem, 1, self.split)
            return Choice(1, problem.fleet.batch_range()[0] if batches is None else batches, left)
        beta = min(max(known.smoothness, 1e-5), 1 / eta)
        constants = Constants(
            learning_rate=eta,
            smoothness=beta,
            initial_gap=max(situation.loss, 0.0),
            pl_constant=min(max(known.convexity, 1e-9 * beta), beta),
            lipschitz=known.lipschitz,
        )
        judged = replace(
            problem,
            constants=constants,
            fleet=replace(problem.fleet, divergence=np.full(len(problem.fleet), known.divergence)),
        )
        return replace(_best(problem, judged, AdaCoOptBound(), self.split, left), predicted_error=math.nan)

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Ints) -> float:
        """Nothing is expected."""
        return math.nan
