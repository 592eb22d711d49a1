"""Tuners that are charged for what they train: optuna with TPE, alone and with successive halving."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

from benchmarks.forecast.study import Pair, Study

SHARES = (0.05, 0.1, 0.2)
SEEDS = 10
# Units of a tuner's budget, and after how many of them a trial reports: ten equal trials, or trials of which
# the better third goes on each time.
TPE = 10, (1,)
HALVING = 27, (1, 3, 9)
STARTUP_TRIALS, MOST_TRIALS = 4, 100


def have_optuna() -> bool:
    return importlib.util.find_spec("optuna") is not None


def tuned(
    study: Study,
    rounds_for: Callable[[Pair, float], int],
    share: float,
    plan: tuple[int, tuple[int, ...]],
    seed: int,
    pairs: list[Pair],
) -> Pair | None:
    """The plan that some trials like best; None where no trial had a round.

    Parameters
    ----------
    study : Study
    rounds_for : callable
        Rounds of a plan of the grid that a share of the whole budget allows.
    share : float
        Of the budget that all trials together may take.
    plan : tuple
        `TPE` or `HALVING`.
    seed : int
        Of the sampler; the trials see the training loss of one run, without error.
    pairs : list of (tau, s)
        The grid.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    units, rungs = plan
    steps, batches = sorted({tau for tau, _ in pairs}), sorted({s for _, s in pairs})
    spent = 0
    seen: dict[Pair, tuple[int, float]] = {}

    def objective(trial: Any) -> float:
        nonlocal spent
        tau = steps[trial.suggest_int("steps", 0, len(steps) - 1)]
        pair = tau, batches[trial.suggest_int("batch", 0, len(batches) - 1)]
        before, loss = 0, math.inf
        for rung in rungs:
            rounds = rounds_for(pair, share * rung / units)
            if rounds < 1:
                raise optuna.TrialPruned  # not a round: nothing is trained, and nothing charged
            loss = float(study.gaps(pair, rounds)[seed % study.seeds])
            spent, before = spent + rung - before, rung
            # Those trained longest come first, and the lowest loss among them.
            seen[pair] = min(seen.get(pair, (0, math.inf)), (-rung, loss))
            trial.report(loss, rung)
            if rung < rungs[-1] and (trial.should_prune() or spent >= units):
                raise optuna.TrialPruned
        return loss

    made = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
        pruner=optuna.pruners.SuccessiveHalvingPruner(rungs[0], 3),
    )
    for _ in range(MOST_TRIALS):
        if spent >= units:
            break
        made.optimize(objective, n_trials=1)
    return min(seen, key=lambda pair: seen[pair]) if seen else None
