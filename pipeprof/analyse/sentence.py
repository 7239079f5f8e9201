"""The verdict in one sentence that a person can act on."""

from __future__ import annotations

import math
from typing import Any

from pipeprof.analyse.attribution import NOT_STALL
from pipeprof.analyse.facts import Facts
from pipeprof.analyse.verdict import Verdict

_WAITED_FOR = {
    "page-cache": "data that no longer fitted into memory",
    "decode": "decoding",
    "collate": "collating samples into batches",
    "transfer": "batches on their way from the workers to the main process",
    "pin": "the thread that pins batches",
    "h2d": "the copy from host to device",
    "cpu-contention": "a CPU core",
    "straggler": "a few batches that took far longer than the rest",
    "blocked": "code in the dataset that neither computed nor read",
    "startup": "workers to start",
    "main": "the loop's own Python",
    "collective": "the other ranks: see them together, in the report of the job's directory",
}
_DEVICE = {"hdd": "disk", "ssd": "SSD", "nvme": "NVMe drive", "network": "network storage"}
_DETAIL = {
    "oversubscribed": "there are more workers than cores",
    "quota": "the container's CPU quota is used up",
    "neighbour": "another program, or another guest of the host, uses the cores",
    "lock": "the workers stood at a lock",
    "sleep": "the workers slept",
    "socket": "the workers waited for a socket",
    "pipe": "the workers waited for a pipe",
}

_REMOTE = {
    "latency": (
        "the latency of the remote storage",
        "each request brings {bytes_per_request} and waits {first_byte_ns} for its first byte, with "
        "{reads_in_flight} reads under way; more at once or larger requests would hide it",
    ),
    "bandwidth": (
        "the bandwidth of the remote storage",
        "it delivers {read_bytes_per_s} a second to {reads_in_flight} reads at once, and receiving is most "
        "of their time; fewer bytes or nearer data would help, more requests would not",
    ),
    "throttled": (
        "remote storage that throttles",
        "it refused {refused_share} of the requests (503 or 429), and {throttled_time_share} of the reading "
        "went into asking again; fewer requests a second or more prefixes would help, more workers would not",
    ),
    "retries": (
        "requests to the remote storage that failed",
        "{failed_share} of them failed, and {retry_time_share} of the reading went into asking again",
    ),
    "client": (
        "the remote storage's client",
        "its own work before it asks takes longer than the answers, which bring {bytes_per_request} each; "
        "fewer, larger requests would help",
    ),
}
"""What was waited for, and why, by detail of `storage-network`."""


class _Figures(dict[str, float]):
    """Evidence as text, in the unit that its name tells."""

    def __getitem__(self, name: str) -> str:  # type: ignore[override]
        value = self.get(name)
        if value is None:
            return "an unknown amount"
        if name.endswith("_share"):
            return _percent(value)
        if name.endswith("_ns"):
            return f"{value / 1e6:.3g} ms"
        if "bytes" in name:
            power = 0 if value < 1000 else min(3, int(math.log10(value) // 3))
            return f"{value / 1000**power:.3g} {('B', 'KB', 'MB', 'GB')[power]}"
        return f"{value:.1f}"


def sentence(verdict: Verdict, facts: Facts | None) -> str:
    """One sentence: how long the accelerator waited, for what, and the figure that shows it."""
    if verdict.cause == "inconclusive":
        return _inconclusive(verdict)
    if verdict.cause == "accelerator":
        return (
            f"The accelerator was kept busy: it waited {_percent(verdict.stall_share)} of the time for data."
        )
    named = dict(verdict.evidence)
    share = named.get("share") if verdict.cause in NOT_STALL else verdict.stall_share
    verb = "stood idle" if verdict.cause in NOT_STALL else "waited"
    return f"The accelerator {verb} {_percent(share)} of the time, for {reason(verdict, facts)}."


def reason(verdict: Verdict, facts: Facts | None) -> str:
    """What was waited for, and the figure that shows it."""
    return f"{_what(verdict, facts)}{_why(verdict, dict(verdict.evidence), facts)}"


def _inconclusive(verdict: Verdict) -> str:
    decisive = next((doubt for doubt in verdict.doubts if doubt.decisive), None)
    if decisive is None:
        return "This run cannot say what the accelerator waited for: no owner of the time was observed."
    return f"This run is inconclusive: {decisive.problem}; {decisive.remedy}."


def _what(verdict: Verdict, facts: Facts | None) -> str:
    kind, _, name = verdict.cause.partition(":")
    if kind == "storage-network" and verdict.detail in _REMOTE:
        return _REMOTE[verdict.detail][0]
    if kind.startswith("storage"):
        return (
            f"the bandwidth of the {_device(facts)}"
            if kind.endswith("bandwidth")
            else f"the {_device(facts)}"
        )
    if verdict.cause == "stage:getitem":
        return "the dataset's own code in __getitem__"
    if name:
        return f"the transform {name}" if kind == "transform" else f"the dataset's own stage “{name}”"
    return _WAITED_FOR.get(verdict.cause, verdict.cause)


def _device(facts: Facts | None) -> str:
    return _DEVICE.get((facts.tier if facts else None) or "", "storage")


def _why(verdict: Verdict, named: dict[str, Any], facts: Facts | None) -> str:
    if verdict.detail in _DETAIL:
        return f": {_DETAIL[verdict.detail]}"
    if verdict.cause == "storage-network" and verdict.detail in _REMOTE:
        return f": {_REMOTE[verdict.detail][1].format_map(_Figures(named))}"
    if verdict.cause.startswith("storage") and "reads_per_batch" in named and facts is not None:
        emulated = " (emulated)" if facts.emulated_storage else ""
        return (
            f": each batch needs {named['reads_per_batch']:.0f} reads"
            f" and it served {named['reads_per_s']:.0f} a second{emulated}"
        )
    if {"own_cores", "cores"} <= set(named):
        workers = {0: "the loop itself", 1: "one worker"}.get(named["workers"], f"{named['workers']} workers")
        return f": {workers} kept {named['own_cores']:.1f} of {named['cores']:g} cores busy"
    return ""


def _percent(share: float | None) -> str:
    return "an unknown part" if share is None else f"{100 * share:.0f} %"
