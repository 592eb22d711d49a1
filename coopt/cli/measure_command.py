"""``coopt measure``: recorded client reports become a fleet and a job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from coopt.cli import outputs


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "measure",
        run,
        about="turn recorded client reports into a fleet and a job",
        description=(
            "Estimate a fleet and the constants of its loss from the client reports of a training that has "
            "been run, one report.to_json() a line, and write them as `coopt plan` reads them."
        ),
    )
    parser.add_argument("reports", metavar="REPORTS.jsonl", type=Path, help="one client report a line")
    parser.add_argument("fleet", metavar="FLEET.csv", type=Path, help="file to write, one row a device")
    parser.add_argument("job", metavar="JOB.toml", type=Path, help="file to write, constants and budget")
    parser.add_argument(
        "--learning-rate", metavar="ETA", type=float, required=True, help="what was trained with"
    )
    parser.add_argument("--cost", metavar="R", help='plan for this, or "5 epochs" (default: what was spent)')
    parser.add_argument(
        "--time", metavar="T", help='plan for these seconds, or "1h" (default: what was taken)'
    )
    parser.add_argument(
        "--divergence", type=float, help="gradient divergence, where the reports carry no gradients"
    )
    parser.add_argument("--convex", action="store_true", help="the loss of every device is convex")
    outputs.add_outputs(parser, json="all that was measured", csv="one row a constant, with standard errors")


def run(options: argparse.Namespace) -> int:
    """Measure, and write both files."""
    from coopt.measuring.from_records import from_records, read_reports
    from coopt.problem import units
    from coopt.problem.validation import real

    outputs.check(options, options.fleet, options.job)
    found = from_records(
        read_reports(options.reports),
        learning_rate=options.learning_rate,
        divergence=options.divergence,
        convex=options.convex,
    )
    given: dict[str, Any] = {"cost": options.cost, "time": options.time}
    for name, text in given.items():
        if text is not None:
            value: object = units.number_or_text(text)
            value = units.cost(name, value, found.fleet) if name == "cost" else units.seconds(name, value)
            given[name] = real(name, value, minimum=0.0)
    found.fleet.to_csv(options.fleet)
    outputs.put(options.job, found.job(**given), "job")
    if outputs.for_people(options):
        for line in found.lines():
            print(line)
    outputs.write(options, "measurement", json=found.to_dict, csv=found.to_rows)
    for each in found.ignored:
        outputs.note(str(each))
    outputs.note(
        f"written: {options.fleet} and {options.job}; next: coopt plan {options.fleet} {options.job}"
    )
    return outputs.FOUND
