"""How long `import coopt` and a first `coopt plan` take, beside what they cannot do without.

    python -m benchmarks.startup.startup        # about a minute

Every command is a fresh interpreter with bytecode cached. Commands alternate, so that a machine whose speed
drifts is as fast for one as for the other; differences are medians over pairs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import coopt

RESULTS = Path(__file__).parent / "results"
PAIRS = 11
DATA = Path(coopt.__file__).with_name("data")
PLAN = f"import coopt.cli; coopt.cli.main(['plan', {str(DATA / 'fleet.csv')!r}, {str(DATA / 'job.toml')!r}])"
WARM = """
import time
from coopt.cli import example_problem
from coopt.questions.solve import solve_allocation
solve_allocation(example_problem())
problem = example_problem()
begun = time.perf_counter()
solve_allocation(problem)
print(time.perf_counter() - begun)
"""
COMMANDS = {
    "python": "pass",
    "numpy": "import numpy",
    "import coopt": "import coopt",
    "all public names": "from coopt import *",
    "numpy and rich": "import numpy, rich",
    "coopt plan": PLAN,
}


def seconds_of(code: str, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for code in COMMANDS.values():
            seconds_of(code, environment)
        rounds = [
            {name: seconds_of(code, environment) for name, code in COMMANDS.items()} for _ in range(PAIRS)
        ]
        warm = subprocess.run(
            [sys.executable, "-c", WARM], env=environment, capture_output=True, text=True, check=True
        )
    solve = float(warm.stdout)

    def beyond(name: str, base: str) -> float:
        return statistics.median(each[name] - each[base] for each in rounds)

    found = {
        "import coopt, beyond python": beyond("import coopt", "python"),
        "all public names, beyond numpy": beyond("all public names", "numpy"),
        "coopt plan on the example, beyond numpy and rich": beyond("coopt plan", "numpy and rich"),
        "the same solve, warm": solve,
    }
    medians = {name: statistics.median(each[name] for each in rounds) for name in COMMANDS}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "startup.json").write_text(
        json.dumps({"pairs": PAIRS, "medians": medians, "differences": found}, indent=1) + "\n",
        encoding="utf-8",
    )
    lines = [f"Medians over {PAIRS} fresh interpreters each, in turn; seconds.", ""]
    lines += ["| command | seconds |", "|---|---:|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in medians.items()]
    lines += ["", "| difference | seconds |", "|---|---:|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in found.items()]
    (RESULTS / "startup.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
