"""Read arrays from bytes that anybody may have written: a numpy archive, bounded in time and memory."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

# What zipfile and numpy raise on bytes that are no archive of theirs, or whose headers are no dictionary.
UNREADABLE = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile),
)


def stored_arrays(content: bytes, most: int) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an archive that `numpy.savez` wrote; no code in it is run.

    Parameters
    ----------
    content : bytes
        The archive. No array takes more memory than it has bytes, so nothing in it may be compressed.
    most : int
        Most arrays.

    Raises
    ------
    ValueError
        If it is no such archive.

    Examples
    --------
    >>> stream = io.BytesIO()
    >>> np.savez(stream, a=np.arange(3))
    >>> stored_arrays(stream.getvalue(), most=1)
    {'a': array([0, 1, 2])}
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > most:
                raise ValueError(f"it has {len(members)} arrays, {most} at most are read")
            for info in members:
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                    raise ValueError("an array is not stored as it is")
        with np.load(io.BytesIO(content), allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except UNREADABLE as error:
        raise ValueError(f"no archive of arrays: {error}") from error
