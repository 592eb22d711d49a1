"""Peers that know no integers: convex programming and sequential quadratic programming."""

from __future__ import annotations

import math
import time

import numpy as np

from benchmarks.solvers.peer_solvers.formula import LIMIT, MOST_ROUNDS, MOST_STEPS, Answer, Formula
from coopt import Problem


def cvxpy_by_hand(problem: Problem) -> Answer:
    """Batches by one compiled problem, K and tau by golden section on the relaxation, unimodal in each."""
    import cvxpy as cp
    from scipy.optimize import minimize_scalar

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    size = len(fleet)
    scale = np.maximum(np.sqrt(formula.weights / fleet.sample_cost), 1e-300)
    scale *= budget.cost / 100.0 / float(np.sum(fleet.sample_cost * scale))
    x, spend, caps = cp.Variable(size), cp.Parameter(nonneg=True), cp.Parameter(size, nonneg=True)
    noise = formula.weights / scale
    unit = float(noise.sum())
    inner = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(noise / unit, cp.inv_pos(x)))),
        [
            (fleet.sample_cost * scale / (fleet.sample_cost @ scale)) @ x <= spend,
            x <= caps,
            x >= 1.0 / scale,
        ],
    )
    best = (math.inf, 1.0, 1, np.ones(size))

    def value(log_rounds: float, tau: int) -> float:
        nonlocal best
        rounds = math.exp(log_rounds)
        spend.value = (budget.cost / rounds - budget.round_cost) / tau / float(fleet.sample_cost @ scale)
        most = np.minimum(fleet.throughput * (budget.time / rounds - fleet.round_time) / tau, fleet.samples)
        if spend.value < float(fleet.sample_cost.sum() / (fleet.sample_cost @ scale)) or (most < 1.0).any():
            return formula.gap * (1.0 + log_rounds)
        caps.value = most / scale
        inner.solve(solver=cp.CLARABEL)
        batches = x.value * scale
        found = formula.value(rounds, tau, batches)
        if found < best[0]:
            best = (found, rounds, tau, batches)
        return found

    known: dict[int, float] = {}

    def at(tau: int) -> float:
        if tau not in known:
            bounds = (0.0, math.log(MOST_ROUNDS))
            found = minimize_scalar(value, bounds=bounds, args=(tau,), options={"xatol": 1e-3})
            known[tau] = float(found.fun)
        return known[tau]

    low, high = 1, MOST_STEPS
    while high - low > 2:
        first, second = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, second - 1) if at(first) < at(second) else (first + 1, high)
    min(range(low, high + 1), key=at)
    return Answer(best[1], best[2], best[3], "continuous, no certificate")


def slsqp(problem: Problem) -> Answer | str:
    """The relaxation in logarithms, with exact gradients."""
    from scipy.optimize import minimize

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    began = time.process_time()

    def split(z: np.ndarray) -> tuple[float, float, np.ndarray]:
        return math.exp(z[0]), math.exp(z[1]), np.exp(z[2:])

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        if time.process_time() - began > LIMIT:
            raise TimeoutError
        rounds, tau, batches = split(z)
        left = math.exp(-formula.rate * rounds * tau)
        noise = formula.weights / batches
        floor = float(noise.sum()) + formula.drift(tau)
        slope = formula.rate * rounds * tau * left * (floor - formula.gap)
        step = 1e-6
        drift = (formula.drift(tau * (1 + step)) - formula.drift(tau * (1 - step))) / (2 * step)
        gradient = np.concatenate([[slope, slope + (1 - left) * drift], -(1 - left) * noise])
        return left * formula.gap + (1 - left) * floor, gradient

    def limits(z: np.ndarray) -> np.ndarray:
        rounds, tau, batches = split(z)
        cost = rounds * (tau * float(fleet.sample_cost @ batches) + budget.round_cost) / budget.cost
        times = rounds * (tau * batches / fleet.throughput + fleet.round_time) / budget.time
        return 1.0 - np.concatenate([[cost], times])

    def limits_jacobian(z: np.ndarray) -> np.ndarray:
        rounds, tau, batches = split(z)
        work = rounds * tau * fleet.sample_cost * batches / budget.cost
        busy = rounds * tau * batches / fleet.throughput / budget.time
        rows = np.zeros((1 + batches.size, z.size))
        rows[0, 0] = work.sum() + rounds * budget.round_cost / budget.cost
        rows[0, 1], rows[0, 2:] = work.sum(), work
        rows[1:, 0] = busy + rounds * fleet.round_time / budget.time
        rows[1:, 1] = busy
        rows[np.arange(1, batches.size + 1), np.arange(2, batches.size + 2)] = busy
        return -rows

    bounds = [(0.0, math.log(MOST_ROUNDS)), (0.0, math.log(MOST_STEPS))]
    bounds += [(0.0, math.log(d)) for d in fleet.samples]
    best = None
    for rounds, tau in ((10.0, 2.0), (50.0, 5.0), (200.0, 2.0)):
        try:
            found = minimize(
                objective,
                np.concatenate([[math.log(rounds), math.log(tau)], np.full(len(fleet), math.log(2.0))]),
                jac=True,
                bounds=bounds,
                constraints={"type": "ineq", "fun": limits, "jac": limits_jacobian},
                method="SLSQP",
                options={"maxiter": 500, "ftol": 1e-12},
            )
        except TimeoutError:
            break
        if limits(found.x).min() > -1e-6 and (best is None or found.fun < best.fun):
            best = found
    if best is None:
        return f"no point within {LIMIT:.0f} s"
    rounds, tau, batches = split(best.x)
    return Answer(rounds, tau, batches, "continuous, local optimum")
