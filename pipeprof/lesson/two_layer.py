"""The two-layer net of CS231n lecture 8, written in every way that the lecture writes it.

All ways minimise the same sum of squared errors of `relu(x @ w1) @ w2` by gradient descent from one start, so
they must agree in loss; they differ in what computes the gradients, what keeps the parameters, and the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Floats = npt.NDArray[np.float32]
Clock = Callable[[], int]


@dataclass(frozen=True)
class TwoLayerTask:
    """Sizes and figures of the lecture: N = 64, D_in = 1000, H = 100, D_out = 10, 500 steps at 1e-6."""

    n: int = 64
    d_in: int = 1000
    hidden: int = 100
    d_out: int = 10
    iterations: int = 500
    learning_rate: float = 1e-6
    seed: int = 0
    weight_scale: float = 0.5
    """Standard deviation of the first weights. The lecture's 1.0 fits the 64 samples down to float32's floor
    (2.5e7 to 9e-5 in 500 iterations), where rounding alone parts the ways by up to 2%."""

    def start(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Draw x (n, d_in), y (n, d_out), w1 (d_in, hidden), w2 (hidden, d_out): normal, float32."""
        rng = np.random.default_rng(self.seed)
        shapes = (
            (self.n, self.d_in),
            (self.n, self.d_out),
            (self.d_in, self.hidden),
            (self.hidden, self.d_out),
        )
        x, y, w1, w2 = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
        scale = np.float32(self.weight_scale)
        return x, y, scale * w1, scale * w2


@dataclass(frozen=True)
class Outcome:
    """The losses and times of training in one way."""

    way: str
    device: str
    losses: tuple[float, ...]
    """The loss before each update: `losses[-1]` is that of the last iteration."""
    first_iteration_ns: int
    """Time of the first iteration, compiling and warming up included."""
    iteration_ns: float
    """Median time of the others."""


def in_numpy(problem: TwoLayerTask, tick: Callable[[float], None]) -> None:
    """Train with gradients by hand and arrays in host memory: NumPy knows no GPU and no graph."""
    x, y, w1, w2 = problem.start()
    rate = np.float32(problem.learning_rate)
    for _ in range(problem.iterations):
        h = x @ w1
        h_relu = np.maximum(h, 0)
        error = h_relu @ w2 - y
        tick(float(np.square(error).sum()))
        grad_prediction = 2 * error
        grad_w2 = h_relu.T @ grad_prediction
        grad_h = grad_prediction @ w2.T
        grad_h[h < 0] = 0
        w1 -= rate * (x.T @ grad_h)
        w2 -= rate * grad_w2


def in_tensors(problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device) -> None:
    """Train with gradients by hand in torch tensors, which may live on a GPU."""
    x, y, w1, w2 = _tensors(problem, device)
    for _ in range(problem.iterations):
        h = x @ w1
        h_relu = h.clamp(min=0)
        error = h_relu @ w2 - y
        tick(float(error.square().sum()))
        grad_prediction = 2 * error
        grad_w2 = h_relu.T @ grad_prediction
        grad_h = grad_prediction @ w2.T
        grad_h[h < 0] = 0
        w1 -= problem.learning_rate * (x.T @ grad_h)
        w2 -= problem.learning_rate * grad_w2


def with_autograd(problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device) -> None:
    """Train with a forward pass by hand; autograd keeps the graph and computes the gradients."""
    _descend(problem, tick, device, lambda x, w1, w2: (x @ w1).clamp(min=0) @ w2)


class _Relu(torch.autograd.Function):
    """The lecture's own function: forward and backward written by hand, recorded by autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return grad.masked_fill(x < 0, 0)


def with_own_function(problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device) -> None:
    """Train with autograd and a custom `autograd.Function` for the ReLU."""
    _descend(problem, tick, device, lambda x, w1, w2: _Relu.apply(x @ w1) @ w2)


def with_nn_and_optim(problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device) -> None:
    """Train with layers from `nn` and updates from `optim`."""
    x, y, _, _ = _tensors(problem, device)
    layers = nn.Sequential(*_linear(problem, device)[:1], nn.ReLU(), *_linear(problem, device)[1:])
    _train(problem, tick, layers, lambda: [(x, y)])


class TwoLayerNet(nn.Module):
    """The lecture's Module: two linear layers without bias and a ReLU between them."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute (n, d_out) from (n, d_in)."""
        prediction: torch.Tensor = self.second(self.first(x).clamp(min=0))
        return prediction


