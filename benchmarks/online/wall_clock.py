"""A plan on the clock of this machine: is its time as predicted, and is it the best that the time allows?

    COOPT_DATA=... python -m benchmarks.online.wall_clock --seconds 120 --trial 20     # 40 minutes of a core
    python -m benchmarks.online.wall_clock --seconds 30 --settings 4,32 16,32 16,8 4,8 # 7 minutes
    python -m benchmarks.online.wall_clock --seed 21 ...      # another federation, beside the first
    python -m benchmarks.online.wall_clock --later 1,128 4,128   # more fixed settings for a known result
    python -m benchmarks.online.wall_clock --report           # table from the committed result

Nothing is simulated. Two devices hold the 50,000 photographs of CIFAR-10, each other shares of the classes,
and train a network of 200,000 parameters with weight decay in turns on one core; the time of a round is that
of the slower one, as if they ran side by side. So many samples are not learned by heart in two minutes.

1. **The plan.** A tenth of the time is spent on rounds with batches from 2 to 128 and 1 to 16 steps, which
   train too. Their times are fitted: of a round, of a step, of a sample. Then the federation is measured, and
   `solve_schedule` plans what is left of the time in two phases. The time of a step is no straight line in
   its batch, and this machine no faster than its other programs let it: so rounds like those that are
   planned are timed in short turns, the fit is made to hold there above all, and what is left is planned
   again; twice. That is trained. Measuring and planning are charged as they took on this core.
2. **The controller**, with nothing given but speeds unknown, a learning rate and the time.
3. **Fixed settings**, tau of 1, 4 and 16 with batches of 1, 8, 32 and 128: all of them for the time of a
   trial, and the best three of those for the whole time. Others can be run later, such as what the plan came
   to; the table says which.

All runs take turns of a second, so that what slows this machine down slows all of them down. Seconds are
those in which the processor worked for this program: other programs run on the machine too. `--wall` takes
those of the wall clock, for a machine that is idle.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from benchmarks.federated.data import load
from coopt import Budget, Constants, Controller, Fleet, Phase, Problem, solve_schedule
from coopt.adapters.fixed_plan import FixedPlan

RESULTS = Path(__file__).parent / "results"
DEVICES, SPREAD, RATE, DECAY, SEED = 2, 0.5, 0.03, 1e-3, 20
HIDDEN, LARGEST = 64, 128
# Not batches of one, whose products torch computes in another way, in half the time of batches of two.
TIMED, TIMED_SHARE = ((16, 4), (128, 4), (2, 16), (64, 1), (4, 4), (32, 16)), 0.1
ROWS, DIRECTIONS = 64, 24
FIXED = tuple((tau, batch) for tau in (1, 4, 16) for batch in (1, 8, 32, 128))
PLANNING_SHARE = 0.01
# Rounds like each phase of the plan are timed for this share of the time, and what is left planned again.
RETIMED, RETIMED_SHARE = 2, 0.03
# How much more than others such a round counts in the fit.
NEAR = 30.0
FULL, TURN = 3, 1.0
# Turns while rounds are timed: many short ones see more of what else the machine does.
SHORT_TURN = 0.2


class Turns:
    """Runs that take turns, a thread each, so that one of them works at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[str] = []
        self._began = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Take part from here to the end of the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting[0] == name)
        self._began = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.remove(name)
                self._changed.notify_all()

    def pause(self, name: str, turn: float) -> None:
        """Let the others work, if a turn of so many seconds is over."""
        if time.monotonic() - self._began < turn:
            return
        with self._changed:
            self._waiting.remove(name)
            self._waiting.append(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting[0] == name)
        self._began = time.monotonic()

    def run(self, jobs: dict[str, Callable[[], None]]) -> None:
        """Run all of them to their ends."""
        self._waiting = list(jobs)
        threads = [threading.Thread(target=job) for job in jobs.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class Federation:
    """The data, who holds which, and what is trained on them."""

    def __init__(self, clock: Callable[[], float], seed: int) -> None:
        import torch

        self.clock, self.seed = clock, seed
        data, rng = load("cifar10"), np.random.default_rng(seed)
        self.x, self.y = torch.from_numpy(data.x).flatten(1), torch.from_numpy(data.y)
        self.test = torch.from_numpy(data.test_x).flatten(1), torch.from_numpy(data.test_y)
        shares = rng.dirichlet(np.full(DEVICES, SPREAD), size=10)
        owner = np.array([rng.choice(DEVICES, p=shares[label]) for label in data.y.tolist()])
        self.rows = [np.flatnonzero(owner == i) for i in range(DEVICES)]
        self.sizes = np.array([len(rows) for rows in self.rows])
        self.fleet = Fleet(self.sizes, 1.0, 1.0, max_batch=LARGEST)

    def network(self):
        import torch

        torch.manual_seed(self.seed)
        inputs = self.x.shape[1]
        return torch.nn.Sequential(
            torch.nn.Linear(inputs, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)
        )

    def trainer(self, module, **options):
        import torch

        from coopt.adapters.torch import FederatedTrainer, SharedData

        return FederatedTrainer(
            module,
            torch.nn.functional.cross_entropy,
            SharedData(self.x, self.y, self.rows),
            mode="loop",
            seed=self.seed,
            weight_decay=DECAY,
            clock=self.clock,
            progress=False,
            metric=None,
            **options,
        )

    def judge(self, module) -> tuple[float, float]:
        """Training loss with weight decay over all samples, and accuracy on the test data."""
        import torch

        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(module(self.x), self.y))
            loss += DECAY / 2.0 * sum(float(value.square().sum()) for value in module.parameters())
            right = module(self.test[0]).argmax(1) == self.test[1]
        return loss, float(right.float().mean())


