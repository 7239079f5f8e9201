"""The ordinary charts, as Vega-Lite specifications built with Altair: one source for page and pictures.

A chart takes rows that are ready to draw and returns a dictionary. Widths are the container's; pictures set
their own. Colours of owners are fixed (`words`), everything else comes from the theme, so that one chart
serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from pipeprof.errors import PipeprofError
from pipeprof.report.page.section import legend
from pipeprof.report.wording import words
from pipeprof.vocabulary import owners

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
Row = Mapping[str, Any]

_FEW_BARS: Final = 4
_MANY_BARS: Final = 16
_LEFT: Final = 46
"""Room for the y axis in px, the same in charts that share an x axis, so that they line up."""


def theme(dark: bool) -> Spec:
    """Return a Vega-Lite config for the page's light or dark ground."""
    ink, soft, line = ("#e6e9ee", "#a9b1bd", "#333a45") if dark else ("#14171c", "#555d6b", "#e3e6eb")
    axis = {
        "labelColor": soft,
        "titleColor": soft,
        "gridColor": line,
        "domainColor": line,
        "tickColor": line,
        "labelFontSize": 12,
        "labelSeparation": 8,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    return {
        "background": "transparent",
        "font": "system-ui, 'DejaVu Sans', sans-serif",
        "view": {"stroke": None},
        "mark": {"aria": False},  # the chart's description and the table next to it say more than each mark
        "axis": axis,
        "legend": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12, "symbolType": "square"},
        "title": {"color": ink},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": soft},
        "header": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12},
    }


def finished(chart: Any, name: str, description: str, **size: Any) -> Spec:
    """Return the specification with the name and text that a screen reader reads; the theme comes later."""
    chart = chart.properties(description=f"{name}. {description}", **{"width": "container", **size})
    spec: Spec = chart.to_dict(validate=False)  # its form is ours, and checking it takes a tenth of a page
    spec.pop("config", None)
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def data_of(rows: Sequence[Row]) -> alt.Data:
    """Return rows as a chart's inline data."""
    import altair as alt

    return alt.Data(values=[dict(row) for row in rows])  # type: ignore[no-untyped-call]


def step_bar(rows: Sequence[Row], description: str) -> Spec:
    """Return two stacked bars, the accelerator's day and the critical path: see `stacked_bars`."""
    return stacked_bars(rows, "Where one step's time went", description, 2)


def stacked_bars(rows: Sequence[Row], name: str, description: str, bars_drawn: int) -> Spec:
    """Return stacked bars of whole times, one for each `view`.

    rows: `view`, `label`, `colour`, `ink`, `start`, `end`, `middle` (shares), `text`, `time`, `share`.
    """
    import altair as alt

    each = 48 if bars_drawn <= _FEW_BARS else 28 if bars_drawn <= _MANY_BARS else 22  # all on one sheet

    base = alt.Chart(data_of(rows)).encode(
        y=alt.Y("view:N", sort=None, title=None).axis(
            labels=True, ticks=False, domain=False, labelLimit=130, labelAlign="left", labelPadding=120
        )
    )
    tooltip = [
        alt.Tooltip("label:N", title="owner"),
        alt.Tooltip("time:N"),
        alt.Tooltip("share:N"),
        alt.Tooltip("view:N", title="of"),
    ]
    bars = base.mark_bar(height=each - 14, stroke="white", strokeWidth=0.6).encode(
        x=alt.X("start:Q", title=None).axis(None).scale(domain=[0, 1], nice=False),
        x2=alt.X2("end:Q"),
        color=alt.Color("colour:N", scale=None),
        tooltip=tooltip,
    )
    inside = (
        base.transform_filter("(datum.end - datum.start) * width > 64")  # narrower than its text
        .mark_text(fontWeight="bold")
        .encode(
            x=alt.X("middle:Q"),
            text=alt.Text("text:N"),
            color=alt.Color("ink:N", scale=None),
            tooltip=tooltip,
        )
    )
    return finished(bars + inside, name, description, height=each * max(1, bars_drawn))


