"""The tables of really trained plans run, on digits and in seconds; and what they rest on holds."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason='these benchmarks train with numba: pip install ".[bench]"')
pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from benchmarks.forecast import batches_of_one, free_rates, hindsight, schedules, training
from benchmarks.forecast.federations import QUICK, RIDGE, Case, Federation, build
from benchmarks.forecast.kernels import GRADIENTS, rounds_of
from benchmarks.forecast.losses import load_vector, lowest, mean_loss, network, training_loss, vector, widths
from benchmarks.forecast.study import Study
from coopt import Phase

MODELS = {
    "softmax": Case("digits", "softmax", devices=3, samples=40),
    "squared": Case("digits", "squared", devices=3, samples=40),
    "tanh": Case("digits", "tanh", devices=3, samples=40, widths=(5,), rate=0.1),
    "relu": Case("digits", "relu", devices=3, samples=40, widths=(5,), rate=0.1),
    "conv": Case("digits", "conv", devices=3, samples=40, widths=(2, 3, 4), rate=0.1),
}


def somewhere(federation: Federation) -> np.ndarray:
    start = vector(network(federation))
    return start + 0.1 * np.random.default_rng(1).normal(size=start.shape).astype(np.float32)


def slope(federation: Federation, w: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The gradient of the mean loss on some rows, by torch."""
    module = load_vector(network(federation), w)
    found = module(torch.from_numpy(federation.x[rows]))
    mean_loss(federation)(found, torch.from_numpy(federation.y[rows])).backward()
    for p in module.parameters():
        p.data = p.grad
    return vector(module)


@pytest.mark.parametrize("model", MODELS)
def test_machine_code_takes_the_gradients_that_torch_takes(model: str) -> None:
    federation = build(MODELS[model])
    w, rows = somewhere(federation), np.array([3, 70, 3, 99, 41])
    found = np.empty_like(w)
    GRADIENTS[model](w, found, federation.x, federation.y, rows, np.array(widths(federation)))
    assert np.allclose(found, slope(federation, w, rows), atol=1e-6)


def test_a_round_is_local_steps_and_a_weighted_mean() -> None:
    federation = build(MODELS["softmax"])
    w, batches = somewhere(federation), np.array([2, 5, 3])
    rng = np.random.default_rng(0)
    picks = (
        np.array([[rng.integers(0, n, (4, 5)) for n in federation.samples]])
        + federation.starts[:, None, None]
    )
    expected = np.zeros_like(w)
    for i, share in enumerate(federation.weights):
        local = w.copy()
        for t in range(4):
            local -= 0.3 * (slope(federation, local, picks[0, i, t, : batches[i]]) + RIDGE * local)
        expected += np.float32(share) * local
    run = rounds_of(GRADIENTS["softmax"])
    shares, cut = federation.weights.astype(np.float32), np.array(widths(federation))
    run(w, federation.x, federation.y, picks, batches, shares, 0.3, RIDGE, cut)
    assert np.allclose(w, expected, atol=1e-5)


def test_the_lowest_loss_has_no_slope() -> None:
    federation = build(MODELS["squared"])
    start = vector(network(federation))
    x = federation.x.astype(float)
    hot = np.eye(federation.classes)[federation.y]
    best = np.linalg.solve(x.T @ x / len(x) + RIDGE * np.eye(x.shape[1]), x.T @ hot / len(x))
    value = training_loss(federation, best.astype(np.float32).ravel())
    assert lowest(federation, [start]) == pytest.approx(value, abs=1e-6)
    assert training_loss(federation, start) == pytest.approx(0.5)


def test_training_is_the_same_however_often_it_is_looked_at(tmp_path: Path) -> None:
    federation = build(MODELS["softmax"])
    batches = np.full(3, 4)
    once = training.train(federation, 2, batches, np.array([6]), 2)
    often = training.train(federation, 2, batches, np.array([1, 2, 5, 6]), 2)
    assert np.array_equal(once.models, often.models)
    assert not np.array_equal(once.models[0], once.models[1])
    assert often.after(2)[1] == often.losses[1, 2]
    middle = (often.losses[0, 2] + 2 * often.losses[0, 3]) / 3
    assert often.after(4)[0] == pytest.approx(middle)


