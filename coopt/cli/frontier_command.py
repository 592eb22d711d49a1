"""``coopt frontier``: the best plans as one limit varies."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from coopt.cli import inputs, outputs
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

VARIED = ("cost", "time", "target_error")
# How far around the job's own limit values lie where none are given, and how many.
SPREAD, POINTS = 10.0, 9


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "frontier",
        run,
        about="what more or less of one limit would change",
        description="Find the best plan for each of several values of one limit.",
    )
    inputs.add_fleet(parser)
    inputs.add_job(parser)
    parser.add_argument("--vary", choices=VARIED, default=VARIED[0], help="the limit (default: %(default)s)")
    parser.add_argument(
        "--values",
        metavar="V",
        nargs="+",
        help='its values, with units as in "1h" or "5 epochs"; default: nine around that of the job',
    )
    inputs.add_judge(parser)
    inputs.add_objective(parser)
    inputs.add_limits(parser)
    outputs.add_outputs(parser, json="all plans", csv="one row a value", plot="the trade-off")


def run(options: argparse.Namespace) -> int:
    """Solve for each value; where none has a plan, that is exit code 3."""
    from coopt.questions.pareto import frontier
    from coopt.questions.tables import print_frontier

    outputs.check(options)
    fleet = inputs.read_fleet(options.fleet)
    problem = inputs.read(options.job, fleet, options)
    found = frontier(
        problem,
        options.objective,
        options.vary,
        _values(options, problem),
        bound=inputs.objective(options, fleet),
        target_error=options.target_error,
    )
    if outputs.for_people(options):
        print_frontier(found)
    outputs.write(options, "trade-off", json=found.to_dict, csv=found.to_rows, plot=found.plot)
    if all(point.allocation is None for point in found.points):
        outputs.note(f"coopt: error: no plan at any value: {found.points[-1].reason}")
        return outputs.INFEASIBLE
    return outputs.FOUND


def _values(options: argparse.Namespace, problem: Problem) -> list[float | str]:
    """The values to solve for; some around the job's own where none are given."""
    from coopt.problem.units import number_or_text

    if options.values is not None:
        return [number_or_text(text) for text in options.values]
    budget = problem.budget
    own = {"cost": budget.cost, "time": budget.time, "target_error": options.target_error or math.inf}
    middle = own[options.vary]
    if not 0.0 < middle < math.inf:
        raise InvalidProblemError(f"--values is missing: {options.job} has no limit {options.vary} to vary")
    return [middle * SPREAD ** (2.0 * k / (POINTS - 1) - 1.0) for k in range(POINTS)]
