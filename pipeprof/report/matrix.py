"""The runs of a matrix as cells: which knobs vary between them, and small multiples of heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeprof.report import charts, units, words
from pipeprof.report.facts import Answer, Facts, facts

_ACROSS: Final = ("loader.workers", "run.seconds", "loader.batch_size")
_DOWN: Final = ("loader.prefetch", "loader.batch_size", "accelerator.step_ms")
_NOT_KNOBS: Final = ("name", "about", "expect", "matrix", "run.seed")


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
    predicted_throughput: float | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """The cells and how to lay them out: columns, rows, and one heat map for each combination of the rest."""

    name: str
    cells: tuple[Cell, ...]
    across: str | None
    down: str | None
    others: tuple[str, ...]


def matrix(answers: Sequence[Answer]) -> Matrix:
    """Read the runs of one matrix."""
    said = [facts(answer) for answer in answers]
    knobs = [flat(_resolved(one.meta)) for one in said]
    varying = [key for key in _keys(knobs) if len({str(one.get(key)) for one in knobs}) > 1]
    across = _pick(varying, _ACROSS)
    down = _pick([key for key in varying if key != across], _DOWN)
    others = tuple(key for key in varying if key not in (across, down))
    cells = tuple(
        _cell(one, {key: _text(own.get(key)) for key in varying})
        for one, own in zip(said, knobs, strict=True)
    )
    name = said[0].name if said else "no runs"
    return Matrix(name, cells, across, down, others)


def _text(value: Any) -> str:
    return "default" if value is None else str(value)


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


def heat_maps(found: Matrix) -> list[tuple[str, dict[str, Any]]]:
    """(title, chart) of each small multiple, in order of appearance."""
    names = (words.knob(found.across or ""), words.knob(found.down or ""))
    return [
        (title, charts.heat_map(_boxes(found, cells), _say(cells), *names))
        for title, cells in _groups(found).items()
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


def _boxes(found: Matrix, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    boxes = []
    for cell in cells:
        fill = charts.stall_fill(cell.stall)
        note = f"stall {units.percent(cell.stall)}, {units.sample_rate(cell.throughput)}"
        boxes.append(
            {
                "across": _value(cell.knobs.get(found.across or "", "")),
                "down": _value(cell.knobs.get(found.down or "", "")),
                "text": units.percent(cell.stall).removesuffix(" %") if cell.stall is not None else "?",
                "fill": fill,
                "ink": words.ink(fill),
                "outline": "none",
                "note": f"{note}{', emulated' if cell.emulated else ''}",
            }
        )
    return boxes


def _value(text: str) -> Any:
    """A knob's value to sort and to label by: numbers as numbers."""
    try:
        return float(text)
    except ValueError:
        return text


def _say(cells: Sequence[Cell]) -> str:
    seen = [cell.stall for cell in cells if cell.stall is not None]
    if not seen:
        return f"The stall was {units.NOT_OBSERVED}."
    return f"The stall lies between {units.percent(min(seen))} and {units.percent(max(seen))}."
