"""Plans by a forecast: found, judged, written and read back, and never called a bound."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from coopt import (
    Allocation,
    Budget,
    CertificateError,
    Forecast,
    InfeasibleError,
    InvalidProblemError,
    SolverError,
    Status,
    choose_cohort,
    choose_participants,
    evaluate,
    frontier,
    leave_out,
    sensitivity,
    solve_allocation,
    solve_many,
)
from coopt.plans.table import print_allocation
from coopt.questions.tables import print_solutions
from quadratics import problem_of, random_model

MODEL = random_model(5, 3, 3, unlike=0.3, noise=2.0)
FORECAST = Forecast(MODEL)
PROBLEM = problem_of(
    MODEL,
    Budget(cost=900.0, round_cost=5.0, max_local_steps=30),
    throughput=[20.0, 10.0, 40.0],
    round_time=0.5,
)
PLAN = solve_allocation(PROBLEM, bound=FORECAST)


def test_the_plan_is_the_best_for_the_forecast() -> None:
    assert PLAN.status is Status.OPTIMAL
    assert PLAN.gap <= 2e-12
    value = FORECAST.value(PROBLEM, PLAN.rounds, PLAN.local_steps, PLAN.batch_sizes)
    assert PLAN.predicted_error == pytest.approx(value, rel=1e-12)
    assert PLAN.bound == "forecast" and PLAN.solver == "exact"
    for rounds, local_steps in ((PLAN.rounds + 1, PLAN.local_steps), (PLAN.rounds, PLAN.local_steps + 1)):
        near = solve_allocation(PROBLEM, bound=FORECAST, rounds=rounds, local_steps=local_steps)
        assert near.predicted_error >= PLAN.predicted_error


def test_a_forecast_is_never_called_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    print_allocation(PLAN)
    shown = capsys.readouterr().out + str(PLAN) + json.dumps(PLAN.to_dict())
    assert "predicted error" in shown and "Predicted error: forecast" in shown
    assert "for this forecast" in shown
    for word in ("error bound", "Error bound", "error_bound", "smaller bound"):
        assert word not in shown
    assert not PLAN.is_bound
    with pytest.raises(InvalidProblemError, match="predicted_error"):
        _ = PLAN.error_bound
    with pytest.raises(InvalidProblemError, match="predicted_error"):
        _ = PLAN.certify().error_bound


@pytest.mark.parametrize("status", list(Status))
def test_every_status_says_what_it_is_about(status: Status) -> None:
    assert "for this forecast" in status.advice(proved=False)
    assert status.advice(proved=True) == status.value


def test_a_bound_has_both_names() -> None:
    problem = replace(PROBLEM, constants=replace(PROBLEM.constants, pl_constant=0.1))
    plan = solve_allocation(problem, bound="dynamite")
    assert plan.is_bound and plan.error_bound == plan.predicted_error
    assert plan.certify().error_bound == plan.certify().predicted_error
    assert "forecast" not in plan.to_dict()


def test_a_file_holds_the_measurement_s_digest_and_nothing_of_it() -> None:
    data = PLAN.to_dict()
    assert data["forecast"] == {"measurement": MODEL.digest, "trained": None}
    back = Allocation.from_json(PLAN.to_json())
    assert back == PLAN
    assert str(back) == str(PLAN)
    for what in (back.certify, lambda: back.bound_object, lambda: back.cap_prices, back.plot):
        with pytest.raises(InvalidProblemError, match=r"certify\(measurement\)"):
            what()
    # A measurement makes its forecast, and a forecast is one.
    measurement = SimpleNamespace(forecast=lambda: Forecast(MODEL))
    for given in (measurement, FORECAST):
        found = back.certify(given)
        assert found.predicted_error == pytest.approx(PLAN.predicted_error, rel=1e-10)
    with pytest.raises(CertificateError, match="measurement: the plan was made from"):
        back.certify(Forecast(random_model(6, 3, 3)))
    less = 0.99 * PLAN.predicted_error
    wrong = replace(back, predicted_error=less, objective_value=less)
    with pytest.raises(CertificateError, match="predicted_error: claimed"):
        wrong.certify(FORECAST)
    with pytest.raises(InvalidProblemError, match="SHA-256"):
        Allocation.from_dict({**data, "forecast": {"measurement": 3}})


def test_a_forecast_s_bound_is_proved_twice() -> None:
    certificate = PLAN.certify(deep=True)
    assert certificate.proof is not None and not certificate.is_bound


def test_the_rate_is_the_argument_s_then_the_forecast_s_then_the_problem_s() -> None:
    own = FORECAST.with_learning_rate(0.4)
    cases = ((FORECAST, None, 0.7), (own, None, 0.4), (own, 0.2, 0.2), (FORECAST, 0.2, 0.2))
    for bound, argument, rate in cases:
        plan = solve_allocation(PROBLEM, bound=bound, learning_rate=argument)
        assert plan.learning_rate == plan.problem.constants.learning_rate == rate
        plan.certify()
    judged = evaluate(PROBLEM, 5, 5, 3, own)
    assert judged.learning_rate == 0.4 and judged.status is Status.EVALUATED
    judged.certify()
    with pytest.raises(InvalidProblemError, match="training is unstable"):
        solve_allocation(PROBLEM, bound=FORECAST, learning_rate=10.0)


def test_a_rate_can_be_chosen_with_the_plan() -> None:
    plan = solve_allocation(PROBLEM, bound=FORECAST, learning_rate="auto")
    assert plan.status is Status.HEURISTIC and plan.claim is None
    assert plan.learning_rate != 0.7
    at_rate = solve_allocation(PROBLEM, bound=FORECAST, learning_rate=plan.learning_rate)
    # Smallest batches may hold the free choice back.
    assert plan.predicted_error >= at_rate.predicted_error * (1.0 - 1e-12)
    assert plan.trace["lower_bound_at_rate"] <= plan.predicted_error
    plan.certify()


@pytest.mark.parametrize("objective", ["cost", "time"])
def test_the_cheapest_and_the_fastest_way_to_an_error(objective: str) -> None:
    target = 1.5 * PLAN.predicted_error
    plan = solve_allocation(PROBLEM, bound=FORECAST, objective=objective, target_error=target)
    assert plan.predicted_error <= target * (1.0 + 1e-9)
    assert plan.status is Status.OPTIMAL
    used = {"cost": plan.cost, "time": plan.time}[objective]
    less = replace(PROBLEM, budget=replace(PROBLEM.budget, **{objective: used * (1.0 - 1e-6)}))
    assert solve_allocation(less, bound=FORECAST).predicted_error > target
    plan.certify()
    with pytest.raises(InfeasibleError, match="smallest error is") as caught:
        solve_allocation(PROBLEM, bound=FORECAST, objective="cost", target_error=0.5 * PLAN.predicted_error)
    assert caught.value.smallest_error == pytest.approx(PLAN.predicted_error, rel=1e-9)


def test_limited_time_gives_a_plan_and_an_honest_gap() -> None:
    plan = solve_allocation(PROBLEM, bound=FORECAST, time_limit=0.0)
    assert plan.status is Status.TIME_LIMIT
    assert plan.lower_bound <= PLAN.predicted_error <= plan.predicted_error * (1.0 + 1e-12)
    loose = solve_allocation(PROBLEM, bound=FORECAST, gap_tolerance=0.05)
    assert loose.gap <= 0.05


def test_a_start_can_be_given_and_proposers_refuse() -> None:
    again = solve_allocation(PROBLEM, bound=FORECAST, warm_start=PLAN)
    assert again == PLAN and again.trace["warm_start_used"] == 1
    for solver in ("closed-form", "cvxpy", "coopt-fl"):
        with pytest.raises(SolverError, match="solver='exact'"):
            solve_allocation(PROBLEM, bound=FORECAST, solver=solver)


def test_frontiers_sensitivities_and_collections_take_forecasts(capsys: pytest.CaptureFixture[str]) -> None:
    trade = frontier(PROBLEM, vary="cost", values=[5.0, 450.0, 900.0], bound=FORECAST)
    plans = [point.allocation for point in trade.points]
    assert plans[0] is None and plans[1].predicted_error > plans[2].predicted_error
    assert trade.to_rows()[2]["predicted_error"] == plans[2].predicted_error
    assert trade.to_rows()[2]["error_bound"] is None
    found = sensitivity(PROBLEM, bound=FORECAST.with_learning_rate(0.7), extra_cost=30.0)
    changes = {(change.quantity, np.sign(change.amount)): change for change in found.changes}
    assert {quantity for quantity, _ in changes} == {"cost", "max_local_steps", "learning_rate"}
    assert changes["cost", 1].gain > 0.0
    # The rate does change, though the forecast had one of its own.
    rates = [changes["learning_rate", sign].allocation.learning_rate for sign in (1, -1)]
    assert rates == pytest.approx([0.7 * 1.01, 0.7 * 0.99])
    many = solve_many([PROBLEM, replace(PROBLEM, budget=Budget(cost=300.0))], bound=FORECAST)
    assert many.allocations[0] == PLAN
    print_solutions(many)
    assert "forecast" in capsys.readouterr().out


def test_a_plan_can_be_drawn() -> None:
    titles = [axes.get_title(loc="left") for axes in PLAN.plot().axes]
    assert titles[0] == "Predicted error, with the best batch sizes"


@pytest.mark.parametrize("distinct", [False, True])
def test_the_number_of_participants_can_be_chosen(distinct: bool) -> None:
    model = random_model(8, 4, 3, unlike=0.3)
    budget = Budget(cost=600.0, participants=1, distinct_participants=distinct, max_local_steps=12)
    problem = problem_of(model, budget, weights=np.full(4, 0.25), round_cost=4.0)
    forecast = Forecast(model)
    found = choose_participants(problem, bound=forecast)
    values = [
        solve_allocation(
            replace(problem, budget=replace(budget, participants=m)), bound=forecast
        ).predicted_error
        for m in range(1, 5)
    ]
    assert found.predicted_error == pytest.approx(min(values), rel=1e-11)
    assert found.problem.budget.participants == 1 + int(np.argmin(values))
    assert found.lower_bound == pytest.approx(min(values), rel=1e-9)
    assert not found.is_bound


def test_a_cohort_can_be_chosen() -> None:
    model = random_model(9, 4, 3, unlike=0.1)
    # One device takes a minute a round.
    problem = problem_of(
        model, Budget(time=300.0, max_local_steps=30), throughput=20.0, round_time=[1.0, 1.0, 60.0, 1.0]
    )
    forecast = Forecast(model)
    found = choose_cohort(problem, bound=forecast)
    values = {}
    for gone in ([], [0], [1], [2], [3], [0, 2], [1, 2], [2, 3], [0, 1, 2], [0, 2, 3], [1, 2, 3]):
        kept = [i for i in range(4) if i not in gone]
        plan = solve_allocation(leave_out(problem, gone), bound=forecast.restricted(kept))
        values[tuple(kept)] = plan.predicted_error
    assert found.devices == min(values, key=values.get)
    assert found.allocation.predicted_error == pytest.approx(min(values.values()), rel=1e-9)
    assert found.allocation.status is Status.HEURISTIC
    assert found.allocation.source.trained == found.devices
    back = Allocation.from_json(found.allocation.to_json())
    assert back.certify(forecast).predicted_error == pytest.approx(back.predicted_error, rel=1e-9)
    # The rate can be chosen for the rest as well: the bias is known.
    rest = leave_out(problem, [2])
    chosen = solve_allocation(rest, bound=forecast.restricted([0, 1, 3]), learning_rate="auto")
    assert chosen.status is Status.HEURISTIC
