"""Fleets from data frames of every library, aligned by name, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coopt import Fleet, InvalidProblemError, MissingDependencyError

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("narwhals")

COLUMNS = {
    "names": ["phone", "board", "server"],
    "samples": [600, 2000, 9000],
    "gradient_noise": [4.0, 3.0, 2.0],
    "divergence": [0.2, 0.1, 0.1],
    "throughput": [50.0, 200.0, np.inf],
}
FLEET = Fleet(**COLUMNS)
MAKERS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "lazy polars": pl.LazyFrame, "pyarrow": pa.table}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_frame_is_a_fleet(maker):
    assert Fleet.from_dataframe(MAKERS[maker](COLUMNS)) == FLEET


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
def test_a_fleet_is_a_frame_and_back(backend):
    fleet = replace(FLEET, step_time=0.1, micro_batch=[8, 16, 32], batch_choices=[4, 8, 16])
    assert Fleet.from_dataframe(fleet.to_dataframe(backend)) == fleet
    assert Fleet.from_dataframe(FLEET.to_dataframe(backend)) == FLEET


def test_rows_are_devices():
    first = FLEET.to_rows()[0]
    assert first["names"] == "phone" and first["samples"] == 600
    with pytest.raises(InvalidProblemError, match="replacement = false is not a column"):
        replace(FLEET, replacement=False).to_rows()


def test_an_index_of_texts_names_the_devices():
    frame = pd.DataFrame(COLUMNS).set_index("names")
    assert Fleet.from_dataframe(frame) == FLEET
    assert Fleet.from_dataframe(frame.reset_index(drop=True)).names is None
    assert Fleet.from_dataframe(frame.reset_index(drop=True)[::2]).names is None


def test_values_by_name_are_put_in_the_order_of_the_devices():
    frame = pd.DataFrame(COLUMNS).drop(columns="throughput")
    speeds = dict(zip(COLUMNS["names"], COLUMNS["throughput"], strict=True))
    backwards = dict(reversed(speeds.items()))
    for given in (backwards, pd.Series(backwards), COLUMNS["throughput"], pd.Series(COLUMNS["throughput"])):
        assert Fleet.from_dataframe(frame, throughput=given) == FLEET
    assert Fleet.from_dataframe(pl.DataFrame(frame), throughput=backwards) == FLEET
    unnamed = frame.drop(columns="names")
    assert Fleet.from_dataframe(unnamed, names=COLUMNS["names"], throughput=backwards) == FLEET


def test_a_data_frame_is_also_a_mapping_of_fields():
    assert Fleet(**pd.DataFrame(COLUMNS)) == FLEET
    assert Fleet(**{name: pl.Series(values) for name, values in COLUMNS.items()}) == FLEET


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        ({"divergance": [1, 2, 3]}, {}, "'divergance' is unknown: did you mean 'divergence'"),
        ({}, {"throughput": 5.0}, "throughput: given both as a column of the frame and beside it"),
        ({}, {"thruput": 5.0}, "'thruput' is unknown: did you mean 'throughput'"),
        ({}, {"round_time": {"phone": 1.0, "board": 2.0}}, "round_time: 'server' is missing"),
        (
            {},
            {"round_time": {"phone": 1.0, "board": 2.0, "server": 1.0, "watch": 3.0}},
            "round_time: 'watch' is no device of the frame",
        ),
        ({"gradient_noise": [1.0, None, 2.0]}, {}, r"gradient_noise\[1\] \(board\) is missing in the frame"),
        ({"samples": [600, 2000, -1]}, {}, r"samples\[2\] \(server\) = -1"),
        ({"names": [1, 2, 3]}, {}, "names"),
        (
            {},
            {"round_time": pd.Series([1.0, 2.0, 3.0], index=["phone", "phone", "board"])},
            "round_time: the index has 'phone' twice",
        ),
    ],
)
def test_what_is_wrong_is_named(change, given, said):
    with pytest.raises(InvalidProblemError, match=said):
        Fleet.from_dataframe(pl.DataFrame({**COLUMNS, **change}), **given)


def test_what_is_no_frame_is_refused():
    with pytest.raises(InvalidProblemError, match="must be a data frame of pandas"):
        Fleet.from_dataframe([[1, 2]])
    with pytest.raises(InvalidProblemError, match="'divergence' is missing"):
        Fleet.from_dataframe(pd.DataFrame({"samples": [1], "gradient_noise": [1.0]}))
    with pytest.raises(InvalidProblemError, match="the frame names no devices"):
        Fleet.from_dataframe(pd.DataFrame(COLUMNS).drop(columns="names"), round_time={"phone": 1.0})


def test_without_narwhals_the_error_says_so(monkeypatch):
    monkeypatch.setattr("coopt.problem.data_frames.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"coopt\[dataframe\]"):
        Fleet.from_dataframe(pd.DataFrame(COLUMNS))
