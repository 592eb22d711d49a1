"""What the README shows is true: its Python runs, and its table is what the demonstration prints."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from coopt import Allocation, solve_allocation
from coopt.cli import example_problem
from coopt.questions.baselines import baselines

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    assert "plan" in runpy.run_path(str(script))


def test_table_is_what_the_demonstration_finds() -> None:
    problem = example_problem()
    best = solve_allocation(problem)
    others = [baseline.allocation for baseline in baselines(problem)]
    plans = [best, *(plan for plan in others if plan is not None)]
    table = re.search(r"^\| plan \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table[0].splitlines()[2:] if line]
    assert len(rows) == len(plans) == 4
    for row, plan in zip(rows, plans, strict=True):
        assert [number(cell) for cell in row[:2]] == [plan.rounds, plan.local_steps]
        assert [number(cell) for cell in row[2].split(" to ")] == extremes(plan)
        assert number(row[3]) == pytest.approx(plan.error_bound, rel=5e-3)
        assert number(row[4]) == pytest.approx(plan.error_bound / best.error_bound, rel=5e-3)


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def extremes(plan: Allocation) -> list[int]:
    return sorted({int(plan.batch_sizes.min()), int(plan.batch_sizes.max())})
