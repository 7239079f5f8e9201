"""Pure cost models of everything that data passes through: storage, the host-to-device link, accelerators.

Nothing here sleeps, reads a clock or touches a file. A model maps (state, arrival time, request) to a
completion time in integer nanoseconds. The emulated device sleeps until that time; the simulator adds it to
virtual time. One model, two clocks, so that emulation and prediction cannot drift apart.

The state of a storage device is a flat sequence of 64-bit integers, so that the same code runs over a list
(simulation) and over memory shared by processes (emulation).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Literal, NamedTuple, Protocol

from pipeprof.errors import ScenarioError
from pipeprof.suggest import nearest
from pipeprof.units import NS_PER_S

MOST_NS: Final = 3600 * NS_PER_S
"""The longest time that a figure of a device may be: an hour."""
LEAST_RATE: Final = 1e-3
MOST_RATE: Final = 1e18
"""Bytes or requests a second: what the arithmetic in nanoseconds bears."""
MOST_CHANNELS: Final = 1 << 20
MOST_READERS: Final = 1 << 12
"""Number of readers beyond which a model's rate is not computed: that takes a tenth of a second."""
MOST_READAHEAD_BYTES: Final = 1 << 40
NOWHERE: Final = -1
"""Arm position of a device that has not served a request yet."""

Kind = Literal["disk", "parallel", "rate-limit", "memory"]
Tier = Literal["hdd", "ssd", "nvme", "network", "ram", "pinned"]
_IN_MEMORY: Final = ("ram", "pinned")


def is_in_memory(tier: str | None) -> bool:
    """Return True for a tier that is the machine's memory; False too if it is not known."""
    return tier in _IN_MEMORY