def test_a_trained_plan_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path))
    case = QUICK["digits, logistic"]
    first = training.grid_run(case, 5, 16, 1)
    monkeypatch.setattr(training, "train", None)
    again = training.grid_run(case, 5, 16, 1)
    assert first is not None and again is not None and np.array_equal(first.losses, again.losses)
    assert first.rounds[-1] == build(case).rounds(build(case).cost(4), 5, 16)
    assert training.grid_run(replace(case, rounds=1, levels=(1,)), 80, 64, 1) is None


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of trained plans for all tables, as on a user's machine."""
    return tmp_path_factory.mktemp("plans")


@pytest.mark.parametrize(
    "name", ["grid", "off_grid", "effort", "failures", "duration", "schedules", "confirmed", "server_adam"]
)
def test_quick_variant_writes_its_tables(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    # One of each kind: searches over many phases take most of the time.
    few = ("one phase", "two phases, free rates")
    monkeypatch.setattr(schedules, "PLANS", {plan: schedules.PLANS[plan] for plan in few})
    rows = importlib.import_module(f"benchmarks.forecast.{name}").run(True, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png"}
    table = "grid" if name == "off_grid" else name
    assert (tmp_path / f"{table}.md").read_text().count("\n") == len(rows) + 2
    if table == "grid":
        found = {row["chooser"]: row for row in rows}
        assert 0.9 <= found["forecast"]["4x"] < found["certified"]["4x"]


def test_decays_fall_to_zero_and_the_best_of_their_runs_counts(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path))
    for fall in (hindsight.linear, hindsight.cosine):
        parts = [fall(part) for part in np.linspace(0.0, 1.0, 9)]
        assert parts[0] == 1.0 and parts[-1] == pytest.approx(0.0, abs=1e-12)
        assert parts == sorted(parts, reverse=True) and sum(parts) == pytest.approx(4.5)
    study = Study(MODELS["softmax"], (1, 2), (4,), 1)
    monkeypatch.setattr(study, "__dict__", study.__dict__ | {"lowest": 0.0})
    rounds, gaps = {(1, 4): 12, (2, 4): 8}, {(1, 4): 1.0, (2, 4): 2.0}
    gap, text = hindsight.best_decay(study, rounds, gaps, "linear decay")
    assert text.endswith("of 10 runs")
    every = [
        hindsight.decayed(study, pair, rounds[pair], "linear decay", factor)
        for pair in rounds
        for factor in hindsight.DECAY_RATES
    ]
    assert gap == min(every) and len(set(every)) == 10


def test_training_in_phases_goes_on(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path))
    federation = build(MODELS["softmax"])
    monkeypatch.setattr(schedules, "RUNS", 2)
    whole = schedules.trained(federation, [Phase(12, 2, 4, 0.2), Phase(3, 2, 8, 1e-12)], None, 7)
    # The second phase stands still.
    np.testing.assert_allclose(
        whole, schedules.trained(federation, [Phase(12, 2, 4, 0.2)], None, 7), rtol=1e-6
    )
    assert (whole < training_loss(federation, vector(network(federation)))).all()


SMALL = Case("digits", "softmax", devices=3, samples=40, rounds=10, levels=(1,))


def test_filling_the_grid_trains_its_plans(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    training.fill(SMALL, (2, 5), (4,))
    assert capsys.readouterr().out.count(" rounds ") == 2
    run = training.grid_run(SMALL, 2, 4, training.seeds_of(SMALL))
    assert run is not None and (run.losses[:, -1] < 0.7 * run.losses[:, 0]).all()


def test_plans_with_batches_of_one_and_of_two(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    row = batches_of_one.row("small", SMALL, 1, 3)
    start = training_loss(build(SMALL), vector(network(build(SMALL))))
    assert row["smallest batch"] in (1, 2)
    assert row["loss, by the rule"] in (row["loss, one allowed"], row["loss, at least two"])
    assert 0.0 < row["loss, by the rule"] < 0.7 * start


def test_rates_grow_as_far_as_they_may(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    for name, value in {"GROWTHS": (3.0,), "LEVEL": 1, "DIRECTIONS": 3, "PHASES": 1}.items():
        monkeypatch.setattr(free_rates, name, value)
    given, free = free_rates.cells("small", Study(SMALL, (1, 5), (4,), 1))
    assert given["rates"] == "given" and given["rate, 1"] == pytest.approx(1.0)
    assert 0.0 < free["rate, 1"] <= 3.0 * (1 + 1e-9)
    assert 0.0 < given["1 phases"] < 10.0 and 0.0 < free["1 phases"] < 10.0
