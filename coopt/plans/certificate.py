"""Certificates: an allocation recomputed by code that shares nothing with the solvers.

Feasibility is recomputed with correctly rounded sums, the error bound at 50 digits from its symbolic
statement in ``coopt_bounds``, and a forecast step by step; neither the numeric kernels nor the inner solvers
take part. A second proof of the lower bound is built with the solvers' help, and checked without it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coopt.errors import CertificateError
from coopt.objectives.forecast.forecast import Forecast
from coopt.objectives.forecast.phases import Setting
from coopt.objectives.statement import Number
from coopt.objectives.users_own import completed
from coopt.plans import prover
from coopt.plans.allocation import VALUE, Allocation, Certificate, Status
from coopt.plans.forecast_certificate import recomputed
from coopt.plans.forecast_proof import Enumerated, prove_forecast
from coopt.plans.proof import Checker, Proof
from coopt.problem.exact_sum import exact_sum
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem
from coopt.problem.validation import shown

AGREEMENT = 1e-11
# Forecasts have terms that cancel: the loss is small where the model is close to the best one.
FORECAST_AGREEMENT = 1e-9
DIGITS = 50
# The gap up to which an optimum is proved: rounding, or the tolerance with which a target is met.
PROOF = {"error": 1e-11, "cost": 1e-7, "time": 1e-7}
# By so much less than claimed no plan may cost, or take: twice the tolerance of limits.
UNDERCUT = 2.0 * TOLERANCE

Floats = NDArray[np.float64]


def certify(allocation: Allocation, deep: bool = False, forecast: Forecast | None = None) -> Certificate:
    """Recompute an allocation; see :meth:`Allocation.certify`."""
    problem, batches = allocation.problem, allocation.batch_sizes
    _check_counts(allocation)
    _check_batches(problem, batches)
    seconds = _seconds(problem, allocation)
    cost = _cost(problem, allocation) + problem.budget.second_cost * seconds
    budget = problem.budget
    for name, used, allowed in (
        ("cost", cost, budget.cost * (1.0 + TOLERANCE)),
        ("time", seconds, budget.time * (1.0 + TOLERANCE)),
        ("energy", _energy(problem, allocation), budget.energy * (1.0 + TOLERANCE)),
        ("max_rounds", allocation.rounds, budget.max_rounds or math.inf),
        ("max_local_steps", allocation.local_steps, budget.max_local_steps or math.inf),
    ):
        # One part in 1e12 beyond the tolerance is the rounding of the sums, not a broken limit.
        if not used <= allowed * (1.0 + 1e-12):
            raise CertificateError(f"{name}: {used!r} exceeds the limit {allowed!r}")
    if allocation.is_bound:
        value, agreement, slack = error_bound(allocation), AGREEMENT, _cancellation(allocation)
    else:
        known = allocation.bound_object.forecast if forecast is None else forecast
        value, agreement, slack = _forecast(allocation, known)
    for name, claimed, found, relative, absolute in (
        ("cost", allocation.cost, cost, AGREEMENT, 0.0),
        ("time", allocation.time, seconds, AGREEMENT, 0.0),
        (VALUE[allocation.is_bound], allocation.predicted_error, value, agreement, slack),
    ):
        if not math.isfinite(claimed):
            raise CertificateError(f"{name}: claimed {claimed!r}, which is no finite number")
        if not math.isclose(claimed, found, rel_tol=relative, abs_tol=absolute):
            raise CertificateError(f"{name}: claimed {claimed!r}, recomputed {found!r}")
    _check_claims(allocation)
    difference = 0.0 if value == 0.0 else abs(allocation.predicted_error - value) / abs(value)
    proof = prove_again(allocation, forecast) if deep else None
    return Certificate(value, cost, seconds, difference, proof, allocation.is_bound)


def prove_again(allocation: Allocation, forecast: Forecast | None = None) -> Proof | Enumerated | None:
    """A new proof of the lower bound of an allocation, checked; of a forecast's, by trying every (K, tau).

    Where cost or time was minimised it proves that nothing within slightly less reaches the target; None
    where the lower bound is zero, since no plan uses less than nothing.

    Raises
    ------
    CertificateError
        If there is no claim to prove, or the claim is refuted, or its proof fails.
    """
    claim, problem = allocation.claim, allocation.problem
    if claim is None or allocation.lower_bound == -math.inf:
        raise CertificateError(
            "deep: the lower bound is no claim about all plans within the limits of the problem, and cannot "
            "be proved from them"
        )
    target = allocation.lower_bound
    if allocation.objective != "error" and allocation.target_error is not None:
        if allocation.lower_bound <= 0.0:
            return None
        # A limit is met up to its tolerance; so is a target.
        less = allocation.lower_bound * (1.0 - UNDERCUT)
        budget = problem.budget
        costs = allocation.objective == "cost"
        budget = replace(budget, cost=less) if costs else replace(budget, time=less)
        problem = replace(problem, budget=budget)
        target = allocation.target_error
    if not allocation.is_bound:
        known = _made_from(allocation, allocation.bound_object.forecast if forecast is None else forecast)
        return prove_forecast(problem, known, target, claim.rounds, claim.local_steps)
    bound = completed(claim.bound).prunable
    if bound is None:
        raise CertificateError(
            f"deep: {claim.bound.name!r} declares no monotone form, so only a search through all plans could "
            "prove anything"
        )
    form = bound.monotone_form(problem)
    proof = prover.prove(problem, form, target, claim.rounds, claim.local_steps)
    Checker(problem, form).check(proof, claim.rounds, claim.local_steps)
    return proof


def _check_counts(allocation: Allocation) -> None:
    for name, value in (("rounds", allocation.rounds), ("local_steps", allocation.local_steps)):
        if value < 1:
            raise CertificateError(f"{name} = {value!r}: must be at least 1")
    shape, size = allocation.batch_sizes.shape, len(allocation.problem.fleet)
    if shape != (size,):
        raise CertificateError(f"batch_sizes has shape {shape}: must be ({size},), one batch a device")
    steps = allocation.device_steps
    if steps is None:
        return
    if steps.shape != (size,) or steps.min() < 1 or steps.max() != allocation.local_steps:
        raise CertificateError(
            f"device_steps = {shown(steps.tolist())}: must be from 1 to local_steps = "
            f"{allocation.local_steps}, one number a device, and the largest as many"
        )
    if allocation.is_bound:
        raise CertificateError("device_steps: a bound says nothing of devices with steps of their own")


def _check_claims(allocation: Allocation) -> None:
    """What is said of the numbers that were recomputed."""
    value, lower, status = allocation.objective_value, allocation.lower_bound, allocation.status
    own = {"error": allocation.predicted_error, "cost": allocation.cost, "time": allocation.time}
    if value != own.get(allocation.objective):
        raise CertificateError(f"objective_value = {value!r}: is not the {allocation.objective} of the plan")
    target = allocation.target_error
    if target is not None and not allocation.predicted_error <= target * (1.0 + TOLERANCE):
        name = VALUE[allocation.is_bound]
        raise CertificateError(f"{name} = {allocation.predicted_error!r}: misses the target {target!r}")
    rate = allocation.problem.constants.learning_rate
    if allocation.learning_rate != rate:
        raise CertificateError(f"learning_rate = {allocation.learning_rate!r}: the problem has {rate!r}")
    for name in ("rounds", "local_steps"):
        fixed = getattr(allocation.claim, name, None)
        if fixed is not None and fixed != getattr(allocation, name):
            raise CertificateError(
                f"claim: nothing is said of plans with {name} = {fixed}, and this has others"
            )
    # Also refuses a bound that is not a number.
    if not lower <= value:
        raise CertificateError(f"lower_bound = {lower!r} exceeds the value {value!r}")
    if status is Status.OPTIMAL and allocation.gap > PROOF[allocation.objective]:
        raise CertificateError(f"status = {status.name}: the gap is {allocation.gap!r}")
    if status is Status.EVALUATED and lower != -math.inf:
        raise CertificateError(f"lower_bound = {lower!r}: nothing is proved of a plan that was given")


def _check_batches(problem: Problem, batches: NDArray[np.int64]) -> None:
    fleet = problem.fleet
    for name, bad in (
        ("min_batch", batches < fleet.min_batch),
        ("max_batch", batches > fleet.max_batch),
        ("batch_multiple", batches % fleet.batch_multiple != 0),
        ("batch_choices", _not_among(batches, fleet.batch_choices)),
    ):
        if bad.any():
            i = int(bad.argmax())
            raise CertificateError(
                f"batch_sizes[{i}] = {batches[i]}: breaks {name} = {getattr(fleet, name)[i]}"
            )


def _not_among(batches: NDArray[np.int64], choices: tuple[tuple[int, ...], ...] | None) -> NDArray[np.bool_]:
    if choices is None:
        return np.zeros(batches.size, dtype=bool)
    return np.array([size not in each for size, each in zip(batches.tolist(), choices, strict=True)])


def _cost(problem: Problem, allocation: Allocation) -> float:
    fleet = problem.fleet
    step = fleet.sample_cost * allocation.batch_sizes + fleet.step_cost
    spent = allocation.steps * step + fleet.round_cost
    return allocation.rounds * exact_sum([problem.budget.round_cost, *_expected(problem, spent).tolist()])


def _seconds(problem: Problem, allocation: Allocation) -> float:
    fleet, batches = problem.fleet, allocation.batch_sizes
    slowest: float = max(
        allocation.rounds * (steps * (alpha * -(-s // m) + s / pi) + u)
        for steps, s, m, alpha, pi, u in zip(
            allocation.steps.tolist(),
            batches.tolist(),
            (batches if fleet.micro_batch is None else fleet.micro_batch).tolist(),
            fleet.step_time.tolist(),
            fleet.throughput.tolist(),
            fleet.round_time.tolist(),
            strict=True,
        )
    )
    return slowest


def _energy(problem: Problem, allocation: Allocation) -> float:
    fleet = problem.fleet
    step = fleet.sample_energy * allocation.batch_sizes + fleet.step_energy
    burnt = allocation.steps * step + fleet.round_energy
    return allocation.rounds * exact_sum(_expected(problem, burnt))


def _expected(problem: Problem, used: Floats) -> Floats:
    """What each device uses in a round, times how likely it takes part."""
    budget, m = problem.budget, problem.budget.participants
    if m is None:
        return used
    if budget.distinct_participants:
        return used * (m / len(problem.fleet))
    with np.errstate(divide="ignore"):
        drawn: Floats = -np.expm1(m * np.log1p(-problem.fleet.weights))
    return used * drawn


def error_bound(allocation: Allocation) -> float:
    """The error bound of the plan from the symbolic statement of its bound, at 50 digits.

    A user's own bound has no statement here: its coefficients are summed with correct rounding.
    """
    bound, problem = allocation.bound_object, allocation.problem
    rounds, local_steps = allocation.rounds, allocation.local_steps
    statement = bound.statement(problem, local_steps)
    if statement is None:
        offset, weights = bound.coefficients(problem, rounds, local_steps)
        return exact_sum([offset, *(weights / allocation.batch_sizes).tolist()])
    try:
        return float(statement.theorem.evaluate(plan_values(allocation) | dict(statement.values), DIGITS))
    except KeyError as error:
        raise CertificateError(f"{VALUE[True]}: the constants of the problem have {error.args[0]}") from error
    except ZeroDivisionError as error:
        raise CertificateError(
            f"{VALUE[True]}: at {DIGITS} digits, its terms cancel to nothing that can be divided by"
        ) from error
    except ArithmeticError as error:
        raise CertificateError(f"{VALUE[True]}: its terms cancel, and {error}") from error


def plan_values(allocation: Allocation) -> dict[str, Number]:
    """Numbers for the symbols of a statement that depend on the plan."""
    noise = _noise(allocation.problem, allocation.batch_sizes)
    return {"K": allocation.rounds, "tau": allocation.local_steps, **noise}


def _cancellation(allocation: Allocation) -> float:
    """How far two evaluations of the bound may lie apart where its terms cancel."""
    bound, problem = allocation.bound_object, allocation.problem
    if bound.statement(problem, allocation.local_steps) is not None:
        # At eta c = 1 the exact product of two floats may exceed one, and q^T then is not zero but tiny.
        return 1e-15 * problem.constants.initial_gap
    offset, weights = bound.coefficients(problem, allocation.rounds, allocation.local_steps)
    return 1e-14 * (abs(offset) + float(np.sum(weights / allocation.batch_sizes)))


def _forecast(allocation: Allocation, forecast: Forecast | None) -> tuple[float, float, float]:
    """The forecast of the plan step by step, and how far another evaluation may lie from it."""
    made_from, rate = _made_from(allocation, forecast), allocation.problem.constants.learning_rate
    plan = [(Setting(allocation.rounds, allocation.local_steps, rate), allocation.batch_sizes)]
    value = recomputed(made_from, allocation.problem, plan)
    return value, FORECAST_AGREEMENT, 1e-13 * made_from.initial_gap


def _made_from(allocation: Allocation, forecast: Forecast | None) -> Forecast:
    """The forecast of an allocation, from what was measured; it must be that which the plan was made from."""
    if forecast is None or allocation.source is None:
        raise CertificateError("the plan has no forecast to recompute")
    claimed, given = allocation.source.measurement, forecast.model.digest
    if claimed != given:
        raise CertificateError(
            f"measurement: the plan was made from the one with SHA-256 {claimed[:12]}..., and this one has "
            f"{given[:12]}..."
        )
    source = allocation.source
    made = Forecast(forecast.model, trained=source.trained, optimiser=source.optimiser)
    return made.with_device_steps(allocation.device_steps)


def _noise(problem: Problem, batches: NDArray[np.int64]) -> dict[str, float]:
    """The sums over devices, each correctly rounded."""
    fleet = problem.fleet
    inverse = 1.0 / batches
    if not fleet.replacement:
        # Not as a product of whole numbers, which 64 bits do not hold where both are large.
        inverse *= (fleet.samples - batches) / fleet.samples
    p, noise = fleet.weights, fleet.gradient_noise * inverse + fleet.step_noise
    return {
        "sigma2": exact_sum(p * p * noise),
        "nu2": exact_sum(p * (1.0 - p) * noise),
        "deltabar": exact_sum(p * fleet.divergence),
        "d_h": math.sqrt(exact_sum(p * fleet.divergence**2)),
    }
