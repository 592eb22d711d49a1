"""The file that a run is saved to and goes on from: one implementation for every loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from coopt.errors import CheckpointError, CheckpointWarning, InvalidProblemError
from coopt.online.atomic_file import remove_unfinished, write_atomically
from coopt.online.checkpoint_format import DamagedError, decode, digest_of, encode
from coopt.online.file_lock import FileLock, process_lock
from coopt.online.fingerprint import Fingerprint, differences
from coopt.problem.validation import shown


class CheckpointFile:
    """A file that holds a run, and beside it ``NAME.previous``, which holds what was saved before.

    Use it as a context: from entering on, no other run has the file, the folder is known to be writeable,
    and what killed writes left there is gone.

    Parameters
    ----------
    path : str or Path
        The file; its folder must exist.
    fingerprint : dict or None
        What makes the run the one that it is, see `coopt.online.fingerprint`; None to look at any run.
    may_differ : collection of str
        Entries of the fingerprint that may be others when the run goes on; a `CheckpointWarning` says so.

    Attributes
    ----------
    digest : str
        SHA-256 of what was read or written last; it tells states of a run apart.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with CheckpointFile(f"{folder.name}/run", {"seed": 1}) as file:
    ...     file.write({"round": 3})
    >>> with CheckpointFile(f"{folder.name}/run", {"seed": 1}) as file:
    ...     file.read()
    {'round': 3}
    >>> with CheckpointFile(f"{folder.name}/run", {"seed": 2}) as file:
    ...     file.read()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    coopt.InvalidProblemError: ... is of another run, with 'seed' = 1 instead of 2: delete it, or ...
    >>> folder.cleanup()
    """

    def __init__(
        self, path: str | Path, fingerprint: Fingerprint | None, *, may_differ: Collection[str] = ()
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InvalidProblemError(f"checkpoint = {shown(path)}: must be the path of a file")
        self.path = Path(path)
        if not self.path.name:
            raise InvalidProblemError(f"checkpoint = {shown(path)}: must be the path of a file")
        self.previous = self.path.with_name(f"{self.path.name}.previous")
        self.fingerprint = fingerprint
        self.may_differ = may_differ
        self._lock = FileLock(self.path)
        self.digest = ""
        # Only what is known to be whole may take the place of the previous file.
        self._whole = False

    def __enter__(self) -> Self:
        """Take the file.

        Raises
        ------
        InvalidProblemError
            If nothing can be written in the folder.
        CheckpointError
            If another run has the file.
        """
        self._lock.acquire()
        remove_unfinished(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def kept(self) -> Self:
        """Take the file for this process, until nothing in it refers to the file any more.

        Raises
        ------
        InvalidProblemError, CheckpointError
            As on entering.
        """
        self._lock = process_lock(self.path)
        return self

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, or None where nothing was.

        Where the file is damaged the one before is taken, and a `CheckpointWarning` says so.

        Raises
        ------
        InvalidProblemError
            If the file is of another run, of another version, no checkpoint at all, or damaged with no whole
            one before it.
        """
        if not self.path.exists():
            return None
        try:
            state = self._read(self.path)
            self._whole = True
        except DamagedError as error:
            state = self._read_previous(error)
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file, and keep what was there as the previous one.

        Parameters
        ----------
        state : dict
            Numbers, strings, lists, dictionaries with strings as keys, and arrays of numbers.

        Raises
        ------
        CheckpointError
            If the disk refuses it, as when it is full; the file is as it was.
        """
        content = encode({"fingerprint": self.fingerprint, "run": state})
        try:
            if not self.path.exists():
                # A run that begins anew has none before it: what is there was another's.
                self.previous.unlink(missing_ok=True)
            elif not self._whole:
                self._whole = _is_whole(self.path)
            write_atomically(self.path, content, keep_as=self.previous if self._whole else None)
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be saved: {error.strerror or error}; what was saved before is there"
            ) from error
        self._whole, self.digest = True, digest_of(content)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            saved = path.read_bytes()
            content = decode(saved)
        except OSError as error:
            raise InvalidProblemError(f"{path} cannot be read: {error.strerror}") from error
        except InvalidProblemError as error:
            raise InvalidProblemError(f"{path} is no checkpoint that can be used: {error}") from error
        self._compare(path, content.get("fingerprint"))
        run = content.get("run")
        if not isinstance(run, dict):
            raise InvalidProblemError(f"{path} is no checkpoint that can be used: it holds no run")
        self.digest = digest_of(saved)
        return run

    def _compare(self, path: Path, saved: object) -> None:
        if self.fingerprint is None:
            return
        for change in differences(saved, self.fingerprint, what=str(path), may_differ=self.may_differ):
            warnings.warn(f"{path}: {change}", CheckpointWarning, stacklevel=5)

    def _read_previous(self, damage: DamagedError) -> dict[str, Any]:
        refusal = f"{self.path} is damaged, or no checkpoint: {damage}; delete it, or give another path"
        if not self.previous.exists():
            raise InvalidProblemError(refusal) from damage
        try:
            state = self._read(self.previous)
        except DamagedError as error:
            raise InvalidProblemError(f"{refusal} ({self.previous.name} is damaged too)") from error
        warnings.warn(
            f"{self.path} is damaged: {damage}. The run goes on from {self.previous.name}, which was saved "
            "before it: what was done in between is done, and paid for, again",
            CheckpointWarning,
            stacklevel=3,
        )
        return state


def _is_whole(path: Path) -> bool:
    try:
        decode(path.read_bytes())
    except (DamagedError, InvalidProblemError):
        return False
    return True
