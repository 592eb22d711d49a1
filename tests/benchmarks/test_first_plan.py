"""The page of the first plan shows what its benchmark has found, for the scripts as they are."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.startup import first_plan


def test_the_table_is_that_of_the_results() -> None:
    found = json.loads((first_plan.RESULTS / "first_plan.json").read_text(encoding="utf-8"))
    assert (first_plan.RESULTS / "first_plan.md").read_text(encoding="utf-8") == first_plan.table(found)
    for tool, file in first_plan.FILES.items():
        script = first_plan.SCRIPTS / file
        assert found[tool]["keystrokes"] == first_plan.keystrokes(script)
        assert found[tool]["lines"] == len(script.read_text(encoding="utf-8").splitlines())


def test_the_page_includes_the_table() -> None:
    page = Path(first_plan.ROOT, "docs", "explanation", "beside-a-search.md").read_text(encoding="utf-8")
    assert "benchmarks/startup/results/first_plan.md" in page
