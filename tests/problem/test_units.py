"""Amounts as people write them mean the same in Budget, in a job file and on the command line."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt import Budget, Fleet, InvalidProblemError
from coopt.problem import units
from coopt.problem.files import read_problem

FLEET = Fleet(samples=[60, 40], gradient_noise=1.0, divergence=0.1, sample_cost=[2.0, 0.5])
CONSTANTS = "[constants]\nlearning_rate = 0.1\nsmoothness = 1.0\ninitial_gap = 2.0\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("1h", 3600.0),
        ("30min", 1800.0),
        ("1h 30min", 5400.0),
        ("1H30MIN", 5400.0),
        (" 2 days ", 172_800.0),
        ("1.5 hours", 5400.0),
        ("250 ms", 0.25),
        ("1e3 s", 1000.0),
        (timedelta(hours=1, seconds=1), 3601.0),
        (1800, 1800.0),
    ],
)
def test_times(text, seconds):
    assert Budget(time=text).time == seconds


@pytest.mark.parametrize(("text", "joules"), [("2 kWh", 7.2e6), ("500kJ", 5e5), ("1 MJ", 1e6), (3.0, 3.0)])
def test_energies(text, joules):
    assert Budget(energy=text).energy == joules


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("time", "1 fortnight", "'fortnight' is no unit here: use ms, s, sec"),
        ("time", "an hour", "must be a number of seconds, or a text such as '90s'"),
        ("time", "1800", "must be a number of seconds"),
        ("time", "1h -5min", "must be a number of seconds"),
        ("time", "", "must be a number of seconds"),
        ("time", timedelta(seconds=-1), "time = -1.0: must be a number >= 0"),
        ("energy", "2 kwh", "'kwh' is no unit here: use mJ, J"),
        ("cost", "5 euros", "'euros' is no unit here: use epoch, epochs"),
        ("cost", "5 epochs", "give 5 * fleet.epoch_cost"),
    ],
)
def test_wrong_amounts_are_named(field, value, said):
    with pytest.raises(InvalidProblemError, match=field) as error:
        Budget(**{field: value})
    assert said in str(error.value)


def test_five_epochs_are_five_times_every_sample_once(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(CONSTANTS + '[budget]\ncost = "5 epochs"\ntime = "1h"\n')
    _, _, budget = read_problem(job, FLEET)
    assert FLEET.epoch_cost == 140.0
    assert budget == Budget(cost=700.0, time=3600.0)


def test_a_budget_is_replaced_and_compared_by_its_numbers():
    hour = Budget(time="1h", max_rounds=3)
    assert hour == Budget(time=timedelta(hours=1), max_rounds=3)
    assert replace(hour, cost=5.0) == Budget(5.0, 3600.0, max_rounds=3)
    assert hash(hour) == hash(Budget(time=3600, max_rounds=3))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(hours, minutes, seconds):
    text = f"{hours}h {minutes} min {seconds}s"
    assert (
        units.seconds("time", text)
        == timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    )


def test_a_command_line_knows_numbers_from_texts():
    assert units.number_or_text("1e4") == 1e4
    assert units.number_or_text("inf") == float("inf")
    assert units.number_or_text("1h") == "1h"
