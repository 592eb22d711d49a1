"""The examples on other engines, where `make example-...` has made their environments."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "script", "budget", "devices"),
    [("pfl", "example.py", 40_000, 6), ("nvflare", "job.py", 4_000, 4)],
)
def test_example_spends_its_budget_and_no_more(
    engine: str, script: str, budget: float, devices: int, tmp_path: Path
) -> None:
    python = ROOT / f".venv-{engine}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"`make example-{engine}` makes the environment that this example needs")
    folder = EXAMPLES / engine
    path = os.pathsep.join([str(ROOT), str(ROOT / "bounds")])
    ran = subprocess.run(
        [str(python), "-W", "error::RuntimeWarning", script, str(tmp_path)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    plans = re.findall(r"^round (\d+): (\d+) local steps, batches \[([\d ]+)\]$", said, re.MULTILINE)
    assert [int(number) for number, _, _ in plans] == list(range(len(plans)))
    assert all(int(steps) >= 1 and len(batches.split()) == devices for _, steps, batches in plans)
    spent = re.search(r"^spent (\d+) in (\d+) rounds", said, re.MULTILINE)
    assert spent is not None, said
    assert 0.9 * budget < float(spent[1]) <= budget
    assert int(spent[2]) == len(plans)


@pytest.mark.parametrize("engine", ["pfl", "nvflare"])
def test_example_is_short(engine: str) -> None:
    """At most 60 lines of code besides blank lines, comments and imports."""
    code = [
        line for file in (EXAMPLES / engine).glob("*.py") for line in file.read_text("utf-8").splitlines()
    ]
    counted = [line for line in code if line.strip() and not re.match(r"\s*#|import |from |\"\"\"", line)]
    assert len(counted) <= 60
