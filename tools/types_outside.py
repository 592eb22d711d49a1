"""Type checkers on a user's file, with coopt as they find an installed package: its stub and its annotations.

    python tools/types_outside.py          # mypy, and pyright where it is installed

coopt's own configuration and stubs play no part: what a user sees is checked, not how coopt is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "tests" / "typing" / "users_file.py"
# Libraries within coopt and polars of which no type reaches a user: reading them takes a quarter of the time.
SKIPPED = ("IPython", "altair", "cvxpy", "hypothesis", "pydantic", "scipy", "sympy")
# What mypy has read once it need not read again; no other run of mypy, with other settings, has a part in it.
CACHE = ROOT / ".mypy_cache" / "outside"
# Found in the environment as a user's would be, not as files to be checked themselves.
CHECKERS = {
    "mypy": ["mypy", "--strict", "--follow-imports=silent", str(FILE)],
    "pyright": ["pyright", "--pythonpath", sys.executable, str(FILE)],
}


def check(name: str) -> str:
    """What a checker has to say; empty where it is content. FileNotFoundError where it is not installed."""
    program = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise FileNotFoundError(f"{name} is not installed: pip install {name}")
    with tempfile.TemporaryDirectory() as folder:
        # Both read packages from here as from the environment.
        path = os.pathsep.join([str(ROOT), str(ROOT / "bounds")])
        environment = os.environ | {"MYPYPATH": path, "PYTHONPATH": path}
        command = [program, *CHECKERS[name][1:]]
        if name == "mypy":
            sections = [f"[mypy-{library}.*]\nfollow_imports = skip\n" for library in SKIPPED]
            (Path(folder) / "mypy.ini").write_text("".join(["[mypy]\n", *sections]), encoding="utf-8")
            command += ["--cache-dir", str(CACHE), "--config-file", "mypy.ini"]
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def main() -> int:
    """Run both; 1 if one finds fault."""
    code = 0
    for name in CHECKERS:
        try:
            said = check(name)
        except FileNotFoundError as missing:
            print(missing)
            continue
        print(f"{name}: {said or 'nothing to find fault with'}")
        code |= bool(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
