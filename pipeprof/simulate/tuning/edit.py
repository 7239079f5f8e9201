"""The change of a script's source that gives a DataLoader other arguments, as a unified diff.

Nothing is written: the user applies the diff.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeprof.record.calls import call_at
from pipeprof.record.meta import LoaderMeta

_POSITIONS: Final = {"num_workers": 5, "pin_memory": 7}
"""Places of DataLoader's arguments that may be given without their names."""
_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "num_workers": (0,),
    "prefetch_factor": (None, 2),
    "pin_memory": (False,),
    "persistent_workers": (False,),
    "in_order": (True,),
}
_TRAINER: Final = {
    "num_workers": "dataloader_num_workers",
    "prefetch_factor": "dataloader_prefetch_factor",
    "pin_memory": "dataloader_pin_memory",
    "persistent_workers": "dataloader_persistent_workers",
}
"""Argument of transformers' TrainingArguments by argument of DataLoader."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Change of a script's source. `diff` is empty if the source is not found or cannot be changed so."""

    diff: str = ""
    notes: tuple[str, ...] = ()
    """Advice on what the diff does not show, or on what to write if there is none."""


def edit_of(loader: LoaderMeta, arguments: Mapping[str, Any]) -> Edit:
    """Return the change of the call that made `loader`, which then has these `arguments`."""
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    if loader.file is None or loader.line is None:
        return Edit(notes=(f"give its DataLoader {written}",))
    place = f"{loader.file}:{loader.line}"
    if loader.in_library:
        return Edit(notes=(_in_library(loader.file, arguments) or f"a library makes the loader, at {place}",))
    try:
        source = Path(loader.file).read_text(encoding="utf-8")
        changed, notes = _changed(source, loader.line, loader.column, arguments)
    except (OSError, ValueError, SyntaxError):
        return Edit(notes=(f"give the DataLoader at {place} {written}",))
    if changed is None:
        return Edit(notes=(f"give the DataLoader at {place} {written}", *notes))
    return Edit(_diff(Path(loader.file), source, changed), notes)


def _in_library(file: str, arguments: Mapping[str, Any]) -> str:
    if Path(file).parts[-2:] != ("transformers", "trainer.py"):
        return ""
    known = [f"{_TRAINER[name]}={value!r}" for name, value in arguments.items() if name in _TRAINER]
    return f"give TrainingArguments {', '.join(known)}"


def _diff(path: Path, before: str, after: str) -> str:
    here = Path.cwd()
    name = str(path.relative_to(here)) if path.is_relative_to(here) else str(path).lstrip("/")
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _changed(
    source: str, line: int, column: int | None, arguments: Mapping[str, Any]
) -> tuple[str | None, tuple[str, ...]]:
    """Return the source with the call's arguments changed, and notes; None if that cannot be done."""
    call = call_at(ast.parse(source), line, column)
    if call is None or not (call.args or call.keywords):
        return None, ()
    text, notes = _Text(source), []
    replaced: list[tuple[int, int, bytes]] = []
    added: list[str] = []
    for name, value in arguments.items():
        present = _argument(call, name)
        if present is not None:
            replaced.append((*text.span(present), repr(value).encode()))
            if not isinstance(present, ast.Constant):
                notes.append(f"{name} came from `{ast.unparse(present)}`: it may be better changed there")
        elif value not in _DEFAULTS.get(name, ()):
            added.append(f"{name}={value!r}")
    if added and any(keyword.arg is None for keyword in call.keywords):
        return None, ("its arguments come from a dictionary too (`**`), which may name the same ones",)
    if added:
        replaced.append(text.insertion(call, added))
    return text.with_replaced(replaced), tuple(notes)


def _argument(call: ast.Call, name: str) -> ast.expr | None:
    """Return the expression that gives an argument, by its name or, in a call of DataLoader, its place."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    place = _POSITIONS.get(name)
    starred = any(isinstance(each, ast.Starred) for each in call.args)
    return call.args[place] if place is not None and place < len(call.args) and not starred else None


class _Text:
    """Source in bytes, as `ast` counts its columns."""

    def __init__(self, source: str) -> None:
        self._bytes = source.encode()
        self._starts = [0]
        for row in self._bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(row))

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Return where a node begins and ends."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def insertion(self, call: ast.Call, added: list[str]) -> tuple[int, int, bytes]:
        """Return where further arguments go, and their text, laid out as the call's last argument is."""
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        last = max(values, key=lambda value: self.span(value)[1])
        end, close = self.span(last)[1], self.span(call)[1] - 1
        while self._bytes[end:close].lstrip().startswith(b")"):  # parentheses around the argument itself
            end = self._bytes.index(b")", end) + 1
        row = self._starts[last.lineno - 1]
        first = self._bytes[row : self._starts[last.lineno]]
        indent = first[: len(first) - len(first.lstrip())]
        is_alone = last.lineno > call.lineno and b"\n" in self._bytes[end:close]
        rest = self._bytes[end:close].partition(b"#")[0]
        if b"," in rest:  # a trailing comma
            end += rest.index(b",") + 1
            parts = [f"{each}," for each in added] if is_alone else [", ".join(added)]
            lead = b""
        else:
            parts, lead = [each + "," * (number < len(added) - 1) for number, each in enumerate(added)], b","
            parts = parts if is_alone else [" ".join(parts)]
        between = b"\n" + indent if is_alone else b" "
        return end, end, lead + b"".join(between + part.encode() for part in parts)

    def with_replaced(self, parts: list[tuple[int, int, bytes]]) -> str:
        """Return the source with spans replaced."""
        source = self._bytes
        for start, end, new in sorted(parts, reverse=True):
            source = source[:start] + new + source[end:]
        return source.decode()
