"""Read what the command named, and refuse what does not fit together before a page is shown."""

from __future__ import annotations

import argparse
from pathlib import Path

from coopt.cli import inputs
from coopt.cli.explore.what_if import Case
from coopt.objectives.registry import resolve_bound


def open_case(fleet: str, job: str, bound: str, measurement: str = "") -> Case:
    """The fleet, the job and the measurement in these files.

    Raises
    ------
    InvalidProblemError
        If a file cannot be read, or they do not fit together.
    """
    devices = inputs.read_fleet(Path(fleet))
    options = argparse.Namespace(
        fleet=Path(fleet), bound=bound, measurement=Path(measurement) if measurement else None
    )
    problem = inputs.read(Path(job), devices, options)
    judge = inputs.objective(options, devices)
    if isinstance(judge, str):
        # Refuses a name that is none.
        resolve_bound(judge)
        return Case(problem, judge, None, fleet)
    # Refuses a fleet of another size, and a learning rate at which training is unstable.
    judge.federation(problem)
    return Case(problem, bound, judge, fleet, measurement)
