"""A small torch training on three simulated devices, which comes out the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from coopt import Controller
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import FederatedTrainer, History


def small_training(
    data: Sequence[tuple[torch.Tensor, torch.Tensor]], controller: Controller, **options: Any
) -> tuple[History, np.ndarray]:
    """Train a network of one hidden layer on rows of 20 numbers in two classes; the history and the weights.

    Parameters
    ----------
    data : sequence of (rows, labels)
        Of each of the three devices.
    controller : Controller
    **options
        Further arguments of the trainer.
    """
    torch.manual_seed(2)
    trainer = FederatedTrainer(
        torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)),
        functional.cross_entropy,
        data,
        mode="loop",
        system=SystemModel([200.0, 100.0, 300.0], 0.1, compute_jitter=0.2, dropout=0.1, seed=3),
        progress=False,
        **options,
    )
    history = trainer.run(controller)
    return history, torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().numpy()
