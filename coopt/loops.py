"""Whether inner loops run as machine code: they do where the extra ``fast`` is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_allowed = ContextVar("allowed", default=True)


def loops() -> ModuleType | None:
    """The package of compiled loops; None where numba is missing, or inside :func:`interpreted`."""
    return _loaded() if _allowed.get() else None


@contextmanager
def interpreted() -> Iterator[None]:
    """Leave compiled loops out, to compare the two."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


@cache
def _loaded() -> ModuleType | None:
    return import_module("coopt.compiled") if find_spec("numba") else None
