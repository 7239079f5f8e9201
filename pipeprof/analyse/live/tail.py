"""Reading of the end of a table while its run is being written: what is new, and what is recent.

A stream is walked forwards once, from the head of a message to that of the next: bodies are read and decoded
only when they are asked for, which is at the end. Reading on costs what was appended since.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from pipeprof.record.columns import flags, whole_numbers
from pipeprof.record.plain_files import check_plain
from pipeprof.record.schema import MISSING, STREAM_SUFFIX, TABLES
from pipeprof.record.streams import BATCH, DAMAGED, DICTIONARY, SCHEMA, head, head_bytes
from pipeprof.record.tables import conform, refused

MOST_CHUNKS: Final = 3000
"""Flushes of a table that are kept: more than half an hour of them, at the usual rate."""
_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
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
        """Return the chunk, with the columns of table `name` that this version knows.

        Raises `ArrowException` for a damaged one.
        """
        if self._table is None:
            parts = (os.pread(file.fileno(), end - at, at) for at, end in self._parts)
            read = pa.ipc.open_stream(b"".join((schema, *parts, _END))).read_all()
            self._table = conform(read, name, TABLES[name])
        return self._table

    def forget(self) -> None:
        """Hold nothing of it in memory."""
        self._table = None


class Tail:
    """The end of one table's stream, which may not exist yet. Calls raise `TraceError` for a damaged one."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path, self.name = directory / f"{name}{STREAM_SUFFIX}", name
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
        with refused(self.path):
            try:
                check_plain(self.path)
                file = self.path.open("rb")
            except FileNotFoundError:  # nothing was recorded yet, or the run has ended
                return 0
        self.close()
        self._file = file
        before, size = self.batches, os.fstat(file.fileno()).st_size
        with refused(self.path):
            while self._take(file.fileno(), size):
                pass
        return self.batches - before

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _take(self, file: int, size: int) -> bool:
        """Take the message that comes next, except for its body; False if none is whole."""
        read = os.pread(file, _HEAD_BYTES, self._at)
        length = head_bytes(read[:8])
        start = 8 + length
        if length == 0 or self._at + start > size:  # the end of the stream, or of what is written by now
            return False
        if start > len(read):
            read = os.pread(file, start, self._at)
        try:
            found = head(read[8:start])
        except DAMAGED as error:
            raise pa.ArrowInvalid("it holds something that is not a message") from error
        if found.compressed:
            raise pa.ArrowInvalid("it is compressed, as no stream of pipeprof is")
        message = self._at, self._at + start + found.body_bytes
        if message[1] > size:
            return False
        self._add(found.kind, found.number, message, read[:start])
        self._at = message[1]
        return True

    def _add(self, kind: int, number: int, message: Span, content: bytes) -> None:
        if kind == SCHEMA:  # it has no body
            self._schema = content
        elif kind == DICTIONARY:
            self._dictionaries = {**self._dictionaries, number: message}
        elif kind == BATCH:
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
        """Keep only the last record batches in memory."""
        kept = set(islice(reversed(self.chunks), chunks))
        for chunk in self._decoded - kept:
            chunk.forget()
        self._decoded &= kept

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of all rows that were read: from the file, since memory holds the end alone."""
        wanted = pa.schema([TABLES[self.name].field(name) for name in names])
        with refused(self.path), pa.memory_map(str(self.path)) as file:
            whole = file.read_buffer(self._at)
            there = pa.ipc.open_stream(whole).schema
            held = [there.get_field_index(name) for name in names if name in there.names]
            options = pa.ipc.IpcReadOptions(included_fields=held)
            return conform(pa.ipc.open_stream(whole, options=options).read_all(), self.name, wanted)

    def _table(self, chunk: _Chunk) -> pa.Table:
        assert self._file is not None
        self._decoded.add(chunk)
        with refused(self.path):
            return chunk.table(self._schema, self._file, self.name)

    def _joined(self, tables: list[pa.Table]) -> pa.Table:
        if not tables:
            fields = TABLES[self.name]
            return pa.Table.from_arrays([pa.nulls(0, field.type) for field in fields], schema=fields)
        return pa.concat_tables(tables).unify_dictionaries()
