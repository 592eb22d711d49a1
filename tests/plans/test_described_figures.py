"""Every picture says in words what it shows, wherever it goes."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
import pytest

from command_line import quadratic_measurement, write_files
from coopt import (
    Budget,
    Controller,
    Fleet,
    Problem,
    frontier,
    sensitivity,
    solve_allocation,
    solve_schedule,
)
from coopt.online.estimate_trail import EstimateTrail
from coopt.plans.plot_run import plot_losses, plot_rounds
from coopt.problem.files import read_problem
from online import plain_reports

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    fleet, job = write_files(tmp_path_factory.mktemp("files"))
    return Problem(*read_problem(job, Fleet.from_csv(fleet)))


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    return quadratic_measurement(write_files(tmp_path_factory.mktemp("fleet"))[0])


def trail(rounds: int = 6) -> EstimateTrail:
    controller = Controller(Fleet([60, 40], 1.0, 1.0), Budget(cost=5000), learning_rate=0.1)
    followed = EstimateTrail(controller)
    for number in range(rounds):
        plan = controller.plan()
        controller.observe(plain_reports(plan, 2.0 / (1.0 + number)))
        assert followed() is False
    return followed


def test_descriptions_have_the_numbers_that_matter(problem, measurement):
    plan = solve_allocation(problem)
    text = plan.plot().description
    assert f"K = {plan.rounds}, tau = {plan.local_steps}" in text and "(phone)" in text and "(server)" in text

    text = frontier(problem, vary="time", values=[2.0, 600.0, 1800.0], bound="dynamite").plot().description
    assert "time [s]" in text and "600: " in text and "no plan at 1 values" in text

    changed = sensitivity(problem, bound="dynamite", quantities=["cost", "time", "divergence"])
    text = changed.plot().description
    assert "time +1 s" in text and "divergence +1 %" in text

    schedule = solve_schedule(problem, measurement)
    text = schedule.plot().description
    for phase in schedule.phases:
        assert f"{phase.rounds} rounds of {phase.local_steps} local steps" in text
    assert "no bound" in text

    assert "24 directions" not in measurement.plot().description
    planned = solve_allocation(problem, bound=measurement.forecast(), gap_tolerance=0.01)
    losses = np.linspace(4.0, 1.5, planned.rounds + 1)
    assert "training at 1.5" in measurement.plot_training(planned, losses).description


def test_runs_are_described_from_first_to_last(problem):
    loss, spent = np.array([2.0, 1.0, 0.5]), np.array([0.0, 10.0, 20.0])
    assert (
        "plan: 2 to 0.5 in 2 rounds, for 20 and 20 s"
        in plot_losses({"plan": (loss, spent, spent)}).description
    )
    unknown = np.full(3, np.nan)
    columns = {
        "train_loss": loss,
        "test_loss": unknown,
        "metric": unknown,
        "local_steps": np.array([5, 5, 2]),
        "learning_rate": np.full(3, 0.1),
        "cost": spent,
        "seconds": spent,
    }
    figure = plot_rounds(columns, np.array([[1, 3], [1, 3], [5, 7]]))
    assert "local steps 5 to 2" in figure.description and "median batch size 2 to 6" in figure.description
    assert "test" not in figure.description
    assert "not measured" in {text.get_text() for axes in figure.axes for text in axes.texts}


def test_a_trail_is_a_table_and_a_picture():
    followed = trail()
    rows = followed.to_rows()
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["loss"] == 2.0 and rows[-1]["loss"] < 1.0
    assert rows[-1]["smoothness"] is None
    figure = followed.plot()
    assert "6 rounds" in figure.description and "loss 0." in figure.description
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:3] == ["loss", "gradient^2", "gradient^2 * samples"]


def test_the_description_is_the_alternative_text_of_a_notebook():
    figure = plot_losses({"<a> & 'b'": (np.ones(2), np.ones(2), np.ones(2))})
    html = figure._repr_html_()
    assert 'alt="Loss over cost' in html and "&lt;a&gt; &amp; &#x27;b&#x27;" in html
    assert html.count('"') == 6


def test_the_description_is_in_the_files_and_the_same_data_make_the_same_file(tmp_path):
    def figure():
        return plot_losses({"run": (np.ones(2), np.ones(2), np.ones(2))})

    for kind in ("png", "svg"):
        path = tmp_path / f"run.{kind}"
        figure().savefig(path)
        content = path.read_bytes()
        assert b"Loss over cost (left)" in content
        if kind == "png":
            figure().savefig(path)
            assert path.read_bytes() == content
    stream = io.BytesIO()
    figure().savefig(stream, format="pdf")
    assert b"Loss over cost" in stream.getvalue() or any(
        b"Loss over cost" in zlib.decompress(part)
        for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", stream.getvalue(), re.DOTALL)
        if part.startswith(b"x")
    )
