"""Run the Flower example in Flower's simulation engine, and print the plan of each round.

Flower's own command line would start a SuperLink that goes on running afterwards; this one ends with the run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from flower_deployment import BIN, CONNECTION, Deployment

APP = Path(__file__).resolve().parent.parent / "docs" / "examples" / "flower"
DEVICES = 10


def main() -> None:
    """Run it; exit with an error if the run fails."""
    with (
        tempfile.TemporaryDirectory(prefix="coopt-flower-") as folder,
        Deployment(Path(folder), simulation=True) as deployment,
    ):
        run = deployment.submit(APP, {"devices": DEVICES}, nodes=DEVICES)
        command = [str(BIN / "flwr"), "log", run, CONNECTION, "--stream"]
        said = []
        with subprocess.Popen(
            command, env=deployment.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as log:
            for line in log.stdout or ():
                said.append(line)
                if (start := line.find("coopt: ")) >= 0 or line.startswith("accuracy"):
                    print(line[max(start, 0) :].strip(), flush=True)
        status = deployment.status(run)
    if status != "finished:completed":
        sys.exit(f"{''.join(said)}\nthe run has the status {status}")


if __name__ == "__main__":
    main()
