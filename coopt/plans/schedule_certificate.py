"""The certificate of a schedule: limits in exact arithmetic, and its forecast step by step.

Shares no code with the search: fractions instead of floats for what is used, and for the forecast
:mod:`coopt.plans.forecast_certificate`.
"""

from __future__ import annotations

import math
from fractions import Fraction

from coopt.errors import CertificateError
from coopt.objectives.forecast.forecast import Forecast
from coopt.plans.allocation import Status
from coopt.plans.forecast_certificate import recomputed
from coopt.plans.phase import Phase
from coopt.plans.schedule import Schedule, ScheduleCertificate
from coopt.problem.fleet import Fleet
from coopt.problem.limits import TOLERANCE
from coopt.problem.problem import Problem

# What two ways to compute a forecast may differ by, relative to it and to the initial gap.
AGREEMENT, CANCELLATION = 1e-7, 1e-11
# For exact sums against sums of floats.
SUMS = 1e-11


def certify(schedule: Schedule, forecast: Forecast) -> ScheduleCertificate:
    """Recompute a schedule; see :meth:`Schedule.certify`."""
    problem = schedule.problem
    for place, phase in enumerate(schedule.phases):
        _check_batches(problem.fleet, phase, place)
    cost, energy = _spent(schedule, energy=False), _spent(schedule, energy=True)
    seconds = sum((_seconds(problem.fleet, phase) for phase in schedule.phases), Fraction(0))
    budget = problem.budget
    cost += Fraction(budget.second_cost) * seconds
    rounds = sum(phase.rounds for phase in schedule.phases)
    steps = max(phase.local_steps for phase in schedule.phases)
    for name, used, allowed in (
        ("cost", cost, budget.cost),
        ("time", seconds, budget.time),
        ("energy", energy, budget.energy),
        ("max_rounds", Fraction(rounds), budget.max_rounds or math.inf),
        ("max_local_steps", Fraction(steps), budget.max_local_steps or math.inf),
    ):
        if allowed < math.inf and used > Fraction(allowed) * (1 + Fraction(TOLERANCE)):
            raise CertificateError(f"{name}: {float(used)!r} exceeds the limit {allowed!r}")
    parts = [(phase.setting, phase.batch_sizes) for phase in schedule.phases]
    value = recomputed(forecast, problem, parts)
    slack = CANCELLATION * abs(forecast.initial_gap)
    for name, claimed, found, relative, absolute in (
        ("cost", schedule.cost, float(cost), SUMS, 0.0),
        ("time", schedule.time, float(seconds), SUMS, 0.0),
        ("predicted_error", schedule.predicted_error, value, AGREEMENT, slack),
    ):
        if not math.isfinite(claimed):
            raise CertificateError(f"{name}: claimed {claimed!r}, which is no finite number")
        if not math.isclose(claimed, found, rel_tol=relative, abs_tol=absolute):
            raise CertificateError(f"{name}: claimed {claimed!r}, recomputed {found!r}")
    if not schedule.lower_bound <= schedule.predicted_error:
        raise CertificateError(
            f"lower_bound = {schedule.lower_bound!r} exceeds the value {schedule.predicted_error!r}"
        )
    if schedule.lower_bound > -math.inf and (
        len(schedule.phases) > 1 or schedule.status in (Status.EVALUATED, Status.HEURISTIC)
    ):
        raise CertificateError(f"lower_bound = {schedule.lower_bound!r}: nothing is proved of such a plan")
    difference = 0.0 if value == 0.0 else abs(schedule.predicted_error - value) / abs(value)
    return ScheduleCertificate(value, float(cost), float(seconds), difference)


def _check_batches(fleet: Fleet, phase: Phase, place: int) -> None:
    batches = phase.batch_sizes
    if batches.shape != (len(fleet),):
        raise CertificateError(f"phases[{place}] has {batches.size} batch sizes: must have {len(fleet)}")
    for name, bad in (
        ("min_batch", batches < fleet.min_batch),
        ("max_batch", batches > fleet.max_batch),
        ("batch_multiple", batches % fleet.batch_multiple != 0),
    ):
        if bad.any():
            i = int(bad.argmax())
            raise CertificateError(
                f"phases[{place}].batch_sizes[{i}] = {batches[i]}: breaks {name} = {getattr(fleet, name)[i]}"
            )


def _spent(schedule: Schedule, *, energy: bool) -> Fraction:
    """Cost, or energy, of all phases."""
    fleet, budget = schedule.problem.fleet, schedule.problem.budget
    kinds = (
        ("sample_energy", "step_energy", "round_energy")
        if energy
        else ("sample_cost", "step_cost", "round_cost")
    )
    sample, step, once = (getattr(fleet, kind).tolist() for kind in kinds)
    likely = _likely(schedule.problem)
    spent = Fraction(0)
    for phase in schedule.phases:
        each = Fraction(0 if energy else budget.round_cost)
        for share, s, a, f, b in zip(likely, phase.batch_sizes.tolist(), sample, step, once, strict=True):
            each += share * (phase.local_steps * (Fraction(a) * s + Fraction(f)) + Fraction(b))
        spent += phase.rounds * each
    return spent


def _likely(problem: Problem) -> list[Fraction]:
    """How likely each device takes part in a round."""
    taken, n = problem.budget.participants, len(problem.fleet)
    if taken is None:
        return [Fraction(1)] * n
    if problem.budget.distinct_participants:
        return [Fraction(taken, n)] * n
    return [
        Fraction(-math.expm1(taken * math.log1p(-min(p, 1.0 - 1e-16))))
        for p in problem.fleet.weights.tolist()
    ]


def _seconds(fleet: Fleet, phase: Phase) -> Fraction:
    """Seconds of all rounds of a phase: the slowest device sets each."""
    slowest = max(
        phase.local_steps * (Fraction(alpha) + (Fraction(s) / Fraction(pi) if pi < math.inf else 0))
        + Fraction(u)
        for s, alpha, pi, u in zip(
            phase.batch_sizes.tolist(),
            fleet.step_time.tolist(),
            fleet.throughput.tolist(),
            fleet.round_time.tolist(),
            strict=True,
        )
    )
    return phase.rounds * slowest
