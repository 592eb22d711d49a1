"""Momentum, Adam and the server's steps: those of torch.optim, and what the forecast says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Constants,
    Fleet,
    Forecast,
    Optimiser,
    Problem,
    ServerAdam,
    ServerSGD,
)
from coopt.adapters.draws import draw_positions
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import FederatedTrainer, ProbeOptions, measure
from coopt.errors import InvalidProblemError
from coopt.online.measure_request import MeasureRequest
from quadratics import random_model

SIZES = np.array([12, 30, 7])
RATE, STEPS, ROUNDS = 0.05, 4, 3
BATCHES = np.array([3, 5, 2])
CLIENTS = {
    "momentum": ClientSGD(0.9),
    "Adam": ClientAdam(),
    "AdamW": ClientAdam(0.8, 0.95, 1e-4, weight_decay=0.1),
}
SERVERS = {
    "rate": ServerSGD(1.5),
    "FedAvgM": ServerSGD(0.7, 0.9),
    "Nesterov": ServerSGD(0.7, 0.8, nesterov=True),
    "FedAdam": ServerAdam(0.02),
}


def datasets() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(int(size), 4, generator=generator, dtype=torch.float64) for size in SIZES]
    return [(rows, rows[:, :3].argmax(dim=1)) for rows in x]


def module(normalised: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    middle = [torch.nn.BatchNorm1d(5)] if normalised else []
    return torch.nn.Sequential(
        torch.nn.Linear(4, 5), *middle, torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()


def plan(rounds: int = ROUNDS, batches: Any = BATCHES) -> FixedPlan:
    return FixedPlan(Fleet(SIZES, 1.0, 1.0), rounds, STEPS, batches, RATE)


def trainer(how: Optimiser, **options: Any) -> FederatedTrainer:
    options = {"system": SystemModel(np.full(3, 100.0)), "progress": False} | options
    made = options.pop("model", None) or module()
    return FederatedTrainer(made, torch.nn.functional.cross_entropy, datasets(), optimiser=how, **options)


def written_out(how: Optimiser) -> torch.nn.Module:
    """The same by torch.optim: a new optimiser for every client and round, one for the server."""
    data, shares = datasets(), SIZES / SIZES.sum()
    whole = module()
    first = {name: torch.zeros_like(p) for name, p in whole.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in whole.named_parameters()}
    server, outer = how.server, None
    if isinstance(server, ServerSGD):
        outer = torch.optim.SGD(
            whole.parameters(),
            server.learning_rate,
            momentum=server.momentum,
            nesterov=server.nesterov,
        )
    for number in range(ROUNDS):
        change = {name: torch.zeros_like(p) for name, p in whole.named_parameters()}
        for i, (x, y) in enumerate(data):
            own = module()
            own.load_state_dict(whole.state_dict())
            if isinstance(how.client, ClientAdam):
                c = how.client
                inner: torch.optim.Optimizer = torch.optim.AdamW(
                    own.parameters(), RATE, (c.beta1, c.beta2), c.epsilon, c.weight_decay
                )
            else:
                inner = torch.optim.SGD(own.parameters(), RATE, momentum=how.client.momentum)
            rows = draw_positions(
                0, number, i, len(x), steps=np.arange(STEPS), sizes=int(BATCHES[i]), replacement=True
            )[0]
            for batch in torch.from_numpy(rows):
                inner.zero_grad()
                torch.nn.functional.cross_entropy(own(x[batch]), y[batch]).backward()
                inner.step()
            with torch.no_grad():
                for (name, p), q in zip(own.named_parameters(), whole.parameters(), strict=True):
                    change[name] += shares[i] * (p - q)
        with torch.no_grad():
            for name, p in whole.named_parameters():
                if isinstance(server, ServerAdam):
                    first[name] = server.beta1 * first[name] + (1 - server.beta1) * change[name]
                    second[name] = server.beta2 * second[name] + (1 - server.beta2) * change[name] ** 2
                    p += server.learning_rate * first[name] / (second[name].sqrt() + server.epsilon)
                p.grad = -change[name]
        if outer is not None:
            outer.step()
    return whole


@pytest.mark.parametrize("probe", [None, ProbeOptions()], ids=["no probe", "probe"])
@pytest.mark.parametrize("mode", ["loop", "vectorised"])
@pytest.mark.parametrize(
    "how",
    [Optimiser(client=client) for client in CLIENTS.values()]
    + [Optimiser(server=server) for server in SERVERS.values()]
    + [Optimiser(CLIENTS["AdamW"], SERVERS["Nesterov"])],
    ids=[*CLIENTS, *SERVERS, "both"],
)
def test_training_is_that_of_torch(how: Optimiser, mode: Any, probe: ProbeOptions | None) -> None:
    trained = trainer(how, mode=mode, probe=probe)
    trained.run(plan())
    for p, q in zip(trained.model.parameters(), written_out(how).parameters(), strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_a_killed_run_goes_on_bit_for_bit(server: ServerSGD | ServerAdam, tmp_path: Path) -> None:
    how = Optimiser(ClientSGD(0.5), server)
    whole = trainer(how)
    whole.run(plan(6))
    path = tmp_path / "run.pt"

    def die(history: Any) -> bool:
        if len(history) == 3:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        trainer(how, checkpoint=path, checkpoint_every=2, callbacks=[die]).run(plan(6))
    with pytest.raises(InvalidProblemError, match=r"of another run, with .*optimiser"):
        trainer(replace(how, client=ClientSGD(0.6)), checkpoint=path).run(plan(6))
    again = trainer(how, checkpoint=path)
    again.run(plan(6))
    assert torch.equal(again._global.state, whole._global.state)


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_running_statistics_are_averaged_whatever_the_server_does(server: ServerSGD | ServerAdam) -> None:
    batches = np.full(3, 6)
    one = trainer(Optimiser(server=server), model=module(True), probe=None)
    one.run(plan(1, batches))
    plain = trainer(Optimiser(), model=module(True), probe=None)
    plain.run(plan(1, batches))
    for name, buffer in plain.model.named_buffers():
        assert torch.equal(buffer, one.model.get_buffer(name))
    several = trainer(Optimiser(server=server), model=module(True), probe=None)
    several.run(plan(15, batches))
    assert (several.model[1].running_var > 0.0).all()
    assert all(torch.isfinite(tensor).all() for tensor in several.model.state_dict().values())


class Distance(torch.nn.Module):
    """Scaled distance to a point: quadratic, and with noise that does not depend on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.point = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., 2:] * (self.point - x[..., :2])


