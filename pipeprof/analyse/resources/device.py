"""The state of the device that a run's data came from: full, with room for more readers, or not known.

More readers get no more from a full device; from one with room they do. What a run itself shows of it:

- limits of control groups and the rates that came near them, or did not;
- reads that were held back above the device: its own queue held far fewer than the workers waited for;
- a rotating disk that was busy all the time; a real SSD whose queue was all but empty;
- batches that were made alongside more other reads than others: reads that then took longer in proportion say
  that the device is full, reads that took as long that it is not.

A probe (`record.added.storage_probe`) asks the device itself and settles it. If nothing does, it is not
known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from pipeprof import units
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.ledger.making import making_of
from pipeprof.analyse.telemetry import sense
from pipeprof.devices import StorageModel, is_in_memory
from pipeprof.passes import Ints
from pipeprof.record.added.storage_probe import StorageProbe, read_probe
from pipeprof.record.meta import DiskMeta, IoLimitMeta, RunMeta
from pipeprof.record.names.sensors import (
    DEVICE_BUSY,
    DEVICE_IN_FLIGHT,
    DEVICE_READS,
    GROUP_READ_BYTES,
    GROUP_READS,
    PRESSURE_GROUP,
    PRESSURE_MACHINE,
    SensorName,
)
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, read_inside
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.owners import READ

State = Literal["full", "room", "not-known"]
Values = npt.NDArray[np.float64]

FULL: Final = 0.85
"""Share of what the device gives from which it is full. The kernel's own limit on reads works in slices of
100 ms and gave 70 of 77 reads a second (a 2-core virtual machine, Linux 6.18, November 2026)."""
LIMIT_GIVES: Final = 0.9
"""Share of its figure that the kernel's limit gave: 0.91 there, 0.88 of 600 reads a second here."""
IN_MEMORY: Final = 0.95
"""Share of the bytes that memory served from which no device was read."""
WAITED: Final = 0.3
"""Reads that were waited for at once, on average, below which a queue says nothing."""
HELD_BACK: Final = 1 / 3
"""Part of the waiting that the device's own queue explains, below which reads were held back above it."""
BUSY: Final = 0.9
SHORT_QUEUE: Final = 2.0
"""Reads in the queue of an SSD, on average, up to which it has room: it serves dozens side by side."""
FEWEST: Final = 40
"""Batches from which the crowded of them are compared with the others."""
APART: Final = 1.4
"""Factor by which reads in flight must differ between the two."""
IN_PROPORTION: Final = 0.7
FLAT: Final = 0.25
"""Growth of a read's time over that of the reads in flight, both as logarithms: 1 is a full device's."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """The state, its evidence, and the figures behind it; None for what was not observed."""

    state: State
    basis: str = ""
    """Basis of the judgement: `probe`, `limit`, `model`, `memory`, `held-back`, `busy-disk`, `short-queue` or
    `read-times`; empty if it is not known."""
    evidence: str = ""
    """A sentence with the figures."""
    reads_in_flight: float | None = None
    """Reads that were waited for at once, on average: Little's law, time of all reads over time."""
    bytes_per_s: float | None = None
    """Bytes that came from the device, or were read if that is not counted."""
    reads_per_s: float | None = None
    read_ns: float | None = None
    """Mean time that a read was waited for."""
    request_bytes: float | None = None
    counts_device: bool = False
    """True if the bytes are those that block devices gave."""
    limit_bytes_per_s: float | None = None
    limit_reads_per_s: float | None = None
    used: float | None = None
    """Share of what the device, or its limit, gives that the run used."""
    device_in_flight: float | None = None
    """Reads in the disk's own queue and being served, on average."""
    service_ns: float | None = None
    """Mean time of a read in the disk, its queue included."""
    device_busy: float | None = None
    io_pressure: float | None = None
    """Share of the time in which some task of the group, or else of the machine, waited for I/O."""
    memory_share: float | None = None
    """Share of the bytes that were read that memory served."""
    growth: float | None = None
    """Growth of a read's time with the reads in flight: 1 in proportion, 0 not at all."""
    capacity_bytes_per_s: float | None = None
    """Bytes a second that it gives at most; None if that is not known."""
    alone_bytes_per_s: float | None = None
    """Bytes a second that a single reader gets while it reads."""
    keeps_credit: bool = False
    """True if what is not asked for in a pause is given afterwards, as by a limit on the rate."""
    full_of_bytes: bool = False
    """True if a limit on bytes, and not on reads, is what is used up."""
    waited_share: float | None = None
    """Share of the making of batches that waited for reads."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def device_of_run(run: Run, attribution: Attribution) -> StorageState | None:
    """Return the state of the device of an attributed run: see `device_of`."""
    return device_of(run, attribution, sense(run, attribution.window).means, read_probe(run.directory))


def device_of(
    run: Run, attribution: Attribution, means: Mapping[SensorName, float], probe: StorageProbe | None
) -> StorageState | None:
    """Return the state of the device of a run; None if nothing was read, or from memory by its design.

    `means` are the sensors' over the measured window.
    """
    meta = run.meta
    if is_in_memory(meta.storage.tier) or (meta.storage.remote and probe is None):
        return None
    reading = _Reading.of(run, attribution)
    if reading is None:
        return None
    seen = _figures(reading, means, meta)
    if probe is not None:
        return _by_probe(seen, probe, _allowed_bytes_per_s(seen, means))
    if meta.storage.model is not None:
        return _by_model(seen, meta.storage.model, reading)
    return _by_the_run(seen, reading, meta, means)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reads of the measured batches: one entry a batch."""

    size_bytes: Values
    counts_device: bool
    asked_bytes: float | None
    """Bytes that all reads asked for together; None if no read was seen."""
    count: float | None
    waited_ns: Values
    queue_ns: float
    start_ns: Ints
    finish_ns: Ints
    wall_ns: int
    """Time of the measured window."""

    @classmethod
    def of(cls, run: Run, attribution: Attribution) -> _Reading | None:
        """Read them; None if no bytes were."""
        t = attribution.timeline
        measured = np.flatnonzero(t.measured & (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED))
        if len(measured) == 0 or attribution.window.wall_ns <= 0:
            return None
        network = run.meta.storage.tier == "network"
        making = making_of(attribution.stages.part(measured), attribution.counters.part(measured), network)
        waited = [ns for owner, ns in making.away.items() if owners.merged(owner) == owners.STORAGE.name]
        rows = read_inside(run, t, ("device_bytes",))["device_bytes"][measured]
        device = np.where(rows == NOT_OBSERVED, 0, rows).astype(np.float64)
        reads = attribution.stages.making.get(READ)
        asked = None if reads is None or reads.bytes is None else np.nan_to_num(reads.bytes[measured])
        count = (
            None
            if reads is None or reads.count is None
            else float(np.nan_to_num(reads.count[measured]).sum())
        )
        queue = None if reads is None else reads.queue_ns
        by_device = bool((rows != NOT_OBSERVED).any()) and not run.meta.storage.emulated
        size = device if by_device else asked
        if size is None or (not size.any() and (asked is None or not asked.any())):
            return None
        return cls(
            size.astype(np.float64),
            by_device,
            None if asked is None else float(asked.sum(dtype=np.float64)),
            count,
            np.asarray(sum(waited, np.zeros(len(measured))), dtype=np.float64),
            0.0 if queue is None else float(np.nan_to_num(queue[measured]).sum(dtype=np.float64)),
            t.start_ns[measured],
            t.finish_ns[measured],
            attribution.window.wall_ns,
        )