class Run:
    """One of the runs that take turns."""

    def __init__(self, name: str, federation: Federation, turns: Turns, limit: float) -> None:
        self.name, self.federation, self.turns, self.limit = name, federation, turns, limit
        self.result: dict[str, object] = {}

    def train(self, module, planner, until: float, *, turn: float = TURN, **options):
        """Train, a turn at a time, until the planner stops or the time is over."""

        def end(history) -> bool:
            self.turns.pause(self.name, turn)
            return history.records[-1].seconds >= until

        trainer = self.federation.trainer(module, callbacks=[end], **options)
        trainer.run(planner)
        return trainer

    def note(self, module, **found: object) -> None:
        loss, accuracy = self.federation.judge(module)
        self.result = {"loss": loss, "accuracy": accuracy, **found}
        print(self.name, self.result, flush=True)

    def fixed(self, tau: int, batch: int) -> None:
        with self.turns.part(self.name):
            plan = FixedPlan(self.federation.fleet, 10**7, tau, batch, RATE)
            trained = self.train(self.federation.network(), plan, self.limit, probe=None)
            self.note(trained.model, rounds=len(trained.history), seconds=plan.spent_seconds)

    def controlled(self) -> None:
        with self.turns.part(self.name):
            planner = Controller(self.federation.fleet, Budget(time=self.limit), RATE)
            trained = self.train(self.federation.network(), planner, np.inf)
            told = [record.ignored for record in trained.history if record.ignored]
            last = trained.history.records[-1]
            self.note(
                trained.model,
                rounds=len(trained.history),
                seconds=planner.spent_seconds,
                last=[last.local_steps, *last.batch_sizes],
                told=[text for each in told for text in each][:3],
            )

    def planned(self) -> None:
        with self.turns.part(self.name):
            clock, limit = self.federation.clock, self.limit
            order = cycle([Phase(2, tau, np.full(DEVICES, batch), RATE) for batch, tau in TIMED])
            many = tuple(phase for phase, _ in zip(order, range(10_000), strict=False))
            trainer, took = self._timed(self.federation.network(), many, TIMED_SHARE * limit)
            spent = warm_up = float(sum(map(sum, took.values())))
            began = clock()
            found = trainer.measure(rows=ROWS, directions=DIRECTIONS, progress=False)
            spent += (measuring := clock() - began)
            planning, planned = 0.0, []
            near: dict[tuple[int, int], list[float]] = {}
            while True:
                fitted = of_round, of_step, of_sample = _fitted(took, near)
                known = found.fleet(
                    round_time=of_round, step_time=of_step, throughput=1.0 / of_sample, max_batch=LARGEST
                )
                left = (1.0 - PLANNING_SHARE) * limit - spent
                problem = Problem(known, Constants(RATE, 1.0, 1.0), Budget(time=left))
                began = clock()
                schedule = solve_schedule(problem, found.forecast(RATE), phases=2, learning_rate=None)
                planning += clock() - began
                planned.append(_phases(schedule.phases))
                if len(planned) > RETIMED:
                    break
                for phase in schedule.phases:
                    trainer, seconds = self._timed(
                        trainer.model, (replace(phase, rounds=10**7),), RETIMED_SHARE * limit
                    )
                    for kind, times in seconds.items():
                        near.setdefault(kind, []).extend(times)
                    spent += float(sum(map(sum, seconds.values())))
            # As a controller does: a plan that ends early goes on with rounds like its last ones.
            last = schedule.phases[-1]
            each = of_round + last.local_steps * (of_step + int(last.batch_sizes.max()) * of_sample)
            more = max(int((left - schedule.time) / each), 0)
            plan = FixedPlan.from_schedule(schedule)
            plan.phases = (*schedule.phases[:-1], replace(last, rounds=last.rounds + more))
            trained = self.train(trainer.model, plan, np.inf, probe=None)
            ran = trained.history.records[-1].seconds
            self.note(
                trained.model,
                rounds=len(trained.history),
                seconds=spent + planning + ran,
                fitted=list(fitted),
                warm_up=warm_up,
                measuring=measuring,
                retimed=spent - warm_up - measuring,
                planning=planning,
                phases=_phases(plan.phases),
                planned=planned[:-1],
                predicted=schedule.time + more * each,
                measured=ran,
            )

    def _timed(self, module, phases: tuple[Phase, ...], seconds: float):
        """The trainer that some rounds leave, and the times of those by batch and steps."""
        plan = FixedPlan(self.federation.fleet, 1, 1, 1, RATE)
        plan.phases = phases
        trainer = self.train(module, plan, seconds, turn=SHORT_TURN, probe=None)
        took = defaultdict(list)
        times = np.diff([0.0, *trainer.history.column("seconds")])
        for record, each in zip(trainer.history, times.tolist(), strict=True):
            took[int(max(record.batch_sizes)), record.local_steps].append(each)
        return trainer, dict(took)


