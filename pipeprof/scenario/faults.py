"""Faults of shape: unknown keys, wrong types, values out of range; each with place and remedy."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from pipeprof.scenario.schema import ExpectedCell, ExpectPart, Scenario
from pipeprof.scenario.source import Key, Source, described, dotted
from pipeprof.suggest import nearest


class Fault(NamedTuple):
    """Fault: something wrong, worded, with the place where it was written."""

    place: str
    problem: str
    remedy: str


_WANTED: Final = {
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "bool_type": "give true or false",
    "string_type": "give a text; put it in quotes if it looks like something else",
    "list_type": "give a list: [a, b]",
    "dict_type": "give a section of keys",
    "model_type": "give a section of keys",
    "model_attributes_type": "give a section of keys",
    "finite_number": "give a finite number",
    "missing": "add it",
}


def shape_faults(source: Source) -> list[Fault]:
    """List what the schema itself refuses in `source`."""
    if "cell" in source.values:  # the expansion's own, never written
        return [Fault(source.place(("cell",)), *unknown_key(("cell",)))]
    try:
        Scenario.model_validate(source.values)
    except ValidationError as error:
        return [_fault(source, dict(each)) for each in error.errors(include_url=False)]
    return []


def known_keys(section: Key) -> dict[str, type[BaseModel] | None]:
    """Return the keys that a section may have, each with the model of the section below it."""
    model: type[BaseModel] | None = Scenario
    for part in section:
        if model is None:
            return {}
        if isinstance(part, str):
            model = _keys(model).get(part)
        elif model is ExpectPart:
            model = ExpectedCell
    return {} if model is None else _keys(model)


def key_of(text: str) -> Key:
    """Return `expect.cells[2].cause` as a key."""
    return tuple(int(p) if p.isdigit() else p for p in re.split(r"[.\[\]]+", text) if p)


def unknown_key(key: Key) -> tuple[str, str]:
    """Return problem and remedy for a key that does not exist."""
    word, section = str(key[-1]), key[:-1]
    allowed = known_keys(section)
    homes = [name for name, below in known_keys(()).items() if below is not None and word in _keys(below)]
    problem = f"{dotted(key)}: no such key"
    if not section and homes:
        return problem, f"did you mean {' or '.join(f'{home}.{word}' for home in homes)}?"
    where = f" in {dotted(section)}" if section else ""
    return problem, nearest(word, allowed, where)


def _keys(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {
        field.alias or name: _section(field.annotation)
        for name, field in model.model_fields.items()
        if name != "cell"
    }


def _section(annotation: Any) -> type[BaseModel] | None:
    choices = (annotation, *getattr(annotation, "__args__", ()))
    return next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _fault(source: Source, error: dict[str, Any]) -> Fault:
    key: Key = tuple(error["loc"])
    place = source.place(key)
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return Fault(place, *unknown_key(key))
    if kind == "missing":
        return Fault(place, f"{dotted(key)}: is missing", _WANTED[kind])
    problem = f"{dotted(key)}: is {described(value)}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return Fault(place, problem, nearest(str(value), allowed))
    fallback = re.sub(r"^Input should be", "give a number", error["msg"])
    return Fault(place, problem, _WANTED.get(kind, fallback))
