"""Local SGD planned across two processes that talk over the loopback interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_measure_plan_and_end_with_one_model() -> None:
    script = ROOT / "docs" / "examples" / "distributed" / "train.py"
    path = os.pathsep.join([str(ROOT), str(ROOT / "bounds")])
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    plan = re.search(r"^plan: (\d+) rounds of (\d+) steps, batches \[(\d+), (\d+)\]$", said, re.MULTILINE)
    assert plan is not None, said
    assert all(int(number) >= 1 for number in plan.groups())
    loss = re.search(r"^loss (\S+) to (\S+) in \S+ s; 2 ranks hold 1 model$", said, re.MULTILINE)
    assert loss is not None, said
    assert float(loss[2]) < 0.5 * float(loss[1])
