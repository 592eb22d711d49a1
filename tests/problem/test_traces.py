"""Fleets drawn from measured tables."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from coopt import (
    Budget,
    Constants,
    Fleet,
    InvalidProblemError,
    MeasurementWarning,
    Problem,
    choose_cohort,
    solve_allocation,
)
from coopt.adapters.system import SystemModel
from coopt.plans.table import print_allocation

TABLES = ("latency", "links", "model_bytes")
REST = {"samples": 500, "gradient_noise": 4.0, "divergence": 0.1}


def draw(**given):
    return Fleet.from_traces(
        **(
            {"latency": [10.0, 500.0], "links": [1e3], "model_bytes": 1e6, "devices": 6, "seed": 3}
            | REST
            | given
        )
    )


def test_every_device_has_a_measured_speed_and_link():
    fleet = draw(links=[[1e3, 5e2], [8e3, 8e3]])
    assert set(fleet.throughput.tolist()) <= {100.0, 2.0}
    assert set(fleet.round_time.tolist()) <= {8.0 + 16.0, 1.0 + 1.0}
    assert fleet.samples.tolist() == [500] * 6


def test_the_same_seed_draws_the_same_fleet():
    assert draw() == draw() == draw(seed=np.random.default_rng(3))
    assert draw(latency=np.linspace(10, 1000, 50)) != draw(latency=np.linspace(10, 1000, 50), seed=4)


def test_a_simulated_fleet_reads_the_same_tables_alike():
    tables = [54.0, 82.0, 610.0], [[40_000.0, 8_000.0], [9_000.0, 700.0], [100.0, 30.0]], 1e6
    clock, fleet = (
        SystemModel.from_traces(*tables),
        draw(**dict(zip(TABLES, tables, strict=True)), devices=60),
    )
    pairs = {(t, u) for t in clock.throughput.tolist() for u in clock.round_time.tolist()}
    assert set(zip(fleet.throughput.tolist(), fleet.round_time.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("read", [draw, SystemModel.from_traces])
def test_seconds_and_bits_are_noticed(read):
    tables = dict(zip(TABLES, ([0.054, 0.082, 0.61], [4e7, 8e6, 9e5], 1e6), strict=True))
    with pytest.warns(MeasurementWarning, match="12,195 samples a second .* 8 Gbit/s .* multiply seconds"):
        read(**tables)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latency": [0.1, 0.0]}, r"latency\[1\] = 0.0: must be"),
        ({"latency": []}, r"latency: must be measured numbers of shape \(n,\), in milliseconds a sample"),
        ({"latency": 50.0}, "latency: must be measured numbers of shape"),
        ({"links": [[1.0, 2.0, 3.0]]}, r"links: must be measured numbers of shape \(n,\), or \(n, 2\)"),
        ({"links": "fast"}, "links"),
        ({"devices": 0}, "devices = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"model_bytes": -1.0}, "model_bytes = -1.0"),
        ({"samples": None}, "samples is missing"),
        ({"samples": [1, 2]}, "6"),
    ],
)
def test_wrong_tables_are_named(given, message):
    with pytest.raises(InvalidProblemError, match=message):
        draw(**given)


def test_measured_phones_hold_each_other_up(capsys):
    """A plan says so and which question leaves the slow ones out, which is worth a factor of a hundred."""
    if "COOPT_DATA" not in os.environ:
        pytest.skip("COOPT_DATA is not set: it names the folder with devices/phone_latency.csv")
    folder = Path(os.environ["COOPT_DATA"]) / "devices"

    def column(file, name):
        with (folder / file).open() as stream:
            return [float(row[name]) for row in csv.DictReader(stream)]

    fleet = Fleet.from_traces(
        column("phone_latency.csv", "resnet_ms"),
        column("phone_tcp_kbps.csv", "tcp_down_kbps_mean"),
        1e6,
        devices=200,
        seed=0,
        **REST,
    )
    constants = Constants(0.05, 4.0, 2.0, pl_constant=0.5, curvature_floor=0.0)
    plan = solve_allocation(Problem(fleet, constants, Budget(time="2 days")))
    print_allocation(plan)
    hint = "of 200 devices need most of it with any batch: coopt.choose_cohort leaves some out"
    assert hint in " ".join(capsys.readouterr().out.split())
    assert hint in str(plan)
    cohort = choose_cohort(plan.problem, gap_tolerance=0.2)
    assert cohort.allocation.error_bound < plan.error_bound / 100
    assert len(cohort.devices) > 180
    assert "choose_cohort" not in str(cohort.allocation)
