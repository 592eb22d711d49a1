"""Compiled loops do what their forms in numpy do, and what they learn of a problem holds."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from importlib import util

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coopt import (
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InfeasibleError,
    MissingDependencyError,
    NonConvex,
    Problem,
    SolverError,
    limits,
    loops,
    solve_allocation,
)
from coopt.drift import sums_on_grid
from coopt.loops import interpreted
from coopt.solvers import passes
from coopt.solvers.batch import relax
from coopt.solvers.passes import Devices, Pace
from coopt.solvers.ranges import feasible_ranges
from coopt.solvers.streamed import Streamed
from problems import family_bounds, feasible_pairs, numeric_bounds, problems

if loops.loops() is None:
    pytest.skip("no compiled loops: needs the extra `fast`, and `coopt compile`", allow_module_level=True)

from coopt.compiled import drift, inner, search
from coopt.compiled import passes as compiled_passes
from coopt.solvers import sweep
from coopt.solvers.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore::coopt.BoundWarning")


def devices_of(seed: int, size: int, plain: bool) -> Devices:
    """Devices of every kind: scalars, multiples, populations, infinite speed, no noise."""
    rng = np.random.default_rng(seed)
    upper = rng.integers(4, 2000, size).astype(float)
    if plain:
        return passes.alone(rng.lognormal(0, 1, size), np.ones(1), np.ones(1), upper)
    return Devices(
        first=rng.lognormal(0, 1, size) * rng.integers(0, 2, size),
        second=rng.lognormal(0, 1, size),
        cost=rng.choice([0.5, 2.0], size),
        lower=np.minimum(rng.integers(1, 3, size) * 2.0, upper),
        upper=upper,
        multiple=rng.choice([1, 2], size),
        population=upper.astype(np.int64),
        throughput=rng.choice([1.0, 30.0, math.inf], size),
        round_time=rng.choice([0.0, 0.5, 4.0], size),
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([1, 2, 7, 511, 512, 513, 1500]),
    plain=st.booleans(),
    exponent=st.floats(-3.0, 3.0),
    share=st.floats(0.0, 1.0),
    slack=st.one_of(st.none(), st.floats(0.0, 100.0)),
)
def test_a_pass_sums_what_numpy_sums(seed, size, plain, exponent, share, slack):
    devices, level = devices_of(seed, size, plain), 10.0**exponent
    pace = None if slack is None else Pace(slack, 3.0)
    batches = np.empty((2, size))
    found = passes.dual(devices, (1.0 - share, share), level, level**-2.0, pace, batches[0])
    with interpreted():
        expected = passes.dual(devices, (1.0 - share, share), level, level**-2.0, pace, batches[1])
    np.testing.assert_allclose(batches[0], batches[1], rtol=1e-14)
    np.testing.assert_allclose(
        list(vars(found).values()), list(vars(expected).values()), rtol=1e-11, atol=1e-300
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 300), share=st.floats(0.001, 1.2))
def test_the_relaxation_is_the_same(seed, size, share):
    devices = devices_of(seed, size, plain=True)
    arguments = (
        devices.first,
        np.ones(size),
        size + share * (float(devices.upper.sum()) - size),
        np.ones(size),
        devices.upper,
    )
    found = relax(*arguments)
    with interpreted():
        expected = relax(*arguments)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    np.testing.assert_allclose(found.batch_sizes, expected.batch_sizes, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.floats(-3.0, 0.0), min_size=1, max_size=3),
    log_r=st.floats(-1.0, 2.0),
    steps=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    scale=st.sampled_from([0.0, 1e-8, 1.0, 1e10]),
)
def test_drift_sums_are_the_same(rates, log_r, steps, scale):
    taus, scales = np.array(steps), np.full((len(steps), len(rates)), scale)
    found = sums_on_grid(np.array(rates), log_r, taus, scales, scales + 1.0)
    with interpreted():
        expected = sums_on_grid(np.array(rates), log_r, taus, scales, scales + 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def swept(problem: Problem, bound) -> tuple[Sweep, Streamed]:
    """A finished search of a problem with equal unit costs, and its inner problem."""
    assume(problem.fleet.unit_cost is not None)
    form = bound.monotone_form(problem)
    try:
        ranges = feasible_ranges(problem.plain, None, None)
    except InfeasibleError:
        assume(False)
    numpy_inner = Streamed(problem.plain, form, problem.fleet.unit_cost)
    found = Sweep(form, form.progress, ranges, numpy_inner, 1e-12, math.inf)
    assert found.run(math.inf) is None
    return found, numpy_inner


single_bounds = st.sampled_from([Certified(1, 1), Dynamite(), NonConvex(0.5, 0.4)])


@settings(max_examples=60, deadline=None)
@given(problem=problems(), bound=single_bounds, angle=st.floats(0.0, 1.0))
def test_integer_optima_are_the_same(problem, bound, angle):
    found, numpy_inner = swept(problem, bound)
    angle = angle if numpy_inner.terms == 2 else 0.0
    for rounds, steps in feasible_pairs(problem, found.ranges):
        found.known.counts[:3] = 0
        inner.add_whole(found.system, float(rounds), float(steps), angle, found.known, found.scratch)
        whole = numpy_inner.whole(rounds, steps, angle)
        assert found.known.wholes[0, 3] == pytest.approx(whole.level, rel=1e-12, abs=1e-300)
        units = found.known.units[1 - found.known.counts[3]] * numpy_inner.devices.multiple
        assert not limits.violations(problem.plain, rounds, steps, units.astype(float))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), bound=st.one_of(single_bounds, family_bounds), data=st.data())
def test_what_was_learnt_holds_at_every_rounds_and_steps(problem, bound, data):
    found, numpy_inner = swept(problem, bound)
    known = found.known
    every = list(feasible_pairs(problem, found.ranges))
    angles = known.angles[: known.counts[0]].copy()
    for rounds, steps in data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=5)):
        last = data.draw(st.sampled_from([t for k, t in every if k == rounds and t >= steps]))
        search.learn_levels(found.system.limits, float(rounds), float(steps), float(last), known)
        for angle, level in zip(angles, known.levels.copy(), strict=False):
            for tau in (steps, last):
                exact = numpy_inner.whole(rounds, tau, float(angle)).level
                assert level <= exact * (1.0 + 1e-12) + 1e-15


@settings(max_examples=100, deadline=None)
@given(problem=problems(), bound=st.one_of(numeric_bounds, family_bounds))
def test_plans_are_the_same(problem, bound):
    try:
        found = solve_allocation(problem, bound=bound)
    except InfeasibleError:
        assume(False)
    with interpreted():
        expected = solve_allocation(problem, bound=bound)
    assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-12, abs=1e-300)
    assert found.gap <= 2e-12
    assert expected.trace["compiled"] == 0


def middling(seed: int, size: int = 40) -> Problem:
    """A problem whose integer optima need many solves."""
    rng = np.random.default_rng(seed)
    return Problem(
        Fleet(
            samples=rng.integers(200, 4000, size),
            gradient_noise=rng.lognormal(1.0, 0.7, size),
            divergence=rng.uniform(0.02, 0.1, size),
            throughput=rng.lognormal(5.0, 0.8, size),
            round_time=rng.uniform(0.1, 1.0, size),
        ),
        Constants(learning_rate=0.1, smoothness=1.0, initial_gap=2.0, pl_constant=0.05, curvature_floor=0.05),
        Budget(cost=8000.0 * size, time=400.0, round_cost=10.0 * size, max_rounds=600, max_local_steps=40),
    )


@pytest.mark.parametrize("bound", [Dynamite(), Certified(0.5, 2.0), Certified()])
def test_the_box_search_goes_on_where_there_is_no_more_room(bound, monkeypatch):
    problem = middling(3)
    roomy = solve_allocation(problem, bound=bound)
    monkeypatch.setattr(sweep, "MOST_WHOLES", 3)
    tight = solve_allocation(problem, bound=bound)
    assert tight.trace["boxes"] > 0 == roomy.trace["boxes"]
    assert tight.error_bound == pytest.approx(roomy.error_bound, rel=1e-13)
    assert tight.gap <= 2e-12


@pytest.mark.parametrize("bound", [Dynamite(), Certified(0.5, 2.0), Certified()])
@pytest.mark.parametrize("seed", range(3))
def test_one_solve_at_a_time_leads_to_the_same_plan(bound, seed, monkeypatch):
    problem = middling(seed)
    many = solve_allocation(problem, bound=bound)
    monkeypatch.setattr(sweep, "CHEAP", 0)
    one = solve_allocation(problem, bound=bound)
    assert (one.rounds, one.local_steps) == (many.rounds, many.local_steps)
    assert np.array_equal(one.batch_sizes, many.batch_sizes)
    assert one.gap <= 2e-12


def test_equal_units_at_the_margin_are_shared_out_in_order():
    problem = Problem(
        Fleet(samples=[50] * 7, gradient_noise=2.0, divergence=0.1),
        Constants(learning_rate=0.1, smoothness=1.0, initial_gap=1.0, pl_constant=0.3),
        Budget(cost=31, round_cost=1, max_rounds=2, max_local_steps=1),
    )
    plan = solve_allocation(problem, bound="dynamite", rounds=2)
    assert plan.trace["compiled"] == 1
    assert plan.batch_sizes.tolist() == [2, 2, 2, 2, 2, 2, 2]
    plan = solve_allocation(problem, bound="dynamite", rounds=1)
    assert plan.batch_sizes.tolist() == [5, 5, 4, 4, 4, 4, 4]


def test_a_poor_first_price_is_mended():
    # The price at which a step affords little more than the smallest batches was lost from far away.
    problem = Problem(
        Fleet(samples=[600, 300, 100], gradient_noise=4.0, divergence=0.05, throughput=[40, 20, 80]),
        Constants(learning_rate=0.05, smoothness=4.0, initial_gap=2.0, pl_constant=0.5, curvature_floor=0.0),
        Budget(cost=1512.75, time=2000, round_cost=100),
    )
    form = Certified(1, 1).monotone_form(problem)
    numpy_inner = Streamed(problem, form, 1.0)
    found = Sweep(form, form.progress, feasible_ranges(problem, None, None), numpy_inner, 1e-12, math.inf)
    for centre in (-700.0, -50.0, 0.0, 3.0, 200.0):
        found.known.counts[:3] = 0
        found.known.warm[0, 1] = centre
        inner.add_whole(found.system, 10.0, 12.0, 0.4, found.known, found.scratch)
        whole = numpy_inner.whole(10, 12, 0.4)
        assert found.known.wholes[0, 3] == pytest.approx(whole.level, rel=1e-13)


def test_without_noise_nothing_is_left_to_rounding():
    # 1/s - 1/d of a full batch is exactly zero, so that what remains of the gap decides.
    problem = Problem(
        Fleet(samples=[5, 1, 7], gradient_noise=[0.01, 1e5, 1e4], divergence=0.0, replacement=False),
        Constants(learning_rate=0.02, smoothness=38.0, initial_gap=130.0, pl_constant=38.0, lipschitz=4.0),
        Budget(cost=1000, max_rounds=12, max_local_steps=1),
    )
    plan = solve_allocation(problem, bound="adacoopt")
    assert plan.rounds == 12 and plan.batch_sizes.tolist() == [5, 1, 7]
    assert plan.error_bound == pytest.approx(130.0 * 0.24**12, rel=1e-12)


def test_every_function_is_compiled_once():
    # Arrays that may not be written to, or lie otherwise in memory, would have it compiled anew.
    for seed, bound in enumerate(
        (Dynamite(), Certified(1, 1), Certified(), NonConvex(), Certified(0.5, math.inf))
    ):
        solve_allocation(middling(seed), bound=bound)
    with_copies = middling(9, size=5)
    solve_allocation(with_copies, rounds=20)
    for function in (search.scan, search.tighten, search.promising, compiled_passes.dual, drift.fill):
        assert len(function.signatures) == 1


@pytest.fixture
def looked_up_again():
    """Loops are looked up once a process."""
    loops._ready.cache_clear()
    yield
    loops._ready.cache_clear()


def test_numpy_alone_does_where_numba_is_missing(monkeypatch, looked_up_again):
    monkeypatch.setattr(loops, "find_spec", lambda name: None if name == "numba" else util.find_spec(name))
    assert loops.loops() is None
    assert solve_allocation(middling(0, size=4), bound="dynamite").trace["compiled"] == 0
    with pytest.raises(MissingDependencyError, match=r"coopt\[fast\]"):
        loops.compile_loops()


@pytest.mark.parametrize("text", [None, "made from other sources"])
def test_only_code_made_from_these_sources_is_used(text, monkeypatch, tmp_path, looked_up_again):
    monkeypatch.setattr(loops, "READY", tmp_path / "ready")
    if text is not None:
        loops.READY.write_text(text, encoding="utf-8")
    assert loops.loops() is None


def test_compiling_says_where_code_cannot_be_kept(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(loops, "CODE", tmp_path / "file" / "code")
    with pytest.raises(SolverError, match="cannot be kept there"):
        loops.compile_loops()


def test_the_list_of_sources_names_all_that_compiled_loops_import():
    imported = {
        line.split()[1]
        for path in (loops.PACKAGE / "compiled").glob("*.py")
        if path.name not in ("__init__.py", "example.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("from coopt.")
    }
    known = {".".join(path.relative_to(loops.PACKAGE.parent).with_suffix("").parts) for path in loops.SOURCES}
    assert imported <= known


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([1, 7, 513, 1500]),
    plain=st.booleans(),
    exponent=st.floats(-2.0, 2.0),
    slack=st.one_of(st.none(), st.floats(0.0, 100.0)),
)
def test_a_bracket_tells_the_same_devices_apart(seed, size, plain, exponent, slack):
    devices, level = devices_of(seed, size, plain), 10.0**exponent
    pace = None if slack is None else Pace(slack, 3.0)
    found = passes._bracket(devices, 0.95 * level, 1.05 * level, pace)
    with interpreted():
        expected = passes._bracket(devices, 0.95 * level, 1.05 * level, pace)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-12)
    assert found[2].tolist() == expected[2].tolist()


@pytest.mark.parametrize("numpy_alone", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.integers(2, 300),
    share=st.floats(0.001, 0.999),
    off=st.floats(-3.0, 3.0),
    slack=st.one_of(st.none(), st.floats(5.0, 100.0)),
)
def test_one_pass_and_the_undecided_lead_to_the_level(numpy_alone, seed, size, share, off, slack):
    devices = replace(devices_of(seed, size, plain=False), second=devices_of(seed, size, False).first)
    pace = None if slack is None else Pace(slack, 3.0)
    with interpreted() if numpy_alone else nullcontext():
        least = passes.dual(devices, passes.ALONE, 1e-9, 0.0, pace).spent
        most = passes.dual(devices, passes.ALONE, 1e9, 0.0, pace).spent
        assume(most > least * 1.001)
        spend = least + share * (most - least)
        level, _, sums = passes.water_level(devices, passes.ALONE, spend, pace, 1.0, 1e-14)
        assume(sums.movable > 0.0)
        # Near the level it is found, and elsewhere something that may serve as a guess.
        near = passes._narrowed(devices, spend, pace, level * (1.0 + 0.01 * off))
        assert passes.dual(devices, passes.ALONE, near, 0.0, pace).spent == pytest.approx(spend, rel=1e-12)
        far = passes._narrowed(devices, spend, pace, level * 10.0**off)
        assert 0.0 < far < passes.UNBOUNDED


def test_a_guess_at_which_nobody_can_move_does_not_stop_the_way_to_the_level():
    # Three devices, all of them at their ends one percent above the level.
    rng = np.random.default_rng(1)
    upper = rng.integers(4, 2000, 3).astype(float)
    devices = passes.alone(np.array([1.0, 2.0, 3.0]), np.ones(1), np.ones(1), upper)
    level = 0.995 * float(np.max(upper / np.sqrt([1.0, 2.0, 3.0])))
    spend = passes.dual(devices, passes.ALONE, level, 0.0, None).spent
    assert passes.dual(devices, passes.ALONE, 1.01 * level, 0.0, None).movable == 0.0
    near = passes._narrowed(devices, spend, None, 1.01 * level)
    assert passes.dual(devices, passes.ALONE, near, 0.0, None).spent == pytest.approx(spend, rel=1e-12)
