"""The report for a terminal: the page's order in at most 40 lines, as wide as the terminal is.

A file or a pipe gets all lines: no one can scroll a report that was cut when it was written.

Plain text if the output is not a terminal or `NO_COLOR` is set (rich sees to both). What comes from users'
files is printed as text, never as rich markup, and without control characters.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np

from pipeprof import units
from pipeprof.analyse import over_time as series
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.resources.makeup import read_makeup
from pipeprof.analyse.sentence import at_line, of_owner
from pipeprof.report.text.table import TextTable
from pipeprof.report.wording import advice, words
from pipeprof.report.wording.view import (
    RunView,
    changed_lines,
    cost_line,
    loader_line,
    outside_line,
    own_cost_line,
    stall_line,
    transfer_line,
    view_of,
)
from pipeprof.simulate.forecast import Forecast
from pipeprof.units import ascii_only, encodable
from pipeprof.vocabulary import bands, fixes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_Item = TypeVar("_Item")

WIDTH = 80
"""Columns if the output is not a terminal."""
NARROWEST, WIDEST = 40, 120
MOST_LINES = 40
MOST_OWNERS = 9
_MOST_BINS = 60
BAR_WIDTH = 14
INDENT = 9
"""Columns of the labels of the verdict."""
_GAIN = 12
"""Columns of the gain before a fix."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
WORTH_NAMING = 0.1
"""Share of an owner's time from which a line after the first is shown."""
_WIDE_TABLE = 70
"""Columns from which the table of owners shows the critical path too."""
_TITLE = "Where each step's time went"


def show(
    forecast: Forecast,
    report: str | None = None,
    file: IO[str] | None = None,
    price_per_hour: float | None = None,
    in_full: bool = False,
) -> None:
    """Print the report; `report` is the path of the page, for the last line. `in_full` leaves nothing out."""
    from rich.console import Console

    console = Console(file=file, highlight=False, soft_wrap=True)
    width = width_of(console)
    most = MOST_LINES if console.is_terminal and not in_full else None
    for line in lines(forecast, report, width, price_per_hour, most, in_full):
        console.print(line if encodable(line.plain, console.encoding) else ascii_only(line.plain))


def width_of(console: Console) -> int:
    """Return a report's width in columns: the terminal's, within bounds; `WIDTH` without a terminal."""
    columns = console.width if console.is_terminal or "COLUMNS" in os.environ else WIDTH
    return min(WIDEST, max(NARROWEST, columns))


def lines(
    forecast: Forecast,
    report: str | None = None,
    width: int = WIDTH,
    price_per_hour: float | None = None,
    most: int | None = MOST_LINES,
    in_full: bool = False,
) -> list[Text]:
    """Return the lines of `width` columns, at most `most` of them; None for all.

    `in_full` shows all owners, hot lines, doubts and warnings, and not the first few of each.
    """
    from rich.text import Text

    said = view_of(forecast.analysis.run, forecast.publish())
    paper = _Paper(width, in_full)
    parts = [
        *_verdict(paper, said, forecast.choice.ranked is not None, cost_line(said, price_per_hour)),
        *_fixes(paper, forecast, said),
        *_where(paper, said),
        *_insides(paper, forecast.analysis),
        *_over_time(paper, forecast.analysis),
        *_waits(paper, forecast.analysis),
        *_missing(paper, said),
    ]
    last = [Text(clean(f"Report: {report}"))] if report else []  # a path is of no use when it is cut
    room = len(parts) if most is None else most - len(last)
    if len(parts) > room:
        left = f"… {len(parts) - room + 1} more lines in the page"
        parts = [*parts[: room - 1], *paper.wrapped(left, "dim")]
    return [*parts, *last]


@dataclass(frozen=True)
class _Paper:
    """A terminal of some width: text is wrapped at it and never cut."""

    width: int
    in_full: bool
    """True if lists are shown to their end."""

    def first(self, items: Sequence[_Item], most: int) -> Sequence[_Item]:
        """Return the items that are shown."""
        return items if self.in_full else items[:most]

    def wrapped(self, text: str, style: str = "", label: str = "", indent: int = 0) -> Iterator[Text]:
        """Yield the lines of a text; those after the first are indented, by default by its label's column."""
        from rich.text import Text

        hanging = " " * (indent or (INDENT if label else 0))
        first = f"{label:<{len(hanging)}}"
        rows = textwrap.wrap(clean(text), self.width, initial_indent=first, subsequent_indent=hanging)
        for row in rows:
            yield Text(row, style=style)

    def row(self, text: str, style: str = "") -> Text:
        """Return a line that is narrow by itself."""
        from rich.text import Text

        return Text(clean(text), style=style)


