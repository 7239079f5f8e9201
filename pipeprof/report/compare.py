"""What `pipeprof compare` shows: in the terminal, as Markdown for pull requests, as JSON, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeprof.report import charts, document, units, words
from pipeprof.report.differences import Compared, Difference
from pipeprof.report.section import Row, Table
from pipeprof.report.terminal import WIDTH, clean
from pipeprof.trace import write_atomically

if TYPE_CHECKING:
    from rich.text import Text

SAME = "no difference beyond noise"
HOW = (
    "An interval holds the difference with 95 % confidence; it comes from batch means, which respect "
    "that steps resemble their neighbours. Where it holds 0, nothing was seen but noise. It knows the noise "
    "within the runs, not what changed on the machine between them."
)


def change(one: Difference) -> str:
    """`+12 % (10–14 %)`, or in points for a share; empty where it was not observed."""
    if one.value is None:
        return units.NOT_OBSERVED
    value, low, high = (_scaled(one, number) for number in (one.value, one.low, one.high))
    unit = "points" if one.measure.kind == "share" else "%"
    if one.measure.kind != "share" and not one.base.value:
        return f"{'+' if one.value > 0 else ''}{one.measure.text(one.value)}"
    interval = f" ({low:+.1f} to {high:+.1f})" if low is not None and high is not None else ""
    return f"{value:+.1f} {unit}{interval}"


def _scaled(one: Difference, number: float | None) -> float | None:
    """In percentage points for a share, else in percent of the base."""
    if number is None:
        return None
    scale = 1.0 if one.measure.kind == "share" else (one.base.value or 1.0)
    return 100 * number / scale


def lines(found: Sequence[Compared]) -> list[Text]:
    """The comparison for a terminal of 80 columns."""
    from rich.text import Text

    rows: list[Text] = []
    for one in found:
        rows += [Text(clean(f"{one.other} against {one.base}"), style="bold")]
        rows += [Text(clean(f"  not alike: {why}"), style="yellow") for why in one.unlike]
        rows += [Text(clean(f"  {key}: {old} → {new}"), style="dim") for key, old, new in one.settings[:6]]
        if one.emulated:
            rows.append(Text(clean(f"  emulated: {', '.join(one.emulated)}"), style="yellow"))
        rows += [_line(difference) for difference in one.differences]
        owners = sorted(one.owners, key=lambda each: -abs(each.value or 0.0))
        rows.append(Text("  time of each step, by owner", style="dim"))
        rows += [_line(difference) for difference in owners[:6] if difference.beyond_noise] or [
            Text(f"    {SAME}")
        ]
        rows.append(Text(""))
    for row in rows:
        row.truncate(WIDTH, overflow="ellipsis")
    return rows[:-1]


def _line(one: Difference) -> Text:
    from rich.text import Text

    colour = {"better": "green", "worse": "red"}.get(one.says, "")
    base, other = one.measure.text(one.base.value), one.measure.text(one.other.value)
    says = "" if one.says in ("better", "worse", "more", "less") else f" {one.says}"
    text = f"  {clean(one.measure.label)[:13]:<14}{base:>15} → {other:<15} "
    return Text(text + (f"{change(one)}" if one.beyond_noise else says.strip()), style=colour)


def show(found: Sequence[Compared]) -> None:
    """Print the comparison."""
    from rich.console import Console

    console = Console(width=WIDTH, highlight=False, soft_wrap=True)
    for line in lines(found):
        console.print(line)


def as_data(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """The comparison for machines: shares of 1, ns, samples a second."""
    return [
        {
            "base": one.base,
            "other": one.other,
            "unlike": list(one.unlike),
            "emulated": list(one.emulated),
            "settings": [{"key": key, "base": old, "other": new} for key, old, new in one.settings],
            "differences": [_datum(each) for each in one.differences],
            "owners_ns_per_step": [_datum(each) for each in one.owners],
        }
        for one in found
    ]


def _datum(one: Difference) -> dict[str, Any]:
    return {
        "measure": one.measure.key,
        "base": asdict(one.base),
        "other": asdict(one.other),
        "difference": one.value,
        "interval": [one.low, one.high] if one.low is not None else None,
        "relative": one.relative,
        "says": one.says,
    }


def markdown(found: Sequence[Compared]) -> str:
    """A table for a pull request."""
    parts = []
    for one in found:
        rows = [f"### {_escaped(one.other)} against {_escaped(one.base)}", ""]
        rows += [f"- not alike: {_escaped(why)}" for why in one.unlike]
        rows += [f"- `{_code(key)}`: {_escaped(old)} → {_escaped(new)}" for key, old, new in one.settings]
        rows += [f"- emulated: {_escaped(', '.join(one.emulated))}"] if one.emulated else []
        rows += ["", "| | base | other | difference | |", "| --- | ---: | ---: | ---: | --- |"]
        moved = [each for each in one.owners if each.beyond_noise]
        for each in (*one.differences, *moved):
            label = each.measure.label if each in one.differences else f"each step: {each.measure.label}"
            base, other = each.measure.text(each.base.value), each.measure.text(each.other.value)
            rows.append(f"| {_escaped(label)} | {base} | {other} | {change(each)} | {each.says} |")
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, HOW]) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown prints as it is."""
    special = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]#|!"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
    return clean(text).translate(special)