def _first(means: Mapping[SensorName, float], *sensors: SensorName) -> float | None:
    """Return the mean of the first of some sensors that was read; None if none was."""
    return next((means[sensor] for sensor in sensors if sensor in means), None)


def _figures(reading: _Reading, means: Mapping[SensorName, float], meta: RunMeta) -> StorageState:
    """Return the figures, with the state left open."""
    seconds = reading.wall_ns / NS_PER_S
    total, waited = float(reading.size_bytes.sum()), float(reading.waited_ns.sum())
    reads_per_s = _first(means, DEVICE_READS)
    in_flight = _first(means, DEVICE_IN_FLIGHT)
    limits = _limits(meta)
    pressure = _first(means, PRESSURE_GROUP, PRESSURE_MACHINE)
    asked = reading.asked_bytes
    return StorageState(
        "not-known",
        reads_in_flight=waited / reading.wall_ns,
        bytes_per_s=total / seconds,
        reads_per_s=reading.count / seconds if reading.count else None,
        read_ns=waited / reading.count if reading.count else None,
        request_bytes=(asked or total) / reading.count if reading.count else None,
        counts_device=reading.counts_device,
        limit_bytes_per_s=min(
            (float(limit.read_bytes_per_s) for limit in limits if limit.read_bytes_per_s), default=None
        ),
        limit_reads_per_s=min(
            (float(limit.read_requests_per_s) for limit in limits if limit.read_requests_per_s), default=None
        ),
        device_in_flight=in_flight,
        service_ns=in_flight / reads_per_s * NS_PER_S if in_flight is not None and reads_per_s else None,
        device_busy=means.get(DEVICE_BUSY),
        io_pressure=None if pressure is None else min(1.0, pressure),
        memory_share=max(0.0, 1 - total / asked) if asked and reading.counts_device else None,
        growth=_growth(reading),
        alone_bytes_per_s=total * NS_PER_S / waited if waited > 0 else None,
        waited_share=waited / float((reading.finish_ns - reading.start_ns).sum() or 1),
    )


