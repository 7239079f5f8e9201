"""Figures of a run other than its times, which distinguish one cause or fix from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.ledger.lock import lock_waits
from pipeprof.analyse.ledger.making import Floats
from pipeprof.analyse.resources.device import StorageState, device_of
from pipeprof.analyse.resources.operators import OperatorTime, slowest_operator
from pipeprof.analyse.resources.page_cache import PageCache, page_cache_of
from pipeprof.analyse.resources.shards import SlowShard, shard_times, slow_shard
from pipeprof.analyse.telemetry import sense
from pipeprof.analyse.why.totals import read_counts
from pipeprof.analyse.why.transfer import receive_starts
from pipeprof.devices import StorageModel
from pipeprof.graph import Shape
from pipeprof.record.added.storage_probe import read_probe
from pipeprof.record.meta import RunMeta
from pipeprof.record.names.sensors import SPIN, WorkerState
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline, read_inside
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.owners import READ


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures of the measured window; None if they were not observed."""

    loader: int
    """The loader that figures about a loader are of."""
    workers: int
    in_order: bool
    pin_memory: bool
    prefetches_to_device: bool
    persistent: bool
    iterable: bool
    sets_epoch: bool | None
    """True if the data set has a `set_epoch`; None in older runs."""
    splits_stream: bool | None
    """True if an iterable data set looks for its worker, and may give each its own samples; None: unknown."""
    start_method: str | None
    computes_on_cpu: bool
    """True if no device other than the CPU was seen."""
    epochs: int
    cores: float | None
    """Cores that the process may use at once: affinity and quota, less what its fellow ranks may use."""
    quota_cores: float | None
    own_cores: float | None
    """Cores that this run kept busy on average: its processes, or else the making of its batches."""
    other_cores: float | None
    """Cores that other programs kept busy."""
    waited_cores: float
    """Cores that the making of batches could have used besides and did not get; 0 if not observed."""
    states: Mapping[WorkerState, float]
    """Shares of what workers that were off their core waited for: see `sensors.Sensed`."""
    tier: str | None
    emulated_storage: bool
    storage_model: StorageModel | None
    cache: str | None
    cache_bytes: int | None
    data_bytes: int | None
    """Size of the whole data set."""
    sharded: bool
    """True if the data are in shards, which are read sequentially."""
    memory_bytes: int | None
    memory_left_bytes: int | None
    """The least memory that was left for any process while workers made batches."""
    worker_bytes: int | None
    """The most memory that a worker shared with no other process."""
    reads: int | None
    read_bytes: int | None
    read_wall_ns: int | None
    read_queue_ns: int | None
    """Part of that spent behind other reads of the same device."""
    remote: bool
    """True if the data are on no device of this machine, nor in its page cache."""
    requests: Mapping[str, tuple[int, int]]
    """Ns and count of `client`, `first-byte`, `throttled` and `retry`, of the reads of a remote place."""
    device_bytes: int | None
    """Bytes that came from block devices, however they were read."""
    cpu_per_fault_ns: float | None
    """CPU time of making batches for each of its major page faults; None if there were none."""
    batches: int
    wall_ns: int
    samples: int
    batch_bytes: float | None = None
    """Mean size of a batch's tensors."""
    page_cache: PageCache | None = None
    """Share of the reads that memory served, and will serve in later epochs."""
    spin_ns: float | None = None
    """CPU time of a fixed piece of work, on average: the speed of the cores."""
    making_ns: float | None = None
    """Median time in which a batch was made."""
    alone_share: float | None = None
    """Share of the window that a loop without workers would take to make its batches and to compute."""
    pickling_ns: float | None = None
    """Median time in which a batch was pickled and written to the pipe."""
    received_share: float | None = None
    """Share of the loop's waits in which it unpickled batches that had come, without waiting for a lock."""
    loader_code_ns: int = 0
    """Time inside `next` in which a loader without workers made no batch."""
    device: StorageState | None = None
    """State of the device that the data came from; None if none was read, or the data are remote."""
    slowest_operator: OperatorTime | None = None
    """The operator whose tasks took the most time by the source's own statistics, as Ray Data keeps them."""
    slow_shard: SlowShard | None = None
    """The shard whose batches took clearly longer to make; None if none stands out, or none is known."""
    programs: Mapping[str, float] = field(default_factory=dict)
    """Cores that the busiest other programs kept busy, by name."""

    @property
    def busiest(self) -> str:
        """Return the names of the busiest other programs, as `, most of it pytest`; empty without any."""
        return f", most of it {' and '.join(self.programs)}" if self.programs else ""

    @property
    def mean_read_bytes(self) -> float | None:
        """Return the mean size of a read, in bytes."""
        return self.read_bytes / self.reads if self.reads and self.read_bytes is not None else None

    @property
    def mean_read_ns(self) -> float | None:
        """Return the mean time of a read."""
        return self.read_wall_ns / self.reads if self.reads and self.read_wall_ns else None

    @property
    def read_bytes_per_s(self) -> float:
        """Return the bytes read in each second of the measured window."""
        return (self.read_bytes or 0) * NS_PER_S / max(1, self.wall_ns)

    @property
    def reads_per_s(self) -> float | None:
        """Return the reads in each second of the measured window."""
        return self.reads * NS_PER_S / max(1, self.wall_ns) if self.reads else None

    @property
    def reads_in_flight(self) -> float | None:
        """Return the reads that were waited for at once, on average."""
        return self.read_wall_ns / max(1, self.wall_ns) if self.read_wall_ns else None

    @property
    def read_queue_share(self) -> float | None:
        """Return the share of the time of reads that they queued behind others."""
        if self.read_queue_ns is None:
            return None
        return self.share_of_reading(self.read_queue_ns)

    def share_of_reading(self, spent_ns: int) -> float | None:
        """Return what a time is of the time of all reads; None if none was timed."""
        return spent_ns / self.read_wall_ns if self.read_wall_ns else None

    def mean_request_ns(self, kind: str) -> float | None:
        """Return the mean time of a kind of requests of a remote place; None if none was made."""
        spent_ns, times = self.requests.get(kind, (0, 0))
        return spent_ns / times if times else None

    @property
    def idle_cores(self) -> float | None:
        """Return the cores that this run could use and did not; not those that a worker waits for."""
        if self.cores is None or self.own_cores is None:
            return None
        return max(0.0, self.cores - self.own_cores - self.waited_cores)


