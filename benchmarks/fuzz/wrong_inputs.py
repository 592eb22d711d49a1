"""Wrong inputs, tried one by one: what was refused as documented, what was taken, and what else came out.

    python -m benchmarks.fuzz.wrong_inputs      # about three minutes on one core

- arguments: every argument of every public function, replaced by each of 38 values (tests/contract.py).
- states: every entry of a controller's state, replaced by each of 15 values or left out. One that is taken
  must plan a round, and be written down again.
- bits: every bit of a checkpoint, flipped.
- claims: every entry of plans in JSON but their problem, replaced by each of some 10 values, and certified.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path

from benchmarks import tables
from coopt import Allocation, Budget, evaluate, solve_allocation
from coopt.online.checkpoint_format import DamagedError, decode, encode

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "online"), str(TESTS / "plans")]
contract, test_claims, states = map(import_module, ("contract", "test_claims", "test_controller_state"))

TABLE = Path(__file__).parent / "results" / "wrong_inputs.csv"


def arguments() -> Counter[str]:
    found: Counter[str] = Counter()
    for name, call in contract.calls().items():
        for _, _, run in contract.wrong_calls(name, call):
            found[contract.outcome(run)] += 1
    return found


def controller_states() -> Counter[str]:
    found: Counter[str] = Counter()
    state = json.loads(json.dumps(states.trained().state_dict()))

    def go_on(mutant: dict[str, object]) -> None:
        controller = states.make()
        controller.load_state_dict(mutant)
        controller.plan()
        json.dumps(controller.state_dict())

    for place in states.places(state):
        for value in (..., *states.WRONG):
            mutant = states.changed(state, place, value)
            if repr(mutant) != repr(state):
                found[contract.outcome(lambda mutant=mutant: go_on(mutant))] += 1
    return found


def bits() -> Counter[str]:
    found: Counter[str] = Counter()
    content = encode(states.trained(1).state_dict())
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decode(bytes(damaged))
        except DamagedError:
            found["refused"] += 1
        else:
            found["answered"] += 1
    return found


def claims() -> Counter[str]:
    found: Counter[str] = Counter()
    problem = contract.calls()["solve_allocation"][1]["problem"]
    cheap = type(problem)(problem.fleet, problem.constants, Budget(cost=4000.0, max_local_steps=3))
    plans = (
        solve_allocation(problem),
        solve_allocation(problem, bound="dynamite"),
        solve_allocation(cheap, objective="cost", target_error=1.2),
        evaluate(problem, 3, 2, 4),
    )
    for plan in plans:
        document = json.loads(plan.to_json())
        for way, value in test_claims.leaves(document):
            if way[0] in ("problem", "target_error") or way[0] in test_claims.NOT_COVERED:
                continue
            for other in test_claims.other_values(value):
                changed = copy.deepcopy(document)
                inner = changed
                for key in way[:-1]:
                    inner = inner[key]
                inner[way[-1]] = other
                found[contract.outcome(lambda changed=changed: Allocation.from_dict(changed).certify())] += 1
    return found


def main() -> None:
    rows = []
    for name, tried in (
        ("arguments of public functions", arguments),
        ("entries of a controller's state", controller_states),
        ("bits of a checkpoint", bits),
        ("claims of plans in JSON", claims),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = tried()
        known = {"refused": found.pop("refused", 0), "taken": found.pop("answered", 0)}
        other = sum(found.values())
        rows.append({"what": name, "tried": sum(known.values()) + other, **known, "anything_else": other})
        print(rows[-1], dict(found))
    tables.write(TABLE, rows)


if __name__ == "__main__":
    main()
