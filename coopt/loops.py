"""Whether inner loops run as machine code: they do with the extra ``fast``, once ``coopt compile`` was run.

Compiling takes most of a minute, which nobody who merely has numba should have to wait for in the middle of a
plan. So loops count as there once they have been compiled on purpose, for these sources, on this kind of
processor; otherwise everything is done in numpy.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from coopt.errors import MissingDependencyError, SolverError

PACKAGE = Path(__file__).parent
CODE = PACKAGE / "compiled" / "__pycache__"
READY = CODE / "ready"
# What the machine code is made from: these files, and the constants that they take from others.
SOURCES = (
    *sorted((PACKAGE / "compiled").glob("*.py")),
    *(PACKAGE / name for name in ("drift.py", "limits.py", "validation.py")),
    *(PACKAGE / "solvers" / name for name in ("cutting.py", "passes.py", "streamed.py")),
)

_wanted = ContextVar("wanted", default="where ready")


def loops() -> ModuleType | None:
    """The package of compiled loops; None where they are not ready, or inside :func:`interpreted`."""
    wanted = _wanted.get()
    if wanted == "where ready":
        return _ready()
    return import_module("coopt.compiled") if wanted == "always" else None


@contextmanager
def interpreted() -> Iterator[None]:
    """Do without compiled loops, to compare the two."""
    token = _wanted.set("never")
    try:
        yield
    finally:
        _wanted.reset(token)


def compile_loops() -> None:
    """Compile the inner loops and keep the machine code beside the package.

    Raises
    ------
    MissingDependencyError
        If numba is not installed.
    SolverError
        If the folder of the package cannot be written to.
    """
    if find_spec("numba") is None:
        raise MissingDependencyError('compiled loops need numba: pip install "coopt[fast]"')
    try:
        CODE.mkdir(exist_ok=True)
        READY.unlink(missing_ok=True)
        # numba looks at the file of a function alone, not at those of the functions that it calls.
        for stale in (*CODE.glob("*.nb[ic]"), *(PACKAGE / "__pycache__").glob("drift.*.nb[ic]")):
            stale.unlink()
        token = _wanted.set("always")
        try:
            import_module("coopt.compiled.example").run()
        finally:
            _wanted.reset(token)
        READY.write_text(_fingerprint(), encoding="utf-8")
    except OSError as error:
        raise SolverError(f"{CODE}: machine code cannot be kept there: {error.strerror}") from error
    _ready.cache_clear()


@cache
def _ready() -> ModuleType | None:
    if find_spec("numba") is None or not READY.is_file():
        return None
    if READY.read_text(encoding="utf-8") != _fingerprint():
        return None
    return import_module("coopt.compiled")


def _fingerprint() -> str:
    """What machine code must have been made from, and for, to be of use."""
    processor = import_module("llvmlite.binding").get_host_cpu_name()
    made_for = f"numba {version('numba')}, Python {platform.python_version()}, {processor}"
    files = (f"{path.name} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in SOURCES)
    return "\n".join([made_for, *files])
