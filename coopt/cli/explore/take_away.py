"""What a user takes away from the page: batches as CSV, the problem as TOML, and lines of Python."""

from __future__ import annotations

import csv
import io
from dataclasses import MISSING, fields, replace
from pathlib import Path

from coopt.cli.explore.what_if import Case, Plan, Setting, kept, phases_of
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.files import problem_to_dict
from coopt.problem.problem import Problem


def plan_csv(case: Case, setting: Setting, plan: Plan) -> str:
    """The plan as CSV: one row a phase and device."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("phase", "rounds", "local_steps", "learning_rate", "device", "batch_size"))
    names = [case.names[place] for place in kept(case, setting)]
    for place, (rounds, steps, batches, rate) in enumerate(phases_of(plan)):
        for name, batch in zip(names, batches, strict=True):
            writer.writerow((place + 1, rounds, steps, rate, name, int(batch)))
    return stream.getvalue()


def problem_toml(problem: Problem) -> str:
    """The problem as one TOML file, which :meth:`coopt.Problem.from_toml` reads."""
    import tomli_w

    return tomli_w.dumps(problem_to_dict(problem))


def python_lines(case: Case, setting: Setting) -> str:
    """Python that gives the same plan from the same files."""
    problem = case.problem
    constants = replace(problem.constants, learning_rate=setting.learning_rate)
    budget = replace(problem.budget, cost=setting.cost, time=setting.time)
    names = ["Budget", "Constants", "Fleet", "Problem"]
    lines = [
        f"fleet = Fleet.from_csv({str(Path(case.fleet_file))!r})",
        f"constants = {_call(constants)}",
        f"budget = {_call(budget)}",
        "problem = Problem(fleet, constants, budget)",
    ]
    if setting.left_out:
        names.append("leave_out")
        lines.append(f"problem = leave_out(problem, {list(setting.left_out)})")
    judge = repr(case.bound)
    if case.forecast is not None:
        names.append("Measurement")
        judge = "forecast"
        lines.append(f"forecast = Measurement.load({str(Path(case.measurement_file))!r}).forecast()")
        if setting.left_out:
            lines.append(f"forecast = forecast.restricted({kept(case, setting)})")
    if setting.phases > 1:
        names.append("solve_schedule")
        lines.append(f"plan = solve_schedule(problem, {judge}, phases={setting.phases})")
    else:
        names.append("solve_allocation")
        lines.append(f"plan = solve_allocation(problem, bound={judge})")
    return "\n".join([f"from coopt import {', '.join(sorted(names))}", "", *lines, "print(plan)", ""])


def _call(part: Constants | Budget) -> str:
    """What makes an equal value, with what differs from the defaults."""
    given = ", ".join(
        f"{field.name}={value!r}"
        for field in fields(part)
        if (value := getattr(part, field.name)) != field.default or field.default is MISSING
    )
    return f"{type(part).__name__}({given})"
