"""Demands: the need of a recorded run for each resource, batch by batch, with no one else using it.

CPU time instead of wall time, requests and bytes instead of the time that a busy device took over them, and
for every other edge of the pipeline's graph the time that passed after the last of its predecessors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.ledger.making import Stage
from pipeprof.analyse.resources.device import StorageState, device_of_run
from pipeprof.analyse.telemetry import sense
from pipeprof.devices import LinkModel, StorageModel, is_in_memory
from pipeprof.errors import InconclusiveError
from pipeprof.passes import LoopPass
from pipeprof.record.added.scaling_probe import ScalingProbe, read_scaling
from pipeprof.record.reader import Run
from pipeprof.simulate.demands import knobs_of_run as setting
from pipeprof.simulate.demands.fresh import FreshMemory, fresh_memory
from pipeprof.simulate.demands.learned_device import if_full, learned_model, request_bytes_of
from pipeprof.simulate.demands.loop import activities, runs_behind
from pipeprof.simulate.demands.observing import OwnCostOfBatch, own_cost_of
from pipeprof.simulate.demands.read import Floats, Recorded, read_recorded
from pipeprof.simulate.extrapolation import Extrapolation
from pipeprof.simulate.knobs import LEARNED, MEMORY, UNKNOWN, Knobs
from pipeprof.timeline import NOT_OBSERVED, Ints, Timeline, measured_window
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners

FEWEST_BATCHES: Final = 5
"""Number of batches after warm-up below which their spread means nothing."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Demands of the recorded batches: one entry a batch, ns if not said otherwise."""

    samples: Floats
    cpu: Mapping[str, Floats]
    """CPU time of making it, by owner; that of its reads is the storage's."""
    away: Mapping[str, Floats]
    """Neither on a core nor waiting for one, by owner: locks, sleeps, reads of storage without a model."""
    waking: Floats
    """Waiting for a core that neither siblings nor neighbours explain: of a thread that a read just woke, or
    because of torch's own threads. `with_neighbours` finds it."""
    requests: Floats
    read_bytes: Floats
    recording: Floats
    """CPU time of pipeprof's threads during the step."""
    helper: Floats
    """CPU time of a worker's other threads, such as the queue's feeder."""
    handover: Floats
    """Work between two batches of one worker; without workers, inside `next` before the making."""
    handover_away: Floats
    """The same, without a resource: waiting for a lock or to be woken up."""
    transfer: Floats
    """From the end of collate until the main process could take the batch, beyond `receive`."""
    locked: Floats
    """Above 0 if it was received only when its worker had made the next batch, whose making held its lock.

    `loop.PICKLING` if it waited for that to be pickled, `loop.RECEIVING` to be unpickled.
    """
    pin: Floats
    """Time of the pin thread, one batch after the other."""
    receive: Floats
    """CPU time of the main process to take a batch that is there."""
    receive_away: Floats
    """Time that it waits meanwhile, for what its worker's threads do."""
    copy: Floats
    submit: Floats
    compute: Floats
    body_cpu: Floats
    """CPU time of the loop's own thread in `compute`, which holds it, if no device was timed."""
    loop: Floats
    """The loop's own Python after the step."""
    met: Floats
    """After the step: meeting the other ranks of the job, waiting for the last of them included."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def make_cpu(self) -> Floats:
        """Return the CPU time of making the batch, all owners."""
        return np.asarray(sum(self.cpu.values(), np.zeros(len(self))), dtype=np.float64)

    @property
    def made_away(self) -> Floats:
        """Return the time of making the batch on no core, all owners."""
        return np.asarray(sum(self.away.values(), np.zeros(len(self))), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class StartUp:
    """Costs of an epoch before its first batch and after its last."""

    host_ns: float
    """The main process starts one worker."""
    boot_ns: float
    """Time until a started worker begins its first batch."""
    shutdown_ns: float
    """Time from the last step of an epoch to the start of the next."""


@dataclass(frozen=True, slots=True)
class DataPlace:
    """The storage of the data, and what was observed of reading it."""

    tier: str | None
    """None if the run does not say."""
    emulated: bool
    set_bytes: float | None
    """Size of the data set's files; None if it is not known."""
    reads_observed: bool
    positioned: float
    """Share of the requests that move the arm of a disk; the others go on where the last one ended."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, and who else used it, as far as known."""

    memory_bytes: int
    fresh: FreshMemory
    """Cost of memory that is new for each batch."""
    link: LinkModel | None
    core_waiting: float | None
    """Time that making batches waited for a core, over that and their CPU time; None if not observed."""
    own_cores: float | None
    other_cores: float | None
    """Cores that the run kept busy, and that everything else did; None if not observed."""


