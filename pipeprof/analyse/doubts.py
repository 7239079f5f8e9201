"""Reasons to trust a verdict less, and those that forbid one (DESIGN §5)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from pipeprof.analyse.attribution import NOT_STALL, Attribution
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.rates import stall_interval
from pipeprof.analyse.verdict import BANDS, MIN_STEPS, Doubt, band_of
from pipeprof.pipeline import NOT_OBSERVED, Ints
from pipeprof.trace import Run

FROM_DEVICE: Final = 0.95
"""A cold run gets at least this share of its bytes from the device. An honest one gets more than all of them:
whole pages, what is read ahead, and the file system's own blocks count too."""
BACKWARDS: Final = 0.01
"""More than this share of steps with time running backwards is clock trouble."""
CLOSE: Final = 0.8
MAPPED: Final = 0.5
"""A disk that owns at least this much beside the unnamed code that maps its files may be the larger."""


def doubts_about(run: Run, found: Attribution, facts: Facts) -> tuple[Doubt, ...]:
    """Everything that speaks against taking the verdict at its word, the decisive first."""
    doubts = [
        *_too_short(found),
        *_clock(found),
        *_from_cache(run, facts),
        *_storage_unseen(found, facts),
        *_emulator(run, facts),
        *_mapped(found, facts),
        *_unknown(run, found),
        *_wide(found),
        *_close(found),
        *_status(run),
    ]
    return tuple(sorted(doubts, key=lambda doubt: not doubt.decisive))


def _too_short(found: Attribution) -> list[Doubt]:
    steps = int((~found.timeline.warmup).sum())
    if steps >= MIN_STEPS:
        return []
    problem = f"only {steps} steps were measured after warm-up"
    return [Doubt("too-few-steps", problem, f"measure at least {MIN_STEPS} steps", decisive=True)]


def _clock(found: Attribution) -> list[Doubt]:
    """Events of one batch in an order that cannot be."""
    t = found.timeline
    pairs = (
        (t.request_ns, t.take_ns),
        (t.start_ns, t.finish_ns),
        (t.finish_ns, t.take_ns),
        (t.compute_start_ns, t.compute_end_ns),
    )
    share = max(_backwards(before, after) for before, after in pairs)
    if share <= BACKWARDS:
        return []
    problem = f"in {100 * share:.0f} % of the steps time ran backwards: the processes' clocks disagree"
    remedy = "run main process and workers on one machine, without a change of its clock"
    return [Doubt("clock", problem, remedy, decisive=True)]


def _backwards(before: Ints, after: Ints) -> float:
    seen = (before != NOT_OBSERVED) & (after != NOT_OBSERVED)
    return float((before[seen] > after[seen]).mean()) if seen.any() else 0.0


def _from_cache(run: Run, facts: Facts) -> list[Doubt]:
    real = facts.tier not in ("ram", "pinned", None) and not facts.emulated_storage
    if not real or facts.cache != "cold":
        return []
    problem = _warm_before(run) or _warm_meanwhile(facts)
    if problem is None:
        return []
    remedy = "let nothing else read the data and no epoch come round again, or say cache: warm"
    return [Doubt("page-cache", f"the run was to be cold, and {problem}", remedy, decisive=True)]


def _warm_before(run: Run) -> str | None:
    """All that a network file system lets see: nothing counts the bytes that come from there."""
    share = (run.meta.get("storage") or {}).get("resident_share_before")
    if share is None or share <= 1 - FROM_DEVICE:
        return None
    return f"{100 * share:.0f} % of its files were in memory when it began"


def _warm_meanwhile(facts: Facts) -> str | None:
    if facts.device_bytes is None or not facts.read_bytes:
        return None
    share = facts.device_bytes / facts.read_bytes
    if share >= FROM_DEVICE * (1 - _may_stay(facts)):
        return None
    return f"only {100 * share:.0f} % of its bytes came from the device"


def _may_stay(facts: Facts) -> float:
    """The share of its bytes that a run may find in memory because `storage.cache_bytes` lets them stay."""
    if not facts.cache_bytes:
        return 0.0
    return min(1.0, facts.cache_bytes / facts.data_bytes) if facts.data_bytes else 1.0


def _storage_unseen(found: Attribution, facts: Facts) -> list[Doubt]:
    """Workers blocked for long, and neither their reads nor what they waited for could be seen."""
    ledger = found.whole
    blocked = ledger.ledger_ns.get("blocked", 0)
    seen = facts.device_bytes is not None or facts.reads is not None or facts.states
    if seen or blocked < max(1, ledger.stall_ns) / 2 or blocked < 0.05 * ledger.window.wall_ns:
        return []
    problem = "workers were blocked, and this platform does not tell whether on storage (mmap, network)"
    remedy = "mark the reads with pipeprof.stage(), or run on Linux with /proc"
    return [Doubt("storage-not-observed", problem, remedy, decisive=True)]


