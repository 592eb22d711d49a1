"""Momentum and server rates: exact against the theorem and against simulation, and certified."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Forecast,
    InvalidProblemError,
    Optimiser,
    Phase,
    Schedule,
    ServerSGD,
    evaluate,
    evaluate_schedule,
)
from coopt.objectives.forecast.phases import Phases, Setting
from coopt.plans.forecast_certificate import recomputed
from coopt_bounds import federated_quadratic
from coopt_bounds.federated_quadratic import Federation
from quadratics import problem_of, random_model, theorem_phases, variances

SEVERAL = (Setting(4, 3, 0.6), Setting(1, 7, 0.2), Setting(6, 1, 0.1))
BATCHES = np.array([[1, 2, 1, 1], [3, 3, 5, 2], [9, 20, 12, 20]])
OPTIMISERS = {
    "client": Optimiser(ClientSGD(0.8)),
    "rate": Optimiser(server=ServerSGD(1.3)),
    "FedAvgM": Optimiser(server=ServerSGD(0.7, 0.9)),
    "Nesterov": Optimiser(ClientSGD(0.3), ServerSGD(0.7, 0.8, nesterov=True)),
}
seeds = st.integers(0, 2**32 - 1)
momenta = st.sampled_from([0.0, 0.3, 0.9])
optimisers = st.builds(
    Optimiser,
    st.builds(ClientSGD, momenta) | st.builds(ClientAdam, momenta),
    st.builds(ServerSGD, st.sampled_from([0.4, 1.0, 1.4]), momenta, st.booleans()),
)


@pytest.mark.parametrize("how", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("replacement", [True, False])
def test_coefficients_are_those_of_the_theorem(how: Optimiser, replacement: bool) -> None:
    model = random_model(11, 4, 3)
    problem = problem_of(model, Budget(), replacement=replacement)
    forecast, samples = Forecast(model, optimiser=how), model.samples
    offset, found = Phases(forecast, problem).coefficients(SEVERAL)
    scale = (samples - 1) / samples if replacement else np.ones(4)
    federation = Federation(
        problem.fleet.weights, model.gradients, model.curvatures, model.covariances * scale[:, None, None]
    )
    phases = theorem_phases(SEVERAL, how)
    exact = federated_quadratic.coefficients(federation, phases)
    wanted = np.array([[float(weight) for weight in row] for row in exact.weights])
    spared = 0.0 if replacement else float(np.sum(wanted / samples))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert offset == pytest.approx(model.loss.initial_gap + float(exact.offset) - spared, rel=1e-9)
    # One phase, at one rate.
    one = federated_quadratic.coefficients(federation, phases[:1])
    single = Forecast(model, SEVERAL[0].learning_rate, optimiser=how)
    value = single.value(problem, SEVERAL[0].rounds, SEVERAL[0].local_steps, [5] * 4)
    inverse = [Fraction(1, 5) - (0 if replacement else Fraction(1, int(d))) for d in samples]
    assert value == pytest.approx(model.loss.initial_gap + float(one.value([inverse])), rel=1e-9)


def simulated(phases: Phases, several, batches, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of F - F* after every round over many runs, and its standard errors."""
    model, fleet, budget = phases.forecast.model, phases.problem.fleet, phases.problem.budget
    how = phases.forecast.optimiser.linear
    server = how.server
    rng = np.random.default_rng(seed)
    n, m = model.gradients.shape
    roots = np.linalg.cholesky(model.covariances + 1e-12 * np.eye(m))
    z, memory, found = np.zeros((runs, m)), np.zeros((runs, m)), []
    for each, own in zip(several, batches, strict=True):
        spread = roots * np.sqrt(variances(fleet, own))[:, None, None]
        for _ in range(each.rounds):
            local = np.repeat(z[None], n, axis=0)
            u = np.zeros_like(local)
            for step in range(each.local_steps):
                noise = rng.normal(size=local.shape) @ spread.transpose(0, 2, 1)
                u = how.momentum * u + local @ model.curvatures + model.gradients[:, None, :] + noise
                local = local - each.learning_rate * how.factor(step + 1) * u
            counts = np.tile(fleet.weights, (runs, 1))
            if budget.participants is not None:
                counts = rng.multinomial(budget.participants, fleet.weights, size=runs) / budget.participants
            change = np.einsum("rn,nra->ra", counts, local - z)
            memory = server.momentum * memory + change
            ahead = change + server.momentum * memory if server.nesterov else memory
            z = z + server.learning_rate * ahead
            found.append(model.loss.at(z - model.loss.best))
    gaps = np.array(found)
    return gaps.mean(axis=1), gaps.std(axis=1, ddof=1) / np.sqrt(runs)


ALL = OPTIMISERS | {"Adam": Optimiser(ClientAdam(0.8), ServerSGD(0.7, 0.5, nesterov=True))}


@pytest.mark.parametrize("how", ALL.values(), ids=ALL)
@pytest.mark.parametrize("participants", [None, 2])
def test_the_curve_is_the_mean_of_many_runs(how: Optimiser, participants: int | None) -> None:
    model = random_model(3, 4, 3, unlike=0.5, noise=4.0)
    phases = Phases(Forecast(model, optimiser=how), problem_of(model, Budget(participants=participants)))
    curve = phases.curve(SEVERAL, BATCHES)
    mean, error = simulated(phases, SEVERAL, BATCHES, 10_000, seed=5)
    assert (np.abs(curve[1:] - mean) <= 4.5 * error).all()


