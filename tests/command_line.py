"""A small fleet and its job as files, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coopt import Fleet, Measurement, measure
from coopt.cli import main

FLEET = """\
names,samples,gradient_noise,divergence,throughput,round_time
phone,600,4.0,0.2,50,6.0
board,2000,3.0,0.1,200,2.0
server,9000,2.0,0.1,3000,0.5
"""
JOB = """\
[constants]
learning_rate = 0.1
smoothness = 1.0
initial_gap = 2.0
pl_constant = 0.02
curvature_floor = 0.0

[budget]
cost = 200_000
time = 1800
round_cost = 100
"""


def write_files(folder: Path) -> tuple[Path, Path]:
    """FLEET and JOB as files."""
    fleet, job = folder / "fleet.csv", folder / "job.toml"
    fleet.write_text(FLEET)
    job.write_text(JOB)
    return fleet, job


def quadratic_measurement(fleet: Path) -> Measurement:
    """A measurement of quadratic losses on as many devices as a fleet has."""
    rng = np.random.default_rng(0)
    clients = [0.1 * k + rng.normal(size=(50, 3)) for k in range(len(Fleet.from_csv(fleet)))]

    def gradient(model, rows):
        error = model - rows
        return 0.5 * float(np.mean(np.sum(error**2, axis=1))), error.mean(axis=0)

    return measure(gradient, np.full(3, 2.0), clients)


def run(*arguments: object) -> int:
    """The exit code of a command."""
    return main([str(argument) for argument in arguments])
