"""Run the tests on other versions: the newest Pythons with the newest dependencies, and the oldest of both.

    python tools/matrix.py          # 3.13 and 3.12 if found, and 3.11 with the oldest dependencies
    python tools/matrix.py 3.13     # one of them

Each version has an environment of its own in build/matrix, without torch and Flower, and runs the tests that
need neither and take no more than seconds each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "matrix"
NEWEST, OLDEST = ("3.13", "3.12"), "3.11"
# What the tests themselves need, in versions of today on every Python.
TOOLS = ("hypothesis", "mpmath", "narwhals", "pandas", "pytest>=8.4", "pytest-xdist", "psutil")
# The laws of the solvers and of the bounds' proofs hold or fail in coopt's own arithmetic, and take minutes.
LEFT_OUT = (
    "tests/benchmarks",
    "tests/bounds",
    "tests/examples",
    "tests/fake_grid.py",
    "tests/flower_deployment.py",
    "tests/objectives/forecast",
    "tests/solvers/cohort",
    "tests/solvers/exact",
    "tests/solvers/forecast",
    "tests/solvers/schedule",
    "tests/solvers/whole_units",
    "tests/adapters/test_flower_*.py",
    "tests/adapters/test_torch_*.py",
    "tests/flower_federation.py",
    "tests/torch_federation.py",
    "coopt/adapters/torch",
    "coopt/adapters/flower",
    "coopt/cli/explore/page.py",
)


def interpreter(version: str) -> str | None:
    """Path of a Python of this version: on the PATH, or one of pyenv's."""
    found = [shutil.which(f"python{version}")]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [str(path) for path in sorted((root / "versions").glob(f"{version}.*/bin/python"), reverse=True)]
    for path in filter(None, found):
        # A shim is on the PATH even where it leads nowhere.
        command = [path, "-c", "import sys; print(sys.version)"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode == 0 and run.stdout.startswith(f"{version}."):
            return path
    return None


def oldest_dependencies() -> list[str]:
    """The lowest versions that pyproject.toml allows, exactly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["plot"]]
    return [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in wanted]


def test(version: str, path: str, pins: list[str]) -> bool:
    """Make the environment and run the tests; whether they passed.

    Old versions of one package call what newer versions of another have come to warn of.
    """
    home = FOLDER / version
    subprocess.run([path, "-m", "venv", "--clear", str(home)], check=True)
    python = str(home / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", f"{ROOT}[plot]", *pins, *TOOLS], check=True)
    ignored = [f"--ignore-glob={ROOT / name}" for name in LEFT_OUT]
    command = [python, "-m", "pytest", "-n", "auto", "-m", "not slow and not deployment", *ignored]
    if pins:
        command += ["-W", "ignore::DeprecationWarning"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main() -> None:
    """Run what was asked for; any failure ends the process with 1."""
    failed = []
    for version in sys.argv[1:] or (*NEWEST, OLDEST):
        path = interpreter(version)
        if path is None:
            print(f"Python {version}: not found, not tested", flush=True)
            continue
        pins = oldest_dependencies() if version == OLDEST else []
        print(f"Python {version} ({path}), {' '.join(pins) or 'newest dependencies'}", flush=True)
        if not test(version, path, pins):
            failed.append(version)
    if failed:
        sys.exit(f"failed on Python {', '.join(failed)}")


if __name__ == "__main__":
    main()
