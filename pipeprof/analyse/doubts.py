"""Reasons to trust a verdict less, and those that forbid one."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from pipeprof.analyse.causes import CLOSE, HEALTHY
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.hazards import hazards_of
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.rates import stall_interval
from pipeprof.analyse.resources.operators import sentence
from pipeprof.analyse.verdict import (
    ENOUGH,
    MIN_STEPS,
    MIN_WALL_NS,
    TOO_FEW_STEPS,
    TOO_SHORT,
    WIDE_INTERVAL,
    Doubt,
)
from pipeprof.devices import is_in_memory
from pipeprof.record.reader import Run
from pipeprof.timeline import NOT_OBSERVED, Ints
from pipeprof.units import duration, percent, plural
from pipeprof.units import interval as interval_of
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.bands import BANDS, band_of

FROM_DEVICE: Final = 0.95
"""Least share of its bytes that a cold run gets from the device. A truly cold one gets more than all of them:
whole pages, what is read ahead, and the file system's own blocks count too."""
BACKWARDS: Final = 0.01
"""Share of steps with time running backwards above which there is clock trouble."""
MAPPED: Final = 0.5
"""Least share of what the unnamed code owns from which the disk, whose files it maps, may be the larger."""
MAPPED_CPU_NS: Final = 60_000
"""CPU time for each major page fault up to which most of it may be the kernel's: pages of a mapped file that
were touched one by one took 28 to 36 µs each (two slow virtual cores, 1 December 2026). Where faults cost
less, code that does more than them is doubted too."""
LONGEST_ERROR: Final = 160
"""Characters of the error of a failed run."""
_FROM_WORKER: Final = "Original Traceback (most recent call last):"
"""Line of torch's, between its own first line and the text of the error in a worker."""


def doubts_about(run: Run, attribution: Attribution, facts: Facts) -> tuple[Doubt, ...]:
    """List every reason to doubt the verdict, the decisive ones first."""
    doubts = [
        *_too_few(run, attribution),
        *_clock(attribution),
        *_record(attribution),
        *_from_cache(run, facts),
        *_later_epochs(facts),
        *_storage_unseen(attribution, facts),
        *_emulator(run, facts),
        *_mapped(attribution, facts),
        *_unknown(run, attribution, facts),
        *_wide(attribution),
        *_close(attribution),
        *_clock_steps(attribution),
        *_stood_still(attribution),
        *hazards_of(run, attribution),
        *_too_brief(attribution),
        *_own_cost(run, attribution),
        *doubts_about_record(run),
    ]
    return tuple(sorted(doubts, key=lambda doubt: not doubt.decisive))


def doubts_about_record(run: Run) -> tuple[Doubt, ...]:
    """List the reasons to doubt the record, whether or not a step was measured."""
    return (*_status(run), *_unrecorded(run))


def _too_few(run: Run, attribution: Attribution) -> list[Doubt]:
    steps = _steps(attribution)
    if steps >= MIN_STEPS:
        return []
    problem = f"only {plural(steps, 'step')} {'was' if steps == 1 else 'were'} measured"
    problem += " after warm-up" if run.meta.warmup_steps else ""
    return [Doubt(TOO_FEW_STEPS, problem, ENOUGH, decisive=True)]


def _too_brief(attribution: Attribution) -> list[Doubt]:
    """Report enough steps in too short a time: a pause of the machine would decide the verdict."""
    wall, steps = attribution.window.wall_ns, _steps(attribution)
    if wall >= MIN_WALL_NS or steps < MIN_STEPS:
        return []
    problem = f"all {plural(steps, 'measured step')} took {duration(wall)} together"
    return [Doubt(TOO_SHORT, problem, ENOUGH, decisive=True)]


def _steps(attribution: Attribution) -> int:
    return int(attribution.timeline.measured.sum())


