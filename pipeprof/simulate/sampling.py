"""The demands of a run that has not happened, drawn from the batches of one that has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeprof.devices import LINKS
from pipeprof.simulate.clock import share_of_core
from pipeprof.simulate.demands.loader import Demands, StartUp
from pipeprof.simulate.demands.loop import RECEIVING
from pipeprof.simulate.demands.read import Floats
from pipeprof.simulate.knobs import MEMORY, Knobs
from pipeprof.timeline import Ints
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import owners

PIN_BYTES_PER_S: Final = 5e9
"""The pin thread's copy into page-locked memory if the run shows none: about what one core copies."""
SHARD_READ_BYTES: Final = 1 << 20
"""Read size on shards if the run read files: tar streams read ahead by about this much."""

HANDED_CPU_NS: Final = 130_000
SENT_CPU_NS: Final = 240_000
SENT_NS: Final = 800_000
RECEIVED_CPU_NS: Final = 400_000
"""Cost of handing a batch over if the run has no workers: between two batches of a worker, its queue
thread's, the way, and the main process's. Medians of batches of one tensor, passed by file descriptor, on two
cores of a shared virtual machine (x86-64, Linux 6.18, torch 2.15), 29 November 2026."""
CROWDED: Final = 1.0
"""Additional waiting of the main process for a batch that is there, where other workers keep all other cores
busy, over its CPU time to take it: it and the worker's thread wake each other some eight times a batch. From
1 to 2 workers that waiting grew by 1.0 and 0.7 times that CPU time (tensors, JPEG with steps of 10 ms), once
by 2.1 (steps of 40 ms); of text, which waits for its worker's lock, it fell by 0.3. From 2 to 4 it grew by
0.4 at most. One run each, on two cores of a shared virtual machine, 30 November 2026."""
MEETING_CPU_NS: Final = 650_000
"""Cost to each rank of meeting the others: an all-reduce of one number over gloo took 0.60 to 0.73 ms of CPU
in 2 and in 4 processes that had slept before it, on two cores (x86-64, Linux 6.18, torch 2.15)."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Demands of each batch of one rank, as plain lists, since the walk reads single entries. Times in ns."""

    cpu: list[float]
    read_cpu: list[float]
    requests: list[float]
    read_bytes: list[float]
    away: list[float]
    """Neither on a core nor waiting for one, nor for a device that is modelled."""
    waking: list[float]
    handover: list[float]
    handover_away: list[float]
    recording: list[float]
    """CPU time of pipeprof's threads; 0 if its cost was subtracted."""
    helper: list[float]
    transfer: list[float]
    locked: list[float]
    """Above 0 if a batch is received when its worker has made the next one, whose making held its lock."""
    pin: list[float]
    receive: list[float]
    receive_away: list[float]
    copy: list[float]
    submit: list[float]
    compute: list[float]
    body_cpu: list[float]
    """CPU time of the loop's thread at the end of it."""
    loop: list[float]
    met: list[float]
    """Recorded meetings with the other ranks, after the step."""
    meeting_ns: float
    """CPU time of meeting the other ranks after a step, on top of what was recorded."""
    onwards: bool
    """Each worker's reads go on where its last one ended."""
    compute_threads: int
    """Threads of the host that compute a step; 0 if an accelerator does."""
    steps: int
    start_up: StartUp
    batches_per_epoch: int
    rows: Ints
    """Which recorded batch each entry came from."""


def draw(demands: Demands, knobs: Knobs, steps: int, seed: int, rank: int = 0) -> Draw:
    """Draw demands of `steps` batches, and of those that the workers make ahead of the last.

    With as many steps as were recorded they come in the recorded order (a replay). Otherwise those after
    warm-up come shuffled, and again, each whole, so that what belongs together in a batch stays together and
    two predictions differ by their knobs and not by chance.
    """
    rows = _rows(demands, steps + knobs.outstanding, steps, (seed, rank))
    lists = {name: values[rows].tolist() for name, values in changed(demands, knobs).items()}
    return Draw(
        **lists,
        meeting_ns=MEETING_CPU_NS if knobs.ranks > demands.measured.ranks else 0.0,
        onwards=knobs.access == "shards",
        compute_threads=_threads(knobs) if demands.computes_on_cpu else 0,
        steps=steps,
        start_up=_start_up(demands, knobs),
        batches_per_epoch=_batches_per_epoch(demands, knobs, steps),
        rows=rows,
    )


