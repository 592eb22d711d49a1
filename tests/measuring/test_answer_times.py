"""The server's clock decides how long devices were busy; their word only divides that time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt import Budget, ClientReport, Controller, Fleet, InvalidProblemError, RoundPlan
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
from coopt.measuring.answer_times import FEWEST, TRUST, AnswerTimes
from coopt.measuring.screening import screen
from coopt.online.accounting import samples_of

DEVICES, LIARS = 20, 4
SPEED = 100 * np.exp(np.random.default_rng(0).normal(0, 0.5, DEVICES))
LINK = np.random.default_rng(1).uniform(0.05, 0.2, DEVICES)


def report(client: int, computing: float, communicating: float, number: int = 0) -> ClientReport:
    return ClientReport(
        client=client,
        round=number,
        samples=100,
        local_steps=2,
        batch_size=20,
        samples_processed=40,
        loss=1.0,
        seconds_computing=computing,
        seconds_communicating=communicating,
    )


def answers(work: float, **earlier: Any) -> AnswerTimes:
    nothing = {"shortest": np.full(DEVICES, np.inf), "shortest_work": np.zeros(DEVICES)}
    return AnswerTimes(work / SPEED + LINK, np.full(DEVICES, work), **(nothing | earlier))


def held(said: list[ClientReport], clock: AnswerTimes) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    seen, ignored = screen(said, devices=DEVICES, round=0, answers=clock)
    return seen["seconds_computing"], seen["seconds_communicating"], ignored


@given(
    claims=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=LIARS, max_size=LIARS),
    links=st.lists(st.floats(allow_nan=True), min_size=LIARS, max_size=LIARS),
)
def test_no_claim_makes_a_device_slower_than_the_clock_or_faster_than_honest_shares(
    claims: list[float], links: list[float]
) -> None:
    clock = answers(40.0)
    honest = 40.0 / SPEED
    said = [report(i, claims[i], links[i]) for i in range(LIARS)]
    said += [report(i, honest[i], LINK[i]) for i in range(LIARS, DEVICES)]
    computing, communicating, _ = held(said, clock)
    shares = (honest / clock.seconds)[LIARS:]
    assert np.all(computing <= clock.seconds)
    assert np.all(computing >= TRUST * shares.min() * clock.seconds * (1 - 1e-12))
    assert np.allclose(computing + communicating, clock.seconds)
    assert np.allclose(computing[LIARS:], honest[LIARS:])


def test_the_share_that_counts_at_least_is_that_of_honest_devices_on_slow_links() -> None:
    took = answers(40.0).seconds
    computing, _, ignored = held([report(i, 0.01 * took[i], 0.0) for i in range(DEVICES)], answers(40.0))
    assert np.allclose(computing, 0.01 * took)
    assert not [entry for entry in ignored if entry.what == "seconds_computing"]
    assert FEWEST > LIARS / DEVICES


def test_answers_that_grow_with_the_work_show_what_a_device_hides_in_its_link() -> None:
    first, now = answers(40.0), answers(160.0)
    clock = answers(160.0, shortest=first.seconds, shortest_work=first.work)
    honest = 160.0 / SPEED
    said = [report(i, honest[i] / 4 if i < LIARS else honest[i], 0.0) for i in range(DEVICES)]
    computing, _, ignored = held(said, clock)
    assert np.allclose(computing, honest)  # exactly, where the clock does not jitter
    assert {entry.client for entry in ignored if "grow" in entry.why} == set(range(LIARS))
    assert np.allclose(now.computing(), 0.0)


def test_who_does_not_account_for_its_time_computed_for_the_rest_and_is_named() -> None:
    honest = 40.0 / SPEED
    said = [report(i, honest[i] / (29 if i < LIARS else 1), LINK[i]) for i in range(DEVICES)]
    computing, communicating, ignored = held(said, answers(40.0))
    assert np.allclose(computing, honest) and np.allclose(communicating, LINK)
    assert [entry.client for entry in ignored] == list(range(LIARS))
    assert all("accounts for far less" in entry.why for entry in ignored)
    assert ignored[0].value == pytest.approx(honest[0] / 29)
    assert ignored[0].typical == pytest.approx(honest[0])


def test_who_computes_for_hardly_any_of_its_time_counts_with_the_usual_share_and_is_named() -> None:
    clock = answers(40.0)
    honest = 40.0 / SPEED
    said = [report(i, honest[i], LINK[i]) for i in range(DEVICES)]
    said[:LIARS] = [report(i, honest[i] / 29, LINK[i] + honest[i] * 28 / 29) for i in range(LIARS)]
    computing, _, ignored = held(said, clock)
    told = np.array([each.seconds_computing for each in said]) / clock.seconds
    assert np.allclose(computing[:LIARS], np.median(told) * clock.seconds[:LIARS])
    assert np.allclose(computing[LIARS:], honest[LIARS:])
    assert [entry.client for entry in ignored] == list(range(LIARS))


def test_fast_devices_and_devices_behind_slow_links_are_believed() -> None:
    rng, named = np.random.default_rng(3), 0
    for _ in range(30):
        busy, links = 0.4 * np.exp(rng.normal(size=(2, DEVICES)))
        clock = AnswerTimes(busy + links, np.full(DEVICES, 40.0), *np.full((2, DEVICES), np.inf))
        computing, _, ignored = held([report(i, busy[i], links[i]) for i in range(DEVICES)], clock)
        named += len(ignored)
        # The others are held to half of the least honest share.
        assert np.mean(np.isclose(computing, busy)) >= 0.7
    assert named < 0.01 * 30 * DEVICES


def test_devices_that_do_not_say_how_long_their_links_took_leave_nothing_unexplained() -> None:
    clock = answers(40.0, shortest=np.full(DEVICES, 0.1), shortest_work=np.full(DEVICES, 40.0))
    slow = AnswerTimes(clock.seconds + 9.0 * (np.arange(DEVICES) == 3), *list(vars(clock).values())[1:])
    said = [report(i, 40.0 / SPEED[i], 0.0) for i in range(DEVICES)]
    assert "accounts" not in str(held(said, slow)[2])


def test_a_link_that_becomes_slow_at_the_same_work_is_no_computing() -> None:
    first = answers(40.0)
    clock = AnswerTimes(first.seconds + 9.0, first.work, first.seconds, first.work)
    said = [report(i, 40.0 / SPEED[i], 0.0) for i in range(DEVICES)]
    computing, communicating, ignored = held(said, clock)
    assert np.allclose(computing, 40.0 / SPEED) and np.allclose(communicating, LINK + 9.0)
    assert not ignored


def test_devices_that_never_answered_are_no_matter() -> None:
    clock = answers(40.0)
    hung = AnswerTimes(np.r_[np.inf, clock.seconds[1:]], clock.work, clock.shortest, clock.shortest_work)
    computing, _, _ = held([report(i, 40.0 / SPEED[i], LINK[i]) for i in range(1, DEVICES)], hung)
    assert np.allclose(computing, 40.0 / SPEED[1:])
    # One whose report came later all the same.
    said = [report(i, 40.0 / SPEED[i], LINK[i]) for i in range(1, DEVICES)]
    computing, _, _ = held([report(0, 0.1, 0.0), *said], hung)
    assert computing[0] == 0.1 and np.allclose(computing[1:], 40.0 / SPEED[1:])


def test_a_device_that_does_not_say_how_long_it_computed_gets_the_usual_share() -> None:
    clock = answers(40.0)
    honest = 40.0 / SPEED
    said = [report(i, honest[i] if i else float("nan"), LINK[i]) for i in range(DEVICES)]
    computing, _, _ = held(said, clock)
    assert computing[0] == pytest.approx(float(np.median((honest / clock.seconds)[1:])) * clock.seconds[0])


def test_times_of_few_devices_and_of_late_reports_stay_as_told_where_the_clock_allows_them() -> None:
    clock = answers(40.0)
    seen, _ = screen([report(i, 1e-3, 0.1) for i in range(3)], devices=DEVICES, round=0, answers=clock)
    assert np.allclose(seen["seconds_computing"], 1e-3)
    late = [report(i, 1e-3 if i < LIARS else 0.3, 0.1, number=0) for i in range(DEVICES)]
    seen, _ = screen(late, devices=DEVICES, round=1, answers=clock)
    assert seen["seconds_computing"][LIARS] == 0.3 and seen["seconds_communicating"][0] == 0.1


def train(lie: Any, rounds: int = 12) -> list[np.ndarray]:
    """Batches of rounds under a limit on time alone."""
    controller = Controller(Fleet(np.full(DEVICES, 400), 8.0, 1.0), Budget(time=30.0, round_cost=1.0), 0.1)
    rng, batches = np.random.default_rng(2), []
    for _ in range(rounds):
        plan = controller.plan()
        assert isinstance(plan, RoundPlan)
        batches.append(plan.batch_sizes)
        busy = samples_of(plan) / SPEED
        said = [
            replace(
                report(i, busy[i], LINK[i], plan.round),
                local_steps=plan.local_steps,
                batch_size=int(plan.batch_sizes[i]),
                samples_processed=int(samples_of(plan)[i]),
                loss=3.0 * 0.9**plan.round + 0.01 * rng.normal(),
            )
            for i in range(DEVICES)
        ]
        said[:LIARS] = [lie(each) for each in said[:LIARS]]
        controller.observe(said, answered=busy + LINK)
    return batches


@pytest.mark.parametrize(
    "lie",
    [
        lambda r: replace(r, seconds_computing=r.seconds_computing / 1e6),
        lambda r: replace(r, seconds_computing=0.0, seconds_communicating=r.seconds_computing),
        lambda r: replace(r, seconds_computing=29 * r.seconds_computing),
        lambda r: replace(r, seconds_computing=float("nan"), seconds_communicating=float("nan")),
    ],
)
def test_lies_about_speed_hardly_move_the_batches_of_liars(lie: Any) -> None:
    honest, lied = (np.array(train(each))[6:, :LIARS].mean() for each in (lambda r: r, lie))
    assert 0.6 < lied / honest < 1.7


def test_the_round_is_over_when_the_plan_says_so_of_the_answers() -> None:
    controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1)
    controller.plan()
    controller.observe([report(0, 0.1, 0.0), report(1, 0.2, 0.0)], answered=[0.4, 0.7])
    assert controller.spent_seconds == 0.7
    fixed = FixedPlan(Fleet([60, 40], 1.0, 1.0), 3, 2, 4, 0.1)
    fixed.plan()
    fixed.observe([report(0, 0.1, 0.0), report(1, 0.2, 0.0)], answered=[0.4, 0.7])
    assert fixed.spent_seconds == 0.7


@pytest.mark.parametrize("answered", [[0.1], [0.1, -1.0], [0.1, float("nan")], "soon", [[0.1, 0.2]]])
def test_wrong_answer_times_are_refused_by_name(answered: Any) -> None:
    controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1)
    controller.plan()
    with pytest.raises(InvalidProblemError, match="answered"):
        controller.observe([], answered=answered)


def test_a_state_with_answers_of_more_devices_than_there_are_is_refused() -> None:
    controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1)
    controller.plan()
    controller.observe([report(0, 0.1, 0.0), report(1, 0.2, 0.0)], answered=[0.4, 0.7])
    state = controller.state_dict()
    clock = state["knowledge"]["estimates"]["clock"]
    assert clock["shortest"] == [0.4, 0.7] and clock["work"] == samples_of_first()
    for name, wrong in (("work", [1.0]), ("shortest", [1.0] * 3)):
        broken = state | {
            "knowledge": state["knowledge"]
            | {"estimates": state["knowledge"]["estimates"] | {"clock": clock | {name: wrong}}}
        }
        with pytest.raises(InvalidProblemError, match="clock"):
            Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1).load_state_dict(broken)


def samples_of_first() -> list[float]:
    plan = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1).plan()
    assert isinstance(plan, RoundPlan)
    return samples_of(plan).tolist()


def test_a_simulation_tells_the_planner_when_answers_came() -> None:
    federation, model = digits(devices=4), Softmax(64, 10)
    told = []

    class Watched(FixedPlan):
        def observe(self, *reports: Any, **options: Any) -> Any:
            told.append(options["answered"])
            return super().observe(*reports, **options)

    plan = Watched(
        Fleet(federation.samples, 1.0, 1.0), rounds=2, local_steps=2, batch_sizes=8, learning_rate=0.5
    )
    system = SystemModel([100.0, 50.0, 25.0, 10.0], 0.5)
    simulate(plan, model.gradient, model.start(), federation.clients, system=system)
    assert np.allclose(told[0], system.round(0, 16.0).total) and len(told) == 2
