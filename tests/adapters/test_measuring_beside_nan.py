"""A device whose data hold NaN does not keep the others from being measured within a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coopt import Budget, Controller, Fleet
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel

SPEEDS = SystemModel([100.0] * 5, round_time=0.1)


def controller(samples: object) -> Controller:
    return Controller(Fleet(samples, gradient_noise=1.0, divergence=1.0), Budget(cost=20_000), 0.3)


def test_the_simulation_measures_the_others() -> None:
    federation, model = digits(devices=5), Softmax(64, 10)
    clients = [(images.copy(), labels) for images, labels in federation.clients]
    clients[3][0][:] = math.nan
    planner = controller(federation.samples)
    run = simulate(planner, model.gradient, model.start(), clients, system=SPEEDS, progress=False)
    assert planner.measurement is not None and planner.measurement.measured.tolist() == [1, 1, 1, 0, 1]
    assert np.isfinite(run.parameters).all()
    assert 3 in run.left_out[-1]


@pytest.mark.parametrize("broken", [slice(0, 1), slice(0, 80)])
def test_the_trainer_measures_the_others_and_names_the_device(broken: slice) -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FederatedTrainer

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 5, generator=generator)
    targets = (inputs.sum(1) > 0).long()
    inputs[240:320][broken, 2] = math.nan
    parts = list(zip(inputs.split(80), targets.split(80), strict=True))
    trainer = FederatedTrainer(
        torch.nn.Linear(5, 2), torch.nn.functional.cross_entropy, parts, system=SPEEDS, progress=False
    )
    planner = controller([80] * 5)
    history = trainer.run(planner)
    assert planner.measurement is not None and planner.measurement.measured[[0, 1, 2, 4]].all()
    assert all(torch.isfinite(value).all() for value in trainer.model.parameters())
    told = [text for record in history for text in record.ignored]
    assert any(text.startswith("client 3: ") for text in told)
    if broken.stop == 80:
        assert not planner.measurement.measured[3]
        assert "client 3: not measured, its loss or gradient is not finite" in told
