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
BEARING: Final[dict[str, tuple[str, ...]]] = {
    "storage-bandwidth": ("ram", "faster-storage", "shards"),
    "storage-latency": _STORAGE,
    "storage-network": _STORAGE,
    "page-cache": ("ram", "faster-storage", "shards"),
    "decode": _WORK,
    "transform": _WORK,
    "stage": _WORK,
    "collate": ("more-workers", "lighter-transfer", "more-cores"),
    "transfer": ("lighter-transfer", "more-workers"),
    "pin": ("lighter-transfer",),
    "h2d": ("pin", "device-prefetch", "lighter-transfer"),
    "oversubscribed": ("fewer-workers", "cheaper-decode", "cheaper-transform", "more-cores"),
    "quota": ("more-cores",),
    "neighbour": ("free-cores",),
    "straggler": ("out-of-order", "deeper-prefetch", "more-workers"),
    "blocked": ("more-workers",),
    "startup": ("persistent-workers",),
    "main": ("loop",),
    "accelerator": ("none",),
    "inconclusive": ("none",),
}
"""What may help against a cause, or against the detail of `cpu-contention`; the least effort first."""


def choose_fix(finding: Finding, facts: Facts, gains: Mapping[str, float] | None = None) -> str:
    """A word of DESIGN §5. `gains` maps fixes to what they are predicted to add to the throughput."""
    kind = finding.cause.partition(":")[0]
    bearing = (
        BEARING.get(finding.detail or "", BEARING["neighbour"]) if kind == "cpu-contention" else BEARING[kind]
    )
    known = {fix: gains[fix] for fix in bearing if fix in gains} if gains else {}
    if finding.detail == "oversubscribed" and known.get("fewer-workers", 0.0) > -EQUAL:
        return "fewer-workers"  # as fast, and what is left to do then shows without the crowd
    if known and max(known.values()) > EQUAL:
        return next(fix for fix in known if known[fix] >= max(known.values()) - EQUAL)
    return _unpredicted(kind, bearing, facts)


def _unpredicted(kind: str, bearing: tuple[str, ...], facts: Facts) -> str:
    if kind.startswith("storage") or kind == "page-cache":
        fits = facts.data_bytes and facts.memory_bytes and facts.data_bytes <= facts.memory_bytes // 2
        return "ram" if fits else "faster-storage"
    if kind in ("decode", "transform", "stage", "collate"):
        return _for_work(kind, facts)
    if kind == "h2d" and facts.pin_memory:
        return "device-prefetch"
    if kind == "startup" and facts.persistent:
        return "fewer-workers"
    return bearing[0]


def _for_work(kind: str, facts: Facts) -> str:
    """A core that idles can take another worker; else the work itself must shrink."""
    idle = facts.idle_cores
    if idle is None or idle >= max(0.5, 0.25 * (facts.cores or 1)):
        return "more-workers"
    return {"decode": "cheaper-decode", "collate": "lighter-transfer"}.get(kind, "cheaper-transform")
