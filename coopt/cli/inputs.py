"""What several commands read: the fleet and its job, limits in place of the job's, and what judges a plan."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coopt.cli.outputs import note
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.measuring.measurement import Measurement
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.problem.fleet import Fleet
    from coopt.problem.problem import Problem

# Names that need no numbers; "certified(gamma=0.3, z=2.0)" and "tradeoff(gamma=0.5, ratio=10.0)" have some.
BOUNDS = ("certified", "dynamite", "adacoopt", "nonconvex")
OBJECTIVES = ("error", "cost", "time")
LIMITS = ("cost", "time", "energy", "max_rounds", "max_local_steps")


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the fleet."""
    parser.add_argument("fleet", metavar="FLEET.csv", type=Path, help="one row a device")


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the argument for one job."""
    parser.add_argument("job", metavar="JOB.toml", type=Path, help="tables [constants] and [budget]")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add options for limits that take the place of the job's."""
    # Texts here: what reads units needs numpy, which a parser is too early for.
    limits = parser.add_argument_group("limits in place of the job's")
    limits.add_argument("--cost", metavar="R", help='a number, or such as "5 epochs"')
    limits.add_argument("--time", metavar="T", help='seconds, or such as "1h 30min"')
    limits.add_argument("--energy", metavar="E", help='joules, or such as "2 kWh"')
    limits.add_argument("--max-rounds", metavar="K", type=int)
    limits.add_argument("--max-local-steps", metavar="TAU", type=int)


def add_judge(parser: argparse.ArgumentParser) -> None:
    """Add options for what judges plans: a bound, or the forecast of a measurement."""
    judged = parser.add_mutually_exclusive_group()
    judged.add_argument(
        "--bound",
        metavar="NAME",
        default=BOUNDS[0],
        help=f"error bound: {', '.join(BOUNDS)}, or one with numbers (default: %(default)s)",
    )
    judged.add_argument(
        "--measurement", metavar="FILE.npz", type=Path, help="plan by the forecast of a saved measurement"
    )


def add_objective(parser: argparse.ArgumentParser) -> None:
    """Add options for what is minimised."""
    parser.add_argument(
        "--objective", choices=OBJECTIVES, default=OBJECTIVES[0], help="minimise this (default: %(default)s)"
    )
    parser.add_argument(
        "--target-error", metavar="E", type=float, help="error to be reached, for cost and time"
    )


def add_rate(parser: argparse.ArgumentParser) -> None:
    """Add the option for the learning rate."""
    parser.add_argument(
        "--learning-rate", metavar="ETA", type=rate, help="in place of the job's; auto: chosen with the plan"
    )


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Add the option for how long to search."""
    parser.add_argument(
        "--time-limit", metavar="S", type=float, help="give the best plan found after so many seconds"
    )


def rate(text: str) -> float | Literal["auto"]:
    """A learning rate on the command line; argparse reports what is neither a number nor auto."""
    try:
        return "auto" if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def read(job: Path, fleet: Fleet, options: argparse.Namespace) -> Problem:
    """The problem of a job, with the limits that the options give in place of its own."""
    from coopt.problem.files import read_problem
    from coopt.problem.problem import Problem

    _, constants, budget = read_problem(job, fleet)
    problem = Problem(fleet, constants, replace(budget, **limits_given(options, fleet)))
    _note_idle(problem, options.fleet)
    return problem


def limits_given(options: argparse.Namespace, fleet: Fleet) -> dict[str, Any]:
    """The limits that options give, as fields of a budget; epochs are those of the fleet."""
    from coopt.problem.units import number_or_text, with_units

    given = {name: getattr(options, name, None) for name in LIMITS}
    read = {
        name: number_or_text(value) if isinstance(value, str) else value
        for name, value in given.items()
        if value is not None
    }
    return with_units(read, fleet)


def _note_idle(problem: Problem, source: Path) -> None:
    """Say which limits change nothing, since no device uses any of what they limit."""
    fleet, budget = problem.fleet, problem.budget
    seconds = (fleet.throughput < math.inf).any() or fleet.round_time.any() or fleet.step_time.any()
    joules = fleet.sample_energy.any() or fleet.round_energy.any() or fleet.step_energy.any()
    for name, limit, used, columns in (
        ("time", budget.time, seconds, "throughput, round_time nor step_time"),
        ("energy", budget.energy, joules, "sample_energy, round_energy nor step_energy"),
    ):
        if limit < math.inf and not used:
            note(f"coopt: warning: the limit on {name} changes nothing: {source} has neither {columns}")


def read_fleet(path: Path) -> Fleet:
    """The fleet of a CSV file."""
    from coopt.problem.fleet import Fleet

    if path.suffix == ".toml":
        raise InvalidProblemError(f"{path}: a job stands where the fleet should: write FLEET.csv JOB.toml")
    return Fleet.from_csv(path)


def objective(options: argparse.Namespace, fleet: Fleet) -> str | Forecast:
    """The bound that was named, or the forecast of a measurement of the same devices."""
    if options.measurement is None:
        from coopt.objectives.registry import resolve_bound

        name = str(options.bound)
        if "(" not in name and resolve_bound(name).needs_numbers:
            raise InvalidProblemError(f'--bound {name}: needs numbers, as in "{name}(gamma=0.5, ratio=10.0)"')
        return name
    return read_measurement(options, fleet).forecast()


def read_measurement(options: argparse.Namespace, fleet: Fleet) -> Measurement:
    """A saved measurement, if it lists the devices of the fleet in the same order."""
    from coopt.measuring.measurement import Measurement

    measurement = Measurement.load(options.measurement)
    count = len(measurement.samples)
    if count != len(fleet):
        raise InvalidProblemError(
            f"{options.measurement} holds {count} devices, and {options.fleet} {len(fleet)}: "
            "a forecast knows devices by position, so list those that were measured"
        )
    pairs = zip(measurement.names or (), fleet.names or (), strict=False)
    for place, (measured, listed) in enumerate(pairs):
        if measured != listed:
            raise InvalidProblemError(
                f"{options.measurement}: device {place} is {measured!r}, and {listed!r} in {options.fleet}: "
                "a forecast knows devices by position, so list them in the order they were measured in"
            )
    return measurement
