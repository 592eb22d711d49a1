"""The reports of a round as a table: one row a client, and NaN for what is not there or not believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coopt.measuring.report import HalfBatches, SameBatchPair

if TYPE_CHECKING:
    from coopt.measuring.report import ClientReport

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SCALARS = (
    "samples",
    "local_steps",
    "batch_size",
    "samples_processed",
    "seconds_computing",
    "seconds_communicating",
    "cost",
    "loss",
)
HALVES = tuple(f"halves_{field.name}" for field in fields(HalfBatches))
PAIR = tuple(f"pair_{field.name}" for field in fields(SameBatchPair))
VECTORS = ("gradient", "change")
# The parts of a report that are believed or not as a whole, with their columns.
GROUPS = {name: (name,) for name in (*SCALARS, *VECTORS)} | {"halves": HALVES, "pair": PAIR}


@dataclass(frozen=True, eq=False)
class Observations:
    """The believed parts of a round's reports, one entry per client; NaN stands for what is not believed.

    Attributes
    ----------
    client : numpy.ndarray of int, shape (m,)
        Indices of the devices, increasing.
    current : numpy.ndarray of bool, shape (m,)
        Whether the report is about the round that just ended.
    column : dict of numpy.ndarray, shape (m,)
        The scalars of the reports by name, and the squared norms ``gradient`` and ``change`` of the vectors.
    vectors : dict of lists
        The vectors themselves, None where not believed.
    """

    client: npt.NDArray[np.int64]
    current: Mask
    column: dict[str, Floats]
    vectors: dict[str, list[Floats | None]]

    def __getitem__(self, name: str) -> Floats:
        """Give one column."""
        return self.column[name]

    @property
    def noise(self) -> Floats:
        """Gradient noise M_i as the halves of the batches show it, shape (m,) [gradient^2 * samples]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = 1.0 / self["halves_first"] + 1.0 / self["halves_second"]
            return np.asarray(self["halves_difference"] / parts)

    def leave_out(self, group: str, rows: Mask) -> None:
        """Believe a part of some reports no longer."""
        for name in GROUPS[group]:
            self.column[name][rows] = np.nan
        if group in VECTORS:
            for row in np.flatnonzero(rows):
                self.vectors[group][row] = None


def tabulate(reports: Sequence[ClientReport], now: int) -> Observations:
    """Arrange reports, in the order of their clients, about round `now` or an earlier one."""
    column: dict[str, Floats] = {}
    for prefix, names in (("", SCALARS), ("halves", HALVES), ("pair", PAIR)):
        parts = [getattr(report, prefix) if prefix else report for report in reports]
        for name in names:
            attribute = name.removeprefix(f"{prefix}_")
            # None becomes NaN.
            column[name] = np.array([getattr(part, attribute, None) for part in parts], dtype=np.float64)
    vectors = {name: [getattr(report, name) for report in reports] for name in VECTORS}
    with np.errstate(over="ignore", invalid="ignore"):
        for name in VECTORS:
            column[name] = np.array([np.nan if v is None else float(v @ v) for v in vectors[name]])
    return Observations(
        client=np.array([report.client for report in reports], dtype=np.int64),
        current=np.array([report.round == now for report in reports], dtype=bool),
        column=column,
        vectors=vectors,
    )
