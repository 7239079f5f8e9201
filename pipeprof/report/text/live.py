"""Picture of runs while they are written: one line if it is piped, a page that is redrawn on a terminal.

The ranks of a job, or the processes of a program, stand side by side; the page shows one of them in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.ledger.attribution import stall_in
from pipeprof.analyse.live.run import LiveRun, WorkerNow
from pipeprof.analyse.sentence import at_line, of_owner
from pipeprof.report.text.terminal import clean
from pipeprof.report.wording import words
from pipeprof.vocabulary import causes, owners

if TYPE_CHECKING:
    from rich.text import Text

MOST_OWNERS: Final = 8
MOST_PARTS: Final = 16
"""Ranks or processes that stand side by side at most."""
_BAR: Final = 30
_SMALL_BAR: Final = 10
KEYS: Final = "q quit · a all or last seconds · w workers"
KEYS_OF_JOB: Final = f"n next · {KEYS}"


class ShownRun(NamedTuple):
    """One of the runs that are shown."""

    name: str
    """Its rank or process; empty if it is the only one."""
    live: LiveRun
    analysis: Analysis | None


def line(parts: Sequence[ShownRun]) -> str:
    """Return the state of a run, or of all that are shown, in one line of at most 80 columns."""
    if len(parts) == 1:
        return _line(parts[0].live, parts[0].analysis)
    steps = sorted(part.live.all.steps for part in parts)
    between = units.count(steps[0]) if steps[0] == steps[-1] else f"{units.count(steps[0])} to {steps[-1]:,}"
    worst = max(parts, key=_waiting)
    rates = [part.live.window.samples_per_s for part in parts]
    told = (
        f"{len(parts)} {_kind(parts)}",
        f"step {between}",
        _rate(sum(filter(None, rates)) if any(rates) else None),
        f"{worst.name}: {'stall ?' if worst.analysis is None else _stall(worst.analysis)}",
    )
    return clean(" | ".join(told))[:80]


def _waiting(part: ShownRun) -> float:
    """Return how much a part waits: its share of stall, else of time in next()."""
    stall = None if part.analysis is None else part.analysis.verdict.stall_share
    return (stall if stall is not None else part.live.window.wait_share) or 0.0


def _kind(parts: Sequence[ShownRun]) -> str:
    return "ranks" if parts[0].name.startswith("rank") else "processes"


def _line(live: LiveRun, analysis: Analysis | None) -> str:
    window, ready = live.window, "?" if live.ready is None else str(live.ready)
    parts = (
        f"step {units.count(live.all.steps)}",
        "stall ?" if analysis is None else _stall(analysis),
        f"in next() {units.percent(window.wait_share)}",
        _rate(window.samples_per_s),
        f"{ready} ready",
    )
    return clean(" | ".join(parts))[:80]


def _stall(analysis: Analysis) -> str:
    """Return the stall share with the cause, as the verdict has them."""
    verdict = analysis.verdict
    if verdict.stall_share is None:
        return "stall ?"
    share = f"stall {units.percent(verdict.stall_share)}"
    if verdict.cause == causes.ACCELERATOR.word:
        return share
    waited = owners.is_stall(verdict.cause) and verdict.cause != causes.INCONCLUSIVE.word
    return f"{share} for {verdict.cause}" if waited else f"{share}, {verdict.cause}"


def _rate(samples_per_s: float | None) -> str:
    return "? samples/s" if samples_per_s is None else units.sample_rate(samples_per_s)


def page(parts: Sequence[ShownRun], chosen: int, of_all: bool, with_workers: bool, width: int) -> list[Text]:
    """Return the lines of the page, each at most `width` columns; part `chosen` is shown in full."""
    from rich.text import Text

    of_job = len(parts) > 1
    part = parts[chosen % len(parts)]
    live, analysis = part.live, part.analysis
    rows = [
        *(_rows_of_parts(parts, part) if of_job else ()),
        *_head(live, analysis),
        *_ledger(live, analysis, of_all),
        *(_workers(live.workers()) if with_workers else ()),
        (KEYS_OF_JOB if of_job else KEYS, "dim"),
    ]
    return [Text(clean(text)[:width], style=style, no_wrap=True) for text, style in rows]


def _rows_of_parts(parts: Sequence[ShownRun], chosen: ShownRun) -> Iterator[Row]:
    """Give a row for each part; of too many, those that wait most."""
    by_wait = sorted(range(len(parts)), key=lambda number: _waiting(parts[number]))
    shown = [parts[number] for number in sorted(by_wait[-MOST_PARTS:])]
    left = len(parts) - len(shown)
    others = f", of which {left} that wait least are not shown" if left else ""
    yield f"{len(parts)} {_kind(parts)}{others}", "bold"
    name_width = max(len(part.name) for part in shown)
    for part in shown:
        live, analysis = part.live, part.analysis
        bar = "█" * round(_waiting(part) * _SMALL_BAR)
        stall = "stall ?" if analysis is None else _stall(analysis)
        state = f"step {units.count(live.all.steps):>9}  {_rate(live.window.samples_per_s):>16}"
        ended = "" if live.run.status == "running" else f" ({live.run.status})"
        mark = ">" if part is chosen else " "
        text = f"{mark} {part.name:<{name_width}}  {state}  {bar:<{_SMALL_BAR}} {stall}{ended}"
        yield text, "" if part is chosen else "dim"


Row = tuple[str, str]
"""Text and style."""


def _head(live: LiveRun, analysis: Analysis | None) -> Iterator[Row]:
    meta = live.run.meta
    yield f"pipeprof live · {meta.name or live.directory} · {live.run.status}", "dim"
    seconds = live.window_ns // units.NS_PER_S
    if analysis is None:
        yield f"Last {seconds} s  no step was taken yet", "bold"
    else:
        verdict = analysis.verdict
        yield f"Last {seconds} s  {verdict.sentence}", "bold"
        for hot in verdict.hot[:1]:
            yield f"           {units.percent(hot.share)} {of_owner(hot)}, {at_line(hot)}", ""
        yield f"           {_stall(analysis)}, {_rate(live.window.samples_per_s)}", ""
    everything = live.all
    counted = f"{units.plural(everything.steps, 'step')}, {_rate(everything.samples_per_s)}"
    waited = units.percent(everything.wait_share)
    yield f"All        {counted}, in next() {waited}{_stall_since(live.ledger_ns)}", ""
    ready = "not observed" if live.ready is None else str(live.ready)
    yield f"Ready      {ready} batches at the last request", ""


def _stall_since(ledger_ns: Mapping[str, int]) -> str:
    """Return the stall share since live began; empty before a window was counted."""
    whole = sum(ledger_ns.values())
    return f", stall {units.percent(stall_in(ledger_ns) / whole)} since live began" if whole else ""


def _ledger(live: LiveRun, analysis: Analysis | None, of_all: bool) -> Iterator[Row]:
    ledger_ns: Mapping[str, int] = {}
    if of_all:
        ledger_ns = live.ledger_ns
    elif analysis is not None and analysis.ledger is not None:
        ledger_ns = analysis.ledger.ledger_ns
    whole = sum(ledger_ns.values())
    yield f"Where the time went, {'since live began' if of_all else 'in the last seconds'}", "bold"
    for owner in sorted(ledger_ns, key=lambda name: -ledger_ns[name])[:MOST_OWNERS]:
        share = ledger_ns[owner] / whole if whole else 0.0
        drawn = words.drawn(owner)
        bar = "█" * round(share * _BAR)
        yield f"  {drawn.label[:24]:<24} {units.percent(share):>6} {bar}", drawn.terminal


def _workers(workers: list[WorkerNow]) -> Iterator[Row]:
    yield "Workers", "bold"
    for each in workers:
        memory = "" if each.private_bytes is None else f", {units.size(each.private_bytes)}"
        where = ""
        if each.line is not None:
            where = f" at {Path(each.line.file).name}:{each.line.line} in {each.line.function}"
        stage = words.drawn_stage(each.stage).label if each.stage else "idle"
        yield f"  {each.worker}  {stage}{where}{memory}", ""
