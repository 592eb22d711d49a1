"""Certificates: an allocation recomputed by code that shares nothing with the solvers.

Feasibility is recomputed with correctly rounded sums, and the error bound at 50 digits from its symbolic
statement in ``coopt_bounds``; neither the numeric kernels nor the inner solvers take part.
"""

from __future__ import annotations

import importlib
import math

import numpy as np
from numpy.typing import NDArray

from coopt.allocation import Allocation, Certificate
from coopt.bound import AdaCoOpt, Certified, Dynamite, NonConvex, YoungFamily
from coopt.errors import CertificateError
from coopt.limits import TOLERANCE
from coopt.problem import Problem

AGREEMENT = 1e-11
DIGITS = 50
# Stand-ins for the limits z -> 0 and z -> inf, beyond any digit that is compared.
VANISHING, UNBOUNDED = "1e-300", "1e300"

Floats = NDArray[np.float64]


def certify(allocation: Allocation) -> Certificate:
    """Recompute an allocation; see :meth:`Allocation.certify`."""
    problem, batches = allocation.problem, allocation.batch_sizes
    _check_batches(problem, batches)
    cost = _cost(problem, allocation)
    seconds = max(
        allocation.rounds * (allocation.local_steps * s / pi + u)
        for s, pi, u in zip(
            batches.tolist(),
            problem.fleet.throughput.tolist(),
            problem.fleet.round_time.tolist(),
            strict=True,
        )
    )
    budget = problem.budget
    for name, used, allowed in (
        ("cost", cost, budget.cost * (1.0 + TOLERANCE)),
        ("time", seconds, budget.time * (1.0 + TOLERANCE)),
        ("max_rounds", allocation.rounds, budget.max_rounds or math.inf),
        ("max_local_steps", allocation.local_steps, budget.max_local_steps or math.inf),
    ):
        # One part in 1e12 beyond the tolerance is the rounding of the sums, not a broken limit.
        if used > allowed * (1.0 + 1e-12):
            raise CertificateError(f"{name}: {used!r} exceeds the limit {allowed!r}")
    value = error_bound(allocation)
    for name, claimed, found in (
        ("cost", allocation.cost, cost),
        ("time", allocation.time, seconds),
        ("error_bound", allocation.error_bound, value),
    ):
        # At eta c = 1 the exact product of two floats may exceed one, and q^T then is not zero but tiny.
        if not math.isclose(claimed, found, rel_tol=AGREEMENT, abs_tol=1e-15 * problem.constants.initial_gap):
            raise CertificateError(f"{name}: claimed {claimed!r}, recomputed {found!r}")
    if allocation.lower_bound > allocation.objective_value:
        raise CertificateError(
            f"lower_bound = {allocation.lower_bound!r} exceeds the value {allocation.objective_value!r}"
        )
    difference = 0.0 if value == 0.0 else abs(allocation.error_bound - value) / abs(value)
    return Certificate(value, cost, seconds, difference)


def _check_batches(problem: Problem, batches: NDArray[np.int64]) -> None:
    fleet = problem.fleet
    for name, bad in (
        ("min_batch", batches < fleet.min_batch),
        ("max_batch", batches > fleet.max_batch),
        ("batch_multiple", batches % fleet.batch_multiple != 0),
    ):
        if bad.any():
            i = int(bad.argmax())
            raise CertificateError(
                f"batch_sizes[{i}] = {batches[i]}: breaks {name} = {getattr(fleet, name)[i]}"
            )


def _cost(problem: Problem, allocation: Allocation) -> float:
    work = math.fsum((problem.fleet.sample_cost * allocation.batch_sizes).tolist())
    return allocation.rounds * (allocation.local_steps * work + problem.budget.round_cost)


def error_bound(allocation: Allocation) -> float:
    """The error bound of the plan from the symbolic statement of its bound, at 50 digits.

    A user's own bound has no statement here: its coefficients are summed with correct rounding.
    """
    bound, problem = allocation.bound_object, allocation.problem
    rounds, local_steps = allocation.rounds, allocation.local_steps
    if not isinstance(bound, Certified | NonConvex | Dynamite | AdaCoOpt):
        offset, weights = bound.coefficients(problem, rounds, local_steps)
        return math.fsum([offset, *(weights / allocation.batch_sizes).tolist()])
    name = type(bound).__name__.lower()
    theorem = importlib.import_module(f"coopt_bounds.{name}").theorem
    values = {"K": rounds, "tau": local_steps, **_noise(problem, allocation.batch_sizes)}
    values |= _young_values(bound, problem, local_steps) if isinstance(bound, YoungFamily) else {}
    constants = problem.constants
    values |= {
        "eta": constants.learning_rate,
        "beta": constants.smoothness,
        "c": constants.pl_constant,
        "D_0": constants.initial_gap,
    }
    if isinstance(bound, AdaCoOpt):
        values["rho"] = constants.lipschitz
    if isinstance(bound, Dynamite):
        rho = constants.quadratic_continuity
        values["rho"] = 1.0 / (constants.learning_rate * local_steps) if rho is None else rho
    return float(theorem.evaluate({key: value for key, value in values.items() if value is not None}, DIGITS))


def _noise(problem: Problem, batches: NDArray[np.int64]) -> dict[str, float | str | int | None]:
    """The sums over devices, each correctly rounded."""
    fleet = problem.fleet
    inverse = 1.0 / batches if fleet.replacement else (fleet.samples - batches) / (batches * fleet.samples)
    p, noise = fleet.weights, fleet.gradient_noise * inverse
    return {
        "sigma2": math.fsum((p * p * noise).tolist()),
        "nu2": math.fsum((p * (1.0 - p) * noise).tolist()),
        "deltabar": math.fsum((p * fleet.divergence).tolist()),
        "d_h": math.sqrt(math.fsum((p * fleet.divergence**2).tolist())),
    }


def _young_values(
    bound: YoungFamily, problem: Problem, local_steps: int
) -> dict[str, float | str | int | None]:
    constants = problem.constants
    beta = constants.smoothness
    ell = -beta if constants.curvature_floor is None else constants.curvature_floor
    coupling = (beta - ell) / 2.0 if constants.coupling is None else constants.coupling
    gamma, z = float(bound.gamma), float(bound.z)
    return {
        "beta_F": beta if constants.mean_smoothness is None else constants.mean_smoothness,
        "ell": ell,
        # One local step leaves no drift, whatever couples: that is the case in which gamma may vanish.
        "beta_d": 0.0 if local_steps == 1 else coupling,
        "gamma": gamma or VANISHING,
        "z": VANISHING if z == 0.0 else UNBOUNDED if z == math.inf else z,
    }
