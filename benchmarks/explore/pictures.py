"""Draw the pictures of the what-if page that the documentation shows.

python -m benchmarks.explore.pictures        # half a minute; needs Debian's chromium
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.explore.served import chromium, measured_files, opened, served, settled

DOCS = Path(__file__).resolve().parents[2] / "docs" / "_static"


def main() -> None:
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        fleet, job, measurement = (str(path) for path in measured_files(Path(name), 24))
        with served(fleet, job, "--measurement", measurement) as address:
            page = opened(browser, address, viewport={"width": 1300, "height": 1180})
            budget, phases = (page.get_by_role("slider", name=label) for label in ("Budget (cost)", "Phases"))
            budget.focus()
            for _ in range(4):
                page.keyboard.press("ArrowLeft")
            settled(page)
            phases.focus()
            page.keyboard.press("ArrowRight")
            settled(page)
            # What takes longer is computed after the plan.
            page.wait_for_timeout(8000)
            settled(page)
            page.mouse.move(0, 0)
            page.screenshot(path=DOCS / "explore.png")
            narrow = opened(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark")
            narrow.screenshot(path=DOCS / "explore-narrow.png")


if __name__ == "__main__":
    main()
