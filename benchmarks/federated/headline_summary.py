"""The comparison with every baseline at a glance: a small table and a picture, from headline.csv.

python -m benchmarks.federated.headline_summary        # a second; `headline` runs it too
"""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.theory.report import Row, save
from coopt.plans.plot import CHOSEN, HELD, INK

RESULTS = Path(__file__).parent / "results"
AHEAD = "ours, points more"


def summarise(folder: Path) -> list[Row]:
    """One row a method at its best setting: coopt's lead in points on each federation."""
    with (folder / "headline.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row[AHEAD]]
    places = list(dict.fromkeys(row["instance"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["instance"], row["method"], row["setting"].startswith("tuned")): row[AHEAD] for row in rows}
    table: list[Row] = [
        {"coopt against": method, **{place: found.get((place, method, True), "") for place in places}}
        for method in methods
    ]
    save("headline_summary", table, folder)
    _draw(found, places, methods, folder)
    return table


def _draw(
    found: dict[tuple[str, str, bool], str], places: list[str], methods: list[str], folder: Path
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, place in zip(
        figure.subplots(1, len(places), sharey=True, squeeze=False)[0], places, strict=True
    ):
        for tuned, colour, marker in ((False, HELD, "o"), (True, CHOSEN, "D")):
            height = [len(methods) - n + (0.12 if tuned else -0.12) for n in range(len(methods))]
            ahead, spread = zip(
                *(map(float, found[place, method, tuned].split(" ± ")) for method in methods), strict=True
            )
            axes.errorbar(
                ahead,
                height,
                xerr=spread,
                fmt=marker,
                color=colour,
                markersize=5,
                linewidth=1,
                label="at its best setting" if tuned else "as it comes",
            )
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.set_title(place, fontsize=9, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(methods), 0, -1), methods, fontsize=8)
        axes.tick_params(labelsize=8)
    figure.supxlabel("by how many points coopt is more accurate (95 % intervals over seeds)", fontsize=9)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=8
    )
    figure.savefig(folder / "headline_summary.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    summarise(RESULTS)
