"""The adapters to torch, on stand-ins for what torch is asked: each backend's, and those of older torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeprof.measure.device import any_device, here
from pipeprof.measure.device.any_device import TorchDevice
from pipeprof.measure.device.cuda import CudaDevice
from pipeprof.measure.device.mps import MpsDevice


class Accelerator:
    """`torch.accelerator`, with the names of torch 2.6 or of 2.8 and newer."""

    def __init__(self, old: bool = False, count: int = 3) -> None:
        self.current, self.streams, self.set = 1, ["default"], list[Any]()
        self.device_count = lambda: count
        now, change = ("idx", "idx") if old else ("index", "index")
        setattr(self, f"current_device_{now}", lambda: self.current)
        setattr(self, f"set_device_{change}", self.set.append)

    def current_stream(self, index: int | None = None) -> Any:
        return self.streams[-1] if index is None else f"stream of {index}"

    def set_stream(self, stream: Any) -> None:
        self.streams.append(stream)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    made = Accelerator()
    monkeypatch.setattr(any_device, "_API", made)
    return made


@pytest.mark.parametrize("old", [False, True])
def test_the_current_device_in_every_torch(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Accelerator(old)
    monkeypatch.setattr(any_device, "_API", made)
    device = TorchDevice("npu", SimpleNamespace())
    device.select(2)
    assert (device.index(), device.count(), made.set) == (1, 3, [2])


def test_the_stream_is_put_back_whatever_happens(api: Accelerator) -> None:
    device = TorchDevice("npu", SimpleNamespace())
    with pytest.raises(ValueError, match="mine"), device.on("side"):
        assert device.current_stream() == "side"
        raise ValueError("mine")
    assert device.current_stream() == "default"
    assert device.current_stream(2) == "stream of 2"


def test_events_and_streams_are_torchs_own(api: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(torch, "Event", lambda device, enable_timing: made.append((device, enable_timing)))
    monkeypatch.setattr(torch, "Stream", made.append)
    device = TorchDevice("xpu", SimpleNamespace())
    device.event()
    device.event(2)
    device.new_stream()
    assert made == [(torch.device("xpu", 1), True), (torch.device("xpu", 2), True), torch.device("xpu", 1)]


def test_the_busiest_device_is_the_one_that_holds_most(api: Accelerator) -> None:
    held = [0, 5, 9]
    device = TorchDevice("xpu", SimpleNamespace(memory_allocated=lambda index: held[index]))
    assert device.busiest() == 2
    held[:] = [0, 0, 0]
    assert device.busiest() is None
    assert TorchDevice("npu", SimpleNamespace()).busiest() == 1, "a backend that does not say"


def test_a_backend_that_tells_little_is_named_by_its_kind(api: Accelerator) -> None:
    bare = TorchDevice("npu", SimpleNamespace(is_available=lambda: True))
    assert bare.in_use()
    facts = bare.facts(0)
    assert (facts.kind, facts.name, facts.uuid, bare.memory_bytes(0)) == ("npu", "npu", None, None)
    assert facts.device_of_torch
    named = TorchDevice(
        "xpu",
        SimpleNamespace(
            is_initialized=lambda: False,
            get_device_properties=lambda index: SimpleNamespace(name="Arc", total_memory=2**33, uuid="u"),
        ),
    )
    assert not named.in_use()
    assert (named.facts(0).name, named.facts(0).uuid, named.memory_bytes(0)) == ("Arc", "u", 2**33)


def test_a_stream_says_whether_it_is_captured(api: Accelerator) -> None:
    device = TorchDevice("xpu", SimpleNamespace())
    assert not device.capturing(), "a stream of a torch that cannot say"
    api.streams.append(SimpleNamespace(is_capturing=lambda: True))
    assert device.capturing()
    cuda = CudaDevice(SimpleNamespace(is_current_stream_capturing=lambda: True))  # type: ignore[arg-type]
    assert cuda.capturing()


@pytest.mark.parametrize(("hip", "kind"), [(None, "cuda"), ("6.2", "rocm")])
def test_rocm_is_cuda_by_another_name(
    hip: str | None, kind: str, monkeypatch: pytest.MonkeyPatch, api: Accelerator
) -> None:
    monkeypatch.setattr(torch.version, "hip", hip)
    module = SimpleNamespace(
        get_device_properties=lambda index: SimpleNamespace(name="GPU", total_memory=1, uuid="a-b")
    )
    device = CudaDevice(module)  # type: ignore[arg-type]
    facts = device.facts(0)
    assert (device.kind, device.torch_name, facts.kind, facts.hip, facts.uuid) == (
        kind, "cuda", kind, hip, "a-b",
    )  # fmt: skip


def test_cudnn_is_switched_for_the_block_alone() -> None:
    device = CudaDevice()
    with device.libraries(False):
        assert not torch.backends.cudnn.enabled
    with device.libraries(True):
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled


def test_a_mac_has_one_stream_and_one_memory(api: Accelerator) -> None:
    held = [0]
    module = SimpleNamespace(
        is_available=lambda: True,
        current_allocated_memory=lambda: held[0],
        recommended_max_memory=lambda: 2**34,
    )
    device = MpsDevice(module)  # type: ignore[arg-type]
    assert not device.in_use()
    held[0] = 1
    assert device.in_use()
    assert device.new_stream() == "default"
    assert (device.pins, device.side_streams, device.pin(torch.zeros(1))) == (False, False, None)
    assert device.facts(0).name == "Apple GPU"
    assert device.memory_bytes(0) == 2**34


@pytest.mark.parametrize(
    ("name", "kind"), [("cuda", CudaDevice), ("mps", MpsDevice), ("xpu", TorchDevice), (None, None)]
)
def test_the_adapter_follows_the_torch_that_is_installed(
    name: str | None, kind: type | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = None if name is None else torch.device(name)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: built)
    here._made.cache_clear()
    made = here.built_for()
    here._made.cache_clear()
    assert type(made) is (kind or type(None))


def test_a_device_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert here.available_device() is None
    assert here.device_name() is None


def test_a_torch_that_would_ask_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.6: whoever forks afterwards could not use CUDA in the child."""
    monkeypatch.setattr(here, "ASKS_DRIVER", True)
    monkeypatch.setattr(here, "_is_initialised", lambda name: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: pytest.fail("it asked"))
    assert here.device_in_use() is None