def _own_cost(run: Run, attribution: Attribution) -> list[Doubt]:
    """Report a loop whose own Python is the largest part, and no longer than pipeprof's own work in it."""
    idle = {k: ns for k, ns in attribution.whole.ledger_ns.items() if k != owners.ACCELERATOR.name}
    main, cost = idle.get(owners.MAIN.name, 0), run.meta.overhead
    each, own = main / max(1, _steps(attribution)), (cost.flush_ns or 0.0) + (cost.batch_ns or 0.0)
    if main < HEALTHY * attribution.window.wall_ns or main < max(idle.values(), default=0) or each > own:
        return []
    problem = (
        f"the loop's own Python takes {duration(each)} a step, no longer than pipeprof's own work, which is "
        f"{duration(own)}"
    )
    return [Doubt("own-cost", problem, "give it steps that take longer, as a real model's do", decisive=True)]


def _stood_still(attribution: Attribution) -> list[Doubt]:
    starts, ends = attribution.timeline.standstills
    if len(starts) == 0:
        return []
    stood = duration(int((ends - starts).sum()))
    problem = f"the process or a worker stood still for {stood}, which is left out"
    return [Doubt("suspended", problem, "let it run without a stop, if what came just after matters")]


def _clock_steps(attribution: Attribution) -> list[Doubt]:
    """Report that the wall clock jumped: the tables' own clock did not, and all durations are valid."""
    events = attribution.timeline.clock_events
    slept_ns = sum(_ns(event.detail) for event in events if event.kind == "slept")
    jumps = [_ns(event.detail) for event in events if event.kind == "clock_set"]
    doubts = []
    if slept_ns:
        problem = f"the machine slept for {duration(slept_ns)} in the run; no clock of the run counts that"
        doubts.append(Doubt("slept", problem, "run it again, if what came just after matters"))
    if jumps:
        by = ", ".join(f"{'+' if jump > 0 else '-'}{duration(abs(jump))}" for jump in jumps[:3])
        problem = f"the machine's clock was set in the run ({by}): times of day and across machines are off"
        doubts.append(Doubt("clock-set", problem, "durations are right; let the clock be, to compare ranks"))
    return doubts


def _ns(detail: str | None) -> int:
    """Return the number in an event's detail; 0 if it has none."""
    text = detail or ""
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 20 else 0


def _clock(attribution: Attribution) -> list[Doubt]:
    """Report events of one batch in an order that cannot be."""
    t = attribution.timeline
    pairs = (
        (t.request_ns, t.take_ns),
        (t.start_ns, t.finish_ns),
        (t.finish_ns, t.take_ns),
        (t.compute_start_ns, t.compute_end_ns),
    )
    share = max(_backwards(before, after) for before, after in pairs)
    if share <= BACKWARDS:
        return []
    problem = f"in {percent(share)} of the steps time ran backwards: the processes' clocks disagree"
    remedy = "run main process and workers on one machine, without a change of its clock"
    return [Doubt("clock", problem, remedy, decisive=True)]


def _record(attribution: Attribution) -> list[Doubt]:
    """Report events that do not fit the steps."""
    passes = attribution.timeline.passes
    wrong = sum(not loop_pass.fits for loop_pass in passes)
    if not wrong:
        return []
    problem = (
        f"the record of workers starting overlaps steps of their loader in {wrong} of {len(passes)} passes, "
        "and is not counted there"
    )
    return [Doubt("record", problem, "record the run again with this version of pipeprof")]


def _backwards(before: Ints, after: Ints) -> float:
    seen = (before != NOT_OBSERVED) & (after != NOT_OBSERVED)
    return float((before[seen] > after[seen]).mean()) if seen.any() else 0.0


def _from_cache(run: Run, facts: Facts) -> list[Doubt]:
    real = facts.tier is not None and not is_in_memory(facts.tier) and not facts.emulated_storage
    if not real or facts.cache != "cold":
        return []
    problem = _warm_before(run) or _warm_meanwhile(facts)
    if problem is None:
        return []
    remedy = "let nothing else read the data and no epoch come round again, or say cache: warm"
    return [Doubt("page-cache", f"the run was to be cold, and {problem}", remedy, decisive=True)]