def half_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * outputs.square().sum(dim=-1).mean()


@pytest.mark.parametrize(
    "how",
    [
        Optimiser(ClientSGD(0.7)),
        Optimiser(server=ServerSGD(0.7, 0.6)),
        Optimiser(ClientSGD(0.5), ServerSGD(0.5, 0.6, nesterov=True)),
    ],
    ids=["client", "FedAvgM", "Nesterov"],
)
def test_the_mean_of_trained_losses_is_the_forecast(how: Optimiser) -> None:
    rng = np.random.default_rng(4)
    data = []
    for i, size in enumerate(SIZES.tolist()):
        points = rng.normal(size=(size, 2)) + np.array([i, -i])
        scale = np.tile([1.0 + 0.3 * i, 1.2 - 0.2 * i], (size, 1))
        data.append((torch.from_numpy(np.hstack([points, scale])), torch.zeros(size)))
    fleet, rounds, tau, rate = Fleet(SIZES, 1.0, 1.0), 5, 4, 0.15
    measured = measure(Distance(), half_square, data, rows=30, directions=2, progress=False)
    problem = Problem(fleet, Constants(rate, 2.0, 1.0), Budget())
    forecast: Forecast = measured.forecast(optimiser=how)
    wanted = forecast.value(problem, rounds, tau, BATCHES)
    x, weights = [x for x, _ in data], SIZES / SIZES.sum()

    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(sum(w * half_square(model(own), own) for w, own in zip(weights, x, strict=True)))

    start = loss(Distance())
    ends = []
    for seed in range(120):
        run = FederatedTrainer(
            Distance(), half_square, data, optimiser=how, seed=seed, probe=None, mode="loop", progress=False
        )
        run.run(FixedPlan(fleet, rounds, tau, BATCHES, rate))
        ends.append(loss(run.model))
    lowest = start - forecast.initial_gap
    mean, error = np.mean(ends) - lowest, np.std(ends, ddof=1) / np.sqrt(len(ends))
    assert mean == pytest.approx(wanted, abs=4.0 * error)
    assert error < 0.15 * wanted


