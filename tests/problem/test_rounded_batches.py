"""Batches rounded to those that a fleet allows, below and above."""

from __future__ import annotations

import numpy as np
import pytest

from coopt import Fleet

FLEETS = {
    "any": Fleet([40, 9], 1.0, 1.0, min_batch=[3, 1]),
    "multiples": Fleet([40, 9], 1.0, 1.0, batch_multiple=[6, 4]),
    "sizes": Fleet([40, 9], 1.0, 1.0, batch_choices=[[4, 16, 32], [1, 8]]),
}


@pytest.mark.parametrize("name", FLEETS)
def test_the_next_allowed_batches_are_those_of_a_list_of_all(name: str) -> None:
    fleet = FLEETS[name]
    lower, upper = fleet.batch_range()
    for batch in range(1, 50):
        given = np.full(2, batch)
        down, up = fleet.rounded_down(given), fleet.rounded_up(given)
        for i in range(2):
            all_sizes = {int(fleet.rounded_down(np.full(2, size))[i]) for size in range(1, 50)}
            assert down[i] == max((size for size in all_sizes if size <= batch), default=lower[i])
            assert up[i] == min((size for size in all_sizes if size >= batch), default=upper[i])
