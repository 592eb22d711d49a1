"""A schedule runs in every adapter as a fixed plan does, phase after phase."""

from __future__ import annotations

import numpy as np
import pytest

from coopt import Budget, Constants, Fleet, Forecast, LocalModel, Phase, Problem, Schedule, evaluate_schedule
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel

TINY = 1e-12


def schedule(samples: list[int], phases: list[Phase]) -> Schedule:
    devices = len(samples)
    model = LocalModel(
        np.full(devices, 1.0 / devices), np.ones((devices, 1)), np.ones((devices, 1, 1)),
        np.ones((devices, 1, 1)), samples,
    )  # fmt: skip
    problem = Problem(Fleet(samples, 1.0, 1.0, throughput=50.0), Constants(0.1, 1.0, 1.0), Budget())
    return evaluate_schedule(problem, Forecast(model), phases)


# The second phase stands still.
PHASES = [Phase(3, 2, 4, 0.3), Phase(2, 5, 8, TINY)]


def test_in_simulation() -> None:
    federation, model = digits(4), Softmax(64, 10)
    plan = schedule(federation.samples.tolist(), PHASES)
    system = SystemModel(np.full(4, 50.0))

    def run(planner: FixedPlan) -> np.ndarray:
        options = {"system": system, "progress": False, "seed": 3}
        return simulate(planner, model.gradient, model.start(), federation.clients, **options).losses

    losses = run(FixedPlan.from_schedule(plan))
    alone = run(FixedPlan(plan.problem.fleet, 3, 2, 4, 0.3))
    np.testing.assert_array_equal(losses[:4], alone)
    np.testing.assert_allclose(losses[4:], alone[-1], rtol=1e-9)
    costs = FixedPlan.from_schedule(plan)
    assert costs.rounds == 5 and plan.cost == 4 * (3 * 2 * 4 + 2 * 5 * 8)


def test_in_torch() -> None:
    torch = pytest.importorskip("torch")
    from coopt.adapters.torch import FederatedTrainer

    rng = np.random.default_rng(0)
    sizes = [20, 30]
    data = [
        (torch.from_numpy(rng.normal(size=(n, 3))), torch.from_numpy(rng.integers(0, 2, n))) for n in sizes
    ]

    def run(planner: FixedPlan) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2).double()
        trainer = FederatedTrainer(
            model,
            torch.nn.functional.cross_entropy,
            data,
            system=SystemModel(np.full(2, 50.0)),
            seed=5,
            progress=False,
        )
        trainer.run(planner)
        return torch.nn.utils.parameters_to_vector(model.parameters()).tolist()

    plan = schedule(sizes, PHASES)
    fleet = plan.problem.fleet
    np.testing.assert_allclose(
        run(FixedPlan.from_schedule(plan)), run(FixedPlan(fleet, 3, 2, 4, 0.3)), rtol=1e-9
    )