def over_time(rows: Sequence[Row], labels: Sequence[str], colours: Sequence[str], description: str) -> Spec:
    """Stack the shares of each bin. rows: `from`, `to` (seconds), `what`, `low`, `high`, `share`."""
    import altair as alt

    chart = (
        alt.Chart(data_of(rows))
        .mark_rect(strokeWidth=0.7)
        .encode(
            x=alt.X("from:Q", title="seconds").axis(grid=False, tickCount=8).scale(nice=False),
            x2=alt.X2("to:Q"),
            y=alt.Y("low:Q", title=None)
            .axis(format="%", values=[0, 0.5, 1], minExtent=_LEFT)
            .scale(domain=[0, 1]),
            y2=alt.Y2("high:Q"),
            color=alt.Color("what:N", legend=None).scale(domain=list(labels), range=list(colours)),
            stroke=alt.Stroke("what:N", legend=None).scale(
                domain=list(labels), range=list(colours)
            ),  # no seams between bins
            tooltip=[alt.Tooltip("what:N"), alt.Tooltip("share:N"), alt.Tooltip("when:N", title="at")],
        )
    )
    return finished(_zoomable(chart), "When it happened", description, height=150)


def _zoomable(chart: Any) -> Any:
    """Drag to pan, Ctrl and wheel to zoom, double-click for the whole: a bare wheel scrolls the page."""
    import altair as alt

    zoom = alt.selection_interval(bind="scales", encodings=["x"], zoom="wheel![event.ctrlKey]")
    return chart.add_params(zoom)


def line_over_time(
    rows: Sequence[Row],
    name: str,
    unit: str,
    colour: str,
    description: str,
    until: float,
    share: bool = False,
) -> Spec:
    """Return a stepped area over seconds up to `until`. rows: `from`, `to`, `value`, `text`.

    A share runs from 0 to 100%. The unit stands above the axis, so that charts below each other line up.
    """
    import altair as alt

    axis = (
        alt.Axis(format="%", values=[0, 0.5, 1], minExtent=_LEFT)
        if share
        else alt.Axis(tickCount=3, minExtent=_LEFT)
    )
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale()
    chart = (
        alt.Chart(data_of(rows))
        .mark_rect(color=colour)
        .encode(
            x=alt.X("from:Q", title="seconds")
            .axis(grid=False, tickCount=8)
            .scale(nice=False, domain=[0, until]),
            x2=alt.X2("to:Q"),
            y=alt.Y("value:Q", title=None, axis=axis, scale=scale),
            y2=alt.Y2Datum(0),
            tooltip=[alt.Tooltip("text:N", title=name), alt.Tooltip("when:N", title="at")],
        )
    )
    if not share:
        above = alt.TitleParams(unit, anchor="start", fontSize=12, fontWeight="normal", offset=6)
        chart = chart.properties(title=above)
    return finished(_zoomable(chart), name, description, height=90)


def waits(rows: Sequence[Row], marks: Sequence[Row], description: str) -> Spec:
    """Draw a histogram, logarithmic in ms. rows: `from`, `to`, `steps`, `text`; marks: `at`, `label`.

    Marks are ascending. Each label stands left of its line, above the lines further left, which begin below
    it; at the left edge, if there is no room, right of it.
    """
    import altair as alt

    room = 1.45 * max(row["steps"] for row in rows)  # above the bars, for the marks' labels
    x = alt.X("from:Q", title="wait of one step, ms").scale(type="log", nice=False)
    bars = (
        alt.Chart(data_of(rows))
        .mark_bar(color=words.colour(words.WAITING), binSpacing=1)
        .encode(
            x=x.axis(grid=False, tickCount=6, format="~g", labelOverlap="greedy"),
            x2=alt.X2("to:Q"),
            y=alt.Y("steps:Q", title="steps")
            .axis(tickCount=4, tickMinStep=1, minExtent=_LEFT)
            .scale(domain=[0, room]),
            y2=alt.Y2Datum(0),
            tooltip=[alt.Tooltip("text:N", title="wait"), alt.Tooltip("steps:Q")],
        )
    )
    low, high = (math.log(rows[i][end]) for i, end in ((0, "from"), (-1, "to")))
    placed = [
        {
            **mark,
            "row": 8 + 16 * (len(marks) - 1 - i),
            "left": math.log(mark["at"]) - low < _LABEL_SHARE * (high - low),
        }
        for i, mark in enumerate(marks)
    ]
    layers: list[Any] = [bars]
    for left in (False, True):
        some = [mark for mark in placed if mark["left"] == left]
        if some:
            marked = alt.Chart(data_of(some)).encode(
                x=alt.X("at:Q"), y=alt.Y("row:Q", scale=None), tooltip=[alt.Tooltip("label:N")]
            )
            rules = marked.mark_rule(strokeDash=[3, 3], size=1.5).encode(y2={"value": "height"})
            text = marked.mark_text(align="left" if left else "right", dx=4 if left else -4)
            layers += [rules, text.encode(text=alt.Text("label:N"))]
    return finished(alt.layer(*layers), "Which waits hurt", description, height=170)


