"""``coopt schedule``: a plan in phases, by the forecast of a measurement."""

from __future__ import annotations

import argparse
from pathlib import Path

from coopt.cli import inputs, outputs


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "schedule",
        run,
        about="plan in phases, such as small batches early and large ones late",
        description=(
            "Find a plan in phases, each with its own rounds, local steps, batch sizes and learning rate, "
            "with the smallest error that is forecast from a measurement."
        ),
    )
    inputs.add_fleet(parser)
    inputs.add_job(parser)
    parser.add_argument(
        "--measurement", metavar="FILE.npz", type=Path, required=True, help="a saved measurement of the fleet"
    )
    parser.add_argument(
        "--phases", metavar="N", type=int, default=2, help="phases at most (default: %(default)s)"
    )
    inputs.add_rate(parser)
    inputs.add_limits(parser)
    inputs.add_time_limit(parser)
    outputs.add_outputs(
        parser,
        json="the schedule",
        csv="one row for each phase and device",
        plot="rates, local steps, batches and the forecast",
    )


def run(options: argparse.Namespace) -> int:
    """Find the schedule."""
    from coopt.questions.schedule import solve_schedule

    outputs.check(options)
    fleet = inputs.read_fleet(options.fleet)
    problem = inputs.read(options.job, fleet, options)
    measurement = inputs.read_measurement(options, fleet)
    schedule = solve_schedule(
        problem,
        measurement,
        phases=options.phases,
        learning_rate=options.learning_rate,
        time_limit=options.time_limit,
    )
    if outputs.for_people(options):
        print(schedule)
    outputs.write(
        options,
        "schedule",
        json=schedule.to_dict,
        csv=schedule.to_rows,
        plot=lambda: schedule.plot(measurement),
    )
    return outputs.FOUND
