"""The matrix: dotted keys to lists of values, expanded to one source a cell."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from pipeprof.errors import ScenarioError
from pipeprof.scenario.faults import known_keys, unknown_key
from pipeprof.scenario.source import Source, described
from pipeprof.suggest import nearest

MAX_CELLS: Final = 1000
"""Number of runs above which a matrix is taken for a mistake."""

_FIXED: Final = ("name", "about", "expect", "matrix")


@dataclass
class Cell:
    """Cell: a combination of the matrix's values, listed in `name`."""

    name: str
    values: dict[str, Any]
    source: Source


def expand(source: Source) -> list[Cell]:
    """Return the cells of `source`, the last axis turning fastest; the source itself without a matrix."""
    matrix = source.values.pop("matrix", None) or {}
    name = source.values.get("name")
    if not isinstance(matrix, dict):
        raise ScenarioError(
            f"{source.place(('matrix',))}: matrix: is {described(matrix)}",
            "give dotted keys with a list each",
        )
    for key, values in matrix.items():
        _check_axis(source, key, values)
    _check_expected(source, matrix)
    if not matrix:
        return [Cell(str(name), {}, source)]
    count = math.prod(len(values) for values in matrix.values())
    if count > MAX_CELLS:
        sizes = " × ".join(str(len(values)) for values in matrix.values())
        raise ScenarioError(
            f"{source.place(('matrix',))}: matrix: {sizes} is {count} runs",
            f"keep it to {MAX_CELLS} or fewer",
        )
    labels = _labels(list(matrix))
    return [
        _cell(source, str(name), matrix, labels, choice)
        for choice in itertools.product(*(range(len(values)) for values in matrix.values()))
    ]


def _check_key(place: str, key: str) -> None:
    """Check that a key of the matrix is a single one, of the sections that say what to measure."""
    parts = tuple(key.split("."))
    if parts[0] in _FIXED:
        raise ScenarioError(f"{place}: matrix.{key}: cannot vary", "vary keys of data, storage, loader, ...")
    if parts[:2] == ("storage", "figures") and len(parts) == 3:
        return
    for depth, part in enumerate(parts):
        if part not in known_keys(parts[:depth]):
            problem, remedy = unknown_key(parts[: depth + 1])
            raise ScenarioError(f"{place}: matrix.{problem}", remedy)
    inside = known_keys(parts)
    if inside:
        example = f"{key}.{next(iter(inside))}"
        raise ScenarioError(f"{place}: matrix.{key}: is a section", f"vary keys in it, such as {example}")


def _check_axis(source: Source, key: str, values: Any) -> None:
    place = source.place(("matrix", key))
    _check_key(place, key)
    if not isinstance(values, list):
        raise ScenarioError(
            f"{place}: matrix.{key}: is {described(values)}", "give a list of values: [0, 4, 8]"
        )
    if not values:
        raise ScenarioError(f"{place}: matrix.{key}: is an empty list", "give at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ScenarioError(f"{place}: matrix.{key}: {value!r} stands twice", "keep one of them")


def _check_expected(source: Source, matrix: dict[str, Any]) -> None:
    """Check that each `expect.cells[].when` names axes of the matrix and values on them."""
    expect = source.values.get("expect")
    cells = expect.get("cells") if isinstance(expect, dict) else None
    for index, part in enumerate(cells if isinstance(cells, list) else ()):
        when = part.get("when") if isinstance(part, dict) else None
        for key, value in (when if isinstance(when, dict) else {}).items():
            at = f"{source.place(('expect', 'cells', index, 'when', key))}: expect.cells[{index}].when.{key}"
            if key not in matrix:
                raise ScenarioError(f"{at}: the matrix does not vary it", nearest(key, matrix))
            if value not in matrix[key]:
                raise ScenarioError(
                    f"{at}: is {value!r}", f"the matrix has: {', '.join(map(str, matrix[key]))}"
                )


def _labels(keys: list[str]) -> dict[str, str]:
    """Return short names of the axes: the last word of each key, or the whole key if two would agree."""
    short = [key.rpartition(".")[2] for key in keys]
    return {key: last if short.count(last) == 1 else key for key, last in zip(keys, short, strict=True)}


def _cell(
    source: Source, name: str, matrix: dict[str, list[Any]], labels: dict[str, str], choice: tuple[int, ...]
) -> Cell:
    cell = source.copy()
    values = {}
    for (key, axis), index in zip(matrix.items(), choice, strict=True):
        values[key] = axis[index]
        cell.put(tuple(key.split(".")), axis[index], source.place(("matrix", key, index)))
    said = ",".join(f"{labels[key]}={_word(value)}" for key, value in values.items())
    cell.values["name"] = f"{name}-{said}"
    return Cell(said, values, cell)


def _word(value: Any) -> str:
    """Return a value as part of a directory's name."""
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