def gather(run: Run, attribution: Attribution) -> Facts:
    """Read the facts from run.json and the rows in the measured window."""
    meta = run.meta
    storage, machine = meta.storage, meta.machine
    measured = attribution.timeline.measured
    loader = attribution.main_loader
    shape = attribution.shapes[loader]
    batches = _rows_of(run, attribution)
    sensed = sense(run, attribution.window)
    reads = _reads(attribution)
    counts = read_counts(run)
    device = device_of(run, attribution, sensed.means, read_probe(run.directory))
    samples = int(np.maximum(attribution.timeline.samples[measured], 0).sum())
    making_ns = _making_ns(attribution.timeline)
    return Facts(
        loader=loader,
        workers=shape.workers,
        in_order=shape.in_order,
        pin_memory=shape.pin_memory,
        prefetches_to_device=_prefetches_to_device(attribution, shape),
        persistent=bool(meta.loader(loader).persistent_workers),
        iterable=bool(meta.loader(loader).iterable),
        sets_epoch=meta.loader(loader).sets_epoch,
        splits_stream=meta.loader(loader).splits_stream,
        start_method=meta.loader(loader).start_method,
        computes_on_cpu=meta.accelerator.is_missing,
        epochs=sum(
            attribution.timeline.kind_of(loop_pass.loader) == loader
            for loop_pass in attribution.timeline.passes
        ),
        cores=cores_of(meta),
        quota_cores=machine.cpu_quota_cores,
        own_cores=_own_cores(batches, attribution) if sensed.own_cores is None else sensed.own_cores,
        other_cores=_strangers(sensed.other_cores, sensed.own_cores, meta),
        waited_cores=(_sum(attribution.counters.runq[measured]) or 0) / max(1, attribution.window.wall_ns),
        states=sensed.states,
        tier=storage.tier,
        emulated_storage=bool(storage.emulated),
        storage_model=storage.model,
        cache=storage.cache,
        cache_bytes=_cache_bytes(meta),
        data_bytes=_data_bytes(meta),
        sharded=meta.data.format == "tar_shards",
        memory_bytes=machine.memory_bytes,
        memory_left_bytes=min(counts.memory_left, default=None),
        worker_bytes=counts.worker_bytes,
        reads=reads.count,
        read_bytes=reads.bytes,
        read_wall_ns=reads.wall_ns,
        read_queue_ns=reads.queue_ns,
        remote=bool(storage.remote),
        requests=_requests(attribution),
        device_bytes=_total(batches["device_bytes"]),
        cpu_per_fault_ns=_cpu_per_fault_ns(batches, attribution),
        batches=int(measured.sum()),
        wall_ns=attribution.window.wall_ns,
        samples=samples,
        batch_bytes=_mean(batches["bytes"]),
        spin_ns=sensed.means.get(SPIN),
        making_ns=float(np.median(making_ns)) if len(making_ns) else None,
        alone_share=_alone_share(making_ns, attribution),
        pickling_ns=attribution.timeline.usual_pickling_ns,
        received_share=_received_share(run, attribution.timeline),
        loader_code_ns=int(attribution.timeline.loader_code_ns[measured].sum()),
        device=device,
        slowest_operator=slowest_operator(meta),
        slow_shard=slow_shard(shard_times(run, attribution.timeline)),
        programs=machine.programs,
        page_cache=page_cache_of(meta, attribution, device, reads.bytes, samples, counts),
    )


def _making_ns(timeline: Timeline) -> Ints:
    """Return the time in which each measured batch was made, as far as observed."""
    t = timeline
    seen = t.measured & (t.start_ns != NOT_OBSERVED) & (t.finish_ns != NOT_OBSERVED)
    took_ns: Ints = (t.finish_ns - t.start_ns)[seen]
    return took_ns


