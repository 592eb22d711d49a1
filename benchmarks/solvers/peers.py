"""What other solvers reach on the joint problem, beside the exact solver: quality and time in one run.

    python benchmarks/solvers/peers.py             # six minutes of one core
    python benchmarks/solvers/peers.py --report    # table from the committed CSV

Needs pyscipopt for the rows of SCIP (``pip install pyscipopt``), which are left out with a note otherwise.
The bound is the published one: its formula is short enough for every modelling language. Each peer gets the
form that suits it best: SCIP also that in 1/(K tau) and 1/tau, in which every limit is linear, with the
objective scaled by 1,000; SLSQP logarithms and exact gradients; cvxpy one compiled parametrised problem. The
K and tau of peers without integers are rounded and given the best whole batches there are. Whatever a peer
claims, its plan is evaluated here.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coopt import BoundWarning, Budget, Constants, Dynamite, Fleet, Problem, evaluate, solve_allocation
from coopt.limits import most_rounds
from coopt.solvers import exhaustive
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.whole import whole_batches

RESULTS = Path(__file__).parent / "results"
SIZES = (3, 10, 100, 1000)
SEEDS = 5
LIMIT = 60.0
MOST_ROUNDS, MOST_STEPS = 600, 40


def instance(size: int, seed: int) -> Problem:
    """Heterogeneous devices; costs of rounds and a deadline that both matter."""
    rng = np.random.default_rng([size, seed])
    fleet = Fleet(
        samples=rng.integers(200, 4000, size),
        gradient_noise=rng.lognormal(1.0, 0.7, size),
        divergence=rng.uniform(0.02, 0.1, size),
        throughput=rng.lognormal(5.0, 0.8, size),
        round_time=rng.uniform(0.1, 1.0, size),
    )
    constants = Constants(
        learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
    )
    budget = Budget(
        cost=8000.0 * size,
        time=400.0,
        round_cost=10.0 * size,
        max_rounds=MOST_ROUNDS,
        max_local_steps=MOST_STEPS,
    )
    return Problem(fleet, constants, budget)


@dataclass(frozen=True)
class Answer:
    """A peer's plan, real or whole, and what it says of it."""

    rounds: float
    local_steps: float
    batch_sizes: np.ndarray
    claim: str


Peer = Callable[[Problem], Answer | str]


def coopt_exact(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"proved, gap {plan.gap:.0e}")


