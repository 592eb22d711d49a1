"""The how-to's diffs: the lines that stay and the lines that are added make an app that trains."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

if any(importlib.util.find_spec(package) is None for package in ("flwr", "torch")):
    pytest.skip("flwr or torch is not installed", allow_module_level=True)

import torch
from flwr.app import Context, RecordDict

from coopt.adapters.flower import strategy as strategies
from fake_grid import FakeGrid, FakeTime, Node

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "flower.md"
SAMPLES = [40, 60, 30]


def app(name: str, task: ModuleType) -> Any:
    """Apply a diff of the page, and make its app."""
    (diff,) = re.findall(rf"```{{code-block}} diff\n:name: {name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    kept = [line[1:] for line in diff.splitlines() if not line.startswith("-")]
    scope: dict[str, Any] = {}
    sys.modules["my_app"], sys.modules["my_app.task"] = ModuleType("my_app"), task
    try:
        exec(compile("\n".join(kept), name, "exec"), scope)  # noqa: S102  (the page's own code)
    finally:
        del sys.modules["my_app"], sys.modules["my_app.task"]
    return scope["app"]


def classification() -> ModuleType:
    task: Any = ModuleType("my_app.task")
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(n, 4, generator=generator) for n in SAMPLES]
    task.Net = lambda: torch.nn.Linear(4, 2)
    task.load_data = lambda i: (data[i], (data[i][:, 0] > 0).long())
    return task


def regression() -> ModuleType:
    task: Any = ModuleType("my_app.task")
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(n, 3)) for n in SAMPLES]

    class Net:
        def state_dict(self) -> dict[str, Any]:
            return {"weights": torch.zeros(3, dtype=torch.float64)}

    def gradient(weights: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        error = inputs @ weights - targets
        return 0.5 * float(np.mean(error**2)), inputs.T @ error / len(error)

    task.Net, task.gradient = Net, gradient
    task.load_data = lambda i: (data[i], data[i] @ np.array([1.0, -2.0, 0.5]))
    return task


@pytest.mark.parametrize(
    ("client", "task"),
    [("client", classification()), ("numpy-client", classification()), ("loop", regression())],
)
def test_the_diffs_make_an_app_that_trains(
    client: str, task: ModuleType, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    start = strategies.CoOptStrategy.start
    monkeypatch.setattr(
        strategies.CoOptStrategy, "start", lambda *given, **named: results.append(start(*given, **named))
    )
    nodes = {9 + device: Node(device, app(client, task)) for device in range(len(SAMPLES))}
    app("server", task)(FakeGrid(clock, nodes), Context(1, 1, {}, RecordDict(), {}))
    (result,) = results
    # Nothing is left to gain where a noiseless regression has been solved, at the very end.
    assert result.stopped.reason.name in ("COST", "GAIN") and len(result.rounds) > 5
    assert result.rounds[-1].cost > 0.8 * 5_000
    assert all(record.reports == len(SAMPLES) for record in result.rounds)
    assert result.rounds[-1].train_loss < 0.8 * result.rounds[0].train_loss
