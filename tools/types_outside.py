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
# Found in the environment as a user's would be, not as files to be checked themselves.
CHECKERS = {
    "mypy": ["mypy", "--strict", "--config-file=", "--follow-imports=silent", str(FILE)],
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
            command += ["--cache-dir", str(Path(folder) / "cache")]
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
