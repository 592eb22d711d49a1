"""The command line: ``coopt plan`` a fleet and a job of one's own, ``measure`` them from records, ``demo``.

The exit code says what happened: 0 a plan was found, 2 the input is wrong, 3 no plan meets the limits,
1 anything else that coopt raises on purpose. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from coopt._version import __version__
from coopt.errors import BoundWarning, CooptError, InfeasibleError, InvalidProblemError

if TYPE_CHECKING:
    from coopt.objectives.forecast.forecast import Forecast
    from coopt.plans.allocation import Allocation
    from coopt.problem.fleet import Fleet
    from coopt.problem.problem import Problem

FOUND, FAILED, BAD_INPUT, INFEASIBLE = 0, 1, 2, 3

BOUNDS = ("certified", "dynamite", "adacoopt", "nonconvex")

EXAMPLE = """\
a complete small example:

  fleet.csv
    names,samples,gradient_noise,divergence,throughput,round_time
    phone,600,4.0,0.2,50,6.0
    board,2000,3.0,0.1,200,2.0
    server,9000,2.0,0.1,3000,0.5

  job.toml
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

  $ coopt plan fleet.csv job.toml --json plan.json --plot plan.png

Columns are the fields of coopt.Fleet and keys those of coopt.Constants and coopt.Budget: times are in
seconds, throughput in samples per second, and costs in a unit of your choice.
exit codes: 0 found a plan, 2 wrong input, 3 no plan meets the limits
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands after the command's name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        0, 1, 2 or 3, as the module says. Wrong options end the process with 2, as argparse does.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", BoundWarning)
        warnings.showwarning = _print_warning
        try:
            return {"plan": _plan, "demo": _demo, "measure": _measure}[options.command](options)
        except CooptError as error:
            return _fail(error, _code(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coopt",
        description="How many rounds, how many local steps, and which batch size on which device?",
    )
    parser.add_argument("--version", action="version", version=f"coopt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser(
        "plan",
        help="plan your own fleet and job",
        description=(
            "Find the rounds, local steps and batch sizes with the smallest error bound, or with the "
            "smallest error that is forecast from a measurement."
        ),
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("fleet", metavar="FLEET.csv", type=Path, help="one row a device")
    plan.add_argument(
        "jobs",
        metavar="JOB.toml",
        type=Path,
        nargs="+",
        help="tables [constants] and [budget]; one plan each",
    )
    judged = plan.add_mutually_exclusive_group()
    judged.add_argument(
        "--bound", choices=BOUNDS, default=BOUNDS[0], help="error bound (default: %(default)s)"
    )
    judged.add_argument(
        "--measurement", metavar="FILE.npz", type=Path, help="plan by the forecast of a saved measurement"
    )
    plan.add_argument(
        "--learning-rate", metavar="ETA", type=_rate, help="in place of the job's; auto: chosen with the plan"
    )
    plan.add_argument("--json", metavar="OUT.json", type=Path, help="write the plan and its certificate")
    plan.add_argument("--csv", metavar="OUT.csv", type=Path, help="write one row a job")
    demo = commands.add_parser(
        "demo",
        help="measure, plan and train on embedded data, beside what is common today",
        description="Measure a federation of handwritten digits, plan, and train the plan and what is "
        "common; then plan the example fleet by a proved bound.",
    )
    measure = commands.add_parser(
        "measure",
        help="turn recorded client reports into a fleet and a job",
        description=(
            "Estimate a fleet and the constants of its loss from the client reports of a training that has "
            "been run, one report.to_json() a line, and write them as `coopt plan` reads them."
        ),
    )
    measure.add_argument("reports", metavar="REPORTS.jsonl", type=Path, help="one client report a line")
    measure.add_argument("fleet", metavar="FLEET.csv", type=Path, help="file to write, one row a device")
    measure.add_argument("job", metavar="JOB.toml", type=Path, help="file to write, constants and budget")
    measure.add_argument(
        "--learning-rate", metavar="ETA", type=float, required=True, help="what was trained with"
    )
    measure.add_argument("--cost", type=float, help="cost to plan for (default: what was spent)")
    measure.add_argument("--time", type=float, help="seconds to plan for (default: what was taken)")
    measure.add_argument(
        "--divergence", type=float, help="gradient divergence, where the reports carry no gradients"
    )
    measure.add_argument("--convex", action="store_true", help="the loss of every device is convex")
    for command in (plan, demo):
        command.add_argument("--plot", metavar="OUT.png", type=Path, help="draw a picture (needs matplotlib)")
    return parser


def _plan(options: argparse.Namespace) -> int:
    from coopt.plans.table import print_allocation
    from coopt.problem.files import read_problem
    from coopt.problem.fleet import Fleet
    from coopt.problem.problem import Problem
    from coopt.questions.solve import solve_allocation

    _check_outputs(options.plot, options.json, options.csv)
    fleet = Fleet.from_csv(options.fleet)
    problems = [Problem(*read_problem(job, fleet)) for job in options.jobs]
    if len(problems) > 1 or options.csv is not None:
        return _plan_many(problems, options)
    allocation = solve_allocation(
        problems[0], bound=_objective(options, fleet), learning_rate=options.learning_rate
    )
    print_allocation(allocation)
    if options.json is not None:
        try:
            allocation.to_json(options.json)
        except OSError as error:
            raise InvalidProblemError(f"{options.json}: cannot be written: {error.strerror}") from error
        _note(f"plan written to {options.json}")
    _draw(allocation, options.plot)
    return FOUND


def _plan_many(problems: Sequence[Problem], options: argparse.Namespace) -> int:
    """Plan several jobs for one fleet; the exit code is that of the first that has no plan."""
    from coopt.questions.many import solve_many
    from coopt.questions.tables import print_solutions

    if options.json is not None or options.plot is not None:
        raise InvalidProblemError("--json and --plot are for one job: use --csv for several")
    # File names are short enough for a line; paths where they are not unique.
    names = [job.name for job in options.jobs]
    if len(set(names)) < len(names):
        names = [str(job) for job in options.jobs]
    found = solve_many(
        dict(zip(names, problems, strict=True)),
        bound=_objective(options, problems[0].fleet),
        learning_rate=options.learning_rate,
    )
    print_solutions(found)
    if options.csv is not None:
        found.to_csv(options.csv)
        _note(f"table written to {options.csv}")
    codes = [_fail(error, _code(error), name) for name, error in found.errors.items()]
    return codes[0] if codes else FOUND


def _rate(text: str) -> float | Literal["auto"]:
    """A learning rate on the command line; argparse reports what is neither a number nor auto."""
    return "auto" if text == "auto" else float(text)


def _objective(options: argparse.Namespace, fleet: Fleet) -> str | Forecast:
    """The bound that was named, or the forecast of a measurement of the same devices."""
    if options.measurement is None:
        return str(options.bound)
    from coopt.measuring.measurement import Measurement

    measurement = Measurement.load(options.measurement)
    pairs = zip(measurement.names or (), fleet.names or (), strict=False)
    for place, (measured, listed) in enumerate(pairs):
        if measured != listed:
            raise InvalidProblemError(
                f"{options.measurement}: device {place} is {measured!r}, and {listed!r} in {options.fleet}: "
                "a forecast knows devices by position, so list them in the order they were measured in"
            )
    return measurement.forecast()


def _code(error: CooptError) -> int:
    if isinstance(error, InfeasibleError):
        return INFEASIBLE
    return BAD_INPUT if isinstance(error, InvalidProblemError) else FAILED


def _demo(options: argparse.Namespace) -> int:
    from coopt.cli.demo import demonstrate, print_demonstration, save_picture
    from coopt.plans.table import print_allocation
    from coopt.questions.baselines import baselines
    from coopt.questions.solve import solve_allocation
    from coopt.questions.tables import print_comparison

    _check_outputs(options.plot)
    shown = demonstrate()
    print_demonstration(shown)
    if options.plot is not None:
        save_picture(shown, options.plot)
        _note(f"picture written to {options.plot}")
    problem = example_problem()
    allocation = solve_allocation(problem)
    print_allocation(allocation)
    print_comparison(allocation, baselines(problem))
    return FOUND


def _measure(options: argparse.Namespace) -> int:
    from coopt.measuring.from_records import from_records, read_reports

    _check_outputs(None, options.fleet, options.job)
    found = from_records(
        read_reports(options.reports),
        learning_rate=options.learning_rate,
        divergence=options.divergence,
        convex=options.convex,
    )
    found.fleet.to_csv(options.fleet)
    options.job.write_text(found.job(cost=options.cost, time=options.time), encoding="utf-8")
    for line in found.lines():
        print(line)
    for each in found.ignored:
        _note(str(each))
    _note(f"written: {options.fleet} and {options.job}; next: coopt plan {options.fleet} {options.job}")
    return FOUND


def example_problem() -> Problem:
    """Read the example that comes with coopt: 24 made-up phones, boards and a server, one hour.

    Returns
    -------
    Problem

    Examples
    --------
    >>> from coopt.cli import example_problem
    >>> example_problem().fleet
    Fleet(24 devices, 43190 samples)
    """
    from importlib import resources

    from coopt.problem.files import read_problem
    from coopt.problem.fleet import Fleet
    from coopt.problem.problem import Problem

    with resources.as_file(resources.files("coopt.data")) as folder:
        return Problem(*read_problem(folder / "job.toml", Fleet.from_csv(folder / "fleet.csv")))


def _check_outputs(picture: Path | None, *files: Path | None) -> None:
    """Refuse what cannot be written before the work rather than after it."""
    if picture is not None:
        from coopt.plans.plot import check_picture

        check_picture(picture)
    for path in (picture, *files):
        if path is not None and not path.absolute().parent.is_dir():
            raise InvalidProblemError(f"{path}: cannot be written: no folder {path.absolute().parent}")
        # Path.is_dir raises for a name that is too long, os.path.isdir answers.
        if path is not None and os.path.isdir(path):  # noqa: PTH112
            raise InvalidProblemError(f"{path}: cannot be written: it is a folder")


def _draw(allocation: Allocation, path: Path | None) -> None:
    if path is not None:
        from coopt.plans.plot import save_plot

        save_plot(allocation, path)
        _note(f"picture written to {path}")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(error: CooptError, code: int, job: str = "") -> int:
    _note(f"coopt: error: {job and job + ': '}{error}")
    return code


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _note(f"coopt: warning: {message}")
