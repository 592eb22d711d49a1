"""Clients trained together end where clients trained one by one end, and report the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch.nn import functional

from coopt import ClientReport, Fleet, RoundPlan, Stopped
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import (
    FederatedTrainer,
    FlatModel,
    LoopEngine,
    ProbeOptions,
    RoundWork,
    SharedData,
    StackedEngine,
)
from coopt.adapters.torch.buckets import WORST_WASTE, bucket_clients
from coopt.adapters.torch.data import client_rows
from coopt.adapters.torch.stack import sample_losses
from coopt.errors import InvalidProblemError

SIZES = [12, 30, 7, 55, 20, 41]
FLEET = Fleet(SIZES, gradient_noise=1.0, divergence=1.0)


class Varied(FixedPlan):
    """Every round another tau, other batches and another learning rate; keeps all reports."""

    def __init__(self, *, rounds: int = 7) -> None:
        super().__init__(FLEET, rounds, 1, 1, 0.1)
        self.reports: list[ClientReport] = []

    def plan(self) -> RoundPlan | Stopped:
        plan = super().plan()
        if isinstance(plan, Stopped):
            return plan
        rng = np.random.default_rng(self.round)
        values = plan.to_dict() | {
            "batch_sizes": np.minimum(rng.integers(1, 13, len(SIZES)), SIZES),
            "local_steps": int(rng.integers(1, 6)),
            "extra_evaluation": self.round % 3 != 1,
            "learning_rate": 0.05 * (1 + self.round),
        }
        return RoundPlan(**values)

    def observe(self, reports: Iterable[ClientReport], **rest: Any) -> list[Any]:
        reports = list(reports)
        self.reports.extend(reports)
        return super().observe(reports, **rest)


def model(dtype: torch.dtype) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def data(dtype: torch.dtype) -> SharedData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SIZES), 4, generator=generator).to(dtype)
    ends = np.cumsum(SIZES)
    rows = [np.arange(end - size, end) for size, end in zip(SIZES, ends, strict=True)]
    return SharedData(x, x[:, :3].argmax(dim=1), rows)


def run(
    mode: Any, planner: Varied, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[np.ndarray, list[ClientReport]]:
    given = {
        "loss": functional.cross_entropy,
        "model": model(dtype),
        "client_datasets": data(dtype),
        "system": SystemModel([100.0, 50.0, 20.0, 300.0, 10.0, 70.0], 0.1, dropout=0.2),
        "progress": False,
        "seed": 3,
    }
    trainer = FederatedTrainer(mode=mode, **(given | options))
    assert trainer.mode == mode
    trainer.run(planner)
    flat = torch.nn.utils.parameters_to_vector(trainer.model.parameters())
    return flat.detach().numpy().copy(), planner.reports


def same(left: list[ClientReport], right: list[ClientReport], tolerance: float) -> None:
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        first, second = a.to_scalars(), b.to_scalars()
        assert first.keys() == second.keys()
        for name, value in first.items():
            # Norms and products of gradients are of order one: rounding is relative to that.
            assert second[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
        for x, y in ((a.gradient, b.gradient), (a.change, b.change)):
            assert (x is None) == (y is None)
            assert x is None or np.allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"probe": ProbeOptions("same")},
        {"probe": ProbeOptions(vectors="none")},
        {"probe": ProbeOptions(vectors="sketch", sketch_size=5)},
        {"probe": None},
        {"weight_decay": 0.3},
        {"replacement": False},
        {"weights": [0, 1, 2, 3, 4, 5]},
    ],
    ids=str,
)
def test_both_modes_agree_in_double_precision(options: dict[str, Any]) -> None:
    left, told = run("loop", Varied(), **options)
    right, heard = run("vectorised", Varied(), **options)
    assert np.allclose(left, right, rtol=1e-10, atol=1e-10)
    same(told, heard, 1e-10)
    if "probe" not in options:
        assert any(report.change is not None for report in told)


def test_engines_agree_when_every_client_has_its_own_number_of_steps() -> None:
    results = []
    for kind in (LoopEngine, StackedEngine):
        flat, samples = FlatModel(model(torch.float64), functional.cross_entropy), data(torch.float64)
        engine = kind(flat, samples.inputs, samples.targets, seed=1, probe=ProbeOptions(), replacement=True)
        state, reports, rng = flat.state.clone(), [], np.random.default_rng(0)
        for round_ in range(5):
            clients = np.flatnonzero(rng.random(len(SIZES)) < 0.8)
            work = RoundWork(
                round=round_,
                clients=clients,
                local_steps=rng.integers(1, 7, len(clients)),
                batch_sizes=rng.integers(1, 13, len(clients)),
                shares=np.full(len(clients), 1 / len(clients)),
                rows=client_rows(samples.rows, len(samples.inputs)),
                learning_rate=0.1,
                extra_evaluation=round_ % 2 == 0,
                seconds=np.zeros((len(clients), 2)),
            )
            result = engine.run(state, work)
            state = result.state
            reports += result.reports
        results.append((state, reports))
    (left, told), (right, heard) = results
    assert torch.allclose(left, right, rtol=1e-10, atol=1e-10)
    same(told, heard, 1e-10)


def test_both_modes_agree_in_single_precision() -> None:
    left, told = run("loop", Varied(), torch.float32)
    right, heard = run("vectorised", Varied(), torch.float32)
    assert np.allclose(left, right, rtol=1e-4, atol=1e-5)
    same(told, heard, 1e-3)


def test_both_modes_agree_when_buckets_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    left, told = run("loop", Varied())
    monkeypatch.setattr("coopt.adapters.torch.stacked.MOST_ROWS", 10)
    right, heard = run("vectorised", Varied())
    assert np.allclose(left, right, rtol=1e-10, atol=1e-10)
    same(told, heard, 1e-10)


def squared_hinge(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (1 - targets * outputs.squeeze(-1)).clamp(min=0).square().mean()


class Attention(torch.nn.Module):
    """Tied weights, a constant buffer and a frozen parameter, on sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64), requires_grad=False)
        self.register_buffer("position", torch.linspace(0, 1, 4, dtype=torch.float64)[:, None])
        self.query = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
        self.key = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
        self.key.weight = self.query.weight
        self.out = torch.nn.Linear(3, 1, dtype=torch.float64)
        with torch.no_grad():
            self.query.weight.copy_(torch.eye(3) + 0.1)
            self.out.weight.fill_(0.3)
            self.out.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position
        scores = torch.softmax(self.scale * self.query(x) @ self.key(x).transpose(-1, -2), dim=-1)
        return self.out((scores @ x).mean(dim=-2))


