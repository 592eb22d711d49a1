"""How the clients are run: one after the other, or together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from coopt.adapters.torch.data import client_rows
from coopt.adapters.torch.engine import Engine, RoundWork
from coopt.adapters.torch.flat import FlatModel
from coopt.adapters.torch.local import EVERY_ROUND, PLAIN, ProbeOptions
from coopt.adapters.torch.loop import LoopEngine
from coopt.adapters.torch.stacked import StackedEngine
from coopt.errors import InvalidProblemError
from coopt.objectives.forecast.optimiser import ClientAdam, ClientSGD

Mode = Literal["loop", "vectorised"]

MOST_PARAMETERS_ON_CPU = 50_000

# Relative difference of two gradients that rounding cannot explain.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}


def choose_engine(
    mode: str,
    model: FlatModel,
    inputs: Tensor,
    targets: Tensor,
    *,
    seed: int,
    probe: ProbeOptions | None,
    replacement: bool,
    optimiser: ClientSGD | ClientAdam = PLAIN,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Mode, Engine]:
    """Make the engine of a mode; "auto" is resolved.

    Raises
    ------
    InvalidProblemError
        If the mode is unknown, or the clients of this model cannot be trained together.
    """
    if mode not in ("auto", "loop", "vectorised"):
        raise InvalidProblemError(f"mode = {mode!r} is unknown: choose 'auto', 'loop' or 'vectorised'")
    kind: type[LoopEngine | StackedEngine] = LoopEngine
    chosen: Mode = "loop"
    if mode == "vectorised" or (mode == "auto" and pays(model)):
        reason = obstacle(model, inputs, targets)
        if probe is not None and probe.noise is not None:
            reason = "its clients put noise on their reports, one by one"
        if reason is None:
            kind, chosen = StackedEngine, "vectorised"
        elif mode == "vectorised":
            raise InvalidProblemError(f"mode = 'vectorised' cannot train this model: {reason}; choose 'loop'")
    return chosen, kind(
        model,
        inputs,
        targets,
        seed=seed,
        probe=probe,
        replacement=replacement,
        optimiser=optimiser,
        clock=clock,
    )


def pays(model: FlatModel) -> bool:
    """Tell whether training together is likely to be faster.

    On a processor it saves Python's time between operations, until the stacked parameters no longer fit in
    its cache: benchmarks/federated/trainer_speed.py measures where that is.
    """
    return model.device.type != "cpu" or model.size <= MOST_PARAMETERS_ON_CPU


def obstacle(model: FlatModel, inputs: Tensor, targets: Tensor) -> str | None:
    """Try both ways on a few samples: why they differ, or None if they agree.

    What a sample of a mini-batch contributes must not depend on the others: batch normalisation and losses
    that are no means rule that out. Random numbers, as in dropout, would not be the same.
    """
    few = min(4, len(inputs))
    rows = client_rows([np.arange(few), np.arange(few)[::-1]], few)
    start = model.state.clone()
    work = RoundWork(
        round=0,
        clients=np.arange(2),
        local_steps=np.ones(2, dtype=np.int64),
        batch_sizes=np.array([9, 8]),  # what the probe needs under batch normalisation
        shares=np.array([0.5, 0.5]),
        rows=rows,
        learning_rate=1.0,
        extra_evaluation=False,
        seconds=None,
    )
    gradients = []
    try:
        for kind in (LoopEngine, StackedEngine):
            engine = kind(model, inputs, targets, seed=0, probe=EVERY_ROUND, replacement=True)
            reports = engine.run(start, work).reports
            gradients.append(np.array([report.gradient for report in reports]))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return str(error).partition("\n")[0]
    finally:
        model.state.copy_(start)
    loop, stacked = gradients
    if not np.isfinite(loop).all():
        return "its gradient on the first samples is not finite: look for NaN in model and client_datasets"
    if not np.linalg.norm(loop - stacked) <= TOLERANCE[start.dtype] * np.linalg.norm(loop):
        return "its gradient changes if samples are taken apart (batch normalisation, a loss that is no mean)"
    return None
