"""The runs of a matrix as cells: which knobs vary between them, and small multiples of heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeprof.report import charts, foretold, units, words
from pipeprof.report.facts import Answer, Facts, facts
from pipeprof.simulate.predict import Prediction

_ACROSS: Final = ("loader.workers", "run.seconds", "loader.batch_size")
_DOWN: Final = ("loader.prefetch", "loader.batch_size", "accelerator.step_ms")
_NOT_KNOBS: Final = ("name", "about", "expect", "matrix", "cell", "run.seed")


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the matrix, or one prediction."""

    knobs: Mapping[str, str]
    """Dotted key to value, only of the keys that vary."""
    stall: float | None
    throughput: float | None
    utilization: float | None
    cause: str
    emulated: bool
    directory: str
    foretold: Prediction | None = None
    """What the run of another cell predicts for it."""
    source: bool = False
    """Its run is the one that the others are predicted from."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The cells and how to lay them out: columns, rows, and one heat map for each combination of the rest."""

    name: str
    cells: tuple[Cell, ...]
    across: str | None
    down: str | None
    others: tuple[str, ...]
    missing: tuple[tuple[str, str], ...] = ()
    """Cells that were not predicted, each with the reason."""

    @property
    def source(self) -> Cell | None:
        """The cell whose run the others are predicted from."""
        return next((cell for cell in self.cells if cell.source), None)


def matrix(answers: Sequence[Answer], predict_from: str | None = None) -> Matrix:
    """Read the runs of one matrix, and predict them all from one: the one called so, or the middle one.

    Raises `PipeprofError` where no run is called `predict_from`, or it cannot be predicted from.
    """
    said = [facts(answer) for answer in answers]
    knobs = [flat(_resolved(one.meta)) for one in said]
    varying = [key for key in _varied(said, knobs) if len({str(one.get(key)) for one in knobs}) > 1]
    across = _pick(varying, _ACROSS)
    down = _pick([key for key in varying if key != across], _DOWN)
    others = tuple(key for key in varying if key not in (across, down))
    cells = tuple(
        _cell(one, {key: _text(own.get(key)) for key in varying})
        for one, own in zip(said, knobs, strict=True)
    )
    found = Matrix(_name(said), cells, across, down, others)
    every = [{key: _text(own.get(key)) for key in _keys(knobs)} for own in knobs]
    told = foretold.foretell(answers, every, predict_from)
    return found if told is None else _with(found, told)


def _with(found: Matrix, told: foretold.Foretold) -> Matrix:
    cells = tuple(
        replace(cell, foretold=told.cells[i], source=i == told.source) for i, cell in enumerate(found.cells)
    )
    missing = tuple((said_knobs(cell), why) for cell, why in zip(cells, told.why_not, strict=True) if why)
    return replace(found, cells=cells, missing=missing)


def _name(said: Sequence[Facts]) -> str:
    """The scenario's name: of a cell's, what stands before its knobs."""
    if not said:
        return "no runs"
    cell = (said[0].meta.get("scenario") or {}).get("resolved", {}).get("cell")
    name = said[0].name
    return name.partition("=")[0].rpartition("-")[0] or name if cell else name


def _varied(said: Sequence[Facts], knobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the scenario's matrix; of runs from elsewhere, every key."""
    cells = [_resolved(one.meta).get("cell") for one in said]
    if cells and all(isinstance(cell, Mapping) and cell for cell in cells):
        return list(dict.fromkeys(key for cell in cells for key in cell))  # type: ignore[union-attr]
    return _keys(knobs)


def _text(value: Any) -> str:
    return foretold.DEFAULT if value is None else str(value)


def _keys(knobs: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for one in knobs for key in one if not key.startswith(_NOT_KNOBS)))


def _pick(varying: Sequence[str], wanted: Sequence[str]) -> str | None:
    found = [key for key in wanted if key in varying]
    numeric = [key for key in varying if key != "storage.tier"]
    return next(iter((*found, *numeric)), None)


