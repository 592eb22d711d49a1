"""The reference lists every public name, and nothing that is not one."""

from __future__ import annotations

import re
from pathlib import Path

import coopt

API = Path(__file__).resolve().parent.parent / "docs" / "reference" / "api.md"


def test_reference_lists_every_public_name() -> None:
    listed = re.findall(r"^   (\w+)$", API.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(coopt.__all__) - {"__version__"})
