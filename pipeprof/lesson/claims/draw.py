"""Charts of the lesson's page: stacked bars, plain bars, heat maps; each with its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeprof import units
from pipeprof.lesson.results import LessonRun
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart, Row, Table
from pipeprof.report.wording import words
from pipeprof.vocabulary import owners

GROUPS: Final = (
    ("computing", owners.ACCELERATOR.name, (owners.ACCELERATOR,)),
    ("copying to the device", owners.H2D.name, (owners.H2D,)),
    ("waiting: data being read", owners.STORAGE.name, (owners.STORAGE,)),
    (
        "waiting: CPU work on samples",
        owners.DECODE.name,
        (
            owners.DECODE,
            owners.TRANSFORM,
            owners.COLLATE,
            owners.STAGE,
            owners.GETITEM,
            owners.ITER,
            owners.TRANSFER,
            owners.PIN,
        ),
    ),
    ("waiting: no CPU core free", owners.CPU_CONTENTION.name, (owners.CPU_CONTENTION,)),
    ("the rest", words.OTHERS, ()),
)
"""(the name for a reader of the lecture, the owner of its colour, the owners in it)."""


def time_shares(run: LessonRun) -> dict[str, float]:
    """Return the accelerator's time by group; the shares sum to 1."""
    shares = dict.fromkeys((label for label, _, _ in GROUPS), 0.0)
    for row in run.said.owned:
        record = None if row.owner == words.OTHERS else owners.record_of(row.owner)
        label = next((label for label, _, members in GROUPS if record in members), GROUPS[-1][0])
        shares[label] += row.ledger_share
    return shares


def days(name: str, runs: Sequence[tuple[str, LessonRun]], title: str = "", how: str = "") -> Chart:
    """Draw a stacked bar for each run: what the accelerator did with its time."""
    rows = []
    for label, run in runs:
        at = 0.0
        for group, owner, _ in GROUPS:
            share = time_shares(run)[group]
            if share > 0:
                colour = words.colour(owner)
                rows.append(
                    {
                        "bar": label,
                        "label": group,
                        "colour": colour,
                        "ink": words.ink(colour),
                        "start": at,
                        "end": at + share,
                        "middle": at + share / 2,
                        "text": units.percent(share),
                    }
                )
            at += share
    says = "; ".join(f"{label}: waited {units.percent(run.stall)}" for label, run in runs)
    return Chart(name, stacked(rows, len(runs), f"{says}."), days_table(runs), title, how)


def days_table(runs: Sequence[tuple[str, LessonRun]]) -> Table:
    """Return the same numbers as a table."""
    seen = [g for g, _, _ in GROUPS if any(time_shares(run)[g] >= 0.0005 for _, run in runs)]
    rows = [
        Row(
            [
                label,
                *(units.percent(time_shares(run)[g]) for g in seen),
                units.percent(run.stall),
                units.sample_rate(run.rate),
            ]
        )
        for label, run in runs
    ]
    return Table("The accelerator's time", ["run", *seen, "waiting in all", "speed"], rows)


def legend(runs: Sequence[LessonRun]) -> list[dict[str, str]]:
    """Return the groups that show."""
    return [
        {"label": label, "colour": words.colour(owner)}
        for label, owner, _ in GROUPS
        if any(time_shares(run)[label] >= 0.0005 for run in runs)
    ]


def stacked(rows: Sequence[Mapping[str, Any]], bars: int, description: str) -> dict[str, Any]:
    """Draw stacked bars of shares.

    rows: `bar`, `label`, `colour`, `ink`, `start`, `end`, `middle`, `text`.
    """
    import altair as alt

    base = alt.Chart(charts.data_of(rows)).encode(
        y=alt.Y("bar:N", sort=None, title=None).axis(ticks=False, domain=False, labelLimit=150),
        tooltip=[alt.Tooltip("bar:N", title="run"), "label:N", alt.Tooltip("text:N", title="of the time")],
    )
    drawn = base.mark_bar(height=24, stroke="white", strokeWidth=0.6).encode(
        x=alt.X("start:Q", title="share of the time").axis(format="%", tickCount=5).scale(domain=[0, 1]),
        x2="end:Q",
        color=alt.Color("colour:N", scale=None),
    )
    inside = (
        base.transform_filter("(datum.end - datum.start) * width > 44")
        .mark_text(fontWeight="bold")
        .encode(x="middle:Q", text="text:N", color=alt.Color("ink:N", scale=None))
    )
    return charts.finished(drawn + inside, "The accelerator's time", description, height=34 * bars)


class Bar(NamedTuple):
    """A bar: its label, its length, and the number as it is written."""

    label: str
    value: float
    text: str
    owner: str = owners.STORAGE.name
    """Name of the owner whose colour it has."""


def bars(
    name: str, rows: Sequence[Bar], axis: str, title: str = "", how: str = "", log: bool = False
) -> Chart:
    """Draw horizontal bars with their numbers behind them; `axis` names the quantity and its unit."""
    import altair as alt

    data: list[dict[str, Any]] = [
        {
            "label": charts.wrapped(row.label),
            "value": row.value,
            "text": units_together(row.text),
            "colour": words.colour(row.owner),
        }
        for row in rows
    ]
    longest = max((row.value for row in rows), default=1.0)
    low = min((row.value for row in rows), default=1.0) / 2 if log else 0
    # the number behind the longest bar takes three eighths of the width on a phone
    beyond = max(4.0, (longest / low) ** 0.6) if log and low > 0 else 1.45
    scale = alt.Scale(type="log" if log else "linear", domain=[low, longest * beyond], nice=False)
    base = alt.Chart(charts.data_of(data)).encode(
        y=charts.wrapped_labels(),
        x=alt.X("value:Q", title=axis, scale=scale).axis(
            tickCount=4,
            format=",.3~r",
            labelFlush=24,  # pixels from the edge at which half a label is cut
        ),
        tooltip=[alt.Tooltip("label:N", title=" "), alt.Tooltip("text:N", title=axis)],
    )
    drawn = base.mark_bar(height=18).encode(x2=alt.datum(low), color=alt.Color("colour:N", scale=None))
    after = base.mark_text(align="left", dx=5).encode(text="text:N")
    says = "; ".join(f"{row.label}: {row.text}" for row in rows)
    height = charts.height_of([row["label"] for row in data], one_line=27)
    spec = charts.finished(drawn + after, title or axis, f"{says}.", height=height)
    table = Table(title or axis, [" ", axis], [Row([row.label, row.text]) for row in rows])
    return Chart(name, spec, table, title, how)


def units_together(text: str) -> str:
    """Keep a number and its unit on one line."""
    return text.replace(" ", "\u00a0")


def box(across: Any, down: Any, stall: float | None, note: str) -> dict[str, Any]:
    """Return a cell of a heat map of the stall."""
    fill = charts.stall_fill(stall)
    text = "?" if stall is None else units.percent(stall).removesuffix("%")
    return {
        "across": across,
        "down": down,
        "text": text,
        "fill": fill,
        "ink": words.ink(fill),
        "outline": "none",
        "note": note,
    }


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a plain table."""
    return Table(caption, list(heads), [Row(list(cells)) for cells in rows])
