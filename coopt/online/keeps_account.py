"""What every planner that keeps an account tells of it."""

from __future__ import annotations

from coopt.online.accounting import Account
from coopt.problem.budget import Budget


class KeepsAccount:
    """The account of a planner, to be read; planners give `budget` and `_account`."""

    budget: Budget

    @property
    def _account(self) -> Account:
        raise NotImplementedError

    @property
    def round(self) -> int:
        """Rounds observed so far, and so the number of the next one, from 0."""
        return self._account.round

    @property
    def spent_cost(self) -> float:
        """Cost of the rounds observed, and of measuring."""
        return self._account.cost

    @property
    def spent_seconds(self) -> float:
        """Seconds that they took, and that were waited for [s]."""
        return self._account.seconds

    @property
    def time_left(self) -> float:
        """Seconds that are left of the budget; infinite where it limits no time [s]."""
        return self.budget.time - self.spent_seconds