def with_module_and_loader(
    problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device
) -> None:
    """Train a Module fed by a DataLoader of batch 8; the gradients of a pass add up to the whole set's."""
    x, y, _, _ = problem.start()
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8)
    model = TwoLayerNet(*_linear(problem, device))
    _train(problem, tick, model, lambda: [(a.to(device), b.to(device)) for a, b in loader])


def compiled(problem: TwoLayerTask, tick: Callable[[float], None], device: torch.device) -> None:
    """Train the Module as a static graph (`torch.compile`) in place of the dynamic one."""
    x, y, _, _ = _tensors(problem, device)
    model = torch.compile(TwoLayerNet(*_linear(problem, device)))
    _train(problem, tick, model, lambda: [(x, y)])


TorchWay = Callable[[TwoLayerTask, Callable[[float], None], torch.device], None]
TORCH_WAYS: Final[dict[str, TorchWay]] = {
    "PyTorch tensors, gradients by hand": in_tensors,
    "autograd": with_autograd,
    "autograd with an own Function": with_own_function,
    "nn + optim": with_nn_and_optim,
    "Module + DataLoader of 8": with_module_and_loader,
    "Module, compiled (static graph)": compiled,
}
NUMPY_WAY: Final = "NumPy, gradients by hand"


def run(way: str, problem: TwoLayerTask, device: str = "cpu", clock: Clock = time.perf_counter_ns) -> Outcome:
    """Train in one way. NumPy has no device but the CPU. Raises what torch raises."""
    losses: list[float] = []
    ticks: list[int] = [clock()]

    def tick(loss: float) -> None:
        losses.append(loss)
        ticks.append(clock())

    if way == NUMPY_WAY:
        in_numpy(problem, tick)
    else:
        TORCH_WAYS[way](problem, tick, torch.device(device))
    spans = np.diff(ticks)
    return Outcome(way, device, tuple(losses), int(spans[0]), float(np.median(spans[1:])))


def _tensors(problem: TwoLayerTask, device: torch.device) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array).to(device) for array in problem.start())


def _linear(problem: TwoLayerTask, device: torch.device) -> tuple[nn.Linear, nn.Linear]:
    """Return the start's weights as layers; `nn.Linear` keeps them transposed."""
    _, _, w1, w2 = _tensors(problem, device)
    layers = []
    for weight in (w1, w2):
        layer = nn.Linear(weight.shape[0], weight.shape[1], bias=False, device=device)
        layer.weight = nn.Parameter(weight.T.contiguous())
        layers.append(layer)
    return layers[0], layers[1]


def _descend(
    problem: TwoLayerTask,
    tick: Callable[[float], None],
    device: torch.device,
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    x, y, w1, w2 = _tensors(problem, device)
    weights = [w1.requires_grad_(), w2.requires_grad_()]
    for _ in range(problem.iterations):
        loss = (predict(x, w1, w2) - y).square().sum()
        tick(float(loss.detach()))
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(problem.learning_rate * gradient)


def _train(
    problem: TwoLayerTask,
    tick: Callable[[float], None],
    model: Callable[[torch.Tensor], torch.Tensor],
    batches: Callable[[], list[tuple[torch.Tensor, torch.Tensor]]],
) -> None:
    assert isinstance(model, nn.Module)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.learning_rate)
    for _ in range(problem.iterations):
        optimizer.zero_grad()
        total = 0.0
        for x, y in batches():
            loss = (model(x) - y).square().sum()
            loss.backward()
            total += float(loss.detach())
        tick(total)
        optimizer.step()
