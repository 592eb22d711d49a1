"""The comparison with every baseline at a glance, from headline.csv: small tables, a picture, and the goals.

python -m benchmarks.federated.headline_summary        # a second; `headline` runs it too
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.tables import Row, save
from coopt.plans.plot import CHOSEN, HELD, INK

RESULTS = Path(__file__).parent / "results"
KINDS = {"given": "given rate", "free": "free rates"}
HINDSIGHT = "in hindsight"
# What the DYNAMITE paper reports at most, against its own baselines.
PAPER = {"points more": 8.4, "time saved, %": 59.6, "cost saved, %": 58.0}


def summarise(folder: Path) -> None:
    """Write the leads by federation, what became of the goals, and the picture."""
    rows = tables.read(folder / "headline.csv")
    save("headline_summary", _leads(rows), folder)
    save("headline_goals", _goals(rows), folder)
    _draw(rows, folder)


def _pair(text: str) -> tuple[float, float]:
    """Mean and half width of an interval."""
    mean, _, half = text.partition(" ± ")
    return float(mean), float(half or 0.0)


def _accuracy(row: dict[str, str]) -> float:
    return _pair(row["accuracy, %"])[0]


def _cases(rows: list[dict[str, str]]) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Rows by federation and limits."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["federation"], row["limits"]), []).append(row)
    return found


def _leads(rows: list[dict[str, str]]) -> list[Row]:
    """One row a federation and limits: coopt's accuracy, and its lead over the strongest of the others."""
    table: list[Row] = []
    for (where, limits), group in _cases(rows).items():
        by_name = {row["method"]: row for row in group}
        tuned = [row for row in group if row["given: points more"] and HINDSIGHT not in row["method"]]
        best = max(tuned, key=_accuracy)
        fixed = [row for row in group if HINDSIGHT in row["method"]]
        row: Row = {"federation": where, "limits": limits}
        row |= {f"coopt, {text}, %": by_name[f"coopt, {text}"]["accuracy, %"] for text in KINDS.values()}
        row |= {"best tuned baseline": best["method"]}
        row |= {f"{text}: lead over it": best[f"{kind}: points more"] for kind, text in KINDS.items()}
        row |= {
            f"{text}: lead over fixed, capped, in hindsight": each[f"{kind}: points more"]
            for (kind, text), each in zip(KINDS.items(), fixed, strict=True)
        }
        table.append(row)
    return table


def _goals(rows: list[dict[str, str]]) -> list[Row]:
    """What was aimed at, and what came of it, with the rate given and with free rates."""
    tuned = [row for row in rows if row["given: points more"] and HINDSIGHT not in row["method"]]
    fixed = [row for row in rows if HINDSIGHT in row["method"]]
    wanted: dict[str, Row] = {}

    def put(goal: str, kind: str, value: str) -> None:
        wanted.setdefault(goal, {"goal": goal})[KINDS[kind]] = value

    for kind in KINDS:
        leads = np.array([_pair(row[f"{kind}: points more"]) for row in tuned])
        low = leads[:, 0] - leads[:, 1]
        worst = tuned[int(np.argmin(low))]
        put(
            "lower end of the interval to every tuned baseline at least -0.5 points",
            kind,
            f"{int(np.sum(low >= -0.5))} of {len(low)}; lowest {low.min():.1f} "
            f"({worst['method']}, {worst['federation']}, {worst['limits']})",
        )
        put("mean lead over tuned baselines at least 2 points", kind, f"{leads[:, 0].mean():+.1f}")
        # The rate of the plan in hindsight is free where coopt's is.
        judged = [row for row in fixed if row["method"].endswith("any rate") == (kind == "free")]
        behind = np.array([_pair(row[f"{kind}: points more"])[0] for row in judged])
        place = judged[int(np.argmin(behind))]
        put(
            "lead over the capped fixed plan in hindsight at least -1 point",
            kind,
            f"{int(np.sum(behind >= -1.0))} of {len(behind)}; lowest {behind.min():.1f} "
            f"({place['federation']}, {place['limits']}), mean {behind.mean():+.1f}",
        )
        saved = np.array([_pair(row[f"{kind}: time saved, %"])[0] for row in tuned])
        put(
            "half the time to the accuracy of every tuned baseline",
            kind,
            f"{int(np.sum(saved >= 50))} of {len(saved)}; median {np.median(saved):.0f} % saved",
        )
        for column, figure in PAPER.items():
            values = np.array([_pair(row[f"{kind}: {column}"])[0] for row in tuned])
            put(
                f"{column.removesuffix(', %')}: above {figure} in half of the cases",
                kind,
                f"{int(np.sum(values > figure))} of {len(values)}; largest {values.max():.1f}",
            )
    return list(wanted.values())


def _draw(rows: list[dict[str, str]], folder: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = _cases([row for row in rows if row["given: points more"]])
    places = list(dict.fromkeys(where for where, _ in cases))
    levels = list(dict.fromkeys(limits for _, limits in cases))
    methods = list(dict.fromkeys(row["method"] for row in rows if row["given: points more"]))
    figure = Figure(figsize=(1.0 + 2.2 * len(places), 3.6 * len(levels)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(levels), len(places), sharey=True, sharex="col", squeeze=False)
    for line, limits in zip(panels, levels, strict=True):
        for axes, where in zip(line, places, strict=True):
            if (where, limits) not in cases:
                axes.set_axis_off()
                continue
            for kind, colour, marker, up in (("given", HELD, "o", -0.12), ("free", CHOSEN, "D", 0.12)):
                there = {row["method"]: row for row in cases[where, limits]}
                shown = [name for name in methods if name in there]
                values = np.array([_pair(there[name][f"{kind}: points more"]) for name in shown])
                axes.errorbar(
                    values[:, 0],
                    [len(methods) - methods.index(name) + up for name in shown],
                    xerr=values[:, 1],
                    fmt=marker,
                    color=colour,
                    markersize=4,
                    linewidth=1,
                    label=f"coopt, {KINDS[kind]}",
                )
            axes.axvline(0.0, color=INK, linewidth=0.8)
            axes.set_title(f"{where}\nlimits {limits}", fontsize=8, color=INK)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_yticks(range(len(methods), 0, -1), methods, fontsize=7)
            axes.tick_params(labelsize=7)
    figure.supxlabel("by how many points coopt is more accurate (95 % intervals over seeds)", fontsize=9)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    figure.savefig(folder / "headline_summary.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    summarise(RESULTS)
