"""One small piece of the tables on the command line, the page and large files is measured anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.explore import moves
from benchmarks.explore.served import measured_files
from benchmarks.fuzz import large_files, wrong_inputs
from benchmarks.startup import startup
from coopt.cli.explore.open_case import open_case


@pytest.mark.parametrize("code", [startup.PLAN, startup.WARM])
def test_what_is_timed_in_a_fresh_interpreter_runs(code: str) -> None:
    assert startup.seconds_of(code, dict(os.environ)) > 0.0


def test_a_move_of_the_slider_is_planned_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOVES", 1)
    fleet, job, measurement = (str(path) for path in measured_files(tmp_path, 4))
    case = open_case(fleet, job, "certified", measurement)
    _, processor, first = moves.computed(case, 1, first=True)
    _, _, best = moves.computed(case, 1)
    assert len(processor) == len(first) == len(best) == 1
    assert processor[0] > 0.0 and 0.0 < best[0] <= first[0] * (1 + 1e-9) < 2.0 * best[0]


def test_large_files_are_read_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 30, "DEVICES": 20}.items():
        monkeypatch.setattr(large_files, name, value)
    for action, size in (
        (large_files.read_csv, 1000),
        (large_files.write_json, 500),
        (large_files.read_json, 500),
    ):
        seconds, written, memory = large_files.measured(action)
        assert seconds > 0.0 and memory > 1e6
        assert size < written < 100 * size


def test_every_flipped_bit_of_a_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wrong_inputs.encode
    monkeypatch.setattr(wrong_inputs, "encode", lambda state: whole({"version": state["version"]}))
    found = wrong_inputs.bits()
    assert set(found) == {"refused"} and found["refused"] > 100


def test_wrong_arguments_are_refused_or_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = wrong_inputs.contract.calls()
    some = {name: calls[name] for name in ("allocate_batches",)}
    monkeypatch.setattr(wrong_inputs.contract, "calls", lambda: some)
    found = wrong_inputs.arguments()
    assert set(found) <= {"refused", "answered"} and found["refused"] > 20
