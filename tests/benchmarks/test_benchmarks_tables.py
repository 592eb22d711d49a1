"""Tables are those of the committed results, and every benchmark has a test that runs a piece of it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import tables
from benchmarks.federated import headline_summary
from benchmarks.online import attacks, step_time, wall_clock
from benchmarks.solvers import (
    cohort,
    convex_stress,
    coopt_fl_gap,
    energy,
    exact_speed,
    forecast_speed,
    many,
    peers,
    stress,
    unequal_costs,
)

ROOT = Path(__file__).resolve().parents[2]
SOLVERS = (
    cohort,
    convex_stress,
    coopt_fl_gap,
    energy,
    forecast_speed,
    many,
    peers,
    stress,
    unequal_costs,
)
# Why no test runs a piece of them.
UNTESTED = {
    "benchmarks.forecast.demo": "it keeps what `coopt demo` finds, which has a test of its own",
    "benchmarks.explore.pictures": "it only takes pictures in a browser of a page that has tests of its own",
    "benchmarks.fuzz.fuzz": "needs atheris; its targets have tests of their own",
}


@pytest.mark.parametrize("module", SOLVERS)
def test_the_table_on_solvers_is_that_of_the_csv(module: ModuleType) -> None:
    csv = ROOT / "benchmarks" / "solvers" / "results" / f"{module.__name__.rpartition('.')[2]}.csv"
    assert module.report(tables.read(csv)) == csv.with_suffix(".md").read_text(encoding="utf-8")


def test_the_tables_on_speed_are_those_of_the_csv(tmp_path: Path) -> None:
    exact_speed.write_tables(tables.read(exact_speed.TABLE), tmp_path / "exact_speed.md")
    assert (tmp_path / "exact_speed.md").read_text() == (exact_speed.RESULTS / "exact_speed.md").read_text()


def test_the_tables_on_controllers_are_those_of_the_results() -> None:
    rows = tables.read(step_time.RESULTS / "step_time.csv")
    assert step_time.table(rows) == (step_time.RESULTS / "step_time.md").read_text(encoding="utf-8")
    found = json.loads((wall_clock.RESULTS / "wall_clock.json").read_text(encoding="utf-8"))
    assert wall_clock.table(found) == (wall_clock.RESULTS / "wall_clock.md").read_text(encoding="utf-8")
    text = (attacks.RESULTS / "attacks.md").read_text(encoding="utf-8")
    for limits in attacks.LIMITS:
        assert "\n".join(attacks.table(limits)) in text


def test_the_summary_of_the_headline_is_that_of_its_table(tmp_path: Path) -> None:
    table = headline_summary.RESULTS / "headline.csv"
    (tmp_path / table.name).write_bytes(table.read_bytes())
    headline_summary.summarise(tmp_path)
    for name in ("headline_summary", "headline_goals"):
        made, kept = (folder / f"{name}.md" for folder in (tmp_path, headline_summary.RESULTS))
        assert made.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")
    assert (tmp_path / "headline_summary.png").stat().st_size > 10_000


def test_a_piece_of_every_benchmark_is_run() -> None:
    """A new benchmark needs a test here that imports it, or that names it beside its folder."""
    imported = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
                imported |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        for folder in re.findall(r'import_module\(f"(benchmarks\.\w+)\.', text):
            imported |= {f"{folder}.{word}" for word in re.findall(r'"(\w+)"', text)}
    scripts = [path for path in (ROOT / "benchmarks").glob("*/*.py") if "__main__" in path.read_text("utf-8")]
    names = {f"benchmarks.{path.parent.name}.{path.stem}" for path in scripts}
    assert len(names) > 50
    assert sorted(names - imported) == sorted(UNTESTED)
