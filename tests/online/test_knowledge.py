"""What a policy is told of the devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coopt import Budget, Controller, Fleet, RoundPlan
from coopt.policies import Horizon
from online import LEARNING_RATE, Training


def test_what_is_given_and_never_measured_reaches_the_policy():
    seen = []

    class Watching(Horizon):
        def choose(self, situation):
            seen.append(situation.problem.fleet)
            return super().choose(situation)

    training = Training(3, 0)
    fleet = Fleet(
        training.samples,
        1.0,
        1.0,
        step_noise=[0.1, 0.2, 0.3],
        micro_batch=8,
        batch_multiple=2,
        min_batch=2,
        max_batch=[10, 20, 30],
    )
    controller = Controller(fleet, Budget(cost=4000.0), LEARNING_RATE, policy=Watching())
    while isinstance(plan := controller.plan(), RoundPlan):
        reports, seconds = training.run(plan)
        controller.observe(reports, seconds=seconds)
    assert len(seen) > 3
    for told in seen:
        given = replace(fleet, gradient_noise=told.gradient_noise, divergence=told.divergence)
        for name in ("step_noise", "micro_batch", "batch_multiple", "min_batch", "max_batch", "weights"):
            np.testing.assert_allclose(getattr(told, name), getattr(given, name))
