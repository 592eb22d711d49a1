"""`import coopt` loads numpy and nothing else that takes long; the optional parts stay optional."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("scipy", "sympy", "cvxpy", "rich", "tomli_w", "matplotlib", "torch", "flwr", "tqdm", "mpmath")


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_loads_numpy_alone() -> None:
    loaded = modules_after("import coopt")
    assert "numpy" in loaded
    assert not loaded.intersection(HEAVY)


def test_every_public_name_is_there_without_loading_more() -> None:
    loaded = modules_after("from coopt import *")
    assert not loaded.intersection(HEAVY)


def test_the_command_line_parses_its_arguments_without_loading_more() -> None:
    loaded = modules_after(
        "import contextlib, io, coopt.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    coopt.cli.main(['--version'])"
    )
    assert not loaded.intersection(HEAVY)
