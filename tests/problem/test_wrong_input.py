"""Whatever is given to the problem or its readers: an object, or one kind of error with a short message."""

from __future__ import annotations

import json
import math
import os
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import (
    Allocation,
    Budget,
    ClientReport,
    Constants,
    CooptError,
    Fleet,
    InvalidProblemError,
    Problem,
    Schedule,
    solve_allocation,
)
from coopt.errors import LONGEST_MESSAGE
from coopt.problem.validation import SHOWN_CHARACTERS, shown

SAMPLES = [600, 200]
REST = "[constants]\nlearning_rate = 0.05\nsmoothness = 4.0\ninitial_gap = 2.0\n[budget]\ncost = 100.0\n"
DEEP = "[" * 100_000
MEGABYTE = "x" * 1_000_000
MONSTERS = [DEEP, "1" * 5000, MEGABYTE]
ODD = [DEEP, "1" * 5000, '"\\u0000"', "1_000", "07:32:00", "{}"]
COMMAS = "samples,gradient_noise,divergence\n"
HUGE = np.longdouble("1e4000")
FIRST_KNOWN = np.ma.array(SAMPLES, mask=[0, 1])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.sampled_from(
        [
            10**400,
            -(10**4000),
            MEGABYTE,
            1j,
            "\0",
            date(2020, 1, 1),
            np.float32("inf"),
            HUGE,
            np.timedelta64(5, "ns"),
            np.datetime64("2020-01-01", "ns"),
            np.ma.masked,
            object(),
            int,
            np.array(MEGABYTE),
        ]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
cells = st.one_of(
    st.integers(-1, 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(["", "9" * 5000, "x" * 200_000, "\0", "1_0"]),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


def refused_or_read(make) -> None:
    message = "read"
    try:
        make()
    except CooptError as error:
        message = str(error)
    assert 0 < len(message) <= LONGEST_MESSAGE


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy converts what is masked to nan
@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("part", [Fleet, Constants, Budget])
def test_any_values_make_a_part_of_a_problem_or_are_refused(part, data):
    sound = {
        Fleet: {"samples": SAMPLES, "gradient_noise": 4.0, "divergence": 0.1},
        Constants: {"learning_rate": 0.05, "smoothness": 4.0, "initial_gap": 2.0},
        Budget: {},
    }[part]
    names = st.sampled_from(sorted(part.__dataclass_fields__))
    wrong = data.draw(st.dictionaries(names, anything, min_size=1, max_size=2))
    refused_or_read(lambda: part(**{**sound, **wrong}))


@settings(max_examples=60, deadline=None)
@given(
    text=st.one_of(st.text(max_size=60), plain.map(json.dumps), st.sampled_from([DEEP, "1" * 5000, MEGABYTE]))
)
@pytest.mark.parametrize("read", [Allocation.from_json, Schedule.from_json, ClientReport.from_json])
def test_any_json_is_read_or_refused(read, text):
    refused_or_read(lambda: read(text))


@settings(max_examples=60, deadline=None)
@given(
    text=st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=60),
        st.tuples(
            st.sampled_from(["samples", "gradient_noise", "names", "csv", "cost"]),
            st.one_of(
                st.sampled_from([DEEP, "1" * 5000, '"\\u0000"', "1_000", "07:32:00", "{}"]),
                plain.map(json.dumps),
            ),
        ).map(lambda pair: "[fleet]\n" + " = ".join(pair) + "\n" + REST),
    )
)
def test_any_toml_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8")
    refused_or_read(lambda: Problem.from_toml(path))


@settings(max_examples=60, deadline=None)
@given(
    header=st.sampled_from([COMMAS, COMMAS.replace(",", ";"), ""]),
    rows=st.one_of(
        st.text(st.characters(codec="utf-8"), max_size=60),
        st.lists(st.lists(cells, min_size=3, max_size=3).map(",".join), max_size=3).map("\n".join),
    ),
)
def test_any_csv_is_read_or_refused(tmp_path_factory, header, rows):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(header + rows, encoding="utf-8", newline="")
    refused_or_read(lambda: Fleet.from_csv(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(cost=10**400), "cost = an integer of some 401 digits: must be a number >= 0"),
        (
            lambda: Budget(max_rounds=10**5000),
            "max_rounds = an integer of some 5001 digits",
        ),
        (
            lambda: Fleet(SAMPLES, 4.0, 0.1, throughput=[5, 10**400]),
            r"throughput\[1\] = an integer of some 401",
        ),
        (
            lambda: Fleet(SAMPLES, 4.0, 0.1, throughput=HUGE),
            r"throughput = .*at most 1.8e\+308",
        ),
        (
            lambda: Fleet(FIRST_KNOWN, 4.0, 0.1),
            r"samples\[1\] is masked: must be a number",
        ),
        (lambda: Fleet(SAMPLES, np.array([4, 2], "m8[ns]"), 0.1), r"gradient_noise holds timedelta64\[ns\]"),
        (lambda: Fleet.from_csv(3), "path = 3: must be the path of a file"),
        (lambda: Problem.from_toml("a\0b"), "cannot be read: embedded null byte"),
        (lambda: Allocation.from_json(DEEP), "not an allocation: the JSON text is nested too deeply"),
        (lambda: Allocation.from_json(None), "not an allocation: the JSON object must be str"),
        (lambda: Allocation.from_json("1" * 5000), "not an allocation: Exceeds the limit"),
        (lambda: Allocation.from_dict(5), "not an allocation: 'int' object is not iterable"),
    ],
)
def test_wrong_input_of_every_kind_is_named(make, message):
    with pytest.raises(InvalidProblemError, match=message):
        make()


