"""The what-if page, served for a measured federation, and a browser that opens it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tomli_w

import coopt
from coopt import Fleet
from coopt.adapters.simulated import Softmax, digits

# As a browser in a container starts, and without a request of its own to anywhere.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NUMBER = "[data-testid=stMetricValue]"


def measured_files(folder: Path, devices: int) -> tuple[Path, Path, Path]:
    """A fleet, a job and a measurement: handwritten digits on devices that differ in speed."""
    model, data = Softmax(features=64, classes=10), digits(devices=devices)
    found = coopt.measure(model.gradient, model.start(), data.clients, progress=False)
    rng = np.random.default_rng(0)
    fleet: Fleet = found.fleet(
        names=[f"device {place + 1}" for place in range(devices)],
        throughput=np.round(np.exp(rng.uniform(np.log(20), np.log(400), size=devices))),
        round_time=np.round(np.exp(rng.uniform(np.log(1), np.log(6), size=devices)), 1),
    )
    constants = {key: value for key, value in asdict(found.constants(0.5)).items() if value is not None}
    files = folder / "fleet.csv", folder / "job.toml", folder / "measurement.npz"
    fleet.to_csv(files[0])
    job = {"constants": constants, "budget": {"cost": 150_000, "time": 3600}}
    files[1].write_text(tomli_w.dumps(job), encoding="utf-8")
    found.save(files[2])
    return files


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The address of the page, which `coopt explore` serves until the block ends."""
    call = [sys.executable, "-c", "import sys; from coopt.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*call, "explore", *arguments, "--no-browser"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        try:
            yield found[0]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


@contextmanager
def chromium():
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        yield browser
        browser.close()


def opened(browser, address: str, **options):
    """The page once all of it is drawn."""
    page = browser.new_page(**options)
    visit(page, address)
    settled(page)
    return page


def visit(page, address: str) -> None:
    """Go to an address, once the server listens, which takes a moment."""
    page.set_default_timeout(60_000)
    for _ in range(100):
        try:
            page.goto(address)
            break
        except Exception as error:
            if "ERR_CONNECTION_REFUSED" not in str(error):
                raise
            page.wait_for_timeout(200)


def settled(page) -> None:
    """Wait until the last picture is there, and nothing runs."""
    page.get_by_label(re.compile("Smallest .* over deadline")).wait_for()
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(700)
