"""Plans as people commonly choose them, each the best of its kind within the limits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from coopt.errors import BoundWarning, InfeasibleError
from coopt.plans.allocation import Allocation
from coopt.problem.problem import Problem
from coopt.problem.validation import instance
from coopt.questions.solve import evaluate, solve_allocation
from coopt.solvers.best_first import lowest

FEDAVG_EPOCHS, FEDAVG_BATCH = 5, 32


@dataclass(frozen=True)
class Baseline:
    """A common way to choose a plan, and the best plan that can be chosen like that.

    Attributes
    ----------
    label : str
        What is fixed, and what is still chosen.
    allocation : Allocation or None
        The best such plan, judged on the whole problem; None where none meets the limits.
    """

    label: str
    allocation: Allocation | None


def baselines(problem: Problem) -> tuple[Baseline, ...]:
    """Judge three common ways to choose rounds, local steps and batch sizes.

    Parameters
    ----------
    problem : Problem
        One whose devices accept any batch size from min_batch to max_batch (batch_multiple 1).

    Returns
    -------
    tuple of Baseline
        One batch size for all devices (K, tau and that size at their best); one local step (K and the
        batch sizes at their best); federated averaging with five local epochs of batches of 32 (K at its
        best; tau is five epochs of the average device, as the bounds take one tau for all).
    """
    instance("problem", problem, Problem)
    tau = max(round(FEDAVG_EPOCHS * float(problem.fleet.samples.mean()) / FEDAVG_BATCH), 1)
    return (
        Baseline("the same batch everywhere", _same_batch(problem)),
        Baseline("one local step per round", _judged(problem, _solved(problem, 1))),
        Baseline(
            f"FedAvg, {FEDAVG_EPOCHS} epochs of batch {FEDAVG_BATCH}",
            _judged(problem, _solved(_with_batches(problem, FEDAVG_BATCH, FEDAVG_BATCH), tau)),
        ),
    )


def _same_batch(problem: Problem) -> Allocation | None:
    """The best plan with one batch size for all devices.

    Letting each device choose within [low, high] bounds every common size in that range from below, so
    halving the range with the smallest such bound ends at the best size without trying all.
    """
    lower, upper = problem.fleet.batch_range()
    first, last = int(lower.max()), int(upper.min())

    def within(low: int, high: int) -> tuple[float, Allocation] | None:
        best = _solved(_with_batches(problem, low, high))
        if best is None:
            return None
        # Where a search ended with a gap, only what it proved bounds the sizes in between.
        return best.predicted_error if low == high else best.lower_bound, best

    found = lowest(first, last, within) if first <= last else []
    return _judged(problem, found[0][2]) if found else None


def _judged(problem: Problem, plan: Allocation | None) -> Allocation | None:
    """A plan of a restricted problem as one of the whole problem."""
    if plan is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundWarning)
        return evaluate(problem, plan.rounds, plan.local_steps, plan.batch_sizes)


def _solved(restricted: Problem, local_steps: int | None = None) -> Allocation | None:
    """The best plan of a restricted problem; None where nothing fits."""
    with warnings.catch_warnings():
        # That a bound says little is the point of a comparison, not news about the plan.
        warnings.simplefilter("ignore", BoundWarning)
        try:
            return solve_allocation(restricted, local_steps=local_steps)
        except InfeasibleError:
            return None


def _with_batches(problem: Problem, low: int, high: int) -> Problem:
    """The problem with batch sizes kept between two numbers, where a device admits that."""
    lower, upper = problem.fleet.batch_range()
    fleet = replace(
        problem.fleet, min_batch=np.clip(low, lower, upper), max_batch=np.clip(high, lower, upper)
    )
    return replace(problem, fleet=fleet)
