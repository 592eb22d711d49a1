"""The readers of what strangers write, each as a function of bytes: nothing but CooptError comes out.

A warning of numpy's counts as a crash, and so does a report or plan that is taken and cannot be written.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coopt import Allocation, Budget, ClientReport, Controller, CooptError, Fleet, Problem, Schedule
from coopt.online import checkpoint_format
from coopt.problem import files

warnings.simplefilter("error", RuntimeWarning)
CONTROLLER = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=1000.0), 0.1)
NOWHERE = Path("fuzzed")
_held = [""]


@contextmanager
def _in_place_of_a_file(_: Path) -> Iterator[io.StringIO]:
    yield io.StringIO(_held[0], newline="")


# No file is touched: what a path leads to is the input, whatever the path.
files._opened = _in_place_of_a_file


def _read_file(data: bytes, read: Callable[[Path], object]) -> None:
    _held[0] = data.decode("utf-8", "surrogateescape")
    read(NOWHERE)


def csv(data: bytes) -> None:
    """A fleet as a table."""
    _read_file(data, Fleet.from_csv)


def toml(data: bytes) -> None:
    """A problem, or a job whose fleet is given."""
    _read_file(data, Problem.from_toml)


def json(data: bytes) -> None:
    """A plan, which is written again and read back equal where it is taken."""
    text = data.decode("utf-8", "replace")
    plan = Allocation.from_json(text)
    plan.to_json()


def schedule(data: bytes) -> None:
    """A plan in phases."""
    Schedule.from_json(data.decode("utf-8", "replace")).to_json()


def report(data: bytes) -> None:
    """What a client says, and what a controller makes of it."""
    said = ClientReport.from_json(data.decode("utf-8", "replace"))
    said.to_json()
    controller = Controller(CONTROLLER.fleet, CONTROLLER.budget, 0.1)
    controller.plan()
    controller.observe([said])


def checkpoint(data: bytes) -> None:
    """An archive with the right checksum, whose content is the input: first raw, then as a state's text."""
    comment, digits = checkpoint_format._COMMENT, checkpoint_format._DIGITS
    if data[:1] == b"{":
        made = io.BytesIO()
        np.savez(made, allow_pickle=False, state=np.frombuffer(data, dtype=np.uint8))
        with zipfile.ZipFile(made, "a") as archive:
            archive.comment = comment + b"0" * digits
        content = made.getvalue()[:-digits]
    else:
        content = data + comment
    state = checkpoint_format.decode(content + hashlib.sha256(content).hexdigest().encode())
    fresh = Controller(CONTROLLER.fleet, CONTROLLER.budget, 0.1)
    fresh.load_state_dict(state)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "csv": csv,
    "toml": toml,
    "json": json,
    "schedule": schedule,
    "report": report,
    "checkpoint": checkpoint,
}


def run(name: str, data: bytes) -> bool:
    """Read an input; tell whether it was taken. Whatever is no CooptError passes through."""
    try:
        TARGETS[name](data)
    except (CooptError, checkpoint_format.DamagedError):
        return False
    return True
