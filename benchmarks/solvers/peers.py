"""What other solvers reach on the joint problem, beside the exact solver: quality and time in one table.

    python -m benchmarks.solvers.peers                # half an hour of one core
    python -m benchmarks.solvers.peers --seconds 500  # what fits into 500 seconds, to be continued
    python -m benchmarks.solvers.peers --resume       # goes on where it stopped
    python -m benchmarks.solvers.peers --again SCIP   # measures peers with SCIP in their name once more
    python -m benchmarks.solvers.peers --report       # table from the committed CSV

The foreign solvers are no dependencies of coopt: make an environment of its own for them,

    python -m venv .venv-peers && .venv-peers/bin/pip install . pyscipopt maingopy casadi gekko

and run the script with its python; rows of packages that are missing stay as they are. The bound is the
published one: its formula is short enough for every modelling language (peer_solvers/formula.py). Each peer
gets the form that suits it best: those that know integers once plain and once with limits in 1/(K tau) and
1/tau, in which they are linear, the objective times 1,000; SLSQP logarithms and exact gradients; cvxpy one
compiled parametrised problem. The K and tau of peers without integers are rounded and given the best whole
batches there are. Whatever a peer claims, its plan is evaluated here. A peer that has no plan for N
devices, or one with more than twice the bound of the optimum, is not run for more.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.solvers.peer_solvers import ours, relaxations
from benchmarks.solvers.peer_solvers.bonmin import bonmin
from benchmarks.solvers.peer_solvers.formula import LIMIT, Answer, Formula, instance
from benchmarks.solvers.peer_solvers.gekko_apopt import gekko
from benchmarks.solvers.peer_solvers.maingo import maingo
from benchmarks.solvers.peer_solvers.scip import scip
from coopt import BoundWarning, Problem, evaluate, solve_allocation
from coopt.problem.limits import most_rounds
from coopt.solvers.whole_batches import whole_batches

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "peers.csv"
SIZES = (3, 10, 100, 1000)
SEEDS = 5
# Seconds of CPU after which a peer is stopped from outside.
STOP = 1.5 * LIMIT
COLUMNS = ("devices", "peer", "seeds", "seconds", "excess", "worst_excess", "before_rounding", "claim")


@dataclass(frozen=True)
class Peer:
    """A solver, the package it needs beyond coopt's own, and on how many seeds it is run."""

    solve: Callable[[Problem], Answer | str]
    seeds: int = SEEDS
    package: str = "coopt"


PEERS = {
    "coopt exact": Peer(ours.coopt_exact),
    "coopt closed form": Peer(ours.coopt_closed_form),
    "CoOptFL, best K": Peer(ours.coopt_fl),
    "AdaCoOpt's greedy, best K": Peer(ours.adacoopt),
    "enumeration with coopt's inner solver": Peer(ours.brute_force, 1),
    "cvxpy + Clarabel (DPP), by hand": Peer(relaxations.cvxpy_by_hand),
    "SLSQP, three starts": Peer(relaxations.slsqp, 1),
    "SCIP, plain": Peer(partial(scip, linear_limits=False), 1, "pyscipopt"),
    "SCIP, linear limits, scaled": Peer(partial(scip, linear_limits=True), 1, "pyscipopt"),
    "MAiNGO, plain": Peer(partial(maingo, linear_limits=False), 1, "maingopy"),
    "MAiNGO, linear limits, scaled": Peer(partial(maingo, linear_limits=True), 1, "maingopy"),
    "Bonmin, plain": Peer(partial(bonmin, linear_limits=False), 1, "casadi"),
    "Bonmin, linear limits, scaled": Peer(partial(bonmin, linear_limits=True), 1, "casadi"),
    "GEKKO (APOPT), plain": Peer(partial(gekko, linear_limits=False), 1, "gekko"),
    "GEKKO (APOPT), linear limits, scaled": Peer(partial(gekko, linear_limits=True), 1, "gekko"),
}


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(solve: Callable[[Problem], Answer | str], problem: Problem) -> tuple[Answer | str, float]:
    began = cpu_seconds()
    answer = solve(problem)
    return answer, cpu_seconds() - began


def _run(solve: Callable[[Problem], Answer | str], problem: Problem, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(STOP), math.ceil(STOP)))
    sender.send(timed(solve, problem))