def svm() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1, dtype=torch.float64)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(3, 2),
    ).double()


@pytest.mark.parametrize(
    ("module", "shape", "loss"),
    [
        (svm, (4,), squared_hinge),
        (Attention, (4, 3), squared_hinge),
        (network, (1, 4, 4), functional.cross_entropy),
        (network, (1, 4, 4), torch.nn.CrossEntropyLoss(label_smoothing=0.1)),
    ],
)
def test_both_modes_agree_for_other_models(
    module: Callable[[], torch.nn.Module], shape: tuple[int, ...], loss: Any
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SIZES), *shape, generator=generator, dtype=torch.float64)
    y = (x.flatten(1).sum(dim=1) > 0).long()
    if loss is squared_hinge:
        y = 2.0 * y - 1
    given = {"loss": loss, "client_datasets": SharedData(x, y, data(torch.float64).rows)}
    left, told = run("loop", Varied(rounds=4), model=module(), **given)
    right, heard = run("vectorised", Varied(rounds=4), model=module(), **given)
    assert np.allclose(left, right, rtol=1e-9, atol=1e-10)
    same(told, heard, 1e-9)


class Normalised(torch.nn.Module):
    """Samples of a mini-batch depend on one another, without a running mean that would tell."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x - x.mean(dim=0))


@pytest.mark.parametrize(
    ("module", "loss", "reason"),
    [
        (torch.nn.Sequential(torch.nn.Dropout(), model(torch.float32)), functional.cross_entropy, "random"),
        (
            torch.nn.Sequential(torch.nn.BatchNorm1d(4), model(torch.float32)),
            functional.cross_entropy,
            "cannot train this model: Batch norm got a batched tensor.*; choose 'loop'",
        ),
        (Normalised(), functional.cross_entropy, "samples are taken apart"),
        (
            model(torch.float32),
            lambda o, y: functional.cross_entropy(o, y, reduction="sum"),
            "samples are taken apart",
        ),
        (
            model(torch.float32),
            torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0])),
            "samples are taken apart",
        ),
    ],
)
def test_what_cannot_be_trained_together_is_trained_one_by_one(
    module: torch.nn.Module, loss: Any, reason: str
) -> None:
    given = {"client_datasets": data(torch.float32), "progress": False}
    with pytest.raises(InvalidProblemError, match=reason):
        FederatedTrainer(module, loss, mode="vectorised", **given)
    trainer = FederatedTrainer(module, loss, mode="auto", **given)
    assert trainer.mode == trainer.history.mode == "loop"
    trainer.run(FixedPlan(FLEET, 2, 2, 8, 0.1))


def test_auto_trains_small_models_together_and_large_ones_one_by_one() -> None:
    trainer = FederatedTrainer(model(torch.float32), functional.cross_entropy, data(torch.float32))
    assert trainer.mode == trainer.history.mode == "vectorised"
    large = torch.nn.Sequential(torch.nn.Linear(4, 12_000), torch.nn.Linear(12_000, 3))
    assert FederatedTrainer(large, functional.cross_entropy, data(torch.float32)).mode == "loop"


def test_losses_of_samples_average_to_the_loss() -> None:
    outputs, targets = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    for loss in (
        functional.mse_loss,
        torch.nn.HuberLoss(),
        lambda o, t: (o - t).abs().mean(),
        torch.compiler.disable(functional.l1_loss),
    ):
        each = sample_losses(loss)(outputs, targets)
        assert len(each) == 7
        assert each.mean().item() == pytest.approx(loss(outputs, targets).item(), rel=1e-12)


work = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 3000)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(work=work, most_clients=st.integers(1, 70), most_rows=st.integers(1, 10_000))
def test_buckets_hold_every_client_once_and_waste_little(
    work: list[tuple[int, int]], most_clients: int, most_rows: int
) -> None:
    tau, s = np.array(work).T
    buckets = bucket_clients(tau, s, most_clients=most_clients, most_rows=most_rows)
    assert sorted(np.concatenate(buckets).tolist()) == list(range(len(work)))
    for bucket in buckets:
        assert (np.diff(tau[bucket]) <= 0).all()
        steps = range(tau[bucket].max())
        computed = sum(int((tau[bucket] > step).sum()) * s[bucket].max() for step in steps)
        assert computed <= WORST_WASTE * (tau[bucket] * s[bucket]).sum()
        assert len(bucket) <= most_clients
        assert len(bucket) == 1 or len(bucket) * s[bucket].max() <= most_rows
