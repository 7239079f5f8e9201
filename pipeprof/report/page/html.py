"""The HTML report of a run, and the page of a matrix: one self-contained file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.analyse.sentence import of_owner
from pipeprof.analyse.why.lines import HotLine
from pipeprof.record.files import write_atomically
from pipeprof.report.page import charts, contents, document, matrix, predicted_matrix, workers
from pipeprof.report.page.section import Chart, Row, Section, Table
from pipeprof.report.page.source import Source, diff_of, no_source, source_of
from pipeprof.report.wording import advice, words
from pipeprof.report.wording.view import (
    NO_VERDICT,
    RunView,
    cost_line,
    loader_line,
    outside_line,
    stall_line,
    view_of,
)
from pipeprof.simulate.forecast import Forecast
from pipeprof.simulate.matrix_predictions import MatrixPredictions
from pipeprof.vocabulary import bands, causes, fixes
from pipeprof.vocabulary.utilization import label_of


def write(
    forecast: Forecast, path: Path, with_source: bool = True, price_per_hour: float | None = None
) -> Path:
    """Write the report of one run, whole or not at all; the fix that it names is recorded beside the run.

    `with_source` shows the source text of its hot lines, if their files are here and have not changed. With a
    price of the accelerator it says what the waiting costs.
    """
    write_atomically(path, render(forecast, with_source, price_per_hour))
    return path


def render(forecast: Forecast, with_source: bool = True, price_per_hour: float | None = None) -> str:
    """Render the report of one run as one HTML text."""
    said = view_of(forecast.analysis.run, forecast.publish())
    source = source_of(said.meta) if with_source else no_source
    parts = contents.sections(forecast, said, source)
    packed = workers.packed(forecast.analysis)
    return document.render(
        "run.html.j2",
        said.name,
        {
            "v": {**_verdict(forecast, said, source, price_per_hour), "sections": parts},
            "crumbs": _crumbs(said),
        },
        {"charts": chart_specs(parts), "timeline": packed},
        timeline=packed is not None,
    )


def chart_specs(parts: list[Section]) -> dict[str, Any]:
    """Return every chart's specification by name."""
    return {chart.name: chart.spec for part in parts for chart in part.charts}


def _crumbs(said: RunView) -> list[str]:
    return [said.name, said.created, *([] if said.status == "complete" else [said.status])]


def _verdict(
    forecast: Forecast, said: RunView, source: Source, price_per_hour: float | None
) -> dict[str, Any]:
    """Return the content of the first screen."""
    stalled = said.stall_share is not None
    number_of = "of the time waiting for data" if stalled else "stall " + units.NOT_OBSERVED
    return {
        "headline": said.headline,
        "number": units.percent(said.stall_share) if stalled else "?",
        "number_of": f"{number_of}: {NO_VERDICT}" if said.inconclusive else number_of,
        "tone": _tone(said),
        "lead": [*_lead(said), *filter(None, [cost_line(said, price_per_hour)])],
        "why": _why(said),
        "lines": [_line(line, source) for line in said.hot],
        "next": _next(said),
        "chips": _chips(said),
        "doubts": said.doubts,
        "fixes": advice.cards(forecast, said, lambda arguments: diff_of(said, arguments, source)),
        "fixes_how": advice.hint(forecast),
        "fold": said.healthy,
    }


def _tone(said: RunView) -> str:
    if said.inconclusive:
        return "unsure"
    if said.band == bands.NOT.word:
        return "good" if said.cause == causes.ACCELERATOR.word else ""  # something else takes the time
    return "alarm"


def _lead(said: RunView) -> list[str]:
    name = said.utilization_name
    used = f"{name[:1].upper()}{name[1:]} {units.percent(said.utilization)}, "
    return [
        *([stall_line(said)] if said.stall_share is not None or not said.inconclusive else []),
        *([f"{used}{units.sample_rate(said.throughput)}."] if said.steps else []),
        *(line for line in (outside_line(said), loader_line(said)) if line),
    ]


def _why(said: RunView) -> dict[str, str]:
    """Return the mechanism, or else the figures that show the cause; empty texts if there are neither."""
    if said.inconclusive:
        return {"label": "", "text": ""}
    label = said.mechanism or ""
    return {"label": f"{label[:1].upper()}{label[1:]}", "text": said.evidence}


def _line(line: HotLine, source: Source) -> dict[str, str]:
    """Return one line of the first screen."""
    call = f", which calls {line.call}" if line.call else ""
    return {
        "share": units.percent(line.share),
        "of": of_owner(line),
        "place": line.place,
        "where": f"in {line.function}{call}",
        "code": source(line),
    }