@dataclass(frozen=True, slots=True)
class RecordedEvents:
    """The events of a run that were recorded: attribution sees a simulated run as it saw this one."""

    device: bool
    """The device's own times."""
    device_waits: bool
    """The device's waits for the loop, without its own times."""
    sent: bool
    """When batches were sent by their workers."""
    received: bool
    """When the main process had unpickled them."""
    arrived: bool
    """When they could be taken."""


@dataclass(frozen=True)
class Demands:
    """A run, ready to be replayed."""

    batches: Batches
    """Figures of every step that was seen, warm-up included."""
    measured_rows: Ints
    """Those after warm-up: what other runs are drawn from."""
    start_up: StartUp
    measured: Knobs
    """The knobs that the run was recorded under."""
    steps: int
    warmup: int
    batches_per_epoch: int
    batch_bytes: float
    pickling_ns: float | None
    """Median time in which a batch was pickled and written to the pipe."""
    sampler_ns: float
    """The part of receiving a batch that is drawing indices: the loop's own work."""
    place: DataPlace
    host: Host
    observed: RecordedEvents
    emulated_accelerator: bool
    computes_on_cpu: bool
    has_device: bool
    """False if the loop has no processor but the CPU: nothing can be moved to another."""
    world_size: int = 1
    """Ranks of the job that this run is one of."""
    throughput: float | None = None
    """Samples a second of the recorded loop; None if they were not observed."""
    device_full: bool = False
    """True if the storage's model was learned from a run in which it was at its limit."""
    scaling: ScalingProbe | None = None
    """The cost of making batches in several processes, if that was probed."""
    notes: tuple[Extrapolation, ...] = ()
    """Figures that were not observed, and what was assumed instead."""
    own_cost: OwnCostOfBatch | None = None
    """Cost of observing that is in these demands; None if it is not known, or taken off."""
    taken_off_ns: float = 0.0
    """Cost of observing a batch that was taken off; 0 for a run as it was recorded."""
    own_error_ns: float = 0.0
    """Possible error of what was taken off."""
    if_full: Demands | None = None
    """The same on a device that is full already, if it is not known whether this one is."""

    @cached_property
    def batch_samples(self) -> float | None:
        """Return the number of samples in a typical batch; None if they were not observed."""
        known = self.batches.samples[self.batches.samples > 0]
        return float(np.median(known)) if len(known) else None

    @property
    def step_ns(self) -> float:
        """Return the mean time that the accelerator needs for one recorded batch."""
        return float(self.batches.compute[self.measured_rows].mean())


def read_demands(run: Run, attribution: Attribution, loader: int | None = None) -> Demands:
    """Read the demands of the loop over one loader of an attributed run: the main one if none is given.

    Raises `InconclusiveError` if too few batches were recorded to say anything.
    """
    recorded = read_recorded(run, attribution, loader)
    timeline = recorded.timeline
    measured = np.flatnonzero(timeline.measured)
    if len(measured) < FEWEST_BATCHES:
        raise InconclusiveError(
            f"{run.directory} holds {len(measured)} batches after warm-up whose making was seen",
            f"measure at least {FEWEST_BATCHES}, better 50 or more, to predict from",
        )
    knobs = setting.measured_knobs(run, recorded)
    device = device_of_run(run, attribution) if knobs.storage == UNKNOWN else None
    demands = _demands(run, attribution, recorded, knobs, device)
    if device is None or device.state != "not-known":
        return demands
    return replace(demands, if_full=_demands(run, attribution, recorded, knobs, if_full(device)))


def _demands(
    run: Run, attribution: Attribution, recorded: Recorded, knobs: Knobs, device: StorageState | None
) -> Demands:
    """Return the demands with the reads served by `device`, if its capacity is known."""
    learned = None if device is None else learned_model(device, setting.tier_of(run.meta))
    if learned is not None:
        knobs = replace(knobs, storage=learned)
    timeline = recorded.timeline
    measured = np.flatnonzero(timeline.measured)
    # of a bench that is predicted from another, both are observed
    own_cost = None if run.meta.kind == "bench" else own_cost_of(run, recorded)
    return Demands(
        batches=_batches(recorded, knobs, device, 0.0 if own_cost is None else own_cost.recording_ns),
        measured_rows=measured,
        start_up=_start_up(recorded, knobs),
        measured=knobs,
        steps=len(timeline),
        warmup=int(timeline.warmup.sum()),
        batches_per_epoch=setting.batches_per_epoch(run, recorded, knobs),
        sampler_ns=attribution.own_work.sampler_ns,
        batch_bytes=_mean(recorded.batch_bytes[measured]),
        pickling_ns=timeline.usual_pickling_ns,
        place=_place(run, recorded.reads, knobs.storage),
        host=_host(run, recorded),
        observed=_observed(timeline),
        emulated_accelerator=bool(run.meta.accelerator.emulated),
        computes_on_cpu=run.meta.accelerator.kind == "cpu",
        has_device=not run.meta.accelerator.is_missing,
        world_size=setting.world_size(run),
        throughput=_throughput(timeline),
        device_full=device is not None and device.state == "full",
        scaling=read_scaling(run.directory),
        notes=_notes(run, recorded, device),
        own_cost=own_cost,
    )


