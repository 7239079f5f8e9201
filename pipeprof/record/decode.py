"""Conversion of JSON into frozen dataclasses by their type hints, and back.

What does not fit its hint is "not observed": the field keeps its default, an item of a list is left out. A
record that was damaged, or written by another version, is thus read as far as possible, and never raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, partial
from types import NoneType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pipeprof.errors import PipeprofError

DEEPEST: Final = 32
"""Levels of objects and lists below a field that takes any value. Settings have 4."""
_INT64_MOST: Final = 2**63 - 1
"""Integers beyond are not read: the tables, and all arithmetic on them, have 64 bits."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class MisfitError(Exception):
    """A value that its type hint does not allow."""


@dataclass(frozen=True, slots=True)
class Between:
    """The least and the largest value of a number, both allowed: `Annotated[int, Between(0, 9)]`."""

    least: float
    most: float


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Record = TypeVar("Record", bound=Dataclass)
_Reader = Callable[[object], object]


def decode(kind: type[Record], raw: object) -> Record:
    """Build a `kind` from a JSON object. A field that is missing, or does not fit, keeps its default.

    Raises `MisfitError` if `raw` is not an object, or a field without a default does not fit. JSON names a
    field as Python does, without the underscore that keeps `import_` from being a keyword.
    """
    if not isinstance(raw, dict):
        raise MisfitError
    values: dict[str, object] = {}
    for name, (read, required) in _readers(kind).items():
        key = name.rstrip("_")
        try:
            if key not in raw:
                raise MisfitError
            values[name] = read(raw[key])
        except MisfitError:
            if required:
                raise
    try:
        return kind(**values)
    except PipeprofError as error:  # a model of a device with impossible figures
        raise MisfitError from error


def encode(record: Dataclass) -> dict[str, Any]:
    """Return the JSON object of a record; a part of it that says nothing is null."""
    plain = {}
    for item in fields(record):
        value = getattr(record, item.name)
        default = None if item.default_factory is MISSING else item.default_factory()
        silent = is_dataclass(value) and value == default
        plain[item.name.rstrip("_")] = None if silent else _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


@cache
def _readers(kind: type[Any]) -> dict[str, tuple[_Reader, bool]]:
    """Return, by field, the reader of its value, and whether it must be there."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        item.name: (
            _reader(hints[item.name]),
            item.default is MISSING and item.default_factory is MISSING,
        )
        for item in fields(kind)
    }


def _reader(hint: Any) -> _Reader:
    """Return the function that reads a value of type `hint`, or raises `MisfitError`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(decode, hint)
    return _OF[origin](arguments) if origin in _OF else partial(_optional, _reader(_only(arguments)))


def _only(members: tuple[Any, ...]) -> Any:
    """Return the T of `T | None`; no other union is supported."""
    (inner,) = (each for each in members if each is not NoneType)
    return inner


def _optional(read: _Reader, raw: object) -> object:
    return None if raw is None else read(raw)


def _limited(read: _Reader, limits: Between, raw: object) -> object:
    value = read(raw)
    if not isinstance(value, (int, float)) or not limits.least <= value <= limits.most:
        raise MisfitError
    return value


def _one_of(words: tuple[object, ...], raw: object) -> object:
    if not isinstance(raw, str) or raw not in words:
        raise MisfitError
    return raw


def _items(read: _Reader, raw: object) -> tuple[object, ...]:
    if not isinstance(raw, list):
        raise MisfitError
    items = []
    for each in raw:
        try:
            items.append(read(each))
        except MisfitError:
            continue
    return tuple(items)


def _entries(read: _Reader, raw: object) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise MisfitError
    entries = {}
    for key, each in raw.items():
        try:
            entries[_text(key)] = read(each)
        except MisfitError:
            continue
    return entries


def _text(raw: object) -> str:
    """Read text; half of a surrogate pair, which no file and no page can hold, becomes U+FFFD."""
    if not isinstance(raw, str):
        raise MisfitError
    return _SURROGATES.sub("\ufffd", raw)


def _flag(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise MisfitError
    return raw


def _integer(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or abs(raw) > _INT64_MOST:
        raise MisfitError
    return raw


def _number(raw: object) -> float:
    if isinstance(raw, float) and math.isfinite(raw):
        return raw
    return float(_integer(raw))


def _anything(raw: object, depth: int = 0) -> object:
    """Read any value that JSON has, `DEEPEST` levels of it."""
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        return _text(raw)
    if isinstance(raw, int):
        return _integer(raw)
    if isinstance(raw, float):
        return _number(raw)
    if depth == DEEPEST:
        raise MisfitError
    inner = partial(_anything, depth=depth + 1)
    return _entries(inner, raw) if isinstance(raw, dict) else list(_items(inner, raw))


_SIMPLE: Final[Mapping[Any, _Reader]] = {
    str: _text,
    bool: _flag,
    int: _integer,
    float: _number,
    Any: _anything,
}
_OF: Final[Mapping[Any, Callable[[tuple[Any, ...]], _Reader]]] = {
    Annotated: lambda arguments: partial(_limited, _reader(arguments[0]), arguments[1]),
    Literal: lambda arguments: partial(_one_of, arguments),
    tuple: lambda arguments: partial(_items, _reader(arguments[0])),
    Mapping: lambda arguments: partial(_entries, _reader(arguments[1])),
}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"loader": {"workers": 4}}` as `{"loader.workers": 4}`."""
    flattened: dict[str, Any] = {}
    for key, value in tree.items():
        flattened |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        )
    return flattened