def _fitted(
    took: dict[tuple[int, int], list[float]], near: dict[tuple[int, int], list[float]]
) -> tuple[float, float, float]:
    """Seconds of a round, a step and a sample, from rounds of any kind and those `near` the plan.

    Means, since a plan takes the sum of its rounds, and relative deviations: a slow round is slower in all
    its parts. Of rounds of any kind the slowest tenth is left out.
    """
    kinds = [*took, *near]
    usual = [float(np.mean(np.sort(each)[: max(int(0.9 * len(each)), 1)])) for each in took.values()]
    usual += [float(np.mean(each)) for each in near.values()]
    columns = np.array([[1.0, tau, tau * batch] for batch, tau in kinds]) / np.array(usual)[:, None]
    weights = np.array([1.0] * len(took) + [NEAR] * len(near))
    found, _ = nnls(columns * weights[:, None], weights)
    return tuple(found.tolist())


def _phases(phases: Iterable[Phase]) -> list[list[int]]:
    return [[each.rounds, each.local_steps, *each.batch_sizes.tolist()] for each in phases]


def compete(
    federation: Federation, limit: float, settings: Iterable[tuple[int, int]], ours: bool
) -> dict[str, dict[str, object]]:
    """Run settings, with the plan and the controller or without, in turns; their results by name."""
    turns = Turns()
    runs: dict[str, Run] = {}
    jobs: dict[str, Callable[[], None]] = {}

    def add(name: str) -> Run:
        runs[name] = Run(name, federation, turns, limit)
        return runs[name]

    if ours:
        jobs = {"plan": add("plan").planned, "controller": add("controller").controlled}
    for tau, batch in settings:
        name = f"{tau} {batch}"
        jobs[name] = partial(add(name).fixed, tau, batch)
    turns.run(jobs)
    return {name: run.result for name, run in runs.items()}


def table(result: dict) -> str:
    clock = "of the wall clock" if result["wall"] else "of the processor"
    lines = [
        "# A plan on the clock of this machine",
        "",
        f"Two devices with the 50,000 photographs of CIFAR-10; {result['limit']:g} s {clock} for the slower.",
    ]
    for seed, run in result["runs"].items():
        lines += ["", f"## Seed {seed}", "", *_of_seed(run, result)]
    return "\n".join(lines) + "\n"


