"""The page of errors names every error, warning, status and reason there is, and what it quotes is said."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import coopt
from coopt import Budget, Constants, Fleet, InfeasibleError, InvalidProblemError, Problem, Status
from coopt.cli.outputs import CODES
from coopt.online.round_plan import StopReason

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")


def errors(root: type[BaseException]) -> set[type[BaseException]]:
    found = {root}
    for child in root.__subclasses__():
        found |= errors(child)
    return found


def test_every_error_and_warning_has_a_cure() -> None:
    for module in pkgutil.walk_packages(coopt.__path__, "coopt."):
        if not re.search(r"torch|flower|explore\.page", module.name):
            importlib.import_module(module.name)
    rows = set(re.findall(r"^\| \{class\}`~coopt\.(\w+)`", PAGE, re.MULTILINE))
    tree = errors(coopt.CooptError)
    own = {error.__name__ for error in tree if hasattr(coopt, error.__name__)}
    warned = {name for name in dir(coopt) if name.endswith("Warning")}
    assert rows == own | warned
    # All that are raised on purpose are public, or cases of what is, which coopt itself tells apart.
    public = tuple(getattr(coopt, name) for name in own if name != "CooptError")
    assert all(error is coopt.CooptError or issubclass(error, public) for error in tree)


@pytest.mark.parametrize("kind", [Status, StopReason])
def test_every_status_and_reason_has_a_row(kind: type) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert {member.name for member in kind} <= set(rows)
    assert set(rows) == {member.name for each in (Status, StopReason) for member in each}


def test_exit_codes_are_those_of_the_command_line() -> None:
    said = re.sub(r"\s+", " ", CODES.partition(":")[2]).strip()
    assert said in re.sub(r"\s+", " ", PAGE)


def test_what_the_page_quotes_is_said(tmp_path: Path) -> None:
    table = tmp_path / "fleet.csv"
    table.write_text("sample,gradient_noise,divergence\n1,1,1\n")
    with pytest.raises(InvalidProblemError, match=re.escape("did you mean 'samples'?")):
        Fleet.from_csv(table)
    table.write_text("samples;gradient_noise;divergence\n1;1;1\n")
    with pytest.raises(InvalidProblemError, match="is separated by semicolons"):
        Fleet.from_csv(table)
    table.write_text("samples,gradient_noise\n1,1\n")
    with pytest.raises(InvalidProblemError, match=re.escape("column 'divergence' is missing")):
        Fleet.from_csv(table)
    free = Problem(Fleet([60], 4.0, 0.1), Constants(0.1, 1.0, 2.0, 0.1), Budget())
    with pytest.raises(InvalidProblemError) as nothing:
        coopt.solve_allocation(free)
    with pytest.raises(InvalidProblemError) as needed:
        coopt.solve_allocation(Problem(free.fleet, Constants(0.1, 1.0, 2.0), Budget(cost=1e4)))
    limited = Problem(Fleet([60], 4.0, 0.1), Constants(0.1, 1.0, 2.0, 0.1), Budget(cost=1e4))
    with pytest.raises(InfeasibleError) as missed:
        coopt.solve_allocation(limited, objective="cost", target_error=1e-9)
    assert missed.value.binding == "target_error" and missed.value.smallest_error is not None
    messages = [str(nothing.value), str(needed.value)]
    for quoted, message in zip(("rounds K is unbounded", "pl_constant is missing"), messages, strict=True):
        assert quoted in PAGE and quoted in message, message
    for binding in re.findall(r'^\| `"(\w+)"` \|', PAGE, re.MULTILINE):
        assert binding in ("cost", "time", "energy", "target_error")
