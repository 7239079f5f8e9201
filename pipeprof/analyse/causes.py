"""The step from a ledger to the cause it points to, with the figures that decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pipeprof.analyse.figures import Facts
from pipeprof.analyse.ledger.attribution import Ledger
from pipeprof.analyse.why.shown import Shown
from pipeprof.units import NS_PER_S
from pipeprof.vocabulary import bands, causes, owners

HEALTHY: Final = bands.NOT.below
"""Share of the window below which neither the loader nor the loop is worth mentioning: the lowest band."""
MOSTLY: Final = 0.5
AS_LARGE: Final = 0.9
"""Share of the unnamed code's time above which a named stage counts as equally large: that code is the rest
of several."""

CLOSE: Final = 0.8
"""Share of an owner's time from which another's is nearly as large: the same job's have swapped places when
they lay nearer, as its runs gave one of them 26 to 34 % and the other 19 to 27 %."""

FEW_BYTES: Final = 1 << 18
"""Bytes below which handing over is calls and wake-ups: 0.2 to 0.5 ms, as copying this much takes."""
SLOW_PICKLING_NS: Final = 2_000_000
"""Time of pickling a batch from which it is made of more than a few tensors, however small they are."""
ALONE: Final = 0.8
"""Share of the window that the loop alone would take, from which it is as quick with workers."""

Evidence = tuple[tuple[str, Any], ...]


class Finding(NamedTuple):
    """A cause, a finer word for it, and the figures that carried the decision."""

    cause: str
    detail: str | None = None
    evidence: Evidence = ()
    owner: str | None = None
    """The owner that is blamed; None if none is."""
    charged: str | None = None
    """The owner under which the ledger has that time, if that is another."""
    shown: Shown | None = None
    """Reason why that owner is expensive, if a counter shows it."""
    share: float | None = None
    """Share of the window that the blamed owner has; None if none is."""


def find_cause(ledger: Ledger, facts: Facts) -> Finding:
    """Return the owner that kept the accelerator idle the longest, as a cause."""
    wall = max(1, ledger.window.wall_ns)
    stalled = ledger.stall_ns / wall >= HEALTHY
    blamed = {
        owner: ns
        for owner, ns in ledger.ledger_ns.items()
        if owner != owners.ACCELERATOR.name and (stalled if owners.is_stall(owner) else ns / wall >= HEALTHY)
    }
    if not blamed:
        busy = ledger.ledger_ns.get(owners.ACCELERATOR.name, 0) / wall
        return Finding(causes.ACCELERATOR.word, None, (("accelerator_share", busy),))
    owner = _largest(blamed)
    finding = cause_of_owner(owner, facts, ledger.storage_split_ns)
    if owner == owners.MAIN.name and facts.loader_code_ns >= MOSTLY * blamed[owner]:
        finding = finding._replace(detail=causes.IN_NEXT.word)
    return finding._replace(owner=owner, share=blamed[owner] / wall)


def _largest(blamed: Mapping[str, int]) -> str:
    """Return the owner with the most time; between the data set's unnamed code and an equally large stage,
    the stage."""
    owner = max(blamed, key=blamed.__getitem__)
    if owner not in owners.CODE:
        return owner
    stages = (owners.DECODE.name, owners.TRANSFORM.name, owners.STAGE.name, owners.COLLATE.name)
    named = [other for other in blamed if other not in owners.CODE and owners.family_of(other) in stages]
    largest = max(named, key=blamed.__getitem__, default=owner)
    return largest if blamed[largest] >= AS_LARGE * blamed[owner] else owner


def cause_of_owner(owner: str, facts: Facts, storage_split_ns: Mapping[str, int] | None = None) -> Finding:
    """Return the cause behind an owner's time, given the figures of the run."""
    if owner == owners.STORAGE.name:
        return _remote(facts, storage_split_ns) if facts.remote or facts.requests else _storage(facts)
    if owner == owners.CPU_CONTENTION.name:
        return Finding(owner, _contention(facts), _cpu_evidence(facts))
    if owner == owners.BLOCKED.name:
        return _blocked(facts)
    if owner == owners.UNKNOWN.name:
        return Finding(causes.INCONCLUSIVE.word, "unknown-owner")
    if not owners.is_stall(owner):
        return Finding(owner)
    tiny = owner == owners.TRANSFER.name and _tiny_batches(facts)
    sizes = (("batch_bytes", facts.batch_bytes), ("making_ns", facts.making_ns)) if tiny else ()
    return Finding(owner, causes.TINY_BATCHES.word if tiny else None, (*_cpu_evidence(facts), *sizes))


def is_heavy(batch_bytes: float | None, pickling_ns: float | None) -> bool:
    """Return False if batches are so small that neither bytes nor tensors matter on their way."""
    slow = pickling_ns is not None and pickling_ns >= SLOW_PICKLING_NS
    return batch_bytes is None or not batch_bytes < FEW_BYTES or slow


def _tiny_batches(facts: Facts) -> bool:
    """Return True if the loop alone would make its small batches sooner than they are handed over."""
    if facts.workers == 0 or facts.batch_bytes is None or is_heavy(facts.batch_bytes, facts.pickling_ns):
        return False
    return facts.alone_share is not None and facts.alone_share < ALONE


