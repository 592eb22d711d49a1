"""The command line: ``coopt COMMAND``, one file a command.

The exit code says what happened, and stays what it is: 0 done, 2 the input is wrong, 3 no plan meets the
limits, 1 anything else that coopt raises on purpose, 130 interrupted, 141 the reader of the output went away.
Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from coopt._version import __version__
from coopt.cli import (
    bound_command,
    completion_command,
    demo_command,
    explore_command,
    frontier_command,
    measure_command,
    plan_command,
    schedule_command,
    simulate_command,
)
from coopt.cli.example import example_problem
from coopt.cli.outputs import CLOSED, CODES, FAILED, INTERRUPTED, fail, note
from coopt.errors import BoundWarning, CooptError

__all__ = ["example_problem", "main", "parser"]

# Each adds itself to the parser, and imports what it needs when it runs: starting takes as long as argparse.
COMMANDS = (
    plan_command,
    schedule_command,
    frontier_command,
    explore_command,
    bound_command,
    measure_command,
    simulate_command,
    demo_command,
    completion_command,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands after the command's name; default ``sys.argv[1:]``.

    Returns
    -------
    int
        As the module says. Wrong options end the process with 2, as argparse does.
    """
    options = parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", BoundWarning)
        warnings.showwarning = _print_warning
        try:
            code: int = options.run(options)
            sys.stdout.flush()
        except CooptError as error:
            return fail(error)
        except KeyboardInterrupt:
            note("coopt: interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            _leave_output()
            return CLOSED
        except OSError as error:
            # A full disk, for one; what coopt itself opens is refused with a CooptError.
            _leave_output()
            note(f"coopt: cannot write: {error.strerror}")
            return FAILED
        return code


def _leave_output() -> None:
    """Send what is still to be written nowhere: Python would complain once more as it closes the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    made = argparse.ArgumentParser(
        prog="coopt",
        description="How many rounds, how many local steps, and which batch size on which device?",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"coopt {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return made


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    note(f"coopt: warning: {message}")
