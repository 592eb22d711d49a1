"""What the tests of all adapters share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_grid import FakeTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock of this process, which only sleeping moves from now on."""
    from fake_grid import install_clock  # here: it needs Flower, which not every test does

    return install_clock(monkeypatch)
