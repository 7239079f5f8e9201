"""The report for a terminal: the page's order in at most 40 lines of 80 columns.

Plain text where the output is no terminal or `NO_COLOR` is set (rich sees to both). What comes from users'
files is printed as text, never as rich markup, and without control characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np

from pipeprof.pipeline import measured_window
from pipeprof.report import advice, series, units, words
from pipeprof.report.facts import Answer, Facts, facts

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 80
MOST_LINES = 40
MOST_OWNERS = 9
_BLOCKS = " ▁▂▃▄▅▆▇█"
_TITLE = "Where each step's time went"


def show(answer: Answer, report: str | None = None, file: IO[str] | None = None) -> None:
    """Print the report; `report` is the path of the page, for the last line."""
    from rich.console import Console

    console = Console(file=file, width=WIDTH, highlight=False, soft_wrap=True)
    for line in lines(answer, report):
        console.print(line)


def lines(answer: Answer, report: str | None = None) -> list[Text]:
    """The lines, at most `MOST_LINES` of `WIDTH` columns."""
    from rich.text import Text

    said = facts(answer)
    parts = [
        *_verdict(said),
        *_fixes(answer, said),
        *_where(said),
        *_over_time(answer),
        *_waits(answer),
        *_missing(said),
    ]
    last = [Text(clean(f"Report: {report}"))] if report else []  # a path is of no use when it is cut
    room = MOST_LINES - len(last)
    if len(parts) > room:
        parts = [*parts[: room - 1], _line(f"… {len(parts) - room + 1} more lines in the page", "dim")]
    return [*parts, *last]


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    line = Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")
    line.truncate(WIDTH, overflow="ellipsis")
    return line


def clean(text: str) -> str:
    """The text without control characters, which could drive a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in text)


def _wrapped(text: str, style: str = "", indent: str = "", most: int = 4) -> Iterator[Text]:
    import textwrap

    found = textwrap.wrap(clean(text), WIDTH, initial_indent=indent, subsequent_indent=indent)
    for row in found[:most]:
        yield _line(row, style)


def _verdict(said: Facts) -> Iterator[Text]:
    status = "" if said.status == "complete" else f" · {said.status}"
    yield _line(f"pipeprof · {said.name} · {said.created}{status}", "dim")
    yield from _wrapped(said.headline, "bold")
    if said.evidence:
        yield from _wrapped(said.evidence)
    interval = units.interval(said.stall_interval)
    stall = units.percent(said.stall_share)
    colour = "green" if said.band == "not" else "red"
    yield _line(
        f"Stall {stall}{f' (interval {interval})' if interval else ''} of {units.duration(said.wall_ns)}, "
        f"{words.BANDS.get(said.band or '', 'no band')}",
        f"bold {colour}",
    )
    name = said.utilization_name
    yield _line(
        f"{name[:1].upper()}{name[1:]} {units.percent(said.utilization)}, "
        f"{units.sample_rate(said.throughput)}, {units.plural(said.steps, 'step')}"
    )
    if said.emulated:
        yield _line(f"Emulated: {', '.join(said.emulated)}", "yellow")
    for problem, remedy in said.doubts[:3]:
        yield from _wrapped(f"Doubt: {problem} {remedy}", "yellow", most=2)


def _fixes(answer: Answer, said: Facts) -> Iterator[Text]:
    found = advice.best(answer)
    if not found:
        return
    yield _line("")
    yield _line(f"Do this first (predicted{', with emulated parts' if said.emulated else ''})", "bold")
    for one in found:
        stall = units.percent(one.prediction.stall.value)
        yield _line(f"  {advice.gain(one):>8}  {one.fix.title}; stall then {stall}")
        yield _line(f"{'':12}{one.fix.how}", "dim")
    gap = advice.trust_gap(answer, said)
    if gap is not None and abs(gap) > advice.TRUSTED:
        way = "faster" if gap > 0 else "slower"
        yield _line(
            f"  Hints only: played back, this run is {units.percent(abs(gap))} {way} than measured", "yellow"
        )


def _where(said: Facts) -> Iterator[Text]:
    yield _line("")
    if not said.owned:
        yield _line(f"Where each step's time went: {units.NOT_OBSERVED}")
        return
    yield _line(f"{_TITLE:<36}{'each step':>11}{'of time':>9}{'on path':>9}", "bold")
    rows = sorted(said.owned, key=lambda row: -row.ledger_ns)
    for row in rows[:MOST_OWNERS]:
        text = _line(
            f"  {clean(row.label)[:32]:<34}{units.duration(row.step_ns):>11}"
            f"{units.percent(row.ledger_share):>9}{units.percent(row.path_share):>9} "
        )
        text.append("█" * round(row.ledger_share * 14), style=words.owner(row.owner).terminal)
        yield text
    rest = rows[MOST_OWNERS:]
    if rest:
        share = sum(row.ledger_share for row in rest)
        yield _line(f"  {units.plural(len(rest), 'other owner'):<34}{'':>11}{units.percent(share):>9}")
    total = units.duration(sum(row.step_ns or 0 for row in rows) if said.steps else None)
    yield _line(f"  {'sum':<34}{total:>11}{'100 %':>9}", "dim")


def _over_time(answer: Answer) -> Iterator[Text]:
    window = measured_window(answer.timeline)
    if window is None:
        return
    edges = np.linspace(window.start_ns, max(window.end_ns, window.start_ns + 61), 61).astype(np.int64)
    shares = series.shares(answer.timeline, edges)
    yield _line("")
    for label, share in (("computing", shares.computing), ("waiting", shares.waiting)):
        yield _line(f"{label:<12}|{_spark(share)}|")


def _spark(share: series.Floats) -> str:
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(top, max(0, round(float(s) * top)))] for s in share)


def _waits(answer: Answer) -> Iterator[Text]:
    t = answer.timeline
    waits = (t.take_ns - t.request_ns)[~t.warmup]
    if len(waits) == 0:
        return
    p50, p95, p99, worst = (units.duration(float(q)) for q in np.quantile(waits, [0.5, 0.95, 0.99, 1.0]))
    yield _line(f"Waits       half up to {p50}, p95 {p95}, p99 {p99}, longest {worst}")


def _missing(said: Facts) -> Iterator[Text]:
    if said.not_observed:
        yield from _wrapped(f"Not observed: {', '.join(said.not_observed)}", "dim", most=2)
    for text in said.warnings[:2]:
        yield from _wrapped(f"Warning: {text}", "yellow", most=2)
