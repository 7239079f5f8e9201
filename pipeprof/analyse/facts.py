"""What a run says about itself beside its times: the figures that tell one cause or fix from another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeprof.analyse.attribution import Attribution
from pipeprof.analyse.charge import READ, Floats
from pipeprof.analyse.sensors import sense
from pipeprof.pipeline import NOT_OBSERVED, Ints, read_ints, take
from pipeprof.trace import Run


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures of the measured window; None where they were not observed."""

    workers: int
    in_order: bool
    pin_memory: bool
    persistent: bool
    epochs: int
    cores: float | None
    """Cores that the process may use at once: affinity and quota, less what its fellow ranks may use."""
    quota_cores: float | None
    own_cores: float | None
    """Cores that this run kept busy on average: its processes, or else the making of its batches."""
    other_cores: float | None
    """Cores that other programs kept busy."""
    states: Mapping[str, float]
    """What workers that were off their core waited for: see `sensors.Sensed`."""
    tier: str | None
    emulated_storage: bool
    storage_model: Mapping[str, Any]
    cache: str | None
    cache_bytes: int | None
    data_bytes: int | None
    """Size of the whole data set."""
    memory_bytes: int | None
    reads: int | None
    read_bytes: int | None
    read_wall_ns: int | None
    remote: bool
    """The data are on no device of this machine, nor in its page cache."""
    requests: Mapping[str, tuple[int, int]]
    """Of the reads of a remote place: ns and count of `client`, `first-byte`, `throttled`, `retry`."""
    device_bytes: int | None
    """Bytes that came from block devices, however they were read."""
    batches: int
    wall_ns: int
    samples: int

    @property
    def mean_read_bytes(self) -> float | None:
        """Mean size of a read, in bytes."""
        return self.read_bytes / self.reads if self.reads and self.read_bytes is not None else None

    @property
    def idle_cores(self) -> float | None:
        """Cores that this run could have used and did not. Other programs on them show as contention."""
        if self.cores is None or self.own_cores is None:
            return None
        return max(0.0, self.cores - self.own_cores)


def gather(run: Run, found: Attribution) -> Facts:
    """Read the facts off run.json and the rows that lie in the measured window."""
    meta = run.meta
    storage, machine = meta.get("storage") or {}, meta.get("machine") or {}
    measured = ~found.timeline.warmup
    loader = _main_loader(found)
    shape = found.shapes[loader]
    told: dict[str, Any] = next((one for one in meta.get("loaders") or [] if one.get("id") == loader), {})
    batches = _rows_of(run, found)
    sensed = sense(run, found.window)
    reads = _reads(found)
    return Facts(
        workers=shape.workers,
        in_order=shape.in_order,
        pin_memory=shape.pin_memory,
        persistent=bool(told.get("persistent_workers")),
        epochs=len(np.unique(found.timeline.epoch[found.timeline.loader == loader])),
        cores=cores_of(meta),
        quota_cores=machine.get("cpu_quota_cores"),
        own_cores=_own_cores(batches, found) if sensed.own_cores is None else sensed.own_cores,
        other_cores=_strangers(sensed.other_cores, sensed.own_cores, meta),
        states=sensed.states,
        tier=storage.get("tier"),
        emulated_storage=bool(storage.get("emulated")),
        storage_model=storage.get("model") or {},
        cache=storage.get("cache"),
        cache_bytes=_cache_bytes(meta),
        data_bytes=_data_bytes(meta),
        memory_bytes=machine.get("memory_bytes"),
        reads=reads.get("count"),
        read_bytes=reads.get("bytes"),
        read_wall_ns=reads.get("wall_ns"),
        remote=bool(storage.get("remote")),
        requests=_requests(found),
        device_bytes=_total(batches["device_bytes"]),
        batches=int(measured.sum()),
        wall_ns=found.window.wall_ns,
        samples=int(np.maximum(found.timeline.samples[measured], 0).sum()),
    )


def _main_loader(found: Attribution) -> int:
    """The loader that was waited for the longest."""
    timeline = found.timeline
    wait = np.bincount(timeline.loader, np.maximum(timeline.take_ns - timeline.request_ns, 1))
    return int(np.argmax(wait))


def _rows_of(run: Run, found: Attribution) -> dict[str, Ints]:
    """Columns of the batches that the measured steps took."""
    rows = found.timeline.batch_row[~found.timeline.warmup]
    found_ints = read_ints(run, "batches", ("cpu_ns", "helper_cpu_ns", "device_bytes"))
    return {name: take(values, rows) for name, values in found_ints.items()}


def _total(values: Ints) -> int | None:
    seen = values[values != NOT_OBSERVED]
    return int(seen.sum()) if len(seen) else None


def _own_cores(batches: dict[str, Ints], found: Attribution) -> float | None:
    cpu = _total(batches["cpu_ns"])
    if cpu is None or found.window.wall_ns == 0:
        return None
    return (cpu + (_total(batches["helper_cpu_ns"]) or 0)) / found.window.wall_ns


def _reads(found: Attribution) -> dict[str, int | None]:
    """Sums over the reads of the measured steps' batches."""
    reads = found.stages.making.get(READ)
    if reads is None:
        return {}
    measured = ~found.timeline.warmup
    figures = {"count": reads.count, "bytes": reads.bytes, "wall_ns": reads.wall_ns}
    return {name: _sum(values[measured]) if values is not None else None for name, values in figures.items()}


def _requests(found: Attribution) -> dict[str, tuple[int, int]]:
    measured = ~found.timeline.warmup
    parts: dict[str, tuple[int, int]] = {}
    for name, part in found.stages.parts.items():
        count = None if part.count is None else _sum(part.count[measured])
        parts[name] = _sum(part.wall_ns[measured]) or 0, count or 0
    return parts


def _sum(values: Floats) -> int | None:
    seen = values[~np.isnan(values)]
    return round(float(seen.sum(dtype=np.float64))) if len(seen) else None


def cores_of(meta: Mapping[str, Any]) -> float | None:
    """Cores that a run may count on, by affinity and quota: of what the ranks of a node share, its part."""
    machine, ranks = meta.get("machine") or {}, _ranks_on_node(meta)
    usable, quota = machine.get("usable_cores") or machine.get("cpu_count"), machine.get("cpu_quota_cores")
    limits = [usable / (1 if meta.get("own_cores") else ranks)] if usable else []
    limits += [quota / ranks] if quota else []
    return float(min(limits)) if limits else None


def _ranks_on_node(meta: Mapping[str, Any]) -> int:
    return int(meta.get("local_world_size") or 1)


def _strangers(others: float | None, own: float | None, meta: Mapping[str, Any]) -> float | None:
    """Cores that others than this job's ranks kept busy; each rank is taken to use what this one does."""
    if others is None or own is None:
        return others
    return max(0.0, others - own * (_ranks_on_node(meta) - 1))


def _cache_bytes(meta: Mapping[str, Any]) -> int | None:
    storage = meta.get("storage") or {}
    resolved = ((meta.get("scenario") or {}).get("resolved") or {}).get("storage") or {}
    value = storage.get("cache_bytes", resolved.get("cache_bytes"))
    return int(value) if value is not None else None


def _data_bytes(meta: Mapping[str, Any]) -> int | None:
    data = meta.get("data") or {}
    samples, mean = data.get("samples"), data.get("mean_bytes")
    size = samples * mean if samples and mean else None
    return int(size) if size is not None and math.isfinite(size) else None
