"""Output of `pipeprof compare`: in the terminal, as Markdown for pull requests, as JSON, as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeprof import units
from pipeprof.analyse.differences import Compared, Difference, Measure, Repeated
from pipeprof.record.files import write_atomically
from pipeprof.report.page import charts, document
from pipeprof.report.page.section import Row, Table
from pipeprof.report.text.markdown import code, escaped
from pipeprof.report.text.table import TextTable
from pipeprof.report.text.terminal import WIDTH, clean, width_of
from pipeprof.report.wording import words
from pipeprof.units import ascii_only, encodable
from pipeprof.vocabulary import owners
from pipeprof.vocabulary.utilization import DEVICE_EVENTS, LOOP_BODY, label_of

if TYPE_CHECKING:
    from rich.text import Text

SAME = "no difference beyond noise"
HOW = (
    "Intervals have 95% confidence, from batch means, which respect that steps resemble their neighbours. "
    "An interval that includes 0 may be noise. Changes in the machine's load between the runs are not "
    "included."
)
UNFAIR = "Not a fair comparison"
_WIDE = 90
"""Columns that a row of five cells fits in."""
LEAST_OF_A_STEP = 0.01
"""Share of a step below which an owner's difference is left out of what people read."""


def telling(compared: Compared) -> list[Difference]:
    """Return the owners that differ beyond noise and hold at least a hundredth of a step, largest first."""
    steps = [each for each in compared.differences if each.measure.key == "step_ns"]
    step = max((each.base.value or 0.0) for each in steps) if steps else 0.0
    held = [
        each
        for each in compared.owners
        if each.beyond_noise and max(each.base.value or 0, each.other.value or 0) >= LEAST_OF_A_STEP * step
    ]
    return sorted(held, key=lambda each: -abs(each.value or 0.0))


def change(difference: Difference) -> str:
    """Return `+12% (+10% to +14%)`, in percentage points for a share."""
    if difference.value is None:
        return units.NOT_OBSERVED
    is_share = difference.measure.kind == "share"
    if not is_share and not difference.base.value:
        return f"{'+' if difference.value > 0 else ''}{difference.measure.text(difference.value)}"
    write = units.signed_points if is_share else units.signed_percent
    text = write(difference.value / difference.unit)
    if difference.shown_interval is None:
        return text
    low, high = (units.signed_percent(end).removesuffix("%" * is_share) for end in difference.shown_interval)
    return f"{text} ({low} to {high})"


def lines(runs: Sequence[Compared], width: int = WIDTH) -> list[Text]:
    """Return the comparison for a terminal of `width` columns."""
    from rich.text import Text

    rows: list[Text] = []

    def put(text: str, style: str = "", indent: str = "  ") -> None:
        wrapped = textwrap.wrap(clean(text), width, initial_indent=indent, subsequent_indent=indent)
        rows.extend(Text(row, style=style) for row in wrapped)

    for run in runs:
        put(headline(run), "bold", indent="")
        put(f"{run.other} against {run.base} (the first run)", "dim", indent="")
        for why in run.unfair:
            put(f"{UNFAIR}: {why}.", "bold yellow")
        for why in run.unlike:
            put(f"not alike: {why}", "yellow")
        for key, old, new in run.settings[:6]:
            put(f"{key}: {old} → {new}", "dim")
        if run.emulated:
            put(f"emulated: {', '.join(run.emulated)}", "yellow")
        if run.cores is not None and run.cores.sentence:
            put(f"{run.cores.sentence}.", "yellow")
        rows += _columns(run, run.differences, width)
        put("what differs in the time of each step, by owner", "dim")
        rows += _columns(run, telling(run)[:6], width) or [Text(f"    {SAME}")]
        rows.append(Text(""))
    return rows[:-1]