def coopt_closed_form(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite", solver="closed-form")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"gap {plan.gap:.0e}")


def coopt_fl(problem: Problem) -> Answer:
    plan = solve_allocation(problem, bound="dynamite", solver="coopt-fl")
    return Answer(plan.rounds, plan.local_steps, plan.batch_sizes, f"gap {plan.gap:.0e}")


def brute_force(problem: Problem) -> Answer:
    found = exhaustive.search(problem, Dynamite(), feasible_ranges(problem, None, None), LIMIT)
    claim = "proved by enumeration" if found.finished else "time limit"
    return Answer(found.best.rounds, found.best.local_steps, found.best.batch_sizes, claim)


class Formula:
    """The published bound for real K, tau and s."""

    def __init__(self, problem: Problem) -> None:
        fleet, constants = problem.fleet, problem.constants
        self.problem = problem
        self.eta, self.beta, self.gap = constants.learning_rate, constants.smoothness, constants.initial_gap
        self.rate = -math.log1p(-self.eta * constants.pl_constant)
        self.weights = (
            self.eta * self.beta / (2.0 * constants.pl_constant) * fleet.weights**2 * fleet.gradient_noise
        )
        self.delta = float(np.sum(fleet.weights * fleet.divergence))

    def drift(self, tau: float) -> float:
        h = (
            self.delta / self.beta * math.expm1(tau * math.log1p(self.eta * self.beta))
            - self.eta * self.delta * tau
        )
        return h * h / (self.eta * tau) / -math.expm1(-self.rate * tau)

    def value(self, rounds: float, tau: float, batches: np.ndarray) -> float:
        left = math.exp(-self.rate * rounds * tau)
        return left * self.gap + (1.0 - left) * (float(np.sum(self.weights / batches)) + self.drift(tau))


def cvxpy_by_hand(problem: Problem) -> Answer:
    """Batches by one compiled problem, K and tau by golden section on the relaxation, unimodal in each."""
    import cvxpy as cp
    from scipy.optimize import minimize_scalar

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    size = len(fleet)
    scale = np.maximum(np.sqrt(formula.weights / fleet.sample_cost), 1e-300)
    scale *= budget.cost / 100.0 / float(np.sum(fleet.sample_cost * scale))
    x, spend, caps = cp.Variable(size), cp.Parameter(nonneg=True), cp.Parameter(size, nonneg=True)
    noise = formula.weights / scale
    unit = float(noise.sum())
    inner = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(noise / unit, cp.inv_pos(x)))),
        [
            (fleet.sample_cost * scale / (fleet.sample_cost @ scale)) @ x <= spend,
            x <= caps,
            x >= 1.0 / scale,
        ],
    )
    best = (math.inf, 1.0, 1, np.ones(size))

    def value(log_rounds: float, tau: int) -> float:
        nonlocal best
        rounds = math.exp(log_rounds)
        spend.value = (budget.cost / rounds - budget.round_cost) / tau / float(fleet.sample_cost @ scale)
        most = np.minimum(fleet.throughput * (budget.time / rounds - fleet.round_time) / tau, fleet.samples)
        if spend.value < float(fleet.sample_cost.sum() / (fleet.sample_cost @ scale)) or (most < 1.0).any():
            return formula.gap * (1.0 + log_rounds)
        caps.value = most / scale
        inner.solve(solver=cp.CLARABEL)
        batches = x.value * scale
        found = formula.value(rounds, tau, batches)
        if found < best[0]:
            best = (found, rounds, tau, batches)
        return found

    known: dict[int, float] = {}

    def at(tau: int) -> float:
        if tau not in known:
            bounds = (0.0, math.log(MOST_ROUNDS))
            found = minimize_scalar(value, bounds=bounds, args=(tau,), options={"xatol": 1e-3})
            known[tau] = float(found.fun)
        return known[tau]

    low, high = 1, MOST_STEPS
    while high - low > 2:
        first, second = low + (high - low) // 3, high - (high - low) // 3
        low, high = (low, second - 1) if at(first) < at(second) else (first + 1, high)
    min(range(low, high + 1), key=at)
    return Answer(best[1], best[2], best[3], "continuous, no certificate")


def slsqp(problem: Problem) -> Answer | str:
    """The relaxation in logarithms, with exact gradients."""
    from scipy.optimize import minimize

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    began = time.process_time()

    def split(z: np.ndarray) -> tuple[float, float, np.ndarray]:
        return math.exp(z[0]), math.exp(z[1]), np.exp(z[2:])

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        if time.process_time() - began > LIMIT:
            raise TimeoutError
        rounds, tau, batches = split(z)
        left = math.exp(-formula.rate * rounds * tau)
        noise = formula.weights / batches
        floor = float(noise.sum()) + formula.drift(tau)
        slope = formula.rate * rounds * tau * left * (floor - formula.gap)
        step = 1e-6
        drift = (formula.drift(tau * (1 + step)) - formula.drift(tau * (1 - step))) / (2 * step)
        gradient = np.concatenate([[slope, slope + (1 - left) * drift], -(1 - left) * noise])
        return left * formula.gap + (1 - left) * floor, gradient

    def limits(z: np.ndarray) -> np.ndarray:
        rounds, tau, batches = split(z)
        cost = rounds * (tau * float(fleet.sample_cost @ batches) + budget.round_cost) / budget.cost
        times = rounds * (tau * batches / fleet.throughput + fleet.round_time) / budget.time
        return 1.0 - np.concatenate([[cost], times])

    def limits_jacobian(z: np.ndarray) -> np.ndarray:
        rounds, tau, batches = split(z)
        work = rounds * tau * fleet.sample_cost * batches / budget.cost
        busy = rounds * tau * batches / fleet.throughput / budget.time
        rows = np.zeros((1 + batches.size, z.size))
        rows[0, 0] = work.sum() + rounds * budget.round_cost / budget.cost
        rows[0, 1], rows[0, 2:] = work.sum(), work
        rows[1:, 0] = busy + rounds * fleet.round_time / budget.time
        rows[1:, 1] = busy
        rows[np.arange(1, batches.size + 1), np.arange(2, batches.size + 2)] = busy
        return -rows

    bounds = [(0.0, math.log(MOST_ROUNDS)), (0.0, math.log(MOST_STEPS))]
    bounds += [(0.0, math.log(d)) for d in fleet.samples]
    best = None
    for rounds, tau in ((10.0, 2.0), (50.0, 5.0), (200.0, 2.0)):
        try:
            found = minimize(
                objective,
                np.concatenate([[math.log(rounds), math.log(tau)], np.full(len(fleet), math.log(2.0))]),
                jac=True,
                bounds=bounds,
                constraints={"type": "ineq", "fun": limits, "jac": limits_jacobian},
                method="SLSQP",
                options={"maxiter": 500, "ftol": 1e-12},
            )
        except TimeoutError:
            break
        if limits(found.x).min() > -1e-6 and (best is None or found.fun < best.fun):
            best = found
    if best is None:
        return f"no point within {LIMIT:.0f} s"
    rounds, tau, batches = split(best.x)
    return Answer(rounds, tau, batches, "continuous, local optimum")