def _later_epochs(facts: Facts) -> list[Doubt]:
    """Report a first epoch that later ones will not be like."""
    if facts.page_cache is None or not facts.page_cache.changes or facts.cache == "cold":
        return []
    remedy = "measure a second epoch too"
    if facts.page_cache.later_share > facts.page_cache.memory_share:
        remedy += ", or ask for it: pipeprof predict RUN --set storage.tier=ram"
    return [Doubt("first-epoch", facts.page_cache.problem, remedy)]


def _warm_before(run: Run) -> str | None:
    """Say what was in memory before: a network file system shows nothing else, and nothing counts its
    bytes."""
    share = run.meta.storage.resident_share_before
    if share is None or share <= 1 - FROM_DEVICE:
        return None
    return f"{percent(share)} of its files were in memory when it began"


def _warm_meanwhile(facts: Facts) -> str | None:
    if facts.device_bytes is None or not facts.read_bytes:
        return None
    share = facts.device_bytes / facts.read_bytes
    if share >= FROM_DEVICE * (1 - _may_stay(facts)):
        return None
    return f"only {percent(share)} of its bytes came from the device"


def _may_stay(facts: Facts) -> float:
    """Return the share of its bytes that a run may find in memory as `storage.cache_bytes` lets them stay."""
    if not facts.cache_bytes:
        return 0.0
    return min(1.0, facts.cache_bytes / facts.data_bytes) if facts.data_bytes else 1.0


def _storage_unseen(attribution: Attribution, facts: Facts) -> list[Doubt]:
    """Report workers that were blocked for long although neither their reads nor what they waited for could
    be seen."""
    ledger = attribution.whole
    blocked = ledger.ledger_ns.get(owners.BLOCKED.name, 0)
    seen = facts.device_bytes is not None or facts.reads is not None or facts.states
    if seen or blocked < max(1, ledger.stall_ns) / 2 or blocked < 0.05 * ledger.window.wall_ns:
        return []
    problem = "workers were blocked, and this platform does not tell whether on storage (mmap, network)"
    remedy = "mark the reads with pipeprof.stage(), or run on Linux with /proc"
    return [Doubt("storage-not-observed", problem, remedy, decisive=True)]


def _emulator(run: Run, facts: Facts) -> list[Doubt]:
    """Report an emulated device slower than its model, which makes its part of the stall too large."""
    emulator = run.meta.storage.emulator
    if not facts.emulated_storage or not emulator.limited_by_emulator:
        return []
    lost_ns, served_ns = emulator.lost_ns or 0, emulator.served_ns or 0
    lost = lost_ns / max(1, lost_ns + served_ns)
    problem = (
        f"the emulated {run.meta.storage.name or 'device'} was slower than its model: {percent(lost)} "
        "of the time of its reads went into the emulation itself, or into the files below it"
    )
    remedy = "read larger pieces, with fewer workers, from files in memory"
    return [Doubt("emulator-limited", problem, remedy)]


def _mapped(attribution: Attribution, facts: Facts) -> list[Doubt]:
    """Report unnamed code that takes its bytes through memory maps: the kernel's work for a page fault counts
    as the code's own CPU time, so that on a fast disk, or on slow cores, neither can be called the larger."""
    if facts.reads or not facts.device_bytes:
        return []
    stalls = {k: v for k, v in attribution.whole.ledger_ns.items() if owners.is_stall(k)}
    code = max(stalls.get(owner, 0) for owner in owners.CODE)
    storage = stalls.get(owners.STORAGE.name, 0)
    if not stalls or max(stalls.values()) != code:
        return []
    mostly_faults = facts.cpu_per_fault_ns is not None and facts.cpu_per_fault_ns <= MAPPED_CPU_NS
    if storage < MAPPED * code and not mostly_faults:
        return []
    problem = "the data set reads through a memory map, whose page faults are partly counted as CPU time"
    remedy = "mark the reads with pipeprof.stage(), or read the files to tell the disk from the code"
    return [Doubt("mapped-reads", problem, remedy, decisive=True)]


