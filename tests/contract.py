"""What the public functions take: a call of each that works, and values that make it wrong.

Every argument of every call is replaced by every value; what comes out is an answer or a `CooptError`. Result
types (`Allocation`, `Sensitivity`, ...) are left out: coopt makes them itself, and reads them from files.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

import coopt
from coopt import (
    Budget,
    ClientReport,
    Constants,
    Controller,
    CooptError,
    Fleet,
    Forecast,
    LocalModel,
    Phase,
    Problem,
)
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.streaming import Fifo, RandomReplacement, Reservoir

Call = tuple[Callable[..., Any], dict[str, Any]]


class Odd:
    """Something that no function was made for."""

    def __repr__(self) -> str:
        return "Odd()"


WRONG: tuple[Any, ...] = (
    None,
    "",
    "x",
    b"bytes",
    True,
    -1,
    0,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e300,
    5e-324,
    3 + 4j,
    Fraction(1, 3),
    Decimal("0.1"),
    [],
    [None],
    ["a", "b"],
    [[1, 2], [3]],
    {},
    {"a": 1},
    {1, 2},
    (),
    range(3),
    np.array([]),
    np.array([1, np.nan]),
    np.array(["a"]),
    np.array([object()]),
    np.ma.masked_array([1.0, 2.0], [False, True]),
    np.longdouble(1),
    np.timedelta64(1, "s"),
    timedelta(seconds=-1),
    Odd(),
    Odd,
    len,
    iter([1, 2]),
)


def method(make: Callable[[], Any], name: str) -> Callable[..., Any]:
    """A method of something that is made anew for every call."""

    def call(**arguments: Any) -> Any:
        return getattr(make(), name)(**arguments)

    call.__signature__ = inspect.signature(getattr(make(), name))
    return call


def gradient(parameters: Any, rows: Any) -> tuple[float, Any]:
    """Loss and gradient of half the squared distance from the mean of some rows."""
    distance = parameters - np.resize(np.mean(rows, axis=0), np.shape(parameters))
    return float(distance @ distance) / 2, distance


def calls() -> dict[str, Call]:
    """A call of each public function and class that works."""
    fleet = Fleet([60, 20], 4.0, 0.1, throughput=[10.0, 20.0])
    constants = Constants(0.1, 1.0, 2.0, pl_constant=0.1)
    problem = Problem(fleet, constants, Budget(cost=400.0, time=500.0, max_rounds=20, max_local_steps=3))
    model = LocalModel([1.0], [[1.0]], [[[1.0]]], [[[4.0]]], samples=[100])
    one = Problem(Fleet([100], 4.0, 0.0), constants, Budget(cost=400.0, max_rounds=20, max_local_steps=2))
    forecast, phase = Forecast(model), Phase(5, 2, 8, 0.1)
    report = {"client": 0, "round": 0, "samples": 60, "local_steps": 2, "batch_size": 8}
    report |= {"samples_processed": 16, "loss": 1.5, "seconds_computing": 0.1}
    asked = {"problem": problem}

    def planned() -> Controller:
        controller = Controller(fleet, Budget(cost=400.0), 0.1)
        controller.plan()
        return controller

    def observed(**told: Any) -> None:
        controller = planned()
        controller.observe([ClientReport(**told)])
        controller.plan()

    observed.__signature__ = inspect.signature(ClientReport)

    def begun() -> Controller:
        return Controller(Fleet([60, 20, 30], 4.0, 0.1), Budget(cost=400.0), 0.1)

    def fixed() -> FixedPlan:
        return FixedPlan(fleet, 3, 2, 4, 0.1)

    return {
        "Fleet": (Fleet, {"samples": [60, 20], "gradient_noise": 4.0, "divergence": 0.1}),
        "Constants": (Constants, {"learning_rate": 0.1, "smoothness": 1.0, "initial_gap": 2.0}),
        "Budget": (Budget, {"cost": 400.0}),
        "Problem": (Problem, {"fleet": fleet, "constants": constants, "budget": Budget(cost=400.0)}),
        "Phase": (Phase, {"rounds": 5, "local_steps": 2, "batch_sizes": 8, "learning_rate": 0.1}),
        "Forecast": (Forecast, {"model": model}),
        "LocalModel": (
            LocalModel,
            {
                "weights": [1.0],
                "gradients": [[1.0]],
                "curvatures": [[[1.0]]],
                "covariances": [[[4.0]]],
                "samples": [100],
            },
        ),
        "ClientSGD": (coopt.ClientSGD, {}),
        "ClientAdam": (coopt.ClientAdam, {}),
        "ServerSGD": (coopt.ServerSGD, {}),
        "ServerAdam": (coopt.ServerAdam, {}),
        "Optimiser": (coopt.Optimiser, {}),
        "Certified": (coopt.Certified, {}),
        "NonConvex": (coopt.NonConvex, {}),
        "TradeOff": (coopt.TradeOff, {}),
        "ClientReport": (ClientReport, report),
        "Controller.observe a report": (observed, report),
        "HalfBatches": (HalfBatches, {"first": 4, "second": 4, "difference": 1.0, "product": 0.5}),
        "SameBatchPair": (SameBatchPair, dict.fromkeys(inspect.signature(SameBatchPair).parameters, 1.0)),
        "Controller": (Controller, {"fleet": fleet, "budget": Budget(cost=400.0), "learning_rate": 0.1}),
        "Controller.observe": (method(planned, "observe"), {"reports": []}),
        "Controller.wait": (method(planned, "wait"), {"seconds": 1.0}),
        "Controller.load_state_dict": (method(planned, "load_state_dict"), {"state": planned().state_dict()}),
        "Controller.join": (method(begun, "join"), {"newcomers": 1}),
        "Controller.leave": (method(begun, "leave"), {"device": 1}),
        "Controller.recommend_sampler": (
            method(planned, "recommend_sampler"),
            {"capacity": 9, "arrivals": 50, "arrivals_per_round": 5.0, "gradient_diameter": 1.0},
        ),
        "Availability": (coopt.Availability, {}),
        "ClientProbe": (coopt.ClientProbe, {"client": 0, "gradient": gradient, "draw": np.arange}),
        "measure": (
            coopt.measure,
            {"gradient": gradient, "parameters": [0.0, 1.0], "clients": [np.eye(2)] * 2, "progress": False},
        ),
        "Fleet.from_traces": (
            Fleet.from_traces,
            {
                "latency": [50.0, 90.0],
                "links": [8000.0, 1000.0],
                "model_bytes": 1e6,
                "devices": 2,
                "seed": 0,
                "samples": [60, 20],
                "gradient_noise": 1.0,
                "divergence": 0.1,
            },
        ),
        "FixedPlan": (
            FixedPlan,
            {"fleet": fleet, "rounds": 3, "local_steps": 2, "batch_sizes": 4, "learning_rate": 0.1},
        ),
        "FixedPlan.observe": (method(fixed, "observe"), {"reports": []}),
        "FixedPlan.load_state_dict": (method(fixed, "load_state_dict"), {"state": fixed().state_dict()}),
        "SystemModel": (SystemModel, {"throughput": [10.0, 20.0]}),
        "Fifo": (Fifo, {"capacity": 4, "seed": 0}),
        "Reservoir": (Reservoir, {"capacity": 4, "seed": 0}),
        "RandomReplacement": (RandomReplacement, {"capacity": 4, "seed": 0}),
        "solve_allocation": (coopt.solve_allocation, asked),
        "evaluate": (coopt.evaluate, asked | {"rounds": 3, "local_steps": 2, "batch_sizes": 4}),
        "solve_many": (coopt.solve_many, {"problems": [problem]}),
        "sensitivity": (coopt.sensitivity, asked | {"quantities": ["cost"]}),
        "frontier": (coopt.frontier, asked | {"values": [300.0, 400.0]}),
        "choose_cohort": (coopt.choose_cohort, asked),
        "choose_participants": (
            coopt.choose_participants,
            {"problem": Problem(fleet, constants, Budget(cost=400.0, max_rounds=20, max_local_steps=2))},
        ),
        "leave_out": (coopt.leave_out, asked | {"devices": [1]}),
        "allocate_batches": (
            coopt.allocate_batches,
            {"weights": [1.0, 2.0], "sample_cost": [1.0, 1.0], "budget": 9.0, "lower": 1, "upper": [8, 8]},
        ),
        "evaluate_schedule": (
            coopt.evaluate_schedule,
            {"problem": one, "forecast": forecast, "phases": [phase]},
        ),
        "solve_schedule": (coopt.solve_schedule, {"problem": one, "forecast": forecast, "phases": 1}),
    }


def wrong_calls(name: str, call: Call) -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    """Every argument of a call with every value: the argument, the value, and the call."""
    function, valid = call
    for argument in inspect.signature(function).parameters:
        if argument.startswith("_") or argument in ("args", "kwargs", "options", "fields"):
            continue
        # What a function of the user's own raises is the user's.
        own = argument in ("constraints", "progress", "clock", "gradient", "draw")
        for value in WRONG:
            if own and callable(value):
                continue
            changed = valid | {argument: value}
            yield argument, value, lambda changed=changed: function(**changed)


def outcome(run: Callable[[], Any]) -> str:
    """How a call ends: "answered", "refused" as documented, or the exception that should not come out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            run()
    except CooptError as error:
        return "refused" if len(str(error)) <= 2000 else "a message without end"
    except BaseException as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"[:200]
    return "answered"
