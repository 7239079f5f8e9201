"""The devices that come with pipeprof, each figure with its source, and the look-up by name."""

from __future__ import annotations

from typing import Final

from pipeprof.devices.models import PCIE_GEN3, AcceleratorModel, LinkModel, StorageModel
from pipeprof.errors import ScenarioError
from pipeprof.suggest import nearest


def _ms(value: float) -> int:
    return round(value * 1e6)


_DS_ANALYZER: Final = "Mohan et al., Analyzing and Mitigating Data Stalls in DNN Training, VLDB 2021"
_MLPERF: Final = "MLPerf Storage v1-v2, mlcommons/storage"
_DLIO_V100: Final = "DLIO benchmark, configs/workload/*_v100.yaml (MLPerf Storage v0.5)"
_ETHERNET: Final = (
    "TCP payload of Ethernet with 1500-byte frames: 1448 of 1538 bytes; 0.5 ms a request is assumed, "
    "Radkov et al., FAST 2004, saw under 1 ms; 64 slots of an NFS 4.1 session"
)
_ETHERNET_PAYLOAD: Final = 1448 / 1538

_DISKS: Final = (
    StorageModel(
        "hdd-5400",
        "hdd",
        "disk",
        140e6,
        _ms(12),
        _ms(5.56),
        source="Hitachi 5K320 specification (seek 12 ms), Seagate ST2000LM015 data sheet (140 MB/s); "
        "half a turn at 5400 rpm",
    ),
    StorageModel(
        "hdd-7200",
        "hdd",
        "disk",
        180e6,
        _ms(8.5),
        _ms(4.17),
        source="half a turn at 7200 rpm; seek 8.5 ms and 180 MB/s assumed, as of common data sheets",
    ),
    StorageModel(
        "sata-ssd",
        "ssd",
        "parallel",
        530e6,
        latency_ns=80_000,
        channels=32,
        source=f"530 MB/s: {_DS_ANALYZER}; 80 µs a request and 32 at once assumed",
    ),
    StorageModel(
        "nvme-gen3",
        "nvme",
        "parallel",
        3.5e9,
        latency_ns=51_500,
        channels=32,
        source="Samsung 970 EVO Plus 1 TB: 3,500 MB/s; 4 KiB reads 19,000/s at depth 1, 600,000/s at 32 x 4",
    ),
    StorageModel(
        "nvme-gen4",
        "nvme",
        "parallel",
        7e9,
        latency_ns=44_900,
        channels=45,
        source="Samsung 980 PRO 1 TB: 7,000 MB/s; 4 KiB reads 22,000/s at depth 1, 1,000,000/s at 32 x 16",
    ),
)
_NETWORK: Final = (
    StorageModel(
        "nfs-1g",
        "network",
        "parallel",
        125e6 * _ETHERNET_PAYLOAD,
        latency_ns=500_000,
        channels=64,
        source=_ETHERNET,
    ),
    StorageModel(
        "nfs-10g",
        "network",
        "parallel",
        1.25e9 * _ETHERNET_PAYLOAD,
        latency_ns=500_000,
        channels=64,
        source=_ETHERNET,
    ),
    StorageModel(
        "s3",
        "network",
        "parallel",
        1.25e9 * _ETHERNET_PAYLOAD,
        latency_ns=_ms(150),
        channels=825,
        readahead_bytes=5 * 2**20,
        source="Amazon S3 user guide, performance: first byte after 100-200 ms, 5,500 GET/s a prefix "
        "(825 = 5,500/s x 150 ms); a 10 Gb/s network; blocks of 5 MiB as fsspec reads",
    ),
    StorageModel(
        "rate-limit",
        "network",
        "rate-limit",
        125 * 2**20,
        requests_per_s=3000.0,
        burst_s=0.1,
        source="Amazon EBS gp3 volume, baseline: 3,000 requests/s and 125 MiB/s; credit of 0.1 s as Linux's "
        "throttle gives (throtl_slice); set your own figures",
    ),
)
STORAGE: Final[dict[str, StorageModel]] = {
    model.name: model
    for model in (
        *_DISKS,
        *_NETWORK,
        StorageModel("ram", "ram", "memory", source="host memory, really read"),
        StorageModel("pinned", "pinned", "memory", source="host memory, really read, page-locked batches"),
    )
}
"""Storage presets by name."""

DEFAULT_STORAGE: Final[dict[str, str]] = {
    "hdd": "hdd-7200",
    "ssd": "sata-ssd",
    "nvme": "nvme-gen3",
    "network": "nfs-1g",
    "ram": "ram",
    "pinned": "pinned",
}
"""The preset that a tier means when a scenario names none."""

LINKS: Final[dict[str, LinkModel]] = {
    link.name: link
    for link in (
        PCIE_GEN3,
        LinkModel(
            "pcie-gen4",
            12e9,
            24e9,
            source="PCIe 4.0 x16: 31.5 GB/s on the wire; all rates assumed, twice those of pcie-gen3",
        ),
        LinkModel(
            "pcie-gen5",
            24e9,
            48e9,
            source="PCIe 5.0 x16: 63 GB/s on the wire; all rates assumed, four times those of pcie-gen3",
        ),
    )
}
"""Host-to-device links by name."""

_ACCELERATOR_LINKS: Final = {
    "v100": "pcie-gen3",
    "a100": "pcie-gen4",
    "h100": "pcie-gen5",
    "b200": "pcie-gen5",
}
_STEPS: Final = (
    # device, model, step in ms, batch size, source
    ("v100", "resnet50", 195.0, 64, _DLIO_V100),
    ("v100", "unet3d", 1360.4, 4, _DLIO_V100),
    ("v100", "cosmoflow", 9.36, 1, _DLIO_V100),
    ("a100", "resnet50", 435.0, 400, _MLPERF),
    ("a100", "unet3d", 636.0, 7, _MLPERF),
    ("a100", "cosmoflow", 5.51, 1, _MLPERF),
    ("h100", "resnet50", 224.0, 400, _MLPERF),
    ("h100", "unet3d", 323.0, 7, _MLPERF),
    ("h100", "cosmoflow", 3.50, 1, _MLPERF),
    ("b200", "retinanet", 47.55, 24, "MLPerf Storage v3.0, mlcommons/storage"),
)

ACCELERATORS: Final[dict[str, AcceleratorModel]] = {
    f"{device}/{model}": AcceleratorModel(
        f"{device}/{model}",
        _ms(step_ms),
        batch_size=batch_size,
        link=LINKS[_ACCELERATOR_LINKS[device]],
        source=source,
    )
    for device, model, step_ms, batch_size, source in _STEPS
}
"""Accelerator presets by name: `device/model`."""


def storage_preset(name: str) -> StorageModel:
    """Return the storage preset `name`, or a tier's. `ScenarioError` with the nearest name otherwise."""
    try:
        return STORAGE[DEFAULT_STORAGE.get(name, name)]
    except KeyError:
        raise ScenarioError(f"unknown storage device {name!r}", nearest(name, STORAGE)) from None


def accelerator_preset(name: str) -> AcceleratorModel:
    """Return the accelerator preset `name`. `ScenarioError` with the nearest name otherwise."""
    try:
        return ACCELERATORS[name]
    except KeyError:
        raise ScenarioError(f"unknown accelerator {name!r}", nearest(name, ACCELERATORS)) from None


def link_preset(name: str) -> LinkModel:
    """Return the link preset `name`. `ScenarioError` with the nearest name otherwise."""
    try:
        return LINKS[name]
    except KeyError:
        raise ScenarioError(f"unknown link {name!r}", nearest(name, LINKS)) from None
