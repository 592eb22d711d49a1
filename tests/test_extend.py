"""The recipes of docs/how-to/extend.md, followed to the letter on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (A[^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
# "Add `path`:" or "In `path`:" with the code blocks that follow it, and "Try it:".
STEP = re.compile(r"(?:(Add|In) `([^`\n]+)`|(Try it)):\n\n((?:```(?:python|diff)\n.*?```\n+)+)", re.DOTALL)
BLOCK = re.compile(r"```(?:python|diff)\n(.*?)```", re.DOTALL)
MOST_FILES = {"A bound": 7, "A solver": 5, "A policy": 4, "An adapter": 2}


def files_of(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): path.read_text(encoding="utf-8")
        for room in ("coopt", "bounds")
        for path in (folder / room).rglob("*")
        if path.suffix in (".py", ".pyi", ".md", ".toml", ".csv")
    }


def patched(text: str, change: str) -> str:
    """A file after a change, whose unchanged lines say where it is."""
    lines = change.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    assert text.count(old) == 1, f"{text.count(old)} places in the file look like\n{old}"
    return text.replace(old, new)


def follow(recipe: str, folder: Path) -> str:
    """Do what a recipe says; give back the program with which to try it."""
    program = ""
    for verb, path, _, blocks in STEP.findall(RECIPES[recipe]):
        for block in BLOCK.findall(blocks):
            if verb == "Add":
                assert not (folder / path).exists()
                (folder / path).write_text(block, encoding="utf-8")
            elif verb == "In":
                file = folder / path
                file.write_text(patched(file.read_text(encoding="utf-8"), block), encoding="utf-8")
            else:
                program = block
    return program


def run(program: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'bounds'}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("recipe", MOST_FILES)
def test_a_recipe_works_and_touches_as_few_files_as_the_page_says(recipe, tmp_path):
    for room in ("coopt", "bounds"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    before = files_of(tmp_path)
    program = follow(recipe, tmp_path)
    after = files_of(tmp_path)
    touched = [path for path in after if before.get(path) != after[path]]
    assert before.keys() <= after.keys()
    promised, most = re.search(
        rf"^\| {recipe.lower()}(?! from)[^|]*\| (\d+) \| (\d+) \|", PAGE, flags=re.MULTILINE
    ).groups()
    assert len(touched) == int(promised) <= int(most) == MOST_FILES[recipe]
    where = run("import coopt; print(coopt.__file__)", tmp_path)
    assert Path(where.strip()) == tmp_path / "coopt" / "__init__.py"
    assert run(program, tmp_path)


def test_a_bound_from_a_formula_touches_no_file():
    program = """
from coopt.cli import example_problem
from coopt.symbolic import from_sympy
import coopt, sympy as sp
K, tau, eta, beta, D_0, sigma2, G = sp.symbols("K tau eta beta D_0 sigma2 G", positive=True)
formula = 2 * D_0 / (eta * K * tau) + 4 * eta**2 * tau**2 * G**2 * beta**2 + beta * eta * sigma2
plan = coopt.solve_allocation(example_problem(), bound=from_sympy(formula, name="own", values={"G": 0.1}))
plan.certify()
print(plan.solver)
"""
    before = files_of(ROOT)
    assert run(program, ROOT).strip() == "exact"
    assert files_of(ROOT) == before