def _limits(meta: RunMeta) -> list[IoLimitMeta]:
    """Return the limits on the disks that the data lies on; all if those are not known."""
    limits = [*meta.storage.io_limits, *meta.reading.io_limits]
    numbers = {disk.number for disk in _disks(meta) if disk.number}
    return [limit for limit in limits if not numbers or limit.device in numbers]


def _disks(meta: RunMeta) -> tuple[DiskMeta, ...]:
    return meta.storage.device.disks or meta.reading.place.disks


# -- by the run itself -------------------------------------------------------------------------------------


def _by_the_run(
    seen: StorageState, reading: _Reading, meta: RunMeta, means: Mapping[SensorName, float]
) -> StorageState:
    if seen.memory_share is not None and seen.memory_share >= IN_MEMORY:
        share = units.percent(seen.memory_share)
        return replace(
            seen, state="room", basis="memory", evidence=f"Memory served {share} of the bytes that were read."
        )
    limited = _by_limit(seen, means)
    if limited is not None and limited.state == "full":
        return limited
    for judge in (_held_back, _busy_disk, _by_growth, _short_queue):
        judged = judge(seen, meta)
        if judged is not None:
            if limited is None or judged.state == "full":
                return judged
            return replace(judged, capacity_bytes_per_s=limited.capacity_bytes_per_s, keeps_credit=True)
    if limited is not None:
        return limited
    return replace(seen, evidence=_UNKNOWN)


_UNKNOWN: Final = (
    "Whether the device gives more to more readers is not known from this run; "
    "`pipeprof predict RUN --probe` asks it."
)


