"""Reasons why a place is expensive, if a counter of its own shows one and it explains most of the place.

Each mechanism is one function of what a run has recorded. It returns what share of the blamed owner's time it
explains, with the figures of its sentence; None if its counter does not show it. The one that explains the
most is named, of several that explain at least `EXPLAINS`; the more special one first if they are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from pipeprof import units
from pipeprof.analyse.why.lines import MAIN, WAIT, stage_of
from pipeprof.analyse.why.main_lock import lock_waits_in
from pipeprof.analyse.why.observed import Observed
from pipeprof.analyse.why.shown import Shown
from pipeprof.analyse.why.totals import CounterTotals, of_main_in
from pipeprof.record.events import read_events
from pipeprof.record.names import counters
from pipeprof.record.schema import MAIN_PROCESS
from pipeprof.vocabulary import fixes, mechanisms, owners
from pipeprof.vocabulary.mechanisms import EXPLAINS

TINY_SAMPLE_NS: Final = 20_000
"""CPU time below which a sample is mostly the calls around it: torch's own loop takes 1 to 20 µs a sample."""
MOSTLY: Final = 0.5
"""Share of a worker's start from which a part is most of it."""
SMALL_PICTURE: Final = 250_000
"""Pixels below which decoding a picture costs little more than opening it."""
SLOW_PICKLING: Final = 0.5
"""Share of a worker's start that the main process is busy starting it, from which its pickling is what takes
so long: a process that is sent little starts alongside the main one."""
LEAST_GIL: Final = 0.1
"""Share of the window from which waits for the GIL of the main process are believed. Beside a thread that
lets go of it, up to 0.09 were reported in runs of 1.5 s; beside one that does not, 0.13 to 0.34."""
LARGE_DATASET_BYTES: Final = 20_000_000
"""Size from which pickling a data set to a worker takes longer than starting its process."""


def shown_by(observed: Observed) -> Shown | None:
    """Return the mechanism that explains most of the blamed owner's time; None if none is established."""
    # What makes the work itself expensive does not explain why there was no core for it.
    looks = _OF_CORES if observed.owner == owners.CPU_CONTENTION.name else _LOOKS
    all_shown = [shown for shown in (look(observed) for look in looks) if shown is not None]
    enough = [shown for shown in all_shown if shown.explains >= EXPLAINS]
    return max(enough, key=lambda shown: round(shown.explains, 1), default=None)


def _family(observed: Observed) -> str:
    return owners.family_of(observed.owner)


_WORK: Final = frozenset(
    {
        owners.COLLATE.name,
        owners.DECODE.name,
        owners.TRANSFORM.name,
        owners.STAGE.name,
        owners.CPU_CONTENTION.name,
        owners.BLOCKED.name,
    }
)
"""Families of owners whose time is spent making batches."""


def _is_work(observed: Observed) -> bool:
    return _family(observed) in _WORK


def _makes_batches(observed: Observed) -> bool:
    return _is_work(observed) or _family(observed) == owners.STORAGE.name


def _times(number: float) -> str:
    """Return how often, in words: `once`, `2.5 times`."""
    return "once" if 0.95 <= number < 1.05 else f"{units.digits(number, 2)} times"


def _duplicates(observed: Observed) -> Shown | None:
    """Look for several workers that have delivered the same first items.

    From the worker with the fewest observed items, since the others may have been observed for longer. It
    explains the share of those that another worker delivers too.
    """
    by_epoch: dict[tuple[int, int], list[set[int]]] = {}
    for (loader, epoch, _), items in observed.counts.items.items():
        by_epoch.setdefault((loader, epoch), []).append(items)
    copies, seen, shared = 1.0, 0, 0.0
    for streams in by_epoch.values():
        fewest = min(streams, key=len)
        if len(streams) > 1 and len(fewest) > 1:
            others = [fewest & stream for stream in streams if stream is not fewest]
            each = 1 + sum(map(len, others)) / len(fewest)
            here = (each, len(fewest), len(set().union(*others)) / len(fewest))
            copies, seen, shared = max((copies, seen, shared), here)
    if copies < mechanisms.DUPLICATES.at_least:
        return None
    figures = {"seen": units.count(seen), "copies": units.digits(copies, 2)}
    return Shown(mechanisms.DUPLICATES, shared, figures, fixes.SPLIT_STREAM)


