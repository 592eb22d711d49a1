"""The workflows of the repository's host are well-formed and call what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    for name, job in jobs.items():
        assert {"runs-on", "steps", "timeout-minutes"} <= set(job), name
        assert set(job.get("needs", "").split()) <= set(jobs), name
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_step_is_pinned_and_every_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for step in steps(path):
        assert ("uses" in step) != ("run" in step)
        assert re.search(r"@v\d+\.\d+\.\d+$", step.get("uses", "@v0.0.0"))
        if step.get("run", "").startswith("make "):
            assert set(step["run"].split()[1:]) <= targets
        assert "pip install" not in step.get("run", "") or "==" in step["run"]


def test_only_the_release_may_write_and_only_to_the_index() -> None:
    for path in WORKFLOWS:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert text["permissions"] == {"contents": "read"}
        granted = {name: job["permissions"] for name, job in text["jobs"].items() if "permissions" in job}
        assert granted == ({"publish": {"id-token": "write"}} if path.stem == "release" else {})


def test_the_oldest_python_allowed_and_the_newest_known_are_tested() -> None:
    checks = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    tested = checks["jobs"]["tests"]["strategy"]["matrix"]["python"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'requires-python = ">=([\d.]+)', project)
    known = re.findall(r"Programming Language :: Python :: (\d\.\d+)", project)
    assert oldest is not None and tested[0] == oldest[1] and set(tested) <= set(known)
