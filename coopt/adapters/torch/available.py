"""Stop the import of this package with advice where an optional dependency is missing."""

from __future__ import annotations

from importlib.util import find_spec

from coopt.errors import MissingDependencyError

for name in ("torch", "tqdm"):
    if find_spec(name) is None:
        raise MissingDependencyError(f'training in torch needs {name}: pip install "coopt[torch]"')
