"""Batches that keep training stable in the mean square, against training itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coopt import (
    BoundWarning,
    Budget,
    ClientAdam,
    ClientSGD,
    Constants,
    Fleet,
    Forecast,
    LocalModel,
    Optimiser,
    Phase,
    Problem,
    ServerSGD,
    evaluate,
    evaluate_schedule,
    solve_allocation,
    solve_schedule,
)
from coopt.objectives.forecast.forecast import CURVATURE_GROWTH
from coopt.objectives.forecast.stability import GIVEN_BACK, Stability
from tests.quadratics import problem_of, random_model

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ONE = np.ones(1, dtype=np.int64)
MANY = np.full(1, 10**6)


def alone(rate: float, how: Optimiser, single: float = 30.0) -> Stability:
    """One device with one direction of curvature 1, whose samples have E c^2 / E c = `single`."""
    model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[1.0]]], [10**6], sample_curvatures=[single])
    return Forecast(model, optimiser=how).stability(problem_of(model, Budget(), rate))


def left(rate: float, how: Optimiser, local_steps: int, size: int, single: float) -> Floats:
    """E z and E z^2 at the end of a round from z = 1, step by step; a batch has curvature 1 + noise."""
    client, noise = how.client, (single - 1.0) / size
    # Means of (z, u), then second moments of (z, u).
    mean, square = np.array([1.0, 0.0]), np.array([[1.0, 0.0], [0.0, 0.0]])
    for step in range(1, local_steps + 1):
        adam = isinstance(client, ClientAdam)
        beta = client.beta1 if isinstance(client, ClientAdam) else client.momentum
        far = rate * ((1.0 - beta) / (1.0 - beta**step) if adam else 1.0)
        # u <- beta u + c z and z <- z - far u: where c = 1 on average, and what its deviation moves.
        turn = np.array([[1.0 - far, -far * beta], [1.0, beta]])
        apart = np.array([-far, 1.0])
        square = turn @ square @ turn.T + noise * square[0, 0] * np.outer(apart, apart)
        mean = turn @ mean
    return np.array([mean[0], square[0, 0]])


@pytest.mark.parametrize("client", [ClientSGD(), ClientSGD(0.6), ClientAdam(0.5)])
@pytest.mark.parametrize(("rate", "local_steps"), [(1.2, 1), (0.9, 3), (0.3, 40)])
def test_batches_keep_half_of_what_full_ones_take_off(
    client: ClientSGD | ClientAdam, rate: float, local_steps: int
) -> None:
    how = Optimiser(client)
    found = alone(rate, how).smallest(local_steps, ONE, MANY)
    assert found is not None
    for size, enough in ((int(found[0]), True), (int(found[0] / 1.3), False)):
        mean, square = left(rate, how, local_steps, max(size, 1), 30.0)
        assert (1.0 - square >= GIVEN_BACK * (1.0 - mean**2) * (1.0 - 1e-6)) == enough


def test_where_curvature_may_grow_batches_are_stable_with_what_it_grows_to() -> None:
    model, problem = steep(), problem_of(steep(), Budget(), 0.2)
    grown = LocalModel(
        model.weights,
        model.gradients,
        model.curvatures,
        model.covariances,
        model.samples,
        sample_curvatures=CURVATURE_GROWTH * model.single,
    )
    ends = np.ones(20, dtype=np.int64), np.full(20, 10**6)
    now = Forecast(model).stability(problem).smallest(2, *ends)
    later = Forecast(model, rate_growth=1.0).stability(problem).smallest(2, *ends)
    assert now is not None and later is not None
    assert later.sum() > now.sum()
    np.testing.assert_array_equal(later, Forecast(grown).stability(problem).smallest(2, *ends))


@pytest.mark.parametrize("server", [ServerSGD(0.5), ServerSGD(0.7, 0.9), ServerSGD(0.7, 0.9, nesterov=True)])
def test_momentum_of_the_server_passes_on_the_noise_of_rounds(server: ServerSGD) -> None:
    rate, tau, how = 0.4, 3, Optimiser(server=server)
    found = alone(rate, how).smallest(tau, ONE, MANY)
    assert found is not None and found[0] > 1
    size = int(found[0])
    mean, square = left(rate, how, tau, size, 30.0)
    # Second moments of (z, u) over rounds: (D, noise) enter as the optimiser says.
    turn = np.array([[1.0 - server.now * (1.0 - mean), server.kept], [mean - 1.0, server.momentum]])
    enter = np.array([server.now, 1.0])
    state = np.array([[1.0, 0.0], [0.0, 0.0]])
    for _ in range(3000):
        state = turn @ state @ turn.T + (square - mean**2) * state[0, 0] * np.outer(enter, enter)
    assert state[0, 0] < 1e-6


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 60), st.floats(0.05, 1.0))
def test_a_device_that_does_not_grow_alone_needs_nothing_more(seed: int, tau: int, share: float) -> None:
    model = random_model(seed, 4, 3)
    problem = problem_of(model, Budget(), share / float(model.single.max()), weights=np.full(4, 0.25))
    stability = Forecast(model).stability(problem)
    least, most = problem.fleet.batch_range()
    assert stability.smallest(tau, least, most) is least
    stability.__dict__["_averages"] = False
    np.testing.assert_array_equal(stability.smallest(tau, least, most), least)


def steep(devices: int = 20) -> LocalModel:
    """Devices that differ a little along a flat direction, and the first one far steeper along the other."""
    rng = np.random.default_rng(0)
    curvatures = np.zeros((devices, 2, 2))
    curvatures[:, 0, 0], curvatures[:, 1, 1] = 1.0, np.linspace(0.02, 0.08, devices)
    curvatures[0, 0, 0] = 16.0
    best = np.array([-2.0, -4.0]) + np.outer(rng.normal(size=devices), [0.0, 1.0])
    return LocalModel(
        np.full(devices, 1.0 / devices),
        -np.einsum("nab,nb->na", curvatures, best),
        curvatures,
        np.broadcast_to(0.1 * np.eye(2), (devices, 2, 2)),
        np.full(devices, 1000),
        sample_curvatures=1.2 * curvatures[:, 0, 0],
    )


def trained(model: LocalModel, phases: Sequence[Phase]) -> float:
    """F - F* after real local SGD, ten runs: every batch has curvatures and a gradient of its own."""
    rng, z = np.random.default_rng(0), np.zeros((10, 2))
    bend = model.curvatures[:, [0, 1], [0, 1]]
    for phase in phases:
        sizes = phase.batch_sizes[:, None]
        wide, noise = np.sqrt(0.2 * bend**2 / sizes), np.sqrt(0.1 / sizes)
        for _ in range(phase.rounds):
            own = np.repeat(z[:, None, :], len(model), axis=1)
            for _ in range(phase.local_steps):
                met = bend + wide * rng.normal(size=own.shape)
                slope = met * own + model.gradients + noise * rng.normal(size=own.shape)
                own = own - phase.learning_rate * slope
            z = np.einsum("rna,n->ra", own, model.weights)
    return float(np.mean(model.loss.at(z - model.loss.best)))


@pytest.mark.parametrize(("rate", "phases"), [(0.2, 1), (0.2, 2), ("auto", 1)])
def test_no_plan_diverges_where_one_device_is_far_steeper(rate: float | Literal["auto"], phases: int) -> None:
    model = steep()
    budget = Budget(cost=20_000.0, round_cost=500.0, max_local_steps=30)
    problem = Problem(Fleet(model.samples, 4.0, 0.0), Constants(0.2, 1.0, 1.0), budget)
    plan = solve_schedule(problem, Forecast(model), phases=phases, learning_rate=rate)
    assert trained(model, plan.phases) < 0.2 * Forecast(model).initial_gap


def test_a_plan_that_diverges_is_warned_of() -> None:
    # The forecast's best one of all: it cuts the curvature of the steep device, and sees no noise of it.
    model, batches = steep(), np.full(20, 1)
    problem = problem_of(model, Budget(cost=20_000.0, round_cost=500.0), 0.2)
    with pytest.warns(BoundWarning, match="local_steps = 14 at learning_rate = 0.2 .* may diverge"):
        judged = evaluate(problem, 25, 14, batches, bound=Forecast(model))
    best = solve_allocation(problem, bound=Forecast(model))
    assert judged.predicted_error < best.predicted_error
    phases = [Phase(2, 1, batches, 0.2), Phase(20, 14, batches, 0.2)]
    with pytest.warns(BoundWarning, match="phase 2: local_steps = 14 at learning_rate = 0.2 .* may diverge"):
        evaluate_schedule(problem, Forecast(model), phases)
    assert trained(model, phases) > 1e9


def test_samples_so_steep_that_no_batch_is_enough_leave_a_plan_all_the_same() -> None:
    model = steep()
    model = LocalModel(
        model.weights,
        model.gradients,
        model.curvatures,
        model.covariances,
        model.samples,
        sample_curvatures=np.full(20, 1e12),
    )
    problem = problem_of(model, Budget(cost=2_000.0, round_cost=50.0, max_local_steps=3), 0.2)
    for rate in (None, "auto"):
        with pytest.warns(BoundWarning, match="may diverge"):
            plan = solve_allocation(problem, bound=Forecast(model), learning_rate=rate)
        assert plan.rounds >= 1


def test_where_no_plan_is_stable_the_best_of_all_is_kept_and_warned_of() -> None:
    problem = problem_of(steep(), Budget(cost=20_000.0, round_cost=500.0), 0.2)
    with pytest.warns(BoundWarning, match="may diverge"):
        plan = solve_allocation(problem, local_steps=14, bound=Forecast(steep()))
    assert plan.local_steps == 14
    plan.certify()
