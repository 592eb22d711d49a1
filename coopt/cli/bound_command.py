"""``coopt bound``: the theorem behind a bound, as text or LaTeX, with the numbers of a plan put in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coopt.cli import inputs, outputs
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.plans.allocation import Allocation
    from coopt.plans.written_bound import WrittenBound


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "bound",
        run,
        about="the theorem behind a bound, as text or LaTeX, with numbers put in",
        description=(
            "Print what a bound says. With a plan, or with a fleet, a job, rounds, local steps and a batch "
            "size, put their numbers in."
        ),
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help=f"{', '.join(inputs.BOUNDS)}, tradeoff, one with numbers, or a theorem; without: list them",
    )
    parser.add_argument("--plan", metavar="PLAN.json", type=Path, help="a plan, and by default its bound")
    parser.add_argument("--fleet", metavar="FLEET.csv", type=Path)
    parser.add_argument("--job", metavar="JOB.toml", type=Path)
    parser.add_argument("--rounds", metavar="K", type=int)
    parser.add_argument("--local-steps", metavar="TAU", type=int)
    parser.add_argument("--batch-size", metavar="S", type=int, help="on every device")
    parser.add_argument("--latex", action="store_true", help="LaTeX instead of text")
    outputs.add_outputs(parser, json="statement, symbols and numbers", csv="one row a symbol")


def run(options: argparse.Namespace) -> int:
    """Write the bound."""
    outputs.check(options)
    if options.name is None and options.plan is None:
        return _list(options)
    written = _written(options)
    if outputs.for_people(options):
        print(written.latex() if options.latex else written.text())
    outputs.write(options, "bound", json=written.to_dict, csv=written.rows)
    return outputs.FOUND


def _list(options: argparse.Namespace) -> int:
    from coopt_bounds import THEOREMS

    rows = [
        {"name": name, "number": theorem.number, "title": theorem.title} for name, theorem in THEOREMS.items()
    ]
    if outputs.for_people(options):
        for row in rows:
            print(f"{row['name']:26} ({row['number']}) {row['title']}")
    outputs.write(options, "list", json=lambda: {"theorems": rows}, csv=lambda: rows)
    return outputs.FOUND


def _written(options: argparse.Namespace) -> WrittenBound:
    from coopt.plans.written_bound import WrittenBound, written_bound

    plan = _plan(options)
    if plan is not None:
        return written_bound(plan)
    from coopt_bounds import THEOREMS

    name = options.name.partition("(")[0]
    if name not in THEOREMS:
        raise InvalidProblemError(f"NAME = {options.name!r}: is no theorem, which are {', '.join(THEOREMS)}")
    return WrittenBound(THEOREMS[name], {})


def _plan(options: argparse.Namespace) -> Allocation | None:
    """The plan whose numbers are put in; None where none are asked for."""
    from coopt.questions.solve import evaluate

    given = {
        "--fleet": options.fleet,
        "--job": options.job,
        "--rounds": options.rounds,
        "--local-steps": options.local_steps,
        "--batch-size": options.batch_size,
    }
    some = [name for name, value in given.items() if value is not None]
    if options.plan is not None:
        if some:
            raise InvalidProblemError(f"{some[0]}: --plan holds all of that")
        plan = read_plan(options.plan)
        if options.name is None:
            return plan
        return evaluate(plan.problem, plan.rounds, plan.local_steps, plan.batch_sizes, options.name)
    if not some:
        return None
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise InvalidProblemError(f"{missing[0]} is missing: numbers need {', '.join(given)}, or --plan")
    fleet = inputs.read_fleet(options.fleet)
    problem = inputs.read(options.job, fleet, options)
    batches = fleet.rounded_down(fleet.samples * 0 + options.batch_size)
    return evaluate(problem, options.rounds, options.local_steps, batches, options.name)


def read_plan(path: Path) -> Allocation:
    """A plan that ``coopt plan --json`` wrote."""
    from coopt.plans.allocation import Allocation
    from coopt.problem.files import read_text

    return Allocation.from_json(read_text(path))
