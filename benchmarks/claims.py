"""Write numbers of the README and of the documentation from the files that the measurements left.

    python -m benchmarks.claims

A row of the README's table is known by its question, a paragraph of a page by the comment before it, such as
``% written by benchmarks.claims: kills``. The tests fail where a text and its files differ.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).resolve().parent.parent
README, PAGES = ROOT / "README.md", ROOT / "docs/explanation"
WIDTH = 130  # of a line of a page


def rows(path: str) -> list[dict[str, str]]:
    return tables.read(ROOT / "benchmarks" / path)


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def points(row: dict[str, str], column: str) -> float:
    """The mean of a cell that holds a mean and its interval."""
    return float(row[column].split()[0])


def headline() -> str:
    table = rows("federated/results/headline_summary.csv")
    lead = {
        limits: [points(row, "free rates: lead over it") for row in table if row["limits"] == limits]
        for limits in ("1x", "1/4")
    }
    return (
        f"On {len(lead['1x'])} federations, nothing of coopt tuned, its rates free, beside the best tuned "
        f"baseline: {span(lead['1x'])} at full limits, {span(lead['1/4'])} at a quarter of them "
        "([at a glance](benchmarks/federated/results/headline_summary.md), "
        "[table](benchmarks/federated/results/headline.md), "
        "[what it means](docs/explanation/federated-results.md))"
    )


def span(leads: list[float]) -> str:
    """Points of accuracy from the worst to the best, in words."""
    low, high = min(leads), max(leads)
    if low >= 0:
        return f"{low:.1f} to {high:.1f} points more accurate"
    if high > 0:
        return f"from {-low:.1f} points behind to {high:.1f} ahead"
    return f"{-high:.1f} to {-low:.1f} points behind"


def trainer() -> str:
    table = rows("federated/results/trainer_speed.csv")
    speeds = {row["contender"]: int(row["median"]) for row in table if row["clients"] == "100"}
    ours = speeds["coopt, vectorised, measuring"]
    return (
        f"[{ours:,} clients' rounds a second](benchmarks/federated/results/trainer_speed.md) of a small "
        f"model, where a plain loop does {speeds['plain torch loop']:,} and pfl-research "
        f"{speeds['pfl-research 0.6']:,}, on one core"
    )


def validity() -> str:
    table = rows("theory/results/validity.csv")
    ours = [row for row in table if not row["bound"].startswith(("published", "AdaCoOpt"))]
    violated = sum(int(row["violations"]) for row in ours)
    said = "no violation of ours" if not violated else f"{violated} violations of ours"
    return (
        f"[Table](benchmarks/theory/results/validity.md) over {int(table[0]['instances']):,} problems: {said}"
    )


def closed_loop() -> str:
    text = (ROOT / "benchmarks/online/results/closed_loop.md").read_text(encoding="utf-8")
    median = re.search(r"^\| horizon \| default \| ([\d.]+) ", text, re.MULTILINE)
    assert median is not None
    return (
        f"Median error {median[1]} times that of the best fixed plan in hindsight, [on simulated "
        "training](benchmarks/online/results/closed_loop.md)"
    )


def counterexample() -> str:
    ratios = [float(row["true / published"]) for row in rows("theory/results/counterexample.csv")]
    return f"By a factor of up to {max(ratios):.0f} on a constructed case, where the certified bound holds"


def soak() -> str:
    text = (ROOT / "benchmarks/online/results/soak.md").read_text(encoding="utf-8")
    rounds = re.search(r"^(\d+) rounds with (\d+) devices", text, re.MULTILINE)
    assert rounds is not None and "No crash, nothing overspent" in text
    return (
        f"{int(rounds[1]):,} rounds with {rounds[2]} devices that leave, come back, hang, answer NaN and do "
        "half: [no crash, nothing overspent](benchmarks/online/results/soak.md)"
    )


def attack_rows(limits: str) -> list[dict[str, str]]:
    return rows(f"online/results/attacks_{limits}_after.csv")


def gaps(limits: str) -> dict[str, float]:
    """By lie, the gap over that of the honest run, geometric mean; checks what is promised of every run."""
    found: dict[str, list[float]] = {}
    for row in attack_rows(limits):
        assert float(row["cost"]) <= 1.0
        found.setdefault(row["attack"], []).append(float(row["gap"]))
    honest = geometric_mean(found.pop("none"))
    return {lie: geometric_mean(each) / honest for lie, each in found.items()}


def lies() -> str:
    both, clock = gaps("both"), gaps("time")
    return f"""
        [{len(both)} kinds of lies](benchmarks/online/results/attacks.md): the gap at most
        {max(both.values()):.2f} times that of an honest run under limits on cost and time,
        {max(clock.values()):.2f} under one on time alone; no cost above the budget
    """


def kills() -> str:
    loops = {row["loop"]: row for row in rows("online/results/kills.csv")}
    assert all(row["overruns"] == "0" and row["as_expected"] == row["trainings"] for row in loops.values())
    return f"""
        [{loops["torch"]["killed"]} kills](benchmarks/online/results/kills.csv) of training in torch and
        {loops["flower"]["killed"]} in Flower: every run went on, none overspent ([what is
        promised](docs/explanation/promises.md))
    """


def fuzzing() -> str:
    table = rows("fuzz/results/executions.csv")
    executions, crashes = (sum(int(row[name]) for row in table) for name in ("executions", "crashes"))
    return f"""
        `make fuzz` feeds readers with inputs that [atheris](https://github.com/google/atheris) mutates
        by the branches that they take: {executions / 1e6:.2f} million so far, of which {crashes} ended
        in anything but an answer or a refusal. It goes on where it ended:
    """


def long_run() -> str:
    rounds = int(rows("online/results/long_run.csv")[-1]["rounds"])
    return f"""
        `python -m benchmarks.online.long_run` lets a controller plan for 1,000 clients that come and
        go, and keeps an account of its own, in rational numbers: {rounds:,} rounds so far, going on
        from the controller's own checkpoint. Medians of processor milliseconds of the last 1,000
        rounds, the largest memory of the process so far, and by how much the controller's cost differs
        from the exact one:
    """


def clients_lie() -> str:
    told = {
        row["lie"]: float(row["loss over the honest plan"])
        for row in rows("online/results/lying_answers.csv")
    }
    del told["none"]
    worst = max(told, key=lambda lie: told[lie])
    far, named = (
        sum(float(row[name]) for limits in ("both", "time") for row in attack_rows(limits))
        for name in ("far", "far_named")
    )
    gap = max(max(gaps(limits).values()) for limits in ("both", "time"))
    return f"""
        A fifth of thirty clients, {len(gaps("both"))} lies in training and {len(told)} in a
        measurement, ten seeds: [what a lying client can do](lying-clients.md) has the tables and the
        bounds. In training the gap is at most {gap:.2f} times the honest one on average, and
        {named / far:.1%} of the lies beyond three robust deviations are named. In a measurement the
        worst lie, {worst}, leaves {told[worst]:.2f} times the loss of the honest plan on average.
    """


def attacks() -> str:
    all_rows = [row for limits in ("both", "time") for row in attack_rows(limits)]
    cost = max(float(row["cost"]) for row in all_rows)
    honest: dict[int, list[float]] = {}
    for place, row in enumerate(all_rows):  # ten seeds of a lie stand together
        honest.setdefault(place // 10, []).append(float(row["honest_named"]))
    named = max(sum(each) / len(each) for each in honest.values())
    assert named <= 0.01
    return f"""
        `benchmarks/online/attacks.py`: {len(gaps("both"))} lies, told by six of thirty devices in every
        round, ten seeds, under limits on cost and on time that both bind, and under one on time alone.
        The aim is a gap of at most twice that of the honest run, a true cost of at most 1.02 of the
        budget, liars beyond three robust deviations named, and honest devices named in at most 1 % of
        rounds. The worst found: a gap of {max(gaps("both").values()):.2f} and
        {max(gaps("time").values()):.2f}, a cost of {cost:.3f}, and honest devices named in {named:.2%}
        of rounds on average ({max(map(max, honest.values())):.2%} in one run). The losses are
        quadratic, with curvatures, optima, noise and speeds of their own, so the expected gap of the
        plans is computed and not sampled; what a round costs and how long it takes is added up by the
        server.
    """


def answers() -> str:
    table = rows("online/results/honest_answers.csv")
    lost = sum(int(value) for row in table for name, value in row.items() if "after" in name)
    total = sum(int(row["answers"]) for row in table)
    phones = rows("online/results/honest_shares.csv")
    return f"""
        Of {total:,} honest answers on digits of one class, two classes, Dirichlet .3 and evenly dealt,
        before training, after 3, 30 and 200 rounds, for softmax and a network of one hidden layer,
        {lost} would be left out; and of {sum(int(row["devices"]) for row in phones):,} phones and
        links, {sum(int(row["named"]) for row in phones)} would be named for their speed and the share
        of their time that they compute (`python -m benchmarks.online.honest_answers`).
    """


ANSWERS: dict[str, Callable[[], str]] = {
    "And on real data, in torch?": headline,
    "How fast does the torch trainer simulate clients?": trainer,
    "How valid and how tight are the bounds?": validity,
    "Does planning anew each round pay?": closed_loop,
    "Does the controller bear what devices do?": soak,
    "What can a fifth of lying clients do?": lies,
    "What survives a killed server?": kills,
    "Can a published bound lie below the true error?": counterexample,
}


PARAGRAPHS: dict[str, dict[str, Callable[[], str]]] = {
    "promises.md": {"fuzzing": fuzzing, "long run": long_run, "lies": clients_lie},
    "lying-clients.md": {"honest answers": answers, "attacks": attacks},
}
MARK = "% written by benchmarks.claims: "


def one_line(text: str) -> str:
    return " ".join(text.split())


def written_page(text: str, paragraphs: dict[str, Callable[[], str]]) -> str:
    """A page whose marked paragraphs are as their files have them."""
    for name, paragraph in paragraphs.items():
        mark = f"{MARK}{name}\n"
        assert text.count(mark) == 1, f"a page lacks the paragraph {name!r}"
        before, after = text.split(mark)
        _, end, rest = after.partition("\n\n")
        filled = textwrap.fill(one_line(paragraph()), WIDTH, break_long_words=False, break_on_hyphens=False)
        text = before + mark + filled + end + rest
    return text


def written(text: str) -> str:
    """The README with every row that is known as its files have it."""
    lines = text.split("\n")
    for place, line in enumerate(lines):
        cells = line.split(" | ")
        if len(cells) == 3 and (answer := ANSWERS.get(cells[0].removeprefix("| "))):
            lines[place] = " | ".join([cells[0], one_line(answer()), cells[2]])
    start = json.loads((ROOT / "benchmarks/startup/results/startup.json").read_text(encoding="utf-8"))
    import_seconds = start["differences"]["import coopt, beyond python"]
    return re.sub(r"\[\d+ ms\]", f"[{1000 * import_seconds:.0f} ms]", "\n".join(lines))


def main() -> None:
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    for name, paragraphs in PARAGRAPHS.items():
        page = PAGES / name
        page.write_text(written_page(page.read_text(encoding="utf-8"), paragraphs), encoding="utf-8")


if __name__ == "__main__":
    main()
