"""A checkpoint is whole or refused, of this run or refused, and one run's at a time."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coopt import CheckpointError, CheckpointWarning, InvalidProblemError
from coopt.online.checkpoint_file import CheckpointFile
from coopt.online.checkpoint_format import DamagedError, decode, encode
from coopt.online.file_lock import FileLock
from coopt.online.fingerprint import differences, fingerprint

STATE = {
    "round": 3,
    "loss": float("inf"),
    "model": np.arange(6, dtype=np.float32).reshape(2, 3),
    "clients": [{"held": np.array([1, 2])}, None, "text", True],
}
RUN = {"seed": 1, "budget.cost": 10.0}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def test_a_state_comes_back_as_it_was_and_numpy_opens_the_file() -> None:
    content = encode(STATE)
    assert same(decode(content), STATE)
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        assert sorted(archive.files) == ["array0", "array1", "state"]
        np.testing.assert_array_equal(archive["array0"], STATE["model"])


def test_every_single_flipped_bit_is_found() -> None:
    content = encode({"round": 1, "model": np.arange(3.0)})
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            decode(bytes(damaged))


@pytest.mark.parametrize("change", [slice(None, 0), slice(None, -1), slice(1, None), slice(None, 100)])
def test_a_missing_part_is_found(change: slice) -> None:
    with pytest.raises(DamagedError):
        decode(encode(STATE)[change])


def sealed(members: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive that somebody made on purpose, with the right checksum."""
    import hashlib

    from coopt.online.checkpoint_format import _COMMENT, _DIGITS

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, value in members.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(value), allow_pickle=True)
            archive.writestr(f"{name}.npy", stream.getvalue())
        archive.comment = _COMMENT + b"0" * _DIGITS
    content = made.getvalue()[:-_DIGITS]
    return content + hashlib.sha256(content).hexdigest().encode()


def json_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sealed({"state": json_bytes('{"version": 99, "state": {}}')}), "version = 99: this version"),
        (sealed({"state": json_bytes('{"version": 1, "state": [1]}')}), "holds no state"),
        (sealed({"state": json_bytes("[" * 100_000)}), "nested too deeply"),
        (sealed({"state": json_bytes('{"a": ' + "9" * 5000 + "}")}), "holds no state"),
        (sealed({"other": np.arange(3)}), "cannot be read"),
        (sealed({"state": np.array([{"a": 1}], dtype=object)}), "cannot be read"),
        (sealed({"state": np.zeros(10**6, dtype=np.uint8)}, zipfile.ZIP_DEFLATED), "not stored as it is"),
        (
            sealed({"state": json_bytes('{"version": 1, "state": {"a": {"array of this archive": "b"}}}')}),
            "lacks the array",
        ),
    ],
)
def test_an_archive_made_to_mislead_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        decode(content)


def test_the_previous_file_is_kept_and_taken_where_the_newest_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with CheckpointFile(path, RUN) as file:
        for round_ in range(3):
            file.write({"round": round_})
    path.write_bytes(path.read_bytes()[:-1])
    with CheckpointFile(path, RUN) as file:
        with pytest.warns(CheckpointWarning, match=r"damaged.*goes on from run\.previous"):
            assert file.read() == {"round": 1}
        # The damaged file does not take the place of the one that is whole.
        file.write({"round": 2})
        path.write_bytes(b"")
        with pytest.warns(CheckpointWarning):
            assert file.read() == {"round": 1}
    (tmp_path / "run.previous").write_bytes(b"")
    with CheckpointFile(path, RUN) as file, pytest.raises(InvalidProblemError, match="damaged too"):
        file.read()
    path.unlink()
    with CheckpointFile(path, RUN) as file:
        assert file.read() is None  # what was deleted is not brought back
        file.write({"round": 0})
        assert not (tmp_path / "run.previous").exists()


def test_another_run_is_named_by_the_field_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with CheckpointFile(path, RUN) as file:
        file.write({"round": 1})
    other = CheckpointFile(path, RUN | {"seed": 2})
    with other, pytest.raises(InvalidProblemError, match="another run, with 'seed' = 1 instead of 2"):
        other.read()
    richer = CheckpointFile(path, RUN | {"budget.cost": 20.0}, may_differ=("budget.cost",))
    with richer, pytest.warns(CheckpointWarning, match=r"budget\.cost was 10\.0, and is 20\.0 from here on"):
        assert richer.read() == {"round": 1}