_LABEL_SHARE: Final = 0.28
"""Share of the narrowest chart's width that the label of a mark takes."""


def heat_map(boxes: Sequence[Row], description: str, across: str, down: str) -> Spec:
    """Draw the stall by two knobs.

    boxes: `across`, `down`, `text`, `note`, `fill`, `ink`, `outline`; `below` for a second line in each.
    """
    import altair as alt

    named = any(isinstance(box["down"], str) for box in boxes)  # in the order in which they come
    two_lines = any("below" in box and box["below"] for box in boxes)
    base = alt.Chart(data_of(boxes)).encode(
        x=alt.X("across:O", title=across or None)
        .scale(paddingInner=0.06)
        .axis(labelAngle=0, ticks=False, domain=False),
        y=alt.Y("down:O", title=down or None, sort=None if named else "ascending")
        .scale(paddingInner=0.1)
        .axis(ticks=False, domain=False),
        tooltip=[
            alt.Tooltip("across:N", title=across or " "),
            alt.Tooltip("down:N", title=down or " "),
            alt.Tooltip("note:N", title="cell"),
        ],
    )
    cells = base.mark_rect(cornerRadius=3, strokeWidth=2.5).encode(
        color=alt.Color("fill:N", scale=None),
        stroke=alt.Stroke("outline:N", legend=None).scale(
            domain=["none", "this run", "advised"],
            range=["transparent", OUTLINE, words.colour(owners.H2D.name)],
        ),
    )
    ink = alt.Color("ink:N", scale=None)
    drawn = cells + base.mark_text(fontWeight="bold", dy=-7 if two_lines else 0).encode(
        text="text:N", color=ink
    )
    if two_lines:
        drawn += base.mark_text(dy=9, fontSize=11).encode(text="below:N", color=ink)
    height = max(1, len({box["down"] for box in boxes})) * (50 if two_lines else 38)
    return finished(drawn, "Stall in each cell, in percent", description, height=height)


def differences(rows: Sequence[Row], description: str) -> Spec:
    """Draw differences with their intervals around 0.

    rows: `measure`, `value`, `low`, `high`, `text`, `says`, `colour`.
    """
    import altair as alt

    base = alt.Chart(data_of(rows)).encode(
        y=alt.Y("measure:N", sort=None, title=None).axis(
            ticks=False, domain=False, labelPadding=9
        ),  # beside a dot on the edge
        color=alt.Color("colour:N", scale=None),
        tooltip=[alt.Tooltip("measure:N"), alt.Tooltip("text:N", title="difference"), alt.Tooltip("says:N")],
    )
    x = alt.X("low:Q", title="change, % (of shares: points)")
    bars = base.mark_rule(size=3).encode(x=x, x2=alt.X2("high:Q"))
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("value:Q"))
    zero = alt.Chart(data_of([{"zero": 0}])).mark_rule(strokeDash=[3, 3]).encode(x=alt.X("zero:Q"))
    return finished(zero + bars + dots, "Differences", description, height=max(1, len(rows)) * 34)


_LABEL_LETTERS: Final = 28
"""Letters of a bar's label on one line: its room of 190 px holds them, and leaves the bar some on a phone."""


def wrapped(label: str) -> str:
    """Return a bar's label in lines."""
    return "\n".join(wrap(label, _LABEL_LETTERS))