def _throughput(timeline: Timeline) -> float | None:
    window, samples = measured_window(timeline), float(timeline.samples[timeline.measured].sum())
    if window is None or window.wall_ns <= 0 or samples <= 0:
        return None
    return samples * NS_PER_S / window.wall_ns


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _place(run: Run, reads: Stage | None, model: StorageModel) -> DataPlace:
    data = run.meta.data
    return DataPlace(
        tier=run.meta.storage.tier,
        emulated=bool(run.meta.storage.emulated),
        set_bytes=(data.samples or 0) * (data.mean_bytes or 0.0) or None,
        reads_observed=reads is not None or model.name == LEARNED,
        positioned=_positioned(reads, model),
    )


def _host(run: Run, recorded: Recorded) -> Host:
    window = measured_window(recorded.timeline)
    sensed = sense(run, window) if window is not None else None
    return Host(
        memory_bytes=run.meta.machine.memory_bytes or 0,
        fresh=fresh_memory(run, recorded),
        link=setting.link_model(run),
        core_waiting=recorded.core_waiting,
        own_cores=sensed.own_cores if sensed else None,
        # what the other ranks of a job use is not a neighbour's, and no sensor distinguishes it
        other_cores=sensed.other_cores if sensed and run.meta.world_size is None else None,
    )


def _observed(timeline: Timeline) -> RecordedEvents:
    return RecordedEvents(
        device=timeline.device_observed,
        device_waits=timeline.device_waits,
        sent=bool((timeline.sent_ns != NOT_OBSERVED).any()),
        received=bool((timeline.received_ns != NOT_OBSERVED).any()),
        arrived=bool(((timeline.arrival_ns != NOT_OBSERVED) & (timeline.worker >= 0)).any()),
    )


def _notes(run: Run, recorded: Recorded, device: StorageState | None) -> tuple[Extrapolation, ...]:
    storage = run.meta.storage
    notes = []
    if device is not None and device.basis == "probe":
        notes.append(Extrapolation("reads are served by the curve that a probe of the storage took"))
    elif device is not None and device.capacity_bytes_per_s is not None:
        notes.append(
            Extrapolation("reads are served up to the rate that the run showed to be the device's limit")
        )
    elif storage.model is None and not is_in_memory(storage.tier):
        notes.append(
            Extrapolation(
                "the storage's limits are not known: reads are assumed to stay as fast as they were here "
                "(`pipeprof predict RUN --probe` asks it)"
            )
        )
    if not recorded.timeline.device_timed:
        notes.append(Extrapolation("no device clock: time inside the loop counts as computing"))
    elif not recorded.timeline.device_observed:
        notes.append(
            Extrapolation("the device timed its waits alone: its steps are inferred from them and the loop")
        )
    if not recorded.counted.any():
        notes.append(Extrapolation("CPU time was not observed: time outside reads counts as CPU time"))
    if read_scaling(run.directory) is not None:
        notes.append(
            Extrapolation("the cost of a batch grows with the processes as a probe of its making showed")
        )
    if (ranks := setting.world_size(run)) > 1:
        waits = (
            "is taken to stay as it was"
            if recorded.met.any()
            else "counts as computing or as the loop's Python"
        )
        notes.append(Extrapolation(f"one of {ranks} ranks: its waiting for the others {waits}"))
    return tuple(notes)


def _batches(recorded: Recorded, knobs: Knobs, device: StorageState | None, recording_ns: float) -> Batches:
    reads, n = recorded.reads, len(recorded)
    cpu, away = _made(recorded, knobs.storage)
    requests, read_bytes = (
        _known(reads.count if reads else None, n),
        _known(reads.bytes if reads else None, n),
    )
    if device is not None and knobs.storage.name == LEARNED:
        read_bytes = np.nan_to_num(recorded.device_bytes) if device.counts_device else read_bytes
        requests = read_bytes / request_bytes_of(device)
    # between the workers and the loop only wall time is known: take out what waiting for cores added
    between = activities(recorded).on_cores(1.0 - (recorded.core_waiting or 0.0), *_cpu_between(recorded, n))
    batches = Batches(
        samples=recorded.timeline.samples.astype(np.float64),
        cpu=cpu,
        away=away,
        waking=np.zeros(n),
        requests=requests,
        read_bytes=read_bytes,
        recording=np.full(n, recording_ns),
        body_cpu=np.zeros(n),
        helper=np.nan_to_num(recorded.helper_cpu),
        **between._asdict(),
        met=recorded.met,
    )
    return replace(batches, **_with_a_core(recorded, batches))


