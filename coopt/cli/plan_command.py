"""``coopt plan``: one plan for each job of a fleet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopt.cli import inputs, outputs
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.questions.many import Solutions

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
    time = "30min"
    round_cost = 100

  $ coopt plan fleet.csv job.toml --json plan.json --plot plan.png

Columns are the fields of coopt.Fleet and keys those of coopt.Constants and coopt.Budget: times are in
seconds, or have units as in "1h 30min"; throughput is in samples per second, and costs in a unit of your
choice, or in epochs as in "5 epochs".
"""


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "plan",
        run,
        about="plan your own fleet and job",
        description=(
            "Find the rounds, local steps and batch sizes with the smallest error bound, or with the "
            "smallest error that is forecast from a measurement."
        ),
        epilog=EXAMPLE + outputs.CODES,
    )
    inputs.add_fleet(parser)
    parser.add_argument(
        "jobs",
        metavar="JOB.toml",
        type=Path,
        nargs="+",
        help="tables [constants] and [budget]; one plan each",
    )
    inputs.add_judge(parser)
    inputs.add_objective(parser)
    inputs.add_rate(parser)
    inputs.add_limits(parser)
    inputs.add_time_limit(parser)
    parser.add_argument(
        "--gap-tolerance",
        metavar="GAP",
        type=float,
        default=1e-12,
        help="a plan is good enough when its error is proved to be within this share of the smallest "
        "(default: %(default)s, or .01 with --learning-rate auto)",
    )
    outputs.add_outputs(
        parser,
        json="the plan and its certificate; of several jobs all plans, by job",
        csv="one row a job",
        plot="the plan",
    )
    parser.add_argument("--devices", metavar="OUT.csv", type=Path, help="write one row a device")


def run(options: argparse.Namespace) -> int:
    """Plan; of several jobs the first without a plan decides the exit code."""
    from coopt.questions.many import solve_many

    outputs.check(options, options.devices)
    if options.plot is not None and len(options.jobs) > 1:
        raise InvalidProblemError("--plot is for one job: use --csv or --json for several")
    fleet = inputs.read_fleet(options.fleet)
    problems = [inputs.read(job, fleet, options) for job in options.jobs]
    found = solve_many(
        dict(zip(_names(options.jobs), problems, strict=True)),
        bound=inputs.objective(options, fleet),
        objective=options.objective,
        target_error=options.target_error,
        learning_rate=options.learning_rate,
        gap_tolerance=options.gap_tolerance,
        time_limit=options.time_limit,
    )
    if outputs.for_people(options):
        _print(found)
    only = found.allocations[0] if len(found) == 1 else None
    outputs.write(
        options,
        "plan" if only else "plans",
        json=lambda: only.to_dict() if only is not None else _all(found),
        csv=found.to_rows,
    )
    if options.devices is not None:
        outputs.put_rows(options.devices, _devices(found), "devices")
    if options.plot is not None and only is not None:
        outputs.save(only.plot(), options.plot)
    several = len(found) > 1
    codes = [outputs.fail(error, name if several else "") for name, error in found.errors.items()]
    return codes[0] if codes else outputs.FOUND


def _names(jobs: Sequence[Path]) -> list[str]:
    """File names, which are short enough for a line; paths where they are not unique."""
    names = [job.name for job in jobs]
    return names if len(set(names)) == len(names) else [str(job) for job in jobs]


def _print(found: Solutions) -> None:
    from coopt.plans.table import print_allocation
    from coopt.questions.tables import print_solutions

    if len(found) > 1:
        print_solutions(found)
        return
    for plan in found.allocations:
        if plan is not None:
            print_allocation(plan)


def _all(found: Solutions) -> dict[str, Any]:
    """The plans of several jobs, and why others have none."""
    pairs = zip(found.names, found.allocations, strict=True)
    return {
        "plans": {name: plan.to_dict() for name, plan in pairs if plan is not None},
        "errors": {
            name: {"kind": type(error).__name__, "message": str(error)}
            for name, error in found.errors.items()
        },
    }


def _devices(found: Solutions) -> list[dict[str, Any]]:
    return [
        {"job": name, **row}
        for name, plan in zip(found.names, found.allocations, strict=True)
        if plan is not None
        for row in plan.to_rows()
    ]
