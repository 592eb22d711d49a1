from federation import COST, RATE, SECONDS, clients, gradient, round_time, start, throughput

import coopt

measured = coopt.measure(gradient, start, clients)
fleet = measured.fleet(throughput=throughput, round_time=round_time)
budget = coopt.Budget(cost=COST - measured.samples_used, time=SECONDS)
problem = coopt.Problem(fleet, measured.constants(RATE), budget)
plan = coopt.solve_allocation(problem, bound=measured.forecast())
print(plan)
