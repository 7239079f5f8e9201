"""Reading of a run's tables, whole or torn; forbidden content is refused with one `TraceError`.

A run that was killed keeps its streams, and they are read up to the tear. An older run lacks some columns,
which are then null; the numbers that join its tables are required.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeprof.errors import TraceError
from pipeprof.record.columns import text_array, whole_numbers
from pipeprof.record.plain_files import check_plain
from pipeprof.record.remote import incoming
from pipeprof.record.remote.incoming import RemoteTable
from pipeprof.record.remote.places import reached
from pipeprof.record.schema import STREAM_SUFFIX, TABLES
from pipeprof.record.streams import grouped, read_stream

KEYS: Final = ("loader", "epoch", "seq")
JOINED: Final = ("steps", "batches", "stages")
"""The tables whose rows are found by `KEYS`."""
MOST_EPOCHS: Final = 10_000_000
"""Number of epochs at most: they are counted in arrays of this length."""
MOST_KEYS: Final = 2**62
"""Loaders times epochs times batches of an epoch at most: a batch's key is packed into 64 bits."""
MOST_NS: Final = 2**61
"""Time or duration at most: 73 years."""
ROWS_OF_ANY_FILE: Final = 2_000_000
ROWS_OF_A_PIECE: Final = 1 << 16
LEAST_BYTES_A_ROW: Final = 4
"""A table has at most as many rows as the first, or as fit into its file by the second. Steps take 25 bytes
each."""
MOST_TEXT_BYTES: Final = 256 << 20
"""Characters of one column of text, all rows together."""
UNPACKED_OF_ANY_FILE: Final = 512 << 20
MOST_UNPACKED: Final = 64
"""A Parquet file takes at most the first in memory, or the second times its size: a record of 300,000
batches, 99 MB as streams, takes 6.4 MB."""


def read_table(directory: Path, name: str) -> pa.Table:
    """Return the table `name` of `TABLES`, whole; empty if nothing was recorded.

    Raises `TraceError` if its file is damaged.
    """
    try:
        return _whole(table_file(directory, name), name)
    except _GoneError:  # the run has ended meanwhile: its Parquet file stands in place of the stream
        return _whole(table_file(directory, name), name)


def _whole(path: Path | RemoteTable | None, name: str) -> pa.Table:
    """Return a table from its file."""
    schema = TABLES[name]
    if path is None:
        return _empty(schema)
    with refused(path):
        if isinstance(path, RemoteTable) or path.suffix == ".parquet":
            with _parquet(path) as file:
                held = [column for column in schema.names if column in file.schema_arrow.names]
                return conform(file.read(held), name, schema)
        batches = list(_stream(path))
        if not batches:
            return _empty(schema)
        return conform(pa.Table.from_batches(batches).unify_dictionaries(), name, schema)


