"""Names that are unknown are refused with the ones that were meant."""

from __future__ import annotations

import re

import pytest

from coopt import InvalidProblemError
from coopt.problem.files import FLEET_FIELDS, SECTIONS
from coopt.problem.known_names import ALSO_CALLED, refuse_unknown

VALID = ("names", "samples", "divergence", "throughput", "round_time", "max_batch")


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        (["device"], "'device' is unknown: did you mean 'names'?"),
        (["Num Examples"], "'Num Examples' is unknown: did you mean 'samples'?"),
        (["thruput"], "'thruput' is unknown: did you mean 'throughput'?"),
        (["colour"], f"'colour' is unknown: valid are {', '.join(VALID)}"),
        (["speed", "colour"], f"'speed' and 'colour' are unknown: valid are {', '.join(VALID)}"),
        (
            ["id", "rows", "speed", "upload"],
            "'id', 'rows', 'speed' and 1 more are unknown: did you mean 'names',",
        ),
    ],
)
def test_what_was_meant_is_named(unknown: list[str], said: str) -> None:
    with pytest.raises(InvalidProblemError, match=re.escape(f"here: {said}")):
        refuse_unknown([*VALID, *unknown], VALID, "here")


def test_other_names_are_names_of_fields_and_of_no_other_field() -> None:
    fields = {*FLEET_FIELDS, *(name for part in SECTIONS.values() for name in part.__dataclass_fields__)}
    assert set(ALSO_CALLED) <= fields
    refuse_unknown(VALID, VALID, "here")
