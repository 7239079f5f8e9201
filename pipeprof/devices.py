"""Pure cost models of the things data passes through: storage, the host-to-device link, accelerators.

Nothing here sleeps, reads a clock or touches a file. A model maps (state, arrival time, request) to a
completion time in integer nanoseconds. The emulated device sleeps until that time; the simulator adds it to
virtual time. One model, two clocks, so that emulation and prediction cannot drift apart.

The state of a storage device is a flat sequence of 64-bit integers, so that the same code runs over a list
(simulation) and over memory shared by processes (emulation).
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from pipeprof.errors import ScenarioError

NS_PER_S: Final = 1_000_000_000
NOWHERE: Final = -1
"""Arm position of a device that has not served a request yet."""

Kind = Literal["disk", "parallel", "rate-limit", "memory"]
Tier = Literal["hdd", "ssd", "nvme", "network", "ram", "pinned"]

State = MutableSequence[int]


class Request(NamedTuple):
    """One read as the device sees it."""

    file_id: int
    """Identity of the file, any 63-bit integer."""
    offset: int
    """First byte, in bytes from the start of the file."""
    size_bytes: int


class Service(NamedTuple):
    """When a request was served, in the clock of `arrival_ns`."""

    begin_ns: int
    """The device turned to this request; `begin_ns - arrival_ns` is queueing."""
    end_ns: int
    """The last byte was delivered."""


@dataclass(frozen=True, slots=True)
class StorageModel:
    """A storage device as a cost model.

    kind:
      - `disk`: one arm. A request costs a seek and half a rotation unless it continues where the last one
        ended, then size / bandwidth.
      - `parallel`: `channels` requests wait out their latency side by side, then share one bandwidth.
      - `rate-limit`: a token bucket of `requests_per_s` and `bandwidth_bytes_per_s` with `burst_s` seconds of
        credit: what cloud disks and the kernel's throttle are.
      - `memory`: costs nothing; RAM is really read.
    """

    name: str
    tier: Tier
    kind: Kind
    bandwidth_bytes_per_s: float = 0.0
    seek_ns: int = 0
    half_rotation_ns: int = 0
    latency_ns: int = 0
    channels: int = 1
    requests_per_s: float = 0.0
    burst_s: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind == "memory":
            return
        limited = self.kind == "rate-limit" and self.requests_per_s > 0
        if self.bandwidth_bytes_per_s <= 0 and not limited:
            raise ScenarioError(
                f"device {self.name}: bandwidth_bytes_per_s is {self.bandwidth_bytes_per_s:g}",
                "give a bandwidth above 0",
            )
        for key in ("seek_ns", "half_rotation_ns", "latency_ns", "requests_per_s", "burst_s"):
            if getattr(self, key) < 0:
                raise ScenarioError(f"device {self.name}: {key} is {getattr(self, key)}", "give 0 or more")
        if self.channels < 1:
            raise ScenarioError(f"device {self.name}: channels is {self.channels}", "give 1 or more")

    @property
    def state_size(self) -> int:
        """How many 64-bit integers a state of this device holds."""
        return 3 + self.channels

    def new_state(self) -> list[int]:
        """A state of a device that has been idle since time 0."""
        return [0, NOWHERE, NOWHERE] + [0] * self.channels

    def transfer_ns(self, size_bytes: int) -> int:
        """Nanoseconds that `size_bytes` occupy the device's bandwidth."""
        if self.bandwidth_bytes_per_s <= 0:
            return 0
        return round(size_bytes * NS_PER_S / self.bandwidth_bytes_per_s)

    def serve(self, state: State, arrival_ns: int, request: Request) -> Service:
        """Reserve the device for `request`, arriving at `arrival_ns`; updates `state` in place."""
        if self.kind == "disk":
            return self._serve_disk(state, arrival_ns, request)
        if self.kind == "parallel":
            return self._serve_parallel(state, arrival_ns, request)
        if self.kind == "rate-limit":
            return self._serve_bucket(state, arrival_ns, request)
        return Service(arrival_ns, arrival_ns)

    def _serve_disk(self, state: State, arrival_ns: int, request: Request) -> Service:
        begin = max(arrival_ns, state[0])
        continues = state[1] == request.file_id and state[2] == request.offset
        positioning = 0 if continues else self.seek_ns + self.half_rotation_ns
        end = begin + positioning + self.transfer_ns(request.size_bytes)
        state[0], state[1], state[2] = end, request.file_id, request.offset + request.size_bytes
        return Service(begin, end)

    def _serve_parallel(self, state: State, arrival_ns: int, request: Request) -> Service:
        channel = min(range(3, 3 + self.channels), key=state.__getitem__)
        begin = max(arrival_ns, state[channel])
        end = max(begin + self.latency_ns, state[0]) + self.transfer_ns(request.size_bytes)
        state[0] = state[channel] = end
        return Service(begin, end)

    def _serve_bucket(self, state: State, arrival_ns: int, request: Request) -> Service:
        """Generic cell rate: `state[0]` is the time at which the bucket would be full again."""
        per_request = NS_PER_S / self.requests_per_s if self.requests_per_s > 0 else 0.0
        cost = max(round(per_request), self.transfer_ns(request.size_bytes))
        credit = round(self.burst_s * NS_PER_S)
        full_at = max(state[0], arrival_ns - credit) + cost
        state[0] = full_at
        return Service(max(arrival_ns, full_at - cost), max(arrival_ns, full_at) + self.latency_ns)

    def throughput_bytes_per_s(self, size_bytes: int, concurrency: int, sequential: bool = False) -> float:
        """The model's own long-run rate for reads of `size_bytes`, `concurrency` of them outstanding."""
        state = self.new_state()
        rounds = 512
        arrivals = [0] * max(1, concurrency)
        last = 0
        for index in range(rounds * len(arrivals)):
            reader = min(range(len(arrivals)), key=arrivals.__getitem__)
            offset = index * size_bytes if sequential else 0
            file_id = 0 if sequential else index
            last = arrivals[reader] = self.serve(
                state, arrivals[reader], Request(file_id, offset, size_bytes)
            ).end_ns
        return rounds * len(arrivals) * size_bytes * NS_PER_S / last if last else float("inf")


