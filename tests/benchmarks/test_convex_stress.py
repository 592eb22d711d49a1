"""A slice of the stress test of the convex solver: problems on which it once failed, or claimed too much."""

from __future__ import annotations

import pytest

from benchmarks.solvers.convex_stress import report, solve

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


@pytest.mark.parametrize("seed", [12, 26, 44, 379])
def test_plans_are_found_and_bounds_hold(seed):
    row = solve(seed)
    assert row["outcome"] == "plan"
    assert row["relaxation"] <= row["value"] * (1 + 1e-12)
    assert row["lower"] <= row["value"]
    if row["slack"]:
        assert row["value"] <= row["exact"] * (1 + 1e-4)
        assert row["continuous"] * (1 - 1e-4) <= row["relaxation"] <= row["continuous"] * (1 + 1e-9)


def test_report_counts_failures():
    row = {
        "rule": "sum",
        "slack": "1",
        "exact": "2.0",
        "continuous": "1.9",
        "outcome": "plan",
        "value": "2.0",
    }
    row |= {
        "lower": "1.9",
        "relaxation": "1.9",
        "solves": "40",
        "tries": "CLARABEL: 40; SCS: 2",
        "seconds": "1",
    }
    failed = row | {"outcome": "SolverError: none"}
    last = report([row, failed]).splitlines()[-1].split("|")
    assert [cell.strip() for cell in last[1:5]] == ["all", "2", "1", "1"]
    assert [cell.strip() for cell in last[8:11]] == ["40", "0", "2"]
