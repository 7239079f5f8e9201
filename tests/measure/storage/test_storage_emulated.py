"""The emulated device: the model's own pace, in virtual time; files that read ahead; what processes share."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.devices import Request, StorageModel, storage_preset, with_figures
from pipeprof.errors import ScenarioError
from pipeprof.measure.storage.emulated_cache import EmulatedCache
from pipeprof.measure.storage.emulated_device import CREDIT_NS, EmulatedDevice, MonotonicClock
from pipeprof.measure.storage.emulated_files import EmulatedStorage
from pipeprof.measure.storage.make import make_storage
from pipeprof.scenario import Scenario, StoragePart

KIB = 1024
FAST = StorageModel("fast", "ssd", "parallel", 1e12, latency_ns=1)


class VirtualClock(MonotonicClock):
    """A clock whose sleeps end late, and whose owner may spend time of its own."""

    def __init__(self, overshoot_ns: int = 0) -> None:
        self.now = 0
        self.overshoot_ns = overshoot_ns

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, end_ns: int) -> bool:
        slept = end_ns > self.now
        if slept:
            self.now = end_ns + self.overshoot_ns
        return slept


@pytest.fixture
def device() -> Iterator[Callable[..., EmulatedDevice]]:
    made: list[EmulatedDevice] = []

    def make(model: StorageModel, clock: MonotonicClock | None = None) -> EmulatedDevice:
        made.append(EmulatedDevice(model, clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def storage() -> Iterator[Callable[..., EmulatedStorage]]:
    made: list[EmulatedStorage] = []

    def make(
        model: StorageModel, cache: EmulatedCache | None = None, clock: MonotonicClock | None = None
    ) -> EmulatedStorage:
        made.append(EmulatedStorage(model, cache, clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


def requests(one: EmulatedStorage) -> int:
    return int(one.device.facts().requests)


def achieved(base: EmulatedDevice, readers: int, size: int, sequential: bool) -> float:
    """Bytes per second of readers whose every sleep ends late, in steady state, in virtual time."""
    copies = [pickle.loads(pickle.dumps(base)) for _ in range(readers)]
    clocks: list[VirtualClock] = [copy._clock for copy in copies]
    done = [0] * readers
    ends = []
    for read in range(250 * readers):
        number = min(range(readers), key=lambda each: clocks[each].now)
        copy = copies[number]
        request = Request(number, done[number] * size if sequential else (2 * read + 1) * size, size)
        turn = copy.begin(request, copy.now_ns())
        copy.wait(turn)
        copy.completed(turn)
        done[number] += 1
        ends.append(clocks[number].now)
    for copy in copies:
        copy.close()
    ends.sort()
    start = 50 * readers
    return (len(ends) - 1 - start) * size * 1e9 / (ends[-1] - ends[start])


@pytest.mark.parametrize("sequential", [False, True], ids=["random", "sequential"])
@pytest.mark.parametrize("readers", [1, 2, 4, 8])
@pytest.mark.parametrize(("name", "bound"), [("hdd-7200", 0.02), ("sata-ssd", 0.03), ("nvme-gen3", 0.05)])
def test_late_sleeps_do_not_slow_the_device(
    device: Callable[..., EmulatedDevice], name: str, bound: float, readers: int, sequential: bool
) -> None:
    model = storage_preset(name)
    size = 64 * KIB if name != "nvme-gen3" else 1024 * KIB
    base = device(model, VirtualClock(overshoot_ns=100_000))
    modelled = model.throughput_bytes_per_s(size, readers, sequential)
    assert achieved(base, readers, size, sequential) == pytest.approx(modelled, rel=bound)


def test_the_same_sleeps_uncompensated_would(
    device: Callable[..., EmulatedDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeprof.measure.storage.emulated_device.CREDIT_NS", 0)
    model = storage_preset("sata-ssd")
    base = device(model, VirtualClock(overshoot_ns=100_000))
    assert achieved(base, 1, 64 * KIB, False) < 0.7 * model.throughput_bytes_per_s(64 * KIB, 1)


def test_being_late_for_long_is_no_fault_of_the_device(device: Callable[..., EmulatedDevice]) -> None:
    clock = VirtualClock(overshoot_ns=50_000_000)  # found no core for 50 ms
    one = device(storage_preset("hdd"), clock)
    one.wait(turn := one.begin(Request(1, 0, 0), clock.now))
    one.completed(turn)
    assert one.begin(Request(2, 0, 0), clock.now).arrival_ns == clock.now - CREDIT_NS


def test_a_device_faster_than_python_is_called_limited(
    device: Callable[..., EmulatedDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(think_ns: int, of_it_without_core_ns: int = 0) -> bool:
        clock = VirtualClock()
        queued = itertools.count(of_it_without_core_ns, of_it_without_core_ns)
        monkeypatch.setattr("pipeprof.measure.storage.emulated_device._queued_ns", lambda: next(queued))
        one = device(storage_preset("nvme"), clock)
        for number in range(200):
            turn = one.begin(Request(1, number * 4096, 4096), arrival := clock.now)
            clock.now += think_ns  # what the read itself takes in Python
            one.wait(turn)
            one.completed(turn)
            assert arrival >= 0
        return bool(one.facts().limited_by_emulator)

    assert run(think_ns=200_000)
    assert not run(think_ns=20_000)
    assert not run(think_ns=3_000_000, of_it_without_core_ns=3_000_000), "no fault of the emulator"


def test_queueing_is_told_apart_from_service(device: Callable[..., EmulatedDevice]) -> None:
    one = device(storage_preset("hdd"), VirtualClock())
    first, second = one.begin(Request(1, 0, 4096), 0), one.begin(Request(2, 0, 4096), 0)
    assert first.queue_ns == 0
    assert second.queue_ns == first.end_ns
    assert one.facts().requests == 2


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(random.Random(0).randbytes(110_000))
    return path


def in_pieces(file: io.BufferedIOBase) -> bytes:
    """As Pillow reads: a little to tell the format, then 64 KiB at a time."""
    head = file.read(16)
    file.seek(0)
    assert file.read(16) == head
    found = head
    while piece := file.read(64 * KIB):
        found += piece
    return found


def test_a_small_file_costs_one_request_however_it_is_read(
    storage: Callable[..., EmulatedStorage], picture: Path
) -> None:
    one = storage(FAST)
    with one.open(picture) as file:
        assert in_pieces(file) == picture.read_bytes()
    assert requests(one) == 1
    with one.open(picture) as file:
        assert file.read() == picture.read_bytes()
    assert requests(one) == 2
    assert one.read_bytes(picture) == picture.read_bytes()
    assert requests(one) == 3


def test_a_long_file_is_read_ahead_by_the_window(
    storage: Callable[..., EmulatedStorage], tmp_path: Path
) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(bytes(1000 * KIB))
    one = storage(FAST)
    with one.open(path) as file:
        while file.read(10 * KIB):
            pass
    assert requests(one) == 8  # 7 windows of 128 KiB and the rest
    assert one.read_bytes(path) == bytes(1000 * KIB)
    assert requests(one) == 9


def test_reads_here_and_there_bring_no_more_than_they_want(
    storage: Callable[..., EmulatedStorage], tmp_path: Path
) -> None:
    path = tmp_path / "records"
    content = random.Random(1).randbytes(1000 * KIB)
    path.write_bytes(content)
    seen: list[int] = []
    one = storage(FAST)
    begin = one.device.begin
    one.device.begin = lambda request, now: (seen.append(request.size_bytes), begin(request, now))[1]  # type: ignore[method-assign]
    with one.open(path) as file:
        for offset in (500 * KIB, 100 * KIB, 900 * KIB):
            file.seek(offset)
            assert file.read(64 * KIB) == content[offset : offset + 64 * KIB]
        assert file.seek(-10, io.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        assert file.read() == b""
        with pytest.raises(OSError, match="negative seek"):
            file.seek(-1)
    assert seen == [64 * KIB] * 3 + [10]


def test_numpy_does_not_go_round_it(storage: Callable[..., EmulatedStorage], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100_000))
    one = storage(FAST)
    with one.open(tmp_path / "a.npy") as file:
        assert np.load(file).sum() == 4_999_950_000
    assert requests(one) >= 3


def test_a_missing_file_is_an_oserror_as_with_open(
    storage: Callable[..., EmulatedStorage], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        storage(FAST).open(tmp_path / "none")


def test_what_a_limited_cache_still_holds_is_not_read_again(
    storage: Callable[..., EmulatedStorage], tmp_path: Path
) -> None:
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.write_bytes(bytes(1000))
    one = storage(FAST, EmulatedCache(2000))
    for path in (paths[0], paths[1], paths[1], paths[0]):
        one.read_bytes(path)
    assert requests(one) == 2, "both fit"
    for _ in range(2):
        for path in paths:  # twice as much as fits, again and again
            one.read_bytes(path)
    assert requests(one) == 2 + 6, "the first two once more from memory, then thrashing"
    facts = one.describe().emulated_cache
    assert (facts.bytes_from_memory, facts.bytes_from_device) == (4000, 8000)


def test_a_warm_cache_holds_all_from_the_start(
    storage: Callable[..., EmulatedStorage], picture: Path
) -> None:
    one = storage(FAST, EmulatedCache(None))
    assert one.read_bytes(picture) == picture.read_bytes()
    assert requests(one) == 0


def test_the_cache_remembers_more_pieces_than_it_has_slots_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeprof.measure.storage.emulated_cache._SLOTS", 64)
    cache = EmulatedCache(10**9)
    assert not any(cache.holds(Request(number, 0, 1)) for number in range(1000))
    assert cache.holds(Request(999, 0, 1)), "the newest is never the one to be forgotten"
    cache.close()


class Files(Dataset[int]):
    """Reads a file a sample; returns its size."""

    def __init__(self, storage: EmulatedStorage, path: Path, samples: int) -> None:
        self.storage, self.path, self.samples = storage, path, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> int:
        return len(self.storage.read_bytes(self.path))


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(one, marks=pytest.mark.slow) for one in ("spawn", "forkserver"))]
)
def test_the_workers_of_two_loaders_share_one_arm(
    storage: Callable[..., EmulatedStorage], picture: Path, method: str
) -> None:
    model = with_figures(storage_preset("hdd-7200"), {"seek_ns": 15_000_000})
    one = storage(model)
    loaders = [
        DataLoader(Files(one, picture, 12), batch_size=3, num_workers=workers, multiprocessing_context=method)
        for workers in (2, 1)
    ]
    start = time.monotonic_ns()
    total = sum(
        int(torch.as_tensor(batch).sum()) for batches in zip(*loaders, strict=True) for batch in batches
    )
    took = time.monotonic_ns() - start
    assert total == 24 * 110_000
    assert requests(one) == 24
    alone = model.serve(model.new_state(), 0, Request(0, 0, 110_000)).end_ns
    assert took >= 24 * alone * 0.99, "no two reads at once, whoever asks"


def hold_the_lock_for_ever(device: EmulatedDevice, ready: object) -> None:
    with device.shared.locked():
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_worker_killed_while_it_holds_the_device_hangs_no_one(
    device: Callable[..., EmulatedDevice],
) -> None:
    one = device(storage_preset("nvme"))
    context = get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold_the_lock_for_ever, args=(one, ready))
    holder.start()
    assert ready.wait(30)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    one.wait(one.begin(Request(1, 0, 4096), one.now_ns()))
    holder.close()


def scenario(**storage: object) -> Scenario:
    return Scenario(name="s", storage=StoragePart(**storage))  # type: ignore[arg-type]


@pytest.mark.parametrize("tier", ["hdd", "ssd", "nvme", "network"])
def test_a_tier_without_a_path_is_emulated(tier: str) -> None:
    made = make_storage(scenario(tier=tier))
    assert made.emulated
    facts = made.describe()
    assert facts.tier == tier
    assert facts.model.source
    made.close()


def test_figures_and_a_rate_limit_are_set_in_the_scenario() -> None:
    made = make_storage(scenario(tier="network", device="rate-limit", figures={"requests_per_s": 77}))
    facts = made.describe().model
    assert (facts.kind, facts.requests_per_s) == ("rate-limit", 77)
    made.close()


@pytest.mark.parametrize("tier", ["hdd", "ssd", "nvme", "network"])
def test_a_throttled_device_is_of_the_tier_that_the_scenario_says(tier: str) -> None:
    made = make_storage(scenario(tier=tier, device="rate-limit"))
    facts = made.describe()
    assert (facts.tier, facts.model.tier, facts.model.kind) == (tier, tier, "rate-limit")
    made.close()


@pytest.mark.parametrize("tier", ["ram", "pinned"])
def test_memory_is_no_device(tier: str, picture: Path) -> None:
    made = make_storage(scenario(tier=tier))
    assert not made.emulated
    assert made.read_bytes(picture) == picture.read_bytes()
    assert made.describe().tier == tier


@pytest.mark.parametrize(
    ("storage_part", "says"),
    [
        ({"tier": "hdd", "device": "hdd-72000"}, "did you mean hdd-7200"),
        ({"tier": "hdd", "figures": {"bandwidth_bytes_per_s": 0}}, "bandwidth_bytes_per_s is 0"),
        ({"tier": "hdd", "figures": {"seek_ns": -5}}, "seek_ns is -5"),
    ],
)
def test_a_bad_device_gets_one_error(storage_part: dict[str, object], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        make_storage(scenario(**storage_part))


@pytest.mark.parametrize("tier", ["hdd", None], ids=["a disk", "a virtual disk"])
def test_a_scenario_takes_a_measured_profile(tmp_path: Path, tier: str | None) -> None:
    from pipeprof.measure.host.profile import write_profile
    from tests.devices.test_profile import measured

    seen = measured(storage_preset("hdd"), tier=tier)
    write_profile(tmp_path / "p.json", {"tiers": [measured(storage_preset("ssd"), "/fast", "ssd"), seen]})
    made = make_storage(scenario(tier="hdd", profile=str(tmp_path / "p.json")))
    facts = made.describe()
    assert (facts.tier, facts.name, facts.model.kind) == ("hdd", "profile:/data", "disk")
    assert made.describe().model.source.startswith("measured by")
    made.close()