class State(Protocol):
    """State that a model remembers between requests: a list, or shared memory, of 64-bit integers."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Request(NamedTuple):
    """Read request as the device sees it."""

    file_id: int
    """Identity of the file, any 63-bit integer."""
    offset: int
    """First byte, in bytes from the start of the file."""
    size_bytes: int


class Service(NamedTuple):
    """Times at which a request was served, in the clock of `arrival_ns`."""

    begin_ns: int
    """Time at which the device began this request; `begin_ns - arrival_ns` is queueing."""
    end_ns: int
    """Time at which the last byte was delivered."""


Server = Callable[[State, int, int, int, int], tuple[int, int]]
"""Maps a state, the time of arrival and the three numbers of a `Request` to the two of its `Service`."""


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
    readahead_bytes: int = 128 * 1024
    """Window that a buffered reader asks for at once; Linux's default read_ahead_kb is 128."""
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind == "memory":
            return
        for key in FIGURES:
            if not isfinite(getattr(self, key)):
                raise ScenarioError(f"device {self.name}: {key} is {getattr(self, key)}", "give a number")
        limited = self.kind == "rate-limit" and self.requests_per_s > 0
        if self.bandwidth_bytes_per_s <= 0 and not limited:
            raise ScenarioError(
                f"device {self.name}: bandwidth_bytes_per_s is {self.bandwidth_bytes_per_s:g}",
                "give a bandwidth above 0",
            )
        for key in ("seek_ns", "half_rotation_ns", "latency_ns", "requests_per_s", "burst_s"):
            if getattr(self, key) < 0:
                raise ScenarioError(f"device {self.name}: {key} is {getattr(self, key)}", "give 0 or more")
        for key in ("channels", "readahead_bytes"):
            if getattr(self, key) < 1:
                raise ScenarioError(f"device {self.name}: {key} is {getattr(self, key)}", "give 1 or more")
        for key, most in MOST.items():
            if getattr(self, key) > most:
                raise ScenarioError(
                    f"device {self.name}: {key} is {getattr(self, key):g}", f"give {most:g} or less"
                )
        for key in ("bandwidth_bytes_per_s", "requests_per_s"):
            if 0 < getattr(self, key) < LEAST_RATE:
                raise ScenarioError(
                    f"device {self.name}: {key} is {getattr(self, key):g}", f"give {LEAST_RATE:g} or more"
                )

    @property
    def state_size(self) -> int:
        """Return the number of 64-bit integers that a state of this device holds."""
        return 3 + self.channels

    def new_state(self) -> list[int]:
        """Return a state of a device that has been idle since time 0."""
        return [0, NOWHERE, NOWHERE] + [0] * self.channels

    def transfer_ns(self, size_bytes: int) -> int:
        """Return the nanoseconds that `size_bytes` occupy the device's bandwidth."""
        if self.bandwidth_bytes_per_s <= 0:
            return 0
        return round(size_bytes * NS_PER_S / self.bandwidth_bytes_per_s)

    def serve(self, state: State, arrival_ns: int, request: Request) -> Service:
        """Reserve the device for `request`, arriving at `arrival_ns`; updates `state` in place."""
        return Service(*self.server(state, arrival_ns, *request))

    @property
    def server(self) -> Server:
        """Return the function behind `serve`, on plain numbers: a simulation calls it a hundred thousand
        times."""
        if self.kind == "disk":
            return self._serve_disk
        if self.kind == "parallel":
            return self._serve_parallel
        return self._serve_bucket if self.kind == "rate-limit" else self._serve_memory

    def _serve_memory(
        self, state: State, arrival_ns: int, file_id: int, offset: int, size_bytes: int
    ) -> tuple[int, int]:
        return arrival_ns, arrival_ns

    def _serve_disk(
        self, state: State, arrival_ns: int, file_id: int, offset: int, size_bytes: int
    ) -> tuple[int, int]:
        begin = max(arrival_ns, state[0])
        continues = state[1] == file_id and state[2] == offset
        positioning = 0 if continues else self.seek_ns + self.half_rotation_ns
        end = begin + positioning + self.transfer_ns(size_bytes)
        state[0], state[1], state[2] = end, file_id, offset + size_bytes
        return begin, end

    def _serve_parallel(
        self, state: State, arrival_ns: int, file_id: int, offset: int, size_bytes: int
    ) -> tuple[int, int]:
        # Requests end in the order in which they arrived, so the channel used longest ago is free first.
        number = state[1] + 1
        if number >= self.channels:
            number = 0
        state[1] = number
        busy_until = state[3 + number]
        begin = arrival_ns if arrival_ns > busy_until else busy_until
        end, before = begin + self.latency_ns, state[0]
        end = (end if end > before else before) + self.transfer_ns(size_bytes)
        state[0] = state[3 + number] = end
        return begin, end

    def _serve_bucket(
        self, state: State, arrival_ns: int, file_id: int, offset: int, size_bytes: int
    ) -> tuple[int, int]:
        """Serve by the generic cell rate: `state[0]` is the time at which the bucket would be full again."""
        per_request = NS_PER_S / self.requests_per_s if self.requests_per_s > 0 else 0.0
        cost = max(round(per_request), self.transfer_ns(size_bytes))
        credit = round(self.burst_s * NS_PER_S)
        full_at = max(state[0], arrival_ns - credit) + cost
        state[0] = full_at
        return max(arrival_ns, full_at - cost), max(arrival_ns, full_at) + self.latency_ns

    def throughput_bytes_per_s(self, size_bytes: int, concurrency: int, sequential: bool = False) -> float:
        """Return the model's own long-run rate for reads of `size_bytes`, `concurrency` of them outstanding.

        `sequential`: each reader reads a file of its own from its start; otherwise every read is elsewhere.
        It is found by letting at most `MOST_READERS` readers run; a first part, in which they settle, is left
        out.
        """
        return _throughput(self, size_bytes, min(max(1, concurrency), MOST_READERS), sequential)

    def figures(self) -> dict[str, Any]:
        """Return every field, for a record."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@lru_cache(maxsize=1024)  # of the ranks of a job each asks the same
def _throughput(model: StorageModel, size_bytes: int, readers: int, sequential: bool) -> float:
    state = model.new_state()
    waiting = [(0, reader) for reader in range(readers)]
    rounds = max(32, 4096 // readers)
    before, started_ns, done_ns = rounds // 8, 0, 0
    for index in range((before + rounds) * readers):
        if index == before * readers:
            started_ns = done_ns
        arrival, reader = waiting[0]
        file_id = reader if sequential else readers + index
        offset = (index // readers) * size_bytes if sequential else 0
        done_ns = model.serve(state, arrival, Request(file_id, offset, size_bytes)).end_ns
        heapq.heapreplace(waiting, (done_ns, reader))
    took_ns = done_ns - started_ns
    return rounds * readers * size_bytes * NS_PER_S / took_ns if took_ns else float("inf")


FIGURES: Final = (
    "bandwidth_bytes_per_s",
    "seek_ns",
    "half_rotation_ns",
    "latency_ns",
    "channels",
    "requests_per_s",
    "burst_s",
    "readahead_bytes",
)
"""The figures of a `StorageModel` that a scenario may change."""

MOST: Final[Mapping[str, float]] = {
    "bandwidth_bytes_per_s": MOST_RATE,
    "seek_ns": MOST_NS,
    "half_rotation_ns": MOST_NS,
    "latency_ns": MOST_NS,
    "channels": MOST_CHANNELS,
    "requests_per_s": MOST_RATE,
    "burst_s": MOST_NS / NS_PER_S,
    "readahead_bytes": MOST_READAHEAD_BYTES,
}
"""The largest value of each figure."""

_IGNORED: Final[dict[Kind, tuple[str, ...]]] = {
    "disk": ("latency_ns", "channels", "requests_per_s", "burst_s"),
    "parallel": ("seek_ns", "half_rotation_ns", "requests_per_s", "burst_s"),
    "rate-limit": ("seek_ns", "half_rotation_ns", "channels"),
    "memory": FIGURES,
}
"""Figures that a device of this kind does not have."""


@dataclass(frozen=True, slots=True)
class LinkModel:
    """Link from host RAM to the accelerator's memory. Pinned copies overlap; pageable ones block the host."""

    name: str
    pageable_bytes_per_s: float
    pinned_bytes_per_s: float
    latency_ns: int = 10_000
    source: str = ""

    def __post_init__(self) -> None:
        if min(self.pageable_bytes_per_s, self.pinned_bytes_per_s) <= 0 or self.latency_ns < 0:
            raise ScenarioError(
                f"link {self.name}: rates must be above 0 and the latency 0 or more", "correct the figure"
            )
        rates = (self.pageable_bytes_per_s, self.pinned_bytes_per_s)
        if min(rates) < LEAST_RATE or max(rates) > MOST_RATE or self.latency_ns > MOST_NS:
            raise ScenarioError(
                f"link {self.name}: rates from {LEAST_RATE:g} to {MOST_RATE:g} bytes a second and a latency "
                f"of up to {MOST_NS:,} ns can be",
                "correct the figure",
            )

    def copy_ns(self, size_bytes: int, pinned: bool) -> int:
        """Return the nanoseconds that the copy of `size_bytes` takes."""
        rate = self.pinned_bytes_per_s if pinned else self.pageable_bytes_per_s
        return self.latency_ns + round(size_bytes * NS_PER_S / rate)


