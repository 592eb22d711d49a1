"""`import coopt` loads nothing that takes long; the optional parts stay optional."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import coopt
from public_names import STUB, stub_names

HEAVY = ("scipy", "sympy", "cvxpy", "rich", "tomli_w", "matplotlib", "torch", "flwr", "tqdm", "mpmath")


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_import_loads_nothing_that_takes_long() -> None:
    assert not modules_after("import coopt").intersection({*HEAVY, "numpy"})


def test_every_public_name_is_there_without_loading_more_than_numpy() -> None:
    loaded = modules_after("from coopt import *")
    assert "numpy" in loaded
    assert not loaded.intersection(HEAVY)


def test_the_command_line_parses_its_arguments_without_loading_more() -> None:
    loaded = modules_after(
        "import contextlib, io, coopt.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    coopt.cli.main(['--version'])"
    )
    assert not loaded.intersection({*HEAVY, "numpy"})


def test_a_plan_on_the_command_line_loads_no_solver_but_ours() -> None:
    data = Path(coopt.__file__).with_name("data")
    arguments = ["plan", str(data / "fleet.csv"), str(data / "job.toml")]
    loaded = modules_after(f"import coopt.cli\ncoopt.cli.main({arguments})")
    assert "rich" in loaded
    assert not loaded.intersection({"scipy", "sympy", "cvxpy", "matplotlib"})


def test_the_stub_says_what_is_there() -> None:
    for name, module in stub_names().items():
        assert getattr(coopt, name) is getattr(importlib.import_module(module), name), name


def test_names_are_listed_where_people_look_for_them() -> None:
    names = sorted(stub_names())
    assert sorted(coopt.__all__) == sorted(dir(coopt)) == names
    body = ast.parse(STUB.read_text(encoding="utf-8")).body
    (listed,) = (node.value for node in body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == names


def test_nothing_is_imported_by_a_string_and_nobody_inside_imports_from_the_top() -> None:
    """Both would hide an arrow between rooms from import-linter, which reads import statements."""
    package = STUB.parent
    for path in sorted(package.rglob("*.py")):
        if path == package / "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(package)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert "coopt" not in {alias.name for alias in node.names}, f"{place}: imports all of coopt"
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{place}: a relative import"
                assert node.module != "coopt", f"{place}: imports from the top"
                named = {alias.name for alias in node.names}
                assert not named & {"import_module", "__import__"}, f"{place}: imports by a string"
            elif isinstance(node, ast.Name | ast.Attribute):
                called = node.id if isinstance(node, ast.Name) else node.attr
                assert called not in ("import_module", "__import__"), f"{place}: imports by a string"
