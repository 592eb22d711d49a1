"""Batches that memory does not hold at once: the same gradient, and plans that use it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coopt import (
    Bound,
    Budget,
    Certified,
    Constants,
    Controller,
    Fleet,
    InvalidProblemError,
    Problem,
    solve_allocation,
)
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import FederatedTrainer, FlatModel, LocalWork, local_update

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


class Small(torch.nn.Linear):
    """A layer on a device whose memory holds sixteen samples."""

    def forward(self, x):
        if x.dim() > 1 and len(x) > 16:
            raise torch.OutOfMemoryError(f"out of memory with {len(x)} samples")
        return super().forward(x)


def data(seed: int = 0, size: int = 400):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return inputs, (inputs.sum(1) + torch.randn(size, generator=generator) > 0).long()


@pytest.mark.parametrize(("batch", "micro"), [(64, 16), (50, 16), (17, 16), (16, 16), (64, 1), (3, 7)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_parts_add_up_to_the_gradient_of_the_batch(batch, micro, weight_decay):
    torch.manual_seed(0)
    model = FlatModel(
        torch.nn.Linear(5, 2).double(), torch.nn.functional.cross_entropy, weight_decay=weight_decay
    )
    inputs, targets = data(size=batch)
    whole = model.evaluate(inputs, targets)
    gradient = model.gradient.clone()
    parts = model.evaluate(inputs, targets, micro)
    torch.testing.assert_close(parts, whole, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(model.gradient, gradient, rtol=1e-13, atol=1e-14)


def test_a_client_trains_the_same_in_parts():
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, 2).double()
    work = LocalWork(round=0, local_steps=4, batch_size=48, learning_rate=0.1, extra_evaluation=True)
    found = []
    for module, micro in ((layer, None), (Small(5, 2).double(), 16)):
        module.load_state_dict(layer.state_dict())
        model = FlatModel(module, torch.nn.functional.cross_entropy)
        found.append(
            local_update(
                model, model.state.clone(), *data(), replace(work, micro_batch=micro), client=3, seed=7
            )
        )
    (one, first), (other, second) = found
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    assert second.samples_processed == first.samples_processed
    assert second.halves.difference == pytest.approx(first.halves.difference, rel=1e-10)
    model = FlatModel(Small(5, 2).double(), torch.nn.functional.cross_entropy)
    with pytest.raises(torch.OutOfMemoryError):
        local_update(model, model.state.clone(), *data(), work, client=3, seed=7)


def trainer(mode: str = "auto", system: SystemModel | None = None) -> FederatedTrainer:
    torch.manual_seed(2)
    parts = [data(seed=i) for i in range(5)]
    model = Small(5, 2).double()
    return FederatedTrainer(
        model, torch.nn.functional.cross_entropy, parts, mode=mode, system=system, progress=False
    )


def test_the_trainer_takes_what_the_fleet_says():
    """Each part takes the time of a step: batches of 40 are three parts."""
    fleet = Fleet([400] * 5, 1.0, 1.0, micro_batch=16, step_time=0.25, throughput=1000.0)
    plan = FixedPlan(fleet, 3, 2, 40, 0.1)
    expected = 2 * (3 * 0.25 + 40 / 1000)
    assert plan.plan().predicted_seconds == pytest.approx(expected)
    run = trainer(system=SystemModel([1000.0] * 5, step_time=0.25))
    history = run.run(plan)
    assert run.mode == "loop" and len(history) == 3
    # Halves of 20 are two parts each: the first step takes one more.
    assert plan.spent_seconds == pytest.approx(3 * (expected + 0.25))
    with pytest.raises(InvalidProblemError, match="micro_batch: choose 'loop'"):
        trainer("vectorised").run(FixedPlan(fleet, 1, 2, 40, 0.1))


CONSTANTS = Constants(
    learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05
)


def planned(seconds: float = 600.0, bound: str | Bound = "certified", **fields):
    fleet = Fleet([400] * 5, 40.0, 0.1, throughput=1000.0, round_time=2.0, **fields)
    return solve_allocation(Problem(fleet, CONSTANTS, Budget(time=seconds)), bound=bound)


def test_accumulation_is_worth_a_factor_of_ten():
    """Memory for 16 samples is no cap on the batch."""
    capped, accumulated = planned(max_batch=16), planned(micro_batch=16)
    assert capped.error_bound == pytest.approx(0.365, rel=0.01)
    assert accumulated.error_bound < 0.034
    # One member of the family is proved in a tenth of the time, by the same steps.
    planned(bound=Certified(1, 1), micro_batch=16).certify(deep=True)


def test_parts_that_take_time_make_batches_of_whole_parts():
    bound = Certified(1, 1)
    plan = planned(100.0, bound, micro_batch=16, step_time=0.05)
    assert (plan.batch_sizes % 16 == 0).all() or plan.batch_sizes.max() == 400
    assert planned(100.0, bound, micro_batch=400, step_time=0.05).error_bound < plan.error_bound
    parts = np.ceil(plan.batch_sizes / 16)
    step = parts * 0.05 + plan.batch_sizes / 1000
    assert plan.time == pytest.approx(plan.rounds * (plan.local_steps * step.max() + 2.0))
    plan.certify(deep=True)


@pytest.mark.parametrize("limit", [{"micro_batch": 16}, {"max_batch": 16}])
def test_measuring_within_a_run_takes_no_more_at_once_than_memory_holds(limit):
    inputs, targets = data(size=800)
    parts = list(zip(inputs.split(400), targets.split(400), strict=True))
    trainer = FederatedTrainer(
        Small(5, 2).double(),
        torch.nn.functional.cross_entropy,
        parts,
        mode="loop",
        system=SystemModel([1000.0] * 2, round_time=2.0),
        progress=False,
    )
    fleet = Fleet([400] * 2, 1.0, 1.0, **limit)
    planner = Controller(fleet, Budget(time=200), 0.3)
    trainer.run(planner)
    assert planner.measurement is not None
    assert (trainer.history.column("batch_sizes").max() > 16) == ("micro_batch" in limit)
