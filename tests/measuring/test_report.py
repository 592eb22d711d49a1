"""Client reports: both round trips, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.errors import InvalidProblemError
from coopt.measuring.report import ClientReport, HalfBatches, SameBatchPair

number = st.floats(allow_nan=True, allow_infinity=True)
count = st.integers(0, 10**12)
vector = st.none() | st.lists(number, max_size=5).map(np.array)
halves = st.builds(HalfBatches, first=count, second=count, difference=number, product=number)
pair = st.builds(
    SameBatchPair, step=number, product=number, difference=number, slope=number, loss_change=number
)
reports = st.builds(
    ClientReport,
    client=count,
    round=count,
    samples=count,
    local_steps=count,
    batch_size=count,
    samples_processed=count,
    loss=number,
    seconds_computing=number,
    seconds_communicating=number,
    cost=st.none() | number,
    halves=st.none() | halves,
    pair=st.none() | pair,
    gradient=vector,
    change=vector,
)


@given(report=reports)
def test_json_round_trip_is_exact(report: ClientReport) -> None:
    again = ClientReport.from_json(report.to_json())
    assert again == report and hash(again) == hash(report)
    assert (again.gradient is None) == (report.gradient is None)
    if report.gradient is not None:
        np.testing.assert_array_equal(again.gradient, report.gradient)


@given(report=reports)
def test_scalar_round_trip_is_exact(report: ClientReport) -> None:
    scalars = report.to_scalars()
    assert len(scalars) <= 19 and all(isinstance(value, (int, float)) for value in scalars.values())
    assert ClientReport.from_scalars(scalars, gradient=report.gradient, change=report.change) == report


def good() -> dict[str, float]:
    return {
        "client": 1,
        "round": 0,
        "samples": 5,
        "local_steps": 2,
        "batch_size": 3,
        "samples_processed": 6,
        "loss": 0.5,
        "seconds_computing": 1.0,
    }


def test_integers_that_travelled_as_floats_become_integers_again() -> None:
    report = ClientReport.from_scalars({name: float(value) for name, value in good().items()})
    assert report.samples == 5 and isinstance(report.samples, int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": None}, "loss"),
        ({"loss": "high"}, "loss = 'high'"),
        ({"extra": 1}, "'extra'"),
        ({"halves_first": 1}, "halves_second"),
        ({"halves_width": 1}, "halves_width"),
    ],
)
def test_wrong_entries_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        ClientReport.from_scalars({**good(), **change})


def test_missing_entries_are_named() -> None:
    scalars = good()
    del scalars["samples"]
    with pytest.raises(InvalidProblemError, match="'samples'"):
        ClientReport.from_scalars(scalars)


@pytest.mark.parametrize("text", ["{", "[1]", '{"gradient": 3}', '{"gradient": ["x"]}'])
def test_broken_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidProblemError):
        ClientReport.from_json(text)


def test_vectors_are_flat_and_cannot_change() -> None:
    with pytest.raises(InvalidProblemError, match="gradient of client 1"):
        ClientReport.from_scalars(good(), gradient=np.ones((2, 2)))
    source = np.ones(2)
    report = ClientReport.from_scalars(good(), gradient=source)
    source[0] = math.inf
    assert report.gradient is not None and report.gradient[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        report.gradient[0] = 2


def test_reports_differ_from_other_things() -> None:
    assert ClientReport.from_scalars(good()) != 3
    assert ClientReport.from_scalars(good()) != ClientReport.from_scalars({**good(), "loss": 0.6})
