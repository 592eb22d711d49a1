"""One small piece of every table on torch and Flower is measured anew, and shows what it is to show."""

from __future__ import annotations

import csv
import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")
pytest.importorskip("sklearn")

import torch

from benchmarks.federated import trainer_speed
from benchmarks.federated.data import load
from benchmarks.forecast import diloco
from benchmarks.online import kills, step_time, wall_clock


@pytest.mark.parametrize("name", [row[0] for row in trainer_speed.ROWS if "coopt" in row[0]])
def test_every_way_of_training_has_a_time(name: str) -> None:
    (contender,) = (row[1] for row in trainer_speed.ROWS if row[0] == name)
    assert contender(3, 1) > 0.0


def test_a_killed_training_comes_to_what_a_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "COST", 500.0)
    whole = kills.torch_run(tmp_path)
    assert max(whole[1:]) <= 1.0
    # The checkpoint of the last round is there, and nothing is left to train.
    assert kills.torch_run(tmp_path) == whole


def test_a_server_on_simulated_nodes_ends_with_every_round_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "COST", 500.0)
    found, cost, seconds = kills.flower_run(tmp_path)
    assert found == "whole"
    assert 0.0 < cost <= 1.0 and 0.0 < seconds <= 1.0


def recorded(folder: Path) -> None:
    """Two ways of training behind three links: half a second a step, bits over bandwidth, a set-up."""
    (folder / "devices").mkdir()
    columns = (
        "algorithm",
        "bandwidth_mbps",
        "local_steps",
        "repeat",
        "step",
        "synchronised",
        "wall_ms",
        "sync_ms",
    )
    with gzip.open(folder / "devices" / "datacentre_steps.csv.gz", "wt", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for algorithm, link, tau in itertools.product(
            step_time.OTHER_WAY, (200, 1000, 5000), (1, 8, 32, 128)
        ):
            for step in range(1, 129):
                sync = 1000.0 * (0.1 + 800.0 / link + 2.0 * (step == tau)) if step % tau == 0 else 0.0
                writer.writerow((algorithm, link, tau, 0, step, int(sync > 0), 500.0 + sync, sync or ""))


def test_rounds_that_no_fit_has_seen_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path)
    monkeypatch.setattr(step_time, "REPEATS", 9)
    rows = step_time.data_centre(tmp_path) + step_time.this_machine()
    parts = {part: [row for row in rows if row["part"] == part] for part in ("steps", "links", "once")}
    for own in parts.values():
        assert step_time.errors(own, "predicted") == pytest.approx(np.zeros(len(own)), abs=1e-4)
    tables = [{key: str(value) for key, value in row.items()} for row in rows]
    assert step_time.table(tables).count("**") == 2 * 5


class Clocked(wall_clock.Federation):
    """Digits on a clock that goes on by so much for a call of the network, and for every row of it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now, 20)

    def network(self):
        def work(_module, rows):
            self.now += 0.01 + 0.0005 * len(rows[0])

        module = super().network()
        module.register_forward_pre_hook(work)
        return module


def test_a_plan_on_a_clock_beside_the_controller_and_a_fixed_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall_clock, "load", lambda name: load("digits"))
    for name, value in {"HIDDEN": 4, "DIRECTIONS": 3, "RETIMED": 1}.items():
        monkeypatch.setattr(wall_clock, name, value)
    federation = Clocked()
    full = wall_clock.compete(federation, 2.0, ((2, 8),), ours=True)
    assert list(full) == ["plan", "controller", "2 8"]
    start, _ = federation.judge(federation.network())
    assert all(run["loss"] < start and run["rounds"] > 3 for run in full.values())
    # Nothing else takes time on this clock, so rounds take what they are predicted to.
    assert full["plan"]["measured"] == pytest.approx(full["plan"]["predicted"], rel=0.1)
    known = {"wall": False, "limit": 2.0, "trial_limit": 0.0, "runs": {"20": {"trial": {}, "full": full}}}
    text = wall_clock.table(known)
    assert "**plan**" in text and "**controller**" in text and "| fixed |" in text


@pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")
def test_diloco_is_forecast_and_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a link as slow as ten steps: digits on four workers."""

    def shards(seed):
        data, picked = load("digits"), np.random.default_rng(seed).permutation(400)
        rows = data.x[picked].reshape(len(picked), -1), data.y[picked]
        return tuple(map(torch.from_numpy, rows))

    monkeypatch.setattr(diloco, "trace", lambda _link: (0.2, 2.0))
    monkeypatch.setattr(diloco, "shards", shards)
    small = {"SHARD": 100, "HIDDEN": 4, "QUICK_SECONDS": 20.0, "ROWS": 16, "DIRECTIONS": 4}
    for name, value in {**small, "STEPS": (2, 8), "BATCHES": (2, 8)}.items():
        monkeypatch.setattr(diloco, name, value)
    cell = diloco.cell(50, 0, quick=True)
    (row,) = diloco.summary([cell])
    assert 0.0 < cell["its loss"] < cell["worst of the grid"] < np.log(10) * 1.2
    assert 0.0 < row["charge, %"] < 100.0
    assert 0.5 < row["loss over the best"] < 2.0 and row["rank"] > 0.0
