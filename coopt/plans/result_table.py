"""Results as flat rows, for CSV files and data frames."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopt.errors import InvalidProblemError, MissingDependencyError
from coopt.plans.allocation import Allocation

if TYPE_CHECKING:
    import pandas as pd


class ResultTable(ABC):
    """A result that is a table."""

    @abstractmethod
    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a row, all with the same keys."""

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
            with Path(path).open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise InvalidProblemError(f"{path}: cannot be written: {error.strerror}") from error

    def to_dataframe(self) -> pd.DataFrame:
        """:meth:`to_rows` as a pandas.DataFrame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise MissingDependencyError(
                "to_dataframe needs pandas, which is not installed: pip install pandas, or use to_rows()"
            )
        import pandas as pd

        return pd.DataFrame(self.to_rows())


def plan_columns(plan: Allocation | None) -> dict[str, Any]:
    """The columns of a table that describe a plan; None in each where there is no plan."""
    return {
        "rounds": plan and plan.rounds,
        "local_steps": plan and plan.local_steps,
        "mean_batch": plan and float(plan.batch_sizes.mean()),
        "predicted_error": plan and plan.predicted_error,
        "error_bound": plan.error_bound if plan is not None and plan.is_bound else None,
        "used_cost": plan and plan.cost,
        "used_time": plan and plan.time,
        "used_energy": plan and plan.energy,
        "gap": plan and plan.gap,
    }
