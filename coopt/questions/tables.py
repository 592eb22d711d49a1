"""Tables of several plans: the common ways to choose, and many problems."""

from __future__ import annotations

from collections.abc import Sequence

from coopt.plans.allocation import Allocation
from coopt.plans.table import amount, batch_range, new_table
from coopt.questions.baselines import Baseline
from coopt.questions.many import Solutions
from coopt.questions.pareto import Frontier


def print_comparison(best: Allocation, others: Sequence[Baseline]) -> None:
    """Print how other ways to choose compare with a plan.

    Parameters
    ----------
    best : Allocation
    others : sequence of Baseline
    """
    from rich.console import Console

    console = Console(highlight=False)
    table = new_table("What is common, with the rest at its best within the same limits")
    for heading in ("K", "tau", "batch sizes", "bound", "vs plan"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("this plan", *_comparison_cells(best, best), style="bold")
    for other in others:
        if other.allocation is None:
            table.add_row(other.label, "none within the limits")
        else:
            table.add_row(other.label, *_comparison_cells(other.allocation, best))
    console.print(table)
    gap = best.problem.constants.initial_gap
    console.print(
        "\nBounds are proved limits on the error, not measured errors. Before training the error is "
        f"{gap:g}: a larger bound certifies nothing, though training may still help.\n"
    )


def print_solutions(solutions: Solutions) -> None:
    """Print one line for each of several problems.

    Parameters
    ----------
    solutions : Solutions
    """
    from rich.console import Console
    from rich.markup import escape

    table = new_table("Plans")
    value = "bound" if all(plan is None or plan.is_bound for plan in solutions.allocations) else "forecast"
    for heading in ("K", "tau", "batch sizes", value, "cost", "time", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, plan in zip(solutions.names, solutions.allocations, strict=True):
        if plan is None:
            table.add_row(escape(name), "none")
            continue
        table.add_row(escape(name), *_plan_cells(plan), f"{plan.gap:.1g}")
    Console(highlight=False).print(table)


def print_frontier(frontier: Frontier) -> None:
    """Print one line for each value of the limit that varies.

    Parameters
    ----------
    frontier : Frontier
    """
    from rich.console import Console

    plans = [point.allocation for point in frontier.points if point.allocation is not None]
    value = "bound" if all(plan.is_bound for plan in plans) else "forecast"
    unit = " s" if frontier.vary == "time" else ""
    table = new_table(f"Smallest {frontier.objective} as {frontier.vary.replace('_', ' ')} varies")
    for heading in ("K", "tau", "batch sizes", value, "cost", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in frontier.points:
        plan = point.allocation
        cells = ("none",) if plan is None else _plan_cells(plan)
        table.add_row(f"{amount(point.value)}{unit}", *cells)
    Console(highlight=False).print(table)


def _plan_cells(plan: Allocation) -> tuple[str, ...]:
    return (*_choice_cells(plan), amount(plan.cost), f"{amount(plan.time)} s")


def _comparison_cells(allocation: Allocation, best: Allocation) -> tuple[str, ...]:
    ratio = allocation.predicted_error / best.predicted_error if best.predicted_error > 0.0 else float("nan")
    return (*_choice_cells(allocation), f"{ratio:.3g}x")


def _choice_cells(plan: Allocation) -> tuple[str, ...]:
    """What a plan chooses, and its value."""
    return f"{plan.rounds:,}", f"{plan.local_steps:,}", batch_range(plan), f"{plan.predicted_error:.4g}"
