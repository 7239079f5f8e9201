"""Reading of the end of a table while its run is being written: what is new, and what is recent.

A stream is read forwards once, message by message, without decoding; of what is old nothing is kept but the
dictionaries that later messages refer to. Reading on costs what was appended since.
"""

from __future__ import annotations

import struct
from collections import deque
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from pipeprof.record.columns import whole_numbers
from pipeprof.record.schema import MISSING, TABLES

MOST_CHUNKS: Final = 3000
"""Flushes of a table that are kept: more than half an hour of them, at the usual rate."""
_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_BLOCK: Final = 1 << 22


class _Chunk:
    """One record batch of a stream, decoded when it is asked for."""

    def __init__(self, dictionaries: dict[int, bytes], message: bytes) -> None:
        self._parts = (dictionaries, message)
        self._table: pa.Table | None = None

    def table(self, schema: bytes) -> pa.Table:
        """Return the chunk, decoded."""
        if self._table is None:
            dictionaries, message = self._parts
            whole = b"".join((schema, *dictionaries.values(), message, _END))
            self._table = pa.ipc.open_stream(whole).read_all()
            self._parts = ({}, b"")
        return self._table


class Tail:
    """The end of one table's stream, which may not exist yet."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path, self.name = directory / f"{name}.arrows", name
        self.chunks: deque[_Chunk] = deque(maxlen=MOST_CHUNKS)
        self.batches = 0
        """Record batches that were read."""
        self._at = 0
        self._schema = b""
        self._dictionaries: dict[int, bytes] = {}

    def poll(self) -> int:
        """Read what was appended since the last call; return how many record batches that were."""
        before = new = 0
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                rest = b""
                while block := file.read(_BLOCK):
                    rest += block
                    before, count = self._take(rest)
                    new += count
                    self._at += before
                    rest = rest[before:]
        except FileNotFoundError:  # nothing was recorded yet, or the run has ended
            return new
        return new

    def _take(self, data: bytes) -> tuple[int, int]:
        """Take the whole messages at the begin of `data`; return their bytes, and the batches among them."""
        at = count = 0
        while at + 8 <= len(data):
            mark, size = struct.unpack_from("<II", data, at)
            if mark != 0xFFFFFFFF or size == 0:  # the end of the stream
                break
            if at + 8 + size > len(data):
                break
            kind, body, number = _header(data, at + 8)
            end = at + 8 + size + body
            if end > len(data):
                break
            count += self._add(kind, number, data[at:end])
            at = end
        return at, count

    def _add(self, kind: int, number: int, message: bytes) -> bool:
        if kind == _SCHEMA:
            self._schema = message
        elif kind == _DICTIONARY:
            self._dictionaries = {**self._dictionaries, number: message}
        elif kind == _BATCH:
            self.chunks.append(_Chunk(self._dictionaries, message))
            self.batches += 1
            return True
        return False

    def last(self, chunks: int) -> pa.Table:
        """Return the last record batches as one table, with the columns that this version knows."""
        wanted = list(self.chunks)[-chunks:] if chunks > 0 else []
        return self._joined([chunk.table(self._schema) for chunk in wanted])

    def since(self, column: str, time_ns: int) -> tuple[pa.Table, int]:
        """Return the rows from a time on, by a column of times, and the number of their record batches."""
        tables: list[pa.Table] = []
        for chunk in reversed(self.chunks):
            table = chunk.table(self._schema)
            times = whole_numbers(table[column], MISSING)
            if len(times) and times.max() < time_ns:
                break
            whole = len(times) == 0 or times.min() >= time_ns
            tables.append(table if whole else table.filter(pa.array(times >= time_ns)))
        return self._joined(tables[::-1]), len(tables)

    def _joined(self, tables: list[pa.Table]) -> pa.Table:
        schema = TABLES[self.name]
        chunked = [
            pa.chunked_array([_column(table, field) for table in tables], type=field.type) for field in schema
        ]
        return pa.Table.from_arrays(chunked, schema=schema).unify_dictionaries()


def _column(table: pa.Table, field: pa.Field) -> Any:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name].cast(field.type)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
"""Values of `header_type` of an Arrow message."""


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Read an Arrow message's head: its kind, the bytes of its body, and the number of its dictionary.

    Source: Message.fbs and Schema.fbs of Apache Arrow, read as FlatBuffers lay tables out.
    """
    root = at + struct.unpack_from("<I", data, at)[0]
    kind = _field(data, root, 1)
    body = _field(data, root, 3)
    kind_value = data[kind] if kind else 0
    body_bytes = struct.unpack_from("<q", data, body)[0] if body else 0
    number = 0
    if kind_value == _DICTIONARY and (header := _field(data, root, 2)):
        dictionary = header + struct.unpack_from("<I", data, header)[0]
        identity = _field(data, dictionary, 0)
        number = struct.unpack_from("<q", data, identity)[0] if identity else 0
    return kind_value, body_bytes, number


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a FlatBuffers table holds a field; 0 where it has the default."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, layout)
    if 4 + 2 * number + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, layout + 4 + 2 * number)
    return table + offset if offset else 0