def wrapped_labels() -> alt.Y:
    """Return the axis of bars whose `label` is in lines, in the order of the rows."""
    import altair as alt

    lines = r"split(datum.label, '\n')"
    return alt.Y("label:N", sort=None, title=None).axis(
        ticks=False, domain=False, labelLimit=190, labelExpr=lines
    )


def height_of(labels: Sequence[str], one_line: int) -> int:
    """Return the height of bars with these labels, in pixels: each gets more if one has two lines."""
    return max(1, len(labels)) * (36 if any("\n" in label for label in labels) else one_line)


def gains(rows: Sequence[Row], description: str) -> Spec:
    """Return the predicted gains of fixes, as bars with their intervals.

    rows: `fix`, `value`, `low`, `high` (percent of the throughput as it is), `text`, `colour`.
    """
    import altair as alt

    labelled = [{**row, "label": wrapped(row["fix"])} for row in rows]
    base = alt.Chart(data_of(labelled)).encode(
        y=wrapped_labels(),
        tooltip=[alt.Tooltip("fix:N"), alt.Tooltip("text:N", title="predicted")],
    )
    bars = base.mark_bar(size=14).encode(
        x=alt.X("value:Q", title="predicted speed-up, %"),
        color=alt.Color("colour:N", scale=None),
    )
    intervals = base.mark_rule(size=2).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"))
    height = height_of([row["label"] for row in labelled], one_line=26)
    return finished(bars + intervals, "Gains of the fixes", description, height=height)


def trust(rows: Sequence[Row], description: str) -> Spec:
    """Draw predicted against measured, on equal axes.

    rows: `predicted`, `measured`, `label`, `predicted_text`, `measured_text`; `low` and `high` if the
    predictions have intervals.
    """
    import altair as alt

    ranged = [row for row in rows if "low" in row]
    ends = [max(row["predicted"], row["measured"], row.get("high", 0.0)) for row in rows]
    top = max([1.0, *ends]) * 1.05
    line = (
        alt.Chart(data_of([{"a": 0, "b": 0}, {"a": top, "b": top}]))
        .mark_line(strokeDash=[3, 3], strokeWidth=1, color="#8b92a0")
        .encode(x=alt.X("a:Q"), y=alt.Y("b:Q"))
    )
    intervals = (
        alt.Chart(data_of(ranged))
        .mark_rule(size=2, opacity=0.6, color=words.colour(owners.H2D.name))
        .encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), y=alt.Y("measured:Q"))
    )
    points = (
        alt.Chart(data_of(rows))
        .mark_point(filled=True, size=70, opacity=1, color=words.colour(owners.STORAGE.name))
        .encode(
            x=alt.X("predicted:Q", title="predicted samples/s").scale(domain=[0, top]),
            y=alt.Y("measured:Q", title="measured samples/s").scale(domain=[0, top]).axis(minExtent=_LEFT),
            tooltip=[
                alt.Tooltip("label:N", title="run"),
                alt.Tooltip("predicted_text:N", title="predicted"),
                alt.Tooltip("measured_text:N", title="measured"),
            ],
        )
    )
    return finished(
        line + intervals + points if ranged else line + points, "Can you trust it", description, height=240
    )


def of_ranks(rows: Sequence[Row], description: str) -> Spec:
    """Draw histograms of ranks by their shares of waiting. rows: `what`, `from`, `to`, `ranks`, `text`."""
    import altair as alt

    chart = (
        alt.Chart(data_of(rows))
        .mark_bar(opacity=0.75, binSpacing=1)
        .encode(
            x=alt.X("from:Q", title="share of the rank's time")
            .axis(format="%", grid=False)
            .scale(nice=False),
            x2=alt.X2("to:Q"),
            y=alt.Y("ranks:Q", title="ranks", stack=None).axis(tickMinStep=1, minExtent=_LEFT),
            y2=alt.Y2Datum(0),
            color=alt.Color("what:N", title=None)
            .scale(
                domain=["data wait", "rank wait"],
                range=[words.colour(words.WAITING), words.colour(owners.RANK.name)],
            )
            .legend(orient="bottom"),
            tooltip=[alt.Tooltip("what:N"), alt.Tooltip("text:N", title="share"), alt.Tooltip("ranks:Q")],
        )
    )
    return finished(chart, "All ranks", description, height=170)


