"""Runs as they are given to others: without the names of users and of machines, and without home directories.

Names are replaced in what is read, before anything is drawn, so that no output has a place of its own for
them: a page made of a shared run, an export of one, and their words all say `host1`, `user1` and `~`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from pipeprof.record.columns import named, text_array, whole_numbers
from pipeprof.record.decode import decode
from pipeprof.record.meta import RunMeta
from pipeprof.record.reader import Run, load

_HOME: Final = re.compile(r"(?:/home/|/Users/|[A-Z]:\\Users\\)(?P<user>[^/\\\s:;,'\"]+)|/root(?![\w.-])")
_OF_EVERYBODY: Final = frozenset(
    {"root", "user", "admin", "ubuntu", "runner", "localhost", "host", "home", "data"}
)
"""Names that say nothing of a person or of a machine, and are words besides."""
_SHORTEST: Final = 3
"""Characters of the shortest name that is looked for in other texts: shorter ones are parts of words."""
_TEXTS: Final = ("lines", "batches", "events", "stages", "spans")
"""Tables that hold texts of the user's."""


class Sharing:
    """The replacements of one page or export: a name has the same one in all runs of it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._pattern: re.Pattern[str] | None = None
        self._home = str(Path.home())
        with suppress(OSError, KeyError):
            self._add(getpass.getuser(), "user")
        for variable in ("USER", "LOGNAME", "SUDO_USER"):
            self._add(os.environ.get(variable, ""), "user")
        self._add_host(socket.gethostname())

    def open(self, path: Path | str) -> Run:
        """Open a run directory, with names replaced. Raises `TraceError` as `load` does."""
        run = load(path)
        raw = run.meta.as_json()
        self._add_host(run.meta.host or "")
        for text in (*_texts(raw), *_texts_of_tables(run), str(run.directory.absolute())):
            for match in _HOME.finditer(text):
                self._add(match["user"] or "", "user")
        return _SharedRun(run, decode(RunMeta, _mapped(raw, self.replace)), self.replace)

    def replace(self, text: str) -> str:
        """Return a text with home directories, hosts and users replaced."""
        if len(self._home) > 1:
            text = re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text)
        text = _HOME.sub("~", text)
        if self._pattern is None:
            longest = sorted(self._names, key=len, reverse=True)
            words = "|".join(map(re.escape, longest)) or r"\b\B"
            self._pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])")
        return self._pattern.sub(lambda match: self._names[match[0]], text)

    def _add_host(self, name: str) -> None:
        self._add(name, "host")
        short, _, domain = name.partition(".")
        if domain and name in self._names and len(short) >= _SHORTEST:
            self._names.setdefault(short, self._names[name])

    def _add(self, name: str, kind: str) -> None:
        if len(name) < _SHORTEST or name.lower() in _OF_EVERYBODY or name in self._names:
            return
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._names[name] = f"{kind}{self._counts[kind]}"
        self._pattern = None


class _SharedRun(Run):
    """A run whose texts are replaced when they are read."""

    def __init__(self, run: Run, meta: RunMeta, replace: Callable[[str], str]) -> None:
        super().__init__(run.directory, meta)
        self.place = replace(run.place)
        self._run, self._replace = run, replace

    def reopened(self) -> Run:
        """Return the same run with no table in memory."""
        return _SharedRun(self._run.reopened(), self.meta, self._replace)

    def table(self, name: str) -> pa.Table:
        """Return the table `name` of `TABLES`, whole."""
        return self._replaced(self._run.table(name))

    def pieces(self, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of a table, piece by piece."""
        yield from map(self._replaced, self._run.pieces(name, columns))

    def _replaced(self, table: pa.Table) -> pa.Table:
        for index, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type):
                table = table.set_column(index, field, self._column(table.column(index)))
        return table

    def _column(self, column: pa.ChunkedArray) -> pa.Array:
        whole = column.unify_dictionaries().combine_chunks()
        if not pa.types.is_dictionary(column.type):
            return text_array([None if text is None else self._replace(text) for text in whole.to_pylist()])
        chunk = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        texts = [self._replace(text or "") for text in chunk.dictionary.to_pylist()]
        return named(whole_numbers(chunk.indices, -1).astype("int32"), texts)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.items() for part in each for text in _texts(part))
    elif isinstance(value, list):
        yield from (text for each in value for text in _texts(each))


def _texts_of_tables(run: Run) -> Iterator[str]:
    for name in _TEXTS:
        for column in run.table(name).columns:
            if pa.types.is_dictionary(column.type):
                for chunk in column.chunks:
                    yield from (text for text in chunk.dictionary.to_pylist() if text)
            elif pa.types.is_string(column.type):
                yield from (text for text in column.to_pylist() if text)


def _mapped(value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {replace(str(key)): _mapped(each, replace) for key, each in value.items()}
    return [_mapped(each, replace) for each in value] if isinstance(value, list) else value