def read_pieces(directory: Path, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield `columns` of a table piece by piece: for tables that are long and read once.

    Raises `TraceError` if its file is damaged.
    """
    try:
        yield from _pieces(table_file(directory, name), name, columns)
    except _GoneError:  # as of a whole table; nothing was read of it yet
        yield from _pieces(table_file(directory, name), name, columns)


def _pieces(path: Path | RemoteTable | None, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the pieces of a table from its file."""
    if path is None:
        return
    wanted = pa.schema([TABLES[name].field(column) for column in columns])
    with refused(path):
        if isinstance(path, Path) and path.suffix != ".parquet":
            for group in grouped(_stream(path)):
                yield conform(group, name, wanted)
            return
        with _parquet(path) as file:
            held = [column for column in columns if column in file.schema_arrow.names]
            if 0 < file.metadata.num_rows <= ROWS_OF_A_PIECE:  # a fraction of the cost of an iteration
                yield conform(file.read(held, use_threads=False), name, wanted)
                return
            for batch in file.iter_batches(batch_size=ROWS_OF_A_PIECE, columns=held):
                yield conform(pa.Table.from_batches([batch]), name, wanted)
    if file.metadata.num_rows > ROWS_OF_A_PIECE:
        pa.default_memory_pool().release_unused()  # Arrow would keep a tenth of what a long run takes


def table_file(directory: Path, name: str) -> Path | RemoteTable | None:
    """Return the file of a table: its Parquet file, else the stream of a run that has not ended; else None.

    For a run at a URL, it is fetched if it is not large. Raises `TraceError` for anything but a plain file.
    """
    remote = incoming.table(directory, name)
    if remote is not None:
        return remote
    for path in (directory / f"{name}.parquet", directory / f"{name}{STREAM_SUFFIX}"):
        if path.exists():
            check_plain(path)
            return path
    return None


@contextmanager
def refused(path: Path | RemoteTable) -> Iterator[None]:
    """Raise whatever is wrong with a file as one `TraceError`."""
    try:
        with reached(path.url) if isinstance(path, RemoteTable) else nullcontext():
            yield
    except (pa.ArrowException, OSError, KeyError, MemoryError, UnicodeDecodeError) as error:
        why = str(error.args[0] if error.args else error)
        if isinstance(error, UnicodeDecodeError):
            why = "its names are not text"
        elif isinstance(error, OSError) and error.strerror:
            why = error.strerror
        raise TraceError(f"{path} cannot be read: {why}", "the file is damaged; run again") from error


@contextmanager
def _parquet(path: Path | RemoteTable) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; texts stay dictionary-encoded. Raises for too many rows."""
    with ExitStack() as stack:
        remote = isinstance(path, RemoteTable)
        source = stack.enter_context(path.open()) if isinstance(path, RemoteTable) else path
        size = path.size if isinstance(path, RemoteTable) else path.stat().st_size
        # `pq.read_table` imports Arrow's data sets, and pandas
        file = stack.enter_context(pq.ParquetFile(source, pre_buffer=remote))
        metadata = file.metadata
        _check_rows(metadata.num_rows, size)
        _check_unpacked(metadata, size)
        texts = [
            field.name
            for field in file.schema_arrow
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        if texts:
            file = pq.ParquetFile(source, metadata=metadata, read_dictionary=texts, pre_buffer=remote)
            stack.enter_context(file)
        yield file


class _GoneError(TraceError):
    """A stream that is no longer there, as its run has ended."""


def _stream(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream. Raises `ArrowInvalid` if there are too many rows, `_GoneError` if there
    is no file."""
    rows = 0
    batches = read_stream(path)
    try:
        first = next(batches, None)
    except FileNotFoundError as error:
        raise _GoneError(f"{path} is gone", "read the run again") from error
    for batch in chain(() if first is None else (first,), batches):
        rows += batch.num_rows
        with suppress(FileNotFoundError):  # the run has ended meanwhile, and what is open stays readable
            _check_rows(rows, path.stat().st_size)
        yield batch


def _check_rows(rows: int, size: int) -> None:
    """Raise `ArrowInvalid` for more rows than a file of its size can have from a writer of ours."""
    most = max(ROWS_OF_ANY_FILE, size // LEAST_BYTES_A_ROW)
    if rows > most:
        raise pa.ArrowInvalid(f"it has {rows:,} rows; {most:,} are the most in a file of its size")


def _check_unpacked(metadata: pq.FileMetaData, size: int) -> None:
    """Raise `ArrowInvalid` for a file that takes more memory than one of its size from a writer of ours."""
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    most = max(UNPACKED_OF_ANY_FILE, size * MOST_UNPACKED)
    if unpacked > most:
        raise pa.ArrowInvalid(
            f"it unpacks to {unpacked:,} bytes; {most:,} are the most for a file of its size"
        )


def _empty(schema: pa.Schema) -> pa.Table:
    """Return a table without rows; `Schema.empty_table` imports pandas (see `columns`)."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def conform(table: pa.Table, name: str, schema: pa.Schema) -> pa.Table:
    """Return the table with exactly the columns of `schema`; those that it lacks are null.

    Raises `ArrowException` for anything but a table of that name.
    """
    columns = [
        _as(table[field.name], field)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    table = pa.table(columns, schema=schema)
    keys = [key for key in KEYS if name in JOINED and len(table) and key in table.column_names]
    if math.prod(_check_key(table[key], key) + 1 for key in keys) > MOST_KEYS:
        raise pa.ArrowInvalid("its numbers of loaders, epochs and batches are too large to be those of a run")
    return table


def _as(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column as the schema has it. Raises `ArrowInvalid` for what is another, or too much text."""
    column.validate(full=True)  # damaged bytes may not be text, or may point beyond a dictionary
    named_texts = pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)
    if named_texts and pa.types.is_string(field.type):
        if sum(map(_text_bytes, column.chunks)) > MOST_TEXT_BYTES:
            raise pa.ArrowInvalid(f"its {field.name} holds more than {MOST_TEXT_BYTES >> 20} MiB of text")
        return pa.chunked_array([text_array(chunk.to_pylist()) for chunk in column.chunks], field.type)
    if column.type != field.type:
        column = column.cast(field.type)  # imports Arrow's functions, which takes 50 ms
    if field.name.endswith("_ns") and pa.types.is_int64(field.type):
        _check_times(column, field.name)
    return column


def _text_bytes(chunk: pa.DictionaryArray) -> int:
    """Return the bytes of text in a dictionary-encoded column."""
    texts = chunk.dictionary
    if not len(texts):
        return 0
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    rows = np.bincount(whole_numbers(chunk.indices, len(texts)), minlength=len(texts))[: len(texts)]
    return int(np.dot(np.diff(ends).astype(np.int64), rows))


def _ends(column: pa.ChunkedArray) -> tuple[int, int]:
    """Return the least and the largest number of a column, null as 0, and 0 if it has no rows."""
    chunks = (whole_numbers(chunk, 0) for chunk in column.chunks if chunk.null_count < len(chunk))
    ends = [(int(numbers.min()), int(numbers.max())) for numbers in chunks]
    return min((least for least, _ in ends), default=0), max((most for _, most in ends), default=0)


def _check_times(column: pa.ChunkedArray, name: str) -> None:
    """Raise `ArrowInvalid` for times and durations whose differences do not fit into 64 bits."""
    least, most = _ends(column)
    if max(-least, most) > MOST_NS:
        raise pa.ArrowInvalid(f"its {name} holds {max(-least, most):,} ns; {MOST_NS:,} are the most")


def _check_key(column: pa.ChunkedArray, key: str) -> int:
    """Return the largest number. Raises `ArrowInvalid` for what no writer of ours gives a batch."""
    least, most = _ends(column)
    if column.null_count or least < 0:
        raise pa.ArrowInvalid(f"it has rows without the number of their {key}")
    if key == "epoch" and most > MOST_EPOCHS:
        raise pa.ArrowInvalid(f"it has epoch {most:,}; {MOST_EPOCHS:,} are the most")
    return most
