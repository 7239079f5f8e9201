"""Reading of the end of a table while its run is being written: what is new, and what is recent.

A stream is walked forwards once, from the head of a message to that of the next: bodies are read and decoded
where they are asked for, which is at the end. Reading on costs what was appended since.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from pipeprof.record.columns import flags, whole_numbers
from pipeprof.record.schema import MISSING, TABLES

MOST_CHUNKS: Final = 3000
"""Flushes of a table that are kept: more than half an hour of them, at the usual rate."""
_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_PREFIX: Final = struct.Struct("<II")
_HEAD_BYTES: Final = 8192
"""Most that is read of a message at first: the heads of our tables are smaller."""


Span = tuple[int, int]
"""Begin and end of a message in its file."""


class _Chunk:
    """One record batch of a stream, read and decoded when it is asked for."""

    def __init__(self, dictionaries: dict[int, Span], message: Span) -> None:
        self._parts = (*dictionaries.values(), message)
        self._table: pa.Table | None = None

    def table(self, schema: bytes, file: BinaryIO, name: str) -> pa.Table:
        """Return the chunk, with the columns of table `name` that this version knows."""
        if self._table is None:
            parts = (os.pread(file.fileno(), end - at, at) for at, end in self._parts)
            read = pa.ipc.open_stream(b"".join((schema, *parts, _END))).read_all()
            fields = TABLES[name]
            self._table = pa.Table.from_arrays([_column(read, field) for field in fields], schema=fields)
        return self._table

    def forget(self) -> None:
        """Hold nothing of it in memory."""
        self._table = None


class Tail:
    """The end of one table's stream, which may not exist yet."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path, self.name = directory / f"{name}.arrows", name
        self.chunks: deque[_Chunk] = deque(maxlen=MOST_CHUNKS)
        self.batches = 0
        """Record batches that were read."""
        self._decoded: set[_Chunk] = set()
        self._file: BinaryIO | None = None
        self._at = 0
        self._schema = b""
        self._dictionaries: dict[int, Span] = {}

    def poll(self) -> int:
        """Read what was appended since the last call; return how many record batches that were."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:  # nothing was recorded yet, or the run has ended
            return 0
        if self._file is not None:
            self._file.close()
        self._file = file
        before, size = self.batches, os.fstat(file.fileno()).st_size
        while self._take(file.fileno(), size):
            pass
        return self.batches - before

    def _take(self, file: int, size: int) -> bool:
        """Take the message that comes next, but for its body; False where none is whole."""
        head = os.pread(file, _HEAD_BYTES, self._at)
        if len(head) < _PREFIX.size:
            return False
        mark, length = _PREFIX.unpack_from(head)
        if mark != 0xFFFFFFFF or length == 0:  # the end of the stream
            return False
        start = _PREFIX.size + length
        if start > len(head) and len(head := os.pread(file, start, self._at)) < start:
            return False
        kind, body, number = _header(head, _PREFIX.size)
        message = self._at, self._at + start + body
        if message[1] > size:
            return False
        self._add(kind, number, message, head[:start])
        self._at = message[1]
        return True

    def _add(self, kind: int, number: int, message: Span, head: bytes) -> None:
        if kind == _SCHEMA:  # it has no body
            self._schema = head
        elif kind == _DICTIONARY:
            self._dictionaries = {**self._dictionaries, number: message}
        elif kind == _BATCH:
            self.chunks.append(_Chunk(self._dictionaries, message))
            self.batches += 1

    def each_of_last(self, chunks: int) -> list[pa.Table]:
        """Return the last record batches, each as a table with the columns that this version knows."""
        return [self._table(chunk) for chunk in islice(reversed(self.chunks), chunks)][::-1]

    def last(self, chunks: int) -> pa.Table:
        """Return the last record batches as one table."""
        return self._joined(self.each_of_last(chunks))

    def since(self, column: str, time_ns: int) -> tuple[pa.Table, int]:
        """Return the rows from a time on, by a column of times, and the number of their record batches."""
        tables: list[pa.Table] = []
        older = iter(reversed(self.chunks))
        for chunk in older:
            table = self._table(chunk)
            times = whole_numbers(table[column], MISSING)
            if len(times) and times.max() < time_ns:
                break
            whole = len(times) == 0 or times.min() >= time_ns
            tables.append(table if whole else table.filter(flags(times >= time_ns)))
        return self._joined(tables[::-1]), len(tables)

    def forget_before(self, chunks: int) -> None:
        """Hold no more than the last record batches in memory."""
        kept = set(islice(reversed(self.chunks), chunks))
        for chunk in self._decoded - kept:
            chunk.forget()
        self._decoded &= kept

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of all rows that were read: from the file, since memory holds the end alone."""
        with pa.memory_map(str(self.path)) as file:
            whole = file.read_buffer(self._at)
            there = pa.ipc.open_stream(whole).schema
            options = pa.ipc.IpcReadOptions(included_fields=[there.get_field_index(name) for name in names])
            return pa.ipc.open_stream(whole, options=options).read_all()

    def _table(self, chunk: _Chunk) -> pa.Table:
        assert self._file is not None
        self._decoded.add(chunk)
        return chunk.table(self._schema, self._file, self.name)

    def _joined(self, tables: list[pa.Table]) -> pa.Table:
        if not tables:
            fields = TABLES[self.name]
            return pa.Table.from_arrays([pa.nulls(0, field.type) for field in fields], schema=fields)
        return pa.concat_tables(tables).unify_dictionaries()


def _column(table: pa.Table, field: pa.Field) -> Any:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name]
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return array if array.type == field.type else array.cast(field.type)


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