def _columns(run: Compared, differences: Sequence[Difference], width: int) -> list[Text]:
    """Lay out one difference a line: what, before, after, how much; a narrow terminal has two columns."""
    is_narrow = width < _WIDE
    columns, right, wrapped = (2, (), (0, 1)) if is_narrow else (5, (1,), (0, 4))
    table = TextTable([""] * columns, width, right=right, wrapped=wrapped)
    for each in differences:
        base, other = (each.measure.text(figure.value) for figure in (each.base, each.other))
        moved = change(each) if each.beyond_noise else each.says
        colour = {"better": "green", "worse": "red"}.get(each.says, "")
        cells = (f"{base} → {other}: {moved}",) if is_narrow else (base, "→", other, moved)
        table.row(f"  {label(run, each.measure)}", *cells, style=colour)
    return table.lines()


def label(run: Compared, measure: Measure) -> str:
    """Return the name of a measure; of the utilisation that of the reports, which says what was observed."""
    is_real = measure.key == "utilization" and run.utilization_kind in (DEVICE_EVENTS.word, LOOP_BODY.word)
    return label_of(run.utilization_kind) if is_real else measure.label


def show(runs: Sequence[Compared]) -> None:
    """Print the comparison."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines(runs, width_of(console)):
        console.print(line if encodable(line.plain, console.encoding) else ascii_only(line.plain))


def repeated_lines(base: str, other: str, said: Repeated) -> list[str]:
    """Return the result of repeated pairs of runs, the answer first."""
    interval = f"{units.signed_percent(said.low)} to {units.signed_percent(said.high)}"
    change = f"{units.percent(abs(said.relative))} {'faster' if said.relative > 0 else 'slower'}"
    if said.low <= 0 <= said.high:
        change = "as fast, within noise"
    answer = f"{other} against {base}: {change} (95% CI {interval}), {len(said.rates)} pairs in turn."
    lines = [*textwrap.wrap(clean(answer), WIDTH)]
    if not said.is_fair:
        lines.insert(0, f"{UNFAIR}: other programs ran beside most pairs.")
    table = TextTable(("pair", "first", "second", "change"), WIDTH, right=(1, 2, 3))
    for number, (one, two) in enumerate(said.rates, 1):
        rates = (units.sample_rate(one), units.sample_rate(two), units.signed_percent(two / one - 1))
        table.row(f"  {number}", *rates)
    return [*lines, *table.plain(), *(f"  {why}" for why in said.unfair)]


def as_data(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return the comparison for machines: shares of 1, ns, samples a second."""
    return [
        {
            "base": comparison.base,
            "other": comparison.other,
            "unlike": list(comparison.unlike),
            "unfair": list(comparison.unfair),
            "cores": None if comparison.cores is None else comparison.cores.as_dict(),
            "emulated": list(comparison.emulated),
            "settings": [{"key": key, "base": old, "other": new} for key, old, new in comparison.settings],
            "differences": [_datum(each) for each in comparison.differences],
            "owners_ns_per_step": [_datum(each) for each in comparison.owners],
        }
        for comparison in runs
    ]


def _datum(difference: Difference) -> dict[str, Any]:
    return {
        "measure": difference.measure.key,
        "base": asdict(difference.base),
        "other": asdict(difference.other),
        "difference": difference.value,
        "interval": [difference.low, difference.high] if difference.low is not None else None,
        "relative": difference.relative,
        "says": difference.says,
    }


def markdown(runs: Sequence[Compared]) -> str:
    """Return a table for a pull request."""
    parts = []
    for comparison in runs:
        rows = [f"### {escaped(comparison.other)} against {escaped(comparison.base)}", ""]
        rows += [f"- **{UNFAIR}**: {escaped(why)}." for why in comparison.unfair]
        if comparison.cores is not None and comparison.cores.sentence:
            rows.append(f"- {escaped(comparison.cores.sentence)}.")
        rows += [f"- not alike: {escaped(why)}" for why in comparison.unlike]
        rows += [f"- `{code(key)}`: {escaped(old)} → {escaped(new)}" for key, old, new in comparison.settings]
        rows += [f"- emulated: {escaped(', '.join(comparison.emulated))}"] if comparison.emulated else []
        rows += ["", "| | base | other | difference | |", "| --- | ---: | ---: | ---: | --- |"]
        for each in (*comparison.differences, *telling(comparison)):
            name = label(comparison, each.measure)
            name = name if each in comparison.differences else f"each step: {name}"
            base, other = each.measure.text(each.base.value), each.measure.text(each.other.value)
            rows.append(f"| {escaped(name)} | {base} | {other} | {change(each)} | {each.says} |")
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, HOW]) + "\n"


