"""The page on real fleets says what its situations came to when they were run, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")

from benchmarks.online.real_fleets import PAGE, measured, written
from benchmarks.online.situations import SITUATIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = PAGE.read_text(encoding="utf-8")
SAYS = {each.name: each.says for each in SITUATIONS}


def test_every_situation_is_run_and_the_page_says_what_came_of_it() -> None:
    rows = re.findall(r"^\| (.+?) \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(["situation", *SAYS])
    assert sorted(measured()) == sorted(SAYS)
    assert written(TEXT, SAYS, measured()) == TEXT


def test_the_tests_that_it_names_exist() -> None:
    tests = re.findall(r"`(tests/[\w/]+\.py)`", TEXT)
    assert len(tests) == len(SAYS)
    for test in tests:
        assert (ROOT / test).is_file(), test


# Those that take a hundredth of a second each; the others have tests of their own.
@pytest.mark.parametrize("name", ["A client lies about what it did", "The fleet grows, or devices leave"])
def test_a_situation_comes_to_the_same_when_it_is_run_again(name: str) -> None:
    (situation,) = (each for each in SITUATIONS if each.name == name)
    assert situation.run() == pytest.approx(measured()[name], rel=1e-5)
