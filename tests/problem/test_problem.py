"""What a problem accepts, what it refuses, and with which words."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    AdaCoOpt,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    NonConvex,
    Problem,
    solve_allocation,
)
from coopt.problem.validation import shown
from problems import problems

FLEET = {"samples": [600, 200, 50], "gradient_noise": 4.0, "divergence": 0.1}
CONSTANTS = {"learning_rate": 0.05, "smoothness": 4.0, "initial_gap": 2.0}
ARRAYS = (
    "samples",
    "gradient_noise",
    "divergence",
    "throughput",
    "round_time",
    "sample_cost",
    "weights",
    "min_batch",
    "max_batch",
    "batch_multiple",
    "round_cost",
    "sample_energy",
    "round_energy",
    "step_time",
    "step_cost",
    "step_energy",
)


def problem_of(constants=None, budget=None, **fleet) -> Problem:
    return Problem(
        Fleet(**{**FLEET, **fleet}), Constants(**{**CONSTANTS, **(constants or {})}), budget or Budget()
    )


def refused(build, message: str) -> None:
    """The error is the documented one and its message is exactly this."""
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


NAN, INF = math.nan, math.inf
NONNEGATIVE, POSITIVE = "a finite number >= 0", "a finite number > 0"
HUGE = "an integer of some 401 digits: must be a number of at most 1.8e+308 in size"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("samples", [600, 0, 50], "samples[1] = 0: must be an integer >= 1"),
        ("samples", [600, 200, -5], "samples[2] = -5: must be an integer >= 1"),
        ("samples", [2.5, 200, 50], "samples[0] = 2.5: must be an integer >= 1"),
        ("samples", [600, NAN, 50], "samples[1] = nan: must be an integer >= 1"),
        ("samples", [600, 200, INF], f"samples[2] = inf: must be an integer >= 1 and <= {2**53}"),
        ("samples", [600, 2**53 + 2, 1], f"samples[1] = {2**53 + 2}: must be an integer >= 1 and <= {2**53}"),
        ("samples", [600, 1, 10**30], f"samples[2] = 1e+30: must be an integer >= 1 and <= {2**53}"),
        ("gradient_noise", [1, 10**400, 1], f"gradient_noise[1] = {HUGE}"),
        ("gradient_noise", -(10**400), f"gradient_noise = {HUGE}"),
        ("samples", [600, "200", 50], "samples[0] = '600': must be a number"),
        ("samples", [True, True, True], "samples[0] = True: must be a number"),
        ("samples", [600, None, 50], "samples[1] = None: must be a number"),
        ("samples", [600, 1j, 50], "samples[0] = (600+0j): must be a number"),
        ("gradient_noise", [1.0, NAN, 2.0], f"gradient_noise[1] = nan: must be {NONNEGATIVE}"),
        ("gradient_noise", [1.0, 2.0, INF], f"gradient_noise[2] = inf: must be {NONNEGATIVE}"),
        ("gradient_noise", [-1e-9, 2.0, 1.0], f"gradient_noise[0] = -1e-09: must be {NONNEGATIVE}"),
        ("gradient_noise", -1.0, f"gradient_noise = -1.0: must be {NONNEGATIVE}"),
        ("gradient_noise", "loud", "gradient_noise = 'loud': must be a number"),
        ("gradient_noise", True, "gradient_noise = True: must be a number"),
        ("divergence", [0.1, -INF, 0.1], f"divergence[1] = -inf: must be {NONNEGATIVE}"),
        ("divergence", NAN, f"divergence = nan: must be {NONNEGATIVE}"),
        ("throughput", [10.0, 0.0, 1.0], "throughput[1] = 0.0: must be a number > 0"),
        ("throughput", [10.0, 1.0, -INF], "throughput[2] = -inf: must be a number > 0"),
        ("throughput", [NAN, 1.0, 1.0], "throughput[0] = nan: must be a number > 0"),
        ("round_time", [0.0, 0.0, -0.5], f"round_time[2] = -0.5: must be {NONNEGATIVE}"),
        ("round_time", INF, f"round_time = inf: must be {NONNEGATIVE}"),
        ("sample_cost", [1.0, -2.0, 1.0], f"sample_cost[1] = -2.0: must be {NONNEGATIVE}"),
        ("sample_energy", [1.0, -2.0, 1.0], f"sample_energy[1] = -2.0: must be {NONNEGATIVE}"),
        ("round_energy", [1.0, INF, 1.0], f"round_energy[1] = inf: must be {NONNEGATIVE}"),
        ("round_cost", [1.0, -2.0, 1.0], f"round_cost[1] = -2.0: must be {NONNEGATIVE}"),
        ("micro_batch", [8, 0, 8], "micro_batch[1] = 0: must be an integer >= 1"),
        ("step_time", [0.0, -0.01, 0.0], f"step_time[1] = -0.01: must be {NONNEGATIVE}"),
        ("step_cost", INF, f"step_cost = inf: must be {NONNEGATIVE}"),
        ("step_energy", [1.0, 1.0, NAN], f"step_energy[2] = nan: must be {NONNEGATIVE}"),
        ("sample_cost", [1.0, INF, 1.0], f"sample_cost[1] = inf: must be {NONNEGATIVE}"),
        ("weights", [0.5, 0.75, -0.25], f"weights[2] = -0.25: must be {NONNEGATIVE}"),
        ("weights", [0.5, NAN, 0.5], f"weights[1] = nan: must be {NONNEGATIVE}"),
        ("min_batch", [1, 0, 1], "min_batch[1] = 0: must be an integer >= 1"),
        ("min_batch", 1.5, "min_batch = 1.5: must be an integer >= 1"),
        ("max_batch", [1, 2, 0.5], "max_batch[2] = 0.5: must be an integer >= 1"),
        ("max_batch", [1, -3, 2], "max_batch[1] = -3: must be an integer >= 1"),
        ("batch_multiple", [1, 1, 0], "batch_multiple[2] = 0: must be an integer >= 1"),
        ("batch_multiple", "8", "batch_multiple = '8': must be a number"),
        ("replacement", "no", "replacement = 'no': must be true or false"),
        ("replacement", 1, "replacement = 1: must be true or false"),
        ("names", "abc", "names = 'abc': must be a sequence of 3 strings"),
        ("names", ["a", 2, "c"], "names = ['a', 2, 'c']: must be a sequence of 3 strings"),
        ("names", 5, "names = 5: must be a sequence of 3 strings"),
        ("names", ["a", "b"], "names has 2 entries: must have 3, as samples has"),
    ],
)
def test_a_wrong_value_is_named_with_its_device_and_what_is_valid(field, value, message):
    refused(lambda: Fleet(**{**FLEET, field: value}), message)


@pytest.mark.parametrize("field", [name for name in ARRAYS if name != "samples"])
@pytest.mark.parametrize("value", [[1, 1], [1, 1, 1, 1], [[1, 1, 1]], []])
def test_a_wrong_shape_is_named(field, value):
    shape = np.shape(value)
    refused(
        lambda: Fleet(**{**FLEET, field: value}),
        f"{field} has shape {shape}: must be a scalar or have shape (3,), one entry a device",
    )


@pytest.mark.parametrize("samples", [[], 5, [[5, 6]]])
def test_a_fleet_has_one_axis_and_at_least_one_device(samples):
    refused(
        lambda: Fleet(samples=samples, gradient_noise=1.0, divergence=0.0),
        f"samples has shape {np.shape(samples)}: must be one-dimensional with one entry a device, "
        "and at least one device",
    )


def test_ragged_lists_are_not_arrays():
    with pytest.raises(InvalidProblemError, match="samples is not an array of numbers"):
        Fleet(samples=[[1, 2], [3]], gradient_noise=1.0, divergence=0.0)


@pytest.mark.parametrize("total", [1.0 + 2e-9, 1.0 - 2e-9, 0.5, 3.0])
def test_weights_must_sum_to_one(total):
    with pytest.raises(InvalidProblemError, match=r"weights sum to .*: they must sum to 1 within 1e-09"):
        Fleet(**FLEET, weights=[total / 2, total / 4, total / 4])


@pytest.mark.parametrize("total", [1.0 + 5e-10, 1.0 - 5e-10])
def test_weights_may_miss_one_by_rounding(total):
    weights = [total / 2, total / 4, total / 4]
    assert Fleet(**FLEET, weights=weights).weights.tolist() == weights


def test_batches_without_replacement_stay_within_the_samples():
    assert Fleet(**FLEET, max_batch=70).max_batch.tolist() == [70, 70, 70]
    refused(
        lambda: Fleet(**FLEET, max_batch=[60, 200, 51], replacement=False),
        "max_batch[2] = 51: must not exceed samples[2] = 50 when batches are drawn without replacement",
    )


def test_a_device_must_have_an_admissible_batch():
    refused(
        lambda: Fleet(**FLEET, min_batch=33, batch_multiple=32),
        "batch_multiple[2] = 32 and min_batch[2] = 33: the smallest batch is 64, and the device holds "
        "samples[2] = 50; give max_batch[2] >= 64 to draw samples more than once, or leave the device out",
    )
    refused(
        lambda: Fleet(**FLEET, batch_multiple=64, replacement=False),
        "batch_multiple[2] = 64: the smallest batch is 64, and the device holds samples[2] = 50; leave the "
        "device out",
    )
    refused(
        lambda: Fleet(**FLEET, min_batch=[1, 201, 1], names=["a", "anna's phone", "c"]),
        "min_batch[1] (anna's phone) = 201: the smallest batch is 201, and the device holds samples[1] = "
        "200; give max_batch[1] >= 201 to draw samples more than once, or leave the device out",
    )
    refused(
        lambda: Fleet(**FLEET, min_batch=[1, 101, 1], max_batch=[5, 100, 5]),
        "min_batch[1] = 101: the smallest batch is 101, more than max_batch[1] = 100",
    )


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 9))
def test_batch_range_holds_the_multiples_between_the_limits(least, extra, multiple):
    admissible = [s for s in range(least, least + extra + 1) if s % multiple == 0]

    def build():
        return Fleet([500], 1.0, 0.0, min_batch=least, max_batch=least + extra, batch_multiple=multiple)

    if not admissible:
        with pytest.raises(InvalidProblemError, match=r"the smallest batch is \d+, more than max_batch\[0\]"):
            build()
        return
    lower, upper = build().batch_range()
    assert (lower.tolist(), upper.tolist()) == ([admissible[0]], [admissible[-1]])


def test_defaults_and_broadcasting():
    fleet = Fleet(**FLEET)
    assert len(fleet) == 3
    assert fleet.weights.tolist() == [600 / 850, 200 / 850, 50 / 850]
    assert fleet.max_batch.tolist() == fleet.samples.tolist()
    assert fleet.min_batch.tolist() == fleet.batch_multiple.tolist() == [1, 1, 1]
    assert fleet.throughput.tolist() == [INF] * 3
    assert (fleet.round_time.tolist(), fleet.sample_cost.tolist()) == ([0.0] * 3, [1.0] * 3)
    assert fleet.replacement is True
    assert fleet.names is None
    for name in ARRAYS:
        integral = name in ("samples", "min_batch", "max_batch", "batch_multiple")
        assert getattr(fleet, name).dtype == (np.int64 if integral else np.float64)
        assert getattr(fleet, name).shape == (3,)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_only_copies(name):
    given_arrays = {
        **{field: np.array([1, 1, 1]) for field in ARRAYS},
        "weights": np.array([0.5, 0.25, 0.25]),
    }
    for fleet in (Fleet(**given_arrays), Fleet(**FLEET)):
        before = getattr(fleet, name).copy()
        with pytest.raises(ValueError, match="read-only"):
            getattr(fleet, name)[0] = 7
        given_arrays[name][0] = 9
        assert np.array_equal(getattr(fleet, name), before)
        with pytest.raises(FrozenInstanceError):
            setattr(fleet, name, before)


@settings(max_examples=50, deadline=None)
@given(problem=problems(equal_costs=False))
def test_equal_values_are_equal_and_nothing_that_holds_arrays_hashes(problem):
    fleet = problem.fleet
    copy = Fleet(**{name: getattr(fleet, name) for name in (*ARRAYS, "replacement", "names", "micro_batch")})
    assert copy == fleet
    assert Problem(copy, replace(problem.constants), replace(problem.budget)) == problem
    assert fleet != Fleet(**{**{n: getattr(fleet, n) for n in ARRAYS}, "divergence": fleet.divergence + 1})
    assert problem != replace(problem, budget=replace(problem.budget, round_cost=12345.0))
    assert fleet != problem
    for value in (fleet, problem):
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)


@pytest.mark.parametrize("field", ["learning_rate", "smoothness", "initial_gap"])
@pytest.mark.parametrize("value", [NAN, INF, -1.0, "0.1", True, None, pytest.param(10**400, id="10**400")])
def test_constants_must_be_finite_numbers_in_range(field, value):
    valid = NONNEGATIVE if field == "initial_gap" else POSITIVE
    with pytest.raises(InvalidProblemError) as caught:
        Constants(**{**CONSTANTS, field: value})
    assert str(caught.value).startswith(f"{field} = ")
    assert str(caught.value).endswith(f": must be {valid}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0}, f"learning_rate = 0.0: must be {POSITIVE}"),
        ({"smoothness": 0.0}, f"smoothness = 0.0: must be {POSITIVE}"),
        ({"pl_constant": 0.0}, f"pl_constant = 0.0: must be {POSITIVE}"),
        ({"pl_constant": 4.5}, "pl_constant = 4.5: must not exceed smoothness = 4.0"),
        (
            {"pl_constant": 3.0, "mean_smoothness": 2.0},
            "pl_constant = 3.0: must not exceed mean_smoothness = 2.0",
        ),
        ({"mean_smoothness": 5.0}, "mean_smoothness = 5.0: must not exceed smoothness = 4.0"),
        ({"mean_smoothness": 0.0}, f"mean_smoothness = 0.0: must be {POSITIVE}"),
        ({"coupling": 4.1}, "coupling = 4.1: must not exceed smoothness = 4.0"),
        ({"coupling": -0.1}, f"coupling = -0.1: must be {NONNEGATIVE}"),
        (
            {"curvature_floor": -4.5},
            "curvature_floor = -4.5: must lie between -smoothness = -4.0 and smoothness = 4.0",
        ),
        (
            {"curvature_floor": 4.5},
            "curvature_floor = 4.5: must lie between -smoothness = -4.0 and smoothness = 4.0",
        ),
        ({"curvature_floor": NAN}, "curvature_floor = nan: must be a finite number"),
        ({"quadratic_continuity": -1}, f"quadratic_continuity = -1.0: must be {NONNEGATIVE}"),
        ({"lipschitz": INF}, f"lipschitz = inf: must be {NONNEGATIVE}"),
    ],
)
def test_constants_out_of_order_are_named(changes, message):
    refused(lambda: Constants(**{**CONSTANTS, **changes}), message)


def test_curvatures_may_touch_their_limits():
    for floor in (-4.0, 0.0, 4.0):
        touching = Constants(
            **CONSTANTS, curvature_floor=floor, mean_smoothness=4.0, pl_constant=4.0, coupling=4.0
        )
        assert touching.curvature_floor == floor


@pytest.mark.parametrize("field", ["max_rounds", "max_local_steps"])
@pytest.mark.parametrize("value", [2.5, 0, -3, NAN, "7", True])
def test_counts_are_whole_and_positive(field, value):
    refused(lambda: Budget(**{field: value}), f"{field} = {value!r}: must be an integer >= 1")


@pytest.mark.parametrize("value", [INF, 2**53 + 2, 1e16, pytest.param(10**400, id="10**400")])
def test_counts_fit_the_floats_in_which_costs_are_computed(value):
    refused(
        lambda: Budget(max_rounds=value),
        f"max_rounds = {shown(value)}: must be an integer >= 1 and <= {2**53}",
    )


def test_whole_floats_count_as_counts():
    budget = Budget(max_rounds=3.0, max_local_steps=np.int32(4))
    assert (budget.max_rounds, budget.max_local_steps) == (3, 4)
    assert type(budget.max_rounds) is type(budget.max_local_steps) is int


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cost", -1, "cost = -1.0: must be a number >= 0"),
        ("cost", NAN, "cost = nan: must be a number >= 0"),
        ("cost", "12", "cost = '12': must be a number, or a text such as '5 epochs'"),
        ("time", -INF, "time = -inf: must be a number >= 0"),
        ("time", True, "time = True: must be a number >= 0"),
        ("round_cost", INF, f"round_cost = inf: must be {NONNEGATIVE}"),
        ("round_cost", -0.1, f"round_cost = -0.1: must be {NONNEGATIVE}"),
        ("energy", -0.1, "energy = -0.1: must be a number >= 0"),
        ("energy", NAN, "energy = nan: must be a number >= 0"),
    ],
)
def test_budgets_are_numbers_in_range(field, value, message):
    refused(lambda: Budget(**{field: value}), message)


def test_a_problem_is_made_of_its_three_parts():
    fleet, constants = Fleet(**FLEET), Constants(**CONSTANTS)
    for parts, field, kind in (
        ((constants, constants, Budget()), "fleet", "Fleet"),
        ((fleet, {}, Budget()), "constants", "Constants"),
        ((fleet, constants, 5), "budget", "Budget"),
    ):
        with pytest.raises(InvalidProblemError, match=rf"^{field} = .*: must be a coopt\.{kind}, not"):
            Problem(*parts)


BOUNDED = Budget(cost=1e4, max_rounds=5, max_local_steps=3)


@pytest.mark.parametrize(
    ("bound", "constants", "field", "name"),
    [
        (Certified(), {}, "pl_constant", "certified"),
        (Dynamite(), {}, "pl_constant", "dynamite"),
        (AdaCoOpt(), {"lipschitz": 1.0}, "pl_constant", "adacoopt"),
        (AdaCoOpt(), {"pl_constant": 0.5}, "lipschitz", "adacoopt"),
    ],
)
def test_a_bound_asks_for_the_constant_it_lacks(bound, constants, field, name):
    refused(
        lambda: solve_allocation(problem_of(constants, BOUNDED), bound=bound),
        f"{field} is missing: the {name} bound needs it among the constants; without it there are the "
        "nonconvex bound, and the forecast of a measurement",
    )


def test_the_nonconvex_bound_needs_three_constants_only():
    assert solve_allocation(problem_of(budget=BOUNDED), bound="nonconvex").gap <= 1e-12


@pytest.mark.parametrize(
    ("bound", "constants", "limit"),
    [
        (Dynamite(), {"pl_constant": 0.5}, "1 / smoothness = 0.25"),
        (AdaCoOpt(), {"pl_constant": 0.5, "lipschitz": 1.0}, "1 / smoothness = 0.25"),
        (Certified(), {"pl_constant": 0.5}, "1 / mean_smoothness = 0.25"),
        (Certified(), {"pl_constant": 0.5, "mean_smoothness": 2.0}, None),
        (NonConvex(), {}, "1 / mean_smoothness = 0.25"),
        (
            NonConvex(),
            {"curvature_floor": 4.0, "mean_smoothness": 1.0},
            "2 / (smoothness + curvature_floor) = 0.25",
        ),
    ],
)
def test_a_learning_rate_above_the_limit_of_the_bound_is_refused(bound, constants, limit):
    name = bound.name
    for eta in (0.2500001, 0.4):
        problem = problem_of({**constants, "learning_rate": eta}, BOUNDED)
        if limit is None:
            assert math.isfinite(bound.value(problem, 1, 1, 1))
        else:
            refused(
                lambda problem=problem: solve_allocation(problem, bound=bound),
                f"learning_rate = {eta!r}: the {name} bound needs learning_rate <= {limit}",
            )
    at_the_limit = problem_of({**constants, "learning_rate": 0.25}, BOUNDED)
    assert math.isfinite(bound.value(at_the_limit, 2, 1, 1))


@pytest.mark.parametrize(
    ("budget", "field", "quantity"),
    [
        (Budget(), "max_rounds", "rounds K"),
        (Budget(max_local_steps=5), "max_rounds", "rounds K"),
        (Budget(time=50.0, max_local_steps=5), "max_rounds", "rounds K"),
        (Budget(max_rounds=5), "max_local_steps", "local_steps tau"),
    ],
)
def test_an_unbounded_count_names_the_missing_limit(budget, field, quantity):
    with pytest.raises(InvalidProblemError) as caught:
        solve_allocation(problem_of({"pl_constant": 0.5}, budget))
    message = str(caught.value)
    assert message.startswith(f"{quantity} is unbounded: set Budget({field}=...)")
    assert "cost or time limit" in message


def test_a_free_round_is_unbounded_although_the_cost_is_limited():
    with pytest.raises(InvalidProblemError, match="rounds K is unbounded"):
        solve_allocation(problem_of({"pl_constant": 0.5}, Budget(cost=10.0), sample_cost=0.0))
