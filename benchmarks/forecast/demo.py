"""What `coopt demo` finds, kept for the README: the table and the picture.

python -m benchmarks.forecast.demo      # under a minute
"""

from __future__ import annotations

import json
from pathlib import Path

from coopt.cli.demo import demonstrate, draw, facts, print_demonstration
from coopt.plans.plot import save_figure

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[2] / "docs" / "_static" / "demo.png"


def main() -> None:
    shown = demonstrate()
    print_demonstration(shown)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo.json").write_text(json.dumps(facts(shown), indent=1) + "\n", encoding="utf-8")
    save_figure(draw(shown), PICTURE)


if __name__ == "__main__":
    main()
