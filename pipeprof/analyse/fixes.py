"""Which fix to name: of those that bear on the cause the one with the largest predicted gain.

Without predictions the cause and the figures beside it choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeprof.analyse.causes import Finding
from pipeprof.analyse.facts import Facts

EQUAL: Final = 0.05
"""Gains (shares of throughput) this close are equal: the fix that costs less to try is named then."""

_STORAGE: Final = ("more-workers", "ram", "faster-storage", "shards")
_WORK: Final = ("more-workers", "cheaper-decode", "cheaper-transform", "ram", "more-cores")
WORK: Final = ("decode", "transform", "stage", "collate")
"""Causes that are work for a core."""
BEARING: Final[dict[str, tuple[str, ...]]] = {
    "storage-bandwidth": ("ram", "faster-storage", "shards"),
    "storage-latency": _STORAGE,
    "storage-network": _STORAGE,
    "latency": ("more-workers", "shards", "ram", "faster-storage"),
    "bandwidth": ("ram", "faster-storage"),
    "throttled": ("shards", "ram", "faster-storage"),
    "retries": ("faster-storage", "ram"),
    "client": ("shards", "more-workers", "ram", "more-cores"),
    "page-cache": ("ram", "faster-storage", "shards"),
    "decode": _WORK,
    "transform": _WORK,
    "stage": _WORK,
    "collate": ("more-workers", "more-cores", "lighter-transfer"),
    "transfer": ("lighter-transfer", "more-workers"),
    "pin": ("lighter-transfer",),
    "h2d": ("pin", "device-prefetch"),
    "oversubscribed": ("fewer-workers", "cheaper-decode", "cheaper-transform", "more-cores"),
    "quota": ("more-cores",),
    "neighbour": ("free-cores",),
    "straggler": ("out-of-order", "deeper-prefetch", "more-workers"),
    "blocked": ("more-workers",),
    "startup": ("persistent-workers",),
    "main": ("loop",),
    "collective": ("none",),
    "accelerator": ("none",),
    "inconclusive": ("none",),
}
"""What may help against a cause, or against the detail of `cpu-contention` or `storage-network`; the least
effort first."""
IN_VAIN: Final[dict[str | None, tuple[str, ...]]] = {
    "bandwidth": ("more-workers", "deeper-prefetch"),
    "throttled": ("more-workers", "deeper-prefetch"),
}
"""What gets no more out of a remote place that gives all it can, by detail of `storage-network`: its limits
are its own, and no prediction knows them."""


def choose_fix(finding: Finding, facts: Facts, gains: Mapping[str, float] | None = None) -> str:
    """A word of DESIGN §5. `gains` maps fixes to what they are predicted to add to the throughput."""
    kind = finding.cause.partition(":")[0]
    bearing = BEARING[_key(kind, finding)]
    if finding.detail == "lock":
        return "none"  # no worker and no queue makes a lock wider
    known = {fix: gains[fix] for fix in bearing if fix in gains} if gains else {}
    free = _free_of_charge(kind, facts)
    if free in bearing and known.get(free, 1.0) > EQUAL:
        return free
    if finding.detail == "oversubscribed" and known.get("fewer-workers", 0.0) > -EQUAL:
        return "fewer-workers"  # as fast, and what is left to do then shows without the crowd
    if known and max(known.values()) > EQUAL:
        return next(fix for fix in known if known[fix] >= max(known.values()) - EQUAL)
    return _unpredicted(kind, finding, facts)


def _key(kind: str, finding: Finding) -> str:
    if kind == "cpu-contention":
        return finding.detail or "neighbour"
    return finding.detail if kind == "storage-network" and finding.detail else kind


def _free_of_charge(kind: str, facts: Facts) -> str:
    """A fix that comes before all others, however large their gain: idle cores that one more worker uses."""
    return "more-workers" if kind in WORK and _cores_idle(facts) else ""


def _unpredicted(kind: str, finding: Finding, facts: Facts) -> str:
    if kind == "storage-network" and finding.detail in ("latency", "throttled", "client"):
        return BEARING[finding.detail][0]
    if kind.startswith("storage") or kind == "page-cache":
        fits = facts.data_bytes and facts.memory_bytes and facts.data_bytes <= facts.memory_bytes // 2
        return "ram" if fits else "faster-storage"
    if kind in WORK:
        return {"decode": "cheaper-decode", "collate": "lighter-transfer"}.get(kind, "cheaper-transform")
    if kind == "cpu-contention":
        return BEARING[finding.detail or "neighbour"][0]
    if kind == "h2d":
        return "device-prefetch" if facts.pin_memory else "pin"
    return BEARING[kind][0]


def _cores_idle(facts: Facts) -> bool:
    """At least half a core, and a quarter of all, did nothing."""
    idle = facts.idle_cores
    return idle is None or idle >= max(0.5, 0.25 * (facts.cores or 1))
