"""The demands of a run that has not happened, drawn from the batches of one that has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeprof.devices import LINKS, NS_PER_S
from pipeprof.pipeline import Ints
from pipeprof.simulate.demands import Demands, StartUp
from pipeprof.simulate.knobs import MEMORY, UNKNOWN, Knobs
from pipeprof.simulate.recorded import Floats

PIN_BYTES_PER_S: Final = 5e9
"""The pin thread's copy into page-locked memory where the run shows none: about what one core copies."""
SHARD_READ_BYTES: Final = 1 << 20
"""Read size on shards where the run read files: tar streams read ahead by about this much."""

MEETING_CPU_NS: Final = 650_000
"""What meeting the other ranks costs each: an all-reduce of one number over gloo took 0.60 to 0.73 ms of CPU
in 2 and in 4 processes that had slept before it, on two cores (x86-64, Linux 6.18, torch 2.15)."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Demands of each batch of one rank, as plain lists, since the walk reads single entries. Times in ns."""

    cpu: list[float]
    read_cpu: list[float]
    requests: list[float]
    read_bytes: list[float]
    reading: list[float]
    """Recorded waiting for reads of storage that no model serves."""
    blocked: list[float]
    waking: list[float]
    handover: list[float]
    helper: list[float]
    transfer: list[float]
    receive: list[float]
    pin: list[float]
    copy: list[float]
    submit: list[float]
    compute: list[float]
    loop: list[float]
    met: list[float]
    """Recorded meetings with the other ranks, after the step."""
    meeting_ns: float
    """CPU time of meeting the other ranks after a step, on top of what was recorded."""
    onwards: bool
    """Each worker's reads go on where its last one ended."""
    compute_threads: int
    """Threads of the host that compute a step; 0 where an accelerator does."""
    steps: int
    start_up: StartUp
    batches_per_epoch: int
    rows: Ints
    """Which recorded batch each entry came from."""


def draw(demands: Demands, knobs: Knobs, steps: int, seed: int, rank: int = 0) -> Draw:
    """Demands of `steps` batches, and of those that the workers make ahead of the last.

    With as many steps as were recorded they come in the recorded order (a replay). Otherwise those after
    warm-up come shuffled, and again, each whole, so that what goes together in a batch stays together and
    two predictions differ by their knobs and not by their luck.
    """
    rows = _rows(demands, steps + knobs.outstanding, steps, (seed, rank))
    lists = {name: values[rows].tolist() for name, values in changed(demands, knobs).items()}
    start_up, factor = demands.start_up, knobs.scale.get("startup", 1.0)
    return Draw(
        **lists,
        meeting_ns=MEETING_CPU_NS if knobs.ranks > demands.measured.ranks else 0.0,
        onwards=knobs.access == "shards",
        compute_threads=_threads(knobs) if demands.computes_on_cpu else 0,
        steps=steps,
        start_up=StartUp(start_up.host_ns * factor, start_up.boot_ns * factor, start_up.shutdown_ns * factor),
        batches_per_epoch=max(1, round(demands.batches_per_epoch / batch_ratio(demands, knobs))),
        rows=rows,
    )


def _threads(knobs: Knobs) -> int:
    """What torch computes with: a thread a core."""
    return max(1, round(knobs.cores))


def _rows(demands: Demands, wanted: int, steps: int, seed: tuple[int, int]) -> Ints:
    rows = np.resize(np.random.default_rng(seed).permutation(demands.measured_rows), wanted)
    if seed[1] == 0 and steps == demands.steps:
        rows[:steps] = np.arange(steps)
    return rows.astype(np.int64)


def batch_ratio(demands: Demands, knobs: Knobs) -> float:
    """Size of a batch under the knobs over that of the recorded ones."""
    return knobs.batch_size / float(np.median(demands.batches.samples))


