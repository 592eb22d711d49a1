"""The history of a Flower run is a table and a picture, as that of every other run."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("flwr")

from coopt.adapters.flower.result import CoOptResult, FlowerRound


def test_rounds_are_rows_and_a_picture():
    result = CoOptResult()
    assert result.to_rows() == []
    for number in range(3):
        result.rounds.append(
            FlowerRound(
                round=number,
                local_steps=5 - number,
                batch_sizes=(2, 6),
                learning_rate=0.1,
                sent=2,
                arrived=2,
                reports=2,
                late=0,
                train_loss=math.nan if number == 1 else 1.0 / (number + 1),
                cost=40.0 * (number + 1),
                seconds=3.0 * (number + 1),
            )
        )
    rows = result.to_rows()
    assert [row["round"] for row in rows] == [0, 1, 2] and rows[0]["mean_batch"] == 4.0
    assert "batch_sizes" not in rows[0]
    pytest.importorskip("matplotlib")
    text = result.plot().description
    assert "A run of 3 rounds" in text and "local steps 5 to 3" in text and "spent 120 and 9 s" in text
    assert repr(result.rounds[0]).startswith("FlowerRound(round=0, local_steps=5, batch_sizes=(2, 6)")
