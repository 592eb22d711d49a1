"""One client's round in torch: plain SGD on the batches drawn, reported as the probe reports it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional

from coopt.adapters.draws import draw_positions
from coopt.adapters.torch import FlatModel, LocalClient, LocalWork, ProbeOptions, local_update
from coopt.adapters.torch.modes import choose_engine
from coopt.errors import InvalidProblemError
from coopt.measuring.probe import ClientProbe
from coopt.measuring.report_noise import ReportNoise


def problem(samples: int = 30) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (samples,), generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model, x, y


def plain_sgd(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, batches: np.ndarray, decay: float
) -> torch.Tensor:
    """What torch's own optimiser does with the same batches."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, weight_decay=decay)
    for batch in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("probe", [None, ProbeOptions("same"), ProbeOptions("next")])
@pytest.mark.parametrize(("size", "replacement"), [(1, True), (7, True), (9, False), (30, False)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_a_round_is_plain_sgd(probe: ProbeOptions | None, size: int, replacement: bool, decay: float) -> None:
    module, x, y = problem()
    model = FlatModel(module, functional.cross_entropy, weight_decay=decay)
    work = LocalWork(round=3, local_steps=4, batch_size=size, learning_rate=0.2, extra_evaluation=True)
    state, report = local_update(
        model, model.state.clone(), x, y, work, client=2, seed=9, probe=probe, replacement=replacement
    )
    batches = draw_positions(9, 3, 2, 30, steps=np.arange(4), sizes=size, replacement=replacement)[0]
    assert torch.allclose(state, plain_sgd(module, x, y, batches, decay), rtol=1e-12, atol=1e-12)
    first = functional.cross_entropy(module(x[batches[0]]), y[batches[0]]).item()
    norm = sum(float((p.detach() ** 2).sum()) for p in module.parameters())
    assert report.loss == pytest.approx(first + decay / 2 * norm, rel=1e-12)
    assert (report.halves is None) == (probe is None or size == 1)
    assert (report.pair is None) == (probe is None or probe.pair == "next" or size == 1)


def gradient_of(
    module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor
) -> Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]:
    def gradient(model: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        worker = copy.deepcopy(module)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(model), worker.parameters())
        loss = functional.cross_entropy(worker(x[batch]), y[batch])
        grads = torch.autograd.grad(loss, list(worker.parameters()))
        return loss.item(), torch.cat([g.ravel() for g in grads]).numpy()

    return gradient


@pytest.mark.parametrize("pair", ["next", "same"])
def test_reports_are_those_of_a_probe_on_the_same_batches(pair: Literal["next", "same"]) -> None:
    module, x, y = problem()
    model = FlatModel(module, functional.cross_entropy)
    client = LocalClient(1, model, x, y, ProbeOptions(pair))
    gradient, queue = gradient_of(module, x, y), []

    def draw(size: int) -> np.ndarray:
        batch, queue[0] = queue[0][:size], queue[0][size:]
        return batch

    probe = ClientProbe(1, gradient, draw, pair=pair, clock=lambda: 0.0)
    start = model.state.clone()
    for round_, size in enumerate([8, 8, 5, 2, 1, 8]):
        batches = draw_positions(4, round_, 1, 30, steps=np.arange(4), sizes=size)[0]
        queue[:] = [batches[0]]
        local = start.numpy() - 0.1 * probe.begin(start.numpy(), round=round_, batch_size=size)
        for batch in batches[1:3]:
            local = local - 0.1 * gradient(local, batch)[1]
        queue[:] = [batches[3]]
        expected = probe.end(local, samples=30, local_steps=3, extra_evaluation=round_ != 3)
        work = LocalWork(round_, 3, size, 0.1, extra_evaluation=round_ != 3)
        report = client.train(start, work, batches, 30, seconds=(0.0, 0.0))
        for name, value in expected.to_scalars().items():
            assert report.to_scalars()[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
        assert report.to_scalars().keys() == expected.to_scalars().keys()
        for left, right in ((report.gradient, expected.gradient), (report.change, expected.change)):
            assert (left is None) == (right is None)
            assert left is None or np.allclose(left, right, rtol=1e-10, atol=1e-12)
        start = torch.from_numpy((start.numpy() + local) / 2)  # as if others had taken part


def test_dropout_is_a_function_of_seed_round_and_client_and_leaves_the_global_generator_alone() -> None:
    module, x, y = problem()
    module = torch.nn.Sequential(torch.nn.Dropout(0.5), module)
    model = FlatModel(module, functional.cross_entropy)
    start = model.state.clone()
    before = torch.random.get_rng_state()

    def result(round_: int) -> torch.Tensor:
        work = LocalWork(round_, 2, 5, 0.1)
        return local_update(model, start, x, y, work, client=0, seed=0)[0]

    first, again, other = result(0), result(0), result(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_running_means_travel_with_the_state_and_the_model_given_stays_as_it_is() -> None:
    module, x, y = problem()
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4).double(), module)
    before = copy.deepcopy(module.state_dict())
    model = FlatModel(module, functional.cross_entropy)
    work = LocalWork(0, 3, 8, 0.1, extra_evaluation=True)
    state, _ = local_update(model, model.state.clone(), x, y, work, client=0, seed=0)
    trained = sum(p.numel() for p in module.parameters())
    assert len(state) == trained + 8
    assert not torch.equal(state[trained:], torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("model", "device", "message"),
    [
        (torch.nn.Flatten(), "cpu", "no parameter"),
        (torch.nn.Linear(2, 2).half(), "cpu", "torch.float16"),
        (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).double()), "cpu", "one type"),
        (torch.nn.Linear(2, 2), "abacus", "abacus.*there is cpu"),
        (torch.nn.Linear(2, 2), "cuda:99", "cuda:99.*there is cpu"),
    ],
)
def test_models_and_devices_that_cannot_be_used_are_named(
    model: torch.nn.Module, device: str, message: str
) -> None:
    with pytest.raises(InvalidProblemError, match=message):
        FlatModel(model, functional.cross_entropy, device)