def write_html(runs: Sequence[Compared], path: Path) -> Path:
    """Write the comparison as a page; whole or not at all."""
    specs: dict[str, Any] = {}
    pairs = []
    for number, comparison in enumerate(runs):
        name = f"differences{number}"
        specs[name] = charts.differences(_dots(comparison), f"{comparison.other} against {comparison.base}")
        pairs.append(
            {
                "title": f"{comparison.other} against {comparison.base}",
                "headline": headline(comparison),
                "chart": name,
                "unlike": comparison.unlike,
                "unfair": comparison.unfair,
                "cores": comparison.cores.sentence if comparison.cores is not None else "",
                "tables": [
                    _table(comparison, "The numbers", comparison.differences),
                    _table(comparison, "What differs in each step, by owner", telling(comparison)),
                ],
                "settings": [(key, f"{old} → {new}") for key, old, new in comparison.settings],
                "emulated": [words.emulated_label(part) for part in comparison.emulated],
            }
        )
    context = {"pairs": pairs, "how": HOW, "unfair": UNFAIR, "crumbs": ["comparison"]}
    text = document.render("compare.html.j2", "comparison", context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def headline(compared: Compared) -> str:
    """Return the change of the throughput, in one sentence."""
    rate = compared.differences[0]
    if rate.relative is None:
        return f"The throughput was {units.NOT_OBSERVED}."
    if not rate.beyond_noise:
        return f"Throughput: {rate.says}."
    word = "faster" if rate.relative > 0 else "slower"
    ends = sorted(map(abs, rate.shown_interval or (0.0, 0.0)))
    but = ", but not a fair comparison" if compared.unfair else _although(compared)
    return f"{units.percent(abs(rate.relative))} {word} (95% CI {units.interval((ends[0], ends[1]))}){but}."


def _although(compared: Compared) -> str:
    """Return what explains a rate and a stall that moved in opposite ways: work that is not waiting."""
    rate, stall = compared.differences[:2]
    if {rate.says, stall.says} != {"better", "worse"}:
        return ""
    others = [each for each in telling(compared) if not owners.is_stall(each.measure.key)]
    moved = next((each for each in others if ((each.value or 0.0) < 0) == (rate.says == "better")), None)
    waited = f", although it waited {'more' if stall.says == 'worse' else 'less'}"
    if moved is None:
        return waited
    base, other = (moved.measure.text(figure.value) for figure in (moved.base, moved.other))
    return f"{waited}: {moved.measure.label} {base} → {other} each step"


def _dots(compared: Compared) -> list[dict[str, Any]]:
    """Return the differences in percent of the base (points for shares), with their intervals."""
    rows = []
    for each in compared.differences:
        if each.value is not None and (each.measure.kind == "share" or each.base.value):
            value = each.value / each.unit
            low, high = each.shown_interval or (value, value)
            tone = {"better": "#087a57", "worse": "#d1480c"}.get(each.says, "#8b92a0")
            rows.append(
                {
                    "measure": label(compared, each.measure),
                    "value": 100 * value,
                    "low": 100 * low,
                    "high": 100 * high,
                    "text": change(each),
                    "says": each.says,
                    "colour": tone,
                }
            )
    return rows


def _table(compared: Compared, caption: str, differences: Sequence[Difference]) -> Table:
    heads = ["", "base", "other", "difference", "in words"]
    rows = [
        Row(
            [
                label(compared, each.measure),
                each.measure.text(each.base.value),
                each.measure.text(each.other.value),
                change(each),
                each.says,
            ]
        )
        for each in differences
    ]
    return Table(caption, heads, rows)
