"""The page itself, which Streamlit runs from top to bottom after every move of a slider.

The plan comes first, and all that follows from it at once. What takes longer (the landscape, the trade-offs,
what a little more of each limit buys) comes after it, and is dropped where a slider moves again meanwhile.
Plans in several phases take longer too: one near the plan before is shown until the best is found.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from coopt.cli.explore import charts, shown_rows, take_away, what_if
from coopt.cli.explore.open_case import open_case
from coopt.cli.explore.what_if import Answer, Case, Choices, Setting
from coopt.errors import CooptError
from coopt.plans.allocation import Allocation

# Fleets above this many devices have no list to leave some out by.
MOST_LISTED = 1000
KEPT = 256
# Seconds between two words about a search.
TOLD_EVERY = 0.2
SEARCHING = "A first plan, near the one before. Looking for the best ..."
# Less room above the title, headings that fit beside one another, and digits that do not jump.
STYLE = """<style>
.block-container { padding-top: 2.5rem }
.block-container h1 { font-size: 1.8rem; padding: 0 }
.block-container h3 { font-size: 1.05rem }
[data-testid=stMetricValue] { font-size: 1.7rem; font-variant-numeric: tabular-nums }
</style>"""


@st.cache_resource(max_entries=1, show_spinner=False)
def opened(arguments: tuple[str, ...]) -> tuple[Case, Choices]:
    """What the command named, read once."""
    case = open_case(*arguments)
    return case, what_if.choices(case)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def solved(_case: Case, setting: Setting) -> Answer:
    """The plan for a setting; settings that were looked at before are remembered."""
    return what_if.solve(_case, setting)


def answered(case: Case, setting: Setting) -> tuple[Answer, bool]:
    """The plan to show, and whether it is the best one: a search for phases takes longer than a move."""
    if setting.phases == 1:
        return solved(case, setting), True
    best = st.session_state.setdefault("phased", {})
    if setting in best:
        return best[setting], True
    near = st.session_state.get("plan") or solved(case, what_if.start(case)).plan
    return what_if.solve(case, setting, near=near), False


def refine(case: Case, setting: Setting, place: DeltaGenerator) -> None:
    """Look for the best plan in phases, and draw the page again with it.

    Each word about how far it is lets Streamlit drop the search where a slider has moved meanwhile.
    """
    told = time.monotonic()
    place.caption(SEARCHING)

    def tell(compared: int) -> None:
        nonlocal told
        if time.monotonic() - told > TOLD_EVERY:
            place.caption(f"{SEARCHING} {compared:,} compared")
            told = time.monotonic()

    best = what_if.solve(case, setting, progress=tell)
    known = st.session_state["phased"]
    known[setting] = best
    if len(known) > KEPT:
        del known[next(iter(known))]
    st.rerun()


def patiently(key: tuple[Any, ...], steps: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows that take a while, remembered for the session.

    Each step says how far it is, which is also when Streamlit drops what a new move makes stale.
    """
    known: dict[tuple[Any, ...], list[dict[str, Any]]] = st.session_state.setdefault("known", {})
    if key not in known:
        place, rows = st.empty(), []
        for count, more in enumerate(steps, start=1):
            rows += more
            place.caption(f"computing ... {count}")
        place.empty()
        known[key] = rows
        if len(known) > KEPT:
            del known[next(iter(known))]
    return known[key]


