"""Planning in phases on the way: batches are filled again, plans are kept, and what fails is noticed."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest

from coopt.measuring.estimates.estimate_published import PublishedEstimates
from coopt.measuring.estimates.trend import Estimate
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.model import LocalModel
from coopt.plans.phase import Phase
from coopt.policies import Horizon, MeasuringPolicy, Scheduled, Situation
from coopt.policies.expected_delay import Draws, expected_delay
from coopt.policies.schedule_progress import ScheduleProgress
from coopt.policies.scheduled import LITTLE
from coopt.policies.situation import Choice
from coopt.problem.budget import Budget
from coopt.problem.constants import Constants
from coopt.problem.fleet import Fleet
from coopt.problem.problem import Problem
from coopt.questions.schedule import solve_schedule

N = 4
MODEL = LocalModel(
    weights=np.full(N, 0.25),
    gradients=[[1.0, 0.9], [1.0, -0.3], [1.4, 0.3], [0.6, 0.3]],
    curvatures=[np.diag([1.0, c]) for c in (0.4, 0.05, 0.1, 0.15)],
    covariances=np.tile(4.0 * np.eye(2), (N, 1, 1)),
    samples=np.full(N, 500),
)


def situation(**changes: object) -> Situation:
    fleet = Fleet([500] * N, 8.0, 0.2, throughput=[50.0, 100.0, 100.0, 200.0], round_time=0.2)
    problem = Problem(fleet, Constants(0.2, 1.0, 0.5, 0.1), Budget(cost=40_000, time=100, round_cost=5))
    values = {
        "round": 4,
        "problem": problem,
        "total": problem.budget,
        "loss": 1.0,
        "squared_gradient": 0.5,
        "published": PublishedEstimates(*[math.nan] * 4),
        "gradient_error": 0.0,
        "participation_noise": 0.0,
        "previous": None,
        "devices": np.arange(N),
        "forecast": Forecast(MODEL),
        "measured_at": 4,
        "measured_loss": Estimate(1.0, 0.01),
        "loss_error": 0.01,
        "spread": 0.2,
    }
    return Situation(**{**values, **changes})


def after(choice: Choice) -> Choice:
    """The choice as it is known after its round."""
    assert choice.progress is not None
    return dataclasses.replace(choice, progress=choice.progress.after_round())


def test_without_a_measurement_another_rule_plans_and_is_named() -> None:
    bare = situation(forecast=None, measured_at=-1)
    chosen, expected = Scheduled().choose(bare), Horizon().choose(bare)
    assert chosen.policy == "horizon"
    np.testing.assert_array_equal(chosen.batch_sizes, expected.batch_sizes)
    assert Scheduled().gap_after(bare, 2, chosen.batch_sizes) > 0
    assert isinstance(Scheduled(), MeasuringPolicy) and not isinstance(Horizon(), MeasuringPolicy)


def test_a_rate_that_is_unstable_leaves_the_plan_to_the_other_rule() -> None:
    plain = situation()
    steep = dataclasses.replace(plain.problem.constants, learning_rate=2.5)
    chosen = Scheduled().choose(situation(problem=dataclasses.replace(plain.problem, constants=steep)))
    assert chosen.policy == "horizon"


def test_a_plan_is_kept_filled_again_and_ends_with_the_limits() -> None:
    policy, now = Scheduled(), situation()
    left = now.problem.budget
    choice = policy.choose(now)
    first = choice.progress
    assert first is not None
    settings = [phase.setting for phase in first.ahead]
    assert all(setting.learning_rate == 0.2 for setting in settings)
    assert choice.predicted_error < choice.gap
    rounds, filled = 0, 0
    while choice.rounds > 0 and rounds < 2000:
        cost = choice.local_steps * float(choice.batch_sizes.sum()) + 5
        seconds = choice.local_steps * choice.batch_sizes / now.problem.fleet.throughput + 0.2
        left = dataclasses.replace(left, cost=left.cost - cost, time=left.time - float(seconds.max()))
        assert left.cost >= -1e-6 and left.time >= -1e-6
        rounds += 1
        previous = after(choice)
        filled += previous.progress.refill_in == 0
        now = situation(
            round=4 + rounds, previous=previous, problem=dataclasses.replace(now.problem, budget=left)
        )
        choice = policy.choose(now)
    assert rounds >= sum(setting.rounds for setting in settings)
    assert rounds >= 10 and filled >= 4
    # One of the limits is nearly used up: this clock has no jitter, so that the expected delay is spare.
    assert min(left.cost / 40_000, left.time / 100) < 0.02


@pytest.mark.parametrize(("slower", "at_once"), [(1.1, False), (100.0, True)])
def test_batches_are_filled_again_at_once_where_a_device_turns_out_to_be_slow(
    slower: float, at_once: bool
) -> None:
    """A round with the batches of before would outlast what is left: 500 s of 536 were lost like that."""
    choice = Scheduled().choose(situation())
    previous = after(choice)
    assert previous.progress is not None and previous.progress.refill_in > 0
    plain = situation().problem
    throughput = plain.fleet.throughput / np.where(np.arange(N) == 0, slower, 1.0)
    fleet = dataclasses.replace(plain.fleet, throughput=throughput)
    now = situation(round=5, previous=previous, problem=dataclasses.replace(plain, fleet=fleet))
    found = Scheduled().choose(now)
    kept = np.array_equal(found.batch_sizes, previous.progress.ahead[0].batch_sizes)
    assert kept is not at_once
    seconds = found.rounds * choice.local_steps * found.batch_sizes / throughput
    assert seconds.max() <= plain.budget.time


def test_a_new_rate_or_a_new_measurement_makes_a_new_plan() -> None:
    choice = Scheduled().choose(situation())
    kept = Scheduled().choose(situation(round=5, previous=after(choice)))
    assert kept.progress.ahead == after(choice).progress.ahead
    constants = dataclasses.replace(situation().problem.constants, learning_rate=0.1)
    slower = dataclasses.replace(situation().problem, constants=constants)
    other = Scheduled().choose(situation(round=5, previous=after(choice), problem=slower))
    assert other.learning_rate == 0.1 and not other.progress.behind
    again = Scheduled().choose(situation(round=5, previous=after(choice), measured_at=5))
    assert again.progress.measured_at == 5 and not again.progress.behind


def test_free_rates_differ_from_the_one_given() -> None:
    chosen = Scheduled(rates="free").choose(situation())
    rates = {phase.learning_rate for phase in chosen.progress.ahead}
    assert rates != {0.2} and max(rates) < 2.0


@pytest.mark.parametrize(
    ("loss", "error", "gone"),
    [(0.55, 0.01, False), (0.98, 0.01, True), (0.98, 0.4, False), (3.0, 0.05, True), (math.nan, 0.01, False)],
    ids=["as forecast", "hardly fell", "hardly fell, within noise", "rose", "unknown"],
)
def test_a_plan_fails_where_noise_does_not_explain_the_loss(loss: float, error: float, gone: bool) -> None:
    behind = (Phase(40, 2, np.full(N, 8), 0.2),)
    ahead = (Phase(20, 2, np.full(N, 8), 0.2),)
    previous = Choice(2, np.full(N, 8), progress=ScheduleProgress(4, ahead, behind, 0))
    known = situation(loss=loss, loss_error=error, previous=previous)
    assert Scheduled().departed(known) == float(gone)
    busy = dataclasses.replace(previous, progress=ScheduleProgress(4, ahead, behind, 3))
    assert not Scheduled().departed(situation(loss=3.0, previous=busy))


def test_a_loss_below_the_lowest_that_was_measured_is_worth_a_little_measuring() -> None:
    """As where margins grow: a forecast that sees nothing left to gain asks for large batches for ever."""
    lowest = 1.0 - Forecast(MODEL).initial_gap
    behind, ahead = ((Phase(rounds, 2, np.full(N, 8), 0.2),) for rounds in (40, 20))
    previous = Choice(2, np.full(N, 8), progress=ScheduleProgress(4, ahead, behind, 0))
    for below, error, share in ((0.1, 0.01, LITTLE), (0.1, 0.1, 0.0), (-0.1, 0.01, 0.0)):
        known = situation(loss=lowest - below, loss_error=error, previous=previous)
        assert Scheduled().departed(known) == share


def test_what_the_last_round_did_is_not_judged_yet() -> None:
    """Devices tell the loss of the model that they are sent: of one long round nothing is known after it."""
    ahead = (Phase(4, 200, np.full(N, 2), 0.2),)
    for rounds, gone in ((1, False), (2, True)):
        behind = (Phase(rounds, 200, np.full(N, 2), 0.2),)
        previous = Choice(200, np.full(N, 2), progress=ScheduleProgress(4, ahead, behind, 0))
        unchanged = situation(loss=1.0, loss_error=0.01, previous=previous)
        assert Scheduled().departed(unchanged) == float(gone)


def test_where_few_rounds_are_left_steps_are_not_held_back() -> None:
    """A plan has ten rounds where it may; it keeps its steps where there are fewer at all."""
    plain = situation().problem
    few = dataclasses.replace(plain, budget=Budget(cost=40_000, max_rounds=4))
    chosen = Scheduled().choose(situation(problem=few))
    expected = solve_schedule(few, Forecast(MODEL), phases=2)
    assert chosen.progress is not None
    assert [phase.to_dict() for phase in chosen.progress.ahead] == [p.to_dict() for p in expected.phases]


FLAT = dataclasses.replace(Forecast(MODEL), rate_growth=1.0)  # as of a loss that is not convex


def longest(forecast: Forecast, before: int = 1, **budget: float) -> tuple[int, bool]:
    """Local steps of the longest round of a plan, and whether longer ones would pay."""
    problem = dataclasses.replace(situation().problem, budget=Budget(cost=40_000, **budget))
    choice = Scheduled().choose(situation(problem=problem, forecast=forecast, measured_steps=before))
    assert choice.progress is not None
    return max(phase.local_steps for phase in choice.progress.ahead), choice.progress.longer_pays


def test_where_the_loss_is_not_convex_rounds_grow_from_one_measurement_to_the_next() -> None:
    convex, _ = longest(Forecast(MODEL), round_cost=2000)
    assert convex > 8
    assert longest(FLAT, 1, round_cost=2000) == (4, True)
    assert longest(FLAT, 2, round_cost=2000)[0] == 8
    assert longest(FLAT, convex, round_cost=2000) == (convex, False)
    # Where rounds cost little longer ones would gain little: nobody measures for that.
    assert longest(FLAT, 1, round_cost=1)[1] is False
    # What the user limits stays limited.
    assert longest(FLAT, 1, round_cost=2000, max_local_steps=4) == (4, False)
    assert longest(FLAT, 1, max_rounds=12) == longest(Forecast(MODEL), 1, max_rounds=12)


@pytest.mark.parametrize("forecast", [FLAT, Forecast(MODEL)], ids=["not convex", "convex"])
@pytest.mark.parametrize("rates", ["free", "given"])
def test_free_rates_fall_at_the_end_where_the_loss_is_not_convex(
    forecast: Forecast, rates: Literal["free", "given"]
) -> None:
    chosen = Scheduled(phases=1, rates=rates).choose(situation(forecast=forecast))
    assert chosen.progress is not None
    ahead = chosen.progress.ahead
    if forecast is FLAT and rates == "free":
        assert [phase.learning_rate / ahead[0].learning_rate for phase in ahead[1:]] == pytest.approx(
            [0.9, 0.7, 0.5, 0.3, 0.1]
        )
        rounds = [phase.rounds for phase in ahead]
        assert sum(rounds[1:]) == round(0.2 * sum(rounds))
    else:
        assert len(ahead) == 1


@pytest.mark.parametrize("pays", [True, False])
def test_where_longer_rounds_would_pay_the_fleet_is_measured_again(pays: bool) -> None:
    phases = ((Phase(rounds, 4, np.full(N, 8), 0.2),) for rounds in (20, 10))
    progress = ScheduleProgress(4, *phases, 0, longer_pays=pays)
    previous = Choice(4, np.full(N, 8), progress=progress)
    known = situation(loss=0.5, previous=previous, forecast=FLAT)
    assert Scheduled().departed(known) == float(pays)
    assert ScheduleProgress.from_state("progress", progress.state_dict()).longer_pays is pays


def test_progress_moves_rounds_from_ahead_to_behind() -> None:
    phases = (Phase(2, 5, [3, 4], 0.1), Phase(1, 1, [9, 9], 0.05))
    now = ScheduleProgress(4, phases, (), 7)
    one = now.after_round()
    assert [p.rounds for p in one.ahead] == [1, 1] and one.refill_in == 6
    two = one.after_round()
    assert [p.local_steps for p in two.ahead] == [1] and two.refill_in == 0
    assert two.behind == (phases[0],)
    three = two.after_round()
    assert three.ahead == () and [p.rounds for p in three.behind] == [2, 1]
    assert ScheduleProgress.from_state("progress", three.state_dict()).behind == three.behind


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_the_expected_delay_is_that_of_simulated_rounds(spread: float) -> None:
    seconds = np.array([5.0, 4.8, 4.5, 4.0, 2.0, 0.3])
    rng = np.random.default_rng(0)
    jitter = np.exp(spread * rng.normal(size=(200_000, 6)))
    simulated = float((seconds * jitter).max(axis=1).mean()) / 5.0
    assert expected_delay(seconds, spread) == pytest.approx(simulated, rel=0.01)
    assert expected_delay(seconds, 0.0) == 1.0


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_with_draws_it_is_that_of_the_devices_drawn(distinct: bool, spread: float) -> None:
    seconds = np.array([5.0, 4.8, 4.5, 4.0, 2.0, 0.3])
    weights = np.array([0.05, 0.15, 0.2, 0.1, 0.2, 0.3])
    rng = np.random.default_rng(0)
    times = seconds * np.exp(spread * rng.normal(size=(100_000, 6)))
    if distinct:
        rounds = np.argsort(rng.random(times.shape), axis=1)[:, :3]
    else:
        rounds = rng.choice(6, size=(len(times), 3), p=weights)
    simulated = float(np.take_along_axis(times, rounds, axis=1).max(axis=1).mean()) / 5.0
    draws = Draws(3, None if distinct else weights)
    # One that is drawn twice is not late twice, as it is taken to be.
    error = 0.01 if distinct or spread == 0.0 else 0.04
    assert expected_delay(seconds, spread, draws) == pytest.approx(simulated, rel=error)


def test_where_devices_are_drawn_the_plan_is_for_that() -> None:
    plain = situation().problem
    problem = dataclasses.replace(plain, budget=Budget(cost=40_000, round_cost=5))
    drawn = dataclasses.replace(problem, budget=dataclasses.replace(problem.budget, participants=2))
    chosen = Scheduled().choose(situation(problem=problem, drawn=drawn))
    expected = solve_schedule(drawn, Forecast(MODEL), phases=2)
    assert chosen.progress is not None
    assert [phase.to_dict() for phase in chosen.progress.ahead] == [p.to_dict() for p in expected.phases]
    assert chosen.predicted_error == pytest.approx(expected.predicted_error)
    # Whom a round leaves out adds to the loss, and two of four cost less.
    all_of_them = Scheduled().choose(situation(problem=problem))
    assert chosen.predicted_error > all_of_them.predicted_error
    # The other rule plans by what is expected of a round.
    unstable = dataclasses.replace(plain.constants, learning_rate=2.5)
    given = (dataclasses.replace(each, constants=unstable) for each in (problem, drawn))
    bare = situation(**dict(zip(("problem", "drawn"), given, strict=True)))
    np.testing.assert_array_equal(Scheduled().choose(bare).batch_sizes, Horizon().choose(bare).batch_sizes)


def test_rounds_of_few_devices_take_less_time_than_the_slowest_of_all() -> None:
    """One of four devices takes twice as long as the others; half of the rounds are without it."""
    plain = situation().problem
    times = {}
    for many in (None, 2):
        budget = dataclasses.replace(
            plain.budget, cost=math.inf, participants=many, distinct_participants=bool(many)
        )
        drawn = dataclasses.replace(plain, budget=budget)
        chosen = Scheduled().choose(situation(drawn=drawn if many else None, problem=plain))
        assert chosen.progress is not None
        phases = chosen.progress.ahead
        times[many] = sum(drawn.time(p.rounds, p.local_steps, p.batch_sizes) for p in phases)
    assert times[2] > 1.05 * times[None]
