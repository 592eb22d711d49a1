"""The federated tables run, on digits and in seconds; and what they rest on holds."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks.federated import data, methods, partition, scheduled, streams
from benchmarks.federated.federation import Instance, build
from benchmarks.federated.report import reached, saving
from benchmarks.federated.runner import Record, cell

SCRIPTS = ("headline", "batches", "robustness", "streaming", "theorem", "deep")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of finished cells for all tables, as on a user's machine."""
    return tmp_path_factory.mktemp("cells")


@pytest.mark.parametrize("name", SCRIPTS)
def test_quick_variant_writes_its_table(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    rows = importlib.import_module(f"benchmarks.federated.{name}").run(True, tmp_path, "cpu")
    assert rows
    assert {path.suffix for path in tmp_path.iterdir()} >= {".csv", ".md", ".png"}
    assert (tmp_path / f"{name}.md").read_text().count("\n") >= len(rows) + 2


def test_the_schedule_beside_a_tuned_baseline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(cache))
    monkeypatch.setattr(scheduled, "TUNING", range(100, 101))
    monkeypatch.setattr(scheduled, "METHODS", (methods.SCHEDULE, scheduled.BASELINE))
    instance = Instance("digits", devices=3, samples=40, rounds=2, speeds=4)
    table, cells, runs = scheduled.compare("digits", instance, range(20, 22), "cpu")
    assert [row["method"] for row in table] == [scheduled.NAMES[name] for name in runs]
    assert len(cells) == 4
    for record in (record for records in runs.values() for record in records):
        assert record.accuracy > 0.12 and record.cost <= 1 + 1e-9 and record.time <= 1.1
    assert table[0]["smallest"] <= 100.0 and table[1]["smallest"] == ""


def test_a_finished_cell_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path))
    instance = Instance("digits", devices=3, samples=40, rounds=1, speeds=2)
    first = cell(instance, "FedAvg", (2.0, 8.0), 0)
    monkeypatch.setattr("benchmarks.federated.runner.measure", None)
    assert cell(instance, "FedAvg", (2.0, 8.0), 0) == first
    assert first.cost <= 1 and first.rounds >= 1


def test_a_federation_is_the_same_for_every_method() -> None:
    instance = Instance("digits", devices=5, samples=60, case="dirichlet", alpha=0.3, speeds=10)
    one, two = build(instance, 7), build(instance, 7)
    assert one.system == two.system and one.fleet == two.fleet and one.budget == two.budget
    assert all(np.array_equal(a, b) for a, b in zip(one.hands, two.hands, strict=True))
    assert one.system.throughput.max() / one.system.throughput.min() == pytest.approx(10)
    rows = np.concatenate([one.data.x, one.data.test_x]).astype(float)
    assert np.mean(np.sum(rows**2, axis=1)) == pytest.approx(1, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from(partition.CASES),
    devices=st.integers(1, 12),
    alpha=st.floats(0.05, 1.0),
    seed=st.integers(0, 1000),
)
def test_partitions_give_the_sizes_asked_for(case: str, devices: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(10), 30)
    counts = partition.sizes(devices, 40.0, 0.5, rng)
    hands = partition.split(labels, case, counts, 10, alpha, rng)
    if case == "full":
        assert all(np.array_equal(hand, hands[0]) for hand in hands)
    else:
        assert [len(hand) for hand in hands] == counts.tolist()
    if case == "label":
        assert all(len(np.unique(labels[hand])) == 1 for hand in hands)
    if case in ("iid", "label") and counts.sum() <= 30:
        assert len(np.unique(np.concatenate(hands))) == counts.sum()


def test_skew_runs_from_iid_to_one_label() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(partition.mixes("skew", 7, 10, 0.0, rng), partition.mixes("iid", 7, 10, 0.0, rng))
    assert np.array_equal(partition.mixes("skew", 7, 10, 1.0, rng), partition.mixes("label", 7, 10, 0.0, rng))
    half = partition.mixes("half", 6, 10, 0.0, rng)
    assert np.all(half[:3, 5:] == 0) and np.all(half[3:].max(axis=1) == 1)


@pytest.mark.parametrize("arrivals", ["smooth", "burst", "random"])
def test_everything_arrives_once_however_many_rounds_look(arrivals: str) -> None:
    labels = np.arange(400) % 4
    hands = [np.arange(0, 300), np.arange(300, 400)]
    now = [0.0]
    seen = {}
    for name, steps in (("few", 7), ("many", 500)):
        stream = streams.Stream(("fifo", arrivals, "ordered"), hands, labels, lambda: now[0], seed=3)
        for k in range(steps):
            now[0] = k / (steps - 1)
            held = stream(k)
            assert all(len(each) <= len(hand) / 4 for each, hand in zip(held, hands, strict=True))
        seen[name] = held
        assert [buffer.arrivals for buffer in stream.buffers] == [300, 100]
    assert all(np.array_equal(a, b) for a, b in zip(seen["few"], seen["many"], strict=True))


def test_saving_is_what_the_other_spends_beyond_ours_to_its_own_accuracy() -> None:
    def record(curve: list[list[float]]) -> Record:
        return Record(curve[-1][2], 1.0, 9, 1.0, 8.0, curve[-1][0], curve[-1][1], 0.0, curve)

    ours = record([[0.1, 0.2, 0.5], [0.3, 0.5, 0.8], [0.9, 1.0, 0.9]])
    theirs = record([[0.5, 0.6, 0.4], [0.8, 1.0, 0.8]])
    assert reached(ours, 0.8, 0) == 0.3
    assert saving(ours, theirs, 0) == pytest.approx(1 - 0.3 / 0.8)
    assert saving(ours, theirs, 1) == pytest.approx(0.5)
    assert reached(theirs, 0.85, 1) == float("inf")


def test_absent_data_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COOPT_DATA", raising=False)
    data.load.cache_clear()
    with pytest.raises(data.DataUnavailableError, match="COOPT_DATA"):
        data.load("sensors")
