"""The network that is trained, the lesson's two-layer net or one of torchvision's, and its optimiser.

A workload is one training step on tensors that already lie on its device. It knows nothing of queues or
clocks: those are the accelerator's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import nn

from pipeprof.errors import MeasureError, first_line
from pipeprof.measure.probe.tensors import split
from pipeprof.record import step_times
from pipeprof.record.meta import ModelMeta
from pipeprof.scenario import ModelPart, Scenario

TWO_LAYER_NET: Final = "two_layer_net"
HIDDEN, D_OUT = 100, 10
"""Sizes of the two-layer net of CS231n lecture 8; its D_in of 1000 is the width of the samples."""

IGNORED: Final = -100
"""The label that torch's cross entropy leaves out."""

Optimizers = Callable[[Any, float], torch.optim.Optimizer]
OPTIMIZERS: Final[dict[str, Optimizers]] = {
    "sgd": lambda params, rate: torch.optim.SGD(params, lr=rate),
    "momentum": lambda params, rate: torch.optim.SGD(params, lr=rate, momentum=0.9),
    "nesterov": lambda params, rate: torch.optim.SGD(params, lr=rate, momentum=0.9, nesterov=True),
    "adagrad": lambda params, rate: torch.optim.Adagrad(params, lr=rate),
    "rmsprop": lambda params, rate: torch.optim.RMSprop(params, lr=rate),
    "adam": lambda params, rate: torch.optim.Adam(params, lr=rate),
    # Four evaluations of the network a step at most, where torch's default of 20 would be 25.
    "lbfgs": lambda params, rate: torch.optim.LBFGS(params, lr=rate, max_iter=4, max_eval=4),
}
"""The optimisers of the lecture's notes, with the notes' momentum of 0.9 and torch's other figures."""