PCIE_GEN3: Final = LinkModel(
    "pcie-gen3",
    6e9,
    12e9,
    source="PCIe 3.0 x16: 15.75 GB/s on the wire; 12 GB/s pinned, half of it pageable, 10 µs a copy assumed",
)


@dataclass(frozen=True, slots=True)
class AcceleratorModel:
    """An accelerator as the time that one step occupies it.

    `step_ns` holds for `batch_size` samples and is scaled by the number of samples in a batch if `batch_size`
    is given. `step_stddev_ns` is the spread of a normal distribution cut at 0.
    """

    name: str
    step_ns: int
    step_stddev_ns: int = 0
    batch_size: int | None = None
    queue_depth: int = 2
    """Number of steps that may be launched and unfinished before the host has to wait."""
    link: LinkModel = PCIE_GEN3
    source: str = ""

    def __post_init__(self) -> None:
        if self.step_ns < 0 or self.step_stddev_ns < 0:
            raise ScenarioError(f"accelerator {self.name}: negative step time", "give 0 or more")
        if self.queue_depth < 1:
            raise ScenarioError(
                f"accelerator {self.name}: queue_depth is {self.queue_depth}", "give 1 or more"
            )

    def step_time_ns(self, samples: int, deviate: float = 0.0) -> int:
        """Return the device's nanoseconds for a batch of `samples`; `deviate` is a standard normal number."""
        scale = samples / self.batch_size if self.batch_size else 1.0
        return max(0, round(scale * (self.step_ns + deviate * self.step_stddev_ns)))


def with_figures(model: StorageModel, figures: Mapping[str, float]) -> StorageModel:
    """Return the model with some figures changed.

    `ScenarioError` if one is unknown, cannot be, or has no effect on a device of this kind.
    """
    if not figures:
        return model
    changes: dict[str, Any] = {}
    for key, value in figures.items():
        if key not in FIGURES:
            raise ScenarioError(f"device {model.name} has no figure {key!r}", nearest(key, FIGURES))
        if key in _IGNORED[model.kind] and value != getattr(model, key):
            used = [name for name in FIGURES if name not in _IGNORED[model.kind]]
            remedy = f"leave it out, or change: {', '.join(used)}" if used else "leave it out"
            raise ScenarioError(f"device {model.name}: {key} has no effect on a {model.kind} device", remedy)
        whole = isinstance(getattr(model, key), int)
        changes[key] = round(value) if whole and isfinite(value) else value
    return replace(model, **changes, source=f"{model.source}; changed: {', '.join(sorted(figures))}")
