"""SCIP."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.peer_solvers.formula import LIMIT, MOST_ROUNDS, MOST_STEPS, Answer, Formula
from coopt import Problem


def scip(problem: Problem, linear_limits: bool) -> Answer | str:
    """Integers and all: plain, or with y1 = 1/(K tau) and y2 = 1/tau and the objective times 1,000."""
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
    h = formula.delta / formula.beta * (exp(formula.growth * tau) - 1.0)
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
