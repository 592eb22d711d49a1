"""What clients say that a round cost moves the account by a stated factor at most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.measuring.report import ClientReport
from coopt.online.accounting import Account
from coopt.online.controller import Controller
from coopt.online.round_plan import RoundPlan
from coopt.problem.budget import Budget
from coopt.problem.fleet import Fleet

DEVICES = 10


def plan(devices: int = DEVICES) -> RoundPlan:
    controller = Controller(Fleet([1000] * devices, 1.0, 1.0), Budget(cost=1e6), 0.1, probe_every=0)
    found = controller.plan()
    assert isinstance(found, RoundPlan)
    return found


PLAN = plan()
PLANNED = float(PLAN.local_steps * PLAN.batch_sizes[0])


def report(client: int, cost: float | None, part: float = 1.0) -> ClientReport:
    return ClientReport(
        client=client,
        round=0,
        samples=1000,
        local_steps=PLAN.local_steps,
        batch_size=int(PLAN.batch_sizes[0]),
        samples_processed=max(1, int(part * PLANNED)),
        loss=1.0,
        seconds_computing=1.0,
        cost=cost,
    )


def charged(costs: list[float | None], stated: float = 1.0, learnt: float = 1.0) -> tuple[float, set[int]]:
    account = Account(DEVICES, 0.0)
    ignored = account.close(
        PLAN,
        [report(i, cost) for i, cost in enumerate(costs)],
        sample_cost=np.full(DEVICES, learnt),
        step_cost=np.zeros(DEVICES),
        device_cost=np.zeros(DEVICES),
        seconds=1.0,
        absent=[],
        stated_cost=np.full(DEVICES, stated),
    ).ignored
    return account.cost, {entry.client for entry in ignored if entry.what == "cost"}


lies = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from(
    [0.0, 1e-50, 1e59, 29 * PLANNED, -1.0]
)


@given(first=lies, second=lies, liars=st.sets(st.integers(0, 9), min_size=2, max_size=2))
def test_a_fifth_that_lies_cannot_lower_the_account_and_raises_it_by_a_fifth(
    first: float, second: float, liars: set[int]
) -> None:
    costs: list[float | None] = [None] * DEVICES
    for client, lie in zip(sorted(liars), (first, second), strict=True):
        costs[client] = lie
    total, named = charged(costs)
    assert DEVICES * PLANNED * (1 - 1e-9) <= total <= 1.2 * DEVICES * PLANNED * (1 + 1e-9)
    assert named <= liars


@settings(max_examples=50)
@given(
    honest=st.lists(st.floats(0.8, 1.5), min_size=8, max_size=8),
    first=lies,
    second=lies,
    order=st.permutations(range(DEVICES)),
)
def test_honest_prices_count_and_lies_stay_within_them(
    honest: list[float], first: float, second: float, order: list[int]
) -> None:
    told = [PLANNED * price for price in honest] + [first, second]
    total, _ = charged(told)
    # The lowest price that counts is an honest one, the highest within 2 of the median or 3 deviations.
    liars = 2 * PLANNED
    assert total >= (sum(honest) * PLANNED + liars * min(*honest, 1.0)) * (1 - 1e-9)
    widest = max(2.0, (max(*honest, 1.0) / min(*honest, 1.0)) ** 4.5)
    assert total <= (
        sum(max(price, min(1.0, max(honest))) for price in honest) * PLANNED + liars * 2 * widest
    )
    assert charged([told[i] for i in order])[0] == pytest.approx(total, rel=1e-12)


def test_prices_of_the_whole_fleet_are_believed_and_those_far_from_them_named() -> None:
    total, named = charged([0.01 * PLANNED] * 8 + [0.0, 1e59])
    assert total == pytest.approx((8 * 0.01 + 0.01 + 0.02) * PLANNED)
    assert named == {8, 9}
    # A fleet that is stated as free is compared with what it tells.
    total, named = charged([3.0 * PLANNED] * 9 + [1e59], stated=0.0, learnt=0.0)
    assert total == pytest.approx((9 * 3 + 6) * PLANNED) and named == {9}
    assert charged([None] * 9 + [1e59], stated=0.0, learnt=0.0)[0] == 0.0


def test_prices_that_have_nothing_in_common_are_no_exception() -> None:
    prices = [1e-250, 1e-150, 1e150, 1e250, 1e-200, 1e200]
    controller = Controller(Fleet([10] * 6, 1.0, 1.0, sample_cost=prices), Budget(cost=1e300), 0.1)
    found = controller.plan()
    assert isinstance(found, RoundPlan)
    told = {
        "round": 0,
        "samples": 10,
        "local_steps": found.local_steps,
        "loss": 1.0,
        "seconds_computing": 1.0,
    }
    controller.observe(
        ClientReport(client=i, batch_size=size, samples_processed=found.local_steps * size, cost=1.0, **told)
        for i, size in enumerate(found.batch_sizes.tolist())
    )
    assert 0.0 < controller.spent_cost < 1e300


def test_a_lie_that_is_told_every_round_does_not_wear_the_limits_out() -> None:
    controller = Controller(Fleet([1000] * DEVICES, 1.0, 1.0), Budget(cost=2e4), 0.1, probe_every=0)
    spent, lines = 0.0, []
    while isinstance(now := controller.plan(), RoundPlan):
        work = now.local_steps * now.batch_sizes
        spent += float(work.sum())
        lines = controller.observe(
            [
                ClientReport(
                    i,
                    now.round,
                    1000,
                    now.local_steps,
                    int(now.batch_sizes[i]),
                    int(work[i]),
                    1.0,
                    1.0,
                    cost=0.0 if i < 2 else None,
                )
                for i in range(DEVICES)
            ]
        )
    assert 0.9 * 2e4 < spent <= 2e4
    assert [str(line).partition(":")[2] for line in lines] and "ignored cost = 0" in str(lines[0])
    assert "typically" in str(lines[0])