@pytest.mark.parametrize("cell", ["1_000", "٦٠٠", "\uff16", "0x10", "1e400", "1 0", "9" * 400, "9" * 5000])
def test_cells_are_plain_decimal_numbers(tmp_path, cell):
    path = tmp_path / "fleet.csv"
    path.write_text(f"samples,gradient_noise,divergence,throughput\n600,4.0,0.1,{cell}\n", encoding="utf-8")
    with pytest.raises(InvalidProblemError, match=r"line 2: throughput = .*: must be a number"):
        Fleet.from_csv(path)


def test_two_devices_of_one_name_are_refused(tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_text("names,samples,gradient_noise,divergence\nphone,6,4,0\ntv,6,4,0\nphone,9,4,0\n")
    with pytest.raises(InvalidProblemError, match="names = 'phone': is the name of devices 0 and 2"):
        Fleet.from_csv(path)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 100_000) + " = 1",
        "[" + ".".join("a" * 100_000) + "]",
        " . ".join(['"a,=\\""'] * 100_000) + " = 1",
        "x = {" + ".".join(["'#'"] * 100_000) + " = 1}",
    ],
    ids=["words", "table", "strings", "inline"],
)
def test_keys_with_many_dots_take_no_memory(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(InvalidProblemError, match=r"job\.toml: is nested too deeply: a key has more than"):
        Problem.from_toml(path)


def test_dots_in_strings_and_numbers_are_no_keys(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("x = '" + "1." * 300 + "'\ny = [" + "0.5," * 300 + "] # " + "1." * 300)
    with pytest.raises(InvalidProblemError, match="'x' and 'y' are unknown"):
        Problem.from_toml(path)


def test_no_document_makes_a_reader_open_a_file(tmp_path, monkeypatch):
    secret, fifo = tmp_path / "secret.csv", tmp_path / "fifo"
    secret.write_text("names,samples,gradient_noise,divergence\nsecret,6,4,0\n")
    if hasattr(os, "mkfifo"):
        os.mkfifo(fifo)
    problem = Problem(
        Fleet(SAMPLES, 4.0, 0.1), Constants(0.1, 1.0, 1.0, pl_constant=0.1), Budget(cost=1000, max_rounds=9)
    )
    document = json.loads(solve_allocation(problem).to_json())
    # A FIFO that is opened waits for ever.
    for path in (secret, fifo, "/dev/zero"):
        for fleet in (str(path), {"csv": str(path)}):
            document["problem"]["fleet"] = fleet
            with pytest.raises(InvalidProblemError, match="none is opened here") as refused:
                Allocation.from_json(json.dumps(document))
            assert "secret,6" not in str(refused.value)
        with pytest.raises(InvalidProblemError, match="not an allocation"):
            Allocation.from_json(str(path))


def test_values_are_shown_shortened():
    assert shown([1, "two", 3.5]) == "[1, 'two', 3.5]"
    for value in (MEGABYTE, [MEGABYTE] * 9, {MEGABYTE: [list(range(10**6))]}, 10**5000, np.zeros(10**6)):
        assert len(shown(value)) <= SHOWN_CHARACTERS


def test_messages_are_of_bounded_length():
    message = str(CooptError("begin " + MEGABYTE + " end"))
    assert len(message) <= LONGEST_MESSAGE
    assert message.startswith("begin ") and message.endswith(" end")
    assert math.isclose(len(message), LONGEST_MESSAGE, abs_tol=5)