def _code(text: str) -> str:
    return clean(text).replace("`", "'").replace("|", "/")


def write_html(found: Sequence[Compared], path: Path) -> Path:
    """Write the comparison as a page; whole or not at all."""
    specs: dict[str, Any] = {}
    pairs = []
    for number, one in enumerate(found):
        name = f"differences{number}"
        specs[name] = charts.differences(_dots(one), f"{one.other} against {one.base}")
        pairs.append(
            {
                "title": f"{one.other} against {one.base}",
                "headline": headline(one),
                "chart": name,
                "unlike": one.unlike,
                "tables": [_table("The numbers", one.differences), _table("Each step, by owner", one.owners)],
                "settings": [(key, f"{old} → {new}") for key, old, new in one.settings],
                "emulated": [words.emulated_label(part) for part in one.emulated],
            }
        )
    context = {"pairs": pairs, "how": HOW, "crumbs": ["comparison"]}
    text = document.render("compare.html.j2", "comparison", context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def headline(one: Compared) -> str:
    """What happened to the throughput, in one sentence."""
    rate = one.differences[0]
    if rate.relative is None:
        return f"The throughput was {units.NOT_OBSERVED}."
    if not rate.beyond_noise:
        return f"Throughput: {rate.says}."
    word = "faster" if rate.relative > 0 else "slower"
    return f"{units.percent(abs(rate.relative))} {word}: {change(rate)}."


def _dots(one: Compared) -> list[dict[str, Any]]:
    """Differences in percent of the base (points for shares), with their intervals."""
    rows = []
    for each in one.differences:
        value, low, high = (_scaled(each, number) for number in (each.value, each.low, each.high))
        if value is not None and (each.measure.kind == "share" or each.base.value):
            tone = {"better": "#087a57", "worse": "#d1480c"}.get(each.says, "#8b92a0")
            rows.append(
                {
                    "measure": each.measure.label,
                    "value": value,
                    "low": value if low is None else low,
                    "high": value if high is None else high,
                    "text": change(each),
                    "says": each.says,
                    "colour": tone,
                }
            )
    return rows


def _table(caption: str, found: Sequence[Difference]) -> Table:
    heads = ["", "base", "other", "difference", "in words"]
    rows = [
        Row(
            [
                each.measure.label,
                each.measure.text(each.base.value),
                each.measure.text(each.other.value),
                change(each),
                each.says,
            ]
        )
        for each in found
    ]
    return Table(caption, heads, rows)
