"""Results as flat rows: for CSV files, and for data frames of whichever library the user has."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from coopt.errors import InvalidProblemError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class DataFrameSource(ABC):
    """What can be had as a data frame."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a row, all with the same keys."""

    @overload
    def to_dataframe(self, backend: Literal["pandas"] = "pandas") -> pd.DataFrame: ...

    @overload
    def to_dataframe(self, backend: Literal["polars"]) -> pl.DataFrame: ...

    @overload
    def to_dataframe(self, backend: Literal["pyarrow"]) -> pa.Table: ...

    def to_dataframe(
        self, backend: Literal["pandas", "polars", "pyarrow"] = "pandas"
    ) -> pd.DataFrame | pl.DataFrame | pa.Table:
        """The rows of :meth:`to_rows` as a data frame; None is the library's own missing value.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default "pandas"
            Whose data frame.

        Raises
        ------
        MissingDependencyError
            If narwhals (the extra ``dataframe``) or the library is not installed.
        InvalidProblemError
            If the backend is none of the three.
        """
        from coopt.problem.data_frames import make_frame

        made: pd.DataFrame | pl.DataFrame | pa.Table = make_frame(self._columns(), backend)
        return made

    def _columns(self) -> Mapping[str, Any]:
        rows = self.to_rows()
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


class ResultTable(DataFrameSource):
    """A result that is a table."""

    def _first_rows(self, count: int) -> tuple[list[dict[str, Any]], int]:
        """Some rows from the start, and how many there are."""
        rows = self.to_rows()
        return rows[:count], len(rows)

    def to_csv(self, path: str | Path) -> None:
        """Write :meth:`to_rows` as CSV with a header; None becomes an empty cell.

        Raises
        ------
        InvalidProblemError
            If there is no row, or the file cannot be written.
        """
        rows = self.to_rows()
        if not rows:
            raise InvalidProblemError(f"{path}: nothing to write: the table has no row")
        try:
            Path(path).write_text(csv_text(rows), encoding="utf-8", newline="")
        except OSError as error:
            raise InvalidProblemError(f"{path}: cannot be written: {error.strerror}") from error


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with equal keys as CSV with a header; None becomes an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
