"""What a run returns: Flower's result, and the history of rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.serverapp.strategy import Result

from coopt.online.planner import Planner
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.problem.readable import readable
from coopt.problem.result_table import ResultTable

if TYPE_CHECKING:
    from coopt.plans.described_figure import DescribedFigure


@readable
@dataclass(frozen=True)
class FlowerRound:
    """One round.

    Attributes
    ----------
    round : int
        Round, from 0.
    local_steps : int
        tau.
    batch_sizes : tuple of int
        s_i as planned, of every device of the fleet.
    learning_rate : float
        eta.
    sent : int
        Devices that were given work.
    arrived : int
        Devices whose models arrived in time and could be used.
    reports : int
        Devices whose reports arrived in time and could be read.
    late : int
        Reports about earlier rounds that arrived during this one.
    train_loss : float
        Mean of the reported losses at the model sent, by the devices' weights; NaN without reports.
    cost, seconds : float
        Spent since the start of training, this round included.
    interrupted : bool
        Whether the server died in the middle: the work is charged, and lost.
    policy : str
        The rule that planned it: "warm-up", "schedule" after a measurement, "horizon" without one.
    """

    round: int
    local_steps: int
    batch_sizes: tuple[int, ...]
    learning_rate: float
    sent: int
    arrived: int
    reports: int
    late: int
    train_loss: float
    cost: float
    seconds: float
    interrupted: bool = False
    policy: str = ""


@dataclass(repr=False)
class CoOptResult(Result, ResultTable):
    """Flower's result, with every round's plan and accounts.

    Attributes
    ----------
    rounds : list of FlowerRound
        The history, from the first round on, through restarts of the server.
    stopped : Stopped or None
        Why training ended; None if `num_rounds` ended it.
    """

    rounds: list[FlowerRound] = field(default_factory=list)
    stopped: Stopped | None = None

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a round, without the batch sizes of single devices."""
        names = [each.name for each in fields(FlowerRound) if each.name != "batch_sizes"]
        return [
            {name: getattr(record, name) for name in names}
            | {"mean_batch": sum(record.batch_sizes) / len(record.batch_sizes)}
            for record in self.rounds
        ]

    def plot(self) -> DescribedFigure:
        """Draw the loss, and what was planned and spent, round by round; needs the extra ``plot``."""
        from coopt.plans.plot_run import plot_rounds

        rows = self.to_rows()
        names = ("train_loss", "local_steps", "learning_rate", "cost", "seconds")
        columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}
        unknown = np.full(len(rows), math.nan)
        batches = np.array([record.batch_sizes for record in self.rounds])
        return plot_rounds({**columns, "test_loss": unknown, "metric": unknown}, batches)


def one_line(plan: RoundPlan, planner: Planner) -> str:
    """What a round is about to do, and what was spent so far, for the log."""
    sizes, rule = plan.batch_sizes, plan.policy or type(planner).__name__
    return (
        f"round {plan.round}, planned by {rule}: {plan.local_steps} local steps, "
        f"batches of {sizes.min()} to {sizes.max()} ({sizes.sum()} in all), deadline {plan.deadline:.3g} s; "
        f"spent {planner.spent_cost:.6g} of {planner.budget.cost:.6g} "
        f"and {planner.spent_seconds:.3g} of {planner.budget.time:.3g} s"
    )
