"""The trainer does what the planner says, reports it, and is the same however the clients are run."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional

from coopt import Fleet, Stopped
from coopt.adapters.draws import draw_positions
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.system import SystemModel
from coopt.adapters.torch import (
    EarlyStop,
    FederatedTrainer,
    History,
    SharedData,
    measure,
)
from coopt.errors import InvalidProblemError
from coopt.online.round_plan import StopReason
from torch_federation import (
    CLIENTS,
    SIZES,
    SPEED,
    controller,
    datasets,
    fleet,
    model,
    parameters,
    same_records,
    samples,
    stream,
    trainer,
)


def broken(*clients: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Data in which samples of some clients have an input that is no number."""
    data = datasets()
    for client in clients:
        # The first ones of all are those on which the trainer compares its modes.
        data[client][0][4 if client == 0 else 0 :, 2] = math.nan
    return data


@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_a_model_that_is_not_finite_is_left_out_and_named(mode: str) -> None:
    run = trainer(data=broken(3), mode=mode)
    history = run.run(FixedPlan(fleet(), 6, 3, 4, 0.2))
    # What is left is the average of the others, as if client 3 did not count.
    without = trainer(mode=mode, weights=np.where(np.arange(CLIENTS) == 3, 0, SIZES))
    without.run(FixedPlan(fleet(), 6, 3, 4, 0.2))
    np.testing.assert_allclose(parameters(run), parameters(without), rtol=1e-10, atol=1e-12)
    assert len(history) == 6 and history.stopped.reason is StopReason.ROUNDS
    for record in history:
        assert "client 3: model or loss is not finite" in record.ignored
        assert math.isfinite(record.train_loss) and math.isfinite(record.test_loss)
    assert History.from_state("history", history.state_dict()).records == history.records


@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_training_stops_where_no_model_is_finite(mode: str, tmp_path: Path) -> None:
    run = trainer(data=broken(*range(CLIENTS)), mode=mode, checkpoint=tmp_path / "run.npz")
    before = parameters(run)
    history = run.run(controller())
    assert len(history) == 1 and history.stopped.reason is StopReason.NOT_FINITE
    assert "learning rate" in history.stopped.reason.value
    np.testing.assert_array_equal(parameters(run), before)
    again = trainer(data=broken(*range(CLIENTS)), mode=mode, checkpoint=tmp_path / "run.npz")
    again.run(controller())
    np.testing.assert_array_equal(parameters(again), before)


def test_a_mode_is_not_refused_for_the_wrong_reason() -> None:
    data = datasets()
    data[0][0][1, 0] = math.nan
    with pytest.raises(InvalidProblemError, match="not finite: look for NaN"):
        trainer(data=data, mode="vectorised")


def test_training_under_a_controller_learns_within_its_budget() -> None:
    run = trainer()
    history = run.run(controller())
    assert history.stopped is not None
    assert history.column("cost")[-1] <= 8000 and history.column("seconds")[-1] <= 300
    assert len(history) > 10 and history.column("metric")[-1] > 0.85
    assert (np.diff(history.column("cost")) > 0).all() and (np.diff(history.column("seconds")) > 0).all()


def test_a_fixed_plan_is_federated_averaging_written_out() -> None:
    run = trainer(probe=None)
    history = run.run(FixedPlan(fleet(), 3, 4, [2, 5, 3, 8, 1], 0.2))
    assert history.stopped is not None and history.stopped.reason is StopReason.ROUNDS
    expected = torch.nn.utils.parameters_to_vector(model().parameters()).detach()
    for round_ in range(3):
        local = []
        for client, ((x, y), size) in enumerate(zip(datasets(), [2, 5, 3, 8, 1], strict=True)):
            worker = model()
            torch.nn.utils.vector_to_parameters(expected.clone(), worker.parameters())
            optimizer = torch.optim.SGD(worker.parameters(), lr=0.2)
            for batch in draw_positions(5, round_, client, len(x), steps=np.arange(4), sizes=size)[0]:
                optimizer.zero_grad()
                functional.cross_entropy(worker(x[batch]), y[batch]).backward()
                optimizer.step()
            local.append(torch.nn.utils.parameters_to_vector(worker.parameters()).detach())
        expected = torch.from_numpy(np.average(torch.stack(local).numpy(), axis=0, weights=SIZES))
    assert np.allclose(parameters(run), expected.numpy(), rtol=1e-12, atol=1e-13)
    assert history.column("cost").tolist() == [76.0, 152.0, 228.0]
    assert history.column("seconds") == pytest.approx(np.arange(1, 4) * (4 * 5 / 40 + 0.1))


