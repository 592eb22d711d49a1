"""A plan as tables that a person can read, in colour where the terminal has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coopt.plans.plan_text import held_up
from coopt.problem import limits
from coopt.problem.fleet_fields import device_name

if TYPE_CHECKING:
    from rich.table import Table

    from coopt.plans.allocation import Allocation

# Above this many devices a table of them is longer than a screen, and a summary says more.
MOST_ROWS = 20


def print_allocation(allocation: Allocation) -> None:
    """Print a plan: what to do, how good it is, what it uses, and what each device gets.

    Parameters
    ----------
    allocation : Allocation
    """
    from rich.console import Console

    console = Console(highlight=False)
    tables = [_decision(allocation), _error(allocation), _use(allocation)]
    if len(allocation.problem.fleet) <= MOST_ROWS:
        tables.append(_devices(allocation))
    for table in tables:
        console.print(table)
        console.print()
    console.print(
        f"{allocation.status.advice(proved=allocation.is_bound)}\n",
        style="green" if allocation.gap == 0.0 else "yellow",
    )


def _decision(allocation: Allocation) -> Table:
    fleet = allocation.problem.fleet
    table = new_table(f"Plan for {len(fleet)} device{'' if len(fleet) == 1 else 's'}", header=False)
    table.add_column(justify="right")
    table.add_row("rounds K", f"[bold]{allocation.rounds:,}[/bold]")
    table.add_row("local steps per round tau", f"[bold]{allocation.local_steps:,}[/bold]")
    table.add_row("batch sizes", f"[bold]{batch_range(allocation)}[/bold]")
    if len(fleet) > MOST_ROWS:
        batches = allocation.batch_sizes
        table.add_row("  median", f"{np.median(batches):,.0f}")
        table.add_row("  smallest", _where(allocation, int(batches.argmin())))
        table.add_row("  largest", _where(allocation, int(batches.argmax())))
        table.add_row("  all devices, one step", f"{int(batches.sum()):,}")
    return table


def _error(allocation: Allocation) -> Table:
    table = new_table(f"{allocation.quantity}: {allocation.bound}", header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    parts = allocation.parts
    if parts is not None:
        for label, value in (
            ("transient: what is left of the initial gap", parts.transient),
            ("noise: mini-batches", parts.noise),
            ("drift: devices moving apart", parts.drift),
        ):
            share = value / allocation.predicted_error if allocation.predicted_error > 0.0 else 0.0
            table.add_row(label, f"{value:.4g}", f"{share:.0%}")
    table.add_row("[bold]in all[/bold]", f"[bold]{allocation.predicted_error:.6g}[/bold]", "")
    if np.isfinite(allocation.lower_bound):
        table.add_row("no plan has less than", f"{allocation.lower_bound:.6g}", f"gap {allocation.gap:.2g}")
    return table


def _use(allocation: Allocation) -> Table:
    """What the plan uses of each limit; a limit is marked where it binds."""
    budget = allocation.problem.budget
    table = new_table("Limits")
    for heading in ("used", "limit", "share", ""):
        table.add_column(heading, justify="right")
    slowest = int(_device_times(allocation).argmax())
    waiting = [f"slowest: {_name(allocation, slowest)}", *held_up(allocation)]
    rent = budget.second_cost * allocation.time
    rows: list[tuple[str, float, float | None, str, str]] = [
        ("cost", allocation.cost, budget.cost, "", f"{amount(rent)} of it for the time" if rent else ""),
        ("time", allocation.time, budget.time, " s", "; ".join(waiting)),
        ("energy", allocation.energy, None if budget.energy == np.inf else budget.energy, " J", ""),
        ("rounds", allocation.rounds, budget.max_rounds, "", ""),
        ("local steps", allocation.local_steps, budget.max_local_steps, "", ""),
    ]
    for label, used, limit, unit, remark in rows:
        if limit is None:
            continue
        binds = label.replace("rounds", "max_rounds").replace("local steps", "max_local_steps")
        marks = ["[bold]binds[/bold]"] if binds in allocation.binding else []
        if limit == np.inf:
            table.add_row(label, f"{used:,.6g}{unit}", "none", "", remark)
        else:
            share = f"{used / limit:.1%}" if limit > 0.0 else ""
            note = ", ".join([*marks, remark] if remark else marks)
            table.add_row(label, f"{amount(used)}{unit}", f"{amount(limit)}{unit}", share, note)
    return table


def _devices(allocation: Allocation) -> Table:
    problem = allocation.as_run
    fleet = problem.fleet
    timed = limits.time_caps(problem, allocation.rounds, allocation.local_steps)
    times = _device_times(allocation)
    table = new_table("Devices")
    own_steps = allocation.device_steps is not None
    for heading in (*["local steps"] * own_steps, "batch size", "largest allowed", "largest in time", "busy"):
        table.add_column(heading, justify="right")
    for i, batch in enumerate(allocation.batch_sizes.tolist()):
        in_time = f"{np.floor(timed[i]):,.0f}" if np.isfinite(timed[i]) else "any"
        table.add_row(
            _name(allocation, i),
            *[f"{allocation.steps[i]:,}"] * own_steps,
            f"[bold]{batch:,}[/bold]",
            f"{fleet.max_batch[i]:,}",
            in_time,
            f"{amount(float(times[i]))} s",
        )
    return table


def new_table(title: str, *, header: bool = True) -> Table:
    """An empty table in the style of all of coopt's, with its first column."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if header else box.SIMPLE,
        show_header=header,
        show_edge=False,
        pad_edge=False,
        min_width=len(title),
    )
    table.add_column(no_wrap=True)
    return table


def batch_range(allocation: Allocation) -> str:
    """The batch sizes of a plan, from the smallest to the largest."""
    low, high = int(allocation.batch_sizes.min()), int(allocation.batch_sizes.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _where(allocation: Allocation, device: int) -> str:
    return f"{allocation.batch_sizes[device]:,} ({_name(allocation, device)})"


def _name(allocation: Allocation, device: int) -> str:
    from rich.markup import escape

    return escape(device_name(allocation.problem.fleet.names, device))


def _device_times(allocation: Allocation) -> limits.Floats:
    return limits.device_times(
        allocation.as_run, allocation.rounds, allocation.local_steps, allocation.batch_sizes
    )


def amount(value: float) -> str:
    """Write a number to about six digits with thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.6g}"
