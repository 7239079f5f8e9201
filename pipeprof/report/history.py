"""Many runs, shown: in the terminal, and as one page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.history.history import Change, Group, History, when
from pipeprof.analyse.history.summaries import Summary
from pipeprof.record.files import write_atomically
from pipeprof.report.page import charts, document
from pipeprof.report.page.section import Row, Table
from pipeprof.report.text.table import TextTable
from pipeprof.report.text.terminal import WIDTH, clean
from pipeprof.vocabulary import causes, mechanisms

MOST_ROWS: Final = 12
"""Rows of a table in the terminal."""
MOST_ROWS_PAGE: Final = 256
MOST_CHANGES: Final = 8
"""Changes that the terminal shows."""
MOST_POINTS: Final = 4_000
"""Runs that the chart draws: of more, each so-manieth."""
MOST_SERIES: Final = 7
"""Scripts on hosts that the chart distinguishes; the others share one more colour."""
NS_PER_H: Final = 3600 * units.NS_PER_S
WIDEST: Final = 26


def lines(past: History, price_per_h: float | None = None, page: str | None = None) -> list[str]:
    """Return the lines that the terminal shows; `page` is the path of the page, for the last line."""
    said = textwrap.wrap(f"pipeprof · {_title(past)}", WIDTH)
    said += textwrap.wrap(_cost(past, price_per_h), WIDTH)
    if past.unsought:
        said += textwrap.wrap(past.unsought, WIDTH)
    for change in past.changes[:MOST_CHANGES]:
        said += ["", *textwrap.wrap(_sentence(change), WIDTH)]
    if len(past.changes) > MOST_CHANGES:
        said.append(f"… {len(past.changes) - MOST_CHANGES} more changes")
    for table in (_groups(past, MOST_ROWS), _periods(past, MOST_ROWS)):
        shown = TextTable(table.heads, WIDTH, wrapped=(table.heads.index("cause"),), widest=WIDEST)
        for row in table.rows:
            shown.row(*row.cells)
        said += ["", *shown.plain()]
    return [clean(line) for line in said] + ([clean(f"Report: {page}")] if page else [])


def write(past: History, path: Path, price_per_h: float | None = None) -> Path:
    """Write the page; whole or not at all."""
    specs = {"rates": _chart(past)}
    view = {
        "headline": _change(past.changes[0]) if past.changes else f"{_title(past)}.",
        "lead": [text for text in (*_more(past), _cost(past, price_per_h), past.unsought) if text],
        "changes": _changes(past),
        "tables": [_groups(past, MOST_ROWS_PAGE), _periods(past, MOST_ROWS_PAGE)],
    }
    context = {"v": view, "crumbs": [units.plural(len(past.runs), "run")]}
    text = document.render("history.html.j2", "History", context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def _more(past: History) -> list[str]:
    """Return what the page's headline leaves out of its change, and what runs there are."""
    return [_with_it(past.changes[0]), f"{_title(past)}."] if past.changes else []


def _title(past: History) -> str:
    days = list(dict.fromkeys(_day(run) for run in past.runs if run.when_s is not None))
    span = f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    scripts = len({run.script for run in past.runs if run.status != "unreadable"})
    hosts = len({run.host for run in past.runs if run.status != "unreadable"})
    lost = f", {past.unreadable} of them not readable" if past.unreadable else ""
    of = f" of {units.plural(scripts, 'script')} on {units.plural(hosts, 'host')}"
    return f"{units.plural(len(past.runs), 'run')}{of}{span}{lost}"


def _cost(past: History, price_per_h: float | None) -> str:
    hours = past.waited_h
    if hours is None:
        return "What the waiting cost was not observed: no run tells its waiting share and its time."
    price = "" if price_per_h is None else f", {hours * price_per_h:,.2f} at {price_per_h:g} an hour"
    counted = sum(run.waited_s is not None for run in past.runs)
    of = "" if counted == len(past.runs) else f" ({counted:,} of {len(past.runs):,} runs tell)"
    return f"Training waited {units.duration(hours * NS_PER_H)} for data{price}{of}."


def _sentence(change: Change) -> str:
    """Return what changed, from which run on, and what changed with it."""
    return f"{_change(change)} {_with_it(change)}"


def _change(change: Change) -> str:
    """Return what changed, and from which run on."""
    verb = "fell" if change.change < 0 else "rose"
    return (
        f"{change.script} on {change.host} {verb} by {units.percent(abs(change.change))} with "
        f"{change.first.directory} ({_day(change.first)})."
    )