def test_late_devices_are_charged_but_not_averaged_and_absent_ones_neither() -> None:
    class OneRound(FixedPlan):
        def plan(self) -> Any:
            from dataclasses import replace

            plan = super().plan()
            return replace(plan, deadline=0.55) if hasattr(plan, "deadline") else plan

    plan = OneRound(fleet(), 1, 4, [2, 5, 3, 8, 1], 0.2)  # takes 0.18, 0.6, 0.14, 0.5 and 0.3 seconds
    everybody = trainer()
    everybody.run(plan)
    assert plan.spent_cost == 76 and plan.spent_seconds == pytest.approx(0.55)
    absent = trainer(system=SystemModel(SPEED, 0.1, dropout=[0, 1, 0, 0, 0]))
    gone = FixedPlan(fleet(), 1, 4, [2, 5, 3, 8, 1], 0.2)
    history = absent.run(gone)
    assert gone.spent_cost == 76 - 20 and gone.spent_seconds == pytest.approx(0.5)
    assert history.records[0].arrived == 4
    assert np.array_equal(parameters(everybody), parameters(absent))


@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_clients_that_are_drawn_count_as_often_as_they_were(mode: str) -> None:
    plan = FixedPlan(fleet(), 5, 2, 4, 0.1, participants=3, seed=1)
    drawn = []
    while not isinstance(now := plan.plan(), Stopped):
        drawn.append(now.draws)
        plan.observe([])
    again = FixedPlan(fleet(), 5, 2, 4, 0.1, participants=3, seed=1)
    run = trainer(mode=mode)
    history = run.run(again)
    assert history.column("arrived").tolist() == [np.count_nonzero(draws) for draws in drawn]
    assert again.spent_cost == 2 * 4 * sum(np.count_nonzero(draws) for draws in drawn)
    # One round by hand: the mean of the drawn models, each as often as it was drawn.
    one = trainer(mode=mode)
    one.run(FixedPlan(fleet(), 1, 2, 4, 0.1, participants=3, seed=1))
    models = []
    for client in range(CLIENTS):
        alone = trainer(mode=mode, weights=np.eye(CLIENTS)[client])
        alone.run(FixedPlan(fleet(), 1, 2, 4, 0.1))
        models.append(parameters(alone))
    np.testing.assert_allclose(parameters(one), drawn[0] @ np.array(models) / 3, rtol=1e-10)


def test_a_client_that_hangs_costs_its_deadline_once_and_the_others_go_on() -> None:
    speeds = SPEED.copy()
    speeds[2] = 1e-6
    run = trainer(system=SystemModel(speeds, 0.1))
    history = run.run(controller(cost=1e6, max_rounds=12, policy="horizon"))
    arrived = history.column("arrived")
    took = np.diff(history.column("seconds"), prepend=0.0)
    assert arrived.tolist() == [4] * 12
    # The slowest of the others has 20 samples a second and a link of .1 s, and computes forty samples,
    # fifty and twenty. The first round lasts twice as long as that; then the client is known to be busy.
    assert took[:3] == pytest.approx([2 * 2.1, 2.6, 1.1])
    assert history.records[-1].test_loss < history.records[0].test_loss


def test_a_round_without_anybody_leaves_the_model() -> None:
    run = trainer(system=SystemModel(SPEED, dropout=1.0))
    before = parameters(run)
    history = run.run(FixedPlan(fleet(), 2, 4, 2, 0.2))
    assert np.array_equal(parameters(run), before)
    assert math.isnan(history.records[0].train_loss) and history.records[0].arrived == 0


def test_given_weights_take_the_place_of_samples() -> None:
    heavy = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    run, alone = trainer(weights=heavy), trainer(system=SystemModel(SPEED, dropout=1 - heavy))
    run.run(FixedPlan(fleet(), 3, 2, 4, 0.2))
    alone.run(FixedPlan(fleet(), 3, 2, 4, 0.2))
    assert np.array_equal(parameters(run), parameters(alone))


