"""The HTML report of a run, and the page of a matrix: one self-contained file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeprof.report import advice, charts, document, matrix, page, units, words, workers
from pipeprof.report.facts import Answer, Facts, facts
from pipeprof.report.section import Row, Section, Table
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


def write_matrix(answers: Sequence[Answer], path: Path) -> Path:
    """Write the page of a matrix, all its runs as cells; whole or not at all."""
    found = matrix.matrix(answers)
    maps = matrix.heat_maps(found)
    emulated = sum(cell.emulated for cell in found.cells)
    count = units.plural(len(found.cells), "run")
    chips = [{"text": f"emulated parts in {emulated} of {count}", "class": "emulated"}] if emulated else []
    view = {
        "headline": matrix.headline(found),
        "lead": matrix.enough(found),
        "chips": [*chips, {"text": count, "class": ""}],
        "maps": [{"title": title, "name": f"map{i}"} for i, (title, _) in enumerate(maps)],
        "cells": _cells_table(found),
    }
    specs = {f"map{i}": spec for i, (_, spec) in enumerate(maps)}
    context = {"v": view, "crumbs": [found.name, count]}
    text = document.render("matrix.html.j2", found.name, context, {"charts": specs}, timeline=False)
    write_atomically(path, text)
    return path


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