def _by_limit(seen: StorageState, means: Mapping[SensorName, float]) -> StorageState | None:
    """Judge by the control groups' limits: the one that the run came nearest to."""
    reads = _first(means, GROUP_READS, DEVICE_READS)
    size = means.get(GROUP_READ_BYTES, seen.bytes_per_s)
    each_bytes = (size or 0.0) / reads if reads else 0.0
    if seen.counts_device and seen.bytes_per_s is not None:  # others of the group come on top
        size = max(size or 0.0, seen.bytes_per_s)
        reads = max(reads, size / each_bytes) if reads and each_bytes else reads
    limits_used: list[tuple[float, bool, str, float]] = []
    if seen.limit_bytes_per_s and size is not None:
        allowed, read = units.byte_rate(seen.limit_bytes_per_s), units.byte_rate(size)
        text = f"its control group allows {allowed}, and the run read {read}"
        limits_used.append((size / seen.limit_bytes_per_s, True, text, seen.limit_bytes_per_s * LIMIT_GIVES))
    if seen.limit_reads_per_s and reads is not None:
        text = (
            f"its control group allows {units.count(seen.limit_reads_per_s)} reads/s, and the run made "
            f"{units.digits(reads)}"
        )
        capacity = seen.limit_reads_per_s * each_bytes * LIMIT_GIVES
        limits_used.append((reads / seen.limit_reads_per_s, False, text, capacity))
    if not limits_used:
        return None
    used, of_bytes, figures, capacity = max(limits_used)
    full = used >= FULL
    return replace(
        seen,
        state="full" if full else "room",
        basis="limit",
        evidence=f"The device {'is full' if full else 'has room'}: {figures}.",
        used=used,
        capacity_bytes_per_s=seen.bytes_per_s if full else capacity or None,
        keeps_credit=True,
        full_of_bytes=full and of_bytes,
    )


def _held_back(seen: StorageState, meta: RunMeta) -> StorageState | None:
    """Judge by reads that were waited for and were not in the device's own queue."""
    waited, queued = seen.reads_in_flight or 0.0, seen.device_in_flight
    if not seen.counts_device or waited < WAITED or queued is None or queued >= HELD_BACK * waited:
        return None
    figures = (
        f"{units.digits(waited, 2)} reads were waited for at once, and the disk's own queue held "
        f"{units.digits(queued, 2)}: the rest were held back by a limit"
    )
    return _full(seen, "held-back", figures, keeps_credit=True)


def _busy_disk(seen: StorageState, meta: RunMeta) -> StorageState | None:
    """Judge by a rotating disk that always had something to do: it has one arm."""
    turns = any(disk.rotational and not disk.virtual for disk in _disks(meta))
    if not turns or seen.device_busy is None or seen.device_busy < BUSY:
        return None
    return _full(
        seen, "busy-disk", f"the disk has one arm, and was busy {units.percent(seen.device_busy)} of the time"
    )


def _by_growth(seen: StorageState, meta: RunMeta) -> StorageState | None:
    """Judge by how much longer reads took when more were in flight."""
    if seen.growth is None:
        return None
    if seen.growth >= IN_PROPORTION:
        return _full(seen, "read-times", "the more reads were in flight, the longer each took, in proportion")
    if seen.growth > FLAT:
        return None
    return replace(
        seen,
        state="room",
        basis="read-times",
        evidence="The device has room: reads took no longer where more of them were in flight.",
    )


def _short_queue(seen: StorageState, meta: RunMeta) -> StorageState | None:
    """Judge by the queue of a real SSD; a hypervisor's disk may be limited below what is seen here."""
    solid = bool(_disks(meta)) and all(disk.rotational is False and not disk.virtual for disk in _disks(meta))
    if not solid or seen.device_in_flight is None or seen.device_in_flight > SHORT_QUEUE:
        return None
    queued = units.digits(seen.device_in_flight, 2)
    return replace(
        seen,
        state="room",
        basis="short-queue",
        evidence=f"The device has room: an SSD serves many reads at once, and had {queued} in its queue.",
    )


def _full(seen: StorageState, basis: str, figures: str, keeps_credit: bool = False) -> StorageState:
    return replace(
        seen,
        state="full",
        basis=basis,
        evidence=f"The device is full: {figures}.",
        capacity_bytes_per_s=seen.bytes_per_s,
        keeps_credit=keeps_credit,
    )


def _growth(reading: _Reading) -> float | None:
    """Return the growth of a read's time with the reads in flight; None if too little differed.

    The batches that were made alongside the most other reads are compared with those alongside the fewest;
    what a batch itself waits for does not count as others.
    """
    known = (reading.size_bytes > 0) & (reading.finish_ns > reading.start_ns)
    if known.sum() < FEWEST:
        return None
    start, finish = reading.start_ns[known], reading.finish_ns[known]
    waited = reading.waited_ns[known]
    slowness = waited / reading.size_bytes[known]
    crowd = 1.0 + _others_in_flight(start, finish, waited)
    order = np.argsort(crowd, kind="stable")
    third = len(order) // 3
    few, many = order[:third], order[-third:]
    apart = float(crowd[many].mean() / crowd[few].mean())
    fast, slow = float(np.median(slowness[few])), float(np.median(slowness[many]))
    if apart < APART or fast <= 0 or slow <= 0:
        return None
    return log(slow / fast) / log(apart)


