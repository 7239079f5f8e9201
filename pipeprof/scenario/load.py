"""Loading of scenarios from a file and its overrides: expand the matrix, validate every cell, word faults."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeprof.errors import ScenarioError
from pipeprof.scenario.checks import problems
from pipeprof.scenario.credentials import in_options
from pipeprof.scenario.faults import Fault, key_of, shape_faults
from pipeprof.scenario.matrix import Cell, expand
from pipeprof.scenario.remote import settle_places
from pipeprof.scenario.schema import ExpectPart, Scenario
from pipeprof.scenario.source import Source, override, read

SHOWN: Final = 10
"""Number of a file's problems that one message shows."""

_REMOTE: Final = ("data", "storage", "matrix")
"""Sections that may name remote places."""
_PATHS: Final = (("data", "path"), ("storage", "path"), ("storage", "profile"), ("model", "weights"))


def load(path: Path | str, overrides: Iterable[str] = ()) -> list[Scenario]:
    """Return the scenarios that the file at `path` says, one a cell of its matrix, after `--set` overrides.

    Paths written in the file are relative to the file, those of overrides to the working directory; both come
    back absolute. Raises one `ScenarioError` that lists every problem with its line.
    """
    source = read(Path(path))
    source.values.setdefault("name", re.sub(r"[^\w.-]", "_", Path(path).stem).lstrip(".-") or "scenario")
    kept = next(in_options({name: source.values.get(name) for name in _REMOTE}), None)
    override(source, overrides)
    scenarios = _scenarios(source)
    if kept is not None:  # overridden, else it would have been refused; but a run keeps the file's text too
        raise ScenarioError(f"{path}: {kept} is a credential, and a run keeps this file", "take it out of it")
    return scenarios


def with_values(scenario: Scenario, values: Mapping[str, Any]) -> Scenario:
    """Return `scenario` with some dotted keys changed and all checks made again.

    Raises `ScenarioError` as `load` does. What the scenario expects is dropped if the values are not those of
    `run`, since it refers to others.
    """
    source = Source(scenario.name, scenario.resolved())
    cell = source.values.pop("cell")
    for key, value in values.items():
        source.put(tuple(key.split(".")), value, f"{key}={value}")
        source.overridden.add(tuple(key.split(".")))
    return _scenarios(source)[0].model_copy(update={"cell": cell})


def _scenarios(source: Source) -> list[Scenario]:
    _tidy(source)
    cells = expand(source)
    cell_faults: list[tuple[Cell, Fault]] = []
    scenarios = []
    for cell in cells:
        scenario, faults = _validated(cell)
        cell_faults += [(cell, fault) for fault in faults]
        if scenario is not None:
            scenarios.append(scenario)
    if cell_faults:
        raise _error(cell_faults, len(cells))
    return scenarios


def _tidy(source: Source) -> None:
    """Settle the sections: empty ones become those of defaults, paths absolute; overridden scenarios expect
    nothing."""
    for name in [name for name, value in source.values.items() if value is None]:
        del source.values[name]
    settle_places(source.values)
    for section, key in _PATHS:
        part = source.values.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str) and "://" not in part[key]:
            home = Path() if source.place((section, key)).startswith("--set") else Path(source.name).parent
            part[key] = str((home / Path(part[key]).expanduser()).absolute())
    if any(key[0] not in ("run", "expect", "name", "about") for key in source.overridden):
        source.values.pop("expect", None)


def _validated(cell: Cell) -> tuple[Scenario | None, list[Fault]]:
    source = cell.source
    _without_workers(cell)
    faults = shape_faults(source)
    if faults:
        return None, faults
    try:
        scenario = Scenario.model_validate({**source.values, "cell": cell.values})
    except ValidationError as error:  # a shape that `shape_faults` did not see would be a gap in it
        raise ScenarioError(f"{source.name}: {error}") from error
    faults = [
        Fault(source.place(key_of(problem.key)), f"{problem.key}: {problem.problem}", problem.remedy)
        for problem in problems(scenario)
    ]
    return _settled(scenario), faults


def _without_workers(cell: Cell) -> None:
    """Drop what the file says of the workers if the matrix or an override removes them."""
    loader, chosen = (
        cell.source.values.get("loader"),
        cell.source.overridden | {key_of(k) for k in cell.values},
    )
    if isinstance(loader, dict) and loader.get("workers") == 0 and ("loader", "workers") in chosen:
        for key in ("prefetch", "persistent_workers"):
            if ("loader", key) not in chosen:
                loader.pop(key, None)


def _settled(scenario: Scenario) -> Scenario:
    """Return the scenario with what is expected of its own cell and of no other."""
    if scenario.expect is None or not scenario.expect.cells:
        return scenario
    expected = scenario.expect.model_dump(exclude={"cells"})
    for part in scenario.expect.cells:
        if all(scenario.cell.get(key) == value for key, value in part.when.items()):
            expected |= part.model_dump(exclude={"when"}, exclude_unset=True)
    return scenario.model_copy(update={"expect": ExpectPart(**expected)})


def _error(faults_of_cells: list[tuple[Cell, Fault]], cells: int) -> ScenarioError:
    """Return one error for all faults, each listed once, with its first cell unless all have it."""
    where: dict[Fault, list[Cell]] = {}
    for cell, fault in sorted(faults_of_cells, key=lambda each: _line(each[1].place)):
        where.setdefault(fault, []).append(cell)
    texts = []
    for fault, having in where.items():
        note = ""
        if len(having) < cells:
            more = f" and {len(having) - 1} more" if len(having) > 1 else ""
            note = f" (in the cell {having[0].name}{more})"
        texts.append((f"{fault.place}: {fault.problem}{note}", fault.remedy))
    if len(texts) == 1:
        return ScenarioError(*texts[0])
    shown = [f"{problem}\n  {remedy}" if remedy else problem for problem, remedy in texts[:SHOWN]]
    rest = f"and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ScenarioError("\n".join(shown), rest)


def _line(place: str) -> int:
    """Return a sort key: the lines of the file first, overrides after them."""
    line = place.rpartition(":")[2]
    return int(line) if line.isdigit() else sys.maxsize