_SERIES: Final = ("#2f86d6", "#d9820f", "#17a07a", "#c0599f", "#8a6fd1", "#8b92a0", "#c2453b", "#8a8f1e")
"""Colours of series that distinguish scripts and hosts: each is seen on light and on dark ground."""
OTHERS: Final = "others"
"""Series of all scripts and hosts that have none of their own."""


def rates(rows: Sequence[Row], marks: Sequence[Row], description: str, dates: str) -> Spec:
    """Draw the rate of many runs over calendar time (UTC). rows: `at` (ISO), `rate`, `of`, `run`, `waiting`;
    marks: `at`, `change`. `dates` is the format of the axis' dates."""
    import altair as alt

    names = sorted({row["of"] for row in rows}, key=lambda name: (name == OTHERS, name))
    points = (
        alt.Chart(data_of(rows))
        .mark_point(filled=True, size=24, opacity=1)
        .encode(
            x=alt.X("at:T", title=None)
            .axis(grid=False, tickCount=alt.expr("width < 600 ? 3 : 6"), format=dates, labelFlush=True)
            .scale(type="utc", padding=6),  # no dot lies on the edge
            y=alt.Y("rate:Q", title="samples/s").scale(zero=False, padding=6).axis(minExtent=_LEFT),
            color=alt.Color("of:N", title=None)
            .scale(domain=names, range=list(_SERIES[: len(names)]))
            .legend(orient="bottom", columns=alt.expr("width < 600 ? 1 : 2"), labelLimit=360),
            tooltip=[
                alt.Tooltip("run:N"),
                alt.Tooltip("of:N"),
                alt.Tooltip("at:T"),
                alt.Tooltip("rate:Q", format=".4g"),
                alt.Tooltip("waiting:N"),
            ],
        )
    )
    rules = (
        alt.Chart(data_of(marks))
        .mark_rule(strokeDash=[3, 3], size=1.5)
        .encode(
            x=alt.X("at:T"),
            tooltip=[alt.Tooltip("at:T"), alt.Tooltip("change:N", title="change of the rate")],
        )
    )
    chart = points + rules if marks else points
    return finished(_zoomable(chart), "The rate of each run", description, height=260)


OUTLINE: Final = "#6b7482"
"""Outline of the run's own cell: seen on light and on dark."""
_RAMP: Final = ("#fdf0e8", "#f7d3bd", "#efae88", "#e38455", "#d1480c", "#9c3306")
"""From no stall to all stall: lightness falls steadily, so that it reads without hue and in print."""


def stall_fill(stall: float | None) -> str:
    """Return the colour of a heat-map cell for a stall share, a shade for each; grey if not observed."""
    if stall is None or math.isnan(stall):
        return "#c3c8d0"
    at = min(1.0, max(0.0, stall)) * (len(_RAMP) - 1)
    low = min(int(at), len(_RAMP) - 2)
    parts = (
        round(
            int(_RAMP[low][i : i + 2], 16) * (low + 1 - at) + int(_RAMP[low + 1][i : i + 2], 16) * (at - low)
        )
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)


def stall_scale() -> list[dict[str, str]]:
    """Return the legend of heat maps: what each shade says."""
    return legend([(f"{share:.0%} waiting", stall_fill(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)])


def pictures(specs: Mapping[str, Spec], directory: Path, width: int = 900) -> list[str]:
    """Write each chart as `<name>.png` (light, twice the pixels) into `directory`; returns the paths.

    Raises `PipeprofError` if vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise PipeprofError("pictures need vl-convert (84 MB)", "pip install 'pipeprof[png]'") from None
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, spec in specs.items():
        sized = {**spec, "width": width}
        config = {**theme(dark=False), "background": "white"}
        path = directory / f"{name}.png"
        path.write_bytes(vl_convert.vegalite_to_png(sized, scale=2, config=config))
        written.append(str(path))
    return written
