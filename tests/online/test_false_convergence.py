"""Training does not end because of what one plan or one noisy round makes of the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coopt import Budget, Controller, Fleet, RoundPlan
from coopt.online.round_plan import StopReason
from coopt.policies import Choice, Horizon, Situation
from online import Training


class Hopeless:
    """Expects harm of two rounds for all that is left, as a plan does that takes noise for convergence."""

    name, needs_estimates, measures_curvature = "hopeless", True, True

    def choose(self, situation: Situation) -> Choice:
        devices = len(situation.problem.fleet)
        return Choice(2, np.full(devices, 8), rounds=2, predicted_error=1e9)

    def gap_after(self, situation: Situation, local_steps: int, batch_sizes: np.ndarray) -> float:
        return float("nan")


@pytest.mark.parametrize(
    "budget",
    [Budget(cost=4000.0), Budget(cost=1e6, time=30.0), Budget(cost=1e6, max_rounds=40)],
    ids=["cost", "time", "rounds"],
)
def test_a_plan_that_expects_harm_ends_training_at_the_end_alone(budget: Budget) -> None:
    training = Training(6, seed=0)
    controller = Controller(Fleet(training.samples, 1.0, 1.0), budget, 0.1, policy=Hopeless())

    def spent() -> np.ndarray:
        """Shares of the limits on cost, time and rounds."""
        rounds = controller.round / budget.max_rounds if budget.max_rounds else 0.0
        return np.array([controller.spent_cost / budget.cost, controller.spent_seconds / budget.time, rounds])

    trail = [spent()]
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
        trail.append(spent())
    assert plan.reason is StopReason.GAIN
    # Not more than three rounds like those before are given away.
    assert 1 - 3 * np.diff(trail, axis=0).max() <= trail[-1].max() < 1


def test_a_round_that_looks_converged_by_chance_does_not_end_training() -> None:
    """All losses of one round come near the lowest possible, with a gradient of nearly nothing."""
    training = Training(6, seed=3)
    controller = Controller(
        Fleet(training.samples, 1.0, 1.0), Budget(cost=20_000), 0.1, policy=Horizon(), lowest_loss=0.0
    )
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = training.run(plan)
        if plan.round == 5:
            reports = [
                replace(report, loss=1e-3, halves=report.halves and replace(report.halves, product=0.0))
                for report in reports
            ]
        controller.observe(reports, seconds=seconds)
    assert controller.spent_cost > 0.9 * 20_000
    assert training.gap() < 1e-2 * training.first_gap
