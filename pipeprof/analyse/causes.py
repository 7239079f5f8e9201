"""Which word of DESIGN §5 the ledger points at, and what tells it from its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pipeprof.analyse.attribution import NOT_STALL, Ledger
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.tiling import NS_PER_S

HEALTHY: Final = 0.05
"""Below this share of the window neither the loader nor the loop is worth a word: the lowest band."""
MOSTLY: Final = 0.5

Evidence = tuple[tuple[str, Any], ...]


class Finding(NamedTuple):
    """A cause, a finer word for it, and the figures that carried the decision."""

    cause: str
    detail: str | None = None
    evidence: Evidence = ()


def find_cause(ledger: Ledger, facts: Facts) -> Finding:
    """The owner that kept the accelerator idle the longest, as a cause."""
    wall = max(1, ledger.window.wall_ns)
    stalled = ledger.stall_ns / wall >= HEALTHY
    blamed = {
        owner: ns
        for owner, ns in ledger.ledger_ns.items()
        if owner != "accelerator" and (stalled if owner not in NOT_STALL else ns / wall >= HEALTHY)
    }
    if not blamed:
        busy = ledger.ledger_ns.get("accelerator", 0) / wall
        return Finding("accelerator", None, (("accelerator_share", busy),))
    owner = max(blamed, key=blamed.__getitem__)
    told = told_apart(owner, facts, ledger.storage_split_ns)
    return told._replace(evidence=(("share", blamed[owner] / wall), *told.evidence))


def told_apart(owner: str, facts: Facts, storage_split_ns: Mapping[str, int] | None = None) -> Finding:
    """The word for an owner that is to blame, by the figures beside it."""
    if owner == "storage":
        return _remote(facts, storage_split_ns) if facts.remote or facts.requests else _storage(facts)
    if owner == "cpu-contention":
        return Finding(owner, _contention(facts), _cpu_evidence(facts))
    if owner == "blocked":
        return _blocked(facts)
    if owner == "unknown":
        return Finding("inconclusive", "unknown-owner")
    if owner in NOT_STALL:
        return Finding(owner)
    return Finding(owner, None, _cpu_evidence(facts))


def _storage(facts: Facts) -> Finding:
    evidence = _read_evidence(facts)
    if _thrashes(facts):
        sizes = (("cache_bytes", facts.cache_bytes), ("data_bytes", facts.data_bytes))
        return Finding("page-cache", None, (*evidence, *sizes))
    if facts.tier == "network":
        return Finding("storage-network", None, evidence)
    return Finding("storage-bandwidth" if _bandwidth_bound(facts) else "storage-latency", None, evidence)


_REMOTE: Final = {
    "throttled": "throttled",
    "retry": "retries",
    "first-byte": "latency",
    "client": "client",
    "network": "bandwidth",
}
"""Parts of the time that reads of a remote place took, as details of the cause `storage-network`."""


def _remote(facts: Facts, split_ns: Mapping[str, int] | None) -> Finding:
    """By what the reads waited for the longest, on the critical path where that is at hand.

    No detail where no request was seen.
    """
    evidence = (*_read_evidence(facts), *_request_evidence(facts))
    if not facts.requests:
        return Finding("storage-network", None, evidence)
    if split_ns is None:
        waited = {part: ns for part, (ns, _) in facts.requests.items()}
        split_ns = {**waited, "network": (facts.read_wall_ns or 0) - sum(waited.values())}
    parts = {detail: split_ns.get(part, 0) for part, detail in _REMOTE.items()}
    return Finding("storage-network", max(parts, key=parts.__getitem__), evidence)


def _request_evidence(facts: Facts) -> Evidence:
    """Figures of the requests below the reads; `reads_in_flight` is Little's law: time spent over time."""
    wall, answers = facts.requests.get("first-byte", (0, 0))
    refused_ns, refused = facts.requests.get("throttled", (0, 0))
    failed_ns, failed = facts.requests.get("retry", (0, 0))
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
    """Some of the set may stay in memory, and not all of it: it is read again and again."""
    limits = [limit for limit in (facts.cache_bytes, facts.memory_bytes) if limit]
    return bool(facts.data_bytes and limits and min(limits) < facts.data_bytes and facts.epochs > 1)


def _bandwidth_bound(facts: Facts) -> bool:
    """Bytes, not requests, are what the device has too few of a second.

    By the device's own figures where it is emulated or has a profile; else reads of 1 MiB and more are taken
    to be limited by bandwidth, and smaller ones by latency.
    """
    model, size = facts.storage_model, facts.mean_read_bytes
    bandwidth = float(model.get("bandwidth_bytes_per_s") or 0)
    if size is None:
        return False
    if bandwidth <= 0:
        return size >= 1 << 20
    achieved = (facts.read_bytes or 0) * NS_PER_S / max(1, facts.wall_ns)
    positioning = float(model.get("seek_ns") or 0) + float(model.get("half_rotation_ns") or 0)
    waiting = positioning if model.get("kind") == "disk" else float(model.get("latency_ns") or 0)
    return achieved >= 0.6 * bandwidth or size * NS_PER_S / bandwidth > waiting


def _contention(facts: Facts) -> str | None:
    """Who took the cores: too small a quota, this run itself, or somebody else."""
    own, cores = facts.own_cores, facts.cores
    if cores is None or own is None:
        return None
    if facts.quota_cores is not None and own >= 0.7 * facts.quota_cores:
        return "quota"
    threads = facts.workers + 1
    others = max(0.0, cores - own) if facts.other_cores is None else facts.other_cores
    return "oversubscribed" if threads > cores and own >= others else "neighbour"


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
    """By what the workers were seen to wait for; a disk that nobody saw reading is storage all the same."""
    if not facts.states:
        return Finding("blocked")
    state = max(facts.states, key=facts.states.__getitem__)
    evidence = tuple((f"waiting_for_{name}", share) for name, share in facts.states.items())
    if state == "disk":
        return _storage(facts)._replace(evidence=evidence)
    return Finding("blocked", state if facts.states[state] >= MOSTLY else None, evidence)