def number(value: float) -> str:
    """A number as people read it: four digits, thousands apart."""
    if math.isinf(value):
        return "no limit"
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that they fill."""
    if math.isinf(seconds):
        return "no limit"
    if seconds < 60.0:
        return f"{seconds:.4g} s"
    parts, left = [], round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="coopt: what if?", layout="wide", menu_items={})
    st.html(STYLE)
    st.title("What if?", anchor=False)
    try:
        case, ranges = opened(tuple(sys.argv[1:]))
    except CooptError as error:
        st.error(str(error))
        return
    head = st.container()
    left, right = st.columns([1, 3], gap="large")
    with left:
        setting = controls(case, ranges)
    try:
        answer, last = answered(case, setting)
    except CooptError as error:
        head.error(f"No plan: {error}")
        return
    plan = st.session_state["plan"] = answer.plan
    quantity = "Forecast error" if case.forecast else "Error bound"
    with head:
        headline(case, setting, answer, quantity)
        place = st.empty()
    with right:
        first, second = st.columns(2, gap="medium")
        with first:
            st.subheader("Batch size of each device", anchor=False)
            draw(charts.batches(shown_rows.batch_rows(case, setting, plan)))
        with second:
            st.subheader(f"{quantity} while training", anchor=False)
            draw(charts.curve(shown_rows.curve_rows(plan), quantity))
    if not last:
        refine(case, setting, place)
    buys = st.container()
    third, fourth, fifth = st.columns(3, gap="medium")
    export(case, setting, answer)
    # From here on everything takes longer than a move of a slider should.
    alone = replace(setting, phases=1)
    best = solved(case, alone).plan
    if not isinstance(best, Allocation):
        return
    note = "For the best plan in one phase." if setting.phases > 1 else ""
    with buys:
        limits(case, alone, plan, best)
    with third:
        st.subheader("Why these rounds and local steps", anchor=False)
        rows = patiently(("landscape", alone), shown_rows.landscape_rows(best))
        draw(charts.landscape(rows, {"rounds": best.rounds, "local steps": best.local_steps}, quantity))
        st.caption(note)
    # A trade-off is the same whatever the slider that varies stands at.
    for column, vary, now, positions, label, elsewhere in (
        (fourth, "cost", setting.cost, ranges.cost, "cost", replace(alone, cost=ranges.cost[-1])),
        (fifth, "time", setting.time, ranges.time, "deadline [s]", replace(alone, time=ranges.time[-1])),
    ):
        if len(positions) > 1:
            with column:
                st.subheader(f"What more {vary} would buy", anchor=False)
                rows = patiently((vary, elsewhere), shown_rows.trade_rows(case, elsewhere, vary, positions))
                draw(charts.trade(rows, now, label, quantity))
                st.caption(note)


def controls(case: Case, ranges: Choices) -> Setting:
    """The sliders, and where they stand."""
    now = what_if.start(case)
    st.subheader("Change", anchor=False)
    cost = slide("Budget (cost)", ranges.cost, now.cost, number)
    time = slide("Deadline", ranges.time, now.time, duration)
    rate = slide("Learning rate", ranges.learning_rate, now.learning_rate, number)
    phases = slide("Phases", ranges.phases, now.phases, str)
    left_out: list[int] = []
    if 1 < len(case.names) <= MOST_LISTED:
        left_out = st.multiselect(
            "Devices left out",
            range(len(case.names)),
            format_func=lambda place: case.names[place],
            placeholder="all take part",
        )
    return Setting(cost, time, rate, phases, tuple(sorted(left_out)))


def slide(label: str, positions: tuple[Any, ...], now: Any, form: Any) -> Any:
    """A slider over the positions; the only position, where there is but one."""
    if len(positions) == 1:
        return positions[0]
    return st.select_slider(label, positions, value=now, format_func=form)


def headline(case: Case, setting: Setting, answer: Answer, quantity: str) -> None:
    """The numbers that a move of a slider is about."""
    plan = answer.plan
    base = solved(case, what_if.start(case)).plan if setting != what_if.start(case) else plan
    change = plan.predicted_error / base.predicted_error - 1.0 if base.predicted_error else 0.0
    phases = shown_rows.phase_rows(plan)
    low = min(phase["smallest batch"] for phase in phases)
    high = max(phase["largest batch"] for phase in phases)
    # A row that wraps, so that narrow screens show several numbers side by side.
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            quantity,
            f"{plan.predicted_error:.4g}",
            delta=f"{change:+.1%} against the job" if plan is not base else None,
            delta_color="inverse",
            width="content",
        )
        for label, value in (
            ("Rounds", " + ".join(f"{phase['rounds']:,}" for phase in phases)),
            ("Local steps", ", ".join(f"{phase['local steps']:,}" for phase in phases)),
            ("Batch sizes", f"{low:,}" if low == high else f"{low:,} to {high:,}"),
            ("Cost", number(plan.cost)),
            ("Time", duration(plan.time)),
        ):
            st.metric(label, value, width="content")
    for caution in answer.cautions:
        st.warning(caution)


def limits(case: Case, setting: Setting, plan: Any, best: Allocation) -> None:
    """What binds, and what one more unit buys."""
    st.subheader("What binds, and what one more unit buys", anchor=False)
    bought = patiently(("more", setting), shown_rows.more_rows(best, what_if.judge_of(case, setting)))
    more = {row["limit"]: row for row in bought}
    table = []
    for used, row in zip(shown_rows.limit_rows(plan), shown_rows.limit_rows(best), strict=False):
        name = row["limit"]
        form = duration if name == "time" else number
        loosened = more.get(name)
        table.append(
            {
                "limit": name,
                "used": "" if used["used"] is None else form(used["used"]),
                "of": "" if row["allowed"] is None else form(row["allowed"]),
                "binds": "yes" if row["binds"] else "no",
                "one more unit lowers the error by": "" if row["price"] is None else f"{row['price']:.3g}",
                "1 % more lowers it by": "" if loosened is None else f"{loosened['share']:.3%}",
            }
        )
    st.table(table)
    st.caption(
        "One more unit: of cost, or one second, at these rounds and local steps. One per cent more is solved "
        "for anew." + (" Both for the best plan in one phase." if plan is not best else "")
    )


def export(case: Case, setting: Setting, answer: Answer) -> None:
    """Files, and the lines of Python that give the same plan."""
    st.subheader("Take it with you", anchor=False)
    plan = answer.plan
    files = (
        ("Plan (JSON)", "plan.json", "application/json", plan.to_json()),
        ("Batches (CSV)", "plan.csv", "text/csv", take_away.plan_csv(case, setting, plan)),
        ("Problem (TOML)", "problem.toml", "application/toml", take_away.problem_toml(plan.problem)),
    )
    for column, (label, name, kind, text) in zip(st.columns(3), files, strict=True):
        column.download_button(label, text, name, kind, on_click="ignore", width="stretch")
    st.caption("Python that gives this plan:")
    st.code(take_away.python_lines(case, setting), language="python")


def draw(chart: dict[str, Any]) -> None:
    """A chart as wide as its column."""
    st.vega_lite_chart(chart, width="stretch")


if __name__ == "__main__":
    main()