def test_fingerprints_tell_values_apart_and_what_is_new_or_gone() -> None:
    one = fingerprint(a=np.arange(3), b=[1, 2], c=None, d=len)
    assert differences(one, fingerprint(a=np.arange(3), b=[1, 2], c=None, d=len), what="it") == []
    for name, other in (("a", np.arange(3.0)), ("b", [2, 1]), ("c", 0), ("d", max)):
        with pytest.raises(InvalidProblemError, match=f"with '{name}' = "):
            differences(one, one | fingerprint(**{name: other}), what="it")
    with pytest.raises(InvalidProblemError, match="with 'e' = 'nothing' instead of 1"):
        differences(one, one | {"e": 1}, what="it")
    with pytest.raises(InvalidProblemError, match="with 'e' = 1 instead of 'nothing'"):
        differences(one | {"e": 1}, one, what="it")


def test_a_second_run_is_refused_and_told_which_process_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = "import sys; from pathlib import Path; from coopt.online.file_lock import FileLock\n"
    holder += (
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=f"in use by process {process.pid} on "):
            CheckpointFile(path, RUN).__enter__()
        process.kill()
    # What the dead process left behind stops nobody.
    assert (tmp_path / "run.lock").exists()
    with CheckpointFile(path, RUN) as file:
        file.write({"round": 1})
        with pytest.raises(CheckpointError, match=f"another run in this process, {os.getpid()}"):
            CheckpointFile(path, RUN).__enter__()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run"]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "run")
    lock.acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(CheckpointError):
        FileLock(tmp_path / "run").acquire()
    lock.release()


def test_a_folder_that_takes_no_file_is_named_before_anything_begins() -> None:
    with pytest.raises(InvalidProblemError, match="no file can be written in this folder"):
        CheckpointFile("/nowhere/run", RUN).__enter__()
    with pytest.raises(InvalidProblemError, match="no file can be written in this folder"):
        CheckpointFile("run\0", RUN).__enter__()
    with pytest.raises(InvalidProblemError, match="checkpoint = 3: must be the path of a file"):
        CheckpointFile(3, RUN)


def test_leftovers_of_killed_writes_are_removed_and_those_of_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "run[1]"
    left = tmp_path / ".run[1].abc.unfinished"
    other = tmp_path / ".run1.abc.unfinished"
    left.write_text("half")
    other.write_text("half of another")
    with CheckpointFile(path, RUN):
        assert not left.exists() and other.exists()


def test_a_full_disk_leaves_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointFile(path, RUN) as file:
        file.write({"round": 1})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"cannot be saved: No space left.*before is there"):
            file.write({"round": 2})
        monkeypatch.undo()
        assert file.read() == {"round": 1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run"]


TOO_LARGE = """
import resource, signal, sys
import numpy as np
from coopt import CheckpointError
from coopt.online.checkpoint_file import CheckpointFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with CheckpointFile(sys.argv[1], {}) as file:
    file.write({"round": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        file.write({"round": 2, "model": np.zeros(10_000)})
    except CheckpointError as error:
        print(error)
    assert file.read() == {"round": 1}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX systems")
def test_a_limit_of_the_system_on_files_leaves_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be saved: File too large" in done.stdout
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_an_interrupt_in_the_middle_of_writing_leaves_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "run"
    # Workers of pytest-xdist ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    def go_on() -> None:
        with CheckpointFile(path, RUN) as file:
            file.read()
            monkeypatch.setattr(Path if call == "replace" else os, call, interrupted)
            file.write({"round": 2})

    with CheckpointFile(path, RUN) as file:
        file.write({"round": 1})
    try:
        with pytest.raises(KeyboardInterrupt):
            go_on()
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    with CheckpointFile(path, RUN) as file:  # the lock went with the run that was interrupted
        assert file.read() in ({"round": 1}, {"round": 2})
        assert {each.name for each in tmp_path.iterdir()} <= {"run", "run.lock", "run.previous"}


def test_a_file_system_without_links_keeps_the_previous_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with CheckpointFile(tmp_path / "run", RUN) as file:
        file.write({"round": 1})
        file.write({"round": 2})
    assert decode((tmp_path / "run.previous").read_bytes())["run"] == {"round": 1}