def _of_seed(run: dict, result: dict) -> list[str]:
    full, trial = run["full"], run["trial"]
    plan, ours = full["plan"], full["controller"]
    fixed = {name: each for name, each in full.items() if " " in name}
    order = sorted(fixed, key=lambda name: fixed[name]["loss"])
    best = fixed[order[0]]["loss"]
    last = f"at the end {ours['last'][0]} with {', '.join(map(str, ours['last'][1:]))}"
    off = plan["predicted"] / plan["measured"] - 1.0
    ratio, controlled = plan["loss"] / best, ours["loss"] / best
    before = ["", "Planned before what was planned was timed:", ""] if plan["planned"] else []
    before += [f"- {_told(phases)}" for phases in plan["planned"]]
    return [
        "| | rounds | tau and batches | seconds | training loss | test accuracy |",
        "|---|---|---|---|---|---|",
        _line("**plan**", _told(plan["phases"]), plan),
        _line("**controller**", last, ours),
        *(
            _line("fixed, later" * ("later" in fixed[name]) or "fixed", _setting(name), fixed[name])
            for name in order
        ),
        "",
        f"The plan: {plan['predicted']:.2f} s predicted, {plan['measured']:.2f} s measured ({off:+.1%}),",
        f"after {plan['warm_up']:.1f} s of rounds to time, {plan['measuring']:.1f} s of measuring,",
        f"{plan['retimed']:.1f} s of timing what was planned and {plan['planning']:.1f} s of planning, all",
        f"of which its time holds. Its loss is {ratio:.3f} times that of the best fixed setting",
        f"({_setting(order[0])}), the controller's {controlled:.3f} times. Its last phase",
        "goes on until the time is over, however few rounds were planned.",
        *before,
        *_trials(trial, result["trial_limit"]),
    ]


def _trials(trial: dict, seconds: float) -> list[str]:
    if not trial:
        return []
    ranked = sorted(trial, key=lambda name: trial[name]["loss"])
    told = ", ".join(f"{_setting(name)} {trial[name]['loss']:.4f}" for name in ranked)
    return ["", f"Fixed settings for {seconds:g} s, of which the best {FULL} went on: {told}."]


def _told(phases: list[list[int]]) -> str:
    return "; ".join(f"{k} of {tau} with {', '.join(map(str, sizes))}" for k, tau, *sizes in phases)


def _setting(name: str) -> str:
    return "{} with {}".format(*name.split())


def _line(name: str, how: str, each: dict) -> str:
    measured = f"{each['seconds']:.1f} | {each['loss']:.4f} | {each['accuracy']:.1%}"
    return f"| {name} | {each['rounds']} | {how} | {measured} |"


def _settings(texts: Iterable[str]) -> tuple[tuple[int, int], ...]:
    pairs = (text.split(",") for text in texts)
    return tuple((int(tau), int(batch)) for tau, batch in pairs)


def _clock(wall: bool) -> Callable[[], float]:
    return time.perf_counter if wall else time.process_time


def _anew(options: argparse.Namespace, known: dict) -> dict:
    """Everything for one seed, beside the other seeds of a result of the same kind."""
    federation = Federation(_clock(options.wall), options.seed)
    trial, settings = {}, _settings(options.settings) or FIXED
    if options.trial:
        trial = compete(federation, options.trial, FIXED, ours=False)
        best = sorted(trial, key=lambda name: trial[name]["loss"])[:FULL]
        settings = _settings(name.replace(" ", ",") for name in best)
    full = compete(federation, options.seconds, settings, ours=True)
    how = {"limit": options.seconds, "trial_limit": options.trial, "wall": options.wall}
    runs = known["runs"] if {name: known.get(name) for name in how} == how else {}
    return how | {"runs": runs | {str(options.seed): {"trial": trial, "full": full}}}


def _more(options: argparse.Namespace, known: dict) -> dict:
    """More fixed settings for a seed of a known result, in turns of their own."""
    federation = Federation(_clock(known["wall"]), options.seed)
    found = compete(federation, known["limit"], _settings(options.later), ours=False)
    full = known["runs"][str(options.seed)]["full"]
    full.update({name: run | {"later": True} for name, run in found.items()})
    return known


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of a run [s]")
    parser.add_argument("--trial", type=float, default=0.0, help="time of all settings before that [s]")
    parser.add_argument("--settings", nargs="*", default=[], help="fixed settings as TAU,BATCH; default: all")
    parser.add_argument(
        "--later", nargs="*", default=[], help="fixed settings to add to the committed result"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the shares of data, and of training")
    parser.add_argument("--wall", action="store_true", help="seconds of the wall clock")
    parser.add_argument("--report", action="store_true", help="table from the committed result")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    path = options.output / "wall_clock.json"
    if not options.report:
        import torch

        torch.set_num_threads(1)
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        result = (_more if options.later else _anew)(options, known)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(json.loads(path.read_text(encoding="utf-8")))
    (options.output / "wall_clock.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