def _with_a_core(recorded: Recorded, batches: Batches) -> dict[str, Any]:
    """Return, with a core of its own, a step for which no device was timed: the CPU time in it, and the
    whole.

    Its thread waits for a core like any other. It needs none while it sleeps or waits for a device.
    """
    timeline = recorded.timeline
    if recorded.body_cpu_share is None or timeline.device_observed or runs_behind(timeline):
        return {}
    share = 1.0 - (recorded.core_waiting or 0.0)
    cpu_ns = np.minimum(batches.compute * recorded.body_cpu_share, batches.compute * share)
    waited_ns = cpu_ns / share - cpu_ns if share else 0.0
    return {"body_cpu": cpu_ns, "compute": batches.compute - waited_ns}


def _cpu_between(recorded: Recorded, n: int) -> tuple[Floats, Floats]:
    """Return the CPU time between two batches of a worker, and of taking one; NaN if it is not known.

    Without workers both lie in `next`, which makes the batch too.
    """
    if not recorded.shape.workers:
        return np.full(n, np.nan), np.full(n, np.nan)
    return recorded.handover_cpu, recorded.next_cpu


def _known(values: npt.NDArray[np.float32] | None, n: int) -> Floats:
    return np.zeros(n) if values is None else np.nan_to_num(values).astype(np.float64)


def _made(recorded: Recorded, model: StorageModel) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return the CPU time and time away of making each batch, by owner.

    What reads waited for is left to the storage's cost model, if it has one. Reads of memory whose CPU time
    was not counted are CPU time.
    """
    making = recorded.making
    cpu, away = ({o: ns.astype(np.float64) for o, ns in part.items()} for part in (making.cpu, making.away))
    if model.name == LEARNED:  # page faults outside reads are bytes of the device too
        return cpu, {owner: ns for owner, ns in away.items() if owners.merged(owner) != owners.STORAGE.name}
    if making.reads_away is None or model == UNKNOWN:
        return cpu, away
    moved = making.reads_away.astype(np.float64)
    if model == MEMORY:
        moved[recorded.counted] = 0.0
        cpu[owners.STORAGE_DEVICE] = cpu.get(owners.STORAGE_DEVICE, np.zeros(len(moved))) + moved
    storage = [away.pop(owner) for owner in list(away) if owners.merged(owner) == owners.STORAGE.name]
    left = np.maximum(sum(storage, np.zeros(len(moved))) - moved, 0.0)  # page faults outside reads
    return cpu, {owners.STORAGE_DEVICE: left, **away}


def _positioned(reads: Stage | None, model: StorageModel) -> float:
    """Return how many of the requests moved the arm, from the time that the device spent on them itself."""
    if reads is None or model.kind != "disk" or not _known(reads.count, len(reads.wall_ns)).any():
        return 1.0
    n = len(reads.wall_ns)
    count, sizes = _known(reads.count, n).sum(), _known(reads.bytes, n).sum()
    spent = _known(reads.wall_ns, n).sum() - _known(reads.queue_ns, n).sum()
    own = spent - sizes * NS_PER_S / model.bandwidth_bytes_per_s
    return float(np.clip(own / (model.seek_ns + model.half_rotation_ns) / count, 0.0, 1.0))


def _start_up(recorded: Recorded, knobs: Knobs) -> StartUp:
    timeline, passes = recorded.timeline, recorded.passes
    host = [loop_pass.made_ns[1] - loop_pass.made_ns[0] for loop_pass in passes if loop_pass.made_ns]
    if knobs.persistent_workers:
        host = host[:1]
    gaps = [loop_pass.left_ns for loop_pass in passes if loop_pass.left_ns is not None]
    return StartUp(
        host_ns=float(np.median(host)) / max(1, knobs.workers) if host and knobs.workers else 0.0,
        boot_ns=_boot(timeline, passes) if knobs.workers else 0.0,
        shutdown_ns=float(np.median(gaps)) if gaps else 0.0,
    )


def _boot(timeline: Timeline, passes: Sequence[LoopPass]) -> float:
    """Return the median time from a worker's start to its first batch, in ns."""
    ready = {
        (loop_pass.loader, loop_pass.epoch): loop_pass.made_ns[1] for loop_pass in passes if loop_pass.made_ns
    }
    first = np.flatnonzero((timeline.previous < 0) & (timeline.dispatch_ns != NOT_OBSERVED))
    keys = zip(timeline.loader[first].tolist(), timeline.epoch[first].tolist(), strict=True)
    up = np.asarray([ready.get(key, NOT_OBSERVED) for key in keys], dtype=np.int64)
    boot = np.maximum(timeline.start_ns[first] - np.maximum(timeline.dispatch_ns[first], up), 0)
    return float(np.median(boot)) if len(boot) else 0.0
