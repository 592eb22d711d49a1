"""Write docs/reference/schemas: JSON Schemas of the files that coopt reads and writes.

    python tools/write_schemas.py

Fields, types, units and meanings are those of the docstrings, so that one change there changes both.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from numpydoc.docscrape import ClassDoc

from coopt import Allocation, Budget, ClientReport, Fleet, Phase, Schedule, Status
from coopt.measuring.report import HalfBatches, SameBatchPair
from coopt.problem.files import SECTIONS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

NUMBER, INTEGER, TEXT, FLAG = {"type": "number"}, {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
# Amounts with units: "90s", "1h 30min"; "2 kWh"; "5 epochs".
WITH_UNITS = {"type": ["number", "string"]}
# What JSON has no number for.
REPORTED = {"anyOf": [NUMBER, {"enum": ["nan", "inf", "-inf"]}]}


def documented(part: type) -> dict[str, tuple[str, str]]:
    """Type and meaning of each field, as the docstring has them."""
    text = ClassDoc(part, config={"show_class_members": False})
    return {
        name: (entry.type, " ".join(line.strip() for line in entry.desc).replace("``", ""))
        for entry in (*text["Parameters"], *text["Attributes"])
        for name in entry.name.split(", ")
    }


def kind(text: str) -> Schema:
    """The schema of one field of a problem, from the type that its docstring gives."""
    if text.startswith("sequence of str"):
        return listed(TEXT)
    if text.startswith("sequence of int"):
        return {"type": "array", "items": {"anyOf": [INTEGER, listed(INTEGER)]}}
    if "array_like" in text:
        one = INTEGER if "of int" in text else NUMBER
        return {"anyOf": [one, listed(one)]} if "scalar" in text else listed(one)
    return FLAG if text.startswith("bool") else INTEGER if text.startswith("int") else NUMBER


def listed(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def table(part: type, about: str, changed: Schema | None = None) -> Schema:
    """The schema of one of the parts of a problem, or of another dataclass that a file spells out."""
    known = documented(part)
    own = {
        field.name: {**kind(known[field.name][0]), "description": known[field.name][1]}
        for field in fields(part)
        if not field.name.startswith("_")
    }
    for name, schema in (changed or {}).items():
        own[name] = {**schema, "description": own[name]["description"]}
    needed = [
        name
        for field in fields(part)
        if (name := field.name) in own and field.default is MISSING and field.default_factory is MISSING
    ]
    return closed(own, needed, about)


def closed(properties: Schema, needed: list[str], about: str) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "description": about,
        "properties": properties,
        "required": needed,
        "additionalProperties": False,
    }


def parts() -> Schema:
    """The tables of constants and of the budget."""
    texts = {"constants": "What is known of the loss.", "budget": "What may be spent."}
    units = {"cost": WITH_UNITS, "time": WITH_UNITS, "energy": WITH_UNITS}
    return {
        name: table(part, texts[name], units if part is Budget else None) for name, part in SECTIONS.items()
    }


def fleet_table() -> Schema:
    """The table of a fleet."""
    made = table(Fleet, "The devices. A single number stands for all of them.")
    made["required"] = ["samples", "gradient_noise", "divergence"]
    return made


def whole_problem(*, from_file: bool) -> Schema:
    """A problem with its fleet; one in a TOML file may name the CSV file of its fleet."""
    devices: Schema = fleet_table()
    if from_file:
        beside = {**devices, "properties": {"csv": TEXT, **devices["properties"]}, "required": ["csv"]}
        devices = {"anyOf": [{**TEXT, "description": "Path of a CSV file."}, devices, beside]}
    return closed({"fleet": devices, **parts()}, ["fleet", *SECTIONS], "Fleet, constants and budget.")


def result(part: type, keys: Schema, optional: tuple[str, ...] = ()) -> Schema:
    """A plan or a schedule, with the meanings of its docstring."""
    known = documented(part)
    own = {
        name: {"description": known[name][1], **schema} if name in known and known[name][1] else schema
        for name, schema in keys.items()
    }
    return closed(own, [name for name in keys if name not in optional], f"A coopt.{part.__name__}.")


STATUS = {"enum": [status.name for status in Status]}
TRACE = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
NULL = {"type": "null"}


def source() -> Schema:
    """Where a forecast came from."""
    return closed(
        {
            "measurement": {**SHA256, "description": "SHA-256 of what was measured."},
            "trained": {"anyOf": [listed(INTEGER), NULL], "description": "Devices that train; null: all."},
            "optimiser": {
                "type": "object",
                "description": "How clients and the server step, where that is not plain averaging.",
                "required": ["client", "server"],
            },
        },
        ["measurement", "trained"],
        "Where the forecast came from.",
    )


def plan_schema() -> Schema:
    """An allocation: its value is `error_bound`, or `predicted_error` beside `forecast`."""
    made = result(
        Allocation,
        {
            "problem": whole_problem(from_file=False),
            "rounds": {**INTEGER, "minimum": 1},
            "local_steps": {**INTEGER, "minimum": 1},
            "batch_sizes": listed({**INTEGER, "minimum": 1}),
            "device_steps": listed({**INTEGER, "minimum": 1}),
            "predicted_error": NUMBER,
            "error_bound": {**NUMBER, "description": "The proved bound on the error."},
            "objective": {"enum": ["error", "cost", "time"]},
            "objective_value": NUMBER,
            "lower_bound": NUMBER,
            "cost": NUMBER,
            "time": NUMBER,
            "status": STATUS,
            "binding": listed(TEXT),
            "shadow_prices": {"type": "object", "additionalProperties": NUMBER},
            "solver": TEXT,
            "bound": TEXT,
            "learning_rate": NUMBER,
            "target_error": {"type": ["number", "null"]},
            "solve_seconds": NUMBER,
            "trace": TRACE,
            "claim": {
                "anyOf": [
                    NULL,
                    closed(
                        {
                            "bound": TEXT,
                            "rounds": {"type": ["integer", "null"]},
                            "local_steps": {"type": ["integer", "null"]},
                        },
                        ["bound", "rounds", "local_steps"],
                        "Which plans the lower bound is about.",
                    ),
                ]
            },
            "forecast": source(),
        },
        optional=("predicted_error", "error_bound", "forecast", "device_steps"),
    )
    return {**made, "oneOf": [{"required": ["error_bound"]}, {"required": ["predicted_error", "forecast"]}]}


def schedule_schema() -> Schema:
    """A schedule."""
    return result(
        Schedule,
        {
            "problem": whole_problem(from_file=False),
            "phases": listed(table(Phase, "Rounds that are all alike.", {"batch_sizes": listed(INTEGER)})),
            "predicted_error": NUMBER,
            "cost": NUMBER,
            "time": NUMBER,
            "lower_bound": NUMBER,
            "status": STATUS,
            "forecast": source(),
            "solve_seconds": NUMBER,
            "trace": TRACE,
        },
    )


def report_schema() -> Schema:
    """One client report, which is one line of a file of reports; nested parts are flat there."""
    made = table(ClientReport, "What a client tells the server after a round.")
    own: Schema = {}
    for name, schema in made["properties"].items():
        about = {"description": schema["description"]}
        nested = {"halves": HalfBatches, "pair": SameBatchPair}.get(name)
        if nested is not None:
            for inner, (text, meaning) in documented(nested).items():
                told = INTEGER if text == "int" else REPORTED
                own[f"{name}_{inner}"] = {**told, "description": f"{about['description']} {meaning}"}
        elif name in ("gradient", "change"):
            own[name] = {**listed(REPORTED), **about}
        else:
            own[name] = {**(INTEGER if schema.get("type") == "integer" else REPORTED), **about}
    return {**made, "properties": own}


def schemas() -> dict[str, Schema]:
    """The schema of each kind of file, by its name."""
    titles = {
        "job": (
            "A job in TOML, beside the CSV file of a fleet",
            closed(parts(), list(SECTIONS), "What plans a fleet."),
        ),
        "problem": ("A whole problem in TOML", whole_problem(from_file=True)),
        "plan": ("A plan in JSON", plan_schema()),
        "schedule": ("A schedule in JSON", schedule_schema()),
        "report": ("A client report: one line of a file of reports", report_schema()),
    }
    return {name: {"$schema": DIALECT, "title": title, **made} for name, (title, made) in titles.items()}


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        path = FOLDER / f"{name}.schema.json"
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
