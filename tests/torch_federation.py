"""A small federation that torch trains: five clients, three classes, a perceptron; and a run of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional

from coopt import Budget, Controller, Fleet
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import (
    FederatedTrainer,
    History,
    SharedData,
)
from coopt.streaming import Fifo

CLIENTS = 5
SIZES = np.array([12, 30, 7, 55, 20])
SPEED = np.array([100.0, 40.0, 300.0, 80.0, 20.0])


def model(dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def samples(size: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator) + torch.randn(4, generator=generator)
    y = x[:, :3].argmax(dim=1)
    return x.to(dtype), y


def datasets(dtype: torch.dtype = torch.float64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [samples(int(size), i, dtype) for i, size in enumerate(SIZES)]


def fleet() -> Fleet:
    return Fleet(SIZES, gradient_noise=1.0, divergence=1.0, throughput=SPEED, round_time=0.1)


def controller(cost: float = 8000.0, **options: Any) -> Controller:
    return Controller(
        fleet(),
        Budget(cost=cost, time=300.0, round_cost=20.0, max_rounds=options.pop("max_rounds", None)),
        0.2,
        curvature_floor=0.0,
        **options,
    )


def trainer(**options: Any) -> FederatedTrainer:
    given = {
        "system": SystemModel(SPEED, 0.1),
        "test": samples(100, 9),
        "seed": 5,
        "progress": False,
        "mode": "loop",
    }
    return FederatedTrainer(
        options.pop("model", model()),
        functional.cross_entropy,
        options.pop("data", datasets()),
        **(given | options),
    )


def parameters(run: FederatedTrainer) -> np.ndarray:
    return torch.nn.utils.parameters_to_vector(run.model.parameters()).detach().cpu().numpy().copy()


def same_records(left: History, right: History) -> bool:
    return left.state_dict()["records"].__repr__() == right.state_dict()["records"].__repr__()


class InterruptedRunError(Exception):
    pass


def stream() -> SharedData:
    x, y = samples(400, 1)
    buffers = [Fifo(16, seed=i) for i in range(CLIENTS)]

    def rows(round_: int) -> list[np.ndarray]:
        for i, buffer in enumerate(buffers):
            if round_ >= i:  # client 4 has nothing for four rounds
                buffer.insert(np.arange(3) + 80 * i + 3 * (round_ % 20))
        return [buffer.items for buffer in buffers]

    return SharedData(x, y, rows)