def scip(problem: Problem, linear_limits: bool) -> Answer | str:
    """Integers and all: plain, or with y1 = 1/(K tau) and y2 = 1/tau and the objective times 1,000."""
    if importlib.util.find_spec("pyscipopt") is None:
        return "pyscipopt is not installed"
    from pyscipopt import Model, exp, quicksum

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    model = Model()
    model.hideOutput()
    model.setParam("limits/time", LIMIT)
    model.setParam("timing/clocktype", 1)  # seconds of CPU, as for everyone here
    rounds = model.addVar(vtype="I", lb=1, ub=MOST_ROUNDS)
    tau = model.addVar(vtype="I", lb=1, ub=MOST_STEPS)
    batches = [model.addVar(vtype="I", lb=1, ub=int(d)) for d in fleet.samples]
    scale = 1000.0 if linear_limits else 1.0
    noise = model.addVar(lb=0.0)
    value = model.addVar(lb=0.0)
    steps = model.addVar(lb=1.0, ub=MOST_ROUNDS * MOST_STEPS)
    model.addCons(steps == rounds * tau)
    h = formula.delta / formula.beta * (exp(math.log1p(formula.eta * formula.beta) * tau) - 1.0)
    h = h - formula.eta * formula.delta * tau
    drift = h * h / (formula.eta * tau) / (1.0 - exp(-formula.rate * tau))
    left = exp(-formula.rate * steps)
    if linear_limits:
        y1 = model.addVar(lb=1.0 / (MOST_ROUNDS * MOST_STEPS), ub=1.0)
        y2 = model.addVar(lb=1.0 / MOST_STEPS, ub=1.0)
        model.addCons(y1 * steps == 1.0)
        model.addCons(y2 * tau == 1.0)
        work = quicksum(float(a) * s for a, s in zip(fleet.sample_cost, batches, strict=True))
        model.addCons(work / budget.cost <= y1 - budget.round_cost / budget.cost * y2)
        for s, pi, u in zip(batches, fleet.throughput, fleet.round_time, strict=True):
            model.addCons(s / float(pi) / budget.time <= y1 - float(u) / budget.time * y2)
        terms = [model.addVar(lb=0.0) for _ in batches]
        for term, s, w in zip(terms, batches, formula.weights, strict=True):
            model.addCons(term * s >= scale * float(w))
        model.addCons(noise >= quicksum(terms))
    else:
        work = quicksum(float(a) * s for a, s in zip(fleet.sample_cost, batches, strict=True))
        model.addCons(rounds * (tau * work + budget.round_cost) <= budget.cost)
        for s, pi, u in zip(batches, fleet.throughput, fleet.round_time, strict=True):
            model.addCons(rounds * (tau * s / float(pi) + float(u)) <= budget.time)
        model.addCons(noise >= quicksum(float(w) / s for w, s in zip(formula.weights, batches, strict=True)))
    model.addCons(value >= left * (scale * formula.gap) + (1.0 - left) * (noise + scale * drift))
    model.setObjective(value)
    model.optimize()
    if model.getNSols() == 0:
        return f"no plan within {LIMIT:.0f} s"
    found = model.getBestSol()
    status = model.getStatus()
    claim = "optimal" if status == "optimal" else f"{status}, gap {model.getGap():.1e}"
    return Answer(
        round(found[rounds]), round(found[tau]), np.array([round(found[s]) for s in batches]), claim
    )