def _start_up(demands: Demands, knobs: Knobs) -> StartUp:
    """Return the recorded start-up as work: workers that started up together shared the cores.

    Only its wall time is known, which is taken to have been work whenever it had a core.
    """
    recorded, measured = demands.start_up, demands.measured
    factor = knobs.scale.get(owners.STARTUP.name, 1.0)
    alone, together = (
        share_of_core(tasks, measured.cores, measured.neighbours) for tasks in (1, max(1, measured.workers))
    )
    return StartUp(
        recorded.host_ns * alone * factor, recorded.boot_ns * together * factor, recorded.shutdown_ns * factor
    )


def _batches_per_epoch(demands: Demands, knobs: Knobs, steps: int) -> int:
    """Return the recorded number of batches of an epoch.

    An epoch that was seen once is not known to recur, nor its start-up.
    """
    batches = max(1, round(demands.batches_per_epoch / batch_ratio(demands, knobs)))
    return batches if demands.steps > demands.batches_per_epoch else max(batches, steps)


def _threads(knobs: Knobs) -> int:
    """Return the threads that torch computes with: one a core."""
    return max(1, round(knobs.cores))


def _rows(demands: Demands, wanted: int, steps: int, seed: tuple[int, int]) -> Ints:
    rows = np.resize(np.random.default_rng(seed).permutation(demands.measured_rows), wanted)
    if seed[1] == 0 and steps == demands.steps:
        rows[:steps] = np.arange(steps)
    return rows.astype(np.int64)


def batch_ratio(demands: Demands, knobs: Knobs) -> float:
    """Return the size of a batch under the knobs over that of the recorded ones; 1 if that was not
    observed."""
    return knobs.batch_size / demands.batch_samples if demands.batch_samples else 1.0


