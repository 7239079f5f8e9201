"""The runs of a matrix as cells: which knobs vary between them, and small multiples of heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.analysis import Analysis
from pipeprof.report.page import charts
from pipeprof.report.wording import words
from pipeprof.report.wording.view import RunView, facts
from pipeprof.simulate.matrix_predictions import MatrixPredictions, Pair, keys_of, settings_of, text_of
from pipeprof.simulate.predict import Prediction

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

    @property
    def source(self) -> MatrixCell | None:
        """Return the cell whose run the others are predicted from."""
        return next((cell for cell in self.cells if cell.source), None)


def matrix(analyses: Sequence[Analysis], predictions: MatrixPredictions | None = None) -> Matrix:
    """Lay out the runs of one matrix, each beside what another one predicts for it."""
    said = [facts(each.run, each.verdict) for each in analyses]
    knobs = [settings_of(each) for each in analyses]
    varying = [key for key in _varied(said, knobs) if len({str(values.get(key)) for values in knobs}) > 1]
    across = _pick(varying, _ACROSS)
    down = _pick([key for key in varying if key != across], _DOWN)
    others = tuple(key for key in varying if key not in (across, down))
    cells = tuple(
        _cell(answer, {key: text_of(own.get(key)) for key in varying})
        for answer, own in zip(said, knobs, strict=True)
    )
    laid_out = Matrix(_name(said), cells, across, down, others)
    return laid_out if predictions is None else _with(laid_out, predictions)


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
    """Return the scenario's name: of a cell's, what stands before its knobs."""
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
    """Small multiple: the cells as measured and, where they were predicted, as predicted."""

    title: str
    measured: dict[str, Any]
    predicted: dict[str, Any] | None


def heat_maps(laid_out: Matrix) -> list[Multiple]:
    """Return the small multiples in order of appearance."""
    names = (words.knob(laid_out.across or ""), words.knob(laid_out.down or ""))
    maps = []
    for title, cells in _groups(laid_out).items():
        measured = charts.heat_map([_box(laid_out, c, c.stall) for c in cells], _say(cells), *names)
        predicted = None
        if any(cell.prediction for cell in cells):
            boxes = [
                _box(laid_out, c, c.prediction.stall.value if c.prediction else None, True) for c in cells
            ]
            predicted = charts.heat_map(boxes, _say(cells, predicted=True), *names)
        maps.append(Multiple(title, measured, predicted))
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
        f"The accelerator waited between {units.percent(best.stall)} and {units.percent(worst.stall)} "
        f"of the time, the most with {knobs_text(worst)}."
    )


def knobs_text(cell: MatrixCell) -> str:
    """Return the knobs in words, such as `tier hdd, workers 4`."""
    return ", ".join(f"{words.knob(key)} {value}" for key, value in cell.knobs.items()) or "the one cell"


def enough(laid_out: Matrix, target: float = 0.05) -> list[str]:
    """Return, for each small multiple, the first cell in order of knobs whose stall is below `target`."""
    lines = []
    for title, cells in _groups(laid_out).items():
        low = [cell for cell in cells if cell.stall is not None and cell.stall < target]
        first = min(low, key=lambda cell: [_value(cell.knobs[key]) for key in _axes(laid_out)], default=None)
        where = f"{title}: " if title else ""
        if first is None:
            lines.append(f"{where}no setting keeps waiting under {units.percent(target)}.")
        else:
            knobs = ", ".join(f"{words.knob(key)} {first.knobs[key]}" for key in _axes(laid_out))
            lines.append(
                f"{where}waiting stays under {units.percent(target)} from {knobs or 'the one cell'} on."
            )
    return lines


def _axes(laid_out: Matrix) -> list[str]:
    return [key for key in (laid_out.across, laid_out.down) if key]


def _groups(laid_out: Matrix) -> dict[str, list[MatrixCell]]:
    groups: dict[str, list[MatrixCell]] = {}
    for cell in laid_out.cells:
        title = ", ".join(f"{words.knob(key)} {cell.knobs[key]}" for key in laid_out.others)
        groups.setdefault(title, []).append(cell)
    return groups


def _box(laid_out: Matrix, cell: MatrixCell, stall: float | None, predicted: bool = False) -> dict[str, Any]:
    fill = charts.stall_fill(stall)
    rate = cell.prediction.throughput.value if predicted and cell.prediction else cell.throughput
    note = f"stall {units.percent(stall)}, {units.sample_rate(rate)}{', predicted' if predicted else ''}"
    if predicted and cell.prediction is None:
        note = "the predictions start here" if cell.source else "not predicted"
    return {
        "across": _value(cell.knobs.get(laid_out.across or "", "")),
        "down": _value(cell.knobs.get(laid_out.down or "", "")),
        "text": units.percent(stall).removesuffix("%") if stall is not None else "–" if predicted else "?",
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


def _say(cells: Sequence[MatrixCell], predicted: bool = False) -> str:
    stalls = [cell.prediction.stall.value for cell in cells if cell.prediction] if predicted else []
    seen = stalls or [cell.stall for cell in cells if cell.stall is not None]
    if not seen:
        return f"The stall was {units.NOT_OBSERVED}."
    verb = "was predicted" if stalls else "lies"
    return f"The stall {verb} between {units.percent(min(seen))} and {units.percent(max(seen))}."
