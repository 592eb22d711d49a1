"""The driver of every best-first search, on small searches whose answers are known."""

from __future__ import annotations

import math
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.solvers.best_first import halves, lowest, search

values = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=40)


def loosened(numbers: list[float], low: int, high: int, loss: float) -> float:
    """A lower bound on some of the numbers, the looser the more there are."""
    return min(numbers[low : high + 1]) - loss * (high - low)


class Minimum:
    """The smallest of some numbers, by halving."""

    def __init__(self, numbers: list[float], loss: float) -> None:
        self.numbers, self.loss, self.best = numbers, loss, math.inf

    def roots(self) -> list[tuple[float, tuple[int, int]]]:
        return [(-math.inf, (0, len(self.numbers) - 1))]

    def branch(self, part, _bound):
        low, high = part
        if low == high:
            self.best = min(self.best, self.numbers[low])
            return [(self.numbers[low], None)]
        middle = (low + high) // 2
        both = (low, middle), (middle + 1, high)
        return [(loosened(self.numbers, *half, self.loss), half) for half in both]


@settings(deadline=None)
@given(values, st.sampled_from([0.0, 0.3, 100.0]))
def test_the_proof_meets_the_smallest_value(numbers, loss):
    problem = Minimum(numbers, loss)
    proof = search(problem.roots(), problem.branch, lambda: problem.best)
    assert problem.best == min(numbers)
    assert proof.finished
    assert min(proof.lower_bound, problem.best) == min(numbers)


@settings(deadline=None)
@given(values, st.sampled_from([0.0, 0.3, 100.0]), st.integers(0, 12))
def test_a_search_that_is_cut_short_claims_no_more_than_it_knows(numbers, loss, most):
    problem = Minimum(numbers, loss)
    proof = search(problem.roots(), problem.branch, lambda: problem.best, most_parts=most)
    assert proof.parts <= most
    assert min(proof.lower_bound, problem.best) <= min(numbers)
    if not proof.finished:
        assert proof.lower_bound < problem.best


def test_a_deadline_that_has_passed_leaves_the_bounds_of_the_roots():
    problem = Minimum([3.0, 1.0], 0.0)
    late = search([(0.5, (0, 0)), (0.25, (1, 1))], problem.branch, lambda: problem.best, time.perf_counter())
    assert (late.lower_bound, late.parts, late.finished) == (0.25, 0, False)


def test_no_roots_prove_that_there_is_nothing():
    proof = search([], Minimum([], 0.0).branch, lambda: math.inf)
    assert (proof.lower_bound, proof.parts, proof.finished) == (math.inf, 0, True)


def test_a_part_is_never_bounded_below_the_whole():
    proof = search([(2.0, "whole")], lambda _part, _bound: [(1.0, None)], lambda: math.inf)
    assert proof.lower_bound == 2.0


@settings(deadline=None)
@given(values, st.sampled_from([0.0, 0.3, 100.0]), st.integers(1, 5))
def test_the_lowest_values_come_in_order(numbers, loss, most):
    found = lowest(
        1,
        len(numbers),
        lambda low, high: (loosened(numbers, low - 1, high - 1, loss), f"{low} to {high}"),
        most,
    )
    assert [value for _, value, _ in found] == sorted(numbers)[:most]
    assert all(numbers[place - 1] == value for place, value, _ in found)
    assert all(data == f"{place} to {place}" for place, _, data in found)


def test_equal_values_everywhere_are_searched_in_depth():
    asked = []

    def within(low, high):
        asked.append((low, high))
        return 1.0, None

    assert lowest(1, 2**40, within) == [(1, 1.0, None)]
    assert len(asked) < 100


def test_ranges_without_any_use_are_passed_over():
    assert lowest(1, 9, lambda low, high: None if low <= 5 <= high else (0.0, None)) == []
    found = lowest(1, 9, lambda low, high: None if high < 5 else (float(max(low, 5)), None), 3)
    assert [place for place, _, _ in found] == [5, 6, 7]


@settings(deadline=None)
@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_halves_hold_the_whole_range(one, other):
    low, high = min(one, other), max(one, other) + 1
    (first, middle), (second, last) = halves(low, high)
    assert (first, last) == (low, high)
    assert first <= middle < second == middle + 1 <= last