def _alone_share(making_ns: Ints, attribution: Attribution) -> float | None:
    """Return None if no batch was seen being made."""
    computed_ns = attribution.whole.ledger_ns.get(owners.ACCELERATOR.name, 0)
    if not len(making_ns):
        return None
    return (int(making_ns.sum()) + computed_ns) / max(1, attribution.window.wall_ns)


def _received_share(run: Run, timeline: Timeline) -> float | None:
    """Return None if a thread pins the batches alongside the loop, or if receiving was not observed."""
    t, begun = timeline, receive_starts(run)
    seen = t.measured & (begun != NOT_OBSERVED) & (t.received_ns != NOT_OBSERVED)
    waited = int(t.wait_ns[t.measured].sum())
    if not seen.any() or t.pin_threads or not waited:
        return None
    _, locked = lock_waits(t, begun)
    return float((t.received_ns - begun - locked)[seen].sum() / waited)


def _prefetches_to_device(attribution: Attribution, shape: Shape) -> bool:
    """Return True if copies were seen and ran alongside the computation."""
    return shape.copies_overlap and bool((attribution.timeline.copy_end_ns != NOT_OBSERVED).any())


def _rows_of(run: Run, attribution: Attribution) -> dict[str, Ints]:
    """Return columns of the batches that the measured steps took."""
    names = ("helper_cpu_ns", "device_bytes", "major_faults", "bytes")
    columns = read_inside(run, attribution.timeline, names)
    return {name: values[attribution.timeline.measured] for name, values in columns.items()}


def _mean(values: Ints) -> float | None:
    seen = values[values != NOT_OBSERVED]
    return float(seen.mean()) if len(seen) else None


def _total(values: Ints) -> int | None:
    seen = values[values != NOT_OBSERVED]
    return int(seen.sum()) if len(seen) else None


def _cpu_per_fault_ns(batches: dict[str, Ints], attribution: Attribution) -> float | None:
    cpu_ns, faults = attribution.counters.cpu[attribution.timeline.measured], batches["major_faults"]
    seen = ~np.isnan(cpu_ns) & (faults != NOT_OBSERVED)
    count = int(faults[seen].sum())
    return float(cpu_ns[seen].sum(dtype=np.float64)) / count if count else None


def _own_cores(batches: dict[str, Ints], attribution: Attribution) -> float | None:
    cpu = _sum(attribution.counters.cpu[attribution.timeline.measured])
    if cpu is None or attribution.window.wall_ns == 0:
        return None
    return (cpu + (_total(batches["helper_cpu_ns"]) or 0)) / attribution.window.wall_ns


@dataclass(frozen=True, slots=True)
class _Reads:
    """Sums over the reads of the measured steps' batches; None if they were not observed."""

    count: int | None = None
    bytes: int | None = None
    wall_ns: int | None = None
    queue_ns: int | None = None


def _reads(attribution: Attribution) -> _Reads:
    reads = attribution.stages.making.get(READ)
    if reads is None:
        return _Reads()
    measured = attribution.timeline.measured
    figures = (reads.count, reads.bytes, reads.wall_ns, reads.queue_ns)
    return _Reads(*(None if values is None else _sum(values[measured]) for values in figures))


def _requests(attribution: Attribution) -> dict[str, tuple[int, int]]:
    measured = attribution.timeline.measured
    parts: dict[str, tuple[int, int]] = {}
    for name, part in attribution.stages.parts.items():
        count = None if part.count is None else _sum(part.count[measured])
        parts[name] = _sum(part.wall_ns[measured]) or 0, count or 0
    return parts


def _sum(values: Floats) -> int | None:
    seen = values[~np.isnan(values)]
    return round(float(seen.sum(dtype=np.float64))) if len(seen) else None


def cores_of(meta: RunMeta) -> float | None:
    """Return the cores that a run may count on, by affinity and quota: its part of what a node's ranks
    share."""
    machine, ranks = meta.machine, _ranks_on_node(meta)
    usable, quota = machine.usable_cores or machine.cpu_count, machine.cpu_quota_cores
    limits = [usable / (1 if meta.own_cores else ranks)] if usable else []
    limits += [quota / ranks] if quota else []
    return float(min(limits)) if limits else None


def _ranks_on_node(meta: RunMeta) -> int:
    return meta.local_world_size or 1


def _strangers(others: float | None, own: float | None, meta: RunMeta) -> float | None:
    """Return the cores that others than this job's ranks keep busy, each rank taken to use what this one
    does."""
    if others is None or own is None:
        return others
    return max(0.0, others - own * (_ranks_on_node(meta) - 1))


def _cache_bytes(meta: RunMeta) -> int | None:
    held = meta.storage.cache_bytes
    return meta.settings.storage.cache_bytes if held is None else held


def _data_bytes(meta: RunMeta) -> int | None:
    samples, mean_bytes = meta.data.samples, meta.data.mean_bytes
    return int(samples * mean_bytes) if samples and mean_bytes else None
