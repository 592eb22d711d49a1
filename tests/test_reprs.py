"""Every public object is one short line, and a table in a notebook, however many devices it is about."""

from __future__ import annotations

import inspect
from dataclasses import replace
from enum import Enum
from html.parser import HTMLParser

import numpy as np
import pytest

import coopt
from coopt import (
    AdaCoOpt,
    Availability,
    Budget,
    Certified,
    ClientProbe,
    ClientReport,
    Constants,
    Controller,
    Dynamite,
    Fleet,
    Forecast,
    LocalModel,
    NonConvex,
    Phase,
    Problem,
    Stopped,
    TradeOff,
    allocate_batches,
    evaluate,
    evaluate_schedule,
    frontier,
    leave_out,
    measure,
    sensitivity,
    solve_allocation,
    solve_many,
)
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import digits
from coopt.adapters.system import SystemModel
from coopt.objectives.forecast import optimiser
from coopt.online.round_plan import StopReason
from coopt.problem.readable import short
from coopt.questions.cohort import Cohort

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning", "ignore::coopt.MeasurementWarning")

DEVICES = 400
LONGEST = 400
FLEET = Fleet(
    np.arange(1, DEVICES + 1) * 10,
    gradient_noise=np.linspace(1.0, 4.0, DEVICES),
    divergence=0.1,
    throughput=np.linspace(10.0, 500.0, DEVICES),
    names=[f"<b>phone & {i}</b>" for i in range(DEVICES)],
)
PROBLEM = Problem(
    FLEET,
    Constants(0.1, 1.0, 2.0, 0.02, 0.0, 0.9, 0.4, 3.0, 2.0, 0.0),
    Budget(400_000, "1h", 10.0, 200, 40, energy="2 kWh"),
)


def gradient(model, rows):
    error = model - rows
    return 0.5 * float(np.mean(np.sum(error**2, axis=1))), error.mean(axis=0)


@pytest.fixture(scope="module")
def things() -> list[object]:
    """One of every public class, about many devices."""
    plan = solve_allocation(PROBLEM, bound="dynamite", gap_tolerance=0.1)
    model = LocalModel(
        np.full(DEVICES, 1.0 / DEVICES),
        np.ones((DEVICES, 2)),
        np.tile(np.eye(2), (DEVICES, 1, 1)),
        np.tile(np.eye(2), (DEVICES, 1, 1)),
        samples=FLEET.samples,
    )
    phases = [Phase(3, 2, FLEET.samples // 10, learning_rate=0.1)] * 5
    schedule = evaluate_schedule(replace(PROBLEM, budget=Budget()), Forecast(model), phases)
    trade = frontier(PROBLEM, values=[1.0, 400_000.0], bound="dynamite")
    changed = sensitivity(PROBLEM, bound="dynamite", quantities=["cost", "time"])
    controller = Controller(FLEET, Budget(cost=400_000, time=3600), learning_rate=0.1)
    batches = allocate_batches(np.ones(DEVICES), np.ones(DEVICES), 1e5, np.ones(DEVICES), FLEET.samples)
    report = ClientReport(
        client=0, round=0, samples=5, local_steps=2, batch_size=2, samples_processed=4, loss=1.0,
        seconds_computing=0.1, gradient=np.ones(10_000), change=np.ones(10_000),
    )  # fmt: skip
    return [
        PROBLEM,
        *(PROBLEM.fleet, PROBLEM.constants, PROBLEM.budget, leave_out(PROBLEM, [3])),
        *(plan, plan.certify(), batches, Cohort(tuple(range(DEVICES)), plan, 5)),
        *(schedule, schedule.certify(), phases[0]),
        *(trade, trade.points[0], trade.points[1], changed, changed.changes[0]),
        solve_many({"it": PROBLEM, "none": replace(PROBLEM, budget=Budget(cost=1))}, bound="dynamite"),
        *(Certified(), Certified(0.3, 2.0), NonConvex(), Dynamite(), AdaCoOpt(), TradeOff(), model),
        *(Forecast(model), Forecast(model, 0.1, trained=tuple(range(DEVICES // 2)))),
        *(controller, controller.plan(), Stopped(StopReason.COST, 3, 5.0, 7.0), report),
        Availability(np.linspace(0.0, 5.0, DEVICES), 9.0, period=24.0),
        ClientProbe(0, gradient, lambda size: np.zeros((size, 2))),
        measure(gradient, np.full(3, 2.0), [np.random.default_rng(i).normal(size=(20, 3)) for i in range(9)]),
        *(optimiser.ClientSGD(0.9), optimiser.ClientAdam(), optimiser.ServerSGD(), optimiser.ServerAdam()),
        optimiser.Optimiser(optimiser.ClientSGD(0.9)),
        *(FixedPlan.from_allocation(plan), digits(20), SystemModel(np.full(DEVICES, 5.0))),
    ]


def test_each_is_one_short_line(things) -> None:
    for thing in things:
        text = repr(thing)
        assert text.startswith(f"{type(thing).__name__}("), text
        assert len(text) <= LONGEST and "\n" not in text, text
        assert "object at 0x" not in text and "array(" not in text, text


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_each_is_a_table_in_a_notebook(things) -> None:
    for thing in things:
        html = thing._repr_html_()
        # Names are escaped, and every tag is closed.
        parser = Tags()
        parser.feed(html)
        assert parser.open == []
        assert f"<caption>{type(thing).__name__}</caption>" in html
        assert len(html) < 20_000
        assert "<b>" not in html


def test_every_public_class_is_there(things) -> None:
    shown = {type(thing) for thing in things}
    for name in coopt.__all__:
        cls = getattr(coopt, name)
        if not inspect.isclass(cls) or issubclass(cls, Exception | Enum) or cls is coopt.Bound:
            continue
        assert cls in shown, name


def test_what_a_line_says() -> None:
    assert repr(Budget(cost=20_000, time="1h")) == "Budget(cost=20000, time=3600)"
    assert repr(Budget()) == "Budget()"
    assert repr(Certified(0.3, 2.0)) == "Certified(gamma=0.3, z=2)"
    few = evaluate(PROBLEM, 2, 3, np.ones(DEVICES, dtype=int), "dynamite")
    start = f"Allocation({DEVICES} devices, rounds=2, local_steps=3, batch_sizes={DEVICES} values, all 1, "
    assert repr(few).startswith(start)
    assert repr(few).endswith("bound='dynamite', EVALUATED)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([1, 20]), "[1, 20]"),
        (np.arange(1000), "1,000 values, 0 to 999"),
        (np.ones((3, 4)), "array of shape (3, 4)"),
        (np.float64(0.123456789), "0.123457"),
        (123_456_789.0, "123456789"),
        ("x" * 100, repr("x" * 57 + "...")),
        (list(range(100)), "100 entries"),
        (("cost", "time"), "('cost', 'time')"),
        ({"cost": 1.0}, "{cost: 1}"),
        (StopReason.COST, "COST"),
        (float("inf"), "inf"),
    ],
)
def test_short_values(value, text) -> None:
    assert short(value) == text


def test_the_rows_of_a_table_are_counted(things) -> None:
    plan = next(thing for thing in things if isinstance(thing, coopt.Allocation))
    assert f"20 of {DEVICES} rows" in plan._repr_html_()
    assert f"20 of {DEVICES} rows" in FLEET._repr_html_()
