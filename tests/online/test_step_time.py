"""Plans of a running training where a step takes time whatever its batch."""

from __future__ import annotations

import numpy as np
import pytest

from coopt import Budget, Controller, Fleet, RoundPlan
from coopt.adapters.fixed_plan import FixedPlan
from coopt.policies import FedAvg
from online import Training

STEP_TIME, THROUGHPUT = 0.030, 2000.0


def training(seed: int) -> Training:
    """Eight like devices whose step takes as long as 60 samples do, with much noise and little drift."""
    run = Training(8, seed, noise=400.0, spread=0.05, step_time=STEP_TIME)
    run.speed[:], run.samples[:] = THROUGHPUT, 500
    run.weights = run.samples / run.samples.sum()
    run.optimum = run.weights @ run.centre
    return run


def drive(seed: int, **known: float) -> tuple[float, list[RoundPlan], list[float], Controller]:
    """Train for a minute: the gap, the plans, the seconds of the rounds, the controller."""
    run = training(seed)
    controller = Controller(Fleet(run.samples, 1.0, 1.0, **known), Budget(time=60.0), 0.1)
    plans, times = [], []
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = run.run(plan)
        controller.observe(reports, seconds=seconds)
        plans.append(plan)
        times.append(seconds)
    return run.gap(), plans, times, controller


def test_the_controller_learns_what_a_step_takes():
    """It trains as well as one that was told, and does not stay at the batches that it began with."""
    learned, told = [], []
    for seed in range(3):
        gap, plans, times, controller = drive(seed)
        learned.append(gap)
        told.append(drive(seed, step_time=STEP_TIME, throughput=THROUGHPUT)[0])
        alpha, per_sample = controller.estimates.timing.seconds()
        np.testing.assert_allclose(alpha, STEP_TIME, rtol=0.05)
        np.testing.assert_allclose(1 / per_sample, THROUGHPUT, rtol=0.05)
        assert max(plan.batch_sizes.max() for plan in plans) > 300
        # From the first round that the times tell apart, plans take as long as they say.
        off = [
            abs(plan.predicted_seconds / seconds - 1)
            for plan, seconds in zip(plans[5:], times[5:], strict=True)
        ]
        assert np.median(off) < 0.01 and max(off) < 0.1
        assert sum(times) <= 60.0 * (1 + 1e-6)
    assert np.mean(learned) <= 1.1 * np.mean(told)


def test_batches_are_varied_only_by_a_policy_that_may_and_while_times_are_unclear():
    run = training(0)
    fixed = Controller(Fleet(run.samples, 1.0, 1.0), Budget(time=60.0), 0.1, policy=FedAvg(4, 8))
    seen = set()
    for _ in range(8):
        plan = fixed.plan()
        seen |= set(plan.batch_sizes.tolist())
        reports, seconds = run.run(plan)
        fixed.observe(reports, seconds=seconds)
    assert seen == {8}


@pytest.mark.parametrize("planner", ["controller", "fixed"])
def test_steps_are_charged_and_predicted(planner):
    run = training(1)
    fleet = Fleet(
        run.samples, 1.0, 1.0, sample_cost=0.5, step_cost=2.0, step_time=STEP_TIME, throughput=THROUGHPUT
    )
    if planner == "fixed":
        made = FixedPlan(fleet, 1, 4, 8, 0.1)
    else:
        made = Controller(fleet, Budget(cost=10_000.0), 0.1, policy=FedAvg(4, 8), probe_every=0)
    plan = made.plan()
    assert plan.predicted_cost == pytest.approx(8 * 4 * (0.5 * 8 + 2.0))
    assert plan.predicted_seconds == pytest.approx(4 * (STEP_TIME + 8 / THROUGHPUT))
    reports, seconds = run.run(plan)
    made.observe(reports, seconds=seconds)
    assert made.spent_cost == pytest.approx(plan.predicted_cost)