def _others_in_flight(start: Ints, finish: Ints, waited: Values) -> Values:
    """Return the mean reads of other batches in flight while each was made: waits spread over each's time."""
    share = waited / (finish - start)
    edges = np.sort(np.concatenate([start, finish]), kind="stable")
    level = np.zeros(len(edges))
    np.add.at(level, np.searchsorted(edges, start), share)
    np.add.at(level, np.searchsorted(edges, finish), -share)
    whole = np.append(0.0, np.cumsum(np.cumsum(level)[:-1] * np.diff(edges)))
    between = whole[np.searchsorted(edges, finish)] - whole[np.searchsorted(edges, start)]
    return np.asarray(np.maximum(between / (finish - start) - share, 0.0))


# -- by figures from elsewhere -----------------------------------------------------------------------------


def _by_model(seen: StorageState, model: StorageModel, reading: _Reading) -> StorageState | None:
    """Judge an emulated device, or one of a profile, by its own figures."""
    if model.kind == "memory" or seen.bytes_per_s is None:
        return None
    if model.kind == "disk":
        used = max(0.0, float(reading.waited_ns.sum()) - reading.queue_ns) / reading.wall_ns
        capacity = seen.bytes_per_s / used if used else None
    else:
        capacity = model.throughput_bytes_per_s(max(1, round(seen.request_bytes or 1)), 4 * model.channels)
        used = seen.bytes_per_s / capacity
    full = used >= FULL
    text = f"{model.name} was used to {units.percent(min(1.0, used))}"
    return replace(
        seen,
        state="full" if full else "room",
        basis="model",
        evidence=f"The device {'is full' if full else 'has room'}: {text}.",
        used=used,
        capacity_bytes_per_s=capacity,
    )


def _allowed_bytes_per_s(seen: StorageState, means: Mapping[SensorName, float]) -> float | None:
    """Return the bytes a second that control groups allow; None if they do not limit reading.

    A limit on reads allows that many of the size that the group's, or the device's, had.
    """
    reads = _first(means, GROUP_READS, DEVICE_READS)
    size = _first(means, GROUP_READ_BYTES) or seen.bytes_per_s
    allowed = [seen.limit_bytes_per_s] if seen.limit_bytes_per_s else []
    if seen.limit_reads_per_s and reads and size:
        allowed.append(seen.limit_reads_per_s * size / reads)
    return min(allowed, default=None)


def _by_probe(seen: StorageState, probe: StorageProbe, allowed: float | None) -> StorageState:
    """Judge by the curve of a probe. A short one may find more than control groups allow, which is what a
    limit had saved up."""
    of_device = seen.counts_device and probe.counts_device
    curve = probe.curve(of_device)
    most, alone = probe.most(of_device), next(iter(curve.values()))
    if of_device and allowed is not None:
        most, alone = min(most, allowed), min(alone, allowed)
    if most <= 0:
        return replace(seen, evidence=_UNKNOWN)
    used = (seen.bytes_per_s or 0.0) / most
    full = used >= FULL
    readers = max(curve)
    figures = (
        f"a probe got {units.byte_rate(alone)} with 1 reader and at most {units.byte_rate(most)} with up to "
        f"{readers}, and the run read {units.byte_rate(seen.bytes_per_s)}"
    )
    return replace(
        seen,
        state="full" if full else "room",
        basis="probe",
        evidence=f"The device {'is full' if full else 'has room'}: {figures}.",
        used=used,
        # of a full device the run itself is the longer measurement
        capacity_bytes_per_s=seen.bytes_per_s if full else most,
        alone_bytes_per_s=alone,
        keeps_credit=probe.keeps_credit,
    )
