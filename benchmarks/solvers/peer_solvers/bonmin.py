"""Bonmin as it comes with CasADi: branch and bound with a local solver, a heuristic without convexity."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.peer_solvers.formula import LIMIT, MOST_ROUNDS, MOST_STEPS, Answer, Formula
from coopt import Problem


def bonmin(problem: Problem, linear_limits: bool) -> Answer | str:
    """Plain, or with limits in 1/(K tau) and 1/tau and the objective times 1,000."""
    import casadi as ca

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    size = len(fleet)
    z = ca.SX.sym("z", size + 2)
    rounds, tau, batches = z[0], z[1], z[2:]
    left = ca.exp(-formula.rate * rounds * tau)
    h = (
        formula.delta / formula.beta * (ca.exp(formula.growth * tau) - 1.0)
        - formula.eta * formula.delta * tau
    )
    drift = h**2 / (formula.eta * tau) / (1.0 - ca.exp(-formula.rate * tau))
    value = left * formula.gap + (1.0 - left) * (ca.sum1(formula.weights / batches) + drift)
    work = ca.dot(fleet.sample_cost, batches)
    if linear_limits:
        y1, y2 = 1.0 / (rounds * tau), 1.0 / tau
        used = work / budget.cost + budget.round_cost / budget.cost * y2 - y1
        late = batches / fleet.throughput / budget.time + fleet.round_time / budget.time * y2 - y1
        value = 1000.0 * value
    else:
        used = rounds * (tau * work + budget.round_cost) - budget.cost
        late = rounds * (tau * batches / fleet.throughput + fleet.round_time) - budget.time
    options = {
        "discrete": [True] * (size + 2),
        "print_time": False,
        "error_on_fail": False,
        "bonmin": {
            "time_limit": LIMIT,
            "bb_log_level": 0,
            "nlp_log_level": 0,
            "nlp_log_at_root": 0,
            "fp_log_level": 0,
            "print_level": 0,
            "sb": "yes",
            # What its manual advises where the relaxation is not convex.
            "num_resolve_at_root": 5,
            "num_resolve_at_node": 2,
            "allowable_gap": 1e-9,
            "allowable_fraction_gap": 1e-9,
        },
    }
    solver = ca.nlpsol("plan", "bonmin", {"x": z, "f": value, "g": ca.vertcat(used, late)}, options)
    found = solver(
        x0=[10.0, 2.0, *[2.0] * size],
        lbx=1.0,
        ubx=[MOST_ROUNDS, MOST_STEPS, *fleet.samples.tolist()],
        lbg=-np.inf,
        ubg=0.0,
    )
    status = solver.stats()["return_status"]
    point = np.asarray(found["x"]).ravel()
    if not (point >= 0.5).all() or status not in ("SUCCESS", "LIMIT_EXCEEDED"):
        return "time limit, no plan" if status == "LIMIT_EXCEEDED" else status.lower().replace("_", " ")
    whole = np.round(point).astype(int)
    claim = "optimal" if status == "SUCCESS" else "time limit"
    return Answer(int(whole[0]), int(whole[1]), whole[2:], claim)
