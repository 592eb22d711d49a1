"""Weights that decay in the steps and not in the loss: exact against the theorem, simulation and torch."""

from __future__ import annotations

import numpy as np
import pytest

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Forecast,
    InvalidProblemError,
    LocalModel,
    Optimiser,
    ServerSGD,
    measure,
)
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.plans.forecast_certificate import recomputed
from coopt_bounds import federated_quadratic
from coopt_bounds.federated_quadratic import Federation
from quadratics import problem_of, random_model, theorem_phases, variances

SEVERAL = (Setting(4, 3, 0.6), Setting(1, 7, 0.2), Setting(6, 1, 0.1))
BATCHES = np.array([[1, 2, 1, 1], [3, 3, 5, 2], [9, 20, 12, 20]])
POINT = np.array([2.0, -1.0, 0.5])
OPTIMISERS = {
    "plain": Optimiser(ClientSGD(weight_decay=0.2)),
    "momentum": Optimiser(ClientSGD(0.6, 0.2), ServerSGD(0.7, 0.5, nesterov=True)),
    "AdamW": Optimiser(ClientAdam(0.7, weight_decay=0.2)),
    "AdamW without a mean": Optimiser(ClientAdam(0.0, weight_decay=0.2)),
}


def placed(seed: int, noise: float = 1.0) -> LocalModel:
    """A random model that says where it was measured."""
    model = random_model(seed, 4, 3, unlike=0.5, noise=noise)
    parts = (model.weights, model.gradients, model.curvatures, model.covariances, model.samples)
    return LocalModel(*parts, point=POINT)


@pytest.mark.parametrize("how", [OPTIMISERS["plain"], OPTIMISERS["momentum"]], ids=["plain", "momentum"])
def test_coefficients_are_those_of_the_theorem(how: Optimiser) -> None:
    model = placed(11)
    problem = problem_of(model, Budget())
    offset, found = Phases(Forecast(model, optimiser=how), problem).coefficients(SEVERAL)
    covariances = model.covariances * ((model.samples - 1) / model.samples)[:, None, None]
    federation = Federation(
        problem.fleet.weights, model.gradients, model.curvatures, covariances, start=POINT
    )
    phases = theorem_phases(SEVERAL, how)
    exact = federated_quadratic.coefficients(federation, phases)
    wanted = np.array([[float(weight) for weight in row] for row in exact.weights])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert offset == pytest.approx(model.loss.initial_gap + float(exact.offset), rel=1e-9)


@pytest.mark.parametrize("how", OPTIMISERS.values(), ids=OPTIMISERS)
def test_the_curve_is_the_mean_of_many_runs_and_certified(how: Optimiser) -> None:
    model = placed(3, noise=4.0)
    problem = problem_of(model, Budget())
    phases = Phases(Forecast(model, optimiser=how), problem)
    curve = phases.curve(SEVERAL, BATCHES)
    rng, linear, runs = np.random.default_rng(5), how.linear, 10_000
    roots = np.linalg.cholesky(model.covariances + 1e-12 * np.eye(3))
    z, memory, losses = np.zeros((runs, 3)), np.zeros((runs, 3)), []
    adam = isinstance(how.client, ClientAdam)
    for each, own in zip(SEVERAL, BATCHES, strict=True):
        spread = roots * np.sqrt(variances(problem.fleet, own))[:, None, None]
        rate, decay = each.learning_rate, how.client.weight_decay
        for _ in range(each.rounds):
            local, u = np.repeat(z[None], 4, axis=0), np.zeros((4, runs, 3))
            for step in range(each.local_steps):
                noise = rng.normal(size=local.shape) @ spread.transpose(0, 2, 1)
                slope = local @ model.curvatures + model.gradients[:, None, :] + noise
                u = linear.momentum * u + slope + (0.0 if adam else decay) * (POINT + local)
                shrunk = local - (rate * decay if adam else 0.0) * (POINT + local)
                local = shrunk - rate * linear.factor(step + 1) * u
            change = np.einsum("n,nra->ra", problem.fleet.weights, local - z)
            memory = linear.server.momentum * memory + change
            ahead = change + linear.server.momentum * memory if linear.server.nesterov else memory
            z = z + linear.server.learning_rate * ahead
            losses.append(model.loss.at(z - model.loss.best))
    gaps = np.array(losses)
    error = gaps.std(axis=1, ddof=1) / np.sqrt(runs)
    assert (np.abs(curve[1:] - gaps.mean(axis=1)) <= 4.5 * error).all()
    value = phases.value(SEVERAL, BATCHES)
    assert curve[-1] == pytest.approx(value, rel=1e-8)
    parts = list(zip(SEVERAL, BATCHES, strict=True))
    assert recomputed(Forecast(model, optimiser=how), problem, parts) == pytest.approx(value, rel=1e-8)


def test_a_measurement_keeps_the_model_that_decays(tmp_path) -> None:
    """Least squares in all directions: the forecast is what gradient descent with decay does."""
    rng = np.random.default_rng(0)
    clients = [(rng.normal(size=(30, 4)), rng.normal(size=30)) for _ in range(2)]

    def gradient(w, batch):
        x, y = batch
        error = x @ w - y
        return 0.5 * float(np.mean(error**2)), x.T @ error / len(y)

    w = rng.normal(size=4)
    measured = measure(gradient, w, clients, rows=30, directions=4, progress=False)
    assert measured.point is not None and measured.point.shape == (measured.directions,)
    assert np.linalg.norm(measured.point) == pytest.approx(np.linalg.norm(w), rel=1e-9)
    measured.save(tmp_path / "m.npz")
    assert type(measured).load(tmp_path / "m.npz") == measured
    how = Optimiser(ClientSGD(weight_decay=0.5))
    problem = problem_of(measured.model, Budget(), 0.1, replacement=False)
    found = measured.forecast(optimiser=how).value(problem, 20, 3, measured.samples)
    z = w.copy()
    for _ in range(20):
        ends = []
        for client in clients:
            local = z.copy()
            for _ in range(3):
                local = local - 0.1 * (gradient(local, client)[1] + 0.5 * local)
            ends.append(local)
        z = np.mean(ends, axis=0)
    fall = np.mean([gradient(z, c)[0] for c in clients]) - np.mean([gradient(w, c)[0] for c in clients])
    assert found - measured.model.loss.initial_gap == pytest.approx(fall, rel=1e-4)


def test_torch_steps_as_its_own_optimiser_does() -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch.optimisers import LocalSteps

    for momentum in (0.0, 0.9):
        own, theirs = torch.tensor([1.0, -2.0, 3.0]), torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        steps = LocalSteps(ClientSGD(momentum, 0.3))
        reference = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=0.3)
        for k in range(5):
            slope = torch.tensor([1.0, 0.5 * k, -1.0])
            steps.step(own, slope, 0.1)
            theirs.grad = slope.clone()
            reference.step()
        assert torch.allclose(own, theirs.detach(), atol=1e-6)


def test_what_it_refuses() -> None:
    model = random_model(2, 4, 3)
    decaying = Forecast(model, optimiser=OPTIMISERS["plain"])
    with pytest.raises(InvalidProblemError, match=r"weight_decay = 0.2 of .*does not know the model that"):
        decaying.value(problem_of(model, Budget()), 1, 1, 1)
    with pytest.raises(InvalidProblemError, match=r"point has shape \(2,\): must have shape \(1,\)"):
        LocalModel([1.0], [[1.0]], [[[1.0]]], [[[0.1]]], [100], point=[1.0, 2.0])
    with pytest.raises(InvalidProblemError, match="weight_decay = -1"):
        ClientSGD(weight_decay=-1.0)
