"""What a user should know before trusting a bound at a plan."""

from __future__ import annotations

from coopt.objectives.bound import AdaCoOpt, Certified, Dynamite, YoungFamily
from coopt.objectives.curvature import STEP_SIZE_SLACK
from coopt.objectives.monotone import Bound
from coopt.objectives.tradeoff import TradeOff
from coopt.problem.problem import Problem


def cautions(bound: Bound, problem: Problem, rounds: int, local_steps: int, floor: float) -> tuple[str, ...]:
    """Sentences for the user; empty when there is nothing to say.

    Parameters
    ----------
    bound : Bound
    problem : Problem
    rounds, local_steps : int
    floor : float
        The error that the bound tends to as rounds grow, with the plan's local steps and batches.
    """
    constants, found = problem.constants, []
    eta, beta, rho = constants.learning_rate, constants.smoothness, constants.quadratic_continuity
    if (
        isinstance(bound, Dynamite)
        and rho is not None
        and rho < (1.0 - STEP_SIZE_SLACK) / (eta * local_steps)
    ):
        found.append(
            f"quadratic_continuity = {rho:.6g} is below 1 / (learning_rate * local_steps) = "
            f"{1.0 / (eta * local_steps):.6g}: at a fixed point of federated averaging no such constant "
            "exists, so the bound may lie below the true error; leave it out to use the smallest possible one"
        )
    young = isinstance(bound, YoungFamily | TradeOff)
    if young and constants.curvature_floor in (None, -beta) and eta * beta * local_steps > 2.0:
        found.append(
            f"learning_rate * smoothness * local_steps = {eta * beta * local_steps:.3g} exceeds 2 without a "
            "curvature_floor: the drift terms grow exponentially and the bound is far above the true error; "
            "give curvature_floor (0 for convex losses)"
        )
    # Other bounds, a user's own among them, may be on another quantity than the loss.
    if isinstance(bound, Certified | Dynamite | AdaCoOpt) and constants.initial_gap < floor:
        found.append(
            f"initial_gap = {constants.initial_gap:.6g} is below the error floor {floor:.6g} of this plan: "
            "the bound cannot certify that training helps"
        )
    return tuple(found)