def _storage(facts: Facts) -> Finding:
    evidence = _read_evidence(facts)
    if _thrashes(facts):
        sizes = (("cache_bytes", facts.cache_bytes), ("data_bytes", facts.data_bytes))
        return Finding(causes.PAGE_CACHE.word, None, (*evidence, *sizes))
    if facts.tier == "network":
        return Finding(causes.STORAGE_NETWORK.word, None, evidence)
    cause = causes.STORAGE_BANDWIDTH if _bandwidth_bound(facts) else causes.STORAGE_LATENCY
    return Finding(cause.word, None, evidence)


def _remote(facts: Facts, split_ns: Mapping[str, int] | None) -> Finding:
    """Name the cause after what the reads waited for longest, on the critical path if that is available.

    There is no detail if no request was seen.
    """
    evidence = (*_read_evidence(facts), *_request_evidence(facts))
    if not facts.requests:
        return Finding(causes.STORAGE_NETWORK.word, None, evidence)
    if split_ns is None:
        waited = {part: ns for part, (ns, _) in facts.requests.items()}
        split_ns = {**waited, owners.NETWORK: (facts.read_wall_ns or 0) - sum(waited.values())}
    parts = {detail.word: split_ns.get(detail.part, 0) for detail in causes.STORAGE_NETWORK.details}
    return Finding(causes.STORAGE_NETWORK.word, max(parts, key=parts.__getitem__), evidence)


def _request_evidence(facts: Facts) -> Evidence:
    """Return figures of the requests below the reads; `reads_in_flight` is Little's law: time over time."""
    wall, answers = facts.requests.get(owners.FIRST_BYTE, (0, 0))
    refused_ns, refused = facts.requests.get(owners.THROTTLED, (0, 0))
    failed_ns, failed = facts.requests.get(owners.RETRY, (0, 0))
    asked = answers + refused + failed
    evidence: list[tuple[str, Any]] = []
    if facts.read_wall_ns and facts.wall_ns:
        evidence.append(("reads_in_flight", facts.read_wall_ns / facts.wall_ns))
        evidence.append(("throttled_time_share", refused_ns / facts.read_wall_ns))
        evidence.append(("retry_time_share", failed_ns / facts.read_wall_ns))
    if answers:
        evidence.append(("first_byte_ns", wall / answers))
        evidence.append(("bytes_per_request", (facts.read_bytes or 0) / answers))
    if asked:
        evidence += [("refused_share", refused / asked), ("failed_share", failed / asked)]
    return tuple(evidence) if facts.requests else ()


def _read_evidence(facts: Facts) -> Evidence:
    seconds = facts.wall_ns / NS_PER_S
    evidence: list[tuple[str, Any]] = []
    if facts.reads and seconds:
        evidence.append(("reads_per_batch", facts.reads / max(1, facts.batches)))
        evidence.append(("reads_per_s", facts.reads / seconds))
    if facts.read_bytes is not None and seconds:
        evidence.append(("read_bytes_per_s", facts.read_bytes / seconds))
    return tuple(evidence)


def _thrashes(facts: Facts) -> bool:
    """Return True if some of the set may stay in memory, and not all of it: it is read again and again."""
    limits = [limit for limit in (facts.cache_bytes, facts.memory_bytes) if limit]
    return bool(facts.data_bytes and limits and min(limits) < facts.data_bytes and facts.epochs > 1)


def _bandwidth_bound(facts: Facts) -> bool:
    """Return True if the device is limited by bytes a second, not by requests a second.

    It goes by the device's own figures if it is emulated or has a profile; else reads of 1 MiB and more are
    taken to be limited by bandwidth, and smaller ones by latency.
    """
    model, size = facts.storage_model, facts.mean_read_bytes
    if facts.device is not None and facts.device.full_of_bytes:
        return True
    if size is None:
        return False
    if model is None or model.bandwidth_bytes_per_s <= 0:
        return size >= 1 << 20
    bandwidth = model.bandwidth_bytes_per_s
    achieved = (facts.read_bytes or 0) * NS_PER_S / max(1, facts.wall_ns)
    waiting = model.seek_ns + model.half_rotation_ns if model.kind == "disk" else model.latency_ns
    return achieved >= 0.6 * bandwidth or size * NS_PER_S / bandwidth > waiting


def _contention(facts: Facts) -> str | None:
    """Tell who took the cores: too small a quota, this run itself, or other programs."""
    own, cores = facts.own_cores, facts.cores
    if cores is None or own is None:
        return None
    if facts.quota_cores is not None and own >= 0.7 * facts.quota_cores:
        return causes.QUOTA.word
    others = max(0.0, cores - own) if facts.other_cores is None else facts.other_cores
    if facts.workers + 1 > cores and own >= others:
        return causes.OVERSUBSCRIBED.word
    return None if facts.other_cores is None else causes.NEIGHBOUR.word


def _cpu_evidence(facts: Facts) -> Evidence:
    pairs = (
        ("workers", facts.workers),
        ("cores", facts.cores),
        ("own_cores", facts.own_cores),
        ("other_cores", facts.other_cores),
        ("quota_cores", facts.quota_cores),
    )
    return tuple((name, value) for name, value in pairs if value is not None)


def _blocked(facts: Facts) -> Finding:
    """Name the cause after what workers were seen to wait for; a disk that was not seen reading is storage
    too."""
    if not facts.states:
        return Finding(causes.BLOCKED.word)
    state = max(facts.states, key=facts.states.__getitem__)
    evidence = tuple((f"waiting_for_{name}", share) for name, share in facts.states.items())
    if state == "disk":
        return _storage(facts)._replace(evidence=evidence)
    return Finding(causes.BLOCKED.word, state if facts.states[state] >= MOSTLY else None, evidence)
