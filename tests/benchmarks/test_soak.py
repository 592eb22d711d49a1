"""The soak of the benchmarks, small: nothing is overspent and every exclusion named, whatever devices do."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.online import soak


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_crash_nothing_overspent_every_exclusion_named(seed: int) -> None:
    found = soak.run(24, seed, soak.budgets(seed, 24, most=90), quorum=[1.0, 0.9][seed % 2])
    assert soak.faults(found) == []
    audit = found["audit"]
    assert audit.rounds > 10 and audit.faults["left"] > 5 and audit.faults["did not answer"] > 3
    # Half of the work was done by some, a quarter of the fleet was away, and it learnt all the same.
    assert np.linalg.norm(found["model"] - found["mean"]) < 0.25 * np.linalg.norm(5.0 - found["mean"])
