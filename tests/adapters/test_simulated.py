"""Simulated training is federated averaging: what it computes, charges and repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    ClientAdam,
    ClientSGD,
    Constants,
    Controller,
    Fleet,
    InvalidProblemError,
    Optimiser,
    Problem,
    ServerAdam,
    ServerSGD,
    solve_allocation,
)
from coopt.adapters.draws import draw_positions
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.online.round_plan import StopReason

MODEL = Softmax(64, 10)


def fixed(federation, rounds, local_steps, batch_sizes, rate=0.5):
    fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0, throughput=50.0, round_time=2.0)
    return FixedPlan(fleet, rounds, local_steps, batch_sizes, rate)


def run(planner, federation, **options):
    system = options.pop("system", None)
    if system is None:
        system = SystemModel(planner.fleet.throughput, planner.fleet.round_time)
    return simulate(
        planner, MODEL.gradient, MODEL.start(), federation.clients, system=system, progress=False, **options
    )


@pytest.mark.parametrize("devices", [1, 7, 200])
def test_every_image_has_one_owner_and_nobody_has_less_than_two(devices):
    federation = digits(devices)
    assert federation.samples.min() >= 2
    assert federation.samples.sum() + len(federation.test[0]) == 1797
    everything = np.concatenate([images for images, _ in (*federation.clients, federation.test)])
    assert len(np.unique(everything, axis=0)) == 1797
    assert (everything.min(), everything.max()) == (0.0, 1.0)


def test_the_embedded_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    known = datasets.load_digits()
    federation = digits(3)
    parts = (*federation.clients, federation.test)
    rows = {(*(16 * image).astype(int).tolist(), label) for images, labels in parts
            for image, label in zip(images, labels.tolist(), strict=True)}  # fmt: skip
    assert rows == {
        (*image.astype(int).tolist(), label)
        for image, label in zip(known.data, known.target.tolist(), strict=True)
    }


def test_skew_decides_how_many_kinds_a_device_holds():
    kinds = {
        skew: np.mean([len(np.unique(labels)) for _, labels in digits(10, skew=skew).clients])
        for skew in (0.1, 100.0)
    }
    assert kinds[0.1] < 6 < 9 < kinds[100.0]


def test_too_many_devices_are_refused():
    with pytest.raises(InvalidProblemError, match="devices = 201: 1,437 images"):
        digits(201)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), rows=st.integers(1, 9))
def test_the_gradient_is_that_of_the_loss(seed, rows):
    rng = np.random.default_rng(seed)
    model = Softmax(4, 3, penalty=0.1)
    data = rng.normal(size=(rows, 4)), rng.integers(3, size=rows)
    at, direction = rng.normal(size=15), rng.normal(size=15)
    _, slope = model.gradient(at, data)
    ahead, behind = (model.gradient(at + step * direction, data)[0] for step in (1e-5, -1e-5))
    assert slope @ direction == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-8)


def test_a_round_is_local_steps_and_a_weighted_average():
    federation = digits(3)
    found = run(fixed(federation, 1, 3, [4, 2, 5]), federation, seed=7)
    locals_ = []
    for i, (images, labels) in enumerate(federation.clients):
        local = MODEL.start()
        batches = draw_positions(7, 0, i, len(labels), steps=[0, 1, 2], sizes=[4, 2, 5][i])[0]
        for batch in batches:
            local = local - 0.5 * MODEL.gradient(local, (images[batch], labels[batch]))[1]
        locals_.append(local)
    expected = np.average(locals_, axis=0, weights=federation.samples)
    np.testing.assert_allclose(found.parameters, expected, rtol=1e-12, atol=1e-14)


def test_cost_and_time_are_those_of_the_plan():
    federation = digits(4)
    found = run(fixed(federation, 3, 5, [8, 4, 2, 1]), federation)
    np.testing.assert_allclose(found.costs, 75.0 * np.arange(4))
    np.testing.assert_allclose(found.seconds, (5 * 8 / 50.0 + 2.0) * np.arange(4))


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    federation = digits(4)
    first, again, other = (run(fixed(federation, 2, 2, 4), federation, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses)


def test_absent_devices_are_not_averaged():
    federation = digits(2)
    alone = SystemModel([50.0, 50.0], dropout=[0.0, 1.0 - 1e-12])
    found = run(fixed(federation, 1, 1, [6, 6]), federation, system=alone)
    images, labels = federation.clients[0]
    batch = draw_positions(0, 0, 0, len(labels), steps=[0], sizes=6)[0, 0]
    expected = -0.5 * MODEL.gradient(MODEL.start(), (images[batch], labels[batch]))[1]
    np.testing.assert_allclose(found.parameters, expected, rtol=1e-12, atol=1e-14)


def test_a_controller_trains_within_its_budget():
    federation = digits(6)
    fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
    controller = Controller(fleet, Budget(cost=6_000, time=60.0), 0.5, curvature_floor=0.0)
    system = SystemModel(np.full(6, 200.0), 0.3, compute_jitter=0.1)
    found = run(controller, federation, system=system)
    assert found.costs[-1] <= 6_000 and found.seconds[-1] <= 60.0
    assert found.losses[-1] < 0.75 * found.losses[0]
    assert found.losses[0] == pytest.approx(math.log(10))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_that_is_not_finite_is_left_out_and_named():
    federation = digits(3)
    broken = (*federation.clients[:2], (federation.clients[2][0] * math.nan, federation.clients[2][1]))
    plan = fixed(federation, 3, 2, 4)
    system = SystemModel(plan.fleet.throughput, 1.0)
    found = simulate(plan, MODEL.gradient, MODEL.start(), broken, system=system)
    assert found.left_out == ((2,),) * 3 and found.stopped is StopReason.ROUNDS
    weights = [*federation.samples[:2], 0]
    without = run(fixed(federation, 3, 2, 4), federation, weights=weights)
    np.testing.assert_allclose(found.parameters, without.parameters, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_stops_where_no_model_is_finite():
    federation = digits(3)
    nothing = [(images * math.nan, labels) for images, labels in federation.clients]
    plan = fixed(federation, 3, 2, 4)
    system = SystemModel(plan.fleet.throughput, 1.0)
    found = simulate(plan, MODEL.gradient, MODEL.start(), nothing, system=system)
    assert found.stopped is StopReason.NOT_FINITE and len(found.losses) == 2
    np.testing.assert_array_equal(found.parameters, MODEL.start())


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_and_the_servers_step_are_written_out(nesterov):
    federation, rounds, tau = digits(3), 3, 4
    how = Optimiser(ClientSGD(0.6), ServerSGD(0.8, 0.7, nesterov))
    found = run(fixed(federation, rounds, tau, 5, 0.3), federation, optimiser=how)
    shares = federation.samples / federation.samples.sum()
    model, buffer = MODEL.start(), np.zeros_like(MODEL.start())
    for number in range(rounds):
        change = np.zeros_like(model)
        for i, (x, y) in enumerate(federation.clients):
            rows = draw_positions(0, number, i, len(y), steps=np.arange(tau), sizes=5)[0]
            local, velocity = model.copy(), np.zeros_like(model)
            for batch in rows:
                velocity = 0.6 * velocity + MODEL.gradient(local, (x[batch], y[batch]))[1]
                local -= 0.3 * velocity
            change += shares[i] * (local - model)
        buffer = 0.7 * buffer + change
        model = model + 0.8 * (change + 0.7 * buffer if nesterov else buffer)
    np.testing.assert_allclose(found.parameters, model, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("how", [Optimiser(ClientAdam()), Optimiser(server=ServerAdam()), "sgd"])
def test_adam_is_refused(how):
    federation = digits(3)
    with pytest.raises(InvalidProblemError, match="optimiser"):
        run(fixed(federation, 1, 1, 5), federation, optimiser=how)


def test_a_plan_that_nothing_runs_yet_is_no_planner():
    federation, model = digits(devices=2), Softmax(64, 10)
    problem = Problem(
        Fleet(federation.samples, gradient_noise=1.0, divergence=0.1),
        Constants(learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.1),
        Budget(cost=5000, max_local_steps=10),
    )
    clock = SystemModel(np.full(2, 100.0))
    with pytest.raises(InvalidProblemError, match=r"Allocation\(.*FixedPlan\.from_allocation\(plan\)"):
        simulate(solve_allocation(problem), model.gradient, model.start(), federation.clients, system=clock)
