"""A lock that one process holds on a file, and that the system lets go of when the process ends."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

from coopt.errors import CheckpointError, InvalidProblemError
from coopt.problem.validation import shown

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> bool:
        os.lseek(handle, _GUARDED, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# Windows keeps others from reading what is locked: a byte beyond the text that says who holds the lock.
_GUARDED = 1 << 20
LONGEST_HOLDER = 1000


class FileLock:
    """Keeps a second process, or a second run in this one, from a file.

    The lock is a file beside it, ``NAME.lock``, and a lock of the operating system on that: what a dead
    process leaves behind is a file that nobody has locked, which does not count.

    Parameters
    ----------
    guarded : Path
        The file.
    """

    def __init__(self, guarded: Path) -> None:
        self.guarded = guarded
        self.path = guarded.with_name(f"{guarded.name}.lock")
        self._handle: int | None = None
        self._owner = 0

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        InvalidProblemError
            If no file can be made in the folder.
        CheckpointError
            If another run holds the lock: the message names its process.
        """
        while self._handle is None:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except (OSError, ValueError) as error:
                raise InvalidProblemError(
                    f"{shown(str(self.guarded))}: no file can be written in this folder: {error}"
                ) from error
            try:
                if not _take(handle):
                    raise CheckpointError(
                        f"{self.guarded} is in use by {_holder(handle)}: wait until that run ends, or give "
                        "this one another path"
                    )
                # Whoever held the lock removed the file on letting go: then this lock guards nothing.
                if self._is_current(handle):
                    self._handle, handle = handle, -1
            finally:
                if handle >= 0:
                    os.close(handle)
        self._owner = os.getpid()
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, _this_process().encode())

    def release(self) -> None:
        """Let go of the lock, and remove its file."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        # A process that was forked meanwhile has the handle too, and must leave the lock to its parent.
        if sys.platform != "win32" and os.getpid() == self._owner:
            self.path.unlink(missing_ok=True)
        os.close(handle)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock itself out of copies."""
        return self.__dict__ | {"_handle": None}

    def _is_current(self, handle: int) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(handle))


_of_this_process: WeakValueDictionary[Path, FileLock] = WeakValueDictionary()


def process_lock(guarded: Path) -> FileLock:
    """Give the lock on a file that all who ask in this process share, until nobody of them is left."""
    lock = _of_this_process.get(guarded.absolute())
    if lock is None or not lock.held:
        lock = _of_this_process[guarded.absolute()] = FileLock(guarded)
        lock.acquire()
    return lock


def _this_process() -> str:
    return json.dumps({"process": os.getpid(), "host": socket.gethostname(), "command": sys.argv[0]})


def _holder(handle: int) -> str:
    """Name the process that holds a lock, as it wrote itself down."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        told: Any = json.loads(os.read(handle, LONGEST_HOLDER))
        process, host, command = told["process"], told["host"], told["command"]
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
    if process == os.getpid() and host == socket.gethostname():
        return f"another run in this process, {process}"
    return f"process {process} on {host} ({command})"
