"""APOPT by GEKKO, run on this machine: branch and bound with a local solver."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.peer_solvers.formula import LIMIT, MOST_ROUNDS, MOST_STEPS, Answer, Formula
from coopt import Problem


def gekko(problem: Problem, linear_limits: bool) -> Answer | str:
    """Plain, or with limits in 1/(K tau) and 1/tau and the objective times 1,000."""
    from gekko import GEKKO

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    model = GEKKO(remote=False)
    model.options.SOLVER = 1
    # Of wall-clock time, unlike the limits of the other peers.
    model.options.MAX_TIME = 3.0 * LIMIT
    model.options.IMODE = 3
    model.solver_options = [
        "minlp_maximum_iterations 100000",
        "minlp_max_iter_with_int_sol 500",
        "minlp_gap_tol 1e-5",
        "minlp_as_nlp 0",
    ]
    rounds = model.Var(10, lb=1, ub=MOST_ROUNDS, integer=True)
    tau = model.Var(2, lb=1, ub=MOST_STEPS, integer=True)
    batches = [model.Var(2, lb=1, ub=int(d), integer=True) for d in fleet.samples]
    left = model.Intermediate(model.exp(-formula.rate * rounds * tau))
    h = model.Intermediate(
        formula.delta / formula.beta * (model.exp(formula.growth * tau) - 1.0)
        - formula.eta * formula.delta * tau
    )
    drift = model.Intermediate(h**2 / (formula.eta * tau) / (1.0 - model.exp(-formula.rate * tau)))
    noise = model.sum([float(w) / s for w, s in zip(formula.weights, batches, strict=True)])
    work = model.sum([float(a) * s for a, s in zip(fleet.sample_cost, batches, strict=True)])
    devices = list(zip(batches, fleet.throughput.tolist(), fleet.round_time.tolist(), strict=True))
    scale = 1.0
    if linear_limits:
        scale = 1000.0
        y1, y2 = model.Intermediate(1.0 / (rounds * tau)), model.Intermediate(1.0 / tau)
        model.Equation(work / budget.cost + budget.round_cost / budget.cost * y2 <= y1)
        model.Equations([s / pi / budget.time + u / budget.time * y2 <= y1 for s, pi, u in devices])
    else:
        model.Equation(rounds * (tau * work + budget.round_cost) <= budget.cost)
        model.Equations([rounds * (tau * s / pi + u) <= budget.time for s, pi, u in devices])
    model.Minimize(scale * (left * formula.gap + (1.0 - left) * (noise + drift)))
    try:
        model.solve(disp=False)
    # GEKKO raises a bare Exception for whatever APOPT could not do.
    except Exception as error:  # noqa: BLE001
        said = str(error).strip()
        return "time limit, no plan" if said.startswith("Time Limit") else said.splitlines()[-1] or "failed"
    finally:
        model.cleanup()
    point = np.round([v.value[0] for v in (rounds, tau, *batches)]).astype(int)
    claim = "optimal" if model.options.APPSTATUS == 1 else "no success"
    return Answer(int(point[0]), int(point[1]), point[2:], claim)
