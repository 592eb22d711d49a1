"""Bounds in numbers: the family lies close to the best pair, and what every solver relies on."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from coopt import (
    AdaCoOpt,
    Bound,
    BoundWarning,
    Budget,
    Certified,
    Constants,
    Dynamite,
    Fleet,
    InvalidProblemError,
    NonConvex,
    Problem,
    allocate_batches,
    evaluate,
    solve_allocation,
)
from coopt.objectives.monotone import MonotoneBound
from coopt.objectives.registry import resolve_bound
from coopt.objectives.young import GAMMAS, ZS
from problems import constants, fleets, numeric_bounds

KINDS = {"certified": Certified, "nonconvex": NonConvex}


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


def problem_of(fleet=None, budget=None, **changes) -> Problem:
    fields = {"learning_rate": 0.05, "smoothness": 4.0, "initial_gap": 2.0, "pl_constant": 0.5}
    return Problem(fleet or Fleet([60, 20], 4.0, 0.1), Constants(**{**fields, **changes}), budget or Budget())


# The family against the continuum -------------------------------------------------------------------


def continuous_minimum(problem: Problem, kind: str, rounds: int, steps: int, batches: list[int]) -> float:
    """The smallest value over all gamma and z, by the statement with plain sums; z = sqrt(B / A) is best."""
    fleet, known = problem.fleet, problem.constants
    eta, x = known.learning_rate, known.learning_rate * known.mean_smoothness
    p, noise = fleet.weights, fleet.gradient_noise / np.array(batches)
    sigma2, nu2 = float((p * p * noise).sum()), float((p * (1 - p) * noise).sum())
    d_h = math.sqrt(float((p * fleet.divergence**2).sum()))
    r, total = 1.0 - eta * known.curvature_floor, rounds * steps
    alpha = np.concatenate([[0.0], np.cumsum(r ** np.arange(steps - 1.0))])
    beta = np.concatenate([[0.0], np.cumsum(r ** (2.0 * np.arange(steps - 1.0)))])

    def value(log_gamma: float) -> float:
        gamma = math.exp(log_gamma)
        bracket = 2.0 - x - (1.0 - x) * gamma
        rate = eta * known.pl_constant * bracket if kind == "certified" else 0.0
        log_q = math.log1p(-rate) if rate < 1.0 else -math.inf
        weights = np.array([1.0 if rate == 0.0 or j == 0 else (1.0 - rate) ** j for j in range(steps)])[::-1]
        a, b = float((weights * alpha**2).sum()), float((weights * beta).sum())
        drift = eta**2 * (d_h * math.sqrt(a) + math.sqrt(nu2 * b)) ** 2
        coupling = (x + (1.0 - x) / gamma) * known.coupling**2
        if kind == "nonconvex":
            start = known.initial_gap / (eta * total)
            return 2.0 / bracket * (start + x * sigma2 / 2.0 + coupling * drift / (2.0 * steps))
        floor = eta**2 * known.mean_smoothness * sigma2 / (2.0 * rate)
        floor += eta / 2.0 * coupling * drift / -math.expm1(log_q * steps)
        return math.exp(log_q * total) * known.initial_gap - math.expm1(log_q * total) * floor

    if steps == 1:
        return value(-700.0)
    grid = np.concatenate([np.linspace(-70.0, -17.0, 10), np.linspace(-16.0, 0.0, 110)])
    place = int(np.argmin([value(log_gamma) for log_gamma in grid]))
    around = (grid[max(place - 1, 0)], grid[min(place + 1, grid.size - 1)])
    return min(minimize_scalar(value, bounds=around, method="bounded").fun, value(grid[place]))


@st.composite
def trained(draw):
    """Problems at many scales, often trained until little of the initial gap is left."""
    mean = draw(st.sampled_from([1.0, 0.5, 0.1]))
    ell = draw(st.sampled_from([-1.0, -0.1, 0.0, 0.1]))
    eta = draw(st.one_of(st.just(1.0), log_uniform(-3.0, 0.0)))
    steps = min(draw(st.integers(1, 100)), max(1, int(20 / eta)))
    n = draw(st.integers(1, 3))
    fleet = Fleet(
        draw(st.lists(st.integers(100, 1000), min_size=n, max_size=n)),
        draw(st.sampled_from([0.0, 1.0, 1.0, 1.0])) * draw(log_uniform(-6.0, 2.0)),
        draw(st.sampled_from([0.0, 1.0, 1.0, 1.0])) * draw(log_uniform(-3.0, 1.0)),
    )
    known = Constants(
        learning_rate=eta,
        smoothness=1.0,
        initial_gap=draw(log_uniform(-3.0, 3.0)),
        # Well below one, where 1 - eta c would keep few digits in plain floats.
        pl_constant=0.9 * mean * draw(log_uniform(-3.0, 0.0)),
        curvature_floor=ell,
        mean_smoothness=mean,
        coupling=(1.0 - ell) / 2.0 * draw(st.sampled_from([1.0, 0.1])),
    )
    # Contraction by up to e^-14.
    length = draw(log_uniform(-1.0, 0.85)) / (eta * known.pl_constant)
    return (
        Problem(fleet, known, Budget()),
        max(1, round(length / steps)),
        steps,
        [draw(st.integers(1, 99))] * n,
    )


@settings(max_examples=250, deadline=None)
@given(case=trained(), kind=st.sampled_from(sorted(KINDS)))
@example(
    # Long training without noise: what gamma takes from the contraction counts nine times.
    case=(
        Problem(
            Fleet([100], 0.0, 1.47e-4),
            Constants(0.0828, 1.0, 25.1, 0.466, -0.1, 1.0, 0.055),
            Budget(),
        ),
        9,
        51,
        [1],
    ),
    kind="certified",
)
def test_the_family_is_within_one_percent_of_the_best_pair(case, kind):
    problem, rounds, steps, batches = case
    best = continuous_minimum(problem, kind, rounds, steps, batches)
    value = KINDS[kind]().value(problem, rounds, steps, batches)
    assert value >= best * (1 - 1e-9)
    if best > 1e-9 * problem.constants.initial_gap:
        assert value <= best * 1.01


def test_the_family_is_finite_and_holds_its_limits():
    for grid, limits in ((GAMMAS, (0.0, 1.0)), (ZS, (0.0, 1.0, math.inf))):
        assert len(set(grid)) == len(grid)
        assert set(limits) <= set(grid)
        assert grid[0] == 1.0
    assert len(Certified().members()) == len(NonConvex().members()) == len(GAMMAS) * len(ZS)
    assert Certified(gamma=0.5).members() == tuple(Certified(0.5, z) for z in ZS)
    assert Certified(0.5, 2.0).members() == (Certified(0.5, 2.0),)
    assert Dynamite().members() == (Dynamite(),)


@settings(max_examples=25, deadline=None)
@given(
    fleet=fleets(),
    known=constants(),
    k=st.integers(1, 50),
    tau=st.integers(1, 12),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_a_family_is_the_minimum_of_its_members(fleet, known, k, tau, kind):
    """Also of the pairs that it leaves out because others match or beat them."""
    problem = Problem(fleet, known, Budget())
    family = KINDS[kind](gamma="auto", z="auto")
    values = [m.value(problem, k, tau, fleet.max_batch) for m in family.members()[::31]]
    value, member = family.best_member(problem, k, tau, fleet.max_batch)
    assert value <= min(values) * (1 + 1e-12)
    assert value == pytest.approx(member.value(problem, k, tau, fleet.max_batch), rel=1e-12)
    assert member in family.members()
    for ask in (family.coefficients, lambda *plan: family.parts(*plan, fleet.max_batch)):
        if len(family.monotone_form(problem).members) > 1:
            with pytest.raises(InvalidProblemError, match=r"members\(\)"):
                ask(problem, k, tau)


# Names ----------------------------------------------------------------------------------------------


@given(
    st.one_of(
        st.sampled_from([Dynamite(), AdaCoOpt()]),
        st.builds(
            lambda kind, gamma, z: kind(gamma, z),
            st.sampled_from([Certified, NonConvex]),
            st.one_of(st.just("auto"), st.floats(0.0, 1.0)),
            st.one_of(st.just("auto"), st.floats(0.0)),
        ),
    )
)
def test_a_name_stands_for_its_bound(bound):
    assert resolve_bound(bound.name) == bound
    assert resolve_bound(bound) is bound
    assert isinstance(bound, Bound)
    assert isinstance(bound, MonotoneBound)


@pytest.mark.parametrize("name", ["certifed", "", "Certified"])
def test_an_unknown_name_lists_the_valid_ones(name):
    with pytest.raises(InvalidProblemError) as caught:
        resolve_bound(name)
    message = str(caught.value)
    assert message.startswith(
        f"bound = {name!r}: must be one of 'certified', 'dynamite', 'adacoopt', 'nonconvex'"
    )
    assert message.endswith(", or a coopt.Bound")


def test_a_name_with_other_numbers_is_answered_by_how_it_is_written():
    with pytest.raises(InvalidProblemError, match=r"must be written as certified\(gamma=..., z=...\)$"):
        resolve_bound("certified(gamma=1)")
    with pytest.raises(InvalidProblemError, match=r"must be written as dynamite, which takes no numbers$"):
        resolve_bound("dynamite(gamma=1, z=1)")


@pytest.mark.parametrize("thing", [5, None, object(), ("certified",)])
def test_what_is_no_bound_is_refused(thing):
    with pytest.raises(InvalidProblemError, match="must be a name or an object with the methods"):
        resolve_bound(thing)


@pytest.mark.parametrize(
    ("gamma", "z", "message"),
    [
        (1.5, 1.0, "gamma = 1.5: must lie in [0, 1], or be 'auto'"),
        (-0.1, 1.0, "gamma = -0.1: must be a finite number >= 0"),
        (math.nan, 1.0, "gamma = nan: must be a finite number >= 0"),
        ("best", 1.0, "gamma = 'best': must be a finite number >= 0"),
        (1.0, -1.0, "z = -1.0: must be a number >= 0"),
        (1.0, math.nan, "z = nan: must be a number >= 0"),
    ],
)
@pytest.mark.parametrize("kind", [Certified, NonConvex])
def test_young_parameters_are_checked(kind, gamma, z, message):
    with pytest.raises(InvalidProblemError) as caught:
        kind(gamma, z)
    assert str(caught.value) == message


# The structure that solvers rely on -----------------------------------------------------------------

bounds = st.one_of(
    numeric_bounds,
    st.builds(Certified, st.sampled_from(GAMMAS), st.sampled_from(ZS)),
    st.builds(NonConvex, st.sampled_from(GAMMAS), st.sampled_from(ZS)),
)


@settings(max_examples=100, deadline=None)
@given(fleet=fleets(), known=constants(), bound=bounds, tau=st.integers(1, 200), step=st.integers(1, 50))
def test_floors_never_fall_with_more_local_steps(fleet, known, bound, tau, step):
    form = bound.monotone_form(Problem(fleet, known, Budget()))
    everyone = np.arange(len(form.members))
    before, after = form.floor(tau, everyone), form.floor(tau + step, everyone)
    # Beyond float64 both are infinite.
    assert (after.offsets >= before.offsets * (1 - 1e-12)).all()
    assert (after.shares >= before.shares * (1 - 1e-12)).all()
    assert (before.offsets >= 0).all()
    assert (before.shares >= 0).all()
    assert all((basis >= 0).all() for basis in before.basis)


@settings(max_examples=100, deadline=None)
@given(fleet=fleets(), known=constants(), bound=bounds, tau=st.integers(1, 30))
def test_the_bound_is_monotone_in_rounds(fleet, known, bound, tau):
    """In one direction, towards the floor: falling above it, rising below it."""
    problem = Problem(fleet, known, Budget())
    values = [bound.value(problem, k, tau, fleet.max_batch) for k in (1, 2, 3, 5, 10, 100, 10**4, 10**7)]
    if math.isinf(values[0]):
        assert all(map(math.isinf, values))
        return
    slack = 1e-12 * max(values)
    steps = np.diff(values)
    assert (steps <= slack).all() or (steps >= -slack).all()


@settings(max_examples=100, deadline=None)
@given(fleet=fleets(), known=constants(), bound=bounds, tau=st.integers(1, 30), k=st.integers(1, 1000))
def test_coefficients_parts_and_value_are_one_bound(fleet, known, bound, tau, k):
    problem = Problem(fleet, known, Budget())
    lower, upper = fleet.batch_range()
    for batches in (lower, upper):
        value = bound.value(problem, k, tau, batches)
        parts = bound.parts(problem, k, tau, batches)
        assert parts.transient + parts.noise + parts.drift == pytest.approx(value, rel=1e-12)
        assert min(parts.transient, parts.noise, parts.drift) >= 0.0
        offset, weights = bound.coefficients(problem, k, tau)
        assert (weights >= 0.0).all()
        if math.isfinite(value) and np.isfinite(weights).all():
            # Without replacement the offset holds what the references take away: digits cancel.
            scale = abs(offset) + float(np.sum(weights / batches))
            assert offset + float(np.sum(weights / batches)) == pytest.approx(
                value, rel=1e-12, abs=1e-12 * scale
            )
    if tau == 1:
        assert parts.drift == 0.0


@settings(max_examples=200, deadline=None)
@given(
    bound=bounds,
    eta_beta=log_uniform(-12.0, 0.0),
    length=log_uniform(-12.0, 6.0),
    beta=log_uniform(-100.0, 100.0),
    scale=st.tuples(*(st.one_of(st.just(0.0), log_uniform(-150.0, 150.0)) for _ in range(3))),
    floor=st.sampled_from([-1.0, 0.0, 0.5]),
    k=st.sampled_from([1, 7, 10**9]),
)
@example(Certified(0.0, 0.0), 1.0, 1e6, 1.0, (1.0, 0.0, 0.0), -1.0, 1)
@example(Certified(0.0, math.inf), 1.0, 1e6, 1.0, (1.0, 1.0, 1.0), -1.0, 1)
def test_wild_inputs_give_a_number_or_infinity_but_never_nan(bound, eta_beta, length, beta, scale, floor, k):
    gap, noise, divergence = scale
    tau = max(1, min(int(length / eta_beta), 2**53 // k))
    problem = Problem(
        Fleet([9, 3, 1], noise, divergence),
        Constants(eta_beta / beta, beta, gap, 0.5 * beta, floor * beta, lipschitz=gap),
        Budget(),
    )
    value = bound.value(problem, k, tau, [3, 3, 1])
    assert value >= 0.0
    offset, weights = bound.coefficients(problem, k, tau)
    assert offset >= 0.0
    assert (weights >= 0.0).all()


@settings(max_examples=100, deadline=None)
@given(known=constants(), bound=bounds, tau=st.integers(1, 30))
def test_one_device_has_no_drift_by_noise(known, bound, tau):
    """Alone, and without divergence, local steps are SGD steps: K rounds of tau are K tau rounds of one."""
    problem = Problem(Fleet([50], 3.0, 0.0), known, Budget())
    together = bound.value(problem, 4, tau, [5])
    assert together == pytest.approx(bound.value(problem, 4 * tau, 1, [5]), rel=1e-11)


@pytest.mark.parametrize("bound", [Dynamite(), AdaCoOpt()])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), known=constants(), tau=st.integers(1, 8), k=st.integers(1, 20))
def test_splitting_a_device_changes_nothing(bound, data, known, tau, k):
    """Halves with half the throughput, samples and caps are as good as the whole, for continuous batches."""
    n = data.draw(st.integers(1, 4))

    def each(strategy):
        return np.array(data.draw(st.lists(strategy, min_size=n, max_size=n)))

    whole = {
        "samples": 2 * each(st.integers(1, 100)),
        "gradient_noise": each(log_uniform(-2.0, 2.0)),
        "divergence": each(log_uniform(-2.0, 0.0)),
        "throughput": each(log_uniform(0.0, 2.0)),
        "round_time": each(st.floats(0.0, 1.0)),
    }
    split = {name: np.append(values, values[-1]) for name, values in whole.items()}
    for name in ("samples", "throughput"):
        split[name] = split[name].copy()
        split[name][-2:] = split[name][-1] / 2
    time = k * (tau * data.draw(st.floats(0.1, 2.0)) + 1.0)
    found = []
    for fields in (whole, split):
        problem = Problem(Fleet(**fields), known, Budget(time=time))
        offset, weights = bound.coefficients(problem, k, tau)
        caps = np.minimum(fields["throughput"] * (time / k - fields["round_time"]) / tau, fields["samples"])
        budget = 0.6 * float(whole["samples"].sum())
        plan = allocate_batches(weights, 1.0, budget, caps / 1e6, caps, integer=False)
        found.append((offset, plan.value))
    assert found[1] == pytest.approx(found[0], rel=1e-9)


# Warnings -------------------------------------------------------------------------------------------


def cautioned(problem: Problem, bound: Bound, tau: int) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(problem, 5, tau, 1, bound)
    assert all(entry.category is BoundWarning for entry in caught)
    return [str(entry.message) for entry in caught]


def test_a_quadratic_continuity_that_cannot_hold_is_warned_about():
    small, enough = 0.9 / (0.05 * 4), 1.0 / (0.05 * 4)
    quiet = Fleet([60, 20], 0.0, 0.0)
    [text] = cautioned(problem_of(quiet, quadratic_continuity=small), Dynamite(), 4)
    assert text.startswith("quadratic_continuity = 4.5 is below 1 / (learning_rate * local_steps) = 5:")
    assert cautioned(problem_of(quiet, quadratic_continuity=enough), Dynamite(), 4) == []
    assert cautioned(problem_of(quiet), Dynamite(), 4) == []
    assert cautioned(problem_of(quiet, quadratic_continuity=small), Certified(), 4) == []


@pytest.mark.parametrize("bound", [Certified(), Certified(1, 1), NonConvex()])
def test_drift_that_grows_exponentially_is_warned_about(bound):
    quiet = Fleet([60, 20], 0.0, 0.0)
    [text] = cautioned(problem_of(quiet), bound, 11)
    assert text.startswith(
        "learning_rate * smoothness * local_steps = 2.2 exceeds 2 without a curvature_floor"
    )
    assert cautioned(problem_of(quiet), bound, 10) == []
    assert cautioned(problem_of(quiet, curvature_floor=-4.0), bound, 11) != []
    assert cautioned(problem_of(quiet, curvature_floor=0.0), bound, 11) == []


@pytest.mark.parametrize("bound", [Certified(1, 1), Dynamite(), AdaCoOpt()])
def test_an_initial_gap_below_the_floor_is_warned_about(bound):
    noisy = Fleet([60, 20], 4.0, 0.1)
    floor = bound.value(problem_of(noisy, lipschitz=1.0), 10**9, 2, 1)
    for factor, expected in ((0.99, 1), (1.01, 0)):
        problem = problem_of(noisy, lipschitz=1.0, initial_gap=factor * floor)
        found = cautioned(problem, bound, 2)
        assert len(found) == expected
        assert all("is below the error floor" in text for text in found)
    assert cautioned(problem_of(noisy, initial_gap=1e-9), NonConvex(1, 1), 2) == []


def test_warnings_point_at_the_caller():
    problem = problem_of(Fleet([60, 20], 0.0, 0.0), Budget(max_rounds=3, max_local_steps=20))
    for call in (
        lambda: evaluate(problem, 3, 20, 1),
        lambda: solve_allocation(problem, rounds=3, local_steps=20),
    ):
        with pytest.warns(BoundWarning) as caught:
            call()
        assert caught[0].filename == __file__


def test_replacement_matters_only_where_batches_are_large():
    with_replacement = problem_of()
    without = replace(with_replacement, fleet=Fleet([60, 20], 4.0, 0.1, replacement=False))
    for bound in (Certified(1, 1), Dynamite(), NonConvex(1, 1)):
        assert bound.value(without, 5, 3, 1) < bound.value(with_replacement, 5, 3, 1)
        # Full batches have no noise.
        assert bound.parts(without, 5, 3, [60, 20]).noise == 0.0
        assert bound.parts(with_replacement, 5, 3, [60, 20]).noise > 0.0


@pytest.mark.parametrize("tau", [500, 800, 1000])
def test_drift_beyond_the_largest_float_is_infinite_where_devices_are_drawn(tau):
    problem = problem_of(Fleet([60, 40], 1.0, 0.5), Budget(participants=1), learning_rate=0.25)
    offset, weights = Certified(1, 1).coefficients(problem, 1, tau)
    assert offset > 1e100
    assert np.isfinite(offset) == (tau == 500)
    assert (weights > 0.0).all()


@pytest.mark.parametrize(
    ("budget", "bias", "known"),
    [
        (Budget(cost=2000, participants=1, max_local_steps=4), None, 0.0438751643),
        (Budget(cost=2000, max_local_steps=4), 0.2, None),
        (Budget(cost=2000, participants=1, max_local_steps=4), 0.2, None),
    ],
    ids=["participants", "bias", "both"],
)
@pytest.mark.parametrize("kind", [Certified, NonConvex])
def test_auto_is_the_smallest_member_where_single_steps_have_drift(kind, budget, bias, known):
    """z = 0 charges a bias, and devices that are not drawn, once; noise has no part in a single step."""
    constants = Constants(0.05, 4.0, 2.0, pl_constant=0.5, gradient_bias=bias)
    problem = Problem(Fleet([60, 20], 4.0, 0.3), constants, budget)
    plan = solve_allocation(problem, bound=kind())
    place = plan.rounds, plan.local_steps, plan.batch_sizes
    assert plan.error_bound == min(member.value(problem, *place) for member in kind().members())
    if kind is Certified and known is not None:
        assert plan.error_bound == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("kind", [Certified, NonConvex])
def test_a_single_device_does_not_drift_by_noise(kind):
    problem = Problem(Fleet([5], 1.0, 0.1), Constants(0.5, 1.0, 1.0, pl_constant=0.5), Budget())
    smallest = min(member.value(problem, 5, 2, [1]) for member in kind().members())
    assert kind().value(problem, 5, 2, [1]) == smallest
    alone = replace(problem, budget=Budget(participants=1, distinct_participants=True))
    assert kind().value(alone, 5, 2, [1]) == smallest


def test_a_bound_beyond_the_largest_number_is_infinite_without_a_word(recwarn):
    speeds = {"throughput": [80.0, 40.0, 25.0, 10.0], "round_time": [4.0, 6.0, 9.0, 12.0]}
    fleet = Fleet([12_000, 5400, 2300, 800], 4.0, 0.2, **speeds)
    problem = Problem(fleet, Constants(0.01, 1.0, 2.0, 0.02), Budget(cost=410_000, time=3600))
    assert solve_allocation(problem).error_bound < 2.0
    assert [str(each.message) for each in recwarn] == []
