"""Fleets of which some devices are drawn for each round, and that are measured within the run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.online.controller import Controller
from coopt.online.round_plan import RoundPlan, Stopped
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet

DEVICES = 6
BUDGET = Budget(cost=40_000, time=40, round_cost=60, participants=3)
SPEEDS = np.array([60.0, 100.0, 150.0, 200.0, 300.0, 400.0])


class Rounds:
    """A planner that notes its plans, and goes on in a new controller every so many rounds."""

    def __init__(self, controller: Controller, again: bool = False) -> None:
        self.controller, self.again = controller, again
        self.plans: list[RoundPlan] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.controller, name)

    def plan(self, **options: object) -> RoundPlan | Stopped:
        if self.again and len(self.plans) % 10 == 5:
            state = json.loads(json.dumps(self.controller.state_dict()))
            self.controller = made(self.controller.policy, self.controller.budget)
            self.controller.load_state_dict(state)
        found = self.controller.plan(**options)
        if isinstance(found, RoundPlan):
            self.plans.append(found)
        return found


def made(policy: object = "schedule", budget: Budget = BUDGET) -> Controller:
    equal = np.full(DEVICES, 1.0 / DEVICES)
    fleet = Fleet(digits(devices=DEVICES).samples, gradient_noise=1.0, divergence=1.0, weights=equal)
    return Controller(fleet, budget, 0.3, policy=policy)


def train(controller: Controller, **options: object) -> tuple[Rounds, float]:
    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    rounds = Rounds(controller, **options)
    system = SystemModel(SPEEDS, 0.1, compute_jitter=0.2, link_jitter=0.2)
    run = simulate(rounds, model.gradient, model.start(), federation.clients, system=system, progress=False)
    return rounds, float(run.losses[-1])


@pytest.mark.parametrize("distinct", [False, True])
def test_a_fleet_of_which_some_are_drawn_is_measured_and_planned_for(distinct: bool) -> None:
    budget = dataclasses.replace(BUDGET, distinct_participants=distinct)
    rounds, loss = train(made(budget=budget))
    rules = [plan.policy for plan in rounds.plans]
    assert rules[:3] == ["warm-up"] * 3 and set(rules[3:]) == {"schedule"}
    assert rounds.measurement is not None and rounds.measurement.directions <= 16
    assert {int(plan.draws.sum()) for plan in rounds.plans if plan.draws is not None} == {3}
    assert rounds.spent_cost <= budget.cost and rounds.spent_seconds <= budget.time * 1.02
    # Rounds without the slowest devices are reckoned with: time is not left over.
    assert max(rounds.spent_cost / budget.cost, rounds.spent_seconds / budget.time) > 0.9
    _, other = train(made("horizon", budget))
    assert loss < other


def test_such_a_run_goes_on_bit_for_bit() -> None:
    short = dataclasses.replace(BUDGET, cost=20_000, time=20)
    whole, loss = train(made(budget=short))
    assert "schedule" in {plan.policy for plan in whole.plans}
    again, same = train(made(budget=short), again=True)
    assert same == loss
    assert repr([p.to_dict() for p in again.plans]) == repr([p.to_dict() for p in whole.plans])
