"""Replace a file so that a crash leaves the old content or the new, never a mixture."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

_UNFINISHED = ".unfinished"


def write_atomically(path: Path, content: str | bytes, *, keep_as: Path | None = None) -> None:
    """Write to a temporary file in the same folder, flush it to disk, and rename it over the old one.

    Parameters
    ----------
    path : Path
        The file.
    content : str or bytes
        Text is written as UTF-8.
    keep_as : Path, optional
        Name under which the old content is kept, if there is any. At every moment `path` is there, with the
        old content or the new.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            _keep(path, keep_as)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what writes of a file that were killed have left; none may be under way."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_UNFINISHED}"):
        left.unlink(missing_ok=True)


def _keep(path: Path, keep_as: Path) -> None:
    """Give the present content a second name, with no moment in which the first is missing."""
    second = path.with_name(f".{path.name}.kept{_UNFINISHED}")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # some file systems have no links
        second.write_bytes(path.read_bytes())
    second.replace(keep_as)


def _flush_folder(folder: Path) -> None:
    """Make the new names last through a loss of power, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
