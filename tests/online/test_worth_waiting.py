"""Nobody waits for a device whose share of the data is worth less than the time that it takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Constants, Controller, Fleet, Problem, RoundPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.measuring.estimates.estimate_published import PublishedEstimates
from coopt.online.round_plan import Stopped
from coopt.online.worth_waiting import MOST_LEFT_OUT, MUCH_SLOWER, worth_waiting
from coopt.policies import Choice, Horizon, Policy, Situation
from coopt.problem.some_devices import some_devices

DEVICES, SLOW, FAST = 20, 0.5, 20.0  # samples a second
TIME = 100.0
FEDERATION, MODEL = digits(DEVICES), Softmax(64, 10)
LOUD = np.where(np.arange(DEVICES) == 0, 0.2, 0.8 / (DEVICES - 1))  # the slow one has a fifth of the weight


class Watched(Controller):
    """Keeps the plans of its rounds."""

    def plan(self, **options: Any) -> RoundPlan | Stopped:
        found = super().plan(**options)
        if isinstance(found, RoundPlan):
            self._plans = {**getattr(self, "_plans", {}), found.round: found}
        return found


def run(policy: Any, weights: Any = None, **system: Any) -> tuple[Watched, float]:
    """Train with one device that takes four seconds for two samples; the controller, and the loss."""
    speeds = np.full(DEVICES, FAST)
    speeds[0] = SLOW
    fleet = Fleet(FEDERATION.samples, 1.0, 1.0, weights=weights)
    controller = Watched(fleet, Budget(time=TIME), 0.1, policy=policy)
    ended = simulate(
        controller,
        MODEL.gradient,
        MODEL.start(),
        FEDERATION.clients,
        system=SystemModel(speeds, 0.5, **system),
        weights=weights,
        progress=False,
    )
    return controller, float(ended.losses[-1])


@pytest.mark.parametrize("policy", ["horizon", "schedule"])
def test_what_is_heard_of_a_very_slow_device_keeps_it_out(policy: str) -> None:
    """Its late answer brought it back, and all others waited for it from then on."""
    controller, loss = run(policy)
    never, otherwise = run(policy, dropout=np.where(np.arange(DEVICES) == 0, 1.0, 0.0))
    known = controller._state.knowledge.measured()
    assert 1 / known.throughput[0] + known.step_time[0] == pytest.approx(1 / SLOW, rel=0.05)
    assert controller.round > 0.8 * never.round > 50
    assert loss < 1.05 * otherwise
    # But the last round, whose time nobody else needs.
    plans = controller._plans.values()
    later = [plan for plan in plans if controller.round // 4 < plan.round < controller.round - 1]
    # It is given work when it is free, and would count if it came in time.
    assert all(0 not in plan.expected and 0 in plan.participants for plan in later)


def test_a_device_with_much_of_the_data_is_waited_for() -> None:
    controller, _ = run("horizon", LOUD)
    speeds = controller._state.knowledge.measured().throughput
    assert speeds[0] == pytest.approx(SLOW, rel=0.05)
    assert 0 in controller._plans[max(controller._plans)].expected


def situation(fleet: Fleet, budget: Budget) -> Situation:
    constants = Constants(0.1, 2.0, 1.0, 0.05, curvature_floor=0.0, coupling=0.5)
    return Situation(
        5,
        Problem(fleet, constants, budget),
        budget,
        1.0,
        0.5,
        PublishedEstimates(*[math.nan] * 4),
        0.0,
        0.0,
        None,
    )


def of_some(everybody: Situation, kept: np.ndarray) -> Situation:
    problem = everybody.problem
    return situation(some_devices(problem.fleet, np.flatnonzero(kept), weights=None), problem.budget)


def random_fleet(rng: np.random.Generator, devices: int, spread: float, divergence: float) -> Fleet:
    return Fleet(
        rng.integers(20, 200, devices),
        rng.uniform(0.5, 5.0),
        divergence,
        throughput=np.exp(spread * rng.normal(size=devices)),
        round_time=rng.uniform(0.0, 2.0, devices),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(1, 40), spread=st.floats(0.0, 3.0))
def test_whoever_is_left_out_is_among_the_slowest_has_little_data_and_is_not_missed(
    seed: int, devices: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    fleet = random_fleet(rng, devices, spread, rng.uniform(0.0, 1.0))
    everybody = situation(fleet, Budget(time=float(rng.uniform(100.0, 2000.0))))
    expects = Horizon().expects
    kept, known = worth_waiting(everybody, lambda some: of_some(everybody, some), Horizon())
    assert len(known.problem.fleet) == kept.sum()
    least = 1 / fleet.throughput + fleet.round_time
    assert float(fleet.weights[kept].sum()) >= 1 - MOST_LEFT_OUT - 1e-12
    if kept.all():
        return
    assert least[kept].max() < least[~kept].min()
    assert least[~kept].min() > MUCH_SLOWER * np.median(least)
    weight = float(fleet.weights[kept].sum())
    # The data that nobody trains on count as an error of the gradient.
    away = (1 - weight) / weight * fleet.root_divergence
    assert expects(replace(of_some(everybody, kept), gradient_error=away)) < expects(everybody)


def test_where_time_is_no_limit_everybody_is_waited_for() -> None:
    fleet = Fleet([100] * 20, 1.0, 0.1, throughput=[0.01] + [10.0] * 19)

    def never(_: object) -> Any:
        raise AssertionError("nothing is to be compared")

    assert worth_waiting(situation(fleet, Budget(cost=1e5)), never, Horizon())[0].all()


class Thorough(Horizon):
    """Finds out everything to the end."""

    def expects(self, situation: Situation, enough: float = -math.inf) -> float:
        return super().expects(situation)

    def expects_at_least(self, situation: Situation) -> float:
        return 0.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), devices=st.integers(3, 40), spread=st.floats(0.5, 4.0))
def test_what_is_found_out_only_in_part_leads_to_the_same_devices(
    seed: int, devices: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    fleet = random_fleet(rng, devices, spread, 10.0 ** rng.uniform(-4.0, 0.0))
    everybody = situation(fleet, Budget(time=10.0 ** rng.uniform(1.5, 4.0)))
    rounds = int(rng.integers(1, 200))
    everybody = replace(everybody, previous=Choice(2, fleet.batch_range()[0], rounds, rest_local_steps=2))

    def only(some: np.ndarray) -> Situation:
        return replace(of_some(everybody, some), previous=everybody.previous)

    kept, _ = worth_waiting(everybody, only, Horizon())
    expected, _ = worth_waiting(everybody, only, Thorough())
    assert kept.tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), error=st.floats(0.0, 3.0))
def test_no_less_is_expected_than_what_an_error_of_the_gradient_leaves(seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    fleet = Fleet(rng.integers(20, 200, 5), rng.uniform(0.0, 5.0), rng.uniform(0.0, 1.0), throughput=10.0)
    known = replace(
        situation(fleet, Budget(time=10.0 ** rng.uniform(1.5, 5.0))),
        gradient_error=error,
        participation_noise=rng.uniform(0.0, 1.0),
    )
    assert Horizon().expects_at_least(known) <= Horizon().expects(known)


def test_a_rule_of_ones_own_need_not_expect_anything() -> None:
    """Whoever plans without saying what it expects waits for all that answer."""

    class Same:
        name, needs_estimates, measures_curvature = "same", True, True

        def choose(self, situation: Situation) -> Any:
            return replace(Horizon().choose(situation))

        def gap_after(self, situation: Situation, local_steps: int, batch_sizes: Any) -> float:
            return Horizon().gap_after(situation, local_steps, batch_sizes)

    assert isinstance(Same(), Policy)
    controller, _ = run(Same())
    assert 0 in controller._plans[max(controller._plans)].expected
