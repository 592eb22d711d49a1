"""From `pip install` to a first plan of one's own: coopt beside an Optuna study, for the same federation.

    python -m benchmarks.startup.first_plan        # about ten minutes, needs a package index

Two new environments, one with coopt alone and one with Optuna alone. In each the same is timed in the same
run: installing, and the script that a user types to get a plan (`first_plan/with_coopt.py` and
`first_plan/with_optuna.py`). Both scripts import what the user has already: data, model and training loop
(`first_plan/federation.py`). Then either plan is trained from the start with five seeds, by the same loop
within the same limits; what the script itself spent on devices is counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from coopt.adapters.simulated import digits
from coopt.cli import example_problem

HERE = Path(__file__).parent
SCRIPTS, RESULTS, ROOT = HERE / "first_plan", HERE / "results", HERE.parents[1]
TOOLS = {"coopt": str(ROOT), "Optuna study": "optuna"}
FILES = {"coopt": "with_coopt.py", "Optuna study": "with_optuna.py"}
SEEDS = range(1, 6)
# Runs after the script in the same process: what it took, what the devices did for it, and the plan.
AFTER = """
import json as _json, time as _time
_begun = _time.perf_counter()
exec(compile(open({script!r}).read(), {script!r}, "exec"))
_took = _time.perf_counter() - _begun
import federation as _f
_plan = (plan.rounds, plan.local_steps, plan.batch_sizes) if {coopt} else plan_of(**study.best_params)
_used = dict(_f.spent)
if {coopt}:
    exchanges = measured.directions + 2
    seconds = exchanges * _f.round_time + measured.samples_used / len(_f.clients) / _f.throughput
    _used = {{"samples": float(measured.samples_used), "seconds": float(seconds.max())}}
_losses = [_f.train(*_plan, seed=seed) for seed in {seeds}]
_k, _tau, _s = _plan
print("RESULT" + _json.dumps({{
    "script_seconds": _took, "samples": _used["samples"], "device_seconds": _used["seconds"],
    "rounds": int(_k), "local_steps": int(_tau), "batches": [int(min(_s)), int(max(_s))], "losses": _losses,
}}))
"""


def keystrokes(script: Path) -> int:
    """Characters that somebody types: an editor indents."""
    return sum(len(line.strip()) + 1 for line in script.read_text(encoding="utf-8").splitlines())


def run(tool: str, folder: Path) -> dict[str, object]:
    home = folder / tool.split(maxsplit=1)[0]
    begun = time.perf_counter()
    venv.create(home, with_pip=True)
    made = time.perf_counter()
    python = home / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", TOOLS[tool]]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(install, check=True, env=environment)
    installed = time.perf_counter() - made
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    code = AFTER.format(script=str(SCRIPTS / FILES[tool]), coopt=tool == "coopt", seeds=list(SEEDS))
    output = subprocess.run(
        [str(python), "-c", code], cwd=SCRIPTS, env=environment, check=True, capture_output=True, text=True
    ).stdout
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT"))
    return {
        "make_environment_seconds": made - begun,
        "install_seconds": installed,
        "environment_megabytes": size / 1e6,
        "keystrokes": keystrokes(SCRIPTS / FILES[tool]),
        "lines": len((SCRIPTS / FILES[tool]).read_text(encoding="utf-8").splitlines()),
        **json.loads(line.removeprefix("RESULT")),
    }


def save_federation() -> None:
    """The digits of `coopt demo`, as arrays that need no coopt."""
    federation, example = digits(24), example_problem().fleet
    images, labels = (np.concatenate(parts) for parts in zip(*federation.clients, strict=True))
    np.savez_compressed(
        SCRIPTS / "federation.npz",
        images=images,
        labels=labels,
        samples=federation.samples,
        throughput=example.throughput,
        round_time=example.round_time,
    )


def main() -> None:
    save_federation()
    with TemporaryDirectory() as name:
        found = {tool: run(tool, Path(name)) for tool in TOOLS}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "first_plan.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "first_plan.md").write_text(table(found), encoding="utf-8")
    sys.stdout.write(table(found))


def table(found: dict[str, dict[str, object]]) -> str:
    def losses(row: dict[str, object]) -> str:
        values = [float(value) for value in row["losses"]]
        return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"

    rows = {
        "`pip install` [s]": lambda row: f"{row['install_seconds']:.0f}",
        "environment [MB]": lambda row: f"{row['environment_megabytes']:.0f}",
        "keystrokes (lines)": lambda row: f"{row['keystrokes']} ({row['lines']})",
        "script, until the plan is there [s]": lambda row: f"{row['script_seconds']:.1f}",
        "samples that devices processed for it": lambda row: f"{row['samples']:,.0f}",
        "hours on the devices' clock": lambda row: f"{row['device_seconds'] / 3600:.2f}",
        "plan: rounds, local steps, batches": lambda row: (
            f"{row['rounds']}, {row['local_steps']}, {row['batches'][0]} to {row['batches'][1]}"
        ),
        "loss after training it, median of 5 seeds": losses,
    }
    lines = [f"| | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    lines += [
        f"| {label} | {' | '.join(write(row) for row in found.values())} |" for label, write in rows.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
