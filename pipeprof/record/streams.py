"""The streams that a run writes while it lasts: read up to their tear, and turned into Parquet at the end."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipeprof.errors import TraceError
from pipeprof.record import files
from pipeprof.record.schema import STREAM_SUFFIX, TABLES


def to_parquet(directory: Path, table: str) -> None:
    """Rewrite a stream as Parquet; the stream goes only after the Parquet file has its name.

    Raises `OSError` if the file cannot be written; the stream stays then, and nothing else.
    """
    stream, final = directory / f"{table}{STREAM_SUFFIX}", directory / f"{table}.parquet"
    temporary = directory / f".{table}.parquet"
    narrow = [field.name for field in TABLES[table] if field.type == pa.int64()]
    try:
        with files.open_new(temporary) as file:
            writer = pq.ParquetWriter(
                file,
                TABLES[table],
                compression="zstd",
                use_dictionary=[f.name for f in TABLES[table] if f.name not in narrow],
                column_encoding=dict.fromkeys(narrow, "DELTA_BINARY_PACKED"),
                write_statistics=False,
            )
            try:
                for batch in grouped(read_stream(stream)):
                    writer.write_table(batch)
                writer.close()
            except OSError:
                writer.is_open = False  # or it would close again when it goes, and print a traceback
                raise
        temporary.replace(final)
    finally:
        with suppress(OSError):
            temporary.unlink()
    stream.unlink()


def grouped(batches: Iterator[pa.RecordBatch], rows: int = 65_536) -> Iterator[pa.Table]:
    """Join small record batches: a Parquet row group for each flush would cost more than its rows."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            yield pa.Table.from_batches(held).unify_dictionaries()
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held).unify_dictionaries()


def read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a stream up to its end or its tear.

    Raises `TraceError` for one whose batches are compressed, as no writer of ours makes them: it may hold a
    thousand times its size.
    """
    with _Whole(path) as file:
        file.check()
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError, EOFError):
            return  # torn: the process died while it wrote this batch


class _Whole(io.FileIO):
    """A stream up to its last whole message. Arrow sees only what `check` has seen before."""

    _end = 0

    def check(self) -> None:
        """Check the heads of all messages. Raises `TraceError` if a body is compressed."""
        most = os.fstat(self.fileno()).st_size
        end = 0
        while 0 < (size := head_bytes(super().read(8))) <= most:
            try:
                found = head(super().read(size))
            except DAMAGED:
                break
            if found.compressed:
                raise TraceError(f"{self.name} is compressed, as no stream of pipeprof is", "run again")
            if found.body_bytes > most:
                break
            end = self.seek(found.body_bytes, io.SEEK_CUR)
        self._end = min(end, most)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most `size` bytes, none beyond the last whole message."""
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


# -- messages ----------------------------------------------------------------------------------------------

SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""Values of `header_type` of an Arrow message."""
DAMAGED: Final = (struct.error, IndexError, ValueError)
"""Errors of `head` if the bytes are not a message's."""


class Head(NamedTuple):
    """Head of an Arrow message."""

    kind: int
    body_bytes: int
    """Bytes of its body, which follows."""
    number: int
    """Number of the dictionary that it holds; 0 if it holds none."""
    compressed: bool
    """True if its body takes more memory than bytes."""


def head_bytes(start: bytes) -> int:
    """Return the bytes of the head that 8 bytes announce; 0 at a stream's end, and for other bytes."""
    if len(start) < 8:
        return 0
    mark, size = struct.unpack("<II", start)
    return size if mark == 0xFFFFFFFF else 0


def head(data: bytes) -> Head:
    """Read the head of an Arrow message. Raises one of `DAMAGED`.

    Source: Message.fbs and Schema.fbs of Apache Arrow, read as FlatBuffers lay tables out.
    """
    root = _table(data, 0)
    kind = _field(data, root, 1)
    kind_value = data[kind] if kind else 0
    body_bytes = _long(data, _field(data, root, 3))
    if body_bytes < 0:
        raise ValueError
    content = _table(data, _field(data, root, 2))
    number, batch = 0, content
    if kind_value == DICTIONARY:
        number = _long(data, _field(data, content, 0))
        batch = _table(data, _field(data, content, 1))
    is_compressed = kind_value in (DICTIONARY, BATCH) and _field(data, batch, 3) != 0
    return Head(kind_value, body_bytes, number, is_compressed)


def _table(data: bytes, at: int) -> int:
    """Return where a table begins, by where its distance is held."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _long(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<q", data, at)[0]) if at else 0


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a FlatBuffers table holds a field; 0 if it has the default."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    if layout < 0 or table < 0:
        raise ValueError
    (size,) = struct.unpack_from("<H", data, layout)
    if 4 + 2 * number + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, layout + 4 + 2 * number)
    return int(table + offset) if offset else 0