@given(seeds, optimisers, st.sampled_from([None, 2]), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_curve_value_and_certificate_agree(seed, how, participants, rounds, tau) -> None:
    model = random_model(seed, 4, 3)
    adam = isinstance(how.client, ClientAdam)
    problem = problem_of(
        model, Budget(participants=participants), step_noise=0.0 if adam else [0.0, 1.0, 5.0, 0.2]
    )
    forecast = Forecast(model, optimiser=how)
    phases, several = Phases(forecast, problem), (Setting(rounds, tau, 0.5), *SEVERAL[1:])
    curve = phases.curve(several, BATCHES)
    ends = np.cumsum([each.rounds for each in several])
    for p, end in enumerate(ends.tolist()):
        value = phases.value(several[: p + 1], BATCHES[: p + 1])
        assert curve[end] == pytest.approx(value, rel=1e-8)
        parts = list(zip(several[: p + 1], BATCHES, strict=False))
        assert recomputed(forecast, problem, parts) == pytest.approx(value, rel=1e-8)
    at = forecast.with_learning_rate(0.5)
    assert curve[rounds] == pytest.approx(at.value(problem, rounds, tau, BATCHES[0]), rel=1e-8)


@given(seeds, optimisers, st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_noise_never_falls_with_rounds_and_in_part_with_steps(seed, how, k, tau) -> None:
    model = random_model(seed, 3, 4)
    federation = Forecast(model, optimiser=how).federation(problem_of(model, Budget()))
    now = federation.weights(np.array([k, k + 1, 2 * k]), tau)
    assert (now >= 0.0).all()
    assert (np.diff(now, axis=1) >= -1e-12 * now[:, :1]).all()
    for fewer in range(1, tau if federation.noise_grows else 1):
        less = federation.weights(np.array([k]), tau, noise_of=fewer)
        assert (less[:, 0] <= now[:, 0] * (1.0 + 1e-12)).all()


@given(seeds, st.integers(1, 30), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_no_momentum_at_rate_one_is_averaging(seed, k, tau) -> None:
    model = random_model(seed, 3, 4)
    problem = problem_of(model, Budget())
    plain = Forecast(model).coefficients(problem, k, tau)
    near = Optimiser(ClientSGD(1e-13), ServerSGD(1.0, 1e-13))
    offset, weights = Forecast(model, optimiser=near).coefficients(problem, k, tau)
    assert offset == pytest.approx(plain[0], rel=1e-8, abs=1e-12 * model.loss.initial_gap)
    np.testing.assert_allclose(weights, plain[1], rtol=1e-8)


def test_plans_keep_their_optimiser_and_certify_themselves() -> None:
    model = random_model(2, 4, 3)
    problem = problem_of(model, Budget())
    forecast = Forecast(model, optimiser=OPTIMISERS["Nesterov"])
    plan = evaluate(problem, rounds=5, local_steps=3, batch_sizes=4, bound=forecast)
    read = type(plan).from_json(plan.to_json())
    assert read.source.optimiser == forecast.optimiser
    plan.certify()
    read.certify(forecast)
    judged = evaluate_schedule(problem, forecast, [Phase(5, 3, 4, 0.7), Phase(2, 1, 8, 0.1)])
    again = Schedule.from_json(judged.to_json())
    assert again == judged
    # What is given stands for the measurement alone: the plan's own optimiser counts.
    again.certify(Forecast(model))
    np.testing.assert_allclose(again.curve(Forecast(model)), judged.curve(), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClientSGD(1.0), "momentum = 1.0: must be below 1"),
        (lambda: ClientSGD("0.9"), "momentum = '0.9': must be a finite number >= 0"),
        (lambda: ServerSGD(0.0), "learning_rate of the server = 0.0"),
        (lambda: ServerSGD(momentum=-0.1), "momentum of the server = -0.1"),
        (lambda: ServerSGD(nesterov=1), "nesterov = 1: must be true or false"),
        (
            lambda: Optimiser(client=ServerSGD()),
            "coopt.ClientSGD or coopt.ClientAdam, not ServerSGD",
        ),
        (lambda: Optimiser(server=0.9), "must be a coopt.ServerSGD or coopt.ServerAdam, not float"),
        (lambda: Optimiser.from_dict({"client": {}}), "not an optimiser"),
        (lambda: Forecast(random_model(0, 2, 2), optimiser="sgd"), "must be a coopt.Optimiser, not str"),
    ],
)
def test_what_is_no_optimiser_is_named(make, message: str) -> None:
    with pytest.raises(InvalidProblemError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "how", [Optimiser(), Optimiser(server=ServerSGD(0.7, 0.8))], ids=["plain", "FedAvgM"]
)
def test_many_rounds_of_drawn_devices_by_squaring_are_those_one_by_one(how: Optimiser) -> None:
    model = random_model(5, 3, 4, unlike=0.5)
    phases = Phases(Forecast(model, optimiser=how), problem_of(model, Budget(participants=2)))
    batches = np.array([[1.0, 2.0, 4.0], [8.0, 8.0, 9.0]])
    for rounds in (199, 200, 255, 1000):
        plan = [Setting(rounds, 3, 0.05), Setting(rounds + 1, 1, 0.02)]
        assert phases.value(plan, batches) == pytest.approx(phases.curve(plan, batches)[-1], rel=1e-9)
