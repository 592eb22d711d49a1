"""A user's file passes a strict type checker that knows nothing of how coopt checks itself."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_mypy_finds_no_fault_with_a_user_s_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("polars")
    monkeypatch.syspath_prepend(str(TOOLS))
    types_outside = importlib.import_module("types_outside")
    try:
        assert types_outside.check("mypy") == ""
    finally:
        sys.modules.pop("types_outside", None)
