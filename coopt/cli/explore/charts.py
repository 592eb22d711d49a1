"""The pictures of the page, as Vega-Lite specifications: what is drawn, in which unit, and in words.

Colours are those of Okabe and Ito, which stay apart for every common kind of colour blindness; shapes say the
same. Every chart has a description, which a screen reader reads in its place.
"""

from __future__ import annotations

from typing import Any

from coopt.plans.plot import CHOSEN, HELD

Rows = list[dict[str, Any]]
Chart = dict[str, Any]

# Okabe and Ito's blue, light enough for dark pages.
TIME = "#2786C2"
# One colour and one shape a phase.
PHASES = (CHOSEN, TIME, "#009E73")
SHAPES = ("circle", "square", "triangle-up")
# Above this many devices names no longer fit under the axis.
MOST_NAMES = 40
# The landscape shows what is up to this many times as large as its lowest point; above it all is one colour.
WORST_SHOWN = 30.0
# What is written with k and M for thousands and millions.
COUNTED = ("value", "samples", "batch")


def landscape(rows: Rows, plan: dict[str, int], quantity: str) -> Chart:
    """The error over rounds and local steps, and the plan."""
    seen = [row for row in rows if row["error"] is not None]
    best = min((row["error"] for row in seen), default=1.0)
    axes = {
        "x": _axis("local steps", "ordinal", "local steps per round"),
        "y": {**_axis("rounds", "ordinal", "rounds"), "sort": "descending"},
    }
    color = {
        "field": "error",
        "type": "quantitative",
        "title": quantity,
        "scale": {
            "type": "log",
            "scheme": "viridis",
            "reverse": True,
            "domain": [best, max(WORST_SHOWN * best, 1e-300)],
            "clamp": True,
        },
        "legend": {"format": ".2~g", "tickCount": 4},
    }
    tip = [_tip("rounds", ",d"), _tip("local steps", ",d"), _tip("error", ".4g", quantity)]
    return {
        "description": f"{quantity} over rounds and local steps, each with its best batch sizes. The "
        f"lowest, {best:.4g}, is the plan: {plan['rounds']} rounds of {plan['local steps']} local steps. "
        "Cells that are missing lie beyond the limits.",
        "height": 330,
        "layer": [
            {"data": {"values": seen}, "mark": "rect", "encoding": {**axes, "color": color, "tooltip": tip}},
            {
                "data": {"values": [plan]},
                "mark": {
                    "type": "point",
                    "shape": "diamond",
                    "size": 160,
                    "filled": True,
                    "color": CHOSEN,
                    "stroke": "white",
                    "strokeWidth": 2,
                    "opacity": 1,
                },
                "encoding": axes,
            },
        ],
    }


