"""The runs of a matrix as cells: which knobs vary between them, and small multiples of heat maps."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.report.page import charts
from pipeprof.report.wording import words
from pipeprof.report.wording.view import RunView, view_of
from pipeprof.simulate.matrix_predictions import (
    DEFAULT,
    MatrixPredictions,
    Pair,
    keys_of,
    settings_of,
    text_of,
)
from pipeprof.simulate.predict import Prediction
from pipeprof.vocabulary.utilization import UtilizationKind, waiter_of

_ACROSS: Final = ("loader.workers", "run.seconds", "loader.batch_size")
_DOWN: Final = ("loader.prefetch", "loader.batch_size", "accelerator.step_ms")


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """Run of the matrix, or a prediction."""

    knobs: Mapping[str, str]
    """Dotted key to value, only of the keys that vary."""
    stall: float | None
    throughput: float | None
    utilization: float | None
    cause: str
    emulated: bool
    directory: str
    prediction: Prediction | None = None
    """Prediction for it from the run of another cell."""
    source: bool = False
    """Its run is the one that the others are predicted from."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The cells and how to lay them out: columns, rows, and one heat map for each combination of the rest."""

    name: str
    cells: tuple[MatrixCell, ...]
    across: str | None
    down: str | None
    others: tuple[str, ...]
    missing: tuple[tuple[str, str], ...] = ()
    """Cells that were not predicted, each with the reason."""
    utilization_kind: UtilizationKind | None = None
    """Kind of the cells' utilisation; None if they differ."""
    fixed: tuple[str, ...] = ()
    """Settings that all cells have, in words: two matrices of the same knobs may differ in them."""

    @property
    def waiter(self) -> str:
        """Return who waited, as the subject of a sentence."""
        return waiter_of(self.utilization_kind)

    @property
    def source(self) -> MatrixCell | None:
        """Return the cell whose run the others are predicted from."""
        return next((cell for cell in self.cells if cell.source), None)


def matrix(analyses: Sequence[Analysis], predictions: MatrixPredictions | None = None) -> Matrix:
    """Lay out the runs of one matrix, each next to what another one predicts for it."""
    said = [view_of(each.run, each.verdict) for each in analyses]
    knobs = [settings_of(each) for each in analyses]
    varying = [key for key in _varied(said, knobs) if len({str(values.get(key)) for values in knobs}) > 1]
    across = _pick(varying, _ACROSS)
    rest = [key for key in varying if key != across]
    down = _pick(rest, _DOWN) or (rest[0] if len(rest) == 1 else None)
    others = tuple(key for key in varying if key not in (across, down))
    cells = tuple(
        _cell(answer, {key: text_of(own.get(key)) for key in varying})
        for answer, own in zip(said, knobs, strict=True)
    )
    kinds = {each.utilization_kind for each in said}
    laid_out = Matrix(
        _name(said),
        cells,
        across,
        down,
        others,
        utilization_kind=kinds.pop() if len(kinds) == 1 else None,
        fixed=tuple(_fixed(said, knobs, varying)),
    )
    return laid_out if predictions is None else _with(laid_out, predictions)


_FIXED: Final = ("loader.batch_size", "loader.prefetch", "loader.workers", "accelerator.step_ms")
"""Knobs that are shown if they are the same in all cells."""


def _fixed(
    said: Sequence[RunView], knobs: Sequence[Mapping[str, Any]], varying: Sequence[str]
) -> Iterator[str]:
    """Yield the settings that all cells share, and the storage device used for each tier."""
    for key in _FIXED:
        values = {text_of(own.get(key)) for own in knobs}
        if key not in varying and len(values) == 1 and (value := values.pop()) != DEFAULT:
            yield f"{words.knob(key)} {value}"
    devices = {each.meta.storage.name: each.meta.storage.tier for each in said if each.meta.storage.name}
    yield from (f"{tier} is {name}" for name, tier in devices.items() if tier and tier != name)


def _with(laid_out: Matrix, predictions: MatrixPredictions) -> Matrix:
    cells = tuple(
        replace(cell, prediction=predictions.cells[i], source=i == predictions.source)
        for i, cell in enumerate(laid_out.cells)
    )
    missing = tuple(
        (knobs_text(cell), why) for cell, why in zip(cells, predictions.why_not, strict=True) if why
    )
    return replace(laid_out, cells=cells, missing=missing)


def _name(said: Sequence[RunView]) -> str:
    """Return the scenario's name: a cell's name without its knobs."""
    if not said:
        return "no runs"
    cell, name = said[0].meta.settings.cell, said[0].name
    return name.partition("=")[0].rpartition("-")[0] or name if cell else name


