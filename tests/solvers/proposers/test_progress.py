"""Which way a bound progresses in, and the number of steps that is best for it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import Budget, Certified, Constants, Dynamite, Fleet, NonConvex, Problem, SolverError
from coopt.objectives.progress import ExponentialProgress, SublinearProgress
from coopt.solvers.proposers.progress import best_steps, progress_of, value_after

positive = st.floats(-3.0, 2.0).map(lambda exponent: 10.0**exponent)
exponential = st.builds(lambda rate, gap: ExponentialProgress(np.array([-rate]), gap), positive, positive)
sublinear = positive.map(lambda rate: SublinearProgress(np.array([rate])))
PROBLEM = Problem(
    Fleet(samples=[60, 20], gradient_noise=4.0, divergence=0.1),
    Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5),
    Budget(cost=1000.0),
)


@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        (Certified(1, 1), ExponentialProgress),
        (Dynamite(), ExponentialProgress),
        (NonConvex(1, 1), SublinearProgress),
    ],
)
def test_progress_is_read_off_the_form(bound, kind):
    form = bound.monotone_form(PROBLEM)
    found = progress_of(form, "cvxpy")
    assert type(found) is kind
    steps, member = np.array([1.0, 5.0, 300.0]), np.zeros(1, dtype=np.intp)
    for got, want in zip(found(steps, member), form.progress(steps, member), strict=True):
        assert got == pytest.approx(want, rel=1e-12)


def test_another_progress_is_refused_by_the_name_of_the_solver():
    def progress(steps, _active):
        return 1.0 / np.sqrt(steps)[None], np.ones((1, len(steps)))

    form = SimpleNamespace(progress=progress, members=(SimpleNamespace(name="root"),))
    with pytest.raises(
        SolverError, match="'cvxpy' knows geometric and reciprocal progress, and bound 'root'"
    ):
        progress_of(form, "cvxpy")


@settings(deadline=None)
@given(
    progress=st.one_of(exponential, sublinear),
    offset=st.one_of(st.just(0.0), positive),
    amount=st.one_of(st.just(0.0), positive),
    share=st.one_of(st.just(0.0), positive),
    factor=st.floats(0.0, 3.0),
)
def test_no_other_number_of_steps_is_better(progress, offset, amount, share, factor):
    def value(steps: float) -> float:
        left = 1.0 - share * steps
        noise = 0.0 if amount == 0.0 else amount * steps / left if left > 0.0 else math.inf
        return value_after(progress, steps, offset, noise)

    best = best_steps(progress, offset, amount, share)
    if best == math.inf or (share and best >= 1.0 / share):
        # Only rounds cost anything: as many steps as they leave.
        assert amount == 0.0
        return
    other = best * factor
    assert value(best) <= value(other) * (1.0 + 1e-9)