def test_adam_is_measured_in_its_own_units() -> None:
    data = datasets()
    adam = ClientAdam(0.8, epsilon=1e-3)
    options: dict[str, Any] = {"rows": 30, "directions": 30, "progress": False, "curvature": "gauss-newton"}
    measured = measure(module(), torch.nn.functional.cross_entropy, data, optimiser=adam, **options)
    # The same by hand: second moments of batches of eight, and a model whose parameters have other units.
    start, moments = module(), 0.0
    for (x, y), share in zip(data, SIZES / SIZES.sum(), strict=True):
        rows = []
        for k in range(len(x)):
            start.zero_grad()
            torch.nn.functional.cross_entropy(start(x[k : k + 1]), y[k : k + 1]).backward()
            rows.append(torch.cat([p.grad.ravel() for p in start.parameters()]).numpy())
        mean, variance = np.mean(rows, axis=0), np.var(rows, axis=0, ddof=1)
        moments = moments + share * (np.maximum(mean**2 - variance / len(x), 0.0) + variance / 8)
    units = 1.0 / np.sqrt(np.sqrt(moments) + adam.epsilon)

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.cat([p.detach().ravel() for p in start.parameters()])
            self.units = torch.from_numpy(units)
            self.flat = torch.nn.Parameter(flat / self.units)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pieces = torch.split(self.flat * self.units, [p.numel() for p in start.parameters()])
            a, b, c, d = (p.view(q.shape) for p, q in zip(pieces, start.parameters(), strict=True))
            return torch.tanh(x @ a.T + b) @ c.T + d

    wanted = measure(Scaled(), torch.nn.functional.cross_entropy, data, **options)
    top = slice(0, 5)
    np.testing.assert_allclose(measured.spectrum[top], wanted.spectrum[top], rtol=1e-6)
    assert measured.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-9)
    np.testing.assert_allclose(measured.noise, wanted.noise, rtol=1e-9)
    assert measured.scaling == "adam"
    assert wanted.scaling is None
    assert measured.forecast().optimiser == Optimiser(ClientAdam())
    with pytest.raises(InvalidProblemError, match="the measurement is for Adam"):
        measured.forecast(optimiser=Optimiser())
    with pytest.raises(InvalidProblemError, match="the measurement is not for Adam"):
        wanted.forecast(optimiser=Optimiser(adam))
    # Adam's rates may be far beyond those of plain steps.
    stretch = (
        measured.forecast(optimiser=Optimiser(adam)).largest_rate / Forecast(measured.model).largest_rate
    )
    assert stretch == pytest.approx(1.8 / 0.2)


def test_wrong_numbers_are_named() -> None:
    with pytest.raises(InvalidProblemError, match="a forecast knows ServerSGD only"):
        Forecast(random_model(0, 2, 2), optimiser=Optimiser(server=ServerAdam()))
    with pytest.raises(InvalidProblemError, match=r"beta2 = 1\.0: must be below 1"):
        ClientAdam(beta2=1.0)
    with pytest.raises(InvalidProblemError, match="epsilon = 0"):
        ServerAdam(epsilon=0)
    with pytest.raises(InvalidProblemError, match="weight_decay = -1"):
        ClientAdam(weight_decay=-1)
    with pytest.raises(InvalidProblemError, match=r"optimiser = 'adam': must be a coopt.Optimiser"):
        trainer("adam")


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_a_planner_hears_what_it_is_measured_for(client: Any, server: Any) -> None:
    """Unless no forecast knows it: then nothing is measured."""
    how, told = Optimiser(client, server), []

    class Curious(FixedPlan):
        def wants(self, *, gradients_a_product: int = 1) -> MeasureRequest | None:
            return MeasureRequest(np.full(3, 4), 2, 0, 1.0, 1.0, 1.0) if self.round == 1 else None

        def measured(self, measurement: Any, **more: Any) -> None:
            told.append((measurement.forecast(optimiser=more["optimiser"]), more["optimiser"]))

    trainer(how).run(Curious(Fleet(SIZES, 1.0, 1.0), 2, STEPS, BATCHES, RATE))
    assert [each for _, each in told] == ([how] if how.forecastable else [])
