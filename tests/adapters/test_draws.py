"""Mini-batches are a function of seed, round, client and step, and as random as the noise model needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.adapters.draws import draw_positions

counts = st.integers(0, 2**53)


@settings(max_examples=60, deadline=None)
@given(
    seed=counts,
    round_=counts,
    clients=st.lists(st.tuples(counts, st.integers(1, 60)), min_size=1, max_size=5),
    steps=st.integers(1, 4),
    size=st.integers(1, 20),
    replacement=st.booleans(),
)
def test_a_client_draws_the_same_whoever_else_draws(
    seed: int, round_: int, clients: list[tuple[int, int]], steps: int, size: int, replacement: bool
) -> None:
    index, samples = zip(*clients, strict=True)
    size = size if replacement else min(size, *samples)
    together = draw_positions(
        seed, round_, index, samples, steps=np.arange(steps), sizes=size, replacement=replacement
    )
    assert together.shape == (len(clients), steps, size)
    assert (together >= 0).all() and (together < np.array(samples)[:, None, None]).all()
    for row, (client, held) in zip(together, clients, strict=True):
        for step in range(steps):
            less = max(1, size - 1)
            alone = draw_positions(
                seed, round_, client, held, steps=step, sizes=less, replacement=replacement
            )
            assert (alone[0, 0] == row[step, :less]).all()
            if not replacement:
                assert len(set(row[step].tolist())) == size


def test_numbers_are_those_of_splitmix64() -> None:
    """Of the key (0, 0, 0), against the algorithm written out in Python integers."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    assert mix(gamma) == 0xE220A8397B1DCDAF  # the first number of the published generator, seeded by 0
    key = 0
    for part in (0, 0, 0):
        key = mix((key + gamma * (part + 1)) & mask)
    expected = [(mix((key + gamma * (k + 1)) & mask) >> 32) * 1000 >> 32 for k in range(50)]
    assert draw_positions(0, 0, 0, 1000, steps=0, sizes=50)[0, 0].tolist() == expected


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("vary", ["seed", "round", "client", "step", "slot"])
def test_positions_are_uniform_and_independent_along_every_argument(vary: str, replacement: bool) -> None:
    n, samples = 20_000, 10
    if vary in ("seed", "round"):
        drawn = np.concatenate(
            [
                draw_positions(
                    *((k, 7) if vary == "seed" else (7, k)),
                    3,
                    samples,
                    steps=0,
                    sizes=1,
                    replacement=replacement,
                ).ravel()
                for k in range(n // 10)
            ]
        )
    elif vary == "client":
        drawn = draw_positions(
            1, 2, np.arange(n), np.full(n, samples), steps=0, sizes=1, replacement=replacement
        ).ravel()
    elif vary == "step":
        drawn = draw_positions(1, 2, 3, samples, steps=np.arange(n), sizes=1, replacement=replacement).ravel()
    else:
        size = n if replacement else samples
        drawn = draw_positions(
            1, 2, 3, samples, steps=np.arange(n // size), sizes=size, replacement=replacement
        ).ravel()
    # 27.9 is exceeded once in a thousand by chi-square with 9 degrees of freedom; the seeds are fixed.
    observed = np.bincount(drawn, minlength=samples)
    assert np.sum((observed - len(drawn) / samples) ** 2 / (len(drawn) / samples)) < 27.9
    if replacement:
        pairs = np.bincount(drawn[:-1] * samples + drawn[1:], minlength=samples**2)
        expected = (len(drawn) - 1) / samples**2
        assert np.sum((pairs - expected) ** 2 / expected) < 149  # once in a thousand, 99 degrees of freedom