@dataclass(frozen=True, slots=True)
class LinkModel:
    """From host RAM to the accelerator's memory. Pinned copies overlap; pageable ones block the host."""

    name: str
    pageable_bytes_per_s: float
    pinned_bytes_per_s: float
    latency_ns: int = 10_000
    source: str = ""

    def copy_ns(self, size_bytes: int, pinned: bool) -> int:
        """Nanoseconds that the copy of `size_bytes` takes."""
        rate = self.pinned_bytes_per_s if pinned else self.pageable_bytes_per_s
        return self.latency_ns + round(size_bytes * NS_PER_S / rate)


@dataclass(frozen=True, slots=True)
class AcceleratorModel:
    """An accelerator as the time that one step occupies it.

    `step_ns` holds for `batch_size` samples and is scaled by the number of samples in a batch where
    `batch_size` is given. `step_stddev_ns` is the spread of a normal distribution cut at 0.
    """

    name: str
    step_ns: int
    step_stddev_ns: int = 0
    batch_size: int | None = None
    queue_depth: int = 2
    """How many steps may be launched and unfinished before the host has to wait."""
    link: LinkModel = field(default_factory=lambda: LINKS["pcie-gen3"])
    source: str = ""

    def __post_init__(self) -> None:
        if self.step_ns < 0 or self.step_stddev_ns < 0:
            raise ScenarioError(f"accelerator {self.name}: negative step time", "give 0 or more")
        if self.queue_depth < 1:
            raise ScenarioError(
                f"accelerator {self.name}: queue_depth is {self.queue_depth}", "give 1 or more"
            )

    def step_time_ns(self, samples: int, deviate: float = 0.0) -> int:
        """Nanoseconds of device time for a batch of `samples`; `deviate` is a standard normal number."""
        scale = samples / self.batch_size if self.batch_size else 1.0
        return max(0, round(scale * (self.step_ns + deviate * self.step_stddev_ns)))


def _ms(value: float) -> int:
    return round(value * 1e6)


_DS_ANALYZER = "Mohan et al., Analyzing and Mitigating Data Stalls in DNN Training, VLDB 2021"
_MLPERF_STORAGE = "MLPerf Storage v1-v2, mlcommons/storage"

STORAGE: Final[dict[str, StorageModel]] = {
    model.name: model
    for model in (
        StorageModel(
            "hdd-7200", "hdd", "disk", 180e6, _ms(8.5), _ms(4.17), source="data sheets of 7200 rpm disks"
        ),
        StorageModel(
            "sata-ssd", "ssd", "parallel", 530e6, latency_ns=80_000, channels=32, source=_DS_ANALYZER
        ),
    )
}
"""Storage presets by name."""

DEFAULT_STORAGE: Final[dict[str, str]] = {"hdd": "hdd-7200", "ssd": "sata-ssd"}
"""The preset that a tier means when a scenario names none."""

LINKS: Final[dict[str, LinkModel]] = {
    link.name: link
    for link in (
        LinkModel(
            "pcie-gen3", 6e9, 12e9, source="PCIe 3.0 x16: 15.75 GB/s on the wire, about 12 in practice"
        ),
    )
}
"""Host-to-device links by name."""

ACCELERATORS: Final[dict[str, AcceleratorModel]] = {
    model.name: model
    for model in (
        AcceleratorModel("a100/resnet50", _ms(435), batch_size=400, source=_MLPERF_STORAGE),
        AcceleratorModel("h100/resnet50", _ms(224), batch_size=400, source=_MLPERF_STORAGE),
    )
}
"""Accelerator presets by name: `device/model`."""


def with_figures(model: StorageModel, figures: dict[str, float]) -> StorageModel:
    """The model with some figures changed; `ScenarioError` where a figure cannot be."""
    if not figures:
        return model
    return replace(model, **figures, source=f"{model.source}; changed: {', '.join(sorted(figures))}")  # type: ignore[arg-type]