def changed(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """Return the recorded batches' demands as the knobs make them; the keys are the lists of a `Draw`."""
    batches, ratio, scale = demands.batches, batch_ratio(demands, knobs), knobs.scale
    between = scale.get(owners.TRANSFER.name, 1.0)
    loop = scale.get(owners.MAIN.name, 1.0)
    wakes = knobs.storage != MEMORY or demands.measured.storage == MEMORY
    cpu = cpu_by_owner(demands, knobs)
    reading = [ns for owner, ns in cpu.items() if is_storage(owner)]
    requests, read_bytes = _requests(demands, knobs, ratio)
    body, begins = _body(demands, knobs), _begins(demands, knobs)
    return {
        "read_cpu": _total(reading, len(batches)),
        "cpu": _total([ns for owner, ns in cpu.items() if not is_storage(owner)], len(batches)),
        "requests": requests,
        "read_bytes": read_bytes,
        "away": _total(away_by_owner(demands, knobs).values(), len(batches)),
        "waking": _woken(demands, knobs) * ratio * wakes,
        "handover": _handed_over(demands, knobs) * between,
        "handover_away": batches.handover_away * between * (knobs.workers > 0),
        "recording": batches.recording,
        "helper": batches.helper - _queue_thread(demands) * (1 - between) + SENT_CPU_NS * between * begins,
        "transfer": (batches.transfer + SENT_NS * begins) * between,
        "locked": batches.locked * ~(knobs.shares_by_name & (batches.locked == RECEIVING)),
        "pin": _pin(demands, knobs, ratio),
        "receive": (receive := _received(demands, knobs) * between),
        "receive_away": _waited_for(demands, knobs, receive) * between,
        "copy": _copy(demands, knobs, ratio),
        "submit": body["submit"] * loop,
        "compute": (compute := body["compute"] * ratio / _speed(demands, knobs) + knobs.extra_compute_ns),
        "body_cpu": np.minimum(body["body_cpu"] * ratio, compute) * (not demands.computes_on_cpu),
        "loop": body["loop"] * loop,
        # several ranks are walked together, and meet there
        "met": batches.met * scale.get(owners.COLLECTIVE.name, 1.0) * (knobs.ranks == 1),
    }


def _woken(demands: Demands, knobs: Knobs) -> Floats:
    """Return the waiting for a core that nothing else explains, of each batch.

    In a worker that is its own process's other threads too. Without workers only a thread that was woken from
    a sleep or a read waits, and hardly longer than it slept.
    """
    batches = demands.batches
    if not demands.measured.workers or knobs.workers or batches.requests.any():
        return batches.waking
    return np.minimum(batches.waking, batches.made_away)


def _total(parts: Iterable[Floats], length: int) -> Floats:
    return np.asarray(sum(parts, np.zeros(length)), dtype=np.float64)


def _pin(demands: Demands, knobs: Knobs, ratio: float) -> Floats:
    """Return the pin thread's work: as recorded, or a copy of the batch if the knobs start that thread."""
    if knobs.pin_memory == demands.measured.pin_memory:
        return demands.batches.pin * ratio * knobs.scale.get(owners.PIN.name, 1.0)
    # the thread exists only with a real accelerator
    pins = knobs.pin_memory and not demands.emulated_accelerator
    copied_ns = demands.batch_bytes * ratio * NS_PER_S / PIN_BYTES_PER_S
    return np.full(len(demands.batches), copied_ns * pins)


def _speed(demands: Demands, knobs: Knobs) -> float:
    """Return how many times as fast a step is as recorded: on the CPU also by threads that share it."""
    shared = _threads(knobs) / _threads(demands.measured) if demands.computes_on_cpu else 1.0
    return knobs.accelerator_speed * shared


def _queue_thread(demands: Demands) -> Floats:
    """Return the CPU time of helper threads that may be the queue thread's: no more than handing over took.

    The others compute for the worker, and do the same amount however light its batches are.
    """
    batches = demands.batches
    handing = batches.handover + batches.handover_away + batches.transfer
    return np.minimum(batches.helper, handing + batches.receive + batches.receive_away)


def _received(demands: Demands, knobs: Knobs) -> Floats:
    """Return what taking a batch needs: nothing crosses between processes if there are no workers.

    The sampler draws in `next` all the same.
    """
    receive, recorded = demands.batches.receive, demands.measured.workers
    if recorded and not knobs.workers:
        return np.minimum(receive, demands.sampler_ns)
    begins = _begins(demands, knobs)
    return receive + (demands.batches.handover + RECEIVED_CPU_NS) * begins


def _waited_for(demands: Demands, knobs: Knobs, receive: Floats) -> Floats:
    """Return the main process's waiting for a batch that is there: longer the more cores others keep busy."""
    if not knobs.workers:
        return np.zeros(len(receive))
    batches, rows = demands.batches, demands.measured_rows
    cpu_ns, away_ns = (float(each[rows].sum()) for each in (batches.make_cpu, batches.made_away))
    busy = cpu_ns / (cpu_ns + away_ns) if cpu_ns > 0 else 0.0
    more = _crowd(knobs, busy) - _crowd(demands.measured, busy)
    return np.maximum(batches.receive_away + CROWDED * more * receive, 0.0)


def _crowd(knobs: Knobs, busy: float) -> float:
    """Return the share of the cores beside a batch's own worker's that other workers keep busy.

    `busy` is the share of its making for which a worker has work. 0 if memory is passed by name: no thread of
    the worker's is asked for it.
    """
    if knobs.shares_by_name:
        return 0.0
    others = max(0, knobs.workers * knobs.ranks - 1) * busy
    return min(1.0, others / max(1.0, knobs.cores - 1))


def _handed_over(demands: Demands, knobs: Knobs) -> Floats:
    """Return what passes between two batches of the process that makes them.

    Without workers that is the loader's own code in `next`, which is the loop's if there are some.
    """
    same = bool(knobs.workers) == bool(demands.measured.workers)
    return demands.batches.handover * same + HANDED_CPU_NS * _begins(demands, knobs)


def _begins(demands: Demands, knobs: Knobs) -> bool:
    """Return whether batches cross between processes now but did not before."""
    return knobs.workers > 0 and not demands.measured.workers


def _body(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """Return the parts of the loop's body; the last that was observed gives the batch's memory back."""
    batches, fresh = demands.batches, demands.host.fresh
    parts = {name: getattr(batches, name) for name in ("loop", "submit", "compute", "body_cpu")}
    extra_ns = fresh.loop_ns(demands.batch_bytes, demands.measured.workers, knobs.workers)
    where = "loop" if demands.observed.device else "submit" if batches.submit.any() else "compute"
    longer = (where, "body_cpu") if where == "compute" and batches.body_cpu.any() else (where,)
    return {**parts, **{name: np.maximum(parts[name] + extra_ns, 0.0) for name in longer if extra_ns}}


def is_storage(owner: str) -> bool:
    """Return whether an owner is a part of the storage."""
    return owners.merged(owner) == owners.STORAGE.name


def _factor(knobs: Knobs, owner: str) -> float:
    """Return the factor of `scale` for an owner; that of `storage` holds for its parts."""
    whole = owners.merged(owner)
    return knobs.scale.get(owner, 1.0) * (knobs.scale.get(whole, 1.0) if whole != owner else 1.0)


def cpu_by_owner(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """Return the CPU time of making each recorded batch by owner, as the knobs make it."""
    ratio, decoded = batch_ratio(demands, knobs), knobs.keep == "decoded"
    cpu = dict(demands.batches.cpu)
    fresh, recorded = demands.host.fresh, demands.measured.workers
    if moved_ns := fresh.making_ns(demands.batch_bytes, recorded, knobs.workers):
        collating = cpu.get(owners.COLLATE.name, np.zeros(len(demands.batches)))
        cpu[owners.COLLATE.name] = np.maximum(collating + moved_ns, 0.0)
    gone = {owner for owner in cpu if decoded and (is_storage(owner) or owner == owners.DECODE.name)}
    ratio *= _growth(demands, knobs)
    return {owner: ns * ratio * (owner not in gone) * _factor(knobs, owner) for owner, ns in cpu.items()}


def _growth(demands: Demands, knobs: Knobs) -> float:
    """Return how many times the recorded CPU time making a batch takes with this many other processes."""
    if demands.scaling is None:
        return 1.0
    asked, recorded = (
        demands.scaling.growth_at(max(1, each.workers) * each.ranks) for each in (knobs, demands.measured)
    )
    return asked / recorded


def away_by_owner(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """Return the time of making each recorded batch on no core, by owner, as the knobs make it.

    The waits of reads were recorded on one storage; for another its cost model gives them.
    """
    ratio, measured = batch_ratio(demands, knobs), demands.measured
    same = knobs.storage == measured.storage and knobs.keep == measured.keep
    away = dict(demands.batches.away)
    if owners.BLOCKED.name in away and measured.workers and not knobs.workers:
        # a worker waits for the interpreter lock that its queue thread holds
        away[owners.BLOCKED.name] = np.maximum(away[owners.BLOCKED.name] - _queue_thread(demands), 0.0)
    return {
        owner: ns * ratio * (same or not is_storage(owner)) * _factor(knobs, owner)
        for owner, ns in away.items()
    }


def scalable(demands: Demands) -> set[str]:
    """Return the owners of whose demands something was recorded: what `scale.<owner>` may be asked of."""
    batches, start_up = demands.batches, demands.start_up
    others: dict[str, tuple[Floats, ...]] = {
        owners.TRANSFER.name: (
            batches.handover,
            batches.handover_away,
            batches.helper,
            batches.transfer,
            batches.receive,
            batches.receive_away,
        ),
        owners.PIN.name: (batches.pin,),
        owners.H2D.name: (batches.copy,),
        owners.MAIN.name: (batches.submit, batches.loop),
        owners.COLLECTIVE.name: (batches.met,),
        owners.STARTUP.name: (np.asarray([start_up.host_ns, start_up.boot_ns, start_up.shutdown_ns]),),
    }
    made = [*batches.cpu.items(), *batches.away.items()]
    made_owners = {owners.merged(owner) for owner, values in made if values.any()}
    return made_owners | {owner for owner, parts in others.items() if any(part.any() for part in parts)}


def _requests(demands: Demands, knobs: Knobs, ratio: float) -> tuple[Floats, Floats]:
    """Return requests (those that move the arm, on a disk) and bytes of each batch that reach the device."""
    batches, measured = demands.batches, demands.measured
    count, size_bytes = batches.requests, batches.read_bytes
    if knobs.storage.kind == "memory" or knobs.keep == "decoded":
        return np.zeros(len(batches)), np.zeros(len(batches))
    if knobs.access != measured.access:
        asked = batches.samples * (1 - measured.cache_share)
        count = asked if knobs.access == "files" else np.ceil(size_bytes / SHARD_READ_BYTES)
    elif knobs.storage.kind == "disk" and knobs.access == "files":
        count = count * demands.place.positioned
    missed = (1 - knobs.cache_share) / (1 - measured.cache_share) if measured.cache_share < 1 else 1.0
    return count * ratio * missed, size_bytes * ratio * missed


def _copy(demands: Demands, knobs: Knobs, ratio: float) -> Floats:
    """Return the time on the link; by the link's model if the question changes the link or the kind of
    memory."""
    copy, measured = demands.batches.copy * ratio, demands.measured
    factor = knobs.scale.get(owners.H2D.name, 1.0)
    unasked = knobs.link is None and knobs.pin_memory == measured.pin_memory
    if unasked or not copy.any():  # a copy that was not observed is already part of the step
        return copy * factor
    link = knobs.link or demands.host.link or LINKS["pcie-gen3"]
    size_bytes = round(demands.batch_bytes * ratio)
    return np.full(len(copy), link.copy_ns(size_bytes, knobs.pin_memory) * factor)