def batches(rows: Rows) -> Chart:
    """The batch of each device, between what it holds and what it finishes in time."""
    phases = len({row["phase"] for row in rows})
    devices = len(rows) // phases
    by_name = devices <= MOST_NAMES
    order = "device" if by_name else "place"
    if not by_name:
        rows = [
            {**row, "place": place // phases}
            for place, row in enumerate(sorted(rows, key=lambda row: (-row["batch"], row["phase"])))
        ]
    x: Chart = {
        **_axis(order, "ordinal", "device" if by_name else "devices, largest batch first"),
        "sort": None,
    }
    if not by_name:
        x["axis"] = {"labels": False, "ticks": False, "title": x["axis"]["title"]}
    caps = [
        {
            "device": row["device"],
            order: row[order],
            "samples": row[key],
            "cap": label,
        }
        for key, label in (("holds", "holds"), ("in time", "finishes in time"))
        for row in rows
        if row["phase"] == 1 and row[key] is not None and row[key] >= 1.0
    ]
    low, high = min(row["batch"] for row in rows), max(row["batch"] for row in rows)
    return {
        "description": f"Batch size of each of {devices} devices: {low} to {high} samples a step. Ticks show "
        "the most that a device holds, and the most that it finishes in time.",
        "height": 340,
        "layer": [
            {
                "data": {"values": caps},
                "mark": {"type": "tick", "thickness": 2, "orient": "horizontal"},
                "encoding": {
                    "x": x,
                    "y": _log("samples", "samples per local step"),
                    "color": {
                        "field": "cap",
                        "type": "nominal",
                        "title": "at most",
                        "scale": {"domain": ["holds", "finishes in time"], "range": [HELD, TIME]},
                        "legend": {"orient": "bottom"},
                    },
                    "tooltip": [_tip("device"), _tip("cap"), _tip("samples", ",.0f")],
                },
            },
            {
                "data": {"values": rows},
                "mark": {"type": "point", "filled": True, "size": 60 if by_name else 20, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": _log("batch", "samples per local step"),
                    **_by_phase(phases),
                    "tooltip": [_tip("device"), _tip("phase"), _tip("batch", ",d")],
                },
            },
        ],
        "resolve": {"scale": {"color": "independent"}},
    }


def _by_phase(phases: int) -> Chart:
    if phases == 1:
        return {"color": {"value": CHOSEN}}
    domain = list(range(1, phases + 1))
    legend = {"orient": "bottom"}
    return {
        "color": {
            "field": "phase",
            "type": "nominal",
            "scale": {"domain": domain, "range": list(PHASES[:phases])},
            "legend": legend,
        },
        "shape": {
            "field": "phase",
            "type": "nominal",
            "scale": {"domain": domain, "range": list(SHAPES[:phases])},
            "legend": None,
        },
    }


def curve(rows: Rows, quantity: str) -> Chart:
    """The error during training, over time, or over cost where no device takes any time."""
    over, label = ("time", "time [s]") if rows and rows[-1]["time"] > 0.0 else ("cost", "cost")
    ends = (rows[0]["error"], rows[-1]["error"]) if rows else (0.0, 0.0)
    return {
        "description": f"{quantity} over {label}: from {ends[0]:.4g} to {ends[1]:.4g}.",
        "height": 340,
        "layer": [
            {
                "data": {"values": rows},
                "mark": _line(18),
                "encoding": {
                    "x": _axis(over, "quantitative", label),
                    "y": _log("error", quantity),
                    "tooltip": [
                        _tip("round", ",d"),
                        _tip("time", ",.1f"),
                        _tip("cost", ",.0f"),
                        _tip("error", ".4g"),
                    ],
                },
            }
        ],
    }


def trade(rows: Rows, now: float, label: str, quantity: str) -> Chart:
    """The smallest error at each value of one limit, and where the slider stands."""
    ends = (rows[0], rows[-1]) if rows else ({"value": 0, "error": 0},) * 2
    return {
        "description": f"Smallest {quantity.lower()} over {label}: {ends[0]['error']:.4g} at "
        f"{ends[0]['value']:g}, {ends[1]['error']:.4g} at {ends[1]['value']:g}.",
        "height": 330,
        "layer": [
            {
                "data": {"values": rows},
                "mark": _line(40),
                "encoding": {
                    "x": _log("value", label),
                    "y": _log("error", f"smallest {quantity.lower()}"),
                    "tooltip": [_tip("value", ",.4~g", label), _tip("error", ".4g", quantity)],
                },
            },
            {
                "data": {"values": [{"value": now}]},
                "mark": {"type": "rule", "color": CHOSEN, "strokeWidth": 2, "strokeDash": [6, 4]},
                "encoding": {"x": _log("value", label)},
            },
        ],
    }


def _line(point: int) -> Chart:
    """A line with a point of this size at every row."""
    return {"type": "line", "color": TIME, "strokeWidth": 2.5, "point": {"color": TIME, "size": point}}


def _axis(field: str, kind: str, title: str) -> Chart:
    return {
        "field": field,
        "type": kind,
        "axis": {"title": title, "labelAngle": -45 if field == "device" else 0},
    }


def _log(field: str, title: str) -> Chart:
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"type": "log", "nice": False},
        "axis": {"title": title, "format": "~s" if field in COUNTED else "~g", "tickCount": 5},
    }


def _tip(field: str, form: str | None = None, title: str | None = None) -> Chart:
    tip: Chart = {"field": field, "title": title or field}
    if form is None:
        return {**tip, "type": "nominal"}
    return {**tip, "type": "quantitative", "format": form}
