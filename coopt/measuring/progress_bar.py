"""A progress bar where standard error is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coopt.problem.validation import flag


@contextmanager
def progress_bar(label: str, total: int, shown: bool | None) -> Iterator[Callable[[int], object]]:
    """Show a bar while the block runs; yields a function that takes how many more are done.

    Parameters
    ----------
    label : str
    total : int
    shown : bool, optional
        Default: where standard error is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else flag("progress", shown)):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=shown is None) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)