def apart(solve: Callable[[Problem], Answer | str], problem: Problem) -> tuple[Answer | str, float]:
    """Solve in a process of its own, which the operating system ends where the peer's own limit does not."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=_run, args=(solve, problem, sender))
    worker.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return f"stopped from outside: no answer within {STOP:.0f} s", STOP
    finally:
        worker.join()


def whole(problem: Problem, answer: Answer) -> tuple[int, int, np.ndarray] | None:
    """The answer as a plan within the limits; None if it breaks one."""
    lower, _ = problem.fleet.batch_range()
    tau = max(round(answer.local_steps), 1)
    rounds = min(max(math.floor(answer.rounds * (1 + 1e-9)), 1), most_rounds(problem, tau, lower) or 1)
    batches = answer.batch_sizes
    if np.any(batches % 1.0):
        batches = whole_batches(problem, Formula(problem).weights, rounds, tau).batch_sizes
    return None if problem.violations(rounds, tau, batches) else (rounds, tau, batches)


def installed(name: str) -> bool:
    return importlib.util.find_spec(PEERS[name].package) is not None


def row_of(size: int, name: str, gave_up: str) -> dict[str, str]:
    """Run one peer on the problems of one size."""
    peer = PEERS[name]
    row = dict.fromkeys(COLUMNS, "") | {"devices": str(size), "peer": name, "seeds": str(peer.seeds)}
    if not installed(name):
        return row | {"claim": f"{peer.package} is not installed"}
    if gave_up:
        return row | {"claim": f"not run: no plan of use for {gave_up} devices"}
    run = timed if peer.package == "coopt" else apart
    # Imports and compilation.
    run(peer.solve, instance(2, 0))
    excess, relaxed, seconds, notes = [], [], [], []
    for seed in range(peer.seeds):
        problem = instance(size, seed)
        optimum = solve_allocation(problem, bound="dynamite").lower_bound
        answer, used = run(peer.solve, problem)
        seconds.append(used)
        if isinstance(answer, str):
            notes.append(answer)
            continue
        real = Formula(problem).value(answer.rounds, answer.local_steps, answer.batch_sizes)
        relaxed.append(real / optimum - 1.0)
        plan = whole(problem, answer)
        claim = answer.claim
        if plan is None:
            claim += "; its plan breaks a limit"
        else:
            excess.append(evaluate(problem, *plan, bound="dynamite").error_bound / optimum - 1.0)
        if claim.startswith("optimal") and (plan is None or excess[-1] > 1e-6):
            claim = f"**false: claims {claim}**"
        notes.append(claim)
    return row | {
        "seconds": f"{np.median(seconds):.4g}",
        "excess": f"{np.median(excess):.3g}" if excess else "",
        "worst_excess": f"{np.max(excess):.3g}" if excess else "",
        "before_rounding": f"{np.median(relaxed):.3g}" if relaxed else "",
        "claim": notes[-1],
    }


def useless(row: dict[str, str]) -> bool:
    """Whether there is no plan, or one with more than twice the bound of the optimum."""
    return not row["excess"] or float(row["excess"]) > 1.0


def known_rows() -> list[dict[str, str]]:
    if not TABLE.exists():
        return []
    return tables.read(TABLE)


def write(rows: list[dict[str, str]]) -> None:
    order = {name: place for place, name in enumerate(PEERS)}
    rows.sort(key=lambda row: (int(row["devices"]), order[row["peer"]]))
    tables.write(TABLE, rows)


def measure(rows: list[dict[str, str]], limit: float) -> None:
    """Add the rows that are missing, small fleets first, until the time is over."""
    began = time.perf_counter()
    for size in SIZES:
        for name in PEERS:
            mine = {int(row["devices"]): row for row in rows if row["peer"] == name}
            if size in mine:
                continue
            if time.perf_counter() - began > limit:
                return
            smaller = [n for n, row in mine.items() if n < size and useless(row)]
            rows.append(row_of(size, name, str(min(smaller)) if smaller else ""))
            print(rows[-1], flush=True)
            write(rows)


def report(rows: list[dict[str, str]]) -> str:
    """The table, as markdown."""
    lines = [
        "# The joint problem: quality and time side by side",
        "",
        f"One core; seconds of CPU, medians over the seeds given; limit {LIMIT:.0f} s, enforced at",
        f"{STOP:.0f} s. Excess: error bound of the peer's plan over the proved optimum, minus one, evaluated",
        "here whatever the peer claims. Peers that know no integers get the best whole batches at their",
        "rounded K and tau; before rounding their value may lie below the optimum. A peer that had no plan,",
        "or one with more than twice the bound of the optimum, is not run on larger fleets.",
        "",
        "| devices | peer | seeds | seconds | excess | worst | before rounding | claim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["devices"], row["peer"], row["seeds"], row["seconds"] or "-"]
        cells += [
            f"{float(row[key]):.3%}" if row[key] else "-"
            for key in ("excess", "worst_excess", "before_rounding")
        ]
        lines.append(f"| {' | '.join([*cells, row['claim']])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write the table from the committed CSV")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--again", help="keep all rows but those of peers whose name has this text")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no row after this time")
    options = parser.parse_args()
    if not options.report:
        warnings.simplefilter("ignore", BoundWarning)
        rows = known_rows()
        if options.again:
            rows = [row for row in rows if options.again not in row["peer"]]
        elif not options.resume:
            rows = [row for row in rows if not installed(row["peer"])]
        measure(rows, options.seconds)
    (RESULTS / "peers.md").write_text(report(tables.read(TABLE)))


if __name__ == "__main__":
    main()