def _with_it(change: Change) -> str:
    """Return the levels before and since, and what changed with the rate."""
    before, after = change.before, change.after
    said = (
        f"{units.sample_rate(before.rate)} before, {units.sample_rate(after.rate)} since, "
        f"in {before.runs} and {after.runs} runs."
    )
    said += f" Waiting {units.percent(before.waiting)}, then {units.percent(after.waiting)}"
    said += f"; {_why(before)}, then {_why(after)}." if _why(before) != _why(after) else f" ({_why(after)})."
    if change.differs:
        parts = [f"{what} {old} → {new}" for what, old, new in change.differs]
        said += f" Changed with it: {'; '.join(parts)}."
    else:
        said += " No recorded setting, package or machine changed with it."
    return said


def _why(group: Group) -> str:
    """Return the usual cause and mechanism in words."""
    if group.cause is None:
        return "cause not observed"
    label = causes.text_of(group.cause)
    mechanism = mechanisms.BY_WORD.get(group.mechanism or "")
    return label if mechanism is None else f"{label}: {mechanism.label}"


def _day(run: Summary) -> str:
    return units.moment(when(run)).partition(",")[0]


def _figures(group: Group) -> list[str]:
    return [
        f"{group.runs:,}",
        units.percent(group.waiting),
        units.NOT_OBSERVED if group.cause is None else _why(group),
        units.NOT_OBSERVED if group.rate is None else units.digits(group.rate),
        units.duration(None if group.waited_h is None else group.waited_h * NS_PER_H),
    ]


_HEADS: Final = ["runs", "waiting", "cause", "samples/s", "waited"]


def _groups(past: History, most: int) -> Table:
    rows = [Row([*group.key, *_figures(group)]) for group in past.groups[:most]]
    how = "Medians of the runs, their most frequent cause, and the time spent waiting in all."
    if len(past.groups) > most:
        how += f" {len(past.groups) - most:,} more groups waited less."
    return Table(f"By {' and '.join(past.by)}", [*past.by, *_HEADS], rows, how=how)


def _periods(past: History, most: int) -> Table:
    rows = [Row([*group.key, *_figures(group)]) for group in past.periods[-most:]]
    return Table("Over time", ["when", *_HEADS], rows, how="By the time of the runs' making, in UTC.")


def _changes(past: History) -> Table:
    rows = [
        Row(
            [
                change.first.directory,
                _day(change.first),
                change.script,
                change.host,
                units.signed_percent(change.change),
                units.sample_rate(change.before.rate),
                units.sample_rate(change.after.rate),
                "; ".join(f"{what} {old} → {new}" for what, old, new in change.differs) or "–",
            ]
        )
        for change in past.changes[:MOST_ROWS_PAGE]
    ]
    heads = ["first run", "made", "script", "host", "rate", "before", "since", "changed with it"]
    how = (
        "The runs from which on the rate stayed at another level, beyond what runs differ among themselves. "
        "A setting is named where nearly all runs before and since agree on it."
    )
    return Table("Where the rate changed", heads, rows, how=how)


def _chart(past: History) -> charts.Spec:
    rated = [run for run in past.runs if run.rate is not None and run.when_s is not None]
    step = -(-len(rated) // MOST_POINTS) or 1
    names = _series(past, rated)
    rows = [
        {
            "at": when(run),
            "rate": run.rate,
            "of": names.get((run.script, run.host), charts.OTHERS),
            "run": run.directory,
            "waiting": units.percent(run.waiting),
        }
        for run in rated[::step]
    ]
    marks = [
        {"at": when(change.first), "change": units.signed_percent(change.change)} for change in past.changes
    ]
    said = f"The rate of {units.plural(len(rows), 'run')} by the time of their making; lines are changes."
    return charts.rates(rows, marks[:MOST_CHANGES], said, date_format(rated))


_DAY_S: Final = 86_400
_MINUTES_S: Final = 600
"""Seconds from first to last run below which the axis writes the time of day alone, with its seconds."""


def date_format(rated: Sequence[Summary]) -> str:
    """Return how the chart's axis writes dates: with the hour over few days, with the year over many."""
    dates = [run.when_s for run in rated if run.when_s is not None]
    seconds = max(dates) - min(dates) if dates else 0.0
    if 0 < seconds < _MINUTES_S:
        return "%H:%M:%S"
    days = seconds / _DAY_S
    return "%-d %b, %H:%M" if days < 5 else "%-d %b" if days < 300 else "%b %Y"


def _series(past: History, rated: Sequence[Summary]) -> dict[tuple[str, str], str]:
    """Return the names of the series to draw separately: those that changed, then those with most runs."""
    counts: dict[tuple[str, str], int] = {}
    for run in rated:
        counts[run.script, run.host] = counts.get((run.script, run.host), 0) + 1
    changed: list[Any] = [(change.script, change.host) for change in past.changes]
    order = dict.fromkeys([*changed, *sorted(counts, key=lambda key: -counts[key])])
    return {key: f"{key[0]} on {key[1]}" for key in list(order)[:MOST_SERIES]}
