"""MAiNGO, by its Python interface maingopy: deterministic global optimisation in reduced space."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.peer_solvers.formula import LIMIT, MOST_ROUNDS, MOST_STEPS, Answer, Formula
from coopt import Problem


def maingo(problem: Problem, linear_limits: bool) -> Answer | str:
    """Plain with its own tolerances, or with limits in 1/(K tau), objective times 1,000, and 1e-6."""
    import maingopy as mg

    formula, fleet, budget = Formula(problem), problem.fleet, problem.budget
    scale = 1000.0 if linear_limits else 1.0
    slopes, delays = fleet.throughput, fleet.round_time

    class Model(mg.MAiNGOmodel):
        def get_variables(self) -> list:
            tops = [MOST_ROUNDS, MOST_STEPS, *fleet.samples.tolist()]
            return [mg.OptimizationVariable(mg.Bounds(1, top), mg.VT_INTEGER) for top in tops]

        def get_initial_point(self) -> list:
            return [10.0, 2.0, *[2.0] * len(fleet)]

        def evaluate(self, z: list) -> object:
            rounds, tau, batches = z[0], z[1], z[2:]
            left = mg.exp(-formula.rate * rounds * tau)
            h = formula.delta / formula.beta * (mg.exp(formula.growth * tau) - 1.0)
            h = h - formula.eta * formula.delta * tau
            drift = mg.sqr(h) / (formula.eta * tau) / (1.0 - mg.exp(-formula.rate * tau))
            noise = sum(float(w) * mg.inv(s) for w, s in zip(formula.weights, batches, strict=True))
            work = sum(float(a) * s for a, s in zip(fleet.sample_cost, batches, strict=True))
            result = mg.EvaluationContainer()
            result.objective = scale * (left * formula.gap + (1.0 - left) * (noise + drift))
            if linear_limits:
                y1, y2 = mg.inv(rounds * tau), mg.inv(tau)
                result.ineq = [
                    work / budget.cost + budget.round_cost / budget.cost * y2 - y1,
                    *(
                        s / float(pi) / budget.time + float(u) / budget.time * y2 - y1
                        for s, pi, u in zip(batches, slopes, delays, strict=True)
                    ),
                ]
            else:
                result.ineq = [
                    rounds * (tau * work + budget.round_cost) - budget.cost,
                    *(
                        rounds * (tau * s / float(pi) + float(u)) - budget.time
                        for s, pi, u in zip(batches, slopes, delays, strict=True)
                    ),
                ]
            return result

    # The solver keeps no reference of its own.
    model = Model()
    solver = mg.MAiNGO(model)
    solver.set_log_file_name("/dev/null")
    solver.set_option("loggingDestination", mg.LOGGING_NONE)
    solver.set_option("maxTime", LIMIT)
    if linear_limits:
        solver.set_option("epsilonA", 1e-6)
        solver.set_option("epsilonR", 1e-6)
        # Limits in 1/(K tau) are numbers near 1e-3: its 1e-6 would let plans break them.
        solver.set_option("deltaIneq", 1e-9)
    status = solver.solve()
    if status in (mg.NO_FEASIBLE_POINT_FOUND, mg.INFEASIBLE, mg.NOT_SOLVED_YET):
        return f"{status!s}".rpartition(".")[2].lower().replace("_", " ")
    point = np.round(solver.get_solution_point()).astype(int)
    value, bound = solver.get_objective_value(), solver.get_final_LBD()
    claim = f"time limit, gap {(value - bound) / value:.1e}"
    if status == mg.GLOBALLY_OPTIMAL:
        claim = "optimal" if linear_limits else "within its default tolerances of 0.01"
    return Answer(int(point[0]), int(point[1]), point[2:], claim)