PEERS: dict[str, tuple[Peer, int]] = {
    "coopt exact": (coopt_exact, SEEDS),
    "coopt closed form": (coopt_closed_form, SEEDS),
    "CoOptFL, best K": (coopt_fl, SEEDS),
    "enumeration with coopt's inner solver": (brute_force, 1),
    "cvxpy + Clarabel (DPP), by hand": (cvxpy_by_hand, SEEDS),
    "SLSQP, three starts": (slsqp, 1),
    "SCIP, plain": (lambda problem: scip(problem, linear_limits=False), 1),
    "SCIP, linear limits, scaled": (lambda problem: scip(problem, linear_limits=True), 1),
}


def whole(problem: Problem, answer: Answer) -> tuple[int, int, np.ndarray] | None:
    """The answer as a plan within the limits; None if it breaks one."""
    lower, _ = problem.fleet.batch_range()
    tau = max(round(answer.local_steps), 1)
    rounds = min(max(math.floor(answer.rounds * (1 + 1e-9)), 1), most_rounds(problem, tau, lower) or 1)
    batches = answer.batch_sizes
    if np.any(batches % 1.0):
        batches = whole_batches(problem, Formula(problem).weights, rounds, tau).batch_sizes
    return None if problem.violations(rounds, tau, batches) else (rounds, tau, batches)


def measure() -> list[dict[str, str]]:
    """One row for each size and peer."""
    rows = []
    for peer, _ in PEERS.values():
        peer(instance(2, 0))  # imports and compilation
    for size in SIZES:
        problems = [instance(size, seed) for seed in range(SEEDS)]
        optima = [solve_allocation(problem, bound="dynamite").lower_bound for problem in problems]
        for name, (peer, seeds) in PEERS.items():
            excess, relaxed, seconds, notes = [], [], [], []
            for problem, optimum in list(zip(problems, optima, strict=True))[:seeds]:
                began = time.process_time()
                answer = peer(problem)
                seconds.append(time.process_time() - began)
                if isinstance(answer, str):
                    notes.append(answer)
                    continue
                real = Formula(problem).value(answer.rounds, answer.local_steps, answer.batch_sizes)
                relaxed.append(real / optimum - 1.0)
                plan = whole(problem, answer)
                claim = answer.claim
                if plan is None:
                    claim += "; its plan breaks a limit"
                else:
                    excess.append(evaluate(problem, *plan, bound="dynamite").error_bound / optimum - 1.0)
                    if claim == "optimal" and excess[-1] > 1e-6:
                        claim = "**false: claims optimal**"
                notes.append(claim)
            rows.append(
                {
                    "devices": str(size),
                    "peer": name,
                    "seeds": str(seeds),
                    "seconds": f"{np.median(seconds):.4g}",
                    "excess": f"{np.median(excess):.3g}" if excess else "",
                    "worst_excess": f"{np.max(excess):.3g}" if excess else "",
                    "before_rounding": f"{np.median(relaxed):.3g}" if relaxed else "",
                    "claim": notes[-1],
                }
            )
            print(rows[-1], flush=True)
    return rows


def report(rows: list[dict[str, str]]) -> str:
    """The table, as markdown."""
    lines = [
        "# The joint problem: quality and time side by side",
        "",
        f"One core, one run; seconds of CPU, medians over the seeds given; limit {LIMIT:.0f} s. Excess:",
        "error bound of the peer's plan over the proved optimum, minus one, evaluated here whatever the peer",
        "claims. Peers that know no integers get the best whole batches at their rounded K and tau; before",
        "rounding their value may lie below the optimum.",
        "",
        "| devices | peer | seeds | seconds | excess | worst | before rounding | claim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["devices"], row["peer"], row["seeds"], row["seconds"]]
        cells += [f"{float(row[key]):.3%}" if row[key] else "-" for key in ("excess", "worst_excess")]
        cells += [f"{float(row['before_rounding']):.3%}" if row["before_rounding"] else "-", row["claim"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the table from the committed CSV")
    table = RESULTS / "peers.csv"
    if not parser.parse_args().report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = measure()
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    with table.open() as file:
        (RESULTS / "peers.md").write_text(report(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