@pytest.mark.parametrize("option", [{"pair": "both"}, {"vectors": "some"}])
def test_unknown_probe_options_are_named(option: dict[str, str]) -> None:
    with pytest.raises(InvalidProblemError, match=next(iter(option.values()))):
        ProbeOptions(**option)


@pytest.mark.parametrize(
    ("probe", "least"), [(None, 2), (ProbeOptions("same"), 8), (ProbeOptions("next"), 8)]
)
def test_batches_too_small_for_batch_normalisation_name_client_and_cure(probe, least) -> None:
    module, x, y = problem()
    flat = FlatModel(torch.nn.Sequential(torch.nn.BatchNorm1d(4).double(), module), functional.cross_entropy)
    start = flat.state.clone()

    def train(size: int) -> torch.Tensor:
        work = LocalWork(round=0, local_steps=2, batch_size=size, learning_rate=0.1, extra_evaluation=True)
        return local_update(flat, start, x, y, work, client=3, seed=0, probe=probe)[0]

    assert torch.isfinite(train(least)).all()
    with pytest.raises(
        InvalidProblemError, match=f"client 3 is told .* batches of {least - 1}.*min_batch={least}"
    ):
        train(least - 1)


def test_no_part_of_a_batch_is_too_small_for_batch_normalisation() -> None:
    module, x, y = problem()
    flat = FlatModel(torch.nn.Sequential(torch.nn.BatchNorm1d(4).double(), module), functional.cross_entropy)

    def train(size: int, part: int) -> torch.Tensor:
        work = LocalWork(round=0, local_steps=1, batch_size=size, learning_rate=0.1, micro_batch=part)
        return local_update(flat, flat.state.clone(), x, y, work, client=3, seed=0, probe=None)[0]

    for size in range(2, 26):
        for part in range(3, 9):
            assert torch.isfinite(train(size, part)).all()
    with pytest.raises(InvalidProblemError, match=r"client 3 .* in parts of 2.* GroupNorm"):
        train(3, 2)


def test_model_and_loss_in_each_other_s_place_are_named() -> None:
    model = torch.nn.Linear(2, 1)
    with pytest.raises(InvalidProblemError, match=r"model = .*: must be a torch.nn.Module"):
        FlatModel(torch.nn.functional.mse_loss, model)
    with pytest.raises(InvalidProblemError, match="loss = 'mse': must be a function of outputs and targets"):
        FlatModel(model, "mse")


def test_reports_take_noise_and_training_does_not() -> None:
    module, x, y = problem()
    model = FlatModel(module, functional.cross_entropy)
    start = model.state.clone()
    work = LocalWork(round=0, local_steps=3, batch_size=8, learning_rate=0.2, extra_evaluation=True)
    noise = ReportNoise(epsilon=8.0, delta=1e-5, gradient_clip=1.0, loss_clip=4.0)
    (plain, honest), (trained, noisy) = (
        local_update(model, start, x, y, work, client=0, seed=0, probe=ProbeOptions("same", noise=each))
        for each in (None, noise)
    )
    assert torch.equal(plain, trained)
    added = np.linalg.norm(noisy.gradient - honest.gradient) / np.sqrt(len(honest.gradient))
    assert 0.1 < added / noise.gradient_deviation < 2.0 and noisy.loss != honest.loss
    with pytest.raises(InvalidProblemError, match="noise"):
        ProbeOptions(noise=3)


def test_clients_with_noise_are_trained_one_by_one() -> None:
    module, x, y = problem()
    model = FlatModel(module, functional.cross_entropy)
    probe = ProbeOptions(noise=ReportNoise(epsilon=8.0, delta=1e-5, gradient_clip=1.0, loss_clip=4.0))
    assert choose_engine("auto", model, x, y, seed=0, probe=probe, replacement=True)[0] == "loop"
    with pytest.raises(InvalidProblemError, match="noise on their reports"):
        choose_engine("vectorised", model, x, y, seed=0, probe=probe, replacement=True)