def _varied(said: Sequence[RunView], knobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of the scenario's matrix; of runs from elsewhere, every key."""
    cells = [each.meta.settings.cell for each in said]
    if cells and all(cells):
        return list(dict.fromkeys(key for cell in cells for key in cell))
    return keys_of(knobs)


def _pick(varying: Sequence[str], wanted: Sequence[str]) -> str | None:
    preferred = [key for key in wanted if key in varying]
    numeric = [key for key in varying if key != "storage.tier"]
    return next(iter((*preferred, *numeric)), None)


def _cell(said: RunView, knobs: dict[str, str]) -> MatrixCell:
    return MatrixCell(
        knobs,
        said.stall_share,
        said.throughput,
        said.utilization,
        said.cause or units.NOT_OBSERVED,
        bool(said.emulated),
        said.directory,
    )


@dataclass(frozen=True, slots=True)
class Multiple:
    """Small multiple: the cells as measured, each with what was predicted for it below."""

    title: str
    chart: dict[str, Any]


def heat_maps(laid_out: Matrix) -> list[Multiple]:
    """Return the small multiples in order of appearance."""
    names = (words.knob(laid_out.across or ""), words.knob(laid_out.down or ""))
    maps = []
    for title, cells in _groups(laid_out, laid_out.others).items():
        boxes = [_box(laid_out, cell) for cell in cells]
        maps.append(Multiple(title, charts.heat_map(boxes, _say(cells), *names)))
    return maps


def pairs(laid_out: Matrix) -> list[Pair]:
    """Return the cells that were both predicted and measured."""
    return [
        Pair(knobs_text(cell), cell.prediction, cell.throughput, cell.stall)
        for cell in laid_out.cells
        if cell.prediction is not None and cell.throughput
    ]


def headline(laid_out: Matrix) -> str:
    """Return the range of the stall over the cells, and what goes with its ends."""
    seen = [cell for cell in laid_out.cells if cell.stall is not None]
    if not seen:
        return "No run of this matrix was long enough to say anything."
    best, worst = (pick(seen, key=lambda cell: cell.stall or 0.0) for pick in (min, max))
    return (
        f"{laid_out.waiter} waited between {units.percent(best.stall)} and {units.percent(worst.stall)} "
        f"of the time, the most with {knobs_text(worst)}."
    )


def knobs_text(cell: MatrixCell) -> str:
    """Return the knobs in words, such as `tier hdd, workers 4`."""
    return ", ".join(f"{words.knob(key)} {value}" for key, value in cell.knobs.items()) or "the one cell"


def enough(laid_out: Matrix, target: float = 0.05) -> list[str]:
    """Return the first cell in order of knobs from which all stalls are below `target`, for each value of
    those without an order, as a tier is."""
    lines = []
    axes = [key for key in _axes(laid_out) if _is_ordered(laid_out, key)]
    apart = [key for key in (*laid_out.others, *_axes(laid_out)) if key not in axes]
    for title, cells in _groups(laid_out, apart).items():
        first = _first_of_enough(cells, axes, target)
        where = f"{title}: " if title else ""
        if first is None:
            lines.append(f"{where}no setting keeps waiting under {units.percent(target)}.")
        else:
            knobs = ", ".join(f"{words.knob(key)} {first.knobs[key]}" for key in axes)
            lines.append(
                f"{where}waiting stays under {units.percent(target)} from {knobs or 'the one cell'} on."
            )
    return [f"{line[:1].upper()}{line[1:]}" for line in lines]


def _first_of_enough(cells: Sequence[MatrixCell], axes: Sequence[str], target: float) -> MatrixCell | None:
    """Return the first cell that, with each that has no less of any knob, stalls for less than `target`."""

    def at(cell: MatrixCell) -> list[Any]:
        return [_value(cell.knobs[key]) for key in axes]

    def holds(first: MatrixCell) -> bool:
        beyond = [cell for cell in cells if all(map(operator.ge, at(cell), at(first)))]
        return all(cell.stall is not None and cell.stall < target for cell in beyond)

    return min(filter(holds, cells), key=at, default=None)


def _is_ordered(laid_out: Matrix, key: str) -> bool:
    """Return whether a knob's values are numbers."""
    return not any(isinstance(_value(cell.knobs[key]), str) for cell in laid_out.cells)


def in_all(laid_out: Matrix) -> list[str]:
    """Return what the cells have in common, as a sentence; nothing if that is not known."""
    return [f"In all cells: {'; '.join(laid_out.fixed)}."] if laid_out.fixed else []


def _axes(laid_out: Matrix) -> list[str]:
    return [key for key in (laid_out.across, laid_out.down) if key]


def _groups(laid_out: Matrix, keys: Sequence[str]) -> dict[str, list[MatrixCell]]:
    """Group the cells by their values of some knobs, in order of appearance."""
    groups: dict[str, list[MatrixCell]] = {}
    for cell in laid_out.cells:
        title = ", ".join(f"{words.knob(key)} {cell.knobs[key]}" for key in keys)
        groups.setdefault(title, []).append(cell)
    return groups


def _box(laid_out: Matrix, cell: MatrixCell) -> dict[str, Any]:
    fill, predicted = charts.stall_fill(cell.stall), cell.prediction
    note = f"stall {units.percent(cell.stall)}, {units.sample_rate(cell.throughput)}"
    below = ""
    if predicted is not None:
        stall, rate = units.percent(predicted.stall.value), units.sample_rate(predicted.throughput.value)
        below, note = f"pred. {stall.removesuffix('%')}", f"{note}; predicted: stall {stall}, {rate}"
    elif cell.source:
        note += "; the predictions start here"
    return {
        "across": _value(cell.knobs.get(laid_out.across or "", "")),
        "down": _value(cell.knobs.get(laid_out.down or "", "")),
        "text": units.percent(cell.stall).removesuffix("%") if cell.stall is not None else "?",
        "below": below,
        "fill": fill,
        "ink": words.ink(fill),
        "outline": "this run" if cell.source else "none",
        "note": f"{note}{', emulated' if cell.emulated else ''}",
    }


def _value(text: str) -> Any:
    """Return a knob's value to sort and to label by: numbers as numbers."""
    try:
        return float(text)
    except ValueError:
        return text


def _say(cells: Sequence[MatrixCell]) -> str:
    seen = [cell.stall for cell in cells if cell.stall is not None]
    if not seen:
        return f"The stall was {units.NOT_OBSERVED}."
    return f"The stall lies between {units.percent(min(seen))} and {units.percent(max(seen))}."
