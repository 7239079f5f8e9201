"""The streams that a run writes while it lasts: read up to their tear, and turned into Parquet at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipeprof.record import files
from pipeprof.record.schema import TABLES


def to_parquet(directory: Path, table: str) -> None:
    """Rewrite a stream as Parquet; the stream goes only after the Parquet file has its name.

    Raises `OSError` where the file cannot be written; the stream stays then, and nothing else.
    """
    stream, final = directory / f"{table}.arrows", directory / f"{table}.parquet"
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
    """Yield the record batches of a stream up to its end or its tear."""
    with path.open("rb") as file:
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError, EOFError):
            return  # torn: the process died while it wrote this batch
