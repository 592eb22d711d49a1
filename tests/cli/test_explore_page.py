"""The page in a browser: a slider is moved, and the number that changes is the library's."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import coopt
from benchmarks.explore.served import NUMBER, chromium, measured_files, served, visit
from coopt import Allocation, solve_allocation
from coopt.cli import example_problem, explore_command, main
from coopt.cli.explore import what_if
from coopt.cli.explore.open_case import open_case

CHROMIUM = shutil.which("chromium")
DATA = Path(coopt.__file__).parent / "data"
FILES = (str(DATA / "fleet.csv"), str(DATA / "job.toml"))
needs_streamlit = pytest.mark.skipif(
    explore_command.find_spec("streamlit") is None,
    reason="Streamlit is not installed: pip install 'coopt[explore]'",
)


def test_without_streamlit_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explore_command, "find_spec", lambda name: None)
    assert main(["explore", *FILES]) == 1
    assert 'pip install "coopt[explore]"' in capsys.readouterr().err


@needs_streamlit
def test_wrong_files_and_ports_are_refused_before_a_page_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(tmp_path / "none.csv"), FILES[1]]) == 2
    assert "none.csv" in capsys.readouterr().err
    assert main(["explore", *FILES, "--port", "99999999"]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page of the example, served by the command as a user starts it."""
    if explore_command.find_spec("streamlit") is None:
        pytest.skip("Streamlit is not installed: pip install 'coopt[explore]'")
    call = [sys.executable, "-c", "import sys; from coopt.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*call, "explore", *FILES, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        printed = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", printed)
        assert found is not None, printed + server.stderr.read()
        yield found[0]
        server.send_signal(signal.SIGTERM)
        _, complaints = server.communicate(timeout=30)
    assert complaints == ""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: `make test-browser` installs Debian's")
    pytest.importorskip("playwright.sync_api")
    with chromium() as started:
        yield started


def open_page(browser, address: str, width: int = 1300):
    """The page, and the addresses that it asked for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    visit(page, address)
    page.get_by_role("slider").first.wait_for()
    return page, asked


def wait_for_number(page, expected: str) -> None:
    page.wait_for_function(
        "([where, number]) => document.querySelector(where)?.innerText === number", arg=[NUMBER, expected]
    )


@pytest.mark.slow
def test_a_slider_is_moved_and_the_number_is_the_library_s(browser, address: str, tmp_path: Path) -> None:
    page, asked = open_page(browser, address)
    problem = example_problem()
    wait_for_number(page, f"{solve_allocation(problem).error_bound:.4g}")
    # By keyboard alone, found by the name that a screen reader says.
    slider = page.get_by_role("slider", name="Budget (cost)")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    cost = 1_410_000.0
    plan = solve_allocation(replace(problem, budget=replace(problem.budget, cost=cost)))
    wait_for_number(page, f"{plan.error_bound:.4g}")
    assert slider.get_attribute("aria-valuetext") == "1,410,000"
    numbers = page.locator(NUMBER).all_inner_texts()
    assert numbers[1:3] == [f"{plan.rounds}", f"{plan.local_steps}"]
    for name in ("Deadline", "Learning rate"):
        assert page.get_by_role("slider", name=name).count() == 1
    # Pictures have words; the last of them is the last thing that the page computes.
    page.get_by_label(re.compile("Smallest error bound over deadline")).wait_for()
    for words in (
        f"Batch size of each of 24 devices: {plan.batch_sizes.min()} to {plan.batch_sizes.max()}",
        "Error bound over time",
        "Error bound over rounds and local steps",
        "Smallest error bound over cost",
    ):
        page.get_by_label(re.compile(re.escape(words))).wait_for()  # exactly one: more are an error
    with page.expect_download() as download:
        page.get_by_role("button", name="Plan (JSON)").click()
    download.value.save_as(tmp_path / "plan.json")
    assert Allocation.from_json((tmp_path / "plan.json").read_text()) == plan
    script = tmp_path / "lines.py"
    script.write_text(page.locator("[data-testid=stCode] code").inner_text(), encoding="utf-8")
    assert runpy.run_path(str(script))["plan"] == plan
    elsewhere = [url for url in asked if not re.match(rf"(data:|blob:|(http|ws)://{address[7:]}/)", url)]
    assert asked and elsewhere == []
    page.close()


@pytest.mark.slow
def test_narrow_screens_show_all_of_it(browser, address: str) -> None:
    page, _ = open_page(browser, address, width=390)
    page.get_by_label(re.compile("Smallest error bound over deadline")).wait_for()
    inside = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert inside
    # The number that a slider changes is on the screen together with the sliders.
    places = [
        page.locator(NUMBER).first.bounding_box(),
        page.get_by_role("slider", name="Learning rate").bounding_box(),
    ]
    assert all(place is not None and 0 <= place["y"] <= 900 for place in places), json.dumps(places)
    page.close()


@pytest.mark.slow
def test_phases_are_shown_at_once_and_better_ones_when_they_are_found(browser, tmp_path: Path) -> None:
    if explore_command.find_spec("streamlit") is None:
        pytest.skip("Streamlit is not installed: pip install 'coopt[explore]'")
    fleet, job, measurement = measured_files(tmp_path, 6)
    case = open_case(str(fleet), str(job), "certified", str(measurement))
    with served(str(fleet), str(job), "--measurement", str(measurement)) as address:
        page, _ = open_page(browser, address)
        setting = what_if.start(case)
        wait_for_number(page, f"{what_if.solve(case, setting).plan.predicted_error:.4g}")
        page.get_by_role("slider", name="Phases").focus()
        page.keyboard.press("ArrowRight")
        setting = replace(setting, phases=2)
        wait_for_number(page, f"{what_if.solve(case, setting).plan.predicted_error:.4g}")
        # The budget is moved twice, the second time while the search of the first may still run.
        page.get_by_role("slider", name="Budget (cost)").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        costs = what_if.choices(case).cost
        setting = replace(setting, cost=costs[costs.index(setting.cost) - 2])
        wait_for_number(page, f"{what_if.solve(case, setting).plan.predicted_error:.4g}")
        # What is offered to take away comes with the best plan alone.
        page.get_by_role("button", name="Plan (JSON)").wait_for()
        page.get_by_text("A first plan, near the one before").wait_for(state="hidden")
        page.close()


@needs_streamlit
def test_a_plan_that_does_not_exist_says_why() -> None:
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(
        str(Path(explore_command.__file__).with_name("explore") / "page.py"), default_timeout=60
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["page.py", *FILES, "certified", ""])
        page.run()
        assert not page.exception
        (cost,) = [slider for slider in page.select_slider if slider.label == "Budget (cost)"]
        (left_out,) = page.multiselect
        left_out.set_value(list(range(24)))
        page.run()
    assert cost.value == 2_000_000.0
    assert [error.value for error in page.error] == [
        "No plan: devices: nobody of any weight is left to train"
    ]
