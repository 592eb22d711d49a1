"""How long a move of a slider takes: coopt's part, and until the number in the page has changed.

    python -m benchmarks.explore.moves        # four minutes; needs Debian's chromium

A hundred devices. Each move is to a position that was not looked at before, with the page at rest. coopt's
part is measured in seconds on the clock and of one processor: they differ where others use the machine. Of
plans in several phases the page shows one near the last at once, and the best when it is found.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.explore.served import NUMBER, chromium, measured_files, opened, served, settled
from coopt.cli.explore import what_if
from coopt.cli.explore.open_case import open_case
from coopt.cli.explore.what_if import Case, Setting

RESULTS = Path(__file__).parent / "results"
DEVICES, MOVES = 100, 8


def computed(case: Case, phases: int, *, first: bool = False) -> tuple[list[float], list[float], list[float]]:
    """Seconds on the clock and of the processor of the plan for each position of the budget, and its error.

    Of the first plan that is shown, near the best one of the position before; or of the best one.
    """
    clock, processor, errors, near = [], [], [], None
    costs = what_if.choices(case).cost
    for cost in costs[2 : 4 + 2 * MOVES : 2]:
        setting: Setting = replace(what_if.start(case), cost=cost, phases=phases)
        begun, used = time.perf_counter(), time.process_time()
        plan = what_if.solve(case, setting, near=near).plan
        clock.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
        errors.append(plan.predicted_error)
        if first:
            near = what_if.solve(case, setting).plan
    return clock[1:], processor[1:], errors[1:]


def pressed(page, moves: int) -> list[float]:
    """Seconds from the key until the number has changed."""
    slider, taken = page.get_by_role("slider", name="Budget (cost)"), []
    for _ in range(moves):
        before = page.locator(NUMBER).first.inner_text()
        slider.focus()
        begun = time.perf_counter()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "([where, old]) => (document.querySelector(where)?.innerText ?? old) !== old",
            arg=[NUMBER, before],
            polling=5,
        )
        taken.append(time.perf_counter() - begun)
        settled(page)
        # The plan after a move is looked for once all that the last one asked for is there.
        page.wait_for_timeout(2500)
    return taken


def with_phases(page, phases: int):
    """The page once its slider says so many phases."""
    page.get_by_role("slider", name="Phases").focus()
    for _ in range(phases - 1):
        page.keyboard.press("ArrowRight")
    page.get_by_text("For the best plan in one phase.").first.wait_for()
    settled(page)
    return page


def cells(values: list[float]) -> str:
    return f"{1e3 * statistics.median(values):.0f} | {1e3 * max(values):.0f}"


def main() -> None:
    notes: list[str] = []
    lines = [
        f"# How long a move of a slider takes, with {DEVICES} devices",
        "",
        f"Milliseconds, {MOVES} moves of the budget each; load when it began: {os.getloadavg()[0]:.1f}.",
        "",
        "| plans are judged by | processor | worst | clock | worst | in the page | worst |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        fleet, job, measurement = (str(path) for path in measured_files(Path(name), DEVICES))
        for label, more in (("the certified bound", []), ("a forecast", ["--measurement", measurement])):
            case = open_case(fleet, job, "certified", *more[1:])
            clock, processor, _ = computed(case, 1)
            with served(fleet, job, *more) as address:
                seen = pressed(opened(browser, address), MOVES)
            lines.append(f"| {label} | {cells(processor)} | {cells(clock)} | {cells(seen)} |")
        for phases in (2, 3):
            clock, processor, shown = computed(case, phases, first=True)
            with served(fleet, job, "--measurement", measurement) as address:
                seen = pressed(with_phases(opened(browser, address), phases), MOVES)
            lines.append(
                f"| the first of {phases} phases | {cells(processor)} | {cells(clock)} | {cells(seen)} |"
            )
            clock, processor, best = computed(case, phases)
            lines.append(f"| the best of {phases} phases | {cells(processor)} | {cells(clock)} | | |")
            above = [one / other for one, other in zip(shown, best, strict=True)]
            notes.append(f"{phases} phases {statistics.median(above):.4f} times, {max(above):.3f} at most")
    lines += ["", f"The error of what is shown first, over that of the best found: {'; '.join(notes)}."]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "moves.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
