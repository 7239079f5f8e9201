"""The HTML report of a run, and the page of a matrix: one self-contained file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeprof.report import advice, charts, document, foretold, matrix, page, units, words, workers
from pipeprof.report.facts import Answer, Facts, facts
from pipeprof.report.section import Chart, Row, Section, Table
from pipeprof.trace import write_atomically


def write(answer: Answer, path: Path) -> Path:
    """Write the report of one run; whole or not at all."""
    write_atomically(path, render(answer))
    return path


def render(answer: Answer) -> str:
    """The report of one run as one HTML text."""
    said = facts(answer)
    parts = page.sections(answer, said)
    packed = workers.packed(answer)
    return document.render(
        "run.html.j2",
        said.name,
        {"v": {**_verdict(answer, said), "sections": parts}, "crumbs": _crumbs(said)},
        {"charts": chart_specs(parts), "timeline": packed},
        timeline=packed is not None,
    )


def chart_specs(parts: list[Section]) -> dict[str, Any]:
    """Every chart's specification by name."""
    return {chart.name: chart.spec for part in parts for chart in part.charts}


def _crumbs(said: Facts) -> list[str]:
    return [said.name, said.created, *([] if said.status == "complete" else [said.status])]


def _verdict(answer: Answer, said: Facts) -> dict[str, Any]:
    """What the first screen shows."""
    stalled = said.stall_share is not None
    return {
        "headline": said.headline,
        "number": units.percent(said.stall_share) if stalled else "?",
        "number_of": "of the time waiting for data" if stalled else "stall " + units.NOT_OBSERVED,
        "tone": "" if said.cause == "inconclusive" else "good" if said.band == "not" else "alarm",
        "lead": _lead(said),
        "chips": _chips(said),
        "doubts": said.doubts,
        "fixes": advice.cards(answer, said),
        "fixes_how": advice.hint(answer, said),
        "fold": said.healthy,
    }


def _lead(said: Facts) -> list[str]:
    lines = [said.evidence] if said.evidence else []
    if said.stall_ns is not None:
        band = words.BANDS.get(said.band or "", "in no band")
        interval = units.interval(said.stall_interval)
        lines.append(
            f"{units.duration(said.stall_ns)} of {units.duration(said.wall_ns)} lost"
            f"{f' (interval {interval})' if interval else ''}: {band}."
        )
    lines.append(
        f"{said.utilization_name[:1].upper()}{said.utilization_name[1:]} {units.percent(said.utilization)}, "
        f"{units.sample_rate(said.throughput)}."
    )
    return lines


def _chips(said: Facts) -> list[dict[str, str]]:
    emulated = [{"text": words.emulated_label(part), "class": "emulated"} for part in said.emulated]
    status = [] if said.status == "complete" else [{"text": f"run {said.status}", "class": "emulated"}]
    return [*status, *emulated, *({"text": text, "class": ""} for text in said.chips)]


def write_matrix(answers: Sequence[Answer], path: Path, predict_from: str | None = None) -> Path:
    """Write the page of a matrix, all its runs as cells; whole or not at all.

    Each cell stands beside what one of the runs predicts for it: the one in the directory called
    `predict_from`, or the middle one. Raises `PipeprofError` where that one cannot be predicted from.
    """
    found = matrix.matrix(answers, predict_from)
    maps = matrix.heat_maps(found)
    specs = {f"map{i}": one.measured for i, one in enumerate(maps)}
    specs |= {f"map{i}_predicted": one.predicted for i, one in enumerate(maps) if one.predicted}
    trust = _matrix_trust(found)
    emulated = sum(cell.emulated for cell in found.cells)
    count = units.plural(len(found.cells), "run")
    chips = [{"text": f"emulated parts in {emulated} of {count}", "class": "emulated"}] if emulated else []
    view = {
        "headline": matrix.headline(found),
        "lead": matrix.enough(found),
        "chips": [*chips, {"text": count, "class": ""}],
        "maps": [
            {"title": one.title, "name": f"map{i}", "predicted": f"map{i}_predicted" if one.predicted else ""}
            for i, one in enumerate(maps)
        ],
        "source": matrix.said_knobs(found.source) if found.source else "",
        "cells": _cells_table(found),
        "trust": trust,
    }
    specs |= {chart.name: chart.spec for chart in trust.charts}
    context = {"v": view, "crumbs": [found.name, count]}
    text = document.render("matrix.html.j2", found.name, context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


def _matrix_trust(found: matrix.Matrix) -> Section:
    section = Section("trust", "Can you trust it")
    if found.source is None:
        section.missing = "Nothing was predicted: no run of this matrix can be predicted from."
        return section
    pairs, source = matrix.pairs(found), matrix.said_knobs(found.source)
    section.how = foretold.summary(pairs, source)
    if pairs:
        how = (
            "One point a cell, with the interval of its prediction. On the dashed line both are the same; "
            "above it the run was faster than predicted."
        )
        section.charts = [Chart("trust", foretold.chart(pairs, source), how=how)]
    section.tables = [foretold.table(pairs, found.missing)]
    return section


def _cells_table(found: matrix.Matrix) -> Table:
    keys = [key for key in (*found.others, found.across, found.down) if key]
    heads = [words.knob(key) for key in keys] or ["cell"]
    rows = [
        Row(
            [
                *([cell.knobs[key] for key in keys] or ["the one cell"]),
                units.percent(cell.stall),
                units.percent(cell.utilization),
                units.sample_rate(cell.throughput),
                cell.cause,
                "yes" if cell.emulated else "no",
            ]
        )
        for cell in found.cells
    ]
    return Table(
        "Every cell", [*heads, "stall", "utilisation", "throughput", "cause", "emulated parts"], rows
    )


def write_pictures(answer: Answer, directory: Path) -> list[str]:
    """Write each chart of a run's report as a PNG into `directory`; returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    return charts.pictures(chart_specs(page.sections(answer, facts(answer))), directory)
