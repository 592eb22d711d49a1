"""Honest clients that differ as much as they can are hardly ever named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coopt import Budget, Controller, Fleet
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel

DEVICES = 30


class Watched(Controller):
    """A controller that counts whom it names."""

    named = 0

    def observe(self, *reports: Any, **options: Any) -> Any:
        ignored = super().observe(*reports, **options)
        self.named += len({entry.client for entry in ignored})
        return ignored


@pytest.mark.parametrize("classes", [1, 2])
def test_devices_of_one_or_two_classes_are_named_in_less_than_one_percent_of_rounds(classes: int) -> None:
    """The pathological partition of McMahan et al. 2017: samples by label, some shards for each device."""
    pooled = digits(DEVICES, skew=100.0).clients
    images, labels = (np.concatenate([client[k] for client in pooled]) for k in range(2))
    order = np.argsort(labels, kind="stable")
    shards = np.array_split(order, DEVICES * classes)
    dealt = np.random.default_rng(0).permutation(DEVICES * classes).reshape(DEVICES, classes)
    rows = [np.concatenate([shards[k] for k in hand]) for hand in dealt]
    clients = [(images[r], labels[r]) for r in rows]
    speed = 100 * np.exp(np.random.default_rng(1).normal(0, 0.5, DEVICES))
    model = Softmax(64, 10)
    controller = Watched(
        Fleet([len(r) for r in rows], 1.0, 1.0), Budget(cost=20_000, round_cost=300), 0.3, curvature_floor=0.0
    )
    run = simulate(controller, model.gradient, model.start(), clients, system=SystemModel(speed))
    rounds = len(run.losses) - 1
    assert rounds > 30 and run.losses[-1] < run.losses[0]
    assert controller.named < 0.01 * rounds * DEVICES