def clean(text: str) -> str:
    """Return the text without control characters, which could drive a terminal."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in text)


def _verdict(paper: _Paper, said: RunView, is_predicted: bool, cost: str) -> Iterator[Text]:
    status = "" if said.status == "complete" else f" · {said.status}"
    yield from paper.wrapped(f"pipeprof · {said.name} · {said.created}{status}", "dim")
    yield from paper.wrapped(said.headline, "bold", "Verdict")
    yield from paper.wrapped(said.reason, label="Why")
    for number, line in enumerate(said.hot):
        if number == 0 or line.share >= WORTH_NAMING or paper.in_full:
            of = "" if number else f"{of_owner(line)}, "  # those after the first are of the same
            text = f"{units.percent(line.share)} {of}{at_line(line)}"
            yield from paper.wrapped(text, label=" " if number else "Line")
    unpredicted = "" if is_predicted or said.fix == fixes.NONE.word else " (No gain is predicted for it.)"
    yield from paper.wrapped(f"{said.next_step}{unpredicted}", label="Next")
    is_argument = bool(fixes.BY_WORD[said.fix].argument)  # a line of the data set stands above
    if unpredicted and is_argument and (place := advice.unpredicted_place(said)):
        yield from paper.wrapped(f"The DataLoader is made at {place}.", label=" ")
    yield from _command(advice.measuring_more(said) or (unpredicted and advice.trying_unpredicted(said)))
    colour = "bold green" if said.band == bands.NOT.word else "bold red"
    yield from paper.wrapped(stall_line(said), "dim" if said.inconclusive else colour)
    name = said.utilization_name
    if said.steps:
        yield from paper.wrapped(
            f"{name[:1].upper()}{name[1:]} {units.percent(said.utilization)}, "
            f"{units.sample_rate(said.throughput)}, {units.plural(said.steps, 'step')}"
        )
    for text in (cost, transfer_line(said), outside_line(said), loader_line(said)):
        yield from paper.wrapped(text)
    for text in (*paper.first(changed_lines(said.meta), 3), *said.meta.tried):
        yield from paper.wrapped(f"Set from outside: {text}")
    if said.emulated:
        yield from paper.wrapped(f"Emulated: {', '.join(said.emulated)}", "yellow")
    for problem, remedy in paper.first(said.doubts, 3):
        yield from paper.wrapped(f"Doubt: {problem}; {remedy}.", "yellow")


def _command(text: str) -> Iterator[Text]:
    """Yield the command that tries a fix: one line, whole, to be copied."""
    from rich.text import Text

    if text:
        yield Text(clean(f"  {text}"), style="cyan")


def _fixes(paper: _Paper, forecast: Forecast, said: RunView) -> Iterator[Text]:
    advised = forecast.advice
    if not advised:
        return
    yield paper.row("")
    when = "Do this first" if forecast.choice.ranked is not None else "After that"
    yield from paper.wrapped(f"{when} (predicted{', with emulated parts' if said.emulated else ''})", "bold")
    for candidate in advised:
        stall = units.percent(candidate.prediction.stall.value)
        title = f"{candidate.fix.title}: {advice.from_to(candidate)}, waiting then {stall}"
        yield from paper.wrapped(title, label=f"  {advice.gain(candidate):>8}", indent=_GAIN)
        yield from paper.wrapped(advice.written(forecast, candidate, said), "dim", indent=_GAIN)
        harm = advice.warning_of(forecast, candidate)
        if harm and candidate.fix.word != said.fix:  # what is to be done next has said its own
            yield from paper.wrapped(f"Careful: {harm}", "yellow", indent=_GAIN)
        yield from _command(advice.trying(forecast, said, candidate))
        yield from paper.wrapped(advice.untried(forecast, said, candidate), "dim", indent=_GAIN)
    if any(advice.trying(forecast, said, candidate) for candidate in advised):
        yield from paper.wrapped("To check one: run its command, then pipeprof compare.", "dim", indent=2)
    if why := advice.why_first(forecast):
        yield from paper.wrapped(why, "dim", indent=2)
    if rough := advice.replay_warning(forecast):
        yield from paper.wrapped(rough, "yellow", indent=2)
    if forecast.unfinished:
        yield from paper.wrapped(f"{forecast.unfinished}.", "dim", indent=2)


def _where(paper: _Paper, said: RunView) -> Iterator[Text]:
    yield paper.row("")
    if not said.owned:
        yield from paper.wrapped(f"{_TITLE}: {units.NOT_OBSERVED}")
        return
    yield from _owners_table(paper, said)


def _owners_table(paper: _Paper, said: RunView) -> list[Text]:
    """Lay out the owners; a narrow terminal has no room for the path and the bars."""
    from rich.text import Text

    shown = 5 if paper.width >= WIDTH else 4 if paper.width >= _WIDE_TABLE else 3
    heads = (_TITLE, "each step", "of time", "critical path", "")[:shown]
    table = TextTable(heads, paper.width, right=(1, 2, 3), wrapped=(0,))
    rows = sorted(said.owned, key=lambda row: -row.ledger_ns)
    shown_rows = paper.first(rows, MOST_OWNERS)
    for row in shown_rows:
        bar = Text("█" * round(row.ledger_share * BAR_WIDTH), style=words.drawn(row.owner).terminal)
        times = (units.duration(row.step_ns), units.percent(row.ledger_share), units.percent(row.path_share))
        table.row(*(f"  {row.label}", *times, bar)[:shown])
    rest = rows[len(shown_rows) :]
    if rest:
        share = units.percent(sum(row.ledger_share for row in rest))
        table.row(f"  {units.plural(len(rest), 'other')}", "", share)
    total = units.duration(sum(row.step_ns or 0 for row in rows) if said.steps else None)
    table.row("  sum", total, units.percent(1.0), style="dim")
    return table.lines()


def _insides(paper: _Paper, analysis: Analysis) -> Iterator[Text]:
    """Say in a line what a step is made of, and which kernels take longest."""
    makeup = read_makeup(analysis.run)
    if makeup.parts:
        parts = ", ".join(
            f"{name} {units.percent(share)} ({units.duration(step_ns)})"
            for name, step_ns, share in makeup.parts
        )
        yield from paper.wrapped(f"A step: {parts}", indent=2)
    if makeup.kernels:
        what = "Kernels" if makeup.on_device else "Operators"
        longest = ", ".join(f"{each.name} {units.percent(each.share)}" for each in makeup.kernels[:3])
        steps = units.plural(makeup.traced_steps, "step")
        collectives = makeup.collective_share
        among = f"; collectives {units.percent(collectives)} of all" if collectives else ""
        yield from paper.wrapped(f"{what} of {steps}: {longest}{among}", indent=2)


def _over_time(paper: _Paper, analysis: Analysis) -> Iterator[Text]:
    attribution = analysis.attribution
    if attribution is None:
        return
    window = attribution.window
    bins = min(_MOST_BINS, paper.width - 14)
    edges = np.linspace(window.start_ns, max(window.end_ns, window.start_ns + bins), bins + 1).astype(
        np.int64
    )
    shares = series.shares(attribution, edges)
    yield paper.row("")
    for label, share in (("computing", shares.computing), ("waiting", shares.waiting)):
        yield paper.row(f"{label:<12}|{_spark(share)}|")
    ends = "0 s", units.duration(window.end_ns - window.start_ns)
    yield paper.row(f"{'':<13}{ends[0]}{ends[1]:>{bins - len(ends[0])}}", "dim")


def _spark(share: series.Floats) -> str:
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(top, max(0, round(float(s) * top)))] for s in share)


def _waits(paper: _Paper, analysis: Analysis) -> Iterator[Text]:
    counts = analysis.counts
    if counts is None or counts.wait is None:
        return
    wait, masked = counts.wait, ""
    if counts.masked_share:
        masked = f"; {units.percent(counts.masked_share)} of the waiting masked by earlier steps"
    late = f"one in twenty {units.duration(wait.p95_ns)} or more, " if "p95" in wait.quantiles() else ""
    half, longest = units.duration(wait.p50_ns), units.duration(wait.max_ns)
    yield from paper.wrapped(f"Waits       half up to {half}, {late}longest {longest}{masked}")


def _missing(paper: _Paper, said: RunView) -> Iterator[Text]:
    if said.not_observed:
        yield from paper.wrapped(f"Not observed: {', '.join(said.not_observed)}", "dim")
    for text in paper.first(said.warnings, 2):
        yield from paper.wrapped(f"Warning: {text}", "yellow")
    yield from paper.wrapped(own_cost_line(said), "dim")
