"""The simulated clock: what it must not depend on, and what its parameters mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt import Fleet, InvalidProblemError
from coopt.adapters.system import SystemModel

JITTERY = {
    "compute_jitter": 0.5,
    "link_jitter": 0.3,
    "straggler_rate": 0.2,
    "dropout": 0.1,
}


def speeds(devices: int) -> np.ndarray:
    return np.linspace(5.0, 50.0, devices)


@given(seed=st.integers(0, 2**32), number=st.integers(0, 10**6), devices=st.integers(1, 9))
def test_a_round_depends_on_seed_round_and_device_alone(seed: int, number: int, devices: int) -> None:
    system = SystemModel(speeds(devices), 0.4, seed=seed, **JITTERY)
    first = system.round(number, 30)
    system.round(number + 1, 7)
    again = SystemModel(speeds(devices), 0.4, seed=seed, **JITTERY).round(number, 30)
    more = SystemModel([*speeds(devices), 3.0], 0.4, seed=seed, **JITTERY).round(number, 30)
    for name in ("computing", "communicating", "absent"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert np.array_equal(getattr(first, name), getattr(more, name)[:devices])


@given(number=st.integers(0, 10**4), scale=st.floats(0.01, 100.0))
def test_work_scales_computing_and_nothing_else(number: int, scale: float) -> None:
    system = SystemModel(speeds(6), 0.4, seed=3, **JITTERY)
    one, other = system.round(number, 20.0), system.round(number, 20.0 * scale)
    assert np.allclose(other.computing, scale * one.computing, rtol=1e-12)
    assert np.array_equal(other.communicating, one.communicating)
    assert np.array_equal(other.absent, one.absent)


def test_without_luck_times_are_those_of_a_fleet() -> None:
    system = SystemModel(speeds(4), [0.1, 0.2, 0.3, 0.4])
    times = system.round(5, [10, 20, 30, 40])
    fleet = Fleet([100] * 4, 1.0, 0.1, throughput=system.throughput, round_time=system.round_time)
    assert np.allclose(times.total, np.array([10, 20, 30, 40]) / fleet.throughput + fleet.round_time)
    assert not times.absent.any()
    assert times.seconds() == times.total.max()


def test_luck_has_the_stated_frequencies_and_mean_one() -> None:
    system = SystemModel(np.ones(200), 1.0, compute_jitter=0.5, link_jitter=0.2, seed=1)
    rounds = [system.round(k, 1.0) for k in range(200)]
    assert np.mean([r.computing for r in rounds]) == pytest.approx(1.0, abs=0.01)
    assert np.std(np.log([r.computing for r in rounds])) == pytest.approx(0.5, abs=0.01)
    assert np.mean([r.communicating for r in rounds]) == pytest.approx(1.0, abs=0.01)
    unlucky = SystemModel(np.ones(200), straggler_rate=0.3, straggler_factor=4.0, dropout=0.2, seed=1)
    rounds = [unlucky.round(k, 1.0) for k in range(200)]
    assert set(np.unique([r.computing for r in rounds])) == {1.0, 4.0}
    assert np.mean([r.computing == 4.0 for r in rounds]) == pytest.approx(0.3, abs=0.01)
    assert np.mean([r.absent for r in rounds]) == pytest.approx(0.2, abs=0.01)


def test_the_server_waits_for_the_present_until_the_deadline() -> None:
    system = SystemModel([10.0, 1.0, 5.0], dropout=[0.0, 1.0, 0.0])
    times = system.round(0, 10.0)
    assert times.absent.tolist() == [False, True, False]
    assert times.seconds() == 2.0
    assert times.seconds(deadline=1.5) == 1.5
    assert times.arrived(deadline=1.5).tolist() == [True, False, False]
    assert SystemModel([1.0], dropout=1.0).round(0, 1.0).seconds(deadline=9.0) == 0.0


def test_traces_give_measured_devices_and_links() -> None:
    system = SystemModel.from_traces([50.0, 400.0], [8000.0, 1000.0], model_bytes=1e6)
    assert np.allclose(system.throughput, [20.0, 2.5])
    assert np.allclose(system.round_time, [2.0, 16.0])
    drawn = SystemModel.from_traces([50.0, 400.0], [8000.0], 1e6, devices=40, seed=2, dropout=0.5)
    assert len(drawn) == 40
    assert set(np.round(drawn.throughput, 9)) == {20.0, 2.5}
    assert drawn == SystemModel.from_traces([50.0, 400.0], [8000.0], 1e6, devices=40, seed=2, dropout=0.5)
    assert drawn != SystemModel.from_traces([50.0, 400.0], [8000.0], 1e6, devices=40, seed=3, dropout=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"throughput": [1.0, 0.0]}, r"throughput\[1\] = 0"),
        ({"throughput": 3.0}, "throughput has shape"),
        ({"throughput": [1.0], "round_time": -1.0}, "round_time"),
        ({"throughput": [1.0, 1.0], "dropout": [0.5, 1.5]}, r"dropout\[1\] = 1.5: must be <= 1"),
        ({"throughput": [1.0], "straggler_factor": 0.5}, "straggler_factor"),
        ({"throughput": [1.0], "seed": -1}, "seed"),
    ],
)
def test_bad_parameters_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        SystemModel(**arguments)


def test_traces_of_different_lengths_need_a_number_of_devices() -> None:
    with pytest.raises(InvalidProblemError, match="latency has 2 entries and links 1"):
        SystemModel.from_traces([50.0, 400.0], [8000.0], 1e6)


def test_a_step_takes_time_whatever_its_batch() -> None:
    system = SystemModel([100.0, 20.0], round_time=0.5, step_time=[0.25, 0.0])
    times = system.round(0, samples_processed=40, steps=4)
    np.testing.assert_allclose(times.total, [1.9, 2.5])
    assert SystemModel([100.0, 20.0], round_time=0.5) != system
