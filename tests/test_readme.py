"""What the README shows is true: its Python runs, and its tables are what was measured and what is proved."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.claims import ANSWERS, PAGES, PARAGRAPHS, written, written_page
from coopt import Allocation, Fleet, Problem, solve_allocation
from coopt.cli import example_problem
from coopt.problem.files import read_problem
from coopt.questions.baselines import baselines

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    assert "plan" in runpy.run_path(str(script))


def test_the_two_files_hold_the_problem_of_the_python_block(tmp_path: Path) -> None:
    for name, kind in (("fleet.csv", "text"), ("job.toml", "toml")):
        (shown,) = re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(shown, encoding="utf-8")
    problem = Problem(*read_problem(tmp_path / "job.toml", Fleet.from_csv(tmp_path / "fleet.csv")))
    (block,) = (
        text
        for text in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        if "board" in text
    )
    script = tmp_path / "numbers.py"
    script.write_text(block, encoding="utf-8")
    assert runpy.run_path(str(script))["plan"] == solve_allocation(problem)


def table_after(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading row that begins so."""
    found = re.search(rf"^\| {heading} \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[0].splitlines()[2:] if line]


def test_measured_table_is_that_of_the_result_file() -> None:
    measured = json.loads((ROOT / "benchmarks/forecast/results/demo.json").read_text(encoding="utf-8"))
    rows = table_after("trained for an hour")
    assert len(rows) == len(measured) == 5
    for row, facts in zip(rows, measured, strict=True):
        assert [number(cell) for cell in row[1:3]] == [facts["rounds"], facts["local_steps"]]
        batches = sorted({facts["smallest_batch"], facts["largest_batch"]})
        assert [number(cell) for cell in row[3].split(" to ")] == batches
        assert row[4] == f"{facts['measured']:.4f}"
        assert row[5] == ("1" if facts is measured[0] else f"{facts['ratio']:.1f}")
    shown = re.search(r"forecast (0\.\d+)", README)
    assert shown is not None and shown[1] == f"{measured[0]['forecast']:.4f}"
    common = [row["ratio"] for row in measured[1:] if "bound" not in row["label"]]
    assert f"ends {min(common):.0f} to {max(common):.0f} times lower than common settings" in README


def test_claims_about_the_forecast_are_those_of_the_result_file() -> None:
    rows = {row["chooser"]: row for row in table("benchmarks/forecast/results/grid.csv")}
    (claim,) = (line for line in README.splitlines() if "Does a forecast pick" in line)
    ours = rows["forecast, exact batches"]
    assert f"{float(ours['16x']):.2f} times" in claim and f"worst {float(ours['16x worst']):.1f}" in claim
    bounds = [
        float(rows[name]["16x"]) for name in ("certified", "trade-off", "dynamite", "adacoopt", "nonconvex")
    ]
    assert f"{min(bounds):.1f} to {max(bounds):.1f} times" in claim
    for start in ("FedAvg", "optuna"):
        found = [float(row["16x"]) for name, row in rows.items() if name.startswith(start)]
        assert f"{min(found):.0f} to {max(found):.0f}" in claim


def test_table_of_bounds_is_what_the_demonstration_finds() -> None:
    problem = example_problem()
    best = solve_allocation(problem)
    others = [baseline.allocation for baseline in baselines(problem)]
    plans = [best, *(plan for plan in others if plan is not None)]
    rows = [row[1:] for row in table_after("plan")]
    assert len(rows) == len(plans) == 4
    for row, plan in zip(rows, plans, strict=True):
        assert [number(cell) for cell in row[:2]] == [plan.rounds, plan.local_steps]
        assert [number(cell) for cell in row[2].split(" to ")] == extremes(plan)
        assert number(row[3]) == pytest.approx(plan.error_bound, rel=5e-3)
        assert number(row[4]) == pytest.approx(plan.error_bound / best.error_bound, rel=5e-3)


def test_claims_about_the_page_are_those_of_the_result_file() -> None:
    moves = (ROOT / "benchmarks/explore/results/moves.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in moves.splitlines() if "|" in line]
    (claim,) = (line for line in README.splitlines() if "page with sliders?" in line)
    bound, forecast = rows[2], rows[3]
    assert f"{bound[1]} ms by a bound and {forecast[1]} ms by a forecast" in claim
    first = [float(row[1]) for row in rows if row[0].startswith("the first of")]
    assert f"a first one in phases {min(first):.0f} to {max(first):.0f} ms" in claim
    seen = [float(row[5]) / 1000 for row in rows[2:] if row[5]]
    assert f"after {min(seen):.1f} to {max(seen):.1f} s" in claim


def test_claims_about_the_first_plan_are_those_of_the_result_file() -> None:
    first = (ROOT / "benchmarks/startup/results/first_plan.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(): [cell.strip().split(" ")[0] for cell in cells[2:4]]
        for line in first.splitlines()
        if len(cells := line.split("|")) == 5
    }
    (claim,) = (line for line in README.splitlines() if "first plan of one's own?" in line)
    seconds, keys = rows["script, until the plan is there [s]"], rows["keystrokes (lines)"]
    samples = rows["samples that devices processed for it"]
    for place, said in enumerate(
        ("{} s after the install, for {} keystrokes and {} samples", "{} s, {} keystrokes and {} samples")
    ):
        assert said.format(f"{float(seconds[place]):.0f}", keys[place], samples[place]) in claim
    ours, theirs = map(float, rows["loss after training it, median of 5 seeds"])
    assert f"to a loss {1 - theirs / ours:.0%} lower".replace("%", " %") in claim


def table(path: str) -> list[dict[str, str]]:
    return tables.read(ROOT / path)


def claim(question: str) -> str:
    (line,) = (line for line in README.splitlines() if question in line)
    return line


def test_claims_about_runs_that_measure_are_those_of_the_result_file() -> None:
    rows = table("benchmarks/federated/results/scheduled.csv")
    for kind, said in (
        ("free rates", "{} to {} points more accurate"),
        ("the rate given", "{} to {} at its rate"),
    ):
        points = sorted(
            row["points above AdaCoOpt"].split()[0]
            for row in rows
            if row["method"] == f"coopt, measured, {kind}"
        )
        assert len(points) == 3
        assert said.format(points[0], points[-1]) in claim("measured within the run?")


def test_claims_about_phases_and_the_real_clock_are_those_of_the_result_files() -> None:
    rows = table("benchmarks/forecast/results/schedules.csv")

    def span(plan: str, *columns: str) -> str:
        own = [row for row in rows if row["plan"] == plan]
        found = [float(row[column]) for row in own for column in columns]
        return f"{min(found):.2f} to {max(found):.2f}"

    said, fixed = claim("plans in phases?"), "over the best fixed plan"
    assert f"Three phases at one rate end at {span('three phases', fixed)} times the gap" in said
    assert f"two at {span('two phases', fixed)}." in said
    decays = "over the linear decay", "over the cosine decay"
    assert f"end at {span('three phases, free rates', *decays)} times its gap" in said
    assert f"and five at {span('five phases, free rates', *decays)} " in said
    clock = (ROOT / "benchmarks/online/results/wall_clock.md").read_text(encoding="utf-8")
    ratio = re.search(r"loss is ([\d.]+) times that of the best fixed setting", clock)
    off = re.search(r"measured \([+-]([\d.]+)%\)", clock)
    assert ratio is not None and f"the loss is {ratio[1]} times that" in claim("real clock")
    assert off is not None and f"the time {float(off[1]):.0f} % from its prediction" in claim("real clock")
    settings = sum(line.startswith("| fixed") for line in clock.splitlines())
    assert settings == 7 and "the best of seven fixed settings" in claim("real clock")


def test_rows_that_a_script_writes_are_what_it_writes() -> None:
    assert written(README) == README, "run python -m benchmarks.claims"
    assert all(f"| {question} |" in README for question in ANSWERS)


@pytest.mark.parametrize("name", PARAGRAPHS)
def test_paragraphs_that_a_script_writes_are_what_it_writes(name: str) -> None:
    page = (PAGES / name).read_text(encoding="utf-8")
    assert written_page(page, PARAGRAPHS[name]) == page, "run python -m benchmarks.claims"


def test_claims_about_large_fleets_are_those_of_the_result_files() -> None:
    assert max(int(row["devices"]) for row in table("benchmarks/solvers/results/exact_speed.csv")) == 10**7
    assert "up to ten million devices" in claim("How long does a proved optimum take?")
    rows = [
        row for name in ("unequal_costs", "energy") for row in table(f"benchmarks/solvers/results/{name}.csv")
    ]
    devices = [int(row["devices"]) for row in rows]
    assert all(float(row["gap"]) <= 1e-7 for row in rows) and "Proved to 1e-7" in claim("samples cost more")
    assert f"from {min(devices)} to {max(devices):,} devices" in claim("samples cost more")


def test_the_diff_for_flower_is_that_of_the_guide() -> None:
    guide = (ROOT / "docs/how-to/flower.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert diff in guide


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def extremes(plan: Allocation) -> list[int]:
    return sorted({int(plan.batch_sizes.min()), int(plan.batch_sizes.max())})