class Workload:
    """A network, its loss and its optimiser on one device; `step` trains on one batch.

    The optimiser is made in the first step, when lazy layers have seen the width of the samples. Raises
    `MeasureError` at once for a model or a weights file that does not exist, and in the first step for a
    batch that the network cannot take.
    """

    def __init__(self, scenario: Scenario, device: str) -> None:
        self.device = torch.device(device)
        self._part, self._options = scenario.model, scenario.accelerator
        torch.manual_seed(scenario.run.seed)
        self.network = build_network(scenario.model)
        if scenario.model.weights is not None:
            load_weights(self.network, Path(scenario.model.weights))
        self._layout = torch.channels_last if self._options.channels_last else torch.contiguous_format
        self.network.to(self.device)
        self._forward: Callable[[torch.Tensor], Any] = self.network
        self._optimizer: torch.optim.Optimizer | None = None
        self.mark: Callable[[str], None] = _unobserved
        """Called where a part of a step begins: `forward`, `backward`, `optimizer`."""

    def prepare(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Split a batch in host memory into inputs and targets, and check them before a device sees them."""
        inputs, targets = split(batch)
        if targets is not None and targets.device.type == "cpu" and not targets.is_floating_point():
            outside = int(targets.max()) if targets.numel() else 0
            if outside >= self.classes:
                raise MeasureError(
                    f"a batch has the label {outside}, and the network has {self.classes} classes",
                    f"set model.classes={outside + 1} or more",
                )
            if self.device.type != "cpu":  # there the loss says so by itself, see `_loss`
                _refuse_negative(targets)
        return inputs, targets

    @property
    def classes(self) -> int:
        """Return the width of the network's output."""
        return D_OUT if self._part.name == TWO_LAYER_NET else self._part.classes

    def step(self, inputs: torch.Tensor, targets: torch.Tensor | None) -> None:
        """Train one step on tensors of this device. Never reads a result back."""
        inputs = self._as_input(inputs)
        if self._optimizer is None:
            self._first(inputs, targets)
        else:
            self._train(self._optimizer, inputs, targets)

    def _first(self, inputs: torch.Tensor, targets: torch.Tensor | None) -> None:
        try:
            with torch.no_grad():
                self.network(inputs)  # gives lazy layers their width
            if self._options.channels_last:
                self.network.to(memory_format=torch.channels_last)
            if self._options.compile:
                self._forward = torch.compile(self.network)
            optimizer = OPTIMIZERS[self._part.optimizer](self.network.parameters(), self._part.learning_rate)
            self._train(optimizer, inputs, targets)
        except torch.OutOfMemoryError as error:
            raise MeasureError(
                f"{self._part.name} with a batch of {len(inputs)} does not fit in the device's memory",
                "make loader.batch_size smaller or choose a smaller model",
            ) from error
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            shape = "x".join(map(str, inputs.shape))
            raise MeasureError(
                f"{self._part.name} cannot train on batches of {shape} {inputs.dtype}: {first_line(error)}",
                "choose another model.name, change data.crop, or check what the dataset returns",
            ) from error
        self._optimizer = optimizer

    def _as_input(self, inputs: torch.Tensor) -> torch.Tensor:
        """Turn inputs into floats of the network's shape; bytes become 0 to 1 here, on the device."""
        if not inputs.is_floating_point():
            inputs = inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs.float()
        if self._part.name == TWO_LAYER_NET:
            return inputs.flatten(1)
        return inputs.contiguous(memory_format=self._layout) if inputs.ndim == 4 else inputs

    def _train(
        self, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor | None
    ) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            self.mark(step_times.FORWARD)
            with self._precision():
                loss = self._loss(self._forward(inputs), targets)
            self.mark(step_times.BACKWARD)
            loss.backward()  # type: ignore[no-untyped-call]
            self.mark(step_times.OPTIMIZER)
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        else:
            closure()
            optimizer.step()

    def _precision(self) -> AbstractContextManager[Any]:
        """Return the forward pass's precision: bfloat16 has float32's range and needs no loss scaling."""
        if not self._options.amp:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _loss(self, output: Any, targets: torch.Tensor | None) -> torch.Tensor:
        """Return cross entropy over labels, or the lecture's sum of squared errors over numbers."""
        if hasattr(output, "logits"):  # googlenet and inception_v3 return their auxiliary heads too
            output = output.logits
        assert isinstance(output, torch.Tensor)
        if targets is None:
            return output.square().sum()
        if targets.is_floating_point():
            return (output - targets.reshape(output.shape)).square().sum()
        try:
            return nn.functional.cross_entropy(output, targets.long())
        except IndexError:
            _refuse_negative(targets)
            raise

    def describe(self) -> ModelMeta:
        """Return facts for `run.json`: the model as it was trained."""
        parameters = [p for p in self.network.parameters() if not nn.parameter.is_lazy(p)]
        options = self._options
        return ModelMeta(
            name=self._part.name,
            parameters=sum(p.numel() for p in parameters),
            weights=self._part.weights,
            optimizer=self._part.optimizer,
            learning_rate=self._part.learning_rate,
            compile=options.compile,
            amp=options.amp,
            channels_last=options.channels_last,
            cudnn=options.cudnn,
        )


def _unobserved(part: str) -> None:
    """Record nothing: no one observes the parts of a step."""


def _refuse_negative(labels: torch.Tensor) -> None:
    wrong = labels[(labels < 0) & (labels != IGNORED)]
    if wrong.numel():
        raise MeasureError(
            f"a batch has the label {int(wrong[0])}",
            f"number the classes from 0; {IGNORED} marks what has none",
        )


def build_network(part: ModelPart) -> nn.Module:
    """Build the network that `part` names, with random weights. Raises `MeasureError` for an unknown name."""
    if part.name == TWO_LAYER_NET:
        return nn.Sequential(
            nn.LazyLinear(HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, D_OUT, bias=False)
        )
    names = torchvision.models.list_models(module=torchvision.models)
    if part.name not in names:
        near = difflib.get_close_matches(part.name.lower(), [*names, TWO_LAYER_NET], n=1, cutoff=0.5)
        raise MeasureError(
            f"no model is called {part.name}",
            (f"did you mean {near[0]}? " if near else "")
            + f"allowed: {TWO_LAYER_NET} and the classification models of torchvision",
        )
    builder = torchvision.models.get_model_builder(part.name)
    arguments: dict[str, Any] = {"weights": None, "num_classes": part.classes}
    if part.name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False  # drawing theirs takes long
    network: nn.Module = builder(**arguments)
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a local checkpoint: a state dict, or a mapping that holds one. Nothing in it is executed.

    Raises `MeasureError` if it cannot be read or is of another network.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise MeasureError(f"model.weights: {path} does not exist", "check the path") from error
    except Exception as error:  # torch.load raises whatever the file's bytes lead it to
        raise MeasureError(
            f"model.weights: {path} cannot be read: {first_line(error)}",
            "give a file that torch.save wrote from a state dict",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in dict(held).items()})
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise MeasureError(
            f"model.weights: {path} is of another network: {first_line(error)}",
            "set model.name and model.classes to those of the checkpoint",
        ) from error
