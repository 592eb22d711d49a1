"""What a fifth of lying clients does to a training: 30 devices, ten seeds, every lie against the honest run.

    python -m benchmarks.online.attacks             # this version of coopt: about four minutes
    python -m benchmarks.online.attacks --report    # tables and picture from the committed results

Six of thirty devices lie in their reports; their models are honest. The plans that the controller makes are
judged by the expected gap F - F* that they lead to, which for these quadratic losses is a sum over
coordinates and needs no sampling. What it cost and how long it took is added up by the server that owns the
clock and the bill, not by the controller. ``--as before`` writes the results of an older version beside it
(run with its checkout on PYTHONPATH).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from benchmarks import tables
from coopt import Budget, ClientReport, Controller, Fleet
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.measuring.robust import LEAST_TO_JUDGE, deviation
from coopt.measuring.winsorize import distances_from_middle
from coopt.online.round_plan import RoundPlan

RESULTS = Path(__file__).parent / "results"
DEVICES, LIARS, DIMENSION, SEEDS = 30, 6, 10, range(10)
LEARNING_RATE = 0.1
MOST_ROUNDS = 1500
VERSIONS = ("before", "after")
ROUND_COST = 300
LIMITS = {
    "both": Budget(cost=30_000, time=22, round_cost=ROUND_COST),  # both bind where nobody lies
    "time": Budget(time=22, round_cost=ROUND_COST),
}
# What an older version is, by the limits that it was measured under.
OLDER = {"both": "5ac7691, any lie as it comes", "time": "8efb826, the server's clock for a round as a whole"}
Floats = np.ndarray


class Federation:
    """Quadratic losses F_i(w) = sum_k h_ik (w_k - o_ik)^2 / 2 + f_i, gradients with Gaussian noise."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([41, seed])
        self.rng = np.random.default_rng([42, seed])
        self.samples = rng.integers(40, 400, size=DEVICES)
        self.weights = self.samples / self.samples.sum()
        self.speed = 100 * np.exp(rng.normal(0, 0.5, DEVICES))
        self.link = rng.uniform(0.05, 0.2, DEVICES)
        self.curvature = np.geomspace(0.2, 2.0, DIMENSION) * np.exp(rng.normal(0, 0.3, (DEVICES, DIMENSION)))
        self.centre = 0.7 * rng.normal(size=(DEVICES, DIMENSION))
        self.noise = 8.0 * np.exp(rng.normal(0, 0.4, DEVICES))
        self.offset = rng.uniform(0.5, 1.5, DEVICES)
        mean = self.weights @ self.curvature
        self.optimum = (self.weights @ (self.curvature * self.centre)) / mean
        self.lowest = float(self.weights @ self.losses(self.optimum))
        self.model = np.full(DIMENSION, 3.0)
        # The expected square of what separates the model from the optimum, coordinate by coordinate.
        self.offset_mean, self.variance = self.model - self.optimum, np.zeros(DIMENSION)
        self.held: Floats | None = None
        self.cost = self.seconds = 0.0

    def losses(self, w: Floats) -> Floats:
        return np.sum(self.curvature * (w - self.centre) ** 2, axis=1) / 2 + self.offset

    def expected_gap(self) -> float:
        """F - F* that the plans so far lead to, on average over the noise."""
        mean = self.weights @ self.curvature
        return float(mean @ (self.offset_mean**2 + self.variance) / 2)

    def run(self, plan: RoundPlan) -> tuple[list[ClientReport], float]:
        """Train a round: honest reports, and the seconds until the last device is back."""
        size, tau = plan.batch_sizes, plan.local_steps
        first, second = size // 2, size - size // 2
        clean = self.curvature * (self.model - self.centre)
        a, b = clean + self._noise(np.maximum(first, 1)), clean + self._noise(second)
        gradient = np.where(first[:, None] > 0, (first[:, None] * a + second[:, None] * b) / size[:, None], b)
        local = self.model - LEARNING_RATE * gradient
        for _ in range(tau - 1):
            local = local - LEARNING_RATE * (self.curvature * (local - self.centre) + self._noise(size))
        extra = np.where(size >= 2, 2 * np.maximum(1, size // 4), 0) * plan.extra_evaluation
        processed = tau * size + extra
        busy = processed / self.speed
        wobble = self.rng.normal(size=DEVICES) / np.sqrt(size)
        loss = self.losses(self.model) * np.exp(0.5 * wobble)
        reports = []
        for i in range(DEVICES):
            halves = None
            if first[i]:
                difference = float(np.sum((a[i] - b[i]) ** 2))
                halves = HalfBatches(int(first[i]), int(second[i]), difference, float(a[i] @ b[i]))
            pair, change = self._pair(i, max(1, int(size[i]) // 4))
            reports.append(
                ClientReport(
                    client=i,
                    round=plan.round,
                    samples=int(self.samples[i]),
                    local_steps=tau,
                    batch_size=int(size[i]),
                    samples_processed=int(processed[i]),
                    loss=float(loss[i]),
                    seconds_computing=float(busy[i]),
                    seconds_communicating=float(self.link[i]),
                    halves=halves,
                    pair=pair,
                    gradient=gradient[i],
                    change=change,
                )
            )
        self.held = local if plan.extra_evaluation else None
        self._expect(tau, size)
        self.model = self.weights @ local
        self.answered = busy + self.link  # by the server's clock
        seconds = float(np.max(self.answered))
        self.cost += float(processed.sum()) + ROUND_COST
        self.seconds += seconds
        return reports, seconds

    def _expect(self, tau: int, size: Floats) -> None:
        kept = 1 - LEARNING_RATE * self.curvature
        end = kept**tau
        pull = (1 - end) * (self.centre - self.optimum)
        self.offset_mean = self.weights @ (end * self.offset_mean + pull)
        echo = (1 - kept ** (2 * tau)) / (1 - kept**2)
        added = LEARNING_RATE**2 * (self.noise / size / DIMENSION)[:, None] * echo
        self.variance = (self.weights @ end) ** 2 * self.variance + self.weights**2 @ added

    def _pair(self, i: int, size: int) -> tuple[SameBatchPair | None, Floats | None]:
        if self.held is None:
            return None, None
        step = self.model - self.held[i]
        # The same samples at both models: their curvatures differ a little from the device's.
        halves = [
            self.curvature[i] * step * (1 + 0.3 * self.rng.normal(size=DIMENSION) / math.sqrt(size))
            for _ in range(2)
        ]
        change = (halves[0] + halves[1]) / 2
        pair = SameBatchPair(
            step=float(step @ step),
            product=float(halves[0] @ halves[1]),
            difference=float(np.sum((halves[0] - halves[1]) ** 2)),
            slope=float(change @ step),
            loss_change=float(change @ step) / 2,
        )
        return pair, change

    def _noise(self, size: Floats) -> Floats:
        scale = np.sqrt(self.noise / size / DIMENSION)[:, None]
        return scale * self.rng.normal(size=(DEVICES, DIMENSION))


@dataclass(frozen=True)
class Scene:
    """What liars who work together know: all honest reports, and how long the round took."""

    honest: Sequence[ClientReport]
    seconds: float

    def mean(self) -> Floats:
        return np.mean([report.gradient for report in self.honest], axis=0)

    def shifted(self, share: float) -> Floats:
        """The honest mean, moved along one direction by a share of the usual distance from it."""
        mean = self.mean()
        usual = float(np.median([np.linalg.norm(report.gradient - mean) for report in self.honest]))
        direction = np.ones(DIMENSION) / math.sqrt(DIMENSION)
        return mean + share * usual * direction


Lie = Callable[[ClientReport, Scene], ClientReport | None]


def _halves(r: ClientReport, difference: float = 1.0, product: float = 1.0) -> HalfBatches | None:
    h = r.halves
    return h and replace(h, difference=h.difference * difference, product=h.product * product)


def _pair(r: ClientReport, factor: float) -> SameBatchPair | None:
    """The curvature, scaled: a squared change of the gradient by the square of the factor."""
    p = r.pair
    return p and replace(
        p,
        product=p.product * factor**2,
        difference=p.difference * factor**2,
        slope=p.slope * factor,
        loss_change=p.loss_change * factor,
    )


def _gradient(r: ClientReport, vector: Floats) -> ClientReport:
    """Another gradient, and halves that agree with it: the noise stays as it was."""
    h = r.halves
    product = float(vector @ vector) - (h.difference / 4 if h else 0.0)
    return replace(r, gradient=vector, halves=h and replace(h, product=product))


def _all(r: ClientReport, value: float) -> ClientReport:
    return replace(
        r,
        loss=value,
        samples_processed=value,
        seconds_computing=value,
        seconds_communicating=value,
        cost=value,
        halves=HalfBatches(1, 1, value, value),
        pair=SameBatchPair(*[value] * 5),
        gradient=np.full(DIMENSION, value),
        change=np.full(DIMENSION, value),
    )


ATTACKS: dict[str, Lie] = {
    "none": lambda r, s: r,
    "not a number": lambda r, s: _all(r, math.nan),
    "cost 1e59": lambda r, s: replace(r, cost=1e59),
    "cost 0": lambda r, s: replace(r, cost=0.0),
    "twice the samples processed": lambda r, s: replace(r, samples_processed=2 * r.samples_processed),
    "computing 29 times as long": lambda r, s: replace(r, seconds_computing=29 * r.seconds_computing),
    "computing in no time": lambda r, s: replace(r, seconds_computing=r.seconds_computing / 29),
    "all of its time is the link's": lambda r, s: replace(
        r,
        seconds_computing=1e-6 * r.seconds_computing,
        seconds_communicating=r.seconds_communicating + r.seconds_computing,
    ),
    "computing in no time, the rest is the link's": lambda r, s: replace(
        r,
        seconds_computing=r.seconds_computing / 29,
        seconds_communicating=r.seconds_communicating + r.seconds_computing * 28 / 29,
    ),
    "noise x 29": lambda r, s: replace(r, halves=_halves(r, 29.0)),
    "noise x 29, products to match": lambda r, s: _gradient(replace(r, halves=_halves(r, 29.0)), r.gradient),
    "loss x -20": lambda r, s: replace(r, loss=-20 * r.loss),
    "gradient x -5": lambda r, s: _gradient(r, -5 * r.gradient),
    "gradient x -1": lambda r, s: _gradient(r, -r.gradient),
    "gradients that agree on another": lambda r, s: _gradient(r, s.shifted(1.0)),
    "expensive, slow and noisy": lambda r, s: replace(
        _gradient(r, 5 * r.gradient),
        cost=29.0 * r.samples_processed,
        samples_processed=2 * r.samples_processed,
        seconds_computing=29 * r.seconds_computing,
        seconds_communicating=29 * r.seconds_communicating,
        pair=_pair(r, 5.0),
    ),
}


def numbers(reports: Sequence[ClientReport], plan: RoundPlan) -> dict[str, Floats]:
    """What reports say, by the quantities that it is compared in: one number a report, above 0."""
    halves = [(r.halves, r.halves and 1 / r.halves.first + 1 / r.halves.second) for r in reports]
    told = {
        "loss": [r.loss for r in reports],
        "work": [r.samples_processed / plan.batch_sizes[r.client] for r in reports],
        "price": [1.0 if r.cost is None else r.cost / r.samples_processed for r in reports],
        "computing": [r.seconds_computing / r.samples_processed for r in reports],
        "link": [r.seconds_communicating for r in reports],
        "noise": [h.difference / parts if h else math.nan for h, parts in halves],
        "curvature": [r.pair.slope / r.pair.step if r.pair else math.nan for r in reports],
        "gradient": distances_from_middle([r.gradient for r in reports])[1],
    }
    return {name: np.array(values, dtype=np.float64) for name, values in told.items()}


def far_lies(told: Sequence[ClientReport], honest: Sequence[ClientReport], plan: RoundPlan) -> set[int]:
    """Who says what is no number, or is beyond three robust deviations of what all say, and is a lie."""
    with np.errstate(all="ignore"):
        said, true = (numbers(reports, plan) for reports in (told, honest))
        found = np.zeros(len(told), dtype=bool)
        for name, values in said.items():
            lies = values != true[name]
            logs = np.log(values)
            known = np.isfinite(logs)
            if known.sum() < LEAST_TO_JUDGE:
                continue
            distance = logs - np.median(logs[known])
            distance = distance if name == "gradient" else np.abs(distance)
            missing = ~known & np.isfinite(np.log(true[name]))
            found |= lies & (missing | (distance > 3.0 * deviation(logs[known])))
    return set(np.flatnonzero(found).tolist())


def run(attack: str, seed: int, limits: str, version: str) -> dict[str, object]:
    """One training under one attack."""
    federation, lie, budget = Federation(seed), ATTACKS[attack], LIMITS[limits]
    controller = Controller(Fleet(federation.samples, 1.0, 1.0), budget, LEARNING_RATE, curvature_floor=0.0)
    liars = set(range(LIARS))
    named = dict.fromkeys(("liars", "honest", "far"), 0)
    far_told = 0
    steps, batches = [], []
    while isinstance(plan := controller.plan(), RoundPlan) and len(steps) < MOST_ROUNDS:
        steps.append(plan.local_steps)
        batches.append(plan.batch_sizes)
        reports, took = federation.run(plan)
        scene = Scene([r for r in reports if r.client not in liars], took)
        told = [lie(r, scene) if r.client in liars else r for r in reports]
        far = far_lies(told, reports, plan) & liars
        clock = {"answered": federation.answered} if version == "after" else {}
        ignored = controller.observe(told, seconds=took, **clock)
        blamed = {entry.client for entry in ignored}
        named["liars"] += len(blamed & liars)
        named["honest"] += len(blamed - liars)
        named["far"] += len(blamed & far)
        far_told += len(far)
    count = max(len(steps), 1)
    mean = np.mean(batches, axis=0)
    return {
        "attack": attack,
        "seed": seed,
        "gap": f"{federation.expected_gap():.6g}",
        "cost": f"{federation.cost / budget.cost:.4f}",
        "time": f"{federation.seconds / budget.time:.4f}",
        "rounds": len(steps),
        "steps": f"{np.mean(steps):.2f}",
        "most_steps": max(steps),
        "batch_of_liars": f"{np.mean(mean[:LIARS]) / np.mean(mean[LIARS:]):.3f}",
        "liars_named": f"{named['liars'] / count / LIARS:.4f}",
        "honest_named": f"{named['honest'] / count / (DEVICES - LIARS):.5f}",
        "far": f"{far_told / count / LIARS:.4f}",
        "far_named": f"{named['far'] / count / LIARS:.4f}",
    }


def path(limits: str, version: str) -> Path:
    return RESULTS / f"attacks_{limits}_{version}.csv"


def measure(limits: str, version: str, attacks: Sequence[str]) -> None:
    """Run attacks, and keep what came out beside what is there of others."""
    found = read(limits, version) if path(limits, version).exists() else {}
    for attack in attacks:
        found[attack] = [run(attack, seed, limits, version) for seed in SEEDS]
        print(limits, version, attack, [row["gap"] for row in found[attack]], flush=True)
        tables.write(path(limits, version), [row for name in ATTACKS for row in found.get(name, [])])


def read(limits: str, version: str) -> dict[str, list[dict[str, object]]]:
    rows: dict[str, list[dict[str, object]]] = {}
    for row in tables.read(path(limits, version)):
        rows.setdefault(row["attack"], []).append(dict(row))
    return rows


def interval(values: Floats) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval, from Student's law of the logarithms."""
    logs = np.log(values)
    mean, error = float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(len(logs)))
    width = float(student.ppf(0.975, len(logs) - 1)) * error
    return math.exp(mean), math.exp(mean - width), math.exp(mean + width)


def column(rows: Sequence[dict[str, object]], name: str) -> Floats:
    return np.array([float(str(row[name])) for row in rows])


def table(limits: str) -> list[str]:
    """The rows of the table of one setting, and how the runs without lies compare."""
    found = {version: read(limits, version) for version in VERSIONS}
    costly = limits == "both"
    shown = ["gap", *(["cost"] if costly else []), "time", "batch"]
    heads = ["lie", *(f"{name}{when}" for name in shown for when in (" before", "")), "L", "H", "far", "F"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for attack in ATTACKS:
        cells = []
        for version in VERSIONS:
            rows = found[version].get(attack)
            gaps = None if rows is None else column(rows, "gap") / column(found[version]["none"], "gap")
            cells.append("-" if gaps is None else "{:.2f} ({:.2f} to {:.2f})".format(*interval(gaps)))
        for name, reduce in (("cost", np.max), ("time", np.max), ("batch_of_liars", np.mean)):
            for version in VERSIONS if costly or name != "cost" else ():
                rows = found[version].get(attack)
                cells.append("-" if rows is None else f"{reduce(column(rows, name)):.3f}")
        rows = found["after"][attack]
        names = ("liars_named", "honest_named", "far", "far_named")
        liars, others, far, far_named = (float(np.mean(column(rows, name))) for name in names)
        cells += [f"{liars:.0%}", f"{others:.2%}", f"{far:.0%}", f"{far_named / far:.1%}" if far else "-"]
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    same = interval(column(found["after"]["none"], "gap") / column(found["before"]["none"], "gap"))
    lines += [
        "",
        "Where nobody lies the gap is now {:.2f} ({:.2f} to {:.2f}) times that before.".format(*same),
    ]
    return lines


def draw() -> None:
    """Draw the gaps of both settings side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(LIMITS), figsize=(11, 5), sharey=True)
    for axis, (limits, title) in zip(axes, (("both", "cost and time"), ("time", "time alone")), strict=True):
        for version, colour in zip(VERSIONS, ("tab:red", "k"), strict=True):
            found = read(limits, version)
            for place, attack in enumerate(ATTACKS):
                if attack not in found:
                    continue
                gaps = column(found[attack], "gap") / column(found["none"], "gap")
                mean, low, high = interval(gaps)
                axis.plot([low, high], [place, place], color=colour, lw=1)
                axis.plot(mean, place, "o", color=colour, ms=4, label=version if place == 0 else None)
        axis.axvline(1, color="grey", lw=0.8)
        axis.axvline(2, color="grey", lw=0.8, ls=":")
        axis.set(xscale="log", xlabel="gap over that where nobody lies", title=f"limits on {title}")
    axes[0].set_yticks(range(len(ATTACKS)), list(ATTACKS))
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "attacks.png", dpi=130)


def report() -> None:
    """Write the tables and draw the picture."""
    lines = [
        "# A fifth of lying clients",
        "",
        f"{LIARS} of {DEVICES} devices lie in their reports; {len(SEEDS)} seeds. Gap: expected F - F* of",
        "the plans over that of the same version's plans where nobody lies, geometric mean with its 95 %",
        "interval. Cost and time: largest true share of the budget. Batch: mean batch of liars over that of",
        "the others. L and H: share of rounds in which a liar, and an honest client, is named. Far: share of",
        "the lies that are beyond three robust deviations of what all clients tell in that round, by",
        "logarithms, of a gradient by its distance from the others; F: share of these that are named.",
        "`python -m benchmarks.online.attacks` makes these tables.",
        "",
        f"Limits on cost and time. Before: commit {OLDER['both']}.",
        "",
        *table("both"),
        "",
        f"A limit on time alone. Before: commit {OLDER['time']}.",
        "",
        *table("time"),
    ]
    draw()
    (RESULTS / "attacks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as", dest="version", default="after", choices=VERSIONS)
    parser.add_argument("--limits", choices=LIMITS, help="only these")
    parser.add_argument("--lies", nargs="+", default=list(ATTACKS), choices=ATTACKS, help="only these")
    parser.add_argument("--report", action="store_true", help="only tables and picture")
    options = parser.parse_args()
    if not options.report:
        for limits in [options.limits] if options.limits else LIMITS:
            measure(limits, options.version, options.lies)
    if options.version == "after" and all(path(*each).exists() for each in product(LIMITS, VERSIONS)):
        report()


if __name__ == "__main__":
    main()
