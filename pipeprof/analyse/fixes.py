"""Which fix to name: the one with the largest predicted gain or, unpredicted, what the ledger asks for."""

from __future__ import annotations

from collections.abc import Mapping

from pipeprof.analyse.causes import Finding
from pipeprof.analyse.facts import Facts

_PLAIN = {
    "transfer": "lighter-transfer",
    "pin": "lighter-transfer",
    "main": "loop",
    "accelerator": "none",
    "inconclusive": "none",
}


def choose_fix(  # noqa: PLR0911 - one return a cause
    finding: Finding, facts: Facts, gains: Mapping[str, float] | None = None
) -> str:
    """The fix with the largest of `gains` (fix to predicted gain), else the one that the cause asks for."""
    cause = finding.cause
    if gains and cause not in ("accelerator", "inconclusive"):
        best = max(gains, key=gains.__getitem__)
        if gains[best] > 0:
            return best
    if cause in _PLAIN:
        return _PLAIN[cause]
    if cause in ("storage-bandwidth", "storage-latency", "storage-network", "page-cache"):
        return _for_storage(cause, facts)
    if cause == "cpu-contention":
        return {"quota": "more-cores", "neighbour": "free-cores"}.get(finding.detail or "", "fewer-workers")
    if cause == "straggler":
        return "deeper-prefetch"
    if cause == "startup":
        return "more-workers" if facts.persistent else "persistent-workers"
    if cause == "h2d":
        return "device-prefetch" if facts.pin_memory else "pin"
    return _for_cpu(cause, facts)


def _for_storage(cause: str, facts: Facts) -> str:
    if facts.data_bytes and facts.memory_bytes and facts.data_bytes <= facts.memory_bytes // 2:
        return "ram"
    return "faster-storage" if cause != "storage-latency" or facts.tier != "hdd" else "shards"


def _for_cpu(cause: str, facts: Facts) -> str:
    idle = facts.idle_cores
    if cause == "blocked" or idle is None or idle >= max(0.5, 0.3 * (facts.cores or 1)):
        return "more-workers"
    return "cheaper-decode" if cause == "decode" else "cheaper-transform"
