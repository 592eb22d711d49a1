"""Random small problems, with limits that lie exactly on what some plan uses as often as not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from coopt import AdaCoOpt, Budget, Certified, Constants, Dynamite, Fleet, NonConvex, Problem
from coopt.problem import limits

MOST_ROUNDS = 8
MOST_STEPS = 5

decimals = st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.0, 1.1, 2.5, 3.3, 7.0])
positive = st.floats(-3.0, 3.0).map(lambda exponent: 10.0**exponent)
numeric_bounds = st.sampled_from(
    [
        Certified(1, 1),
        Certified(0.3, 2.0),
        Dynamite(),
        AdaCoOpt(),
        NonConvex(1, 1),
        NonConvex(0.5, 0.4),
    ]
)
family_bounds = st.sampled_from([Certified(), NonConvex()])

# Three devices with limits on cost and time that both matter, and a bound with numbers.
THREE_DEVICES = Problem(
    Fleet(
        samples=[600, 300, 100],
        gradient_noise=[4.0, 2.0, 1.0],
        divergence=0.05,
        throughput=[40.0, 20.0, 80.0],
        round_time=1.0,
    ),
    Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0),
    Budget(cost=20_000, time=2_000, round_cost=100),
)
NUMBERS = Certified(1, 1)


@st.composite
def fleets(draw, equal_costs: bool = True, most_devices: int = 4, most_samples: int = 7) -> Fleet:
    n = draw(st.integers(1, most_devices))

    def each(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    samples = np.array(each(st.integers(1, most_samples)))
    multiple = draw(st.sampled_from([1, 1, 1, 2])) if samples.min() >= 2 else 1
    return Fleet(
        samples=samples,
        gradient_noise=each(st.one_of(st.just(0.0), positive)),
        divergence=each(st.one_of(st.just(0.0), positive.map(lambda x: 0.1 * x))),
        throughput=each(st.one_of(st.just(math.inf), decimals)),
        round_time=each(st.one_of(st.just(0.0), decimals)),
        sample_cost=draw(decimals) if equal_costs else each(st.one_of(st.just(0.0), decimals)),
        batch_multiple=multiple,
        replacement=draw(st.booleans()),
        round_cost=draw(st.sampled_from([0.0, 0.3])),
        step_time=each(st.one_of(st.just(0.0), decimals)) if draw(st.booleans()) else 0.0,
        step_cost=draw(st.sampled_from([0.0, 0.0, 0.2, 3.0])),
        micro_batch=each(st.integers(1, most_samples)) if draw(st.booleans()) else None,
    )


@st.composite
def constants(draw) -> Constants:
    beta = draw(positive)
    mean = beta * draw(st.sampled_from([1.0, 0.5]))
    ell = draw(st.sampled_from([-beta, 0.0, 0.1 * beta, None]))
    eta = draw(st.sampled_from([1.0, 0.5, 0.1, 1e-3])) / beta
    return Constants(
        learning_rate=eta,
        smoothness=beta,
        initial_gap=draw(st.one_of(st.just(0.0), positive)),
        pl_constant=mean * draw(st.sampled_from([1.0, 0.3, 0.01])),
        curvature_floor=ell,
        mean_smoothness=mean,
        coupling=draw(st.sampled_from([None, 0.2 * beta])),
        quadratic_continuity=draw(st.sampled_from([None, 0.5 * beta])),
        lipschitz=draw(positive),
    )


@st.composite
def problems(draw, equal_costs: bool = True, **fleet_options) -> Problem:
    """Problems with at most MOST_ROUNDS rounds and MOST_STEPS local steps; some are infeasible."""
    fleet = draw(fleets(equal_costs, **fleet_options))
    round_cost = draw(st.one_of(st.just(0.0), decimals))
    problem = Problem(
        fleet,
        draw(constants()),
        Budget(round_cost=round_cost, max_rounds=MOST_ROUNDS, max_local_steps=MOST_STEPS),
    )
    rounds, steps = draw(st.integers(1, MOST_ROUNDS)), draw(st.integers(1, MOST_STEPS))
    lower, upper = fleet.batch_range()
    share = draw(st.floats(0.0, 1.0))
    batches = (
        lower + np.round(share * (upper - lower) / fleet.batch_multiple).astype(int) * fleet.batch_multiple
    )
    factor = st.sampled_from([math.inf, 1.0, 1.0, 1.0 - 1e-7, 0.5, 1.7])
    cost = problem.cost(rounds, steps, batches) * draw(factor)
    seconds = problem.time(rounds, steps, batches) * draw(factor)
    return replace(
        problem,
        budget=replace(
            problem.budget,
            cost=math.inf if math.isnan(cost) else cost,
            time=math.inf if math.isnan(seconds) else seconds,
        ),
    )


def feasible_pairs(problem, ranges):
    """Every (K, tau) of the ranges at which the smallest batches fit."""
    for rounds in range(ranges.rounds[0], ranges.rounds[1] + 1):
        for steps in range(ranges.local_steps[0], ranges.local_steps[1] + 1):
            if not limits.violations(problem.plain, rounds, steps, ranges.lower.astype(float)):
                yield rounds, steps