def test_the_controller_hears_what_buffers_hold_and_what_they_cost_in_accuracy() -> None:
    planner = controller(streaming=True)
    trainer(data=stream(), gradient_error=lambda round_: 0.1 * round_, callbacks=[lambda h: len(h) == 3]).run(
        planner
    )
    assert planner.gradient_error == pytest.approx(0.2)
    assert planner.estimates.samples.tolist()[:3] == [9, 6, 3]


def test_training_ends_early_and_the_last_round_is_evaluated() -> None:
    plan = FixedPlan(fleet(), 50, 4, 8, 0.2)
    history = trainer(callbacks=[EarlyStop(metric=0.8)]).run(plan)
    assert history.stopped is None and len(history) < 50
    assert history.column("metric")[-1] >= 0.8 and (history.column("metric")[:-1] < 0.8).all()
    history = trainer(callbacks=[EarlyStop(patience=2)]).run(FixedPlan(fleet(), 500, 9, 1, 3.0))
    losses = history.column("test_loss")
    assert len(history) < 500 and len(losses) - 1 - np.argmin(losses) == 2
    history = trainer(evaluate_every=4).run(FixedPlan(fleet(), 6, 4, 8, 0.2))
    assert np.isfinite(history.column("test_loss")).tolist() == [False, False, False, True, False, True]


def test_without_a_system_seconds_are_measured() -> None:
    planner = FixedPlan(fleet(), 3, 2, 4, 0.2)
    history = trainer(system=None).run(planner)
    assert 0 < history.column("seconds")[0] < history.column("seconds")[-1] == planner.spent_seconds


def test_history_becomes_a_table_and_a_picture(tmp_path: Path) -> None:
    history = trainer().run(FixedPlan(fleet(), 3, 2, [1, 2, 3, 4, 5], 0.2))
    history.to_csv(tmp_path / "rounds.csv")
    lines = [line.split(",") for line in (tmp_path / "rounds.csv").read_text().splitlines()]
    assert len(lines) == 4 and lines[1][lines[0].index("mean_batch")] == "3.0"
    assert float(lines[3][lines[0].index("test_loss")]) == history.records[-1].test_loss
    assert history.column("batch_sizes").tolist() == [[1, 2, 3, 4, 5]] * 3
    pytest.importorskip("matplotlib")
    figure = history.plot()
    # Loss on two kinds of data, metric, rate, steps, median batch, cost; and the clock on the last panel.
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1, 1, 1, 1, 1]
    assert f"A run of {len(history)} rounds" in figure.description
    with pytest.raises(InvalidProblemError, match="no column 'colour'"):
        history.column("colour")


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_a_callback_may_measure_within_a_run_which_changes_nothing() -> None:
    found = []
    plain = trainer(weights=SIZES**2, weight_decay=0.01)
    measured = trainer(
        weights=SIZES**2,
        weight_decay=0.01,
        callbacks=[
            lambda history: found.append(measured.measure(directions=3)) if len(history) == 3 else None
        ],
    )
    for run in (plain, measured):
        run.run(controller(cost=3000))
    assert same_records(plain.history, measured.history)
    assert np.array_equal(parameters(plain), parameters(measured))
    again = measured.measure(directions=3)
    assert again.loss < found[0].loss
    np.testing.assert_allclose(again.weights, SIZES**2 / np.sum(SIZES**2))
    direct = measure(
        measured.model,
        functional.cross_entropy,
        datasets(),
        directions=3,
        weight_decay=0.01,
        seed=5,
        weights=SIZES**2 / np.sum(SIZES**2),
    )
    assert again == direct


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_data_that_arrive_are_measured_as_they_are_in_the_present_round() -> None:
    arriving = FederatedTrainer(model(), functional.cross_entropy, stream(), progress=False, seed=5)
    with pytest.raises(InvalidProblemError, match="no data have arrived before the first round"):
        arriving.measure()
    arriving.run(FixedPlan(fleet(), 7, 1, 4, 0.2))
    assert arriving.measure(directions=2).samples.tolist() == [16, 16, 15, 12, 9]


def test_the_bar_shows_what_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(progress=True).run(FixedPlan(fleet(), 3, 2, 4, 0.2))
    shown = capsys.readouterr().err
    assert "3/3" in shown
    for name in ("loss=", "metric=", "cost=120", "s=", "tau=2", "batch=4"):
        assert name in shown


