"""The cost models by hand-worked figures, in virtual time; and the one clear error for each bad figure."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeprof.devices import (
    ACCELERATORS,
    DEFAULT_STORAGE,
    LINKS,
    STORAGE,
    AcceleratorModel,
    LinkModel,
    Request,
    StorageModel,
    accelerator_preset,
    link_preset,
    storage_preset,
    with_figures,
)
from pipeprof.devices.models import MOST_CHANNELS
from pipeprof.errors import ScenarioError

MS = 1_000_000
DISK = StorageModel("disk", "hdd", "disk", 100e6, seek_ns=8 * MS, half_rotation_ns=4 * MS)
FLASH = StorageModel("flash", "ssd", "parallel", 500e6, latency_ns=100_000, channels=4)
BUCKET = StorageModel("bucket", "network", "rate-limit", requests_per_s=100, bandwidth_bytes_per_s=1e6)


def test_disk_seeks_unless_the_read_continues() -> None:
    state = DISK.new_state()
    first = DISK.serve(state, 0, Request(1, 0, 1_000_000))
    assert (first.begin_ns, first.end_ns) == (0, 22 * MS)  # 8 + 4 + 10
    assert DISK.serve(state, first.end_ns, Request(1, 1_000_000, 1_000_000)).end_ns == 32 * MS
    assert DISK.serve(state, 32 * MS, Request(1, 0, 1_000_000)).end_ns == 54 * MS  # back again: a seek
    assert DISK.serve(state, 54 * MS, Request(2, 1_000_000, 1_000_000)).end_ns == 76 * MS  # another file


def test_disk_serves_one_after_the_other_and_idles_for_free() -> None:
    state = DISK.new_state()
    DISK.serve(state, 0, Request(1, 0, 1_000_000))
    queued = DISK.serve(state, 0, Request(2, 0, 1_000_000))
    assert (queued.begin_ns, queued.end_ns) == (22 * MS, 44 * MS)
    late = DISK.serve(state, 100 * MS, Request(3, 0, 0))
    assert (late.begin_ns, late.end_ns) == (100 * MS, 112 * MS)


def test_parallel_waits_side_by_side_and_shares_the_bandwidth() -> None:
    state = FLASH.new_state()
    ends = [FLASH.serve(state, 0, Request(n, 0, 50_000)).end_ns for n in range(4)]
    assert ends == [200_000, 300_000, 400_000, 500_000]  # one latency, then 100 us of transfer each
    fifth = FLASH.serve(state, 0, Request(5, 0, 50_000))
    assert fifth.begin_ns == 200_000, "all four channels were busy until the first was done"


def test_bucket_paces_and_saves_no_more_than_its_burst() -> None:
    state = BUCKET.new_state()
    ends = [BUCKET.serve(state, 0, Request(n, 0, 1)).end_ns for n in range(3)]
    assert ends == [10 * MS, 20 * MS, 30 * MS]
    assert BUCKET.serve(state, 30 * MS, Request(0, 0, 100_000)).end_ns == 130 * MS, "bytes cost more here"
    burst = with_figures(BUCKET, {"burst_s": 0.05})
    state = burst.new_state()
    arrival = 1000 * MS
    waits = [burst.serve(state, arrival, Request(n, 0, 1)).end_ns - arrival for n in range(7)]
    assert waits == [0, 0, 0, 0, 0, 10 * MS, 20 * MS], "five requests of credit, and no more"


@pytest.mark.parametrize(
    ("model", "size", "readers", "sequential", "requests_per_s"),
    [
        (DISK, 1_000_000, 1, False, 1 / 0.022),
        (DISK, 1_000_000, 8, False, 1 / 0.022),
        (DISK, 1_000_000, 1, True, 1 / 0.010),
        (DISK, 1_000_000, 2, True, 1 / 0.022),  # two readers take the arm from each other
        (FLASH, 50_000, 1, False, 1 / 0.0002),
        (FLASH, 50_000, 4, False, 500e6 / 50_000),
        (BUCKET, 1, 3, False, 100),
    ],
)
def test_throughput_is_the_long_run_rate(
    model: StorageModel, size: int, readers: int, sequential: bool, requests_per_s: float
) -> None:
    rate = model.throughput_bytes_per_s(size, readers, sequential) / size
    assert rate == pytest.approx(requests_per_s, rel=1e-3)


def test_the_specified_rates_come_out_of_the_presets() -> None:
    def reads_per_s(name: str, depth: int) -> float:
        return STORAGE[name].throughput_bytes_per_s(4096, depth) / 4096

    assert reads_per_s("nvme-gen3", 1) == pytest.approx(19_000, rel=0.01)
    assert reads_per_s("nvme-gen3", 128) == pytest.approx(600_000, rel=0.05)
    assert reads_per_s("nvme-gen4", 1) == pytest.approx(22_000, rel=0.01)
    assert reads_per_s("nvme-gen4", 512) == pytest.approx(1_000_000, rel=0.05)
    assert reads_per_s("s3", 2000) == pytest.approx(5_500, rel=0.01)
    assert reads_per_s("hdd-7200", 4) == pytest.approx(79, rel=0.01)


def test_every_tier_has_a_preset_of_its_own_and_every_figure_a_source() -> None:
    for tier, name in DEFAULT_STORAGE.items():
        assert STORAGE[name].tier == tier == storage_preset(tier).tier
    for thing in (*STORAGE.values(), *LINKS.values(), *ACCELERATORS.values()):
        assert thing.source, thing.name
    assert {"hdd-5400", "hdd-7200", "sata-ssd", "nvme-gen3", "nvme-gen4", "nfs-1g", "nfs-10g", "s3"} <= set(
        STORAGE
    )


def test_a_figure_without_a_source_is_called_assumed() -> None:
    for thing in (STORAGE["hdd-7200"], STORAGE["sata-ssd"], STORAGE["nfs-1g"], *LINKS.values()):
        assert "assumed" in thing.source, thing.name


@pytest.mark.parametrize(
    ("device", "figure", "used"),
    [
        ("sata-ssd", "seek_ns", False),
        ("hdd-7200", "channels", False),
        ("rate-limit", "half_rotation_ns", False),
        ("ram", "bandwidth_bytes_per_s", False),
        ("rate-limit", "latency_ns", True),
        ("nfs-1g", "channels", True),
    ],
)
def test_a_figure_that_the_kind_ignores_is_refused(device: str, figure: str, used: bool) -> None:
    model = storage_preset(device)
    if used:
        assert getattr(with_figures(model, {figure: 7}), figure) == 7
        return
    with pytest.raises(ScenarioError, match=f"{figure} has no effect on a {model.kind} device"):
        with_figures(model, {figure: 7})
    assert with_figures(model, {figure: getattr(model, figure)}).kind == model.kind, "it changes nothing"


def test_faster_tiers_are_faster() -> None:
    ladder = ["hdd-5400", "hdd-7200", "nfs-1g", "sata-ssd", "nvme-gen3", "nvme-gen4"]
    rates = [STORAGE[name].throughput_bytes_per_s(110_000, 4) for name in ladder]
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"bandwidth_bytes_per_s": 0}, "bandwidth_bytes_per_s"),
        ({"bandwidth_bytes_per_s": -1}, "bandwidth_bytes_per_s"),
        ({"bandwidth_bytes_per_s": math.nan}, "bandwidth_bytes_per_s"),
        ({"bandwidth_bytes_per_s": math.inf}, "bandwidth_bytes_per_s"),
        ({"seek_ns": -1}, "seek_ns"),
        ({"half_rotation_ns": -1}, "half_rotation_ns"),
        ({"latency_ns": math.nan}, "latency_ns"),
        ({"channels": 0}, "channels"),
        ({"readahead_bytes": 0}, "readahead_bytes"),
        ({"bandwidth_bytes_per_s": 1e-300}, "bandwidth_bytes_per_s"),
        ({"bandwidth_bytes_per_s": 1e300}, "bandwidth_bytes_per_s"),
        ({"seek_ns": 2**62}, "seek_ns"),
        ({"channels": 2**40}, "channels"),
        ({"readahead_bytes": 2**62}, "readahead_bytes"),
        ({"seek_nanos": 1}, "did you mean seek_ns"),
    ],
)
def test_a_bad_figure_gets_one_clear_error(figures: dict[str, float], named: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        with_figures(storage_preset("hdd"), figures)
    assert named in str(raised.value)
    assert raised.value.exit_code == 2
    assert raised.value.remedy


def test_a_changed_figure_says_so_in_the_source() -> None:
    changed = with_figures(storage_preset("hdd"), {"seek_ns": 5e6})
    assert (changed.seek_ns, type(changed.seek_ns)) == (5_000_000, int)
    assert "changed: seek_ns" in changed.source
    assert with_figures(changed, {}) is changed


@pytest.mark.parametrize(
    ("look_up", "name", "meant"),
    [
        (storage_preset, "hdd-72000", "hdd-7200"),
        (storage_preset, "nvme-gen5", "nvme-gen4"),
        (accelerator_preset, "h100/resnet", "h100/resnet50"),
        (link_preset, "pcie-gen2", "pcie-gen"),
        (storage_preset, "???", "allowed: "),
    ],
)
def test_an_unknown_preset_names_the_nearest(look_up: object, name: str, meant: str) -> None:
    with pytest.raises(ScenarioError, match=name.replace("?", r"\?")) as raised:
        look_up(name)  # type: ignore[operator]
    assert meant in raised.value.remedy


def test_accelerators_and_links_refuse_what_cannot_be() -> None:
    with pytest.raises(ScenarioError, match="negative step time"):
        AcceleratorModel("x", -1)
    with pytest.raises(ScenarioError, match="queue_depth is 0"):
        AcceleratorModel("x", 1, queue_depth=0)
    with pytest.raises(ScenarioError, match="up to 3,600,000,000,000 ns"):
        LinkModel("slow", 1e9, 1e9, latency_ns=2**62)
    with pytest.raises(ScenarioError, match="bytes a second"):
        LinkModel("still", 1e-300, 1e9)
    with pytest.raises(ScenarioError, match="rates must be above 0"):
        LinkModel("x", 0, 1)
    with pytest.raises(ScenarioError, match="rates must be above 0"):
        replace(LINKS["pcie-gen3"], latency_ns=-1)


def test_an_accelerator_scales_its_step_by_the_batch() -> None:
    h100 = accelerator_preset("h100/resnet50")
    assert h100.step_time_ns(400) == 224 * MS
    assert h100.step_time_ns(100) == 56 * MS
    spread = replace(h100, step_stddev_ns=10 * MS)
    assert spread.step_time_ns(400, deviate=1.0) == 234 * MS
    assert spread.step_time_ns(400, deviate=-100.0) == 0


def test_the_rate_of_a_device_with_a_million_channels_is_known_soon() -> None:
    """A record of others may say so: 150 million requests would take minutes to count."""
    model = StorageModel("x", "network", "parallel", 1e9, channels=MOST_CHANNELS)
    assert model.throughput_bytes_per_s(1000, 4 * MOST_CHANNELS) == pytest.approx(1e9, rel=0.01)
