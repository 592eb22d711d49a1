"""Random problems of moderate size, the same for every solver's tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from coopt import Budget, Constants, Fleet, Problem

BOUNDS = ("certified", "certified(gamma=1, z=1)", "dynamite", "adacoopt", "nonconvex(gamma=1, z=1)")
SINGLE_BOUNDS = BOUNDS[1:]

TIMES = (np.inf, 3000.0, 300.0)
ROUND_COSTS = (0.0, 1.0, 40.0)


def random_problem(
    seed: int,
    time: float = np.inf,
    round_cost: float = 0.0,
    equal_costs: bool = True,
    divergent: bool = True,
    overhead: float = 0.0,
) -> Problem:
    """A fleet of 2 to 8 devices and a budget that admits at least ten rounds of the smallest batches.

    A local step takes and costs about `overhead` times what 20 samples do, whatever its batch.
    """
    rng, other = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    size = int(rng.integers(2, 9))
    return Problem(
        Fleet(
            samples=rng.integers(50, 2000, size),
            gradient_noise=10.0 ** rng.uniform(-0.5, 1.5, size),
            divergence=10.0 ** rng.uniform(-2.0, -1.0, size) if divergent else 0.0,
            throughput=10.0 ** rng.uniform(2.0, 3.0, size),
            round_time=10.0 ** rng.uniform(-1.5, 0.0, size),
            sample_cost=1.0 if equal_costs else rng.uniform(0.5, 2.0, size),
            step_time=overhead * other.uniform(0.05, 0.2, size),
            step_cost=overhead * other.uniform(5.0, 20.0, size),
        ),
        Constants(
            learning_rate=0.05,
            smoothness=4.0,
            initial_gap=2.0,
            pl_constant=0.5,
            curvature_floor=0.0,
            lipschitz=0.2,
        ),
        Budget(
            cost=size * 10.0 ** rng.uniform(2.7, 3.7), time=time, round_cost=round_cost, max_local_steps=60
        ),
    )


problems = st.builds(
    random_problem,
    seed=st.integers(0, 10**6),
    time=st.sampled_from(TIMES),
    round_cost=st.sampled_from(ROUND_COSTS),
    equal_costs=st.booleans(),
    divergent=st.booleans(),
    overhead=st.sampled_from([0.0, 0.1, 1.0]),
)
