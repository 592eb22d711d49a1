"""What a plan costs, how long it takes, and which plans the budget admits: the one definition.

A limit is met when ``used <= limit * (1 + TOLERANCE)``. The tolerance is a million times the rounding
error of the sums below, so decimal data that sit exactly on a limit are feasible for every solver and
every certificate alike. The functions that invert a limit (how many rounds, which batch size) start
from a quotient and then ask the same comparison, so no floor can be off by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coopt.problem.admissible_batches import round_to_choice
from coopt.problem.fleet import Fleet
from coopt.problem.validation import LARGEST_COUNT, shown

if TYPE_CHECKING:
    from coopt.problem.problem import Problem

TOLERANCE = 1e-9
# Devices that are looked at together: a dozen temporary arrays of this length stay in cache.
BLOCK = 32768

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Places = NDArray[np.intp] | slice


@dataclass(frozen=True)
class Violation:
    """One limit that a plan breaks; its text says by how much.

    Attributes
    ----------
    limit : str
        ``"cost"``, ``"time"``, ``"energy"``, ``"max_rounds"``, ``"max_local_steps"``, ``"min_batch"``,
        ``"max_batch"``, ``"batch_multiple"``, ``"batch_choices"``, ``"rounds"`` or ``"local_steps"``.
    used, allowed : float
        What the plan uses and what is allowed, in the unit of the limit.
    device : int or None
        The (first) device that breaks it, where one does.
    name : str or None
        What the fleet calls it.
    """

    limit: str
    used: float
    allowed: float
    device: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        unit = {"time": " s", "energy": " J"}.get(self.limit, "")
        relation = {
            "min_batch": "is below",
            "rounds": "is below",
            "local_steps": "is below",
            "batch_multiple": "is not a multiple of",
            "batch_choices": "is not allowed; the nearest that is:",
        }.get(self.limit, "exceeds")
        named = self.device if self.name is None else f"{self.device}, {shown(self.name)}"
        where = "" if self.device is None else f" (device {named})"
        return f"{self.limit}: {self.used:.12g}{unit} {relation} {self.allowed:.12g}{unit}{where}"


def within(used: float, limit: float) -> bool:
    """Whether a limit is met."""
    return used <= limit * (1.0 + TOLERANCE)


def within_all(used: Floats, limit: float) -> NDArray[np.bool_]:
    """The same for several uses."""
    result: NDArray[np.bool_] = used <= limit * (1.0 + TOLERANCE)
    return result


def work(problem: Problem, batch_sizes: NDArray[np.floating | np.integer]) -> float:
    """Cost sum a_i s_i of the samples of one local step on every device."""
    fleet = problem.plain.fleet
    common = fleet.common_cost
    if common is not None:
        if batch_sizes.strides == (0,):
            return common * float(batch_sizes.size * batch_sizes[0])
        # Whole batches add up exactly: the order of the devices cannot flip a verdict.
        return common * float(np.sum(batch_sizes))
    return float(np.sum(fleet.sample_cost * batch_sizes))


def cost(
    problem: Problem, rounds: int, local_steps: int, batch_sizes: NDArray[np.floating | np.integer]
) -> float:
    """Total cost K (tau (sum a_i s_i + sum f_i) + b + sum b_i) + w T, where w is the cost of a second."""
    spent = _cost_of_work(problem, rounds, local_steps, work(problem, batch_sizes))
    rent = problem.budget.second_cost
    return spent + rent * longest(problem, rounds, local_steps, batch_sizes)[0] if rent else spent


def _cost_of_work(problem: Problem, rounds: int, local_steps: int, samples: float) -> float:
    step = samples + problem.plain.fleet.whole_step_cost
    return rounds * (local_steps * step + problem.plain.budget.round_cost)


def energy(
    problem: Problem, rounds: int, local_steps: int, batch_sizes: NDArray[np.floating | np.integer]
) -> float:
    """Total energy K (tau (sum e_i s_i + sum h_i) + sum g_i) [J]."""
    fleet = problem.plain.fleet
    step = float(np.sum(fleet.sample_energy * batch_sizes)) + fleet.whole_step_energy
    return rounds * (local_steps * step + fleet.whole_round_energy)


def device_times(
    problem: Problem,
    rounds: int,
    local_steps: int,
    batch_sizes: NDArray[np.floating | np.integer],
    places: Places = slice(None),
) -> Floats:
    """Completion time K (tau (alpha_i ceil(s_i / m_i) + s_i / pi_i) + u_i) of every device [s].

    Or of those at `places`.
    """
    round_time = problem.fleet.round_time[places]
    # Times beyond float64 are infinite, and exceed every limit.
    with np.errstate(over="ignore"):
        times: Floats = rounds * (local_steps * step_times(problem, batch_sizes, places) + round_time)
    return times


def step_times(
    problem: Problem, batch_sizes: NDArray[np.floating | np.integer], places: Places = slice(None)
) -> Floats:
    """Seconds alpha_i ceil(s_i / m_i) + s_i / pi_i of a local step on every device, or those at `places`."""
    fleet = problem.fleet
    still = fleet.step_time[places]
    if fleet.micro_batch is not None:
        still = still * parts(fleet.micro_batch[places], batch_sizes)
    times: Floats = batch_sizes / fleet.throughput[places] + still
    return times


def parts(micro_batch: Ints, batch_sizes: NDArray[np.floating | np.integer]) -> Floats:
    """How many parts of at most so many samples a batch is taken in; at least one."""
    return np.maximum(np.ceil(batch_sizes / micro_batch), 1.0)


def overdrawn(
    problem: Problem, rounds: int, local_steps: int, batch_sizes: NDArray[np.floating | np.integer]
) -> list[Violation]:
    """The limits on rounds, local steps, cost, time and energy that a plan breaks."""
    budget = problem.budget
    found = [
        Violation(name, value, 1.0)
        for name, value in (("rounds", rounds), ("local_steps", local_steps))
        if value < 1
    ]
    for name, value, most in (
        ("max_rounds", rounds, budget.max_rounds),
        ("max_local_steps", local_steps, budget.max_local_steps),
    ):
        if most is not None and value > most:
            found.append(Violation(name, value, most))
    spent = cost(problem, rounds, local_steps, batch_sizes)
    if not within(spent, budget.cost):
        found.append(Violation("cost", spent, budget.cost))
    if budget.energy < math.inf:
        burnt = energy(problem, rounds, local_steps, batch_sizes)
        if not within(burnt, budget.energy):
            found.append(Violation("energy", burnt, budget.energy))
    if budget.time < math.inf:
        seconds, slowest = longest(problem, rounds, local_steps, batch_sizes)
        if not within(seconds, budget.time):
            found.append(Violation("time", seconds, budget.time, slowest, _name(problem, slowest)))
    return found


def _name(problem: Problem, device: int) -> str | None:
    names = problem.fleet.names
    return None if names is None else names[device]


def longest(
    problem: Problem, rounds: int, local_steps: int, batch_sizes: NDArray[np.floating | np.integer]
) -> tuple[float, int]:
    """The longest completion time of a device [s], and the first device that takes it."""
    found = (-math.inf, 0)
    for begin in range(0, batch_sizes.size, BLOCK):
        block = slice(begin, begin + BLOCK)
        times = device_times(problem, rounds, local_steps, batch_sizes[block], block)
        slowest = int(times.argmax())
        if times[slowest] > found[0]:
            found = float(times[slowest]), begin + slowest
    return found


def violations(problem: Problem, rounds: int, local_steps: int, batch_sizes: Floats) -> tuple[Violation, ...]:
    """Every limit that a plan breaks, see :meth:`Problem.violations`."""
    fleet, found = problem.fleet, overdrawn(problem, rounds, local_steps, batch_sizes)
    table = fleet.choice_table
    nearest = batch_sizes if table is None else fleet.rounded_down(batch_sizes)
    for name, bad, allowed in (
        ("min_batch", batch_sizes < fleet.min_batch, fleet.min_batch),
        ("max_batch", batch_sizes > fleet.max_batch, fleet.max_batch),
        ("batch_multiple", batch_sizes % fleet.batch_multiple != 0, fleet.batch_multiple),
        ("batch_choices", batch_sizes != nearest, nearest),
    ):
        if bad.any():
            i = int(bad.argmax())
            found.append(Violation(name, float(batch_sizes[i]), float(allowed[i]), i, _name(problem, i)))
    return tuple(found)


def step_budget(problem: Problem, rounds: float, local_steps: float) -> float:
    """Largest work sum a_i s_i of one step that the cost limit admits for given (K, tau); may be < 0."""
    budget = problem.plain.budget
    limit = budget.cost * (1.0 + TOLERANCE)
    return (limit / rounds - budget.round_cost) / local_steps - problem.plain.fleet.whole_step_cost


def step_energy_budget(problem: Problem, rounds: float, local_steps: float) -> float:
    """Largest energy sum e_i s_i of one step that the energy limit admits for given (K, tau); may be < 0."""
    fleet, limit = problem.plain.fleet, problem.budget.energy * (1.0 + TOLERANCE)
    return (limit / rounds - fleet.whole_round_energy) / local_steps - fleet.whole_step_energy


def step_units(problem: Problem, rounds: int, local_steps: int, unit_cost: float) -> int:
    """Most units that one step may process on all devices together when each costs `unit_cost`."""
    return _largest_count(
        lambda n: within(_cost_of_work(problem, rounds, local_steps, unit_cost * n), problem.budget.cost),
        step_budget(problem, rounds, local_steps),
        unit_cost,
    )


def largest_batches(
    problem: Problem, rounds: int, local_steps: int, upper: Ints, places: Places = slice(None)
) -> Ints:
    """Largest batches that the time limit admits, as multiples of batch_multiple and at most `upper`.

    With `places` only those of some devices, to which `upper` belongs then. An entry may lie below
    min_batch, or be negative, where the limit admits none.
    """
    budget, fleet = problem.budget, problem.fleet
    if budget.time == math.inf:
        return upper
    multiple = fleet.batch_multiple[places]
    if fleet.accumulates:
        real_cap = part_caps(fleet, _step_slack(problem, rounds, local_steps, places), places)
    else:
        real_cap = time_caps(problem, rounds, local_steps, places)
    # Clipping before the cast keeps infinities and huge values inside int64.
    units = np.floor(np.clip(real_cap, -1.0, upper) / multiple)
    limit = budget.time * (1.0 + TOLERANCE)

    def admitted(batches: Floats) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = device_times(problem, rounds, local_steps, batches, places) <= limit
        return result

    # The quotient may be off by rounding, so one unit more and the unit itself are asked of the definition.
    units += admitted((units + 1.0) * multiple) & ((units + 1.0) * multiple <= upper)
    units -= ~admitted(units * multiple)
    found = (units * multiple).astype(np.int64)
    table = fleet.choice_table
    return found if table is None else round_to_choice(table[places], found)


def time_caps(problem: Problem, rounds: int, local_steps: int, places: Places = slice(None)) -> Floats:
    """Continuous cap pi_i ((theta / K - u_i) / tau - alpha_i) of the devices' batches; +inf where none.

    Where batches are taken in parts it is that of a line below the time of a step, see :func:`step_lines`.
    """
    throughput, still = step_lines(problem, rounds, local_steps, places)
    slack = _step_slack(problem, rounds, local_steps, places) - still
    with np.errstate(invalid="ignore", over="ignore"):
        caps = throughput * slack
    # inf * 0: an infinitely fast device with no time left over can still process any batch.
    return np.where(np.isinf(throughput), np.where(slack >= 0.0, np.inf, -np.inf), caps)


def step_lines(
    problem: Problem, rounds: int, local_steps: int, places: Places = slice(None)
) -> tuple[Floats, Floats]:
    """Lines below the time of a step: samples a second, and seconds besides.

    A step in parts of m samples takes alpha ceil(s / m) + s / pi seconds. That is at least alpha + s / pi and
    at least s (alpha / m + 1 / pi), with equality at one sample and at whole parts: no convex function that
    never exceeds it is larger. Of the two this is the one that holds a batch at (K, tau).
    """
    fleet = problem.fleet
    throughput, still = fleet.throughput[places], fleet.step_time[places]
    if not fleet.accumulates or fleet.micro_batch is None:
        return throughput, still
    several = (
        _step_slack(problem, rounds, local_steps, places) > still + fleet.micro_batch[places] / throughput
    )
    return np.where(several, fleet.part_throughput[places], throughput), np.where(several, 0.0, still)


def _step_slack(problem: Problem, rounds: int, local_steps: int, places: Places) -> Floats:
    """Seconds that the time limit leaves each device for a step."""
    slack: Floats = problem.budget.time * (1.0 + TOLERANCE) / rounds - problem.fleet.round_time[places]
    return slack / local_steps


def part_caps(fleet: Fleet, slack: Floats, places: Places = slice(None)) -> Floats:
    """The largest real batches, taken in parts, for which a local step has `slack` seconds."""
    size = np.ones(1) if fleet.micro_batch is None else fleet.micro_batch[places].astype(np.float64)
    throughput, still = fleet.throughput[places], fleet.step_time[places]
    best = np.full(slack.shape, -np.inf)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        whole = np.floor(slack / (still + size / throughput))
        # Rounding may have counted a part too many or too few.
        for full in (whole - 1.0, whole, whole + 1.0):
            rest = throughput * (slack - still * (full + 1.0))
            # inf * 0: a part that takes no time beyond its own.
            rest = np.where(np.isnan(rest), np.inf, rest)
            batch = np.minimum(rest, size * (full + 1.0))
            best = np.where((batch > size * full) & (full >= 0.0), np.maximum(best, batch), best)
            fits = (full >= 1.0) & (full * (still + size / throughput) <= slack)
            best = np.where(fits, np.maximum(best, full * size), best)
    endless = (still == 0.0) & np.isinf(throughput)
    return np.where(endless, np.where(slack >= 0.0, np.inf, -np.inf), best)


def most_rounds(problem: Problem, local_steps: int, lower: Ints, places: Places = slice(None)) -> int | None:
    """Largest K for which the batches `lower` fit at this tau; 0 if none, None if nothing limits K.

    The devices at `places` must include one that is the slowest.
    """
    step_work = work(problem, lower)
    slowest = float(device_times(problem, 1, local_steps, lower[places], places).max())
    budget = problem.budget
    candidates = [
        LARGEST_COUNT if budget.max_rounds is None else budget.max_rounds,
        _largest_count(
            lambda k: within(_cost_of_work(problem, k, local_steps, step_work), budget.cost),
            budget.cost,
            _cost_of_work(problem, 1, local_steps, step_work),
        ),
        _largest_count(lambda k: within(k * slowest, budget.time), budget.time, slowest),
    ]
    if budget.energy < math.inf:
        one = energy(problem, 1, local_steps, lower)
        candidates.append(_largest_count(lambda k: within(k * one, budget.energy), budget.energy, one))
    most = min(candidates)
    return None if most == LARGEST_COUNT else most


def most_local_steps(problem: Problem, rounds: int, lower: Ints, places: Places = slice(None)) -> int | None:
    """Largest tau for which the batches `lower` fit at this K; 0 if none, None if nothing limits tau.

    The devices at `places` must include one that is the slowest.
    """
    budget, fleet = problem.budget, problem.plain.fleet
    step_work = work(problem, lower)
    batches = lower[places]
    slack = budget.time * (1.0 + TOLERANCE) / rounds - fleet.round_time[places]
    seconds = step_times(problem, batches, places)
    # A device that takes no time for a step limits nothing, whatever its slack.
    quotients = np.full(batches.size, np.inf)
    with np.errstate(over="ignore"):
        np.divide(slack, seconds, out=quotients, where=(seconds > 0.0) & (slack < np.inf))

    def fits_time(tau: int) -> bool:
        return within(float(device_times(problem, rounds, tau, batches, places).max()), budget.time)

    candidates = [
        LARGEST_COUNT if budget.max_local_steps is None else budget.max_local_steps,
        _largest_count(
            lambda tau: within(_cost_of_work(problem, rounds, tau, step_work), budget.cost),
            budget.cost - rounds * problem.plain.budget.round_cost,
            rounds * (step_work + fleet.whole_step_cost),
        ),
        _largest_count(fits_time, float(quotients.min()), 1.0),
    ]
    if budget.energy < math.inf:
        rest = rounds * fleet.whole_round_energy
        candidates.append(
            _largest_count(
                lambda tau: within(energy(problem, rounds, tau, lower), budget.energy),
                budget.energy - rest,
                energy(problem, rounds, 1, lower) - rest,
            )
        )
    most = min(candidates)
    return None if most == LARGEST_COUNT else most


def _largest_count(fits: Callable[[int], bool], available: float, unit: float) -> int:
    """Largest n in [0, LARGEST_COUNT] that fits, searched from available / unit; `fits` is monotone."""
    if not fits(1):
        return 0
    if available == math.inf or unit == 0.0:
        return LARGEST_COUNT
    # The quotient may be infinite.
    guess = math.floor(min(max(available / unit, 1.0), LARGEST_COUNT))
    # The quotient is right but for rounding, yet `fits` alone decides: galloping away from the guess finds a
    # count on either side of the limit, and bisection the limit itself. Mostly that takes three evaluations.
    step = 1
    if fits(guess):
        fitting = guess
        while fitting < LARGEST_COUNT and fits(min(fitting + step, LARGEST_COUNT)):
            fitting, step = min(fitting + step, LARGEST_COUNT), 2 * step
        failing = min(fitting + step, LARGEST_COUNT + 1)
    else:
        failing = guess
        while not fits(max(failing - step, 1)):
            failing, step = failing - step, 2 * step
        fitting = max(failing - step, 1)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        fitting, failing = (middle, failing) if fits(middle) else (fitting, middle)
    return fitting