def _next(said: RunView) -> dict[str, str]:
    """Return the fix: what to do, the harm that applies, and what it changes; empty if there is no fix."""
    known = fixes.BY_WORD[said.fix]
    if known is fixes.NONE:
        do = said.next_step
        return {"do": do, "warning": "", "changes": "", "command": advice.measuring_more(said)} if do else {}
    return {"do": f"{known.do}.", "warning": said.warning or "", "changes": known.changes, "command": ""}


def _chips(said: RunView) -> list[dict[str, str]]:
    emulated = [{"text": words.emulated_label(part), "class": "emulated"} for part in said.emulated]
    status = [] if said.status == "complete" else [{"text": f"run {said.status}", "class": "emulated"}]
    return [*status, *emulated, *({"text": text, "class": ""} for text in said.chips)]


def write_matrix(analyses: Sequence[Analysis], predictions: MatrixPredictions | None, path: Path) -> Path:
    """Write the page of a matrix, all its runs as cells; whole or not at all.

    Each cell stands next to what one of the runs predicts for it, if one does.
    """
    laid_out = matrix.matrix(analyses, predictions)
    maps = matrix.heat_maps(laid_out)
    specs = {f"map{i}": heat_map.chart for i, heat_map in enumerate(maps)}
    trust = _matrix_trust(laid_out)
    emulated = sum(cell.emulated for cell in laid_out.cells)
    count = units.plural(len(laid_out.cells), "run")
    chips = [{"text": f"emulated parts in {emulated} of {count}", "class": "emulated"}] if emulated else []
    view = {
        "headline": matrix.headline(laid_out),
        "lead": [*matrix.enough(laid_out), *matrix.in_all(laid_out)],
        "chips": [*chips, {"text": count, "class": ""}],
        "maps": [{"title": heat_map.title, "name": f"map{i}"} for i, heat_map in enumerate(maps)],
        "scale": charts.stall_scale(),
        "source": matrix.knobs_text(laid_out.source) if laid_out.source else "",
        "cells": _cells_table(laid_out),
        "trust": trust,
    }
    specs |= {chart.name: chart.spec for chart in trust.charts}
    context = {"v": view, "crumbs": [laid_out.name, count]}
    text = document.render("matrix.html.j2", laid_out.name, context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def _matrix_trust(laid_out: matrix.Matrix) -> Section:
    section = Section("trust", "Can you trust it")
    if laid_out.source is None:
        section.missing = "Nothing was predicted: no run of this matrix can be predicted from."
        return section
    pairs, source = matrix.pairs(laid_out), matrix.knobs_text(laid_out.source)
    section.how = predicted_matrix.summary(pairs, source)
    if pairs:
        how = (
            "One point a cell, with the interval of its prediction. On the dashed line both are the same; "
            "above it the run was faster than predicted."
        )
        section.charts = [Chart("trust", predicted_matrix.chart(pairs, source), how=how)]
    section.tables = [predicted_matrix.table(pairs, laid_out.missing)]
    return section


def _cause(word: str) -> str:
    """Return a cause for the table; none if the accelerator was kept busy."""
    return "–" if word == causes.ACCELERATOR.word else causes.text_of(word)


def _cells_table(laid_out: matrix.Matrix) -> Table:
    keys = [key for key in (*laid_out.others, laid_out.across, laid_out.down) if key]
    heads = [words.knob(key) for key in keys] or ["cell"]
    mixed = len({cell.emulated for cell in laid_out.cells}) > 1
    used = label_of(laid_out.utilization_kind)
    rows = [
        Row(
            [
                *([cell.knobs[key] for key in keys] or ["the one cell"]),
                units.percent(cell.stall),
                units.percent(cell.utilization),
                units.digits(cell.throughput),
                _cause(cell.cause),
                *(["yes" if cell.emulated else "no"] if mixed else []),
            ]
        )
        for cell in laid_out.cells
    ]
    parts = ["emulated parts"] if mixed else []
    return Table("Every cell", [*heads, "waiting", used, "samples/s", "cause", *parts], rows)


def write_pictures(forecast: Forecast, directory: Path) -> list[str]:
    """Write each chart of a run's report as a PNG into `directory`; returns the paths."""
    said = view_of(forecast.analysis.run, forecast.publish())
    return charts.pictures(chart_specs(contents.sections(forecast, said)), directory)
