"""Stop the import of this package with advice where its optional dependency is missing."""

from __future__ import annotations

from importlib.util import find_spec

from coopt.errors import MissingDependencyError

if find_spec("flwr") is None:
    raise MissingDependencyError('the strategy for Flower needs flwr: pip install "coopt[flower]"')
