"""What a recorded run needed of each resource, batch by batch, with no one else using it.

CPU time instead of wall time, requests and bytes instead of the time that a busy device took over them, and
for every other edge of the pipeline's graph the time that passed after the last of its predecessors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeprof.analyse.sensors import sense
from pipeprof.devices import NS_PER_S, LinkModel, StorageModel
from pipeprof.errors import InconclusiveError
from pipeprof.pipeline import NOT_OBSERVED, Ints, Timeline, ints, measured_window
from pipeprof.simulate import setting
from pipeprof.simulate.elapsed import elapsed
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.recorded import Floats, Recorded, Stage, read_recorded
from pipeprof.trace import Run

FEWEST_BATCHES: Final = 5
"""Batches after warm-up below which their spread says nothing."""
NOISE_SHARE: Final = 0.02
"""Blocked time below this share of making a batch is what is left of rounding and sampling, and no lock."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Demands of the recorded batches: one entry a batch, ns where not said otherwise."""

    samples: Floats
    cpu: Mapping[str, Floats]
    """CPU time by owner, `read` among them."""
    reading: Floats
    """Waiting for reads of storage that has no cost model."""
    blocked: Floats
    """Neither on a core nor waiting for one nor reading: locks, sleeps."""
    waking: Floats
    """Waiting for a core that neither siblings nor neighbours explain: of a thread that a read just woke,
    or beside torch's own threads. `neighbours` finds it."""
    requests: Floats
    read_bytes: Floats
    handover: Floats
    """Between two batches of one worker."""
    helper: Floats
    """CPU time of a worker's other threads, such as the queue's feeder."""
    transfer: Floats
    """From the end of collate until the main process could take the batch, beyond `receive`."""
    receive: Floats
    """CPU time of the main process to take a batch that is there."""
    copy: Floats
    submit: Floats
    compute: Floats
    loop: Floats
    """The loop's own Python between two steps."""
    met: Floats
    """After the step: meeting the other ranks of the job, waiting for the last of them included."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def make_cpu(self) -> Floats:
        """CPU time of making the batch, all owners."""
        return np.asarray(sum(self.cpu.values(), np.zeros(len(self))), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class StartUp:
    """What an epoch costs before its first batch and after its last."""

    host_ns: float
    """The main process starts one worker."""
    boot_ns: float
    """A started worker turns to its first batch."""
    shutdown_ns: float
    """From the last step of an epoch to the start of the next."""


@dataclass(frozen=True, slots=True)
class Demands:
    """A run, ready to be replayed."""

    batches: Batches
    """Of every step that was seen, warm-up included."""
    measured_rows: Ints
    """Those after warm-up: what other runs are drawn from."""
    start_up: StartUp
    measured: Knobs
    """The knobs that the run was recorded under."""
    steps: int
    warmup: int
    batches_per_epoch: int
    batch_bytes: float
    positioned: float
    """Share of the requests that move the arm of a disk; the others go on where the last one ended."""
    storage_observed: bool
    emulated_accelerator: bool
    computes_on_cpu: bool
    core_waiting: float | None
    """Time that making batches waited for a core, over that and their CPU time; None where not observed."""
    own_cores: float | None
    other_cores: float | None
    """Cores that the run kept busy, and that everything else did; None where not observed."""
    link: LinkModel | None
    fresh_byte_ns: float | None
    """CPU time that a byte of a batch costs more in shared memory of its own, where workers put it."""
    memory_bytes: int
    set_bytes: float | None
    """Size of the data set's files; None where it is not known."""
    tier: str | None = None
    """Where the data lay, if the run says so."""
    world_size: int = 1
    """Ranks of the job that this run is one of."""
    emulated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not observed, and what was assumed in its place."""

    @property
    def step_ns(self) -> float:
        """Mean time that the accelerator needs for one recorded batch."""
        return float(self.batches.compute[self.measured_rows].mean())


def read_demands(run: Run) -> Demands:
    """The demands of the run's main loop.

    Raises `InconclusiveError` where too few batches were recorded to say anything.
    """
    recorded = read_recorded(run)
    timeline = recorded.timeline
    kept = np.flatnonzero(~timeline.warmup)
    if len(kept) < FEWEST_BATCHES:
        raise InconclusiveError(
            f"{run.directory} holds {len(kept)} batches after warm-up whose making was seen",
            f"measure at least {FEWEST_BATCHES}, better 50 or more, to predict from",
        )
    knobs = setting.measured_knobs(run, recorded)
    window = measured_window(timeline)
    sensed = sense(run, window) if window is not None else None
    read = recorded.stages.get("read")
    data, machine = run.meta.get("data") or {}, run.meta.get("machine") or {}
    accelerator = run.meta.get("accelerator") or {}
    return Demands(
        batches=_batches(recorded, knobs, _core_waiting(recorded, kept) or 0.0),
        measured_rows=kept,
        start_up=_start_up(run, timeline, knobs),
        measured=knobs,
        steps=len(timeline),
        warmup=int(timeline.warmup.sum()),
        batches_per_epoch=setting.batches_per_epoch(run, recorded, knobs),
        batch_bytes=_mean(recorded.columns["bytes"][kept]),
        positioned=_positioned(read, knobs.storage),
        storage_observed=read is not None,
        emulated_accelerator=bool(accelerator.get("emulated")),
        computes_on_cpu=accelerator.get("kind") == "cpu",
        core_waiting=_core_waiting(recorded, kept),
        own_cores=sensed.own_cores if sensed else None,
        # what the other ranks of a job use is no neighbour's, and no sensor tells it apart
        other_cores=sensed.other_cores if sensed and "world_size" not in run.meta else None,
        link=setting.link_model(run),
        fresh_byte_ns=machine.get("fresh_byte_ns"),
        memory_bytes=int(machine.get("memory_bytes") or 0),
        set_bytes=float(data.get("samples") or 0) * float(data.get("mean_bytes") or 0) or None,
        tier=(run.meta.get("storage") or {}).get("tier"),
        world_size=setting.world_size(run),
        emulated=tuple(run.meta.get("emulated") or ()),
        notes=_notes(run, recorded),
    )


def _core_waiting(recorded: Recorded, kept: Ints) -> float | None:
    runq, cpu = recorded.columns["runq_ns"][kept], recorded.columns["cpu_ns"][kept]
    seen = ~(np.isnan(runq) | np.isnan(cpu))
    runnable = float((runq + cpu)[seen].sum())
    return float(runq[seen].sum()) / runnable if runnable else None


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _notes(run: Run, recorded: Recorded) -> tuple[str, ...]:
    storage = run.meta.get("storage") or {}
    notes = []
    if not storage.get("model") and storage.get("tier") not in ("ram", "pinned"):
        notes.append("the storage has no cost model: reads take what they took, its limit is not known")
    if not (recorded.timeline.compute_end_ns != NOT_OBSERVED).any():
        notes.append("no device clock: the loop's body counts as the accelerator's time")
    if np.isnan(recorded.columns["cpu_ns"]).all():
        notes.append("CPU time was not observed: time outside reads counts as CPU time")
    if (ranks := setting.world_size(run)) > 1:
        waits = (
            "is taken to stay as it was"
            if recorded.met.any()
            else "counts as computing or as the loop's Python"
        )
        notes.append(f"one of {ranks} ranks: its waiting for the others {waits}")
    return tuple(notes)


def _batches(recorded: Recorded, knobs: Knobs, core_waiting: float) -> Batches:
    timeline, n = recorded.timeline, len(recorded)
    wall = (timeline.finish_ns - timeline.start_ns).astype(np.float64)
    read = recorded.stages.get("read")
    read_wall = read.wall if read else np.zeros(n)
    runq = np.nan_to_num(recorded.columns["runq_ns"])
    cpu = recorded.columns["cpu_ns"]
    cpu = np.where(np.isnan(cpu), np.maximum(wall - read_wall - runq, 0.0), cpu)
    read_cpu = np.minimum(_read_cpu(read, knobs.storage, n), cpu)
    elsewhere = bool(read) and knobs.storage != MEMORY
    read_away = np.maximum(read_wall - read_cpu, 0.0) if elsewhere else np.zeros(n)
    helper = np.nan_to_num(recorded.columns["helper_cpu_ns"])
    return Batches(
        samples=timeline.samples.astype(np.float64),
        cpu=_by_owner(recorded, cpu, read_cpu),
        reading=read_away if knobs.storage == UNKNOWN else np.zeros(n),
        blocked=_blocked(wall, wall - cpu - runq - read_away),
        waking=np.zeros(n),
        requests=np.nan_to_num(read.count) if read else np.zeros(n),
        read_bytes=np.nan_to_num(read.bytes) if read else np.zeros(n),
        helper=helper,
        # between the workers and the loop only wall time is known: take out what waiting for cores added
        **elapsed(timeline, helper, recorded.met, knobs, 1.0 - core_waiting),
        met=recorded.met,
    )


def _blocked(wall: Floats, rest: Floats) -> Floats:
    return np.maximum(rest, 0.0) if rest.mean() > NOISE_SHARE * wall.mean() else np.zeros(len(wall))


def _read_cpu(read: Stage | None, storage: StorageModel, n: int) -> Floats:
    """CPU time of reading each batch: by the request, as the batches whose CPU time was read out show it."""
    if read is None:
        return np.zeros(n)
    seen = ~np.isnan(read.cpu) & (read.count > 0)
    if seen.any():
        return np.asarray(np.nan_to_num(read.count) * (read.cpu[seen].sum() / read.count[seen].sum()))
    return read.wall.copy() if storage == MEMORY else np.zeros(n)


def _positioned(read: Stage | None, model: StorageModel) -> float:
    """How many of the requests moved the arm, from the time that the device spent on them itself."""
    if read is None or model.kind != "disk" or not np.nansum(read.count):
        return 1.0
    own = (
        np.nansum(read.wall - np.nan_to_num(read.queue))
        - np.nansum(read.bytes) * NS_PER_S / model.bandwidth_bytes_per_s
    )
    moved = own / (model.seek_ns + model.half_rotation_ns) / np.nansum(read.count)
    return float(min(1.0, max(0.0, moved)))


def _by_owner(recorded: Recorded, cpu: Floats, read_cpu: Floats) -> dict[str, Floats]:
    """A batch's CPU time, shared among its stages in proportion to what each used.

    CPU time of single stages is read out for some batches only: elsewhere a stage counts with its wall time
    times the share of it that was CPU time in those.
    """
    used = {name: _used(stage) for name, stage in sorted(recorded.stages.items()) if name != "read"}
    total = np.asarray(sum(used.values(), np.zeros(len(cpu))))
    rest = np.maximum(cpu - read_cpu, 0.0)
    share = np.divide(rest, total, out=np.zeros(len(cpu)), where=total > 0)
    owners = {"read": read_cpu, **{name: values * share for name, values in used.items()}}
    owners["getitem"] = owners.get("getitem", np.zeros(len(cpu))) + np.where(total > 0, 0.0, rest)
    return owners


def _used(stage: Stage) -> Floats:
    seen = ~np.isnan(stage.cpu) & (stage.wall > 0)
    ratio = stage.cpu[seen].sum() / stage.wall[seen].sum() if seen.any() else 1.0
    return np.asarray(np.where(np.isnan(stage.cpu), np.nan_to_num(stage.wall) * ratio, stage.cpu))


def _start_up(run: Run, timeline: Timeline, knobs: Knobs) -> StartUp:
    events = run.table("events")
    at: dict[str, dict[int, int]] = {}
    epochs, times = ints(events["epoch"]).tolist(), ints(events["time_ns"]).tolist()
    loaders = ints(events["loader"]).tolist()
    for kind, loader, epoch, time in zip(events["kind"].to_pylist(), loaders, epochs, times, strict=True):
        if loader in (int(timeline.loader[0]), NOT_OBSERVED):
            at.setdefault(kind, {}).setdefault(epoch, time)
    started, ready = at.get("epoch_start", {}), at.get("workers_ready", {})
    host = [ready[epoch] - started[epoch] for epoch in started if epoch in ready]
    if knobs.persistent_workers:
        host = host[:1]
    launched = {
        epoch: int(timeline.launch_ns[timeline.epoch == epoch].max(initial=NOT_OBSERVED)) for epoch in started
    }
    gaps = [started[e + 1] - launched[e] for e in started if e + 1 in started and launched[e] != NOT_OBSERVED]
    return StartUp(
        host_ns=float(np.median(host)) / max(1, knobs.workers) if host and knobs.workers else 0.0,
        boot_ns=_boot(timeline, ready) if knobs.workers else 0.0,
        shutdown_ns=max(0.0, float(np.median(gaps))) if gaps else 0.0,
    )


def _boot(timeline: Timeline, ready: Mapping[int, int]) -> float:
    """From the worker's start to its first batch."""
    first = (timeline.previous < 0) & (timeline.dispatch_ns != NOT_OBSERVED)
    up = np.asarray(
        [ready.get(epoch, NOT_OBSERVED) for epoch in timeline.epoch[first].tolist()], dtype=np.int64
    )
    boot = np.maximum(timeline.start_ns[first] - np.maximum(timeline.dispatch_ns[first], up), 0)
    return float(np.median(boot)) if len(boot) else 0.0