def _emulator(run: Run, facts: Facts) -> list[Doubt]:
    """The emulated device was slower than its model, so that its part of the stall is too large."""
    storage = run.meta.get("storage") or {}
    told = storage.get("emulator") or {}
    if not facts.emulated_storage or not told.get("limited_by_emulator"):
        return []
    lost = told["lost_ns"] / max(1, told["lost_ns"] + told["served_ns"])
    problem = (
        f"the emulated {storage.get('name')} was slower than its model: {100 * lost:.0f} % of the time of "
        "its reads went into the emulation itself, or into the files below it"
    )
    remedy = "read larger pieces, with fewer workers, from files in memory"
    return [Doubt("emulator-limited", problem, remedy)]


def _mapped(found: Attribution, facts: Facts) -> list[Doubt]:
    """Unnamed code that takes its bytes through memory maps: the kernel's work for a page fault counts as
    the code's own CPU time, so that on a fast disk neither can be called the larger."""
    if facts.reads or not facts.device_bytes:
        return []
    stalls = {k: v for k, v in found.whole.ledger_ns.items() if k not in NOT_STALL}
    code, storage = stalls.get("stage:getitem", 0), stalls.get("storage", 0)
    if not stalls or max(stalls.values()) != code or storage < MAPPED * code:
        return []
    problem = "__getitem__ reads through a memory map, whose page faults are partly counted as its CPU time"
    remedy = "mark the reads with pipeprof.stage(), or read the files to tell the disk from the code"
    return [Doubt("mapped-reads", problem, remedy, decisive=True)]


def _unknown(run: Run, found: Attribution) -> list[Doubt]:
    ledger = found.whole
    unknown = ledger.ledger_ns.get("unknown", 0)
    if unknown < 0.05 * ledger.window.wall_ns or unknown < max(1, ledger.stall_ns) / 2:
        return []
    iterables = [str(one["name"]) for one in run.meta.get("loaders") or [] if one.get("kind") == "iterable"]
    if not iterables:
        problem = "most of the stall fell into time in which nothing was observed"
        return [Doubt("unknown-owner", problem, "profile the loader that is waited for", decisive=True)]
    share = f"{100 * unknown / ledger.window.wall_ns:.0f} % of the time"
    problem = f"the loop waited {share} for {', '.join(iterables)}, whose inside is not observed"
    remedy = "iterate it in the workers of a DataLoader, and profile that one"
    return [Doubt("inside-not-observed", problem, remedy, decisive=True)]


def _wide(found: Attribution) -> list[Doubt]:
    """The interval of the stall share is wider than the band that it lies in, and leaves it."""
    interval = stall_interval(found)
    share = found.whole.stall_ns / max(1, found.window.wall_ns)
    if interval is None:
        return []
    low, high = interval
    bounds = (0.0, *(bound for bound, _ in BANDS), 1.0)
    width = next((upper - lower for lower, upper in pairwise(bounds) if share < upper), 1.0)
    if high - low <= width or band_of(low) == band_of(high):
        return []
    problem = f"the stall share lies anywhere between {100 * low:.0f} and {100 * high:.0f} %"
    # Where loop or copies kept the accelerator idle for longer, the verdict does not hang on the stall.
    decisive = _idle_without_stall(found) <= found.whole.stall_ns
    return [Doubt("wide-interval", problem, "measure more steps", decisive)]


def _idle_without_stall(found: Attribution) -> int:
    return sum(found.whole.ledger_ns.get(owner, 0) for owner in NOT_STALL if owner != "accelerator")


def _close(found: Attribution) -> list[Doubt]:
    """Two owners share the blame."""
    ledger = found.whole
    stalls = {owner: ns for owner, ns in ledger.ledger_ns.items() if owner not in NOT_STALL}
    if len(stalls) < 2 or ledger.stall_ns < 0.05 * ledger.window.wall_ns:
        return []
    first, second = sorted(stalls, key=stalls.__getitem__, reverse=True)[:2]
    if stalls[second] < CLOSE * stalls[first]:
        return []
    problem = f"{second} owns nearly as much of the stall as {first}"
    return [Doubt("two-causes", problem, "after one fix the other cause remains")]


def _status(run: Run) -> list[Doubt]:
    if run.status in ("complete", "running"):
        return []
    return [Doubt("torn", f"the run is {run.status}: its end is missing", "run it again to its end")]