def _iterator_per_step(observed: Observed) -> Shown | None:
    """Look for many iterators, each left after few of its batches: most of them were not needed."""
    timeline = observed.timeline
    passes = timeline.epochs.lengths
    samples, batch = _length(observed), _batch_size(observed)
    if len(passes) < 5 or samples is None or not batch or float(np.median(passes)) > _FEW_BATCHES:
        return None
    length, taken = -(-samples // batch), float(np.median(passes))
    if length < mechanisms.ITERATOR_PER_STEP.at_least * taken:
        return None
    if observed.owner not in (owners.STARTUP.name, owners.MAIN.name) and not _is_work(observed):
        return None
    figures = {"taken": units.digits(taken), "length": units.count(length)}
    return Shown(mechanisms.ITERATOR_PER_STEP, 1 - taken / length, figures, fixes.ONE_ITERATOR)


_FEW_BATCHES: Final = 4
"""Batches of an iterator above which it is left early for another reason: epochs that are cut short."""


def _length(observed: Observed) -> int | None:
    return observed.run.meta.loader(observed.facts.loader).samples or None


def _batch_size(observed: Observed) -> int | None:
    return observed.run.meta.loader(observed.facts.loader).batch_size or None


def _gil(observed: Observed) -> Shown | None:
    """Look for finished batches that have waited for a worker that made its next one in native code."""
    if not _is_work(observed):
        return None
    pickling, receiving = observed.lock_waits_ns()
    waits = pickling + receiving
    timeline = observed.timeline
    waited = int(timeline.wait_ns.sum())
    held = waits[waits > 0]
    if waited == 0 or len(held) < _FEWEST_HELD:
        return None
    hot = observed.hot
    by_name = int(receiving.sum()) > int(pickling.sum())
    figures = {
        "holder": f"{hot[0].function} ({hot[0].place})" if hot else owners.label_of(observed.owner),
        "waited": units.count(len(held)),
        "batches": units.count(len(waits)),
        "held_ns": units.duration(float(np.median(held))),
        "step": "to be received" if by_name else "to be pickled",
    }
    fix = fixes.CHEAPER_COLLATE if observed.owner == owners.COLLATE.name else fixes.CHEAPER_WORK
    also = (fixes.FILE_SYSTEM_SHARING,) if by_name else ()
    return Shown(mechanisms.GIL, min(1.0, int(held.sum()) / waited), figures, fix, also)


_FEWEST_HELD: Final = 5
"""Batches that have waited below which it is chance that a worker was in native code."""


def _gc(observed: Observed) -> Shown | None:
    """Look for collections that took most of the time in which batches were made.

    In which stage they ran is not recorded: the owner is taken to have its part of them.
    """
    spent, making = observed.total("gc_ns"), observed.making_ns
    if not spent or not making or not _is_work(observed):
        return None
    counts = observed.counts
    by_generation = {g: counts.starting(counters.part_of(counters.GC_NS, g)) for g in range(3)}
    generation = max(by_generation, key=by_generation.__getitem__)
    collections = counts.starting(counters.part_of(counters.GC_COUNT, generation))
    each = by_generation[generation] / collections if collections else None
    figures = {
        "collections": units.count(collections),
        "generation": str(generation),
        "collection_ns": units.duration(each),
    }
    return Shown(mechanisms.GC, min(1.0, spent / making), figures, fixes.GC_FREEZE)


def _threads(observed: Observed) -> Shown | None:
    """Look for workers that compute with pools of threads that together are many more than the cores."""
    counts, facts = observed.counts, observed.facts
    pools = {
        name.rpartition(".")[2]: counts.worker_level(name)
        for name in counts.levels
        if name.startswith(counters.POOL)
    }
    # Arrow's pool always exists; the threads of a pool that never ran are not there.
    alive = (counts.worker_level(counters.THREADS) or 0) - _OWN_THREADS
    sizes = {name: size for name, size in pools.items() if size and size > 1 and alive >= size - 1}
    if not sizes or not facts.cores or facts.workers == 0 or not _is_work(observed):
        return None
    library = max(sizes, key=lambda name: sizes[name] or 0)
    threads = sizes[library] or 0
    crowd = facts.workers * threads
    if threads < facts.cores or crowd < mechanisms.THREADS.at_least * facts.cores:
        return None
    if (runnable := _runnable(counts)) is not None and runnable <= facts.cores:
        return None
    helpers, own = observed.total("helper_cpu_ns") or 0, observed.total("cpu_ns") or 0
    used_ns = (observed.whole("cpu_ns") or 0) + (observed.whole("helper_cpu_ns") or 0)
    if helpers < _BUSY_HELPERS * own or used_ns < _FULL * facts.cores * observed.wall_ns:
        return None
    figures = {
        "workers": str(facts.workers),
        "threads": str(threads),
        "library": library,
        "cores": units.amount(facts.cores),
    }
    crowded = helpers + (observed.total("runq_ns") or 0)
    # Other work they slow by what they take and wait; of the cores that are lacking they want their part.
    explains = crowded / max(1, observed.making_ns)
    if observed.owner == owners.CPU_CONTENTION.name:
        explains = (crowd - max(facts.workers, facts.cores)) / (crowd - facts.cores)
    return Shown(mechanisms.THREADS, min(1.0, explains), figures, fixes.ONE_THREAD)


def _runnable(counts: CounterTotals) -> int | None:
    """Return how many threads of all workers ran or could run, at the fullest look; None if not read."""
    looks = counts.levels.get(counters.THREADS_RUNNABLE, {})
    workers = [value for worker, value in looks.items() if worker != MAIN_PROCESS]
    return sum(workers) if workers else None


_OWN_THREADS: Final = 3
"""Threads of every worker: its own, the queue's and the one that samples lines."""
_BUSY_HELPERS: Final = 0.1
"""Share of the CPU of the worker's own thread below which helpers are not a crowd."""


def _affinity(observed: Observed) -> Shown | None:
    """Look for workers that may run on fewer cores than the machine has.

    With all of its cores as many more workers would run at once. Of their work that explains the share which
    they would be quicker by; of the cores that are lacking, the share which they would have.
    """
    mask, cores = observed.counts.worker_level(counters.AFFINITY_CORES), observed.run.meta.machine.cpu_count
    workers = observed.facts.workers
    if not mask or not cores or not _is_work(observed) or workers <= mask:
        return None
    if cores < mechanisms.AFFINITY.at_least * mask:
        return None
    used_ns = (observed.whole("cpu_ns") or 0) + (observed.whole("helper_cpu_ns") or 0)
    if used_ns < _FULL * mask * observed.run_ns:
        return None
    figures = {
        "mask_cores": str(mask),
        "cores": units.amount(cores),
        "since": _bound_since(observed, mask),
    }
    at_once = min(workers, cores)
    lacking = workers - mask if observed.owner == owners.CPU_CONTENTION.name else at_once
    return Shown(mechanisms.AFFINITY, (at_once - mask) / lacking, figures, fixes.AFFINITY)


def _bound_since(observed: Observed, mask: int) -> str:
    """Return since when the workers are bound, as the end of a sentence; empty if that was not seen."""
    since = next((event.detail for event in read_events(observed.run) if event.kind == "bound"), None)
    if since is not None:
        return f" since {since}, or soon after"
    began_with = observed.run.meta.machine.usable_cores
    return ", as the program itself was from its start" if began_with and began_with <= mask else ""


_FULL: Final = 0.7
"""Share of the mask's cores below which their use shows that the mask is not what was lacking."""


def _reopened(observed: Observed) -> Shown | None:
    """Look for the same files opened again for the samples, if that takes the time.

    Files that hold one sample each are opened once an epoch, which no worker can avoid.
    """
    counts = observed.counts.of_workers or observed.counts.of_main
    opens, opened = counts[counters.REOPENED], counts[counters.OPENED]
    again, owner = observed.per_sample(counters.REOPENED), observed.owner_making_ns
    if again < 0.5 or not owner or not _is_work(observed):
        return None
    if opens < _AGAIN * max(1, observed.facts.epochs) * (opened - opens):
        return None
    spent = counts[counters.REPEATED_PARSE_NS]
    figures = {"opens": _times(again), "open_ns": units.duration(spent / opens)}
    return Shown(mechanisms.REOPENED, min(1.0, spent / owner), figures, fixes.KEEP_OPEN)


_AGAIN: Final = 4
"""Openings again for each first one, in each epoch, from which a file holds many samples."""


def _over_read(observed: Observed) -> Shown | None:
    """Look for rows decoded, or bytes read by calls, that are many times those of the samples."""
    if not _makes_batches(observed):
        return None
    rows, owner = observed.per_sample(counters.ROWS), observed.owner_making_ns
    counts = observed.counts.of_workers or observed.counts.of_main
    if rows >= mechanisms.OVER_READ.at_least and owner:
        decoding = min(1.0, counts[counters.ROWS_NS] / owner)
        figures = {"read": f"{units.count(round(rows))} rows", "verb": "decoded", "used": "each that is used"}
        return Shown(mechanisms.OVER_READ, decoding * (1 - 1 / rows), figures, fixes.SMALLER_CHUNKS)
    used, read = observed.total("bytes"), observed.counts.read_bytes
    members = counts[counters.MEMBER_BYTES]
    unpacked = counts[counters.SKIPPED_BYTES] + max(members, used or 0)
    if used and owner and unpacked >= mechanisms.OVER_READ.at_least * used:
        dropped_ns = counts[counters.MEMBERS_NS] * max(0.0, 1 - used / members) if members else 0.0
        figures = {
            "read": units.size(unpacked),
            "verb": "decompressed",
            "used": f"{units.size(used)} of samples",
        }
        explains = min(1.0, (counts[counters.SKIPPED_NS] + dropped_ns) / owner)
        return Shown(mechanisms.OVER_READ, explains, figures, fixes.SMALLER_CHUNKS)
    used = observed.whole("bytes")
    if _family(observed) != owners.STORAGE.name or not used or read < _MUCH_MORE * used + _MODULES_BYTES:
        return None
    figures = {"read": units.size(read), "verb": "read from files", "used": f"{units.size(used)} of samples"}
    return Shown(mechanisms.OVER_READ, 1 - used / read, figures, fixes.SMALLER_CHUNKS)


_MUCH_MORE: Final = 4.0
_MODULES_BYTES: Final = 64 << 20
"""Bytes read by calls for other ends: modules that are imported late, indices from the queue."""


def _over_decode(observed: Observed) -> Shown | None:
    """Look for decoding of what is dropped: frames before one, whole pictures, most of their pixels."""
    if _family(observed) not in (owners.DECODE.name, owners.CPU_CONTENTION.name):
        return None
    return _dropped_frames(observed) or _dropped_pictures(observed) or _dropped_pixels(observed)


def _dropped_frames(observed: Observed) -> Shown | None:
    """Look for videos in which many frames are decoded for each one that is requested."""
    frames, pictures = (observed.counts.starting(name) for name in (counters.FRAMES, counters.PICTURES))
    if not pictures or frames < mechanisms.OVER_DECODE.at_least * pictures:
        return None
    ratio = frames / pictures
    figures = {"decoded": f"{units.digits(ratio, 2)} frames", "used": "each that is asked for"}
    return Shown(mechanisms.OVER_DECODE, 1 - 1 / ratio, figures, fixes.CHEAPER_DECODE)


def _dropped_pictures(observed: Observed) -> Shown | None:
    """Look for several pictures decoded per sample, with more pixels than the samples have bytes.

    A pixel that is kept takes a byte at least: the true excess is at least what is counted here.
    """
    pixels, pictures = (observed.counts.starting(name) for name in (counters.PIXELS, counters.PICTURES))
    kept, least = observed.total("bytes"), mechanisms.OVER_DECODE.at_least
    if not kept or pictures < least * observed.samples or pixels < least * kept:
        return None
    figures = {
        "decoded": f"{units.digits(pictures / observed.samples, 2)} pictures",
        "used": f"each sample, with {units.digits(pixels / kept, 2)} times as many pixels as it has bytes",
    }
    return Shown(mechanisms.OVER_DECODE, 1 - kept / pixels, figures, fixes.CHEAPER_DECODE)


def _dropped_pixels(observed: Observed) -> Shown | None:
    """Look for pictures decoded whole, with most of their pixels dropped at once."""
    pixels, left, pictures, shrunk = (
        observed.counts.starting(name)
        for name in (counters.PIXELS, counters.PIXELS_LEFT, counters.PICTURES, counters.SHRUNK_PICTURES)
    )
    if not pictures or left <= 0:
        return None
    shrunk = min(shrunk or pictures, pictures)
    decoded, used = pixels / pictures, left / shrunk
    ratio = decoded / used
    if ratio < mechanisms.OVER_DECODE.at_least or decoded < SMALL_PICTURE:
        return None
    figures = {
        "decoded": f"{units.digits(decoded / 1e6, 2)} megapixels",
        "used": f"{units.digits(used / 1e6, 2)} that are used",
    }
    explains = shrunk / pictures * (1 - 1 / ratio)
    return Shown(mechanisms.OVER_DECODE, explains, figures, fixes.CHEAPER_DECODE)


def _read_ahead(observed: Observed) -> Shown | None:
    """Look for a device that delivered much more than was asked for, through mapped files or by calls."""
    if _family(observed) != owners.STORAGE.name and observed.owner != owners.BLOCKED.name:
        return None
    device, used = observed.whole("device_bytes"), observed.whole("bytes")
    asked = max(used or 0, observed.counts.read_bytes)
    if not device or not asked or device < mechanisms.READ_AHEAD.at_least * asked:
        return None
    figures = {"device_bytes": units.size(device), "asked_bytes": units.size(asked)}
    return Shown(mechanisms.READ_AHEAD, 1 - asked / device, figures, fixes.NO_READ_AHEAD)


def _per_sample(observed: Observed) -> Shown | None:
    """Look for samples of microseconds, by the hundred: calls and stacking cost more than the work."""
    if observed.owner not in (owners.COLLATE.name, *owners.CODE) or not observed.batches:
        return None
    samples = observed.samples / observed.batches
    if samples < mechanisms.PER_SAMPLE.at_least:
        return None
    each = (observed.total("cpu_ns") or observed.making_ns) / observed.samples * observed.probing_factor
    if each > TINY_SAMPLE_NS:
        return None
    figures = {"sample_ns": units.duration(each), "samples": units.count(round(samples))}
    return Shown(mechanisms.PER_SAMPLE, 1.0, figures, fixes.BATCH_FETCH)


def _sampler(observed: Observed) -> Shown | None:
    """Look for a main process whose time went into drawing indices."""
    spent = {name: ns for name, ns in observed.counts.of_main.items() if name.startswith(counters.SAMPLER_NS)}
    if not spent or observed.owner not in (owners.MAIN.name, owners.STARTUP.name, owners.TRANSFER.name):
        return None
    name = max(spent, key=spent.__getitem__)
    epochs = max(1, observed.facts.epochs)
    figures = {"sampler": name.rpartition(".")[2], "draw_ns": units.duration(spent[name] / epochs)}
    return Shown(
        mechanisms.SAMPLER, min(1.0, spent[name] / max(1, observed.owner_ns)), figures, fixes.CHEAPER_SAMPLER
    )


def _start_up(observed: Observed) -> Shown | None:
    """Look for a start of workers that takes long, for a part of it that is seen."""
    if observed.owner != owners.STARTUP.name:
        return None
    counts, facts = observed.counts, observed.facts
    starts = max(1, facts.epochs if not facts.persistent else 1)
    workers = max(1, facts.workers)
    process = counts.of_workers[counters.STARTUP_PROCESS_NS] / (workers * starts)
    init = counts.of_workers[counters.STARTUP_INIT_FN_NS] / (workers * starts)
    if not process + init:
        return None
    closed = 0.0 if facts.persistent else _mean_closing_ns(observed)
    pickled = counts.of_main[counters.STARTUP_WRITTEN_BYTES] / (workers * starts)
    made = counts.of_main[counters.STARTUP_MAKE_NS] / (workers * starts)
    pickles = not _forks(observed) and made >= SLOW_PICKLING * process  # the main process starts one by one
    if closed > max(process, init):
        part, fix = "the shutdown at the end of an epoch", fixes.PERSISTENT_WORKERS
    elif init > process:
        part, fix = "worker_init_fn", fixes.PERSISTENT_WORKERS
    elif pickled >= LARGE_DATASET_BYTES or (pickles and pickled):
        part, fix = f"pickling the data set to it ({units.size(pickled)})", fixes.LIGHTER_DATASET
    else:
        imports = counts.of_workers[counters.STARTUP_IMPORTS_NS] / (workers * starts)
        imports_most = not _forks(observed) and imports >= MOSTLY * process
        part = "imports and unpickling in its process" if imports_most else "the start of its process"
        fix = fixes.PERSISTENT_WORKERS if starts > 1 else fixes.FORK
    if (fix is fixes.PERSISTENT_WORKERS and starts == 1) or (fix is fixes.FORK and _forks(observed)):
        return None  # nothing is left to be done about it
    whole = process + init + closed
    figures = {"start_ns": units.duration(whole), "part": part}
    explains = max(process, init, closed) / whole
    if starts > 1:  # one argument, and none of the starts that the verdict counts is left
        also = (fix,) if fix is not fixes.PERSISTENT_WORKERS else ()
        return Shown(mechanisms.START_UP, explains, figures, fixes.PERSISTENT_WORKERS, also)
    return Shown(mechanisms.START_UP, explains, figures, fix)


def _mean_closing_ns(observed: Observed) -> float:
    """Return how long the loop waited for its workers to end, in the passes that went to the end."""
    spans = [each.closed_ns for each in observed.timeline.passes if each.closed_ns is not None]
    return sum(end - begin for begin, end in spans) / len(spans) if spans else 0.0


def _forks(observed: Observed) -> bool:
    return observed.facts.start_method == "fork"


def loses_cache(observed: Observed) -> bool:
    """Return True if workers ended with the epoch and lost what their data set had kept."""
    return _lost_cache(observed) is not None


def _lost_cache(observed: Observed) -> Shown | None:
    """Look for workers that grew in each epoch, ended with it, and whose samples cost as much in the next.

    They grow by what they have allocated and kept since the end of their first batch; if that is not known,
    by their resident memory, with its buffers.
    """
    facts, costs = observed.facts, observed.cost_by_epoch()
    if facts.workers == 0 or facts.persistent or len(costs) < 2 or not _makes_batches(observed):
        return None
    first, *later = (cost for _, cost in sorted(costs.items()))
    if np.median(later) < mechanisms.LOST_CACHE.at_least * first:
        return None
    lives, counts = len(costs) * facts.workers, observed.counts
    made = (observed.whole("bytes") or 0) / lives
    least, looks = _CACHE_RESIDENT_BYTES, counts.memory
    if counts.allocated:
        least, looks = _CACHE_BYTES, counts.allocated
        made *= max(0.0, 1 - lives / max(1, observed.all_batches))
    grown = [each[-1] - each[0] for (_, _, worker), each in looks.items() if worker >= 0 and len(each) > 1]
    if not grown or float(np.median(grown)) < max(least, _KEPT * made):
        return None
    figures = {"grown_bytes": units.size(float(np.median(grown)))}
    return Shown(mechanisms.LOST_CACHE, 1.0, figures, fixes.PERSISTENT_WORKERS)


_CACHE_BYTES: Final = 1_000_000
"""Growth after the first batch below which nothing worth a word was kept: decoding alone kept 0.1 MB."""
_CACHE_RESIDENT_BYTES: Final = 4_000_000
_KEPT: Final = 0.3
"""Share of the bytes that it made below which a worker has not kept a cache worth mentioning."""


def _connections(observed: Observed) -> Shown | None:
    """Look for new connections for the samples, whose making and first answer took most of the time.

    The first answer counts as far as it is slower than later answers on connections that were kept; as a
    whole if there were none, as for a server that greets or that prepares itself for each connection.
    """
    counts = observed.counts.of_workers or observed.counts.of_main
    made = counts[counters.CONNECTIONS]
    if not _makes_batches(observed) or not observed.making_ns:
        return None
    if observed.per_sample(counters.CONNECTIONS) < mechanisms.CONNECTIONS.at_least:
        return None
    handshakes_ns = counts[counters.CONNECT_NS] + counts[counters.HANDSHAKE_NS]
    later = counts[counters.LATER_ANSWERS]
    usual_ns = counts[counters.LATER_ANSWER_NS] / later if later else 0.0
    first_ns = counts[counters.FIRST_ANSWER_NS] - usual_ns * counts[counters.FIRST_ANSWERS]
    spent = handshakes_ns + max(0.0, first_ns)
    figures = {
        "made": units.count(made),
        "samples": units.count(observed.samples),
        "connect_ns": units.duration(handshakes_ns / made),
        "first_ns": units.duration(max(0.0, first_ns) / made),
    }
    return Shown(mechanisms.CONNECTIONS, min(1.0, spent / observed.making_ns), figures, fixes.KEEP_OPEN)


def _host_body(observed: Observed) -> Shown | None:
    """Look for a training thread whose time went into the loop's own Python.

    Lines are of the probed steps alone: their share of the body is taken to be that of all.
    """
    share = observed.lines.host_share()
    if observed.owner != owners.MAIN.name or not share:
        return None
    figures = {"step_share": units.percent(share)}
    explains = min(1.0, share * observed.body_ns / max(1, observed.owner_ns))
    return Shown(mechanisms.HOST_BODY, explains, figures, fixes.LOOP)


def _main_gil(observed: Observed) -> Shown | None:
    """Look for a training thread, or one that pins, that waited for the GIL while another thread ran."""
    is_work = _is_work(observed)
    whole_ns = observed.owner_making_ns if is_work else observed.owner_ns
    counted = observed.counts.of_main if is_work else of_main_in(observed.run, observed.window, counters.GIL)
    by_thread = [
        lock_waits_in(counted, {stage: observed.times_seen(stage) for stage in stages})
        for stages in _stages_in_main(observed)
    ]
    waits = max(by_thread, key=lambda each: each.ns, default=None)
    if waits is None or waits.holder is None or not whole_ns or waits.ns < LEAST_GIL * observed.wall_ns:
        return None
    explains, pins = min(1.0, waits.ns / whole_ns), waits is not by_thread[0]
    line = waits.holder.line
    figures = {
        "who": "The thread that pins batches" if pins else "The training thread",
        "waited_share": units.percent(explains),
        "holder": waits.holder.name,
        "place": ""
        if line is None
        else f" ({observed.lines.shown(line.file)}:{line.line} in {line.function})",
    }
    # what the pin thread waits for is the training thread, which cannot go elsewhere
    return Shown(mechanisms.MAIN_GIL, explains, figures, fixes.LOOP if pins else fixes.OWN_PROCESS)


def _stages_in_main(observed: Observed) -> tuple[tuple[str, ...], ...]:
    """Return the stages of the main process that the blamed owner's time passes in; none if in workers.

    The training thread's come first, then those of the thread that pins.
    """
    if observed.owner == owners.MAIN.name:
        return ((MAIN,),)
    if _family(observed) in (owners.TRANSFER.name, owners.PIN.name):
        return ((WAIT,), (counters.PIN_STAGE,))
    if observed.facts.workers > 0 or not _is_work(observed):
        return ()
    own = tuple(observed.stages_ns) if observed.owner == owners.BLOCKED.name else (stage_of(observed.owner),)
    return (own,)


_LOOKS: Final[tuple[Callable[[Observed], Shown | None], ...]] = (
    _duplicates,
    _iterator_per_step,
    _lost_cache,
    _gc,
    _reopened,
    _over_read,
    _over_decode,
    _connections,
    _read_ahead,
    _affinity,
    _threads,
    _per_sample,
    _sampler,
    _start_up,
    _main_gil,
    _host_body,
    _gil,
)
"""The looks, the more special first: of those that explain as much, the first is named."""
_OF_CORES: Final = (_affinity, _threads)