def test_torch_data_sets_are_data_sets() -> None:
    class Listed(torch.utils.data.Dataset):
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            self.x, self.y = x, y

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return self.x[index], int(self.y[index])

    plain = trainer()
    plain.run(FixedPlan(fleet(), 2, 2, 4, 0.2))
    for kind in (Listed, torch.utils.data.TensorDataset):
        run = trainer(data=[kind(x, y) for x, y in datasets()])
        run.run(FixedPlan(fleet(), 2, 2, 4, 0.2))
        assert np.array_equal(parameters(run), parameters(plain))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode = 'fast' is unknown"),
        ({"device": "abacus"}, "device = 'abacus'"),
        ({"data": []}, "client_datasets is empty"),
        ({"data": [*datasets()[:2], (torch.zeros(0, 4), torch.zeros(0))]}, r"client_datasets\[2\] is empty"),
        ({"data": [*datasets()[:1], 7]}, r"client_datasets\[1\] is a int"),
        ({"data": [(torch.zeros(3, 4), torch.zeros(2))]}, r"client_datasets\[0\] has 3 inputs and 2 targets"),
        (
            {"data": [*datasets()[:1], (torch.zeros(3, 5), torch.zeros(3))]},
            r"client_datasets\[1\] has inputs",
        ),
        ({"data": SharedData(*samples(9, 0), [[0], [9]])}, "rows of client 1 hold 9: valid are 0 to 8"),
        ({"data": SharedData(*samples(9, 0), [[0], []])}, "rows of client 1 are empty"),
        ({"data": SharedData(*samples(9, 0), [[0.5]])}, "rows of client 0 have type float64"),
        ({"test": (torch.zeros(3, 4), torch.zeros(2))}, "test has 3 inputs and 2 targets"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"weights": [1, 2, 3]}, "weights has shape"),
        ({"weights": [1, 2, -3, 4, 5]}, r"weights\[2\] = -3"),
        ({"system": SystemModel([1.0])}, "system has 1 devices, client_datasets 5"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        trainer(**options).run(FixedPlan(fleet(), 1, 1, 1, 0.2))


def test_the_test_data_may_be_a_data_set() -> None:
    pair = samples(9, 0)
    runs = [trainer(test=test) for test in (pair, torch.utils.data.TensorDataset(*pair))]
    losses = [run.run(FixedPlan(fleet(), 2, 1, 2, 0.2)).column("test_loss") for run in runs]
    assert np.array_equal(*losses)
    with pytest.raises(
        InvalidProblemError, match=r"test is a DataLoader.*that of a loader is loader\.dataset"
    ):
        trainer(test=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pair)))


def test_data_sets_in_another_order_than_the_fleet_are_refused() -> None:
    held = [len(x) for x, _ in datasets()]
    said = (
        rf"client_datasets\[0\] holds {held[-1]} samples, and device 0 of the fleet {held[0]}: .*other order"
    )
    with pytest.raises(InvalidProblemError, match=said):
        trainer(data=datasets()[::-1]).run(FixedPlan(fleet(), 1, 1, 1, 0.2))


def test_plans_for_another_fleet_and_second_runs_are_refused() -> None:
    other = Fleet([5, 5], gradient_noise=1.0, divergence=1.0)
    with pytest.raises(InvalidProblemError, match="batch sizes for 2 clients, client_datasets has 5"):
        trainer().run(FixedPlan(other, 1, 1, 1, 0.2))
    run = trainer()
    run.run(FixedPlan(fleet(), 1, 1, 1, 0.2))
    with pytest.raises(InvalidProblemError, match="run already"):
        run.run(FixedPlan(fleet(), 1, 1, 1, 0.2))


def test_the_adapter_says_which_extra_brings_what_is_missing() -> None:
    code = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "import coopt\n"
        "try:\n    import coopt.adapters.torch\n"
        "except coopt.MissingDependencyError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'training in torch needs torch: pip install "coopt[torch]"'


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("mode", ["loop", "vectorised"])
def test_a_graphics_card_does_what_the_processor_does(mode: str) -> None:
    on_cpu, on_cuda = trainer(mode=mode), trainer(mode=mode, device="cuda")
    expected = on_cpu.run(FixedPlan(fleet(), 5, 3, [2, 5, 3, 8, 1], 0.2))
    history = on_cuda.run(FixedPlan(fleet(), 5, 3, [2, 5, 3, 8, 1], 0.2))
    assert history.column("train_loss") == pytest.approx(expected.column("train_loss"), rel=1e-9)
    assert np.allclose(parameters(on_cuda), parameters(on_cpu), rtol=1e-9, atol=1e-10)
