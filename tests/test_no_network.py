"""coopt opens no connection: not when it is imported, not when it plans, measures or trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Whatever looks up a name or connects ends the process; sockets between processes of one machine would too.
OFFLINE = """
import socket

def refused(*arguments, **options):
    raise SystemExit(f"a connection was opened: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refused
"""

PLANNING = """
import coopt
for name in coopt.__all__:
    getattr(coopt, name)
from coopt import Budget, Constants, Controller, Fleet, Problem, solve_allocation
from coopt.cli import main
fleet = Fleet([60, 20], 4.0, 0.1)
plan = solve_allocation(Problem(fleet, Constants(0.1, 1.0, 2.0, pl_constant=0.1), Budget(cost=500)))
assert plan.certify() and plan.to_json()
controller = Controller(fleet, Budget(cost=500), 0.1)
controller.plan(), controller.observe([])
assert main(["bound", "certified"]) == 0
"""

MEASURING = """
import coopt
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.simulated import Softmax, digits, simulate
from coopt.adapters.system import SystemModel
federation, model = digits(devices=3), Softmax(64, 10)
found = coopt.measure(model.gradient, model.start(), federation.clients, rows=2, directions=2)
plan = FixedPlan(found.fleet(), rounds=2, local_steps=2, batch_sizes=2, learning_rate=0.1)
run = simulate(plan, model.gradient, model.start(), federation.clients, system=SystemModel([9.0] * 3))
assert len(run.losses) == 3
"""

TRAINING = """
import torch
from coopt import Fleet
from coopt.adapters.fixed_plan import FixedPlan
from coopt.adapters.torch import FederatedTrainer
data = [(torch.randn(9, 2), torch.zeros(9, dtype=torch.long)) for _ in range(2)]
trainer = FederatedTrainer(torch.nn.Linear(2, 2), torch.nn.functional.cross_entropy, data, progress=False)
assert len(trainer.run(FixedPlan(Fleet([9, 9], 1.0, 1.0), 2, 2, 3, 0.1))) == 2
"""


@pytest.mark.parametrize("script", [PLANNING, MEASURING, TRAINING], ids=["planning", "measuring", "training"])
def test_no_connection_is_opened(script: str) -> None:
    if script is TRAINING:
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
