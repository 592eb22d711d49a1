"""Sentences that tell a user what to know before trusting a bound at a plan; None where all is well."""

from __future__ import annotations

from coopt.objectives.curvature import STEP_SIZE_SLACK
from coopt.problem.constants import Constants


def said(*cautions: str | None) -> tuple[str, ...]:
    """The cautions that there are."""
    return tuple(caution for caution in cautions if caution is not None)


def impossible_continuity(constants: Constants, local_steps: int) -> str | None:
    """The published bound with a rho that no loss can have."""
    eta, rho = constants.learning_rate, constants.quadratic_continuity
    if rho is None or rho >= (1.0 - STEP_SIZE_SLACK) / (eta * local_steps):
        return None
    return (
        f"quadratic_continuity = {rho:.6g} is below 1 / (learning_rate * local_steps) = "
        f"{1.0 / (eta * local_steps):.6g}: at a fixed point of federated averaging no such constant "
        "exists, so the bound may lie below the true error; leave it out to use the smallest possible one"
    )


def exploding_drift(constants: Constants, local_steps: int) -> str | None:
    """Too many local steps for a problem without a curvature floor: the drift terms then say nothing."""
    length = constants.learning_rate * constants.smoothness * local_steps
    if constants.curvature_floor not in (None, -constants.smoothness) or length <= 2.0:
        return None
    return (
        f"learning_rate * smoothness * local_steps = {length:.3g} exceeds 2 without a "
        "curvature_floor: the drift terms grow exponentially and the bound is far above the true error; "
        "give curvature_floor (0 for convex losses)"
    )


def floor_above_gap(constants: Constants, floor: float) -> str | None:
    """An error floor that is higher than where training starts."""
    if constants.initial_gap >= floor:
        return None
    return (
        f"initial_gap = {constants.initial_gap:.6g} is below the error floor {floor:.6g} of this plan: "
        "the bound cannot certify that training helps"
    )
