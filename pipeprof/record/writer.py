"""The writer of a run directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from pipeprof.errors import TraceError
from pipeprof.record import files
from pipeprof.record.columns import arrow_array
from pipeprof.record.directories import already_recorded, make_directory
from pipeprof.record.meta import RunMeta
from pipeprof.record.schema import RUN_JSON, SCHEMA_VERSION, STREAM_SUFFIX, TABLES, Status
from pipeprof.record.streams import to_parquet
from pipeprof.redact import redact, redact_all, redact_command


class TraceWriter:
    """Writer that appends to the tables of one run directory. Not thread-safe: one thread writes.

    Raises `TraceError` if the directory cannot be made or is another run's.
    """

    def __init__(self, directory: Path, meta: RunMeta) -> None:
        self.directory = directory.absolute()  # the program may change its working directory
        self.meta = replace(meta, schema=SCHEMA_VERSION, status="running", pid=meta.pid or os.getpid())
        self._streams: dict[str, tuple[Any, Any]] = {}
        try:
            make_directory(directory)
            files.create_whole(directory / RUN_JSON, _text(self.meta))
        except FileExistsError as error:
            raise already_recorded(directory) from error
        except OSError as error:
            with suppress(OSError):
                directory.rmdir()  # nothing of a run is kept; it stays if it holds anything
            raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error

    def move(self, directory: Path) -> None:
        """Continue in `directory`, which must not hold a run; what is written, and open, moves there.

        Raises `TraceError` if it cannot be made or is another run's.
        """
        try:
            make_directory(directory)
            files.create_whole(directory / RUN_JSON, _text(self.meta))
            for path in self.directory.glob(f"*{STREAM_SUFFIX}"):
                path.rename(directory / path.name)
            (self.directory / RUN_JSON).unlink()
        except FileExistsError as error:
            raise already_recorded(directory) from error
        except OSError as error:
            raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error
        self.directory = directory.absolute()

    def append(self, table: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Append rows; a missing column is null. Each column is a sequence or array of one common length."""
        schema = TABLES[table]
        rows = len(next(iter(columns.values())))
        if rows == 0:
            return
        arrays = [arrow_array(columns.get(field.name), field.type, rows) for field in schema]
        self._stream(table).write_batch(pa.record_batch(arrays, schema=schema))

    def _stream(self, table: str) -> Any:
        if table not in self._streams:
            file = files.open_new(self.directory / f"{table}{STREAM_SUFFIX}")
            # Each batch of a dictionary column carries its own dictionary, so the stream may replace it.
            options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)
            self._streams[table] = (file, pa.ipc.new_stream(file, TABLES[table], options=options))
        return self._streams[table][1]

    def flush(self) -> None:
        """Hand what was appended to the kernel, so that it outlives this process.

        Raises `OSError` if that cannot be, or if the directory was removed meanwhile.
        """
        for file, _ in self._streams.values():
            file.flush()
        if not (self.directory / RUN_JSON).exists():  # an open file can still be written, in vain
            raise FileNotFoundError(errno.ENOENT, "it was removed")

    def write_meta(self, meta: RunMeta) -> None:
        """Replace the run's facts by `meta`, and rewrite `run.json` atomically."""
        self.meta = meta
        files.write_atomically(self.directory / RUN_JSON, _text(meta))

    def close(self, status: Status) -> None:
        """Turn the streams into Parquet and write the final status. Safe to call twice.

        Raises `OSError` if a part cannot be written; all else is written then too, and says why.
        """
        names, failure = list(self._streams), self._end_streams()
        for name in names:
            try:
                to_parquet(self.directory, name)
            except OSError as error:  # the stream stays, and is read in its place
                failure = failure or error
        why = None if failure is None else failure.strerror or str(failure)
        unrecorded = self.meta.unrecorded or why
        self.write_meta(replace(self.meta, status=status, unrecorded=unrecorded))
        if failure is not None:
            raise failure

    def _end_streams(self) -> OSError | None:
        """End and close every stream; return the first error of those that cannot be ended."""
        failure: OSError | None = None
        while self._streams:
            file, stream = self._streams.pop(next(iter(self._streams)))
            for end in (stream.close, file.close):
                try:
                    end()
                except OSError as error:
                    failure = failure or error
        return failure


_warm = False


def warm_up() -> None:
    """Pay the cost of a process's first rows now: a tenth of a second or two in Arrow's libraries."""
    global _warm  # noqa: PLW0603 - libraries are loaded once in a process
    if _warm:
        return
    _warm = True
    for schema in TABLES.values():
        arrays = [arrow_array(None, field.type, 1) for field in schema]
        with pa.ipc.new_stream(pa.BufferOutputStream(), schema) as stream:
            stream.write_batch(pa.record_batch(arrays, schema=schema))


def release_arrow() -> None:
    """Give back the freed memory that Arrow keeps."""
    pa.default_memory_pool().release_unused()


def _text(meta: RunMeta) -> str:
    """Return the text of `run.json`, with what looks like a credential struck out."""
    facts = meta.as_json()
    command = facts.pop("command", None)
    shown = redact_all(facts)
    if command is not None:
        shown["command"] = redact_command(command) if isinstance(command, list | tuple) else redact(command)
    return meta.text_of(shown)
