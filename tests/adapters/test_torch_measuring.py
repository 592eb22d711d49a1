from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import coopt
from coopt import InvalidProblemError, Measurement

torch = pytest.importorskip("torch")
from torch import Tensor, nn

from coopt.adapters.torch import SharedData, measure
from coopt.adapters.torch.measuring_in_a_run import measure_where_wanted

cross_entropy = nn.functional.cross_entropy
INPUTS, CLASSES = 6, 3
pytestmark = pytest.mark.filterwarnings("ignore::coopt.MeasurementWarning")


def federation(sizes: tuple[int, ...] = (40, 25, 60), seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(INPUTS, CLASSES, generator=generator, dtype=torch.float64)
    clients = []
    for size in sizes:
        x = torch.randn(size, INPUTS, generator=generator, dtype=torch.float64)
        noise = torch.randn(size, CLASSES, generator=generator, dtype=torch.float64)
        clients.append((x, (x @ truth + noise).argmax(dim=1)))
    return clients


def network(*layers: nn.Module, seed: int = 0) -> nn.Sequential:
    module = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def linear() -> nn.Sequential:
    return network(nn.Linear(INPUTS, CLASSES))


def tanh() -> nn.Sequential:
    return network(nn.Linear(INPUTS, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def callback(module: nn.Module, decay: float = 0.0) -> tuple[Any, np.ndarray]:
    """The gradient as any framework gives it, and the parameters."""
    parameters = list(module.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach().numpy().copy()

    def gradient(w: np.ndarray, batch: tuple[Tensor, Tensor]) -> tuple[float, np.ndarray]:
        nn.utils.vector_to_parameters(torch.from_numpy(w.copy()), parameters)
        loss = cross_entropy(module(batch[0]), batch[1])
        loss = loss + decay / 2 * sum((p**2).sum() for p in parameters)
        return loss.item(), torch.cat([g.ravel() for g in torch.autograd.grad(loss, parameters)]).numpy()

    return gradient, start


def agree(left: Measurement, right: Measurement, tolerance: float = 1e-5) -> None:
    """Whether two measurements say the same, up to the signs of the directions."""
    assert left.directions == right.directions
    scale = left.spectrum[0]
    np.testing.assert_allclose(left.spectrum, right.spectrum, atol=tolerance * scale)
    np.testing.assert_allclose(left.device_spectra, right.device_spectra, atol=5 * tolerance * scale)
    np.testing.assert_allclose(left.noise, right.noise, rtol=1e-6)
    np.testing.assert_allclose(left.divergence, right.divergence, rtol=1e-6)
    np.testing.assert_allclose(left.gradient_norm, right.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(left.sample_curvature, right.sample_curvature, rtol=1e-4)
    np.testing.assert_allclose(left.loss, right.loss, rtol=1e-9)
    np.testing.assert_allclose(left.unseen, right.unseen, atol=1e-3)
    np.testing.assert_allclose(abs(left.gradients), abs(right.gradients), atol=1e-4 * left.gradient_norm)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("make", "kind"), [(linear, "auto"), (tanh, "hessian")])
def test_hessian_products_agree_with_gradient_differences(make: Any, kind: Any, decay: float) -> None:
    found = measure(
        make(), cross_entropy, federation(), rows=8, directions=6, weight_decay=decay, curvature=kind
    )
    gradient, start = callback(make(), decay)
    agree(found, coopt.measure(gradient, start, federation(), rows=8, directions=6))
    assert found.curvature_kind == "hessian"


def test_the_gauss_newton_curvature_is_that_of_the_jacobian() -> None:
    module, clients = tanh(), federation((12,))
    x = clients[0][0]
    found = measure(module, cross_entropy, clients, rows=12, directions=40, curvature="gauss-newton")
    names = [name for name, _ in module.named_parameters()]
    values = tuple(p.detach() for p in module.parameters())

    def outputs(*parts: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(module, dict(zip(names, parts, strict=True)), (x,))
        return result

    jacobian = torch.autograd.functional.jacobian(outputs, values)
    j = torch.cat([part.reshape(12, CLASSES, -1) for part in jacobian], dim=2)
    p = outputs(*values).softmax(dim=1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    curvature = torch.einsum("rcn,rcd,rdm->nm", j, inner, j).numpy() / 12
    exact = np.linalg.eigvalsh(curvature)[::-1][: found.directions]
    np.testing.assert_allclose(found.spectrum[:3], exact[:3], rtol=1e-8)
    assert found.spectrum[-1] > -1e-12


def test_auto_says_which_curvature_it_took_and_why() -> None:
    clients = federation()
    found = measure(linear(), cross_entropy, clients)
    assert (found.curvature_kind, "are affine" in found.curvature_reason) == ("hessian", True)
    for module in (
        tanh(),
        network(nn.Linear(INPUTS, CLASSES), nn.ReLU()),
        network(nn.Linear(INPUTS, 4), nn.Linear(4, CLASSES)),
    ):
        found = measure(module, cross_entropy, clients)
        assert (found.curvature_kind, "are not affine" in found.curvature_reason) == ("gauss-newton", True)
    found = measure(linear(), cross_entropy, clients, curvature="gauss-newton")
    assert (found.curvature_kind, found.curvature_reason) == ("gauss-newton", "asked for")
    with pytest.raises(InvalidProblemError, match="curvature = 'fisher'"):
        measure(linear(), cross_entropy, clients, curvature="fisher")


def test_frozen_features_leave_a_model_affine_in_what_is_trained() -> None:
    module = tanh()
    module[0].requires_grad_(False)
    found = measure(module, cross_entropy, federation())
    assert (found.curvature_kind, found.parameters) == ("hessian", 4 * CLASSES + CLASSES)


def test_single_precision_agrees_and_the_model_is_left_alone() -> None:
    module = tanh().float()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    clients = [(x.float(), y) for x, y in federation()]
    found = measure(module, cross_entropy, clients, directions=5)
    exact = measure(tanh(), cross_entropy, federation(), directions=5)
    np.testing.assert_allclose(found.spectrum, exact.spectrum, rtol=1e-3)
    np.testing.assert_allclose(found.noise, exact.noise, rtol=1e-4)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


class Sequences(nn.Module):
    """Rows seen as sequences of two steps, by a recurrent layer or by attention."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body: Any
        if kind == "attention":
            self.body = nn.TransformerEncoderLayer(INPUTS // 2, 1, 4, dropout=0.3, batch_first=True)
        else:
            self.body = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](INPUTS // 2, 3, batch_first=True)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x.unflatten(1, (2, 3)))
        result: Tensor = self.head((body if self.kind == "attention" else body[0]).mean(dim=1))
        return result


@pytest.mark.parametrize("kind", ["lstm", "gru", "attention"])
def test_recurrence_and_attention_agree_with_gradient_differences(kind: str) -> None:
    torch.manual_seed(0)
    module = Sequences(kind).double()
    fast = torch.backends.mha.get_fastpath_enabled()
    found = measure(module, cross_entropy, federation((9, 7)), rows=4, directions=3, curvature="hessian")
    assert torch.backends.mha.get_fastpath_enabled() == fast
    module.eval()
    gradient, start = callback(module)
    torch.backends.mha.set_fastpath_enabled(False)
    agree(found, coopt.measure(gradient, start, federation((9, 7)), rows=4, directions=3))
    torch.backends.mha.set_fastpath_enabled(fast)
    assert measure(module, cross_entropy, federation((9, 7)), directions=3).curvature_kind == "gauss-newton"


def test_dropout_is_off_and_batch_normalisation_keeps_its_statistics() -> None:
    with_both = network(nn.Linear(INPUTS, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, CLASSES))
    found = [measure(with_both, cross_entropy, federation(), directions=4) for _ in range(2)]
    assert found[0] == found[1]
    without = network(nn.Linear(INPUTS, 4), nn.BatchNorm1d(4), nn.Identity(), nn.Linear(4, CLASSES))
    assert measure(without, cross_entropy, federation(), directions=4) == found[0]
    assert with_both[1].running_mean.abs().max() == 0.0


def test_convolutions_and_losses_that_average_over_outputs_work() -> None:
    module = network(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    clients = [(x, torch.stack([x[:, 0], x[:, 1] ** 2], dim=1)) for x, _ in federation()]
    for kind in ("gauss-newton", "hessian"):
        found = measure(module, nn.MSELoss(), clients, directions=5, curvature=kind)
        assert found.spectrum[0] > 0.0
    parts = list(module.parameters())
    x, y = (torch.cat(part) for part in zip(*clients, strict=True))
    mean = torch.autograd.grad(nn.MSELoss()(module(x), y), parts)
    whole = measure(module, nn.MSELoss(), [(x, y)], rows=200, directions=3)
    norm = torch.cat([g.ravel() for g in mean]).norm().item()
    assert whole.gradient_norm == pytest.approx(norm)


def test_a_sum_a_weighted_mean_and_a_failing_model_are_refused() -> None:
    with pytest.raises(InvalidProblemError, match="a mean over rows"):
        measure(linear(), nn.CrossEntropyLoss(reduction="sum"), federation())
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64))
    with pytest.raises(InvalidProblemError, match="without class weights"):
        measure(linear(), weighted, federation())

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return 2 * gradients[0]

    class Detours(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Twice.apply(super().forward(x))

    with pytest.raises(
        InvalidProblemError, match=r"torch\.func cannot measure this model.*coopt\.measure needs"
    ):
        measure(Detours(INPUTS, CLASSES).double(), cross_entropy, federation())


def test_a_device_that_is_not_finite_is_named_and_may_be_left_out() -> None:
    clients = federation()
    clients[1][0][:] = torch.nan
    with pytest.raises(InvalidProblemError, match="device 'b' has loss = nan on 16 of its rows"):
        measure(linear(), cross_entropy, clients, names=["a", "b", "c"])
    found = measure(linear(), cross_entropy, clients, left_out=[1])
    assert found.measured.tolist() == [True, False, True]


def test_shared_data_give_the_same_and_rows_that_change_are_refused() -> None:
    clients = federation()
    x, y = (torch.cat(part) for part in zip(*clients, strict=True))
    rows = [np.arange(40), np.arange(40, 65), np.arange(65, 125)]
    assert measure(linear(), cross_entropy, SharedData(x, y, rows)) == measure(
        linear(), cross_entropy, clients
    )
    with pytest.raises(InvalidProblemError, match="change with the round"):
        measure(linear(), cross_entropy, SharedData(x, y, lambda _: rows))
    with pytest.raises(InvalidProblemError, match="rows of client 1 are empty"):
        measure(linear(), cross_entropy, SharedData(x, y, [np.arange(3), np.arange(0)]))


def test_what_it_cost_and_a_zero_gradient() -> None:
    found = measure(tanh(), cross_entropy, federation((100, 100)), rows=8, directions=5)
    assert found.samples_used == 2 * 8 * (1 + 2 * 5 + 3 + 2)
    dead = network(nn.Linear(INPUTS, 4), nn.ReLU(), nn.Linear(4, CLASSES, bias=False))
    dead[0].bias.data[:] = -1e6
    with pytest.raises(InvalidProblemError, match="gradient is zero on the rows of every device"):
        measure(dead, cross_entropy, federation())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["gauss-newton", "hessian"])
def test_a_cuda_device_agrees(kind: Any) -> None:
    found = [measure(tanh(), cross_entropy, federation(), curvature=kind, device=d) for d in ("cpu", "cuda")]
    agree(*found)


@pytest.mark.parametrize("kind", ["gauss-newton", "hessian"])
def test_the_size_of_the_parts_that_go_through_the_model_does_not_matter(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"rows": 7, "directions": 4, "curvature": kind}
    whole = measure(tanh(), cross_entropy, federation((40, 3, 30)), **options)
    for name, value in (("NUMBERS_AT_ONCE", 200), ("INPUTS_AT_ONCE", 30), ("FEWEST_ROWS", 1)):
        monkeypatch.setattr(f"coopt.adapters.torch.curvature.{name}", value)
    monkeypatch.setattr("coopt.adapters.torch.measured_rows.NUMBERS_AT_ONCE", 200)
    parts = measure(tanh(), cross_entropy, federation((40, 3, 30)), **options)
    for name in (
        "gradients",
        "curvatures",
        "covariances",
        "noise",
        "divergence",
        "unseen",
        "sample_curvature",
    ):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-9)


SIX = torch.ones(6, 2), torch.ones(6, 1)


@pytest.mark.parametrize(
    ("datasets", "reduction", "said"),
    [
        (torch.utils.data.TensorDataset(*SIX), "mean", "client_datasets is a TensorDataset: give a list"),
        ({"a": SIX}, "mean", "client_datasets is a dict: give a list"),
        ([SIX], "none", r"loss of \d rows has shape \(\d, 1\): give one that is a mean"),
        ([(SIX[0] * torch.nan, SIX[1])], "mean", "is nan: look at its data"),
        (
            [(SIX[0].double(), SIX[1])],
            "mean",
            r"fails on 4 rows of the first client, inputs of type torch\.float64 and shape \(4, 2\), targets",
        ),
    ],
)
def test_what_a_stranger_gives_is_named(datasets: Any, reduction: str, said: str) -> None:
    with pytest.raises(InvalidProblemError, match=said):
        measure(nn.Linear(2, 1), nn.MSELoss(reduction=reduction), datasets)


def test_first_rounds_are_brief_before_any_data_have_arrived() -> None:
    """Of a stream nobody holds anything yet: with long first rounds a plan had 54 rounds in place of 154."""
    controller = coopt.Controller(
        coopt.Fleet([400] * 5, 1.0, 1.0), coopt.Budget(cost=1e6, time=1000.0), 0.1, streaming=True
    )
    told = measure_where_wanted(controller, measure, None, None, coopt.Optimiser(), 0, time.monotonic)
    plan = controller.plan()
    assert told == [] and isinstance(plan, coopt.RoundPlan)
    assert plan.local_steps == 1 and plan.batch_sizes.tolist() == [2] * 5
