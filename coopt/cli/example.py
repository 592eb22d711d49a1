"""The example that comes with coopt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coopt.problem.problem import Problem


def example_problem() -> Problem:
    """Read the example that comes with coopt: 24 made-up phones, boards and a server, one hour.

    Returns
    -------
    Problem

    Examples
    --------
    >>> from coopt.cli import example_problem
    >>> example_problem().fleet
    Fleet(24 devices, 43190 samples)
    """
    from importlib import resources

    from coopt.problem.files import read_problem
    from coopt.problem.fleet import Fleet
    from coopt.problem.problem import Problem

    with resources.as_file(resources.files("coopt.data")) as folder:
        return Problem(*read_problem(folder / "job.toml", Fleet.from_csv(folder / "fleet.csv")))
