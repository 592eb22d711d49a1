"""Which batch sizes a device may have: between two ends, multiples of a number, or a list of sizes."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError

Ints = NDArray[np.int64]


class AdmissibleBatches:
    """The part of a fleet that says which batches are allowed; see :class:`coopt.Fleet` for the fields."""

    samples: Ints
    min_batch: Ints
    max_batch: Ints
    batch_multiple: Ints
    replacement: bool
    batch_choices: tuple[tuple[int, ...], ...] | None

    def check_batch_range(self) -> None:
        """Raise InvalidProblemError for the first device without an admissible batch."""
        if not self.replacement:
            beyond = self.max_batch > self.samples
            if beyond.any():
                i = int(beyond.argmax())
                raise InvalidProblemError(
                    f"max_batch[{i}] = {self.max_batch[i]}: must not exceed samples[{i}] = "
                    f"{self.samples[i]} when batches are drawn without replacement"
                )
        if self.batch_choices is not None and (self.batch_multiple > 1).any():
            i = int((self.batch_multiple > 1).argmax())
            raise InvalidProblemError(
                f"batch_multiple[{i}] = {self.batch_multiple[i]}: give either multiples or batch_choices"
            )
        lower, upper = self.batch_range()
        if (lower < 1).any():
            i = int((lower < 1).argmax())
            raise InvalidProblemError(
                f"batch_choices[{i}]: none lies between min_batch[{i}] = {self.min_batch[i]} and "
                f"max_batch[{i}] = {self.max_batch[i]}"
            )
        empty = lower > upper
        if empty.any():
            i = int(empty.argmax())
            multiple, least = self.batch_multiple[i], self.min_batch[i]
            asked = f"min_batch[{i}] = {least}"
            if multiple > 1:
                asked = f"batch_multiple[{i}] = {multiple}"
                if least > 1:
                    asked += f" and min_batch[{i}] = {least}"
            if self.max_batch[i] == self.samples[i] < lower[i]:
                again = f"give max_batch[{i}] >= {lower[i]} to draw samples more than once, or "
                raise InvalidProblemError(
                    f"{asked}: the smallest batch is {lower[i]}, and the device holds samples[{i}] = "
                    f"{self.samples[i]}; {again if self.replacement else ''}leave the device out"
                )
            raise InvalidProblemError(
                f"{asked}: the smallest batch is {lower[i]}, more than max_batch[{i}] = {self.max_batch[i]}"
            )

    def batch_range(self) -> tuple[Ints, Ints]:
        """Smallest and largest admissible batch of every device, as multiples of batch_multiple.

        Returns
        -------
        tuple of ndarray of int64, shape (N,)
        """
        return self._batch_range

    @cached_property
    def choice_table(self) -> Ints | None:
        """The allowed sizes of every device, ascending, the largest repeated, shape (N, C); None: all.

        A row of zeros stands for a device without any.
        """
        if self.batch_choices is None:
            return None
        rows = [
            [size for size in choices if low <= size <= high]
            for choices, low, high in zip(
                self.batch_choices, self.min_batch.tolist(), self.max_batch.tolist(), strict=True
            )
        ]
        width = max(*map(len, rows), 1)
        return np.array([row + (row[-1:] or [0]) * (width - len(row)) for row in rows], dtype=np.int64)

    def rounded_down(self, batch_sizes: NDArray[np.floating | np.integer]) -> Ints:
        """The largest admissible batches up to these, shape (N,); the smallest ones at least."""
        lower, upper = self.batch_range()
        within = np.clip(np.nan_to_num(batch_sizes, nan=0.0), lower, upper)
        if self.choice_table is not None:
            return round_to_choice(self.choice_table, within)
        down: Ints = np.floor(within / self.batch_multiple).astype(np.int64)
        down *= self.batch_multiple
        return down

    def rounded_up(self, batch_sizes: Ints | int) -> Ints:
        """The smallest admissible batches from these (or this) on, shape (N,); the largest ones at most."""
        lower, upper = self.batch_range()
        within = np.clip(batch_sizes, lower, upper)
        if self.choice_table is None:
            return -(-within // self.batch_multiple) * self.batch_multiple
        places = (self.choice_table < within[:, None]).sum(axis=1)
        up: Ints = self.choice_table[np.arange(len(places)), places]
        return up

    @cached_property
    def _batch_range(self) -> tuple[Ints, Ints]:
        if self.choice_table is not None:
            return self.choice_table[:, 0], self.choice_table[:, -1]
        multiple = self.batch_multiple
        if same_everywhere(multiple) and multiple[0] == 1:
            return self.min_batch, self.max_batch
        lower = -(-self.min_batch // multiple) * multiple
        upper = self.max_batch // multiple * multiple
        return lower, upper


def round_to_choice(table: Ints, batch_sizes: NDArray[np.floating | np.integer]) -> Ints:
    """The largest of the sizes in each row that does not exceed a batch; 0 if there is none."""
    count = (table <= batch_sizes[:, None]).sum(axis=1)
    rows = np.arange(len(table))
    return np.where(count > 0, table[rows, np.maximum(count - 1, 0)], 0)


def same_everywhere(array: NDArray[np.float64] | Ints) -> bool:
    """Whether all entries are equal; a scalar that was broadcast need not be looked through."""
    return array.strides == (0,) or bool((array == array[0]).all())
