"""What `import coopt` offers, read from its stub."""

from __future__ import annotations

import ast
from pathlib import Path

import coopt

STUB = Path(coopt.__file__).with_name("__init__.pyi")


def stub_names() -> dict[str, str]:
    """Where the stub says that each public name is defined."""
    statements = ast.parse(STUB.read_text(encoding="utf-8")).body
    return {
        alias.name: f"coopt.{node.module}"
        for node in statements
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
