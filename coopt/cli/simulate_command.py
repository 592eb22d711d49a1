"""``coopt simulate``: train a plan on embedded data, round by round."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coopt.cli import inputs, outputs
from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    from coopt.adapters.fixed_plan import FixedPlan
    from coopt.adapters.simulated import SimulatedRun
    from coopt.online.planner import Planner
    from coopt.problem.fleet import Fleet

DEVICES, RATE = 24, 0.5
# Every round the same: what stands in many a tutorial.
SAME = {"rounds": 50, "local_steps": 10, "batch_size": 16}
SHOWN_ROUNDS = 10
# Larger losses are not written out.
MOST_LOSS = 1e4


def add(commands: outputs.Subparsers) -> None:
    """Add the command."""
    parser = outputs.new_command(
        commands,
        "simulate",
        run,
        about="train a plan on embedded data, round by round",
        description=(
            "Spread handwritten digits over devices, train softmax regression on them by federated "
            "averaging, and print the loss. Without a plan every round is the same; with --policy coopt "
            "plans each round from what the clients report."
        ),
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--plan", metavar="PLAN.json", type=Path, help="what plan or schedule wrote; its fleet trains"
    )
    how.add_argument("--policy", choices=("horizon",), help="plan each round anew, within --cost and --time")
    same = parser.add_argument_group("where every round is the same")
    same.add_argument("--rounds", metavar="K", type=int, help=f"default: {SAME['rounds']}")
    same.add_argument("--local-steps", metavar="TAU", type=int, help=f"default: {SAME['local_steps']}")
    same.add_argument(
        "--batch-size",
        metavar="S",
        type=int,
        help=f"default: {SAME['batch_size']}; at most what a device holds",
    )
    limits = parser.add_argument_group("limits of a policy")
    limits.add_argument("--cost", metavar="R", help='samples, or such as "5 epochs"')
    limits.add_argument("--time", metavar="T", help='seconds on the devices\' clock, or such as "1h"')
    parser.add_argument("--learning-rate", metavar="ETA", type=float, help=f"default: the plan's, or {RATE}")
    parser.add_argument(
        "--num-devices", metavar="N", type=int, help=f"devices (default: the plan's, or {DEVICES})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data and mini-batches (default: %(default)s)")
    outputs.add_outputs(
        parser,
        json="losses, costs, seconds and the result",
        csv="one row a round",
        plot="the loss over cost and time",
    )


def run(options: argparse.Namespace) -> int:
    """Train."""
    import numpy as np

    from coopt.adapters.simulated import Softmax, digits, simulate
    from coopt.adapters.system import SystemModel

    outputs.check(options)
    _refuse_unused(options)
    planned = None if options.plan is None else _read(options.plan)
    devices = options.num_devices
    if devices is None:
        devices = DEVICES if planned is None else len(planned.fleet)
    if planned is not None and devices != len(planned.fleet):
        raise InvalidProblemError(f"--num-devices {devices}: the plan is for {len(planned.fleet)} devices")
    federation, model = digits(devices, seed=options.seed), Softmax(64, 10)
    fleet = _fleet(federation.samples.tolist()) if planned is None else planned.fleet
    planner = _planner(options, fleet) if planned is None else planned
    # Where training diverges, one remark at the end says so.
    with np.errstate(over="ignore", invalid="ignore"):
        run = simulate(
            planner,
            model.gradient,
            model.start(),
            federation.clients,
            system=SystemModel(fleet.throughput, fleet.round_time, step_time=fleet.step_time),
            seed=options.seed,
        )
    if not run.losses[-1] <= run.losses[0]:
        outputs.note("coopt: warning: the loss ended above where it began: lower --learning-rate")
    accuracy = model.accuracy(run.parameters, federation.test)
    if outputs.for_people(options):
        _print(run, accuracy)
    outputs.write(
        options,
        "run",
        json=lambda: {"stopped": run.stopped.name, "accuracy": accuracy, "rounds": run.to_rows()},
        csv=run.to_rows,
        plot=run.plot,
    )
    return outputs.FOUND


def _refuse_unused(options: argparse.Namespace) -> None:
    """Refuse an option that would change nothing."""
    limits = ("cost", "time")
    unused = {
        "--plan": (*SAME, *limits, "learning_rate") if options.plan is not None else (),
        "--policy": tuple(SAME) if options.policy is not None else (),
        "no --policy": limits if options.policy is None else (),
    }
    for reason, names in unused.items():
        for name in names:
            if getattr(options, name) is not None:
                raise InvalidProblemError(f"--{name.replace('_', '-')} has no effect with {reason}")


def _read(path: Path) -> FixedPlan:
    """A plan or a schedule from its file."""
    from coopt.adapters.fixed_plan import FixedPlan
    from coopt.plans.allocation import Allocation
    from coopt.plans.schedule import Schedule
    from coopt.problem.files import read_text
    from coopt.problem.json_text import json_object

    text = read_text(path)
    if "phases" in json_object(text, f"{path}: not a plan"):
        return FixedPlan.from_schedule(Schedule.from_json(text))
    return FixedPlan.from_allocation(Allocation.from_json(text))


def _fleet(samples: list[int]) -> Fleet:
    """Devices as fast as those of the example, over and over; noise and divergence play no part here."""
    from coopt.cli.example import example_problem
    from coopt.problem.fleet import Fleet

    example = example_problem().fleet
    places = [i % len(example) for i in range(len(samples))]
    return Fleet(
        samples,
        gradient_noise=1.0,
        divergence=1.0,
        throughput=example.throughput[places],
        round_time=example.round_time[places],
    )


def _planner(options: argparse.Namespace, fleet: Fleet) -> Planner:
    import numpy as np

    from coopt.adapters.fixed_plan import FixedPlan
    from coopt.online.controller import Controller
    from coopt.problem.budget import Budget

    rate = RATE if options.learning_rate is None else options.learning_rate
    if options.policy is None:
        chosen = {name: getattr(options, name) for name in SAME}
        same = SAME | {name: value for name, value in chosen.items() if value is not None}
        batches = np.minimum(same.pop("batch_size"), fleet.samples)
        return FixedPlan(fleet, **same, batch_sizes=batches, learning_rate=rate)
    given = inputs.limits_given(options, fleet)
    if not given:
        raise InvalidProblemError(f"--policy {options.policy} needs a limit: --cost or --time")
    return Controller(fleet, Budget(**given), rate, policy=options.policy)


def _print(run: SimulatedRun, accuracy: float) -> None:
    """The loss at some of the rounds, and how it ended."""
    import numpy as np
    from rich.console import Console

    from coopt.plans.table import amount, new_table

    console = Console(highlight=False)
    table = new_table("Training")
    for heading in ("loss", "cost", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = len(run.losses) - 1
    for place in np.unique(np.linspace(0, last, SHOWN_ROUNDS).round().astype(int)).tolist():
        table.add_row(
            f"after round {place:,}",
            _loss(float(run.losses[place])),
            amount(float(run.costs[place])),
            f"{amount(float(run.seconds[place]))} s",
        )
    console.print(table)
    # What follows the colon names arguments of Python.
    why = run.stopped.value.partition(":")[0]
    console.print(f"\n{accuracy:.1%} of the test images right; {why}\n")


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < MOST_LOSS else f"{value:.3g}"
