"""Honest clients that differ as much as they can are hardly ever named."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from coopt import Budget, Controller, Fleet
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.measuring.exchange import ClientMeasure, measure_clients

DEVICES = 30


class Watched(Controller):
    """A controller that counts whom it names."""

    named = 0

    def observe(self, *reports: Any, **options: Any) -> Any:
        ignored = super().observe(*reports, **options)
        self.named += len({entry.client for entry in ignored})
        return ignored


def dealt_by_label(classes: int) -> list[tuple[Any, Any]]:
    """The pathological partition of McMahan et al. 2017: samples by label, some shards for each device."""
    pooled = digits(DEVICES, skew=100.0).clients
    images, labels = (np.concatenate([client[k] for client in pooled]) for k in range(2))
    order = np.argsort(labels, kind="stable")
    shards = np.array_split(order, DEVICES * classes)
    dealt = np.random.default_rng(0).permutation(DEVICES * classes).reshape(DEVICES, classes)
    rows = [np.concatenate([shards[k] for k in hand]) for hand in dealt]
    return [(images[r], labels[r]) for r in rows]


@pytest.mark.parametrize("classes", [1, 2])
def test_devices_of_one_or_two_classes_are_named_in_less_than_one_percent_of_rounds(classes: int) -> None:
    clients = dealt_by_label(classes)
    speed = 100 * np.exp(np.random.default_rng(1).normal(0, 0.5, DEVICES))
    model = Softmax(64, 10)
    controller = Watched(
        Fleet([len(held) for _, held in clients], 1.0, 1.0),
        Budget(cost=15_000, round_cost=300),
        0.3,
        curvature_floor=0.0,
        policy="horizon",  # it does not measure: that is the other test
    )
    run = simulate(controller, model.gradient, model.start(), clients, system=SystemModel(speed))
    rounds = len(run.losses) - 1
    assert rounds > 25 and run.losses[-1] < run.losses[0]
    assert controller.named < 0.01 * rounds * DEVICES


def test_such_devices_are_believed_in_measurements_too() -> None:
    model, lost, measured = Softmax(64, 10), 0, 0
    for classes in (1, 2):
        clients = dealt_by_label(classes)
        sizes = [len(held) for _, held in clients]
        parameters = model.start()
        for rounds in (0, 60):
            for _ in range(rounds):
                step = [model.gradient(parameters, client)[1] for client in clients]
                parameters = parameters - 0.5 * np.average(step, axis=0, weights=sizes)
            devices = [ClientMeasure(i, model.gradient, client) for i, client in enumerate(clients)]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                measure_clients(
                    lambda message, asked, devices=devices: [(i, devices[i].answer(message)) for i in asked],
                    parameters,
                    sizes,
                    rows=16,
                    directions=2,
                    progress=False,
                )
            said = " ".join(str(each.message) for each in caught)
            lost += int(found[1]) if (found := re.search(r"(\d+) of 30 devices were left out", said)) else 0
            measured += DEVICES
    assert lost < 0.01 * measured
