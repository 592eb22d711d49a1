"""The best fixed (K, tau, s) with hindsight: true constants, true errors, true speeds with their jump."""

from __future__ import annotations

import numpy as np

from benchmarks.online.logcosh import Instance, expected_error
from coopt.solvers.whole_units.batches import relax

TILTS = (0.0, 1.0)  # weight of the noise that drives drift in the shape of the batches


def fits(problem: Instance, rounds: int, tau: int, batch: np.ndarray) -> bool:
    """Whether a fixed plan keeps both limits, with speeds that jump when half the time is over."""
    budget = problem.budget
    if rounds * (tau * batch.sum() + budget.round_cost) > budget.cost:
        return False
    before, after = (float(np.max(tau * batch / speed + problem.round_time)) for speed in problem.speed)
    slow = int(np.ceil(budget.time / 2 / before))  # rounds that begin before the jump
    return before * min(rounds, slow) + after * max(rounds - slow, 0) <= budget.time


def batches(problem: Instance, rounds: int, tau: int, tilt: float) -> np.ndarray | None:
    """Best integer batches for (K, tau) by the noise terms, capped by the mean speed."""
    budget, p = problem.budget, problem.weights
    spend = (budget.cost / rounds - budget.round_cost) / tau
    caps = problem.speed.mean(axis=0) * (budget.time / rounds - problem.round_time) / tau
    upper = np.minimum(np.floor(caps), problem.samples)
    if spend < len(p) or np.any(upper < 1):
        return None
    weights = p**2 * problem.noise + tilt * problem.learning_rate * tau * p * (1 - p) * problem.noise
    found = relax(weights, np.ones(len(p)), spend, np.ones(len(p)), upper).batch_sizes
    whole = np.floor(found)
    rest = int(min(spend - whole.sum(), len(p)))
    for i in np.argsort(found - whole)[::-1][:rest]:
        whole[i] += whole[i] + 1 <= upper[i]
    return whole


def best_fixed(problem: Instance, seed: int, dropout: float = 0.0) -> tuple[float, int, int]:
    """Search a grid, refine around its best point, and judge the winner with fresh noise."""
    budget = problem.budget
    scored: dict[tuple[int, int, float], float] = {}

    def score(rounds: int, tau: int, tilt: float, replicas: int) -> None:
        key = rounds, tau, tilt
        if key in scored or rounds < 1 or tau < 1:
            return
        batch = batches(problem, rounds, tau, tilt)
        if batch is None or not fits(problem, rounds, tau, batch):
            return
        scored[key] = expected_error(problem, [(tau, batch)] * rounds, replicas, seed, dropout)

    most = budget.cost / (len(problem.samples) + budget.round_cost)
    most = min(most, budget.time / float(problem.round_time.max()))
    for tau in (1, 2, 4, 8, 16, 32, 64):
        for rounds in np.unique(np.geomspace(2, most, 9).astype(int)):
            if rounds * tau <= 3000:
                score(int(rounds), tau, 0.0, 24)
    for ratio in (1.4, 1.2, 1.1):
        rounds, tau, _ = min(scored, key=scored.get)
        for k in (rounds / ratio, rounds, rounds * ratio):
            for t in {tau, max(1, round(tau / ratio)), round(tau * ratio), tau + 1, tau - 1}:
                for tilt in TILTS:
                    score(round(k), t, tilt, 48)
    finalists = sorted(scored, key=scored.get)[:4]
    fresh = {
        (k, t, tilt): expected_error(problem, [(t, batches(problem, k, t, tilt))] * k, 100, seed + 1, dropout)
        for k, t, tilt in finalists
    }
    rounds, tau, tilt = min(fresh, key=fresh.get)
    plan = [(tau, batches(problem, rounds, tau, tilt))] * rounds
    return expected_error(problem, plan, 100, seed + 2, dropout), rounds, tau
