"""Measurements in numpy archives (.npz), without pickled objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from coopt.errors import InvalidProblemError
from coopt.problem.stored_arrays import UNREADABLE

FORMAT = 1


def write_archive(stream: IO[bytes], values: Mapping[str, Any]) -> None:
    """Write values to an archive; those that are None are left out."""
    given = {name: value for name, value in values.items() if value is not None}
    np.savez_compressed(stream, allow_pickle=False, format=np.array(FORMAT), **given)


def read_archive(
    source: str | Path | IO[bytes], name: str, fields: Sequence[str], optional: Collection[str]
) -> dict[str, Any]:
    """The values of these fields; None for an optional one that is missing. No code in the file is run.

    `name` is what messages call the source.

    Raises
    ------
    InvalidProblemError
        If the file cannot be read or does not hold a measurement.
    """
    try:
        with np.load(source, allow_pickle=False) as archive:
            content = {key: archive[key] for key in archive.files}
    except OSError as error:
        raise InvalidProblemError(f"{name}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        # numpy's own words propose to unpickle what is no archive.
        raise InvalidProblemError(f"{name}: is no measurement: not an .npz archive of arrays") from error
    if content.pop("format", np.array(0)).tolist() != FORMAT:
        raise InvalidProblemError(f"{name}: is no measurement that this version of coopt reads")
    values: dict[str, Any] = dict.fromkeys(optional)
    for field in fields:
        if field in content:
            array = content[field]
            # What is no array was written as an array of no dimension.
            values[field] = array.item() if array.ndim == 0 else array
        elif field not in optional:
            raise InvalidProblemError(f"{name}: {field} of the measurement is missing")
    return values