def _unknown(run: Run, attribution: Attribution, facts: Facts) -> list[Doubt]:
    ledger = attribution.whole
    unknown = ledger.ledger_ns.get(owners.UNKNOWN.name, 0)
    if unknown < 0.05 * ledger.window.wall_ns or unknown < max(1, ledger.stall_ns) / 2:
        return []
    iterables = [each.name for each in run.meta.loaders if each.kind == "iterable"]
    if not iterables:
        problem = "most of the stall fell into time in which nothing was observed"
        return [Doubt("unknown-owner", problem, "profile the loader that is waited for", decisive=True)]
    share = f"{percent(unknown / ledger.window.wall_ns)} of the time"
    waited = f"the loop waited {share} for {', '.join(dict.fromkeys(iterables))}"
    if facts.slowest_operator is not None:
        problem = f"{waited}; by its own statistics {sentence(facts.slowest_operator)}"
        remedy = "give that operator more CPUs or actors, or make it cheaper, and measure again"
    else:
        problem = f"{waited}, whose inside is not observed"
        remedy = "iterate it in the workers of a DataLoader, and profile that one"
    return [Doubt("inside-not-observed", problem, remedy, decisive=True)]


def _wide(attribution: Attribution) -> list[Doubt]:
    """Report an interval of the stall share that is wider than the band that it lies in, and leaves it."""
    interval = stall_interval(attribution)
    share = attribution.whole.stall_share or 0.0
    if interval is None:
        return []
    low, high = interval
    bounds = (0.0, *(band.below for band in BANDS))
    width = next((upper - lower for lower, upper in pairwise(bounds) if share < upper), 1.0)
    if high - low <= width or band_of(low) == band_of(high):
        return []
    problem = f"waiting may be anywhere within {interval_of(interval)} of the time"
    # If the loop or copies kept the accelerator idle for longer, the verdict does not hang on the stall.
    decisive = _idle_without_stall(attribution) <= attribution.whole.stall_ns
    return [Doubt(WIDE_INTERVAL, problem, "measure more steps, such as more epochs", decisive)]


_IDLE: Final = tuple(
    owner.name
    for owner in owners.OWNERS
    if not owner.is_stall and not owner.takes_name and owner is not owners.ACCELERATOR
)
"""Owners of time in which the accelerator was idle and lacked no batch."""


def _idle_without_stall(attribution: Attribution) -> int:
    return sum(attribution.whole.ledger_ns.get(owner, 0) for owner in _IDLE)


def _close(attribution: Attribution) -> list[Doubt]:
    """Report two owners that share the blame."""
    ledger = attribution.whole
    stalls = {owner: ns for owner, ns in ledger.ledger_ns.items() if owners.is_stall(owner)}
    if len(stalls) < 2 or ledger.stall_ns < 0.05 * ledger.window.wall_ns:
        return []
    first, second = sorted(stalls, key=stalls.__getitem__, reverse=True)[:2]
    if stalls[second] < CLOSE * stalls[first]:
        return []
    names = [owners.label_of(owner) for owner in (second, first)]
    problem = f"{names[0]} took nearly as much of the waiting as {names[1]}"
    return [Doubt("two-causes", problem, "after one fix the other cause remains")]


def _status(run: Run) -> list[Doubt]:
    if run.status in ("complete", "running"):
        return []
    what = {"failed": "the run failed", "interrupted": "the run was interrupted"}.get(
        run.status, "the record breaks off"
    )
    why = f" ({error_line(run.meta.error)})" if run.meta.error else ""
    return [Doubt("torn", f"{what}{why}: its end is missing", "run it again to its end")]


def error_line(error: str) -> str:
    """Return one line of an error: its first, or of one that torch has brought from a worker, the last."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [error]
    return lines[-1 if _FROM_WORKER in error else 0][:LONGEST_ERROR]


def _unrecorded(run: Run) -> list[Doubt]:
    if run.meta.unrecorded is None:
        return []
    problem = f"the record ends before the run does: {run.meta.unrecorded}"
    return [Doubt("record-cut", problem, "free some space or choose another --out, and run again")]
