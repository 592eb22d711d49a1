from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import coopt
from coopt import InvalidProblemError, MeasurementWarning
from coopt.measuring.exchange import ClientMeasure, Message, measure_clients
from measuring.quadratics import LeastSquares

SIZES = [60, 45, 80, 20]
WRONG: Any = "text"


class Network:
    """Clients behind bytes, some of which fall silent after some messages."""

    def __init__(self, task: LeastSquares, silent_after: dict[int, int] | None = None) -> None:
        self.clients = [ClientMeasure(i, task.gradient, data) for i, data in enumerate(task.clients)]
        self.silent_after = silent_after or {}
        self.messages: list[tuple[str, list[int]]] = []

    def ask(self, message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
        self.messages.append((message.kind, list(asked)))
        sent = message.to_bytes()
        return [
            (i, Message.from_bytes(self.clients[i].answer(Message.from_bytes(sent)).to_bytes()))
            for i in reversed(asked)
            if len(self.messages) <= self.silent_after.get(i, 99)
        ]


def test_far_away_and_here_measure_the_same() -> None:
    task = LeastSquares.random(SIZES, 7)
    network = Network(task)
    far = measure_clients(network.ask, np.ones(7), SIZES, rows=8, directions=5)
    here = coopt.measure(task.gradient, np.ones(7), task.clients, rows=8, directions=5)
    compared = "gradients", "curvatures", "covariances", "noise", "divergence", "loss"
    for name in (*compared, "sample_curvature", "sample_curvatures"):
        np.testing.assert_allclose(getattr(far, name), getattr(here, name), rtol=1e-6, atol=1e-6)
    kinds = [kind for kind, _ in network.messages]
    assert kinds[0] == "gradient"
    assert kinds[-1] == "finish"
    assert kinds.count("product") in (5, 6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_messages_may_ride_on_rounds_that_train_the_model_meanwhile(kind: type) -> None:
    task = LeastSquares.random(SIZES, 7)
    model = np.ones(7, kind)
    network = Network(task)

    def round_of_training(message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
        answers = [(i, network.clients[i].answer(message)) for i in asked]
        for _ in range(3):
            model[:] = model - 0.01 * task.weights @ task.gradients(model)
        return answers

    riding = measure_clients(round_of_training, model, SIZES, rows=8, directions=5)
    assert np.abs(model - 1.0).max() > 0.1
    alone = measure_clients(Network(task).ask, np.ones(7, kind), SIZES, rows=8, directions=5)
    assert riding == alone


@pytest.mark.filterwarnings("ignore:.*(lies outside|fresh rows confirm):coopt.MeasurementWarning")
def test_single_precision_sends_half_the_bytes() -> None:
    task = LeastSquares.random(SIZES, 500)
    sizes = []

    def ask(message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
        sizes.append(len(message.to_bytes()))
        return [(i, network.clients[i].answer(message)) for i in asked]

    network = Network(task)
    found = measure_clients(ask, np.ones(500, np.float32), SIZES, directions=3)
    # How much a file of arrays says of itself differs between versions of numpy.
    assert max(sizes) < 4 * 500 + 1400
    assert "float32" in found.curvature_reason


@pytest.mark.filterwarnings("ignore:.*(lies outside|curves downwards):coopt.MeasurementWarning")
@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_who_stops_answering_takes_over_the_mean_of_the_others(after: int) -> None:
    task = LeastSquares.random(SIZES, 7)
    network = Network(task, {2: after})
    with pytest.warns(MeasurementWarning, match=r"1 of 4 .* left out \('c': it stopped answering\)"):
        found = measure_clients(network.ask, np.ones(7), SIZES, rows=8, directions=5, names=list("abcd"))
    assert found.measured.tolist() == [True, True, False, True]
    assert all(2 not in asked for _, asked in network.messages[after + 1 :])
    p = np.array(SIZES, dtype=float)[[0, 1, 3]]
    others = found.curvatures[[0, 1, 3]]
    np.testing.assert_allclose(found.curvatures[2], np.tensordot(p / p.sum(), others, axes=1), atol=1e-12)


def test_wrong_answers_count_as_none_and_no_answer_at_all_is_an_error() -> None:
    task = LeastSquares.random(SIZES, 3)
    network = Network(task)

    def wrong(message: Message, asked: Sequence[int]) -> list[tuple[int, Message]]:
        answers = dict(network.ask(message, asked))
        if 0 in answers:
            answers[0] = Message(message.kind, {"gradient": np.full(3, np.nan), "single": np.array(False)})
        return list(answers.items())

    with pytest.warns(MeasurementWarning, match=r"left out \(0: its gradient is not finite\)"):
        found = measure_clients(wrong, np.ones(3), SIZES)
    assert not found.measured[0]
    with pytest.raises(InvalidProblemError, match="no device answered a request for a gradient"):
        measure_clients(lambda message, asked: [], np.ones(3), SIZES)


def test_messages_out_of_order_and_bytes_that_are_none_are_refused() -> None:
    task = LeastSquares.random(SIZES, 3)
    client: Any = Network(task).clients[0]
    with pytest.raises(InvalidProblemError, match="client 0 is asked for a product before its gradient"):
        client.answer(Message("product", {}))
    for content in (b"", b"nonsense", Message("x", {}).to_bytes()[:-9]):
        with pytest.raises(InvalidProblemError, match="bytes are no message of a measurement"):
            Message.from_bytes(content)


def crafted(header: bytes, body: bytes = b"", flags: int = 0) -> bytes:
    """A message whose only array has this header."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("kind.npy", magic + header + body)
        archive.filelist[0].flag_bits |= flags
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        crafted(b"{[]: 1}"),
        crafted(b"(" * 200),
        crafted(b"{'a': \n  1\n 2"),
        crafted(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,), }"),
        crafted(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"),
        crafted(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-4,), }"),
        crafted(b"{'descr': '|O', 'fortran_order': False, 'shape': (), }", b"\x80\x04N."),
        crafted(b"{'descr': '<f8', 'fortran_order': False, 'shape': (), }", bytes(8), flags=1),
        Message("product", {"direction": np.array(["a"])}).to_bytes(),
        Message("product", {f"v{i}": np.ones(1) for i in range(40)}).to_bytes(),
    ],
)
def test_messages_made_to_mislead_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidProblemError) as refused:
        Message.from_bytes(content)
    assert len(str(refused.value)) < 2000


def test_compressed_and_long_messages_are_not_read() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, kind=np.array("product"), direction=np.zeros(10**6))
    with pytest.raises(InvalidProblemError, match="not stored as it is"):
        Message.from_bytes(stream.getvalue())
    content = Message("product", {"direction": np.ones(1000)}).to_bytes()
    with pytest.raises(InvalidProblemError, match="1000 at most are read"):
        Message.from_bytes(content, most_bytes=1000)
    with pytest.raises(InvalidProblemError, match="content"):
        Message.from_bytes(WRONG)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("training", {}),
        ("product", {"direction": np.ones(3)}),
        ("product", {"place": np.array(7)}),
        ("product", {"step": np.array(0.0)}),
        ("product", {"step": np.array(np.nan)}),
        ("finish", {"single": np.ones(2, dtype=bool)}),
        ("gradient", {"seed": np.array(-1)}),
        ("gradient", {"parameters": np.ones((2, 2))}),
        ("gradient", {"rows": np.array("x")}),
    ],
)
def test_a_device_refuses_what_it_cannot_answer(kind: str, wrong: dict[str, np.ndarray]) -> None:
    client = ClientMeasure(0, lambda w, x: (0.0, w), np.ones((9, 2)))
    right = {
        "gradient": {"parameters": np.ones(2), "rows": np.array(4), "seed": np.array(0)},
        "product": {"direction": np.ones(2), "place": np.array(0), "step": np.array(0.1)},
        "finish": {"single": np.array(False)},
        "training": {},
    }
    client.answer(Message("gradient", right["gradient"]))
    with pytest.raises(InvalidProblemError, match="client 0"):
        client.answer(Message(kind, right[kind] | wrong))
