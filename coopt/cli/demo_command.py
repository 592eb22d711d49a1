"""``coopt demo``: measure, plan and train on embedded data, beside what is common today."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coopt.cli import outputs
from coopt.cli.example import example_problem
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.cli.demo import Demonstration


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "demo",
        run,
        about="measure, plan and train on embedded data, beside what is common today",
        description="Measure a federation of handwritten digits, plan, and train the plan and what is "
        "common; then plan the example fleet by a proved bound.",
    )
    outputs.add_outputs(
        parser, json="what every row came to", csv="the table of what was trained", plot="the measured losses"
    )
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        type=Path,
        help="write fleet.csv, job.toml and measurement.npz there, for the other commands",
    )


def run(options: argparse.Namespace) -> int:
    """Demonstrate."""
    from coopt.cli.demo import demonstrate, draw, facts, print_demonstration
    from coopt.plans.table import print_allocation
    from coopt.questions.baselines import baselines
    from coopt.questions.solve import solve_allocation
    from coopt.questions.tables import print_comparison

    outputs.check(options)
    if options.save is not None and not options.save.is_dir():
        raise InvalidProblemError(f"--save {options.save}: must be a folder that exists")
    shown = demonstrate()
    if outputs.for_people(options):
        print_demonstration(shown)
    rows = facts(shown)
    outputs.write(
        options, "demonstration", json=lambda: {"rows": rows}, csv=lambda: rows, plot=lambda: draw(shown)
    )
    if options.save is not None:
        _save(shown, options.save)
    if outputs.for_people(options):
        problem = example_problem()
        allocation = solve_allocation(problem)
        print_allocation(allocation)
        print_comparison(allocation, baselines(problem))
    return outputs.FOUND


def _save(shown: Demonstration, folder: Path) -> None:
    """The measured federation as the files that the other commands read."""
    from coopt.problem.files import job_text

    shown.problem.fleet.to_csv(folder / "fleet.csv")
    (folder / "job.toml").write_text(job_text(shown.problem), encoding="utf-8")
    shown.measurement.save(folder / "measurement.npz")
    outputs.note(
        f"written: {folder / 'fleet.csv'}, job.toml and measurement.npz beside it; next: coopt schedule "
        f"{folder / 'fleet.csv'} {folder / 'job.toml'} --measurement {folder / 'measurement.npz'}"
    )
