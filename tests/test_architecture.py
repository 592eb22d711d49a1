"""What docs/explanation/architecture.md says of the code is so."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "coopt"


@pytest.fixture
def draw_rooms(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("draw_rooms")
    sys.modules.pop("draw_rooms")


def test_the_picture_is_current(draw_rooms):
    current = draw_rooms.PICTURE.read_text(encoding="utf-8") == draw_rooms.picture()
    assert current, "docs/_static/rooms.svg is out of date: run python tools/draw_rooms.py"


def test_no_arrow_runs_back_and_the_page_names_every_room(draw_rooms):
    assert draw_rooms.arrows_back() == set()
    rooms = [name for name in draw_rooms.rooms() if name != "data"]
    assert set(rooms) <= set(re.findall(r"^\| `(\w+)/?`", PAGE, flags=re.MULTILINE))


def test_each_path_that_stays_has_the_names_that_the_page_says():
    # Two of the paths are those of frameworks.
    pytest.importorskip("torch")
    pytest.importorskip("flwr")
    table = re.findall(r"^\| `(coopt[\w.]*)` \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    assert len(table) >= 12
    for path, names in table:
        module = importlib.import_module(path)
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(module, name), f"{path} has no {name}"


def test_files_that_re_export_have_at_most_five_lines():
    listed = re.findall(r"^\| `(coopt[\w.]*)` \| [^|]+ \| re-export", PAGE, flags=re.MULTILINE)
    assert {"coopt.symbolic", "coopt.sketch", "coopt.solvers.closed_form"} <= set(listed)
    for path in listed:
        file = ROOT / (path.replace(".", "/") + ".py")
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 5, file


def test_terms_in_docstrings_are_in_the_glossary():
    terms = set(re.findall(r"^([a-z][\w ]*)\n  ", GLOSSARY, flags=re.MULTILINE))
    assert {"row", "level", "unit", "floor", "whole", "angle"} <= terms
    used = {
        shown or term
        for path in PACKAGE.rglob("*.py")
        for term, shown in re.findall(r":term:`([^`<]+?)(?:\s*<(\w+)>)?`", path.read_text(encoding="utf-8"))
    }
    assert used <= terms
    assert {"row", "level", "floor"} <= used
