"""Four nodes of a quadratic federation for Flower, and what holds of every run of theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord

from coopt import Budget, Controller, Fleet
from coopt.adapters.flower import CoOptResult, CoOptStrategy
from fake_grid import DIMENSION, Node, Quadratic

SAMPLES = [60, 40, 80, 50]
QUIET = {"fraction_evaluate": 0.0}


def controller(cost: float = 2500.0, time: float = 200.0, **options: Any) -> Controller:
    budget = Budget(cost=cost, time=time, round_cost=20, max_rounds=options.pop("max_rounds", None))
    return Controller(
        Fleet(SAMPLES, gradient_noise=1.0, divergence=1.0), budget, learning_rate=0.1, **options
    )


def nodes(**behaviour: Any) -> tuple[Quadratic, dict[int, Node]]:
    work = Quadratic(SAMPLES)
    return work, {100 + 7 * i: work.node(i, **behaviour) for i in range(len(SAMPLES))}


def start() -> ArrayRecord:
    return ArrayRecord({"w": Array(np.full(DIMENSION, 5.0))})


def each(result: CoOptResult, name: str) -> np.ndarray:
    """What every round added."""
    return np.diff([getattr(record, name) for record in result.rounds], prepend=0)


def check(result: CoOptResult, strategy: CoOptStrategy, rounds: int | None = None) -> None:
    """What holds of every run, whatever happens in it."""
    used = strategy.controller
    assert isinstance(used, Controller)
    budget = used.budget
    assert [record.round for record in result.rounds] == list(range(used.round))
    assert np.all(each(result, "cost") > 0) and result.rounds[-1].cost == used.spent_cost
    assert np.all(each(result, "seconds") >= 0) and result.rounds[-1].seconds <= used.spent_seconds
    assert used.spent_cost <= budget.cost * (1 + 1e-9)
    assert used.spent_seconds <= budget.time * (1 + 1e-9)
    assert np.all(np.isfinite(result.arrays["w"].numpy()))
    assert rounds is None or len(result.rounds) == rounds
