"""Plans in a run are for the steps that devices and server really take: momentum, and rates of the server."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.errors import BoundWarning, InvalidProblemError
from coopt.objectives.forecast.optimiser import (
    AVERAGING,
    ClientAdam,
    ClientSGD,
    Optimiser,
    ServerAdam,
    ServerSGD,
)
from coopt.online.controller import Controller
from coopt.online.round_plan import RoundPlan, Stopped, StopReason
from coopt.policies import Horizon, Scheduled
from coopt.policies.situation import Policy
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet
from coopt.questions.schedule import solve_schedule

DEVICES = 4
HEAVY = Optimiser(server=ServerSGD(momentum=0.9))


class Brief:
    """A planner that ends the training once the first plan by a measurement is made."""

    def __init__(self, planner: Controller) -> None:
        self.planner = planner

    def __getattr__(self, name: str) -> object:
        return getattr(self.planner, name)

    def plan(self, **options: object) -> RoundPlan | Stopped:
        found = self.planner.plan(**options)
        if isinstance(found, RoundPlan) and found.policy == "schedule":
            return Stopped(StopReason.ROUNDS, self.planner.round, 0.0, 0.0)
        return found


def controller(rates: str = "given", policy: Policy | None = None) -> Controller:
    federation = digits(devices=DEVICES)
    fleet = Fleet(federation.samples, gradient_noise=1.0, divergence=1.0)
    # Of phases with free rates the search takes a while: few rounds are enough to tell.
    return Controller(
        fleet,
        Budget(cost=120_000, round_cost=200, max_rounds=60),
        0.1,
        policy=policy or Scheduled(rates=rates),
    )


def planned(planner: Controller, optimiser: Optimiser) -> Controller:
    """The controller where its first plan by a measurement is made."""
    federation, model = digits(devices=DEVICES), Softmax(64, 10)
    simulate(
        Brief(planner),
        model.gradient,
        model.start(),
        federation.clients,
        system=SystemModel(np.full(DEVICES, 200.0)),
        optimiser=optimiser,
        progress=False,
    )
    return planner


@pytest.fixture(scope="module")
def heavy() -> Controller:
    return planned(controller(), HEAVY)


def test_the_plan_is_that_of_the_solver_with_the_same_optimiser(heavy: Controller) -> None:
    measurement, plan = heavy.measurement, heavy.plan()
    call = heavy._state.roster.call(heavy.round, heavy.spent_seconds)
    assert measurement is not None and call is not None
    problem = heavy._situation(call).problem
    for how, same in ((HEAVY, True), (AVERAGING, False)):
        expected = solve_schedule(problem, measurement.forecast(optimiser=how)).phases
        found = (plan.local_steps, plan.batch_sizes.tolist(), plan.rounds_left)
        first = expected[0]
        rounds = sum(phase.rounds for phase in expected)
        assert ((first.local_steps, first.batch_sizes.tolist(), rounds) == found) is same


@pytest.mark.parametrize("how", [HEAVY, Optimiser(ClientSGD(momentum=0.9))], ids=["server", "devices"])
def test_momentum_asks_for_smaller_rates(how: Optimiser) -> None:
    """It takes a rate up to ten times as far: on the server from round to round, on devices within one."""
    rates = [planned(controller("free"), each).plan().learning_rate for each in (AVERAGING, how)]
    assert rates[1] < 0.5 * rates[0]


def test_a_state_keeps_the_optimiser_bit_for_bit(heavy: Controller) -> None:
    state = json.loads(json.dumps(heavy.state_dict()))
    fresh = controller()
    fresh.load_state_dict(state)
    assert json.dumps(fresh.state_dict()) == json.dumps(heavy.state_dict())
    assert fresh._state.measured.forecast == heavy._state.measured.forecast
    assert fresh._state.measured.forecast.optimiser == HEAVY
    assert repr(fresh.plan().to_dict()) == repr(heavy.plan().to_dict())
    before = json.dumps(fresh.state_dict())
    for wrong in (3, {"client": {"kind": "sgd"}}, {"client": {"kind": "sgd"}, "server": {"kind": "adam"}}):
        with pytest.raises(InvalidProblemError, match="optimiser"):
            fresh.load_state_dict(state | {"measured": state["measured"] | {"optimiser": wrong}})
        assert json.dumps(fresh.state_dict()) == before


def test_what_no_forecast_knows_is_refused_and_not_charged(heavy: Controller) -> None:
    fresh, measurement = controller(), heavy.measurement
    for wrong, message in (
        (Optimiser(server=ServerAdam()), "a forecast knows ServerSGD only"),
        (Optimiser(ClientAdam()), "the measurement is not for Adam"),
        ("sgd", "optimiser = 'sgd'"),
    ):
        with pytest.raises(InvalidProblemError, match=message):
            fresh.measured(measurement, seconds=1.0, optimiser=wrong)
    assert fresh.spent_cost == fresh.spent_seconds == 0.0 and fresh.measurement is None
    assert [Optimiser(server=s).forecastable for s in (ServerSGD(), ServerAdam())] == [True, False]


def test_rules_that_plan_by_bounds_say_that_they_know_plain_steps_only() -> None:
    with pytest.warns(BoundWarning, match=r"policy 'horizon' plans for plain federated averaging"):
        planned(controller(policy=Horizon()), HEAVY)
    # Nothing is planned here, and nothing is said.
    fleet = Fleet(digits(devices=DEVICES).samples, gradient_noise=1.0, divergence=1.0)
    planned(FixedPlan(fleet, 2, 2, 4, 0.1), HEAVY)
