"""What the lesson's page draws: days as stacked bars, plain bars, heat maps; each with its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeprof.report import charts, units, words
from pipeprof.report.lesson_course import Rung
from pipeprof.report.section import Chart, Row, Table

GROUPS: Final = (
    ("computing", "accelerator", ("accelerator",)),
    ("copying to the device", "h2d", ("h2d",)),
    ("waiting: data being read", "storage", ("storage",)),
    (
        "waiting: CPU work on samples",
        "decode",
        ("decode", "transform", "collate", "stage", "getitem", "transfer", "pin"),
    ),
    ("waiting: no CPU core free", "cpu-contention", ("cpu-contention",)),
    ("the rest", "others", ()),
)
"""(what a reader of the lecture calls it, whose colour, the owners of DESIGN §4 in it)."""


def shares(rung: Rung) -> dict[str, float]:
    """The accelerator's time by group; the shares sum to 1."""
    found = dict.fromkeys((label for label, _, _ in GROUPS), 0.0)
    for row in rung.said.owned:
        family = row.owner if row.owner == "others" else words.family(row.owner)
        label = next((label for label, _, owners in GROUPS if family in owners), GROUPS[-1][0])
        found[label] += row.ledger_share
    return found


def days(name: str, rungs: Sequence[tuple[str, Rung]], title: str = "", how: str = "") -> Chart:
    """One stacked bar a run: what the accelerator did with its time."""
    rows = []
    for label, rung in rungs:
        at = 0.0
        for group, owner, _ in GROUPS:
            share = shares(rung)[group]
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
    says = "; ".join(f"{label}: waited {units.percent(rung.stall)}" for label, rung in rungs)
    return Chart(name, stacked(rows, len(rungs), f"{says}."), days_table(rungs), title, how)


def days_table(rungs: Sequence[tuple[str, Rung]]) -> Table:
    """The same numbers."""
    seen = [g for g, _, _ in GROUPS if any(shares(rung)[g] >= 0.0005 for _, rung in rungs)]
    rows = [
        Row(
            [
                label,
                *(units.percent(shares(rung)[g]) for g in seen),
                units.percent(rung.stall),
                units.sample_rate(rung.rate),
            ]
        )
        for label, rung in rungs
    ]
    return Table("The accelerator's time", ["run", *seen, "waiting in all", "speed"], rows)


def legend(rungs: Sequence[Rung]) -> list[dict[str, str]]:
    """The groups that show."""
    return [
        {"label": label, "colour": words.colour(owner)}
        for label, owner, _ in GROUPS
        if any(shares(rung)[label] >= 0.0005 for rung in rungs)
    ]


def stacked(rows: Sequence[Mapping[str, Any]], bars: int, description: str) -> dict[str, Any]:
    """Stacked bars of shares. rows: `bar`, `label`, `colour`, `ink`, `start`, `end`, `middle`, `text`."""
    import altair as alt

    base = alt.Chart(charts._data(rows)).encode(
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
    return charts._finish(drawn + inside, "The accelerator's time", description, height=34 * bars)


class Bar(NamedTuple):
    """One bar: its label, its length, and the number as it is written."""

    label: str
    value: float
    text: str
    owner: str = "storage"
    """Whose colour it has."""


def bars(
    name: str, rows: Sequence[Bar], axis: str, title: str = "", how: str = "", log: bool = False
) -> Chart:
    """Horizontal bars with their numbers behind them; `axis` names the quantity and its unit."""
    import altair as alt

    data = [
        {
            "label": row.label,
            "value": row.value,
            "text": units_together(row.text),
            "colour": words.colour(row.owner),
        }
        for row in rows
    ]
    longest = max((row.value for row in rows), default=1.0)
    low = min((row.value for row in rows), default=1.0) / 2 if log else 0
    scale = alt.Scale(
        type="log" if log else "linear", domain=[low, longest * (4 if log else 1.25)], nice=False
    )
    base = alt.Chart(charts._data(data)).encode(
        y=alt.Y("label:N", sort=None, title=None).axis(ticks=False, domain=False, labelLimit=190),
        x=alt.X("value:Q", title=axis, scale=scale).axis(tickCount=4, format=",.3~r"),
        tooltip=[alt.Tooltip("label:N", title=" "), alt.Tooltip("text:N", title=axis)],
    )
    drawn = base.mark_bar(height=18).encode(x2=alt.datum(low), color=alt.Color("colour:N", scale=None))
    after = base.mark_text(align="left", dx=5).encode(text="text:N")
    says = "; ".join(f"{row.label}: {row.text}" for row in rows)
    spec = charts._finish(drawn + after, title or axis, f"{says}.", height=max(1, len(rows)) * 27)
    table = Table(title or axis, [" ", axis], [Row([row.label, row.text]) for row in rows])
    return Chart(name, spec, table, title, how)


def units_together(text: str) -> str:
    """A number and its unit never on two lines."""
    return text.replace(" ", "\u00a0")


def box(across: Any, down: Any, stall: float | None, note: str) -> dict[str, Any]:
    """A cell of a heat map of the stall."""
    fill = charts.stall_fill(stall)
    text = "?" if stall is None else units.percent(stall).removesuffix(" %")
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
    """A plain table."""
    return Table(caption, list(heads), [Row(list(cells)) for cells in rows])


Text = Callable[[float | None], str]