def changed(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """The recorded batches' demands as the knobs make them; the keys are the lists of a `Draw`."""
    batches, ratio, scale = demands.batches, batch_ratio(demands, knobs), knobs.scale
    size_bytes = demands.batch_bytes * ratio
    between = scale.get("transfer", 1.0)
    loop = scale.get("main", 1.0)
    # the pin thread exists only beside a real accelerator; where it ran its work is part of `receive`
    pins = knobs.pin_memory and not demands.measured.pin_memory and not demands.emulated_accelerator
    wakes = knobs.storage != MEMORY or demands.measured.storage == MEMORY
    by_owner = owners(demands, knobs)
    requests, read_bytes = _requests(demands, knobs, ratio)
    return {
        "read_cpu": by_owner.pop("read", np.zeros(len(batches))),
        "cpu": np.asarray(sum(by_owner.values(), np.zeros(len(batches)))),
        "requests": requests,
        "read_bytes": read_bytes,
        "reading": batches.reading * ratio * (knobs.storage == UNKNOWN) * (knobs.keep != "decoded"),
        "blocked": batches.blocked * ratio * scale.get("blocked", 1.0),
        "waking": batches.waking * ratio * wakes,
        "handover": batches.handover * between,
        "helper": batches.helper * between,
        "transfer": batches.transfer * between,
        "receive": batches.receive * _received(demands, knobs) * between,
        "pin": np.full(len(batches), size_bytes * NS_PER_S / PIN_BYTES_PER_S * pins),
        "copy": _copy(demands, knobs, ratio),
        "submit": batches.submit * loop,
        "compute": batches.compute * ratio / _speed(demands, knobs) + knobs.extra_compute_ns,
        "loop": batches.loop * loop,
        # several ranks are walked together, and meet there
        "met": batches.met * scale.get("collective", 1.0) * (knobs.ranks == 1),
    }


def _speed(demands: Demands, knobs: Knobs) -> float:
    """How much faster a step is than the recorded one: on the CPU also by the threads that share its work."""
    shared = _threads(knobs) / _threads(demands.measured) if demands.computes_on_cpu else 1.0
    return knobs.accelerator_speed * shared


def _received(demands: Demands, knobs: Knobs) -> float:
    """What is left of taking a batch: nothing crosses between processes where there are no workers."""
    return 0.0 if demands.measured.workers and not knobs.workers else 1.0


def owners(demands: Demands, knobs: Knobs) -> dict[str, Floats]:
    """CPU time of making each recorded batch by owner, as the knobs make it."""
    ratio, gone = batch_ratio(demands, knobs), ("read", "decode") if knobs.keep == "decoded" else ()
    cpu = dict(demands.batches.cpu)
    if moved_ns := _crossing(demands, knobs):
        cpu["collate"] = np.maximum(cpu.get("collate", np.zeros(len(demands.batches))) + moved_ns, 0.0)
    return {
        owner: values * ratio * (0.0 if owner in gone else knobs.scale.get(owner, 1.0))
        for owner, values in cpu.items()
    }


def scalable(demands: Demands) -> set[str]:
    """The owners of whose demands something was recorded: what `scale.<owner>` may be asked of."""
    batches, start_up = demands.batches, demands.start_up
    others: dict[str, tuple[Floats, ...]] = {
        "blocked": (batches.blocked,),
        "transfer": (batches.handover, batches.helper, batches.transfer, batches.receive),
        "h2d": (batches.copy,),
        "main": (batches.submit, batches.loop),
        "collective": (batches.met,),
        "startup": (np.asarray([start_up.host_ns, start_up.boot_ns, start_up.shutdown_ns]),),
    }
    found = {owner for owner, values in batches.cpu.items() if values.any()}
    return found | {owner for owner, parts in others.items() if any(part.any() for part in parts)}


def _crossing(demands: Demands, knobs: Knobs) -> float:
    """CPU time that collating a recorded batch takes more, or less, where batches begin or cease to cross
    between processes: workers collate into fresh shared memory."""
    crossed, crosses = demands.measured.workers > 0, knobs.workers > 0
    return (crosses - crossed) * demands.batch_bytes * (demands.fresh_byte_ns or 0.0)


def _requests(demands: Demands, knobs: Knobs, ratio: float) -> tuple[Floats, Floats]:
    """Requests (those that move the arm, on a disk) and bytes of each batch that reach the device."""
    batches, measured = demands.batches, demands.measured
    count, size_bytes = batches.requests, batches.read_bytes
    if knobs.storage.kind == "memory" or knobs.keep == "decoded":
        return np.zeros(len(batches)), np.zeros(len(batches))
    if knobs.access != measured.access:
        asked = batches.samples * (1 - measured.cache_share)
        count = asked if knobs.access == "files" else np.ceil(size_bytes / SHARD_READ_BYTES)
    elif knobs.storage.kind == "disk" and knobs.access == "files":
        count = count * demands.positioned
    missed = (1 - knobs.cache_share) / (1 - measured.cache_share) if measured.cache_share < 1 else 1.0
    return count * ratio * missed, size_bytes * ratio * missed


def _copy(demands: Demands, knobs: Knobs, ratio: float) -> Floats:
    """Time on the link; by the link's model where the question changes the link or the kind of memory."""
    copy, measured = demands.batches.copy * ratio, demands.measured
    unasked = knobs.link is None and knobs.pin_memory == measured.pin_memory
    if unasked or not copy.any():  # a copy that was not seen is part of the step already
        return copy * knobs.scale.get("h2d", 1.0)
    link = knobs.link or demands.link or LINKS["pcie-gen3"]
    size_bytes = round(demands.batch_bytes * ratio)
    return np.full(len(copy), link.copy_ns(size_bytes, knobs.pin_memory) * knobs.scale.get("h2d", 1.0))
