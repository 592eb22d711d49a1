"""The devices of a federation as a measurement sees them: asked by messages, believed after a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coopt.errors import InvalidProblemError
from coopt.measuring.answers import (
    FAR,
    First,
    Form,
    contradiction,
    far_findings,
    far_gradients,
    far_vectors,
    findings_form,
    gradient_form,
    product_form,
)
from coopt.measuring.basis import Basis
from coopt.measuring.device_gradients import Findings
from coopt.measuring.differences import Start
from coopt.measuring.message import Message
from coopt.measuring.prepare import Survey

Vector = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]
Ask = Callable[[Message, Sequence[int]], Iterable[tuple[int, Message]]]


class FarDevices:
    """Devices that are asked by messages."""

    def __init__(
        self, ask: Ask, model: NDArray[Any], survey: Survey, seed: int, advance: Callable[[int], object]
    ) -> None:
        self._ask, self._model, self._survey, self._seed, self._advance = ask, model, survey, seed, advance
        self._counts = survey.shares.counts
        self.answering = np.ones(len(self._counts), dtype=bool)
        self.left_out: dict[int, str] = {}
        self.samples_used = 0
        self._mean, self._first = np.zeros(0), dict[int, First]()

    def start(self) -> Start:
        """Take the gradient at the model."""
        wanted = [len(rows.first) for rows in self._survey.rows]
        told = np.array(max(wanted))
        if min(wanted) < max(wanted):
            told = np.zeros(len(self._survey.samples), dtype=np.int64)
            told[self._survey.shares.measured] = wanted
        values = {"parameters": self._model, "rows": told, "seed": np.array(self._seed)}
        size = self._model.size
        answers, counts = self._send(
            Message("gradient", values),
            gradient_form(size),
            lambda found: far_gradients([each["gradient"].astype(np.float64) for each in found]),
        )
        mix = np.random.default_rng(0).normal(size=len(answers))
        gradients = [answer.values["gradient"].astype(np.float64) for answer in answers]
        self._mean = _average(counts, gradients)
        unit = self._mean / max(float(np.linalg.norm(self._mean)), np.finfo(np.float64).tiny)
        for place, answer, g in zip(np.flatnonzero(self.answering).tolist(), answers, gradients, strict=True):
            self._first[place] = First(float(answer.values["loss"]), float(g @ g), float(g @ unit))
        return Start(
            mean=self._mean,
            spare=_average(counts * mix, gradients),
            squares=np.array([float(g @ g) for g in gradients]),
            counts=counts,
            single=all(bool(answer.values["single"]) for answer in answers),
        )

    def difference(self, basis: Basis, step: float) -> Vector:
        """Average of the change of the gradients along the last direction, divided by the step."""
        values = {
            "direction": basis.last.astype(self._model.dtype),
            "place": np.array(len(basis.vectors) - 1),
            "step": np.array(step),
        }
        answers, counts = self._send(
            Message("product", values),
            product_form(self._model.size),
            lambda found: far_vectors([each["product"].astype(np.float64) for each in found], FAR),
        )
        return _average(counts, [answer.values["product"].astype(np.float64) for answer in answers])

    def finish(self, basis: Vector, steps: Sequence[float], single: bool) -> tuple[list[Findings], Vector]:
        """What each device has found, and their weights."""
        answers, counts = self._send(
            Message("finish", {"single": np.array(single)}),
            findings_form(self._model.size, len(basis)),
            far_findings,
            lambda place, told: (
                contradiction(told) or self._first[place].contradiction(told, self._mean, basis[0])
            ),
        )
        self.samples_used = sum(int(answer.values["used"]) for answer in answers)
        findings = []
        for answer in answers:
            told: dict[str, Any] = {
                field.name: answer.values[field.name].astype(np.float64) for field in fields(Findings)
            }
            told |= {name: float(told[name]) for name in ("loss", "square", "noise")}
            findings.append(Findings(**told))
        return findings, counts

    def _send(
        self,
        message: Message,
        form: Form,
        far: Callable[[Sequence[Values]], NDArray[np.bool_]],
        contradiction: Callable[[int, Values], str] = lambda *_: "",
    ) -> tuple[list[Message], Vector]:
        """Ask who still answers; the believed answers in the order of the devices, and the weights of those.

        Parameters
        ----------
        message : Message
        form : Form
            What an answer has to hold.
        far : callable
            Marks the answers that are far from all others.
        contradiction : callable, optional
            Says what in the answer of a device, by its place, cannot be.
        """
        measured = self._survey.shares.measured
        asked = np.flatnonzero(self.answering).tolist()
        came = dict(self._ask(message, measured[asked].tolist()))
        answers: dict[int, Message] = {}
        for place in asked:
            answer = came.get(int(measured[place]))
            if answer is None or answer.kind != message.kind:
                why = "it stopped answering"
            else:
                why = form.fault(answer.values) or contradiction(place, answer.values)
            if answer is None or why:
                self._leave_out(place, why)
            else:
                answers[place] = answer
        places = np.array(list(answers), dtype=np.int64)
        if answers:
            places = places[far([answer.values for answer in answers.values()])]
        for place in places.tolist():
            self._leave_out(place, f"its {message.kind} is far from those of all others")
            del answers[place]
        counts = self._counts[self.answering]
        if not counts.sum() > 0.0:
            raise InvalidProblemError(
                f"no device answered a request for a {message.kind}: nothing was measured"
            )
        self._advance(1)
        return list(answers.values()), counts / counts.sum()

    def _leave_out(self, place: int, why: str) -> None:
        self.answering[place], self.left_out[place] = False, why


def _average(counts: Vector, vectors: list[Vector]) -> Vector:
    return sum((c * v for c, v in zip(counts, vectors, strict=True)), np.zeros_like(vectors[0]))
