"""YAML with locations: a file and its overrides as plain data, and where each value was written.

The subset of YAML that scenarios need: one document, plain values, lists and mappings. Aliases and tags are
refused, a key may stand once, and numbers such as `1e-6` are numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from pipeprof.errors import ScenarioError, first_line
from pipeprof.suggest import nearest
from pipeprof.vocabulary.arguments import key_named

Key = tuple[str | int, ...]
"""The way to a value: keys of mappings and indices of lists."""

_PLAIN_TAGS: Final = {
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")
}


_WHOLE: Final = re.compile(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2, where `1e-6` needs no dot, and without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and type that PyYAML asks for
        first: [
            (tag, regex) for tag, regex in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass
class Source:
    """Plain data, and the place where each value of it was written."""

    name: str
    values: dict[str, Any]
    places: dict[Key, str] = field(default_factory=dict)
    """`file.yaml:12` or `--set loader.workers=8`."""
    overridden: set[Key] = field(default_factory=set)

    def place(self, key: Key) -> str:
        """Return the place where `key`, or the nearest section around it, was written."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.name

    def copy(self) -> Source:
        """Return a copy whose values may be changed."""
        return Source(self.name, _copied(self.values), dict(self.places), set(self.overridden))

    def put(self, key: Key, value: Any, place: str) -> None:
        """Set the value at `key`, making the sections on the way; all below it was written at `place`."""
        section: Any = self.values
        for depth, part in enumerate(key[:-1]):
            below = section.get(part)
            if below is None:
                below = section[part] = {}
            if not isinstance(below, dict):
                above = ".".join(map(str, key[: depth + 1]))
                raise ScenarioError(f"{place}: {above} is not a section but {below!r}", f"set {above} itself")
            section = below
        section[key[-1]] = value
        self.places = {k: p for k, p in self.places.items() if k[: len(key)] != key}
        self.places[key] = place


def read(path: Path) -> Source:
    """Read the scenario file at `path`; `ScenarioError` names the line that cannot be read."""
    if path.exists() and not path.is_file() and not path.is_dir():  # a FIFO would be waited for
        raise ScenarioError(f"{path}: is not a regular file", "give a scenario file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: no such file", _neighbours(path)) from error
    except IsADirectoryError as error:
        raise ScenarioError(f"{path}: is a directory", "name a scenario file in it") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: is not text in UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise ScenarioError(
            f"{path}: cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    places: dict[Key, str] = {}
    values = _parse(text, str(path), places)
    if values is None:
        raise ScenarioError(f"{path}: is empty", "`pipeprof init NAME` writes a scenario to start from")
    if not isinstance(values, dict):
        raise ScenarioError(
            f"{places.get((), path)}: a scenario is a mapping of keys, this is {described(values)}",
            "write `key: value` lines; `pipeprof init NAME` writes a scenario to start from",
        )
    return Source(str(path), values, places)


def override(source: Source, overrides: Iterable[str]) -> None:
    """Apply `--set key=value` texts to `source`, in order; the value is YAML."""
    for text in overrides:
        place = f"--set {text}"
        dotted, equals, written = text.partition("=")
        dotted = key_named(dotted.strip())
        parts = dotted.split(".")
        if not equals or not all(parts):
            raise ScenarioError(f"{place}: is not KEY=VALUE", "for example --set loader.workers=8")
        value = _parse(written, place, {}, lines=False)
        key: Key = ("matrix", ".".join(parts[1:])) if parts[0] == "matrix" and parts[1:] else tuple(parts)
        source.overridden.add(key)
        matrix = source.values.get("matrix")
        if isinstance(matrix, dict) and dotted in matrix:
            if isinstance(value, list):
                key = ("matrix", dotted)
            else:
                del matrix[dotted]
        source.put(key, value, place)


def described(value: Any) -> str:
    """Return a value as a reader of the file would name it."""
    if isinstance(value, str):
        return f"the text {value!r}"
    names = {dict: "a section of keys", list: "a list", type(None): "empty"}
    return names.get(type(value), f"{str(value).lower() if isinstance(value, bool) else value}")


def _parse(text: str, name: str, places: dict[Key, str], lines: bool = True) -> Any:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Walk(loader, name, places, lines).value(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark and lines else name
        raise ScenarioError(f"{where}: is not YAML: {_problem(error)}", _remedy(error)) from error
    except yaml.YAMLError as error:
        raise ScenarioError(f"{name}: is not YAML: {first_line(error)}") from error
    except RecursionError as error:
        raise ScenarioError(
            f"{name}: is nested too deeply", "a scenario has sections and lists, no more"
        ) from error


class _Walk:
    """Walk from YAML nodes to plain data, noting where each value stands."""

    def __init__(self, loader: _Loader, name: str, places: dict[Key, str], lines: bool) -> None:
        self._loader, self._name, self._places, self._lines = loader, name, places, lines
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        place = self._places.setdefault(key, self._place(node))
        if id(node) in self._seen:
            raise ScenarioError(f"{place}: aliases (*name) are not used in scenarios", "write the value out")
        self._seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            raise ScenarioError(
                f"{place}: the tag {node.tag} is not used in scenarios", "write a plain value"
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*key, index)) for index, child in enumerate(node.value)]
        try:
            value = self._loader.construct_object(node)
        except ValueError as error:
            raise ScenarioError(
                f"{place}: {node.value} is not a valid {node.tag.rpartition(':')[2]}"
            ) from error
        # `1e6` samples are a whole number of samples
        return int(value) if isinstance(value, float) and _WHOLE.fullmatch(node.value) else value

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, child in node.value:
            place = self._place(name_node)
            name = name_node.value
            if not isinstance(name, str):
                raise ScenarioError(f"{place}: a key must be a word", "write `key: value`")
            below = (*key, name)
            if name in values:
                raise ScenarioError(
                    f"{place}: {dotted(below)} stands twice, first at {self._places[below]}",
                    "keep one of them",
                )
            self._places[below] = place
            values[name] = self.value(child, below)
        return values

    def _place(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}" if self._lines else self._name


def dotted(key: Key) -> str:
    """Return `loader.workers`, or `matrix.loader.workers[2]` for an item of a list."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _problem(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in (error.problem or ""):
        return "a tab stands where spaces are needed"
    return ", ".join(filter(None, (error.context, error.problem)))


def _remedy(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in (error.problem or ""):
        return "indent with spaces"
    return "check the indentation, the colons and the quotes of that line"


def _neighbours(path: Path) -> str:
    """Return nearby scenario files whose names resemble the missing one's."""
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return nearest(path.name, names) if names else "check the path; `pipeprof init NAME` writes a scenario"


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(below) for key, below in value.items()}
    return [_copied(below) for below in value] if isinstance(value, list) else value