def _resolved(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scenario as resolved; without one, what run.json says of the loader and the storage."""
    scenario = meta.get("scenario")
    if isinstance(scenario, Mapping) and isinstance(scenario.get("resolved"), Mapping):
        return dict(scenario["resolved"])
    loaders, storage = meta.get("loaders") or [{}], meta.get("storage") or {}
    loader = {
        key: loaders[0].get(key) for key in ("workers", "prefetch", "batch_size", "pin_memory", "in_order")
    }
    return {"loader": loader, "storage": {"tier": storage.get("tier")}}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"loader": {"workers": 4}}` as `{"loader.workers": 4}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _cell(said: Facts, knobs: dict[str, str]) -> Cell:
    return Cell(
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
    """One small multiple: the cells as measured and, where they were predicted, as predicted."""

    title: str
    measured: dict[str, Any]
    predicted: dict[str, Any] | None


def heat_maps(found: Matrix) -> list[Multiple]:
    """The small multiples in order of appearance."""
    names = (words.knob(found.across or ""), words.knob(found.down or ""))
    maps = []
    for title, cells in _groups(found).items():
        measured = charts.heat_map([_box(found, c, c.stall) for c in cells], _say(cells), *names)
        told = None
        if any(cell.foretold for cell in cells):
            boxes = [_box(found, c, c.foretold.stall.value if c.foretold else None, True) for c in cells]
            told = charts.heat_map(boxes, _say(cells, predicted=True), *names)
        maps.append(Multiple(title, measured, told))
    return maps


def pairs(found: Matrix) -> list[foretold.Pair]:
    """The cells that were both predicted and measured."""
    return [
        foretold.Pair(said_knobs(cell), cell.foretold, cell.throughput, cell.stall)
        for cell in found.cells
        if cell.foretold is not None and cell.throughput
    ]


def headline(found: Matrix) -> str:
    """The range of the stall over the cells, and what goes with its ends."""
    seen = [cell for cell in found.cells if cell.stall is not None]
    if not seen:
        return "No run of this matrix was long enough to say anything."
    best, worst = (one(seen, key=lambda cell: cell.stall or 0.0) for one in (min, max))
    return (
        f"The accelerator waited between {units.percent(best.stall)} and {units.percent(worst.stall)} "
        f"of the time, the most with {said_knobs(worst)}."
    )


def said_knobs(cell: Cell) -> str:
    """`tier hdd, workers 4`."""
    return ", ".join(f"{words.knob(key)} {value}" for key, value in cell.knobs.items()) or "the one cell"


def enough(found: Matrix, target: float = 0.05) -> list[str]:
    """For each small multiple the first cell, in order of the knobs, whose stall is below `target`."""
    lines = []
    for title, cells in _groups(found).items():
        low = [cell for cell in cells if cell.stall is not None and cell.stall < target]
        first = min(low, key=lambda cell: [_value(cell.knobs[key]) for key in _axes(found)], default=None)
        where = f"{title}: " if title else ""
        if first is None:
            lines.append(f"{where}no cell stays below {units.percent(target)}.")
        else:
            knobs = ", ".join(f"{words.knob(key)} {first.knobs[key]}" for key in _axes(found))
            lines.append(f"{where}below {units.percent(target)} from {knobs or 'the one cell'} on.")
    return lines


def _axes(found: Matrix) -> list[str]:
    return [key for key in (found.across, found.down) if key]


def _groups(found: Matrix) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in found.cells:
        title = ", ".join(f"{words.knob(key)} {cell.knobs[key]}" for key in found.others)
        groups.setdefault(title, []).append(cell)
    return groups


def _box(found: Matrix, cell: Cell, stall: float | None, predicted: bool = False) -> dict[str, Any]:
    fill = charts.stall_fill(stall)
    rate = cell.foretold.throughput.value if predicted and cell.foretold else cell.throughput
    note = f"stall {units.percent(stall)}, {units.sample_rate(rate)}{', predicted' if predicted else ''}"
    if predicted and cell.foretold is None:
        note = "the predictions start here" if cell.source else "not predicted"
    return {
        "across": _value(cell.knobs.get(found.across or "", "")),
        "down": _value(cell.knobs.get(found.down or "", "")),
        "text": units.percent(stall).removesuffix(" %") if stall is not None else "–" if predicted else "?",
        "fill": fill,
        "ink": words.ink(fill),
        "outline": "this run" if cell.source else "none",
        "note": f"{note}{', emulated' if cell.emulated else ''}",
    }


def _value(text: str) -> Any:
    """A knob's value to sort and to label by: numbers as numbers."""
    try:
        return float(text)
    except ValueError:
        return text


def _say(cells: Sequence[Cell], predicted: bool = False) -> str:
    stalls = [cell.foretold.stall.value for cell in cells if cell.foretold] if predicted else []
    seen = stalls or [cell.stall for cell in cells if cell.stall is not None]
    if not seen:
        return f"The stall was {units.NOT_OBSERVED}."
    verb = "was predicted" if stalls else "lies"
    return f"The stall {verb} between {units.percent(min(seen))} and {units.percent(max(seen))}."
