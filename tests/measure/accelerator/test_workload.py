"""Networks, optimisers and weights: each one trains, and each mistake has its message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeprof.errors import MeasureError
from pipeprof.measure.accelerator.cpu import CpuAccelerator
from pipeprof.measure.accelerator.workload import HIDDEN, OPTIMIZERS, Workload, build_network, load_weights
from pipeprof.record.step_times import PartTimes
from pipeprof.scenario import AcceleratorPart, ModelPart, Scenario

VECTORS = torch.randn(64, 1000)
IMAGES = torch.randn(2, 3, 64, 64)


def workload(
    name: str = "two_layer_net",
    *,
    amp: bool = False,
    channels_last: bool = False,
    compile: bool = False,
    **model: object,
) -> Workload:
    part = ModelPart(name=name, **model)  # type: ignore[arg-type]
    options = AcceleratorPart(amp=amp, channels_last=channels_last, compile=compile)
    return Workload(Scenario(name="test", model=part, accelerator=options), "cpu")


def loss_after(
    work: Workload, inputs: torch.Tensor, targets: torch.Tensor | None, steps: int
) -> tuple[float, float]:
    losses = []
    loss_of = work._loss

    def noted(output: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
        loss = loss_of(output, wanted)
        losses.append(float(loss.detach()))
        return loss

    work._loss = noted  # type: ignore[method-assign]
    for _ in range(steps):
        work.step(*work.prepare(inputs if targets is None else (inputs, targets)))
    return losses[0], losses[-1]


QUICK_OPTIMIZERS = ("sgd", "adam")


@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(each, marks=() if each in QUICK_OPTIMIZERS else pytest.mark.slow) for each in OPTIMIZERS],
)
def test_every_optimiser_of_the_notes_lowers_the_loss_of_the_two_layer_net(optimizer: str) -> None:
    rate = {"lbfgs": 0.1, "sgd": 0.1, "momentum": 0.05, "nesterov": 0.05}.get(optimizer, 1e-3)
    work = workload(optimizer=optimizer, learning_rate=rate)
    first, last = loss_after(work, VECTORS, torch.arange(64) % 10, 12)
    assert last < 0.9 * first


def test_the_two_layer_net_has_the_lectures_sizes() -> None:
    work = workload()
    work.step(*work.prepare((VECTORS, torch.zeros(64, dtype=torch.long))))
    assert work.describe().parameters == 1000 * HIDDEN + HIDDEN * 10


def test_the_two_layer_net_takes_numbers_as_targets_and_images_as_vectors() -> None:
    work = workload(learning_rate=1e-6)
    first, last = loss_after(work, VECTORS, torch.randn(64, 10), 3)
    assert last < first
    assert inputs_of(workload(), (IMAGES, torch.zeros(2, dtype=torch.long))).shape == (2, 3 * 64 * 64)


NETWORKS = [
    "resnet18",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("squeezenet1_1", "mobilenet_v3_small")),
]


def trained(work: Workload, batch: object) -> set[str]:
    """Train one step; the names of the weights that it has changed, all of which are finite."""
    before = {name: weight.detach().clone() for name, weight in work.network.named_parameters()}
    work.step(*work.prepare(batch))
    after = dict(work.network.named_parameters())
    assert all(bool(weight.isfinite().all()) for weight in after.values())
    return {name for name, weight in after.items() if not torch.equal(weight, before[name])}


def inputs_of(work: Workload, batch: object) -> torch.Tensor:
    """What the network is given in a step on `batch`."""
    given: list[torch.Tensor] = []
    work.network.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    work.step(*work.prepare(batch))
    return given[-1]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision_train(name: str) -> None:
    work = workload(name, classes=10, learning_rate=0.01)
    changed = trained(work, (IMAGES, torch.tensor([1, 2])))
    weights = [name for name, _ in work.network.named_parameters()]
    assert {weights[0], weights[-1]} <= changed, "from the first layer to the last"


@pytest.mark.slow
def test_a_network_with_auxiliary_heads_trains_its_main_one() -> None:
    work = workload("googlenet", classes=10, learning_rate=0.01)
    changed = trained(work, (torch.randn(2, 3, 96, 96), torch.tensor([1, 2])))
    assert {"conv1.conv.weight", "fc.weight"} <= changed
    assert not any(name.startswith("aux") for name in changed)


def test_bytes_become_zero_to_one_on_the_device() -> None:
    labels = torch.tensor([1, 2])
    given = inputs_of(workload("resnet18", classes=10), (torch.full((2, 3, 64, 64), 255).byte(), labels))
    assert (given.dtype, float(given.min()), float(given.max())) == (torch.float32, 1.0, 1.0)


@pytest.mark.slow
def test_mixed_precision_and_channels_last_train() -> None:
    work = workload("resnet18", classes=10, amp=True, channels_last=True, learning_rate=0.01)
    precisions: list[torch.dtype] = []
    work.network.register_forward_hook(lambda _, __, output: precisions.append(output.dtype))
    assert "conv1.weight" in trained(work, (IMAGES, torch.tensor([1, 2])))
    assert set(precisions[1:]) == {torch.bfloat16}, "all but the pass that gives lazy layers their width"
    assert next(work.network.parameters()).is_contiguous(memory_format=torch.channels_last)
    given = inputs_of(work, (IMAGES, torch.tensor([1, 2])))
    assert given.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_without_labels_trains_on_its_inputs() -> None:
    work = workload(learning_rate=1e-4)
    first, last = loss_after(work, VECTORS, None, 3)
    assert last < first


def test_a_misspelt_model_is_told_the_nearest() -> None:
    with pytest.raises(MeasureError) as error:
        build_network(ModelPart(name="resnet-50"))
    assert "no model is called resnet-50" in str(error.value)
    assert "did you mean resnet50?" in str(error.value)
    with pytest.raises(MeasureError, match="two_layer_net"):
        build_network(ModelPart(name="two_layers_net"))


def test_detection_models_are_no_classification_models() -> None:
    with pytest.raises(MeasureError, match="no model is called fasterrcnn_resnet50_fpn"):
        build_network(ModelPart(name="fasterrcnn_resnet50_fpn"))


def test_a_batch_that_the_network_cannot_take_says_its_shape() -> None:
    work = workload("resnet18", classes=10)
    with pytest.raises(MeasureError, match="resnet18 cannot train on batches of 64x1000"):
        work.step(*work.prepare((VECTORS, torch.zeros(64, dtype=torch.long))))


def test_a_label_beyond_the_classes_says_what_to_set() -> None:
    with pytest.raises(MeasureError, match=r"set model[.]classes=13 or more"):
        workload("resnet18", classes=10).prepare((IMAGES, torch.tensor([1, 12])))


def test_a_negative_label_says_so_before_a_device_could_crash_on_it() -> None:
    work, labels = workload("resnet18", classes=10), torch.tensor([-100, -1])
    work.device = torch.device("meta")
    with pytest.raises(MeasureError, match="a batch has the label -1") as error:
        work.prepare((IMAGES, labels))
    assert "number the classes from 0" in str(error.value)
    work.prepare((IMAGES, torch.tensor([-100, 1])))


def test_a_negative_label_on_the_cpu_says_so_in_any_step() -> None:
    work = workload()
    work.step(*work.prepare((VECTORS, torch.arange(64) % 10)))
    with pytest.raises(MeasureError, match="a batch has the label -3"):
        work.step(*work.prepare((VECTORS, torch.arange(64) % 10 - 3)))


def test_a_compiled_model_is_compiled_once_and_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    calls: list[int] = []

    def compile_(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        compiled.append(network)

        def forward(inputs: torch.Tensor) -> torch.Tensor:
            calls.append(len(inputs))
            found: torch.Tensor = network(inputs)
            return found

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    work = workload(compile=True)
    first, last = loss_after(work, VECTORS, torch.arange(64) % 10, 5)
    assert compiled == [work.network]
    assert calls == [64] * 5
    assert last < first


def test_a_batch_without_inputs_says_so() -> None:
    with pytest.raises(MeasureError, match="hold no inputs"):
        workload().prepare(["a", "b"])


def test_weights_come_from_a_local_file(tmp_path: Path) -> None:
    part = ModelPart(name="squeezenet1_1", classes=10)
    saved = build_network(part)
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in saved.state_dict().items()}}, path)
    loaded = build_network(part)
    load_weights(loaded, path)
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_weights_that_are_missing_damaged_or_foreign_say_so(tmp_path: Path) -> None:
    network = build_network(ModelPart(name="squeezenet1_1", classes=10))
    with pytest.raises(MeasureError, match="does not exist"):
        load_weights(network, tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(MeasureError, match="cannot be read"):
        load_weights(network, tmp_path / "bad.pt")
    torch.save(build_network(ModelPart(name="squeezenet1_1", classes=11)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(MeasureError, match="another network"):
        load_weights(network, tmp_path / "other.pt")
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(MeasureError, match="another network"):
        load_weights(network, tmp_path / "list.pt")


def test_the_cpu_tells_its_times_and_that_it_synchronises() -> None:
    times = iter([5, 10, 15, 20, 35, 40])
    accelerator = CpuAccelerator(workload(), clock=lambda: next(times))
    accelerator.request(0)
    accelerator.submit(0, (VECTORS, torch.zeros(64, dtype=torch.long)))
    (told,) = accelerator.finished()
    assert (told.compute_start_ns, told.compute_end_ns, told.device_wait_ns) == (10, 40, 5)
    assert accelerator.parts() == [
        PartTimes(0, "forward", 15, 20), PartTimes(0, "backward", 20, 35), PartTimes(0, "optimizer", 35, 40),
    ]  # fmt: skip
    assert accelerator.parts() == [], "each is told once"
    assert accelerator.describe().synchronises is True


def test_channels_last_waits_for_the_width_of_lazy_layers() -> None:
    work = Workload(
        Scenario(
            name="test",
            model=ModelPart(name="two_layer_net"),
            accelerator=AcceleratorPart(kind="cpu", channels_last=True),
        ),
        "cpu",
    )
    work.step(VECTORS, torch.zeros(64, dtype=torch.long))
    assert work.describe().channels_last is True
