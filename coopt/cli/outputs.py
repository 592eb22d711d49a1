"""Where results go: tables for people to standard output, remarks to standard error, and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coopt.errors import CooptError, InfeasibleError, InvalidProblemError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the exit code of every command says.
FOUND, FAILED, BAD_INPUT, INFEASIBLE, INTERRUPTED, CLOSED = 0, 1, 2, 3, 130, 141
CODES = """\
exit codes: 0 done, 2 wrong input, 3 no plan meets the limits, 1 anything else that coopt refuses,
130 interrupted, 141 the reader of the output went away"""
# The name that stands for standard output.
STREAM = "-"


class Subparsers(Protocol):
    """What argparse adds commands to."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser:
        """A new command."""
        ...


def new_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    about: str,
    description: str,
    epilog: str = CODES,
) -> argparse.ArgumentParser:
    """A new command, which `run` runs; its help ends with the exit codes."""
    parser = commands.add_parser(
        name,
        help=about,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_outputs(parser: argparse.ArgumentParser, *, json: str, csv: str, plot: str | None = None) -> None:
    """Add the options ``--json``, ``--csv`` and ``--plot``; each text says what the file holds."""
    parser.add_argument("--json", metavar="OUT.json", type=Path, help=f"write {json} (-: standard output)")
    parser.add_argument("--csv", metavar="OUT.csv", type=Path, help=f"write {csv} (-: standard output)")
    if plot is not None:
        parser.add_argument("--plot", metavar="OUT.png", type=Path, help=f"draw {plot} (needs matplotlib)")


def check(options: argparse.Namespace, *others: Path | None) -> None:
    """Refuse what cannot be written before the work rather than after it.

    Parameters
    ----------
    options : argparse.Namespace
        With the options of :func:`add_outputs`.
    *others : Path, optional
        Further files that will be written.
    """
    picture: Path | None = getattr(options, "plot", None)
    if picture is not None:
        from coopt.plans.plot import check_picture

        check_picture(picture)
    files = [path for path in (picture, options.json, options.csv, *others) if path is not None]
    for place, path in enumerate(files):
        if path in files[:place]:
            where = "standard output" if str(path) == STREAM else str(path)
            raise InvalidProblemError(f"{where}: two results cannot go to the same place")
        if str(path) == STREAM:
            continue
        if not path.absolute().parent.is_dir():
            raise InvalidProblemError(f"{path}: cannot be written: no folder {path.absolute().parent}")
        if _is_folder(path):
            raise InvalidProblemError(f"{path}: cannot be written: it is a folder")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A name that is too long, for one: writing says so.
        return False


def for_people(options: argparse.Namespace) -> bool:
    """Whether standard output is free for tables: it is not where a file goes there."""
    return all(str(path) != STREAM for path in (options.json, options.csv, getattr(options, "devices", None)))


def write(
    options: argparse.Namespace,
    what: str,
    *,
    json: Callable[[], Mapping[str, Any]],
    csv: Callable[[], Sequence[Mapping[str, Any]]],
    plot: Callable[[], Figure] | None = None,
) -> None:
    """Write the files that were asked for, and say so; `what` is the name of the result."""
    if options.json is not None:
        from coopt.problem.json_text import write_json

        put(options.json, write_json(json(), None) + "\n", what)
    if options.csv is not None:
        put_rows(options.csv, csv(), "table")
    picture: Path | None = getattr(options, "plot", None)
    if picture is not None and plot is not None:
        save(plot(), picture)


def put_rows(path: Path, rows: Sequence[Mapping[str, Any]], what: str) -> None:
    """Write rows as CSV."""
    from coopt.problem.result_table import csv_text

    if not rows:
        raise InvalidProblemError(f"{path}: nothing to write: the table has no row")
    put(path, csv_text(rows), what)


def put(path: Path, text: str, what: str) -> None:
    """Write a text to a file, or to standard output."""
    if str(path) == STREAM:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidProblemError(f"{path}: cannot be written: {error.strerror}") from error
    note(f"{what} written to {path}")


def save(figure: Figure, path: Path) -> None:
    """Write a picture."""
    from coopt.plans.plot import save_figure

    save_figure(figure, path)
    note(f"picture written to {path}")


def note(text: str) -> None:
    """A remark beside the result."""
    print(text, file=sys.stderr)


def fail(error: CooptError, job: str = "") -> int:
    """Say what went wrong; the exit code that stands for it."""
    note(f"coopt: error: {job and job + ': '}{error}")
    if isinstance(error, InfeasibleError):
        return INFEASIBLE
    return BAD_INPUT if isinstance(error, InvalidProblemError) else FAILED
