"""The verdict in words that the reader can act on: a headline, and the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pipeprof import units
from pipeprof.analyse.figures import Facts
from pipeprof.analyse.resources.shards import is_of_data
from pipeprof.analyse.verdict import Statement, Verdict
from pipeprof.analyse.why.lines import HotLine
from pipeprof.vocabulary import causes, owners
from pipeprof.vocabulary.utilization import LOOP_BODY, UtilizationKind, waiter_of

_DEVICE: Final = {"hdd": "disk", "ssd": "SSD", "nvme": "NVMe drive", "network": "network storage"}


NEARLY_ALL: Final = 0.9
"""Share of the waiting from which it counts as waiting for one thing only."""


class Reason(NamedTuple):
    """Reason why a run waited, in words."""

    waiting_for: str
    """Words that complete "... waiting for"."""
    evidence: str
    """Sentence of the evidence; may be empty."""
    line: str = ""
    """Sentence on the line of code; may be empty."""


def state(
    verdict: Verdict, facts: Facts | None, utilization_kind: UtilizationKind | None = None
) -> Statement:
    """Say how long the accelerator (or the loop, without the accelerator's times) waited, for what, and the
    evidence."""
    if verdict.cause == causes.INCONCLUSIVE.word:
        return _inconclusive(verdict)
    who = waiter_of(utilization_kind)
    if verdict.cause == causes.ACCELERATOR.word:
        stall = units.percent(verdict.stall_share)
        return Statement(f"{who} was kept busy: it spent {stall} of the time waiting for data.")
    why = reason(verdict, facts)
    if owners.is_stall(verdict.cause):
        headline = f"{who} {spent_waiting(verdict.stall_share, verdict.share, why.waiting_for)}."
    else:
        share = units.percent(verdict.share)
        headline = f"{who} was idle {share} of the time, waiting for {why.waiting_for}."
        if utilization_kind == LOOP_BODY.word:  # nothing was seen to be idle
            headline = f"{share} of the time went to {why.waiting_for}."
    return Statement(headline, why.evidence, why.line)


def spent_waiting(stall_share: float | None, share: float | None, waiting_for: str) -> str:
    """Say for how much of the time data were waited for, and how much of that was for the blamed owner.

    `share` is the blamed owner's share of the whole time; None if it is not known. If both read alike, one
    number says both.
    """
    stall = f"spent {units.percent(stall_share)} of the time waiting for"
    if share is None or stall_share is None or units.percent(share) == units.percent(stall_share):
        return f"{stall} {waiting_for}"
    if share >= NEARLY_ALL * stall_share:
        return f"{stall} data, nearly all of it for {waiting_for}"
    part = "most of it" if share > stall_share / 2 else "a large part of it"
    return f"{stall} data, {part} for {waiting_for} ({units.percent(share)} of the time)"


def reason(verdict: Verdict, facts: Facts | None) -> Reason:
    """Return what was waited for, and the figures that show it."""
    device = _DEVICE.get((facts.tier if facts else None) or "", "storage")
    figures = _texts(dict(verdict.evidence), facts, device)
    shown = verdict.shown
    evidence = shown.sentence if shown else causes.evidence(verdict.cause, verdict.detail, figures)
    waiting_for = causes.waiting_for(verdict.cause, verdict.detail, device)
    evidence = " ".join(
        text
        for text in (evidence, _charged(verdict), _device(verdict, facts), _shard(verdict, facts))
        if text
    )
    return Reason(waiting_for, evidence, _hottest(verdict))


def _charged(verdict: Verdict) -> str:
    """Return the name of that time in the table of owners, if it has another one there."""
    return f"In the table this is “{owners.label_of(verdict.charged)}”." if verdict.charged else ""


def _device(verdict: Verdict, facts: Facts | None) -> str:
    """Return the sentence on the state of the device; empty if the run did not wait for one."""
    waited = causes.record_of(verdict.cause) in (*causes.STORAGE, causes.PAGE_CACHE)
    return facts.device.evidence if waited and facts is not None and facts.device is not None else ""


def _shard(verdict: Verdict, facts: Facts | None) -> str:
    """Return the sentence on the slowest shard; empty if none stands out or no batch was waited for."""
    slow = facts.slow_shard if facts is not None else None
    if slow is None or not is_of_data(verdict.charged or verdict.cause):
        return ""
    return (
        f"A batch read from {slow.shard} took {units.duration(slow.median_ns)} to make, one from the "
        f"{slow.others} other shards {units.duration(slow.others_ns)} (median)."
    )


def _hottest(verdict: Verdict) -> str:
    """Return a sentence on the line that cost the most; empty if lines were not sampled."""
    if not verdict.hot:
        return ""
    hot = verdict.hot[0]
    share = units.percent(hot.share)
    if verdict.cause in (causes.CPU_CONTENTION.word, causes.BLOCKED.word):
        return f"Meanwhile {share} {of_owner(hot)} was spent {at_line(hot)}."
    return f"{share} of that time was spent {at_line(hot)}."


def of_owner(hot: HotLine) -> str:
    """Return the time that a line's share is a share of: `of the time in decode`."""
    return f"of the time in {owners.label_of(hot.owner)}"


def at_line(hot: HotLine) -> str:
    """Return where a line is and what it calls: `at data.py:41 in Scenes.__getitem__, which calls open`."""
    call = f", which calls {hot.call}" if hot.call else ""
    return f"at {hot.place} in {hot.function}{call}"


def _inconclusive(verdict: Verdict) -> Statement:
    decisive = next((doubt for doubt in verdict.doubts if doubt.decisive), None)
    if decisive is None:
        return Statement("This run does not show what the accelerator waited for: no owner was observed.")
    remedy = decisive.remedy
    return Statement(f"This run is inconclusive: {decisive.problem}.", f"{remedy[:1].upper()}{remedy[1:]}.")


def _texts(figures: Mapping[str, Any], facts: Facts | None, device: str) -> dict[str, str]:
    """Return each figure of the evidence as text, in the unit that its name ends with."""
    texts = {name: _text(name, value) for name, value in figures.items() if value is not None}
    texts["device"] = device
    texts["busiest"] = facts.busiest if facts is not None else ""
    texts["emulated"] = "(emulated) " if facts is not None and facts.emulated_storage else ""
    if "workers" in figures:
        workers = figures["workers"]
        texts["workers"] = units.plural(workers, "worker") if workers else "the loop itself"
    return texts


def _text(name: str, value: float) -> str:
    if name == "cores":
        return units.cores(value)
    if name.endswith("_share"):
        return units.percent(value)
    if name.endswith("_ns"):
        return units.duration(value)
    if name.endswith("bytes_per_s"):
        return units.byte_rate(value)
    if "bytes" in name:
        return units.size(value)
    return units.count(value) if value == round(value) else units.digits(value, 2)
