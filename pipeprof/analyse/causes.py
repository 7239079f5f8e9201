"""Which word of DESIGN §5 the ledger points at, and what tells it from its neighbours."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pipeprof.analyse.attribution import NOT_STALL, Ledger
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.tiling import NS_PER_S

HEALTHY: Final = 0.05
"""Below this share of the window neither the loader nor the loop is worth a word."""


class Finding(NamedTuple):
    """A cause, a finer word for it, and the figures that carried the decision."""

    cause: str
    detail: str | None = None
    evidence: tuple[tuple[str, Any], ...] = ()


def find_cause(ledger: Ledger, facts: Facts) -> Finding:
    """The owner that the accelerator waited for the longest, as a cause."""
    wall = max(1, ledger.window.wall_ns)
    idle = {owner: ns for owner, ns in ledger.ledger_ns.items() if owner != "accelerator"}
    stalls = {owner: ns for owner, ns in idle.items() if owner not in NOT_STALL}
    if ledger.stall_ns / wall < HEALTHY:
        others = {owner: ns for owner, ns in idle.items() if owner in NOT_STALL and ns / wall >= HEALTHY}
        if not others:
            return Finding(
                "accelerator", None, (("accelerator_share", ledger.ledger_ns.get("accelerator", 0) / wall),)
            )
        owner = max(others, key=others.__getitem__)
        return Finding(owner, None, (("share", others[owner] / wall),))
    owner = (
        max(idle, key=idle.__getitem__)
        if max(idle.values()) > max(stalls.values())
        else max(stalls, key=stalls.__getitem__)
    )
    share = (
        ("share", idle[owner] / wall),
        ("share_of_stall", stalls.get(owner, 0) / max(1, ledger.stall_ns)),
    )
    if owner == "storage":
        cause, evidence = _storage(facts)
        return Finding(cause, None, share + evidence)
    if owner == "cpu-contention":
        return Finding(owner, _contention(facts), share + _cpu_evidence(facts))
    if owner == "unknown":
        return Finding("inconclusive", None, share)
    return Finding(owner, None, share)


def _storage(facts: Facts) -> tuple[str, tuple[tuple[str, Any], ...]]:
    evidence: list[tuple[str, Any]] = []
    seconds = facts.wall_ns / NS_PER_S
    if facts.reads and seconds:
        evidence.append(("reads_per_batch", facts.reads / max(1, facts.batches)))
        evidence.append(("reads_per_s", facts.reads / seconds))
    if facts.read_bytes is not None and seconds:
        evidence.append(("read_bytes_per_s", facts.read_bytes / seconds))
    if _thrashes(facts):
        return "page-cache", (*evidence, ("cache_bytes", facts.cache_bytes), ("data_bytes", facts.data_bytes))
    if facts.tier == "network":
        return "storage-network", tuple(evidence)
    return ("storage-bandwidth" if _bandwidth_bound(facts) else "storage-latency"), tuple(evidence)


def _thrashes(facts: Facts) -> bool:
    """The set is larger than what may stay in memory, and comes round again."""
    if facts.cache_bytes and facts.data_bytes:
        return facts.cache_bytes < facts.data_bytes
    return False


def _bandwidth_bound(facts: Facts) -> bool:
    """Bytes, not requests, are what the device has too few of a second."""
    model, size = facts.storage_model, facts.mean_read_bytes
    bandwidth = float(model.get("bandwidth_bytes_per_s") or 0)
    if size is None:
        return False
    if bandwidth <= 0:
        return size >= 1 << 20
    achieved = (facts.read_bytes or 0) * NS_PER_S / max(1, facts.wall_ns)
    if achieved >= 0.6 * bandwidth:
        return True
    positioning = float(model.get("seek_ns") or 0) + float(model.get("half_rotation_ns") or 0)
    waiting = positioning if model.get("kind") == "disk" else float(model.get("latency_ns") or 0)
    return size * NS_PER_S / bandwidth > waiting


def _contention(facts: Facts) -> str | None:
    """Who took the cores: too small a quota, this job itself, or somebody else."""
    if facts.cores is None:
        return None
    threads = max(1, facts.workers) + (1 if facts.workers else 0)
    if (
        facts.quota_cores is not None
        and facts.own_cores is not None
        and facts.own_cores >= 0.7 * facts.quota_cores
    ):
        return "quota"
    if facts.own_cores is not None and facts.own_cores < 0.7 * min(threads, facts.cores):
        return "neighbour"
    return "oversubscribed" if threads > facts.cores else "neighbour"


def _cpu_evidence(facts: Facts) -> tuple[tuple[str, Any], ...]:
    pairs = (
        ("workers", facts.workers),
        ("cores", facts.cores),
        ("cores_kept_busy", facts.own_cores),
        ("quota_cores", facts.quota_cores),
    )
    return tuple((name, value) for name, value in pairs if value is not None)
