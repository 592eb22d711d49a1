"""The columns of a table that describe a plan."""

from __future__ import annotations

from typing import Any

from coopt.plans.allocation import Allocation


def plan_columns(plan: Allocation | None) -> dict[str, Any]:
    """The columns of a table that describe a plan; None in each where there is no plan."""
    return {
        "rounds": plan and plan.rounds,
        "local_steps": plan and plan.local_steps,
        "mean_batch": plan and float(plan.batch_sizes.mean()),
        "predicted_error": plan and plan.predicted_error,
        "error_bound": plan.error_bound if plan is not None and plan.is_bound else None,
        "used_cost": plan and plan.cost,
        "used_time": plan and plan.time,
        "used_energy": plan and plan.energy,
        "gap": plan and plan.gap,
    }
