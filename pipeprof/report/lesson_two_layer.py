"""Claim 8 of the lecture: one two-layer net in every way of the notes, and the optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeprof.report import lesson_draw, units
from pipeprof.report.lesson_claims import unobserved
from pipeprof.report.lesson_compute import step_ns
from pipeprof.report.lesson_course import Course
from pipeprof.report.lesson_draw import Bar
from pipeprof.report.lesson_words import Claim, claim
from pipeprof.report.section import Table

AGREE: Final = 1e-3
"""Relative difference in loss at the last iteration that counts as agreement (float32)."""
OPTIMIZERS: Final = {
    "sgd": "SGD",
    "momentum": "SGD, momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "lbfgs": "L-BFGS",
}

Outcome = Mapping[str, Any]


def two_layer(course: Course) -> Claim:
    """Claim 8."""
    told, rows = claim(8, course.directory), course.two_layer.get("outcomes") or []
    done = [row for row in rows if row.get("losses")]
    if done:
        _ways(told, done)
    if rows:
        told.tables.append(_table(rows))
    else:
        told.missing.append(f"The ways to write it: not observed ({course.why_missing('8_two_layer')}).")
    if rows and not any(row["device"] == "cuda" for row in rows):
        told.missing.append("On a GPU: not observed, there is none here.")
    _optimizers(course, told)
    if not told.answer and told.more:
        told.answer = told.more.pop()
    return told if told.answer else unobserved(told, course, "8_two_layer")


def _ways(told: Claim, done: Sequence[Outcome]) -> None:
    widths = list(dict.fromkeys(row["d_in"] for row in done))
    told.answer, *told.more = (
        _agreement(width, [row for row in done if row["d_in"] == width]) for width in widths
    )
    first = [row for row in done if row["d_in"] == widths[0]]
    told.short = f"{len(first)} ways, {'one loss' if apart(first) <= AGREE else 'not one loss'}"
    shown = [
        Bar(_way(row), row["iteration_ns"] / 1e3, units.duration(row["iteration_ns"]), "accelerator")
        for row in first
    ]
    title = f"One iteration in each way, {widths[0]} inputs (measured)"
    how = "The axis is logarithmic: bars of one and of two lengths may differ ten times."
    told.charts.append(
        lesson_draw.bars("claim8_ways", shown, "time of an iteration, µs", title, how, log=True)
    )


def apart(rows: Sequence[Outcome]) -> float:
    """How far the last losses are from each other, relative to the smallest."""
    last = [float(row["losses"][-1]) for row in rows]
    return (max(last) - min(last)) / abs(min(last)) if min(last) else float("inf")


def _agreement(width: int, rows: Sequence[Outcome]) -> str:
    verb = "agree" if apart(rows) <= AGREE else "do not agree"
    fastest = min(rows, key=lambda row: row["iteration_ns"])
    count = len(rows[0]["losses"])
    return (
        f"With {width} inputs {len(rows)} ways {verb} in the loss at iteration {count}: "
        f"{rows[0]['losses'][-1]:.4g}, within {apart(rows):.0e} of each other ({AGREE:g} was allowed); "
        f"the fastest is {_way(fastest)} with {units.duration(fastest['iteration_ns'])} an iteration "
        "(measured)."
    )


def _way(row: Outcome) -> str:
    return f"{row['way']}, GPU" if row["device"] == "cuda" else str(row["way"])


def _table(rows: Sequence[Outcome]) -> Table:
    cells = []
    for row in rows:
        if row.get("losses"):
            times = (units.duration(row[key]) for key in ("iteration_ns", "first_iteration_ns"))
            cells.append([_way(row), str(row["d_in"]), f"{row['losses'][-1]:.6g}", *times])
        else:
            why = f"not observed: {row.get('why')}"
            cells.append([f"{_way(row)} ({why})", str(row["d_in"]), *[units.NOT_OBSERVED] * 3])
    heads = ["way", "inputs", "last loss", "each iteration", "first iteration"]
    return lesson_draw.table("Every way", heads, cells)


def _optimizers(course: Course, told: Claim) -> None:
    times = {
        label: step_ns(course.get(f"8_optimizers-optimizer={word}")) for word, label in OPTIMIZERS.items()
    }
    shown = [Bar(label, ns / 1e3, units.duration(ns), "accelerator") for label, ns in times.items() if ns]
    if not shown:
        told.missing.append(f"The optimisers: not observed ({course.why_missing('8_optimizers')}).")
        return
    cheap, dear = min(shown, key=lambda bar: bar.value), max(shown, key=lambda bar: bar.value)
    told.more.append(
        f"A step with {cheap.label} takes {cheap.text}, with {dear.label} {dear.text} (measured)."
    )
    how = "L-BFGS evaluates the net up to four times in a step."
    title = "One step of training with each optimiser (measured)"
    told.charts.append(lesson_draw.bars("claim8_optimizers", shown, "time of a step, µs", title, how))
