"""Buffers, arrival processes and the bias of a bounded buffer, against simulation and exact sums."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt import streaming
from coopt.errors import InvalidProblemError
from coopt.streaming import Buffer, Fifo, RandomReplacement, Reservoir

KINDS = {"reservoir": Reservoir, "random": RandomReplacement, "fifo": Fifo}
FALSE_ALARM = 1e-6  # probability that a correct buffer fails one of the simulations below


def simulate(kind: str, capacity: int, arrivals: int, runs: int, seed: int) -> np.ndarray:
    """Which arrivals are held at the end, shape (runs, arrivals)."""
    held = np.zeros((runs, arrivals), dtype=bool)
    rng = np.random.default_rng(seed)
    for run in range(runs):
        buffer = KINDS[kind](capacity, seed=rng)
        buffer.insert(np.arange(arrivals))
        held[run, buffer.items] = True
    return held


def assert_binomial(count: np.ndarray, runs: int, probability: np.ndarray) -> None:
    """Two-sided normal test of every count, Bonferroni-corrected; certain events must be certain."""
    sure = (probability == 0) | (probability == 1)
    np.testing.assert_array_equal(count[sure], runs * probability[sure])
    p, c = probability[~sure], count[~sure]
    z = (c - runs * p) / np.sqrt(runs * p * (1 - p))
    limit = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * max(len(z), 1)))
    assert np.abs(z).max(initial=0.0) <= limit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("capacity", "arrivals"), [(1, 12), (6, 30), (5, 5), (7, 4), (10, 60)])
def test_inclusion_probabilities_match_simulation(kind: str, capacity: int, arrivals: int) -> None:
    runs = 3000
    held = simulate(kind, capacity, arrivals, runs, seed=capacity * 1000 + arrivals)
    probability = streaming.inclusion_probability(kind, capacity, arrivals)
    # Unlikely arrivals break the normal approximation of the binomial: keep those with ten hits expected.
    usable = (probability * runs >= 10) | (probability == 0)
    assert_binomial(held.sum(axis=0)[usable], runs, probability[usable])


def test_reservoir_pairs_are_as_likely_as_in_a_uniform_sample() -> None:
    capacity, arrivals, runs = 5, 14, 6000
    held = simulate("reservoir", capacity, arrivals, runs, seed=11).astype(np.int64)
    pairs = (held.T @ held)[np.triu_indices(arrivals, 1)]
    probability = capacity * (capacity - 1) / (arrivals * (arrivals - 1))
    assert_binomial(pairs, runs, np.full(len(pairs), probability))


def test_a_wrong_buffer_would_be_caught() -> None:
    held = simulate("random", 6, 30, 3000, seed=3)
    with pytest.raises(AssertionError):
        assert_binomial(held.sum(axis=0), 3000, streaming.inclusion_probability("reservoir", 6, 30))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    capacity=st.integers(1, 9),
    blocks=st.lists(st.integers(0, 25), max_size=8),
    seed=st.integers(0, 2**32),
)
def test_the_blocks_of_a_stream_do_not_matter(kind: str, capacity: int, blocks: list[int], seed: int) -> None:
    total = sum(blocks)
    whole, parts = KINDS[kind](capacity, seed=seed), KINDS[kind](capacity, seed=seed)
    whole.insert(np.arange(total))
    for start, size in zip(np.cumsum([0, *blocks]), blocks, strict=False):
        parts.insert(np.arange(start, start + size))
    assert len(whole) == min(total, capacity) and whole.arrivals == total
    np.testing.assert_array_equal(whole.items, parts.items)
    assert len(set(whole.items.tolist())) == len(whole)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    capacity=st.integers(1, 9),
    before=st.integers(0, 60),
    after=st.integers(0, 60),
)
def test_a_checkpoint_goes_on_bit_for_bit(kind: str, capacity: int, before: int, after: int) -> None:
    first = KINDS[kind](capacity, seed=5)
    first.insert(np.arange(before))
    state = first.state_dict()
    second = KINDS[kind](capacity, seed=99)
    second.load_state_dict(state)
    for buffer in (first, second):
        buffer.insert(np.arange(before, before + after))
    np.testing.assert_array_equal(first.items, second.items)
    last, other = (json.dumps(buffer.state_dict(), default=np.ndarray.tolist) for buffer in (first, second))
    assert last == other


@pytest.mark.parametrize("kind", KINDS)
def test_payload_may_be_arrays(kind: str) -> None:
    rows = np.arange(80, dtype=np.float32).reshape(20, 2, 2)
    by_value, by_index = KINDS[kind](4, seed=1), KINDS[kind](4, seed=1)
    by_value.insert(rows)
    by_index.insert(np.arange(20))
    np.testing.assert_array_equal(by_value.items, rows[by_index.items])
    assert by_value.items.dtype == np.float32


def test_items_cannot_be_changed_from_outside() -> None:
    buffer = Fifo(3, seed=0)
    assert buffer.items.shape == (0,)
    buffer.insert([1, 2])
    with pytest.raises(ValueError, match="read-only"):
        buffer.items[0] = 9
    buffer.insert([3, 4])
    assert sorted(buffer.items.tolist()) == [2, 3, 4]


def test_reservoir_work_does_not_grow_with_the_stream() -> None:
    class Counting(np.random.Generator):
        draws = 0

        def integers(self, *args: int) -> np.int64:
            Counting.draws += 1
            return super().integers(*args)

    buffer = Reservoir(50, seed=Counting(np.random.PCG64(4)))
    buffer.insert(np.arange(2_000_000))
    expected = 50 * math.log(2_000_000 / 50)
    assert Counting.draws < expected + 6 * math.sqrt(expected)


@pytest.mark.parametrize("bad", [0, -1, 2.5])
def test_capacity_is_checked(bad: float) -> None:
    with pytest.raises(InvalidProblemError, match="capacity"):
        Fifo(bad, seed=0)


def test_blocks_and_states_are_checked() -> None:
    buffer: Buffer = Fifo(3, seed=0)
    buffer.insert([1, 2])
    with pytest.raises(InvalidProblemError, match="shape"):
        buffer.insert([[1, 2]])
    with pytest.raises(InvalidProblemError, match="type"):
        buffer.insert([0.5])
    with pytest.raises(InvalidProblemError, match="scalar"):
        buffer.insert(3)
    with pytest.raises(InvalidProblemError, match="capacity = 3"):
        Fifo(4, seed=0).load_state_dict(buffer.state_dict())
    with pytest.raises(InvalidProblemError, match="name = 'fifo'"):
        Reservoir(3, seed=0).load_state_dict(buffer.state_dict())


@given(kind=st.sampled_from(sorted(KINDS)), capacity=st.integers(1, 60), arrivals=st.integers(1, 400))
def test_total_variation_is_the_sum_over_arrivals(kind: str, capacity: int, arrivals: int) -> None:
    inclusion = streaming.inclusion_probability(kind, capacity, arrivals)
    assert inclusion.sum() == pytest.approx(min(capacity, arrivals))
    exact = 0.5 * np.abs(inclusion / inclusion.sum() - 1 / arrivals).sum()
    assert streaming.total_variation(kind, capacity, arrivals) == pytest.approx(exact, abs=1e-12)


@given(capacity=st.integers(2, 300), factor=st.floats(1.01, 50))
def test_random_replacement_lies_between_reservoir_and_fifo(capacity: int, factor: float) -> None:
    arrivals = math.ceil(capacity * factor)
    middle = streaming.total_variation("random", capacity, arrivals)
    assert 0 <= middle < streaming.total_variation("fifo", capacity, arrivals)


def test_random_replacement_tends_to_its_limit() -> None:
    x = 4.0
    limit = 1 - (1 + math.log(x)) / x
    assert streaming.total_variation("random", 10**6, 4 * 10**6) == pytest.approx(limit, rel=1e-5)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    capacity=st.integers(1, 20),
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
)
def test_groups_are_never_further_apart_than_arrivals(kind: str, capacity: int, labels: list[int]) -> None:
    inclusion = streaming.inclusion_probability(kind, capacity, len(labels))
    by_group = streaming.group_total_variation(inclusion, labels)
    assert by_group <= streaming.total_variation(kind, capacity, len(labels)) + 1e-12
    assert streaming.group_total_variation(inclusion, np.zeros(len(labels))) == pytest.approx(0, abs=1e-12)


@given(turnover=st.floats(0, 1e6))
def test_variance_factors_are_ordered(turnover: float) -> None:
    fifo, random, reservoir = (
        streaming.variance_factor(kind, turnover) for kind in ("fifo", "random", "reservoir")
    )
    assert 0 <= fifo <= random + 1e-15 and random <= reservoir == 1


def test_variance_factor_has_no_step_at_the_series_limit() -> None:
    below, above = (
        streaming.variance_factor("fifo", 0.9999999e-4),
        streaming.variance_factor("fifo", 1.0000001e-4),
    )
    assert above - below == pytest.approx(1e-11, rel=0.3)
    assert streaming.variance_factor("fifo", math.inf) == 1


@pytest.mark.parametrize("kind", ["random", "fifo"])
def test_variance_factor_matches_simulation(kind: str) -> None:
    """Linear model w <- w - x (w - mean of the buffer), one arrival per step: variance relative to 1/B."""
    capacity, x, steps, runs = 20, 0.05, 1500, 400
    rng = np.random.default_rng(8)
    store = rng.standard_normal((runs, capacity))
    w, rows = np.zeros(runs), np.arange(runs)
    for step in range(steps):
        slot = step % capacity if kind == "fifo" else rng.integers(capacity, size=runs)
        store[rows, slot] = rng.standard_normal(runs)
        w += x * (store.mean(axis=1) - w)
    measured = w.var() * capacity
    # The variance of `runs` Gaussian samples has relative deviation sqrt(2/runs) = 7 %: five of them.
    assert measured == pytest.approx(streaming.variance_factor(kind, x * capacity), rel=0.35)


@given(
    diameter=st.one_of(st.just(0.0), st.floats(1e-6, 10)),
    variance=st.one_of(st.just(0.0), st.floats(1e-6, 10)),
    capacity=st.integers(1, 1000),
    turnover=st.floats(0, 10),
    arrivals=st.integers(1, 3000),
)
def test_the_reservoir_wins_exactly_by_the_rule(
    diameter: float, variance: float, capacity: int, turnover: float, arrivals: int
) -> None:
    distances = {kind: streaming.total_variation(kind, capacity, arrivals) for kind in KINDS}
    advice = streaming.recommend_sampler(
        gradient_diameter=diameter,
        distances=distances,
        sample_variance=variance,
        capacity=capacity,
        turnover=turnover,
    )
    better = [
        kind
        for kind in ("random", "fifo")
        if diameter**2 * distances[kind] ** 2
        < variance / capacity * (1 - streaming.variance_factor(kind, turnover)) * (1 - 1e-12) - 1e-300
    ]
    worse = advice.squared_error["reservoir"] * (1 - 1e-9) > advice.squared_error[advice.sampler]
    assert not worse or better
    assert advice.squared_error[advice.sampler] == min(advice.squared_error.values())


def test_streaming_inputs_are_checked() -> None:
    with pytest.raises(InvalidProblemError, match="sampler = 'lifo'"):
        streaming.total_variation("lifo", 3, 4)
    with pytest.raises(InvalidProblemError, match="capacity = 0"):
        streaming.inclusion_probability("fifo", 0, 4)
    with pytest.raises(InvalidProblemError, match="arrivals = 0"):
        streaming.inclusion_probability("fifo", 3, 0)
    with pytest.raises(InvalidProblemError, match="turnover"):
        streaming.variance_factor("fifo", math.nan)
    good = {"gradient_diameter": 1.0, "sample_variance": 1.0, "capacity": 2, "turnover": 1.0}
    with pytest.raises(InvalidProblemError, match="sample_variance = -1"):
        streaming.recommend_sampler(**{**good, "sample_variance": -1.0}, distances={"fifo": 0.1})
    with pytest.raises(InvalidProblemError, match="empty"):
        streaming.recommend_sampler(**good, distances={})
    with pytest.raises(InvalidProblemError, match=r"distances\['fifo'\] = 2"):
        streaming.recommend_sampler(**good, distances={"fifo": 2.0})
    with pytest.raises(InvalidProblemError, match="drift = 2"):
        streaming.stream_order([0, 1], 2.0, seed=0)


@settings(deadline=None)
@given(
    process=st.one_of(
        st.builds(streaming.Smooth, st.integers(0, 500), every=st.integers(1, 9)),
        st.builds(streaming.Burst, st.integers(0, 500), at=st.integers(0, 60)),
        st.builds(streaming.Poisson, st.floats(0, 50)),
        st.builds(streaming.FixedCount, st.integers(9, 500), arrivals=st.integers(1, 9)),
        st.builds(streaming.Replay, st.lists(st.integers(0, 9), max_size=60).map(tuple)),
    ),
    rounds=st.integers(10, 60),
    seed=st.integers(0, 2**32),
)
def test_arrivals_are_counts_and_repeatable(
    process: streaming.ArrivalProcess, rounds: int, seed: int
) -> None:
    counts = process.counts(rounds, seed)
    assert counts.shape == (rounds,) and counts.dtype == np.int64 and counts.min() >= 0
    np.testing.assert_array_equal(counts, process.counts(rounds, seed))
    if isinstance(process, streaming.FixedCount):
        assert counts.sum() == process.total and (counts > 0).sum() == process.arrivals
    if isinstance(process, streaming.Smooth):
        assert counts.sum() == process.amount * ((rounds - 1) // process.every)


def test_poisson_arrivals_have_mean_and_variance_of_the_rate() -> None:
    counts = streaming.Poisson(4.0).counts(20_000, seed=1)
    assert counts.mean() == pytest.approx(4, abs=5 * math.sqrt(4 / 20_000))
    assert counts.var() == pytest.approx(4, abs=5 * math.sqrt((4 + 2 * 16) / 20_000))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: streaming.Smooth(-1), "amount"),
        (lambda: streaming.Smooth(1, every=0), "every"),
        (lambda: streaming.Burst(1, at=-2), "at"),
        (lambda: streaming.Poisson(math.nan), "rate"),
        (lambda: streaming.FixedCount(3, arrivals=4), "total"),
        (lambda: streaming.Replay((1, -1)), r"trace\[1\]"),
        (lambda: streaming.FixedCount(9, arrivals=4).counts(3, seed=0), "rounds = 3"),
    ],
)
def test_arrival_processes_are_checked(build: object, word: str) -> None:
    with pytest.raises(InvalidProblemError, match=word):
        build()


@given(labels=st.lists(st.integers(0, 4), max_size=60), drift=st.floats(0, 1), seed=st.integers(0, 99))
def test_stream_orders_are_permutations(labels: list[int], drift: float, seed: int) -> None:
    order = streaming.stream_order(labels, drift, seed=seed)
    assert sorted(order) == list(range(len(labels)))
    if drift == 1:
        assert np.all(np.diff(np.asarray(labels)[order]) >= 0)


def test_drift_orders_the_classes_more_and_more() -> None:
    labels = np.repeat(np.arange(5), 400)
    agreement = [
        np.corrcoef(labels[streaming.stream_order(labels, drift, seed=2)], np.arange(2000))[0, 1]
        for drift in (0.0, 0.3, 0.6, 1.0)
    ]
    assert abs(agreement[0]) < 5 / math.sqrt(2000)
    assert np.all(np.diff(agreement) > 0.1)
