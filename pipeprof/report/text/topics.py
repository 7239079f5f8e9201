"""Texts of `pipeprof help TOPIC`: the pages' instructions for reading, and the vocabulary's own words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Final

from pipeprof import units
from pipeprof.analyse.verdict import ENOUGH
from pipeprof.report.wording import reading
from pipeprof.vocabulary import bands, causes, mechanisms, owners, utilization
from pipeprof.vocabulary.owners import Owner

_INDENT: Final = "  "


def topic_lines(topic: str, width: int) -> list[str]:
    """Return the lines of a topic of `TOPICS`, wrapped at `width` columns."""
    lines: list[str] = []
    for text in TOPICS[topic][1]():
        hanging = _INDENT if text.startswith("- ") else ""
        lines += textwrap.wrap(text, width, subsequent_indent=hanging) or [""]
    return lines


def _verdict() -> Iterator[str]:
    yield (
        "A verdict is a cause, a mechanism where a counter shows one, the lines of code that cost most, and "
        "a fix. Waiting for data is time in which the accelerator, or without its clock the loop, had "
        "nothing to do because the batch was not there."
    )
    yield ""
    below = 0.0
    for band in bands.BANDS:
        yield f"- {band.label}: from {units.percent(below)} to {units.percent(band.below)} of the time"
        below = band.below
    yield ""
    yield f"Inconclusive: the run cannot tell. If it is too short, {ENOUGH}."
    yield ""
    yield "How busy the accelerator was is measured in one of three ways:"
    for kind in utilization.UTILIZATIONS:
        yield f"- {kind.label}: {kind.how}"
    yield ""
    yield reading.WHERE
    yield ""
    yield "Who a nanosecond is charged to:"
    yield from (_owner(owner) for owner in owners.OWNERS)
    yield ""
    yield reading.STAGES


def _owner(owner: Owner) -> str:
    return f"- {owner.label}: {owner.how}"


def _mechanisms() -> Iterator[str]:
    yield (
        "A mechanism says why a place is expensive. It is named only where its own counter passes a "
        f"threshold and explains at least {units.percent(mechanisms.EXPLAINS)} of what the place is charged."
    )
    for one in mechanisms.MECHANISMS:
        what = "; ".join(fix.do for fix in one.fixes) or one.no_fix
        yield ""
        yield f"{one.label} ({one.word}): {one.meaning}"
        yield f"- counted: {one.measured}; named from {units.digits(one.at_least)} on"
        yield f"- to do: {what}"


def _storage() -> Iterator[str]:
    yield from (_owner(owner) for owner in (owners.STORAGE, owners.BLOCKED))
    yield ""
    yield "Causes that lie in reading the data, and what bears on each:"
    for cause in (*causes.STORAGE, causes.PAGE_CACHE):
        yield f"- {cause.word}: {'; '.join(fix.do for fix in cause.fixes)}"
    yield ""
    yield (
        "A device is full where more readers get no more from it, and has room where they do; where the run "
        "does not tell, `pipeprof predict RUN --probe` asks it. Memory serves what was read before (the "
        "page cache): a first epoch may wait for a disk that later ones do not need."
    )
    yield ""
    yield f"Bytes over time: {reading.BYTES} Single reads: {reading.SINGLE_READS}"


def _prediction() -> Iterator[str]:
    for text in (reading.FIXES, reading.WHAT_IF, reading.GAINS, reading.TRUST):
        yield text
        yield ""
    yield (
        "A prediction replays the recorded demands (CPU time of each stage, reads, the step) with another "
        "number of workers, cores, or another device. What goes beyond what was measured is named beside "
        "it."
    )


def _ranks() -> Iterator[str]:
    yield "Ranks meet after each step, so the slowest of them sets the pace of all."
    for text in (reading.RANKS, reading.RANK_LEDGERS, reading.SHARDS):
        yield ""
        yield text


TOPICS: Final[dict[str, tuple[str, Callable[[], Iterator[str]]]]] = {
    "verdict": ("what a verdict says, its bands, and who time is charged to", _verdict),
    "mechanisms": ("why a place is expensive, and what shows it", _mechanisms),
    "storage": ("waiting for disks, networks and the page cache", _storage),
    "prediction": ("what the gains rest on, and how far to trust them", _prediction),
    "ranks": ("a job of several ranks: who waited for whom", _ranks),
}
"""Topic to what it is about and the paragraphs of it."""
