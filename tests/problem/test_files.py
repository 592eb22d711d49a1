"""Files read back what was written, and wrong files are refused with the place and the remedy."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Constants, Fleet, InvalidProblemError, Problem
from coopt.problem.files import MEASURED
from coopt.problem.json_text import json_object, write_json

HEADER = "samples,gradient_noise,divergence\n"
LONG_HEADER = "names,samples,gradient_noise,divergence,throughput"
COLUMNS = (
    "samples, gradient_noise, divergence, throughput, round_time, sample_cost, weights, min_batch, "
    "max_batch, batch_multiple, names"
)
WITH_COMMAS = "save the file with commas, and decimal points"
COMMENT = "is a comment, which is not read: delete the line"
ROWS = "600,4.0,0.1\n200,2.5,0.05\n"
REST = "[constants]\nlearning_rate = 0.05\nsmoothness = 4.0\ninitial_gap = 2.0\n[budget]\ncost = 100.0\n"
FLEET_TABLE = "[fleet]\nsamples = [600, 200]\ngradient_noise = 4.0\ndivergence = 0.1\n"
TABLES = FLEET_TABLE + REST
HINT = "; `coopt measure` and coopt.measure find them, or guess them to begin with"
NO_BUDGET = TABLES.replace("[budget]\ncost = 100.0\n", "")

finite = st.floats(0.0, allow_infinity=False)
wild = st.one_of(finite, st.sampled_from([5e-324, 1.7976931348623157e308, 0.1, 1 / 3]))
names = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def fleets(draw, replacement: st.SearchStrategy[bool]) -> Fleet:
    n = draw(st.integers(1, 4))

    def each(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    samples = each(st.integers(4, 2**40))
    return Fleet(
        samples=samples,
        gradient_noise=each(wild),
        divergence=each(wild),
        throughput=each(st.one_of(st.just(math.inf), st.floats(0.0, exclude_min=True))),
        round_time=each(wild),
        sample_cost=each(wild),
        round_cost=each(wild),
        sample_energy=each(wild),
        round_energy=each(wild),
        step_time=each(wild),
        step_cost=each(wild),
        step_energy=each(wild),
        micro_batch=draw(st.one_of(st.none(), st.integers(1, 9))),
        weights=draw(st.sampled_from([None, np.full(n, 1.0 / n)])),
        min_batch=each(st.integers(1, 2)),
        max_batch=draw(st.sampled_from([None, 4])),
        batch_multiple=each(st.integers(1, 2)),
        replacement=draw(replacement),
        names=draw(st.one_of(st.none(), st.lists(names, min_size=n, max_size=n, unique=True))),
    )


@st.composite
def constants(draw) -> Constants:
    unit = st.floats(0.0, 1.0, exclude_min=True)
    beta = draw(st.floats(1e-300, 1e300))
    optional = {
        "pl_constant": unit.map(lambda x: x * beta / 2 or beta / 2),
        "mean_smoothness": st.just(beta),
        "coupling": unit.map(lambda x: x * beta),
        "curvature_floor": st.floats(-1.0, 1.0).map(lambda x: x * beta),
        "quadratic_continuity": wild,
        "lipschitz": wild,
    }
    given_fields = {name: draw(st.one_of(st.none(), strategy)) for name, strategy in optional.items()}
    rate = draw(st.floats(5e-324, 1e300))
    if given_fields["pl_constant"] is not None and rate * given_fields["pl_constant"] < sys.float_info.min:
        given_fields["pl_constant"] = None
    return Constants(learning_rate=rate, smoothness=beta, initial_gap=draw(wild), **given_fields)


limits = st.one_of(st.just(math.inf), wild)
counts = st.one_of(st.none(), st.integers(1, 2**53))
budgets = st.builds(
    Budget,
    cost=limits,
    time=limits,
    energy=limits,
    round_cost=wild,
    max_rounds=counts,
    max_local_steps=counts,
    participants=counts,
)


@settings(max_examples=80, deadline=None)
@given(fleet=fleets(st.just(True)))
def test_csv_reads_back_an_equal_fleet(tmp_path_factory, fleet):
    path = tmp_path_factory.mktemp("csv") / "fleet.csv"
    fleet.to_csv(path)
    assert Fleet.from_csv(path) == fleet


@settings(max_examples=80, deadline=None)
@given(fleet=fleets(st.booleans()), constants=constants(), budget=budgets)
def test_toml_reads_back_an_equal_problem(tmp_path_factory, fleet, constants, budget):
    path = tmp_path_factory.mktemp("toml") / "job.toml"
    problem = Problem(fleet, constants, budget)
    problem.to_toml(path)
    assert Problem.from_toml(path) == problem


def written(tmp_path, text: str | bytes, name: str):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROWS,
        "\ufeff" + HEADER + ROWS,
        (HEADER + ROWS).replace("\n", "\r\n"),
        (HEADER + ROWS).replace(",", " , "),
        HEADER + "\n" + ROWS + "\n\n",
        '"samples","gradient_noise","divergence"\n"600","4.0","0.1"\n2e2,2.5,5e-2',
    ],
    ids=["plain", "byte order mark", "CRLF", "blanks", "empty lines", "quotes"],
)
def test_spreadsheets_write_csv_in_many_ways(tmp_path, text):
    fleet = Fleet.from_csv(written(tmp_path, text, "fleet.csv"))
    assert fleet == Fleet([600, 200], [4.0, 2.5], [0.1, 0.05])


def test_columns_come_in_any_order_and_fields_may_stand_beside_them(tmp_path):
    path = written(tmp_path, "names,divergence,samples\nphone,0.1,600\n007,0.05,200\n", "fleet.csv")
    fleet = Fleet.from_csv(path, gradient_noise=4.0, replacement=False)
    assert fleet == Fleet([600, 200], 4.0, [0.1, 0.05], names=("phone", "007"), replacement=False)


def test_the_name_of_a_device_may_begin_as_comments_do(tmp_path):
    path = written(tmp_path, "names,samples,gradient_noise,divergence\n#1,600,4.0,0.1\n", "fleet.csv")
    assert Fleet.from_csv(path).names == ("#1",)


def test_a_long_table_is_read_in_blocks_as_a_short_one_is(tmp_path, monkeypatch):
    monkeypatch.setattr("coopt.problem.files.ROWS_AT_ONCE", 4)
    # Plain blocks, one with an infinite speed, one with an empty line, and a short one at the end.
    rows = [f"d{i},{10 + i},1.{i},{i}e-1,{'inf' if i == 5 else 100 + i}" for i in range(14)]
    path = tmp_path / "fleet.csv"
    path.write_text("\n".join([LONG_HEADER, *rows[:9], "", *rows[9:]]) + "\n")
    fleet = Fleet.from_csv(path)
    assert fleet.names == tuple(f"d{i}" for i in range(14)) and fleet.samples.dtype == np.int64
    assert fleet.samples.tolist() == list(range(10, 24))
    assert fleet.gradient_noise.tolist() == [float(f"1.{i}") for i in range(14)]
    assert fleet.throughput[5] == np.inf and fleet.throughput[13] == 113
    for line, cell in ((3, "1_0"), (7, "x"), (13, "1e400"), (14, "٣")):
        broken = [LONG_HEADER, *rows]
        broken[line - 1] = f"d,{cell},1,1,1"
        path.write_text("\n".join(broken) + "\n", encoding="utf-8")
        with pytest.raises(InvalidProblemError, match=rf"line {line}: samples = '{cell}': must be a number"):
            Fleet.from_csv(path)


@pytest.mark.parametrize("digits", ["1e400", "-1E+999", "9" * 400 + ".0"])
def test_digits_that_make_infinity_are_a_mistake_and_infinity_is_a_value(tmp_path, digits):
    path = tmp_path / "problem.toml"
    text = (
        "[fleet]\nsamples = [9]\ngradient_noise = 1.0\ndivergence = 0.0\n[constants]\nlearning_rate = 0.1\n"
        "smoothness = 1.0\ninitial_gap = 1.0\n[budget]\ncost = 5\ntime = "
    )
    path.write_text(text + "inf")
    assert Problem.from_toml(path).budget.time == np.inf
    path.write_text(text + digits)
    with pytest.raises(InvalidProblemError, match="is beyond the largest number"):
        Problem.from_toml(path)
    assert json_object('{"a": Infinity, "b": 1e300}', "no") == {"a": np.inf, "b": 1e300}
    with pytest.raises(InvalidProblemError, match=r"no: .* is beyond the largest number"):
        json_object(f'{{"a": {digits}}}', "no")


def test_json_is_laid_out_with_a_line_an_entry_and_read_back(tmp_path):
    content = {"a": [1.5, float("inf")], "b": {"c": {}, "d": "line\nbreak"}, "e": None}
    text = write_json(content, tmp_path / "file.json")
    assert json.loads(text) == content
    assert text.splitlines()[1] == ' "a": [1.5, Infinity],'
    assert (tmp_path / "file.json").read_text() == text + "\n"


def test_a_fleet_without_replacement_is_no_csv(tmp_path):
    with pytest.raises(InvalidProblemError, match=r"replacement = false is not a column.*Problem\.to_toml"):
        Fleet([5], 1.0, 0.0, replacement=False).to_csv(tmp_path / "fleet.csv")


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", {}, "{path}: is empty: the first line must name the columns"),
        ("sample,gradient_noise\n", {}, "fleet.csv, line 1: 'sample' is unknown: did you mean 'samples'?"),
        (
            "names,rows,speed\n",
            {},
            "fleet.csv, line 1: 'rows' and 'speed' are unknown: did you mean 'samples' and 'throughput'?",
        ),
        ("Samples\n", {}, "fleet.csv, line 1: 'Samples' is unknown: did you mean 'samples'?"),
        (
            "samples,through put\n",
            {},
            "fleet.csv, line 1: 'through put' is unknown: did you mean 'throughput'?",
        ),
        (
            HEADER + ROWS,
            {"troughput": 5.0},
            "a fleet that is read from fleet.csv: 'troughput' is unknown: did you mean 'throughput'?",
        ),
        ("samples,divergence,samples\n", {}, "fleet.csv, line 1: column 'samples' stands there twice"),
        (HEADER + ROWS, {"divergence": 0.0}, "divergence: given both as a column of fleet.csv and beside it"),
        (
            "samples,divergence\n5,0\n",
            {},
            f"fleet.csv, line 1: column 'gradient_noise' is missing{MEASURED['gradient_noise']}",
        ),
        (
            "hospital;patients\nJena;800\n",
            {},
            "fleet.csv, line 1: is separated by semicolons: save the file with commas, and decimal points",
        ),
        (
            "[constants]\nlearning_rate = 0.1\n",
            {},
            "fleet.csv, line 1: is a table of TOML: the CSV file of the fleet comes first, then the job",
        ),
        (
            "names,samples,gradient_noise,divergence\nJena,800,4,-1\n",
            {},
            "divergence[0] (Jena) = -1.0: must be a finite number >= 0",
        ),
        (HEADER + "600,4.0\n", {}, "fleet.csv, line 2: 2 cells: must be 3, as the header has"),
        (HEADER + ROWS + "1,2,3,4\n", {}, "fleet.csv, line 4: 4 cells: must be 3, as the header has"),
        (HEADER + "600,many,0.1\n", {}, "fleet.csv, line 2: gradient_noise = 'many': must be a number"),
        (HEADER + ROWS + "600,,0.1\n", {}, "fleet.csv, line 4: gradient_noise = '': must be a number"),
        (HEADER + "600,4.0,nan\n", {}, "divergence[0] = nan: must be a finite number >= 0"),
        (HEADER + ROWS + "0,4.0,0.1\n", {}, "samples[2] = 0: must be an integer >= 1"),
        (HEADER, {}, "fleet.csv: holds its header alone: must have at least one device, a line each"),
        (HEADER.replace(",", ";"), {}, f"fleet.csv, line 1: is separated by semicolons: {WITH_COMMAS}"),
        (HEADER.replace(",", "\t"), {}, f"fleet.csv, line 1: is separated by tabs: {WITH_COMMAS}"),
        (
            HEADER + "600;4,0;0,1\n",
            {},
            "fleet.csv, line 2: samples = '600;4': must be a number; the line is separated by semicolons: "
            + WITH_COMMAS,
        ),
        (HEADER + "600;4.0;0.1\n", {}, f"fleet.csv, line 2: is separated by semicolons: {WITH_COMMAS}"),
        ("# phones\n" + HEADER, {}, f"fleet.csv, line 1: {COMMENT}"),
        (HEADER + ROWS + "# the, rest\n", {}, f"fleet.csv, line 4: {COMMENT}"),
        (HEADER + "# 600,4.0,0.1\n" + ROWS, {}, f"fleet.csv, line 2: {COMMENT}"),
        ("\n" + HEADER + ROWS, {}, "fleet.csv, line 1: is blank: the first line must name the columns"),
        (HEADER + ROWS + "  \n", {}, "fleet.csv, line 4: is blank: delete the blanks in it"),
        (HEADER + ROWS + ",,\n", {}, "fleet.csv, line 4: has no values: delete it"),
        (HEADER + "600,4.0,0.1,\n", {}, "fleet.csv, line 2: ends in a comma after its 3 cells: delete it"),
        (
            HEADER.replace("\n", ",\n") + ROWS,
            {},
            "fleet.csv, line 1: ends in a comma: delete it, here and in the other lines",
        ),
        (HEADER.replace(",", " "), {}, f"fleet.csv, line 1: is separated by blanks: {WITH_COMMAS}"),
        (HEADER + "600 4.0 0.1\n", {}, f"fleet.csv, line 2: is separated by blanks: {WITH_COMMAS}"),
        (
            "sep=;\n" + HEADER,
            {},
            "fleet.csv, line 1: says what separates the cells: delete the line; commas must",
        ),
        (
            "," + HEADER + "0," + ROWS,
            {},
            (
                "fleet.csv, line 1: has no name for the first column: delete the column, if it only "
                "counts the rows"
            ),
        ),
        (
            '{"fleet": []}',
            {},
            "fleet.csv, line 1: is JSON: a fleet is a CSV file, and its first line names the columns",
        ),
        ("SAMPLES,divergence\n", {}, "fleet.csv, line 1: 'SAMPLES' is unknown: did you mean 'samples'?"),
        (
            HEADER + "600,4.0,0.1 # old\n",
            {},
            "fleet.csv, line 2: divergence = '0.1 # old': must be a number; comments are not read: delete it",
        ),
        (
            HEADER + '600,"4,0",0.1\n',
            {},
            (
                "fleet.csv, line 2: gradient_noise = '4,0': must be a number; write a decimal point, and "
                "nothing between thousands"
            ),
        ),
        ("names," + HEADER + "# the,rest,is,older\n", {}, f"fleet.csv, line 2: {COMMENT}"),
        (
            "names," + HEADER + "Gera,600,4.0,0.1\nJena,0,4.0,0.1\n",
            {},
            "samples[1] (Jena) = 0: must be an integer >= 1",
        ),
        (
            "Jena,600,4.0,0.1\n",
            {},
            "fleet.csv, line 1: holds numbers: a header that names the columns must come first",
        ),
        (ROWS, {}, "fleet.csv, line 1: holds numbers: a header that names the columns must come first"),
        (
            HEADER + ROWS,
            {"throughput": [1, 2, 3]},
            "throughput has shape (3,): must be a scalar or have shape (2,), one entry a device",
        ),
    ],
)
def test_a_wrong_csv_file_is_refused_with_its_line(tmp_path, text, fields, message):
    path = written(tmp_path, text, "fleet.csv")
    with pytest.raises(InvalidProblemError) as caught:
        Fleet.from_csv(path, **fields)
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize("read", [Fleet.from_csv, Problem.from_toml])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    latin = written(tmp_path, "gerät\n".encode("latin-1"), "latin")
    for path in (tmp_path / "nowhere", tmp_path, latin):
        with pytest.raises(InvalidProblemError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: cannot be read: ")
    assert "save it as UTF-8" in str(caught.value)


def test_a_job_may_name_its_csv_file(tmp_path):
    written(tmp_path, HEADER + ROWS, "fleet.csv")
    expected = Fleet([600, 200], [4.0, 2.5], [0.1, 0.05])
    whole = written(tmp_path, 'fleet = "fleet.csv"\n' + REST, "job.toml")
    assert Problem.from_toml(whole).fleet == expected
    beside = '[fleet]\ncsv = "fleet.csv"\nthroughput = 5.0\nreplacement = false\n'
    path = written(tmp_path, beside + REST, "job.toml")
    assert Problem.from_toml(str(path)).fleet == Fleet(
        [600, 200], [4.0, 2.5], [0.1, 0.05], throughput=5.0, replacement=False
    )


def test_a_job_and_the_fleet_of_a_csv_file_make_a_problem(tmp_path):
    fleet = Fleet([600, 200], [4.0, 2.5], [0.1, 0.05])
    job = written(tmp_path, REST, "job.toml")
    whole = written(tmp_path, 'fleet = "fleet.csv"\n' + REST, "whole.toml")
    written(tmp_path, HEADER + ROWS, "fleet.csv")
    assert Problem.from_toml(job, fleet) == Problem.from_toml(whole)
    with pytest.raises(InvalidProblemError, match=r"fleet = 'fleet\.csv': must be a coopt\.Fleet"):
        Problem.from_toml(job, "fleet.csv")


def test_a_byte_order_mark_and_windows_line_ends_are_fine_in_toml(tmp_path):
    plain = Problem.from_toml(written(tmp_path, TABLES, "job.toml"))
    windows = "\ufeff" + TABLES.replace("\n", "\r\n")
    assert Problem.from_toml(written(tmp_path, windows, "job.toml")) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NO_BUDGET, "job.toml: table [budget] is missing"),
        (
            REST,
            "job.toml: table [fleet] is missing; the fleet of a CSV file is Fleet.from_csv, given beside it",
        ),
        (
            "learning_rate = 0.1\n" + TABLES,
            "job.toml: learning_rate stands above the tables: must be in [constants]",
        ),
        (TABLES + "deadline = 5\n", "[budget] of job.toml: 'deadline' is unknown: did you mean 'time'?"),
        (TABLES + "[budgets]\n", "job.toml: 'budgets' is unknown: did you mean 'budget'?"),
        (TABLES + "costs = 5\n", "[budget] of job.toml: 'costs' is unknown: did you mean 'cost'?"),
        (
            TABLES.replace("learning_rate", "learningrate"),
            "[constants] of job.toml: 'learningrate' is unknown: did you mean 'learning_rate'?",
        ),
        (
            TABLES.replace("divergence", "divergance"),
            "[fleet] of job.toml: 'divergance' is unknown: did you mean 'divergence'?",
        ),
        (
            TABLES.replace("smoothness = 4.0\n", ""),
            "[constants] of job.toml: 'smoothness' is missing" + HINT,
        ),
        (
            TABLES.replace("smoothness = 4.0\n", "").replace("initial_gap = 2.0\n", ""),
            "[constants] of job.toml: 'smoothness' and 'initial_gap' are missing" + HINT,
        ),
        (TABLES.replace("divergence = 0.1\n", ""), "[fleet] of job.toml: 'divergence' is missing"),
        ("fleet = 5\n" + REST, "job.toml: fleet = 5: must be a table or the path of a CSV file"),
        (
            "budget = 5\n" + NO_BUDGET,
            "job.toml: budget = 5: must be a table",
        ),
        (
            TABLES.replace("cost = 100.0", "cost = true"),
            "[budget] of job.toml: cost = True: must be a number >= 0",
        ),
        (
            TABLES.replace("cost = 100.0", "max_rounds = 2.5"),
            "[budget] of job.toml: max_rounds = 2.5: must be an integer >= 1",
        ),
        (
            TABLES.replace("[600, 200]", "[600, 0]"),
            "[fleet] of job.toml: samples[1] = 0: must be an integer >= 1",
        ),
        (
            TABLES.replace("4.0\ndiv", "07:32:00\ndiv"),
            "[fleet] of job.toml: gradient_noise = datetime.time(7, 32): must be a number",
        ),
        (
            TABLES.replace("[600, 200]", "{a = 1}"),
            "[fleet] of job.toml: samples = {'a': 1}: must be a number",
        ),
        (
            FLEET_TABLE + "names = 5\n" + REST,
            "[fleet] of job.toml: names = 5: must be a sequence of 2 strings",
        ),
    ],
)
def test_a_wrong_toml_file_is_refused_with_its_table(tmp_path, text, message):
    with pytest.raises(InvalidProblemError) as caught:
        Problem.from_toml(written(tmp_path, text, "job.toml"))
    assert str(caught.value) == message


def test_text_that_is_no_toml_is_refused_with_its_place(tmp_path):
    path = written(tmp_path, TABLES + "cost == 5\n", "job.toml")
    with pytest.raises(InvalidProblemError) as caught:
        Problem.from_toml(path)
    assert str(caught.value).startswith(f"{path}: is not valid TOML: ")
    assert "line 11" in str(caught.value)
