"""Policies by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from coopt.errors import InvalidProblemError
from coopt.policies.horizon import Horizon
from coopt.policies.marginal import Marginal
from coopt.policies.scheduled import Scheduled
from coopt.problem.validation import choice, shown

if TYPE_CHECKING:
    from coopt.policies.situation import Policy
    from coopt.problem.budget import Budget


def resolve_policy(policy: str | Policy, budget: Budget, rates: Literal["given", "free"] = "given") -> Policy:
    """Give the policy that a name stands for, or the policy itself.

    Raises
    ------
    InvalidProblemError
        If the name is unknown, or the budget lacks what the policy needs.
    """
    if not isinstance(policy, str) and callable(getattr(policy, "choose", None)):
        return policy
    choice("rates", rates, ("given", "free"))
    if policy == "schedule":
        return Scheduled(rates=rates)
    if policy == "horizon":
        return Horizon()
    if policy == "marginal":
        if budget.max_rounds is None:
            raise InvalidProblemError(
                "policy 'marginal' needs Budget.max_rounds: it fixes the rounds in advance"
            )
        return Marginal(budget.max_rounds)
    raise InvalidProblemError(
        f"policy = {shown(policy)} is unknown: choose 'schedule', 'horizon', 'marginal' or a coopt.policies "
        "object"
    )
