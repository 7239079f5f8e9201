"""Forecast of a run, drawn: what each change would give, and how far to trust that.

If a run cannot be predicted from, the sections say so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from pipeprof import units
from pipeprof.report.page import charts
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.wording import reading, words
from pipeprof.report.wording.advice import (
    costs,
    estimate,
    gain,
    headroom_text,
    replay_warning,
    rests_on,
    shared_extrapolations,
)
from pipeprof.report.wording.view import RunView
from pipeprof.simulate.extrapolation import Extrapolation, merged
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.ranking import Calibration, Ranked
from pipeprof.simulate.search import HeatMap
from pipeprof.vocabulary import causes, owners


def what_if(forecast: Forecast) -> Section:
    """Return the heat map of workers and prefetch on this storage, and every fix."""
    inconclusive = forecast.analysis.verdict.cause == causes.INCONCLUSIVE.word
    section = Section(
        "whatif",
        "If this holds: what each change would add" if inconclusive else "What if",
        reading.WHAT_IF,
    )
    section.folded = inconclusive
    cells = forecast.heat_map
    if cells is None and not forecast.unfinished:
        why = forecast.unpredicted or "this run does not answer for other numbers of workers"
        section.missing = f"No prediction: {' '.join(why.split())}."
        return section
    if forecast.unfinished:
        section.facts = [("Not ready", f"{forecast.unfinished}.")]
    if cells is not None:
        _draw_map(section, cells, forecast.calibration)
    bars = _bars(forecast)
    if bars:
        described = ", ".join(f"{bar['fix']} {bar['text']}" for bar in bars)
        how = reading.GAINS
        section.charts.append(
            Chart(
                "fixes",
                charts.gains(bars, described),
                fixes_table(forecast.fixes, shared_extrapolations(forecast)),
                "What each fix would add",
                how,
            )
        )
    else:
        section.tables = [fixes_table(forecast.fixes, shared_extrapolations(forecast))]
    return section


def _draw_map(section: Section, cells: HeatMap, calibration: Calibration | None) -> None:
    """Add the heat map and its table."""
    rest_on = [text for row in cells.cells for cell in row for text in cell.extrapolations]
    stalls = {units.percent(cell.stall.value) for row in cells.cells for cell in row}
    if len(stalls) == 1:
        section.facts += [("Waiting", f"{stalls.pop()} in all of them")]
        section.facts += _extrapolated(rest_on)
        return
    section.legend = charts.stall_scale()
    section.how += " This run is outlined in grey" + (", the advised one in blue." if cells.advised else ".")
    chart = Chart("whatif", charts.heat_map(_cells(cells, calibration), _says(cells), "workers", "prefetch"))
    chart.table = _map_table(cells)
    section.charts.append(chart)
    section.facts += _extrapolated(rest_on)


def _extrapolated(rest_on: Sequence[Extrapolation]) -> list[tuple[str, str]]:
    """Return all that predictions rest on as one fact; none if they rest on the run alone."""
    told = merged(rest_on)
    return [("Extrapolated", "; ".join(told))] if told else []


MOST_BARS: Final = 8


def _bars(forecast: Forecast) -> list[dict[str, Any]]:
    """Return the feasible fixes that gain, the largest first."""
    calibration = forecast.calibration
    now = 0.0 if calibration is None else calibration.rate(calibration.base).value
    if not now:
        return []
    bars: list[dict[str, Any]] = []
    for candidate in forecast.fixes:
        if candidate.worthwhile and len(bars) < MOST_BARS:
            rate = candidate.rate
            value, low, high = (100 * (each / now - 1) for each in (rate.value, rate.low, rate.high))
            text = f"{gain(candidate)} ({estimate(rate)} samples/s)"
            bar = {"fix": candidate.fix.title, "text": text, "colour": words.colour(owners.ACCELERATOR.name)}
            bars.append({**bar, "value": value, "low": low, "high": high})
    return bars


def _cells(heat_map: HeatMap, calibration: Calibration | None) -> list[dict[str, Any]]:
    """Return the cells' boxes."""
    boxes = []
    for workers, row in zip(heat_map.workers, heat_map.cells, strict=True):
        for prefetch, cell in zip(heat_map.prefetch, row, strict=True):
            stall = cell.stall.value
            rate = cell.throughput if calibration is None else calibration.rate(cell)
            fill = charts.stall_fill(stall)
            here = heat_map.is_current(workers, prefetch)
            there = (workers, prefetch) == heat_map.advised
            boxes.append(
                {
                    "across": workers,
                    "down": prefetch,
                    "text": units.percent(stall).removesuffix("%"),
                    "fill": fill,
                    "ink": words.ink(fill),
                    "outline": "this run" if here else "advised" if there else "none",
                    "note": f"{units.percent(stall)} ({units.interval((cell.stall.low, cell.stall.high))}), "
                    f"{units.digits(rate.value)} samples/s, predicted",
                }
            )
    return boxes


def _says(heat_map: HeatMap) -> str:
    stalls = [cell.stall.value for row in heat_map.cells for cell in row]
    return f"The predicted stall lies between {units.percent(min(stalls))} and {units.percent(max(stalls))}."


def _map_table(heat_map: HeatMap) -> Table:
    rows = [
        Row([str(workers), *(units.percent(cell.stall.value) for cell in row)])
        for workers, row in zip(heat_map.workers, heat_map.cells, strict=True)
    ]
    return Table("Predicted stall", ["workers", *(f"prefetch {p}" for p in heat_map.prefetch)], rows)


def fixes_table(ranked: Sequence[Ranked], shared: Collection[Extrapolation]) -> Table:
    """List every fix, with what each rests on beyond what all `shared`."""
    rows = [
        Row(
            [
                candidate.fix.title,
                units.signed_percent(candidate.gain),
                estimate(candidate.rate),
                units.percent(candidate.prediction.stall.value),
                (costs(candidate) or "–") + ("" if candidate.feasible else ", too much here"),
                owners.limit_of(candidate.prediction.limit),
            ],
            how="; ".join((candidate.fix.how, *rests_on(candidate, shared))),
        )
        for candidate in ranked
    ]
    heads = ["fix", "gain", "samples/s (interval)", "stall", "needs", "then limited by"]
    return Table(
        "Every fix that was considered",
        heads,
        rows,
        f"All {len(rows)} fixes that were considered",
        folded=True,
    )


def trust(forecast: Forecast, facts: RunView) -> Section:
    """Draw the replay of the run, unchanged, against what was measured."""
    section = Section(
        "trust",
        "Can you trust it",
        reading.TRUST,
    )
    replay = forecast.replay
    if replay is None:
        section.missing = "Nothing was predicted from this run."
        return section
    rows = []
    for label, measured, predicted, text in (
        ("samples/s", facts.throughput, replay.throughput, units.digits),
        ("utilisation", facts.utilization, replay.utilization, units.percent),
        ("stall", facts.stall_share, replay.stall, units.percent),
    ):
        between = f"{text(predicted.low).removesuffix('%')}–{text(predicted.high)}"
        rows.append(Row([label, text(measured), text(predicted.value), between]))
    if rough := replay_warning(forecast):
        section.how += f" {rough}."
    section.tables = [Table("Predicted beside measured", ["", "measured", "replayed", "interval"], rows)]
    best, calibration = forecast.best_of_loaders, forecast.calibration
    if best is not None and calibration is not None and not facts.inconclusive:
        section.facts = [("Headroom", headroom_text(best, calibration))]
    if forecast.heat_map is None:  # its section says them otherwise
        section.facts += _extrapolated(replay.extrapolations)
    return section
