"""What a plan claims of itself, at the ends of the range of floats and of whole numbers."""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from coopt import Allocation, Budget, Constants, Fleet, Problem, evaluate, solve_allocation
from coopt.errors import CertificateError, CooptError, InvalidProblemError
from coopt.plans.allocation import Status

FLEET = Fleet([10, 10], gradient_noise=4.0, divergence=0.1)


def beyond_floats(**constants: float) -> Problem:
    known = {"learning_rate": 1.0, "smoothness": 1.0, "initial_gap": 1.0, "pl_constant": 0.1} | constants
    return Problem(FLEET, Constants(**known), Budget(cost=1e5))


@pytest.mark.parametrize(
    ("problem", "local_steps"),
    [(beyond_floats(), 2000), (beyond_floats(learning_rate=0.1, gradient_bias=1e200), None)],
    ids=["many local steps", "large gradient bias"],
)
def test_an_infinite_value_is_never_optimal(problem: Problem, local_steps: int | None) -> None:
    with pytest.warns():
        plan = solve_allocation(problem, local_steps=local_steps)
    assert plan.error_bound == math.inf
    assert plan.status is Status.HEURISTIC
    assert plan.gap == math.inf
    with pytest.raises(CertificateError, match="error_bound: claimed inf, which is no finite number"):
        plan.certify()


@pytest.fixture(scope="module")
def plan() -> Allocation:
    problem = Problem(FLEET, Constants(0.1, 1.0, 1.0, pl_constant=0.1, curvature_floor=0.0), Budget(cost=300))
    return solve_allocation(problem)


@pytest.mark.parametrize("name", ["predicted_error", "objective_value", "lower_bound", "cost", "time"])
def test_nan_is_refused(plan: Allocation, name: str) -> None:
    plan.certify()
    with pytest.raises(CertificateError):
        replace(plan, **{name: math.nan}).certify()


def test_a_rate_of_progress_without_exact_digits_is_refused() -> None:
    with pytest.raises(InvalidProblemError, match=r"pl_constant = 5e-324: times learning_rate = 0\.1"):
        Constants(0.1, 1.0, 1.0, pl_constant=5e-324)


def test_products_of_batches_and_samples_beyond_64_bits_are_certified() -> None:
    fleet = Fleet([10**12] * 2, 4.0, 0.1, replacement=False)
    problem = Problem(fleet, Constants(0.1, 1.0, 1.0, pl_constant=0.1, curvature_floor=0.0), Budget())
    given = evaluate(problem, 3, 2, 10**7)
    assert given.certify().error_bound == pytest.approx(given.error_bound, rel=1e-14)


def test_no_plan_takes_less_than_no_time() -> None:
    problem = Problem(
        Fleet([6, 4], 1.0, 0.1), Constants(0.1, 1.0, 1.0, pl_constant=0.1), Budget(cost=500, round_cost=1)
    )
    fastest = solve_allocation(problem, objective="time", bound="dynamite", target_error=0.8)
    assert fastest.time == fastest.lower_bound == 0.0
    certificate = fastest.certify(deep=True)
    assert (certificate.time, certificate.proof) == (0.0, None)
    with pytest.raises(CertificateError, match="exceeds the value"):
        replace(fastest, lower_bound=1e-9).certify(deep=True)


ALTERED = {
    "rounds": 7,
    "local_steps": 2,
    "batch_sizes": np.array([10, 9]),
    "predicted_error": 0.1,
    "objective": "cost",
    "objective_value": 0.1,
    "lower_bound": 0.0,
    "cost": 299.5,
    "time": 1.0,
    "status": Status.EVALUATED,
    "bound": "dynamite",
    "learning_rate": 0.2,
    "target_error": 1e-3,
}
NOT_COVERED = {
    "binding": ("time",),
    "shadow_prices": {"cost": 5.0},
    "solver": "cvxpy",
    "solve_seconds": 1e9,
    "trace": {"boxes": 1},
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_a_certificate_covers_cannot_be_altered(plan: Allocation, name: str) -> None:
    with pytest.raises(CooptError):
        replace(plan, **{name: ALTERED[name]}).certify()


def leaves(
    value: object, above: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Every number, text and null of a document, with the way to it."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*above, key))
    else:
        yield above, value


def other_values(value: object) -> list[object]:
    if isinstance(value, int | float):
        near = [value * 1.001, value * 0.999, value + 1, value - 1, 0, -value, math.nan, math.inf, None, "x"]
        return [other for other in near if other != value]
    return ["x", "", 0, 1.5, [], {}]


def test_no_altered_claim_in_a_file_is_certified(plan: Allocation) -> None:
    document = json.loads(plan.to_json())
    altered = 0
    for way, value in leaves(document):
        # That a target of 1.5 is met is true, and no claim.
        if way[0] in ("problem", "target_error") or way[0] in NOT_COVERED:
            continue
        for other in other_values(value):
            changed = copy.deepcopy(document)
            inner = changed
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = other
            altered += 1
            with pytest.raises(CooptError):
                Allocation.from_dict(changed).certify()
    assert altered > 100


def test_a_bound_whose_constant_is_missing_is_no_claim(plan: Allocation) -> None:
    document = json.loads(plan.to_json())
    document["problem"]["constants"]["pl_constant"] = None
    with pytest.raises(CooptError, match=r"no value for c|pl_constant"):
        Allocation.from_dict(document).certify()


@pytest.mark.parametrize("name", NOT_COVERED)
def test_what_a_certificate_does_not_cover_is_named(plan: Allocation, name: str) -> None:
    assert replace(plan, **{name: NOT_COVERED[name]}).certify().cost == plan.cost
    assert f"``{name}``" in str(Allocation.certify.__doc__).split("Not covered is")[1]
