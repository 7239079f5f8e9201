"""The record of a run: schema and version, writer, reader, recovery of a torn run.

A run directory holds `run.json` and one Parquet file a table. While the run lasts each table is an Arrow IPC
stream (`<table>.arrows`) that grows by one record batch a flush; closing the run turns each stream into
Parquet. A run that was killed keeps its streams, and the reader reads them up to the tear, so that at most
the time since the last flush is lost. Every table is append-only from one source; tables are joined on
(`loader`, `epoch`, `seq`) when they are read.

Times are `CLOCK_MONOTONIC` in nanoseconds, which all processes of one machine share. A null is "not
observed"; a zero was measured.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipeprof.columns import arrow_array
from pipeprof.errors import TraceError

SCHEMA_VERSION: Final = 1
RUN_JSON: Final = "run.json"
RUNS: Final = Path("runs")
"""Where run directories are made, below the current directory, when none is named."""
MAIN_PROCESS: Final = -1
"""The `worker` of a batch that was made in the main process."""

_I16, _I32, _I64 = pa.int16(), pa.int32(), pa.int64()
_NAME = pa.dictionary(pa.int32(), pa.string())
_KEY = [("loader", _I16), ("epoch", _I32), ("seq", _I64)]

TABLES: Final[dict[str, pa.Schema]] = {
    # One row for each batch that was made. Key: loader, epoch, seq (the order in which it was asked for).
    "batches": pa.schema(
        [
            *_KEY,
            ("worker", _I16),  # MAIN_PROCESS where there are no workers
            ("samples", _I32),
            ("dispatch_ns", _I64),  # the main process put the batch's indices into the worker's queue
            ("start_ns", _I64),  # the worker turned to it
            ("finish_ns", _I64),  # collate returned; null where it raised
            ("cpu_ns", _I64),  # thread CPU time in [start, finish]
            ("runq_ns", _I64),  # runnable and without a core; blocked is the rest
            ("device_bytes", _I64),  # bytes that came from a block device
            ("helper_cpu_ns", _I64),  # CPU of the process's other threads
            ("major_faults", _I64),
            ("bytes", _I64),  # size of the batch's tensors
            ("slowest_index", _I64),  # data set index of the slowest sample
            ("slowest_ns", _I64),
            ("shard", _NAME),  # the file read from last, where it holds many samples; no column in older runs
        ]
    ),
    # One row for each batch that the loop took.
    "steps": pa.schema(
        [
            ("step", _I64),  # counts up over the whole run
            *_KEY,
            ("warmup", pa.bool_()),
            ("samples", _I32),
            ("request_ns", _I64),  # next(iterator) was called
            ("arrival_ns", _I64),  # the batch was in the main process, ready to be taken
            ("take_ns", _I64),  # next(iterator) returned
            ("launch_ns", _I64),  # the host had submitted the step (or finished it, where it synchronises)
            ("copy_start_ns", _I64),  # host to device, on the device's clock
            ("copy_end_ns", _I64),
            ("compute_start_ns", _I64),
            ("compute_end_ns", _I64),
            ("device_wait_ns", _I64),  # unmasked wait, measured on the device itself
            ("ready_batches", _I32),  # finished by workers and not taken, at request
        ]
    ),
    # Per batch and stage. scope 0: while the batch was made; 1: in the loop, after it was taken.
    "stages": pa.schema(
        [
            *_KEY,
            ("scope", pa.int8()),
            ("stage", _NAME),
            ("wall_ns", _I64),  # of this stage alone: inner stages are taken out
            ("cpu_ns", _I64),
            ("runq_ns", _I64),
            ("queue_ns", _I64),  # storage stages: waiting for other requests on the device
            ("bytes", _I64),
            ("count", _I32),
        ]
    ),
    # Single spans, kept for some batches (for all with detail="sample").
    "spans": pa.schema(
        [
            *_KEY,
            ("worker", _I16),
            ("stage", _NAME),
            ("sample", _I64),  # data set index; null where the span is of the whole batch
            ("start_ns", _I64),
            ("wall_ns", _I64),
            ("cpu_ns", _I64),
            ("bytes", _I64),
        ]
    ),
    # One row for each collective in which this rank met the others, after the step that it ends.
    "collectives": pa.schema([("step", _I64), ("start_ns", _I64), ("end_ns", _I64)]),
    "telemetry": pa.schema([("time_ns", _I64), ("sensor", _NAME), ("value", pa.float64())]),
    # What happened once: see EVENTS.
    "events": pa.schema(
        [
            ("time_ns", _I64),
            ("kind", _NAME),
            ("loader", _I16),
            ("epoch", _I32),
            ("worker", _I16),
            ("detail", pa.string()),
        ]
    ),
}

EVENTS: Final = (
    "epoch_start",  # iter(loader) was called
    "workers_ready",  # the iterator exists: its workers have been started
    "epoch_end",
    "worker_lost",
    "run_end",  # the last step has ended on the device
)

STATUSES: Final = ("running", "complete", "interrupted", "failed", "partial")
"""`partial` is never written: it is what a reader calls a run that still says `running` and no longer is."""


class TraceWriter:
    """Appends to the tables of one run directory. Not thread-safe: one thread writes.

    Raises `TraceError` where the directory cannot be made or is another run's.
    """

    def __init__(self, directory: Path, meta: Mapping[str, Any]) -> None:
        self.directory = directory.absolute()  # the program may change its working directory
        self.meta: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "status": "running",
            "pid": os.getpid(),
            **meta,
        }
        self._streams: dict[str, tuple[Any, Any]] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / RUN_JSON).open("x") as file:
                json.dump(self.meta, file, indent=1)
        except FileExistsError as error:
            raise TraceError(f"{directory} already holds a run", "choose another --out") from error
        except OSError as error:
            raise TraceError(f"cannot write {directory}: {error.strerror}", "choose another --out") from error

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
            file = (self.directory / f"{table}.arrows").open("wb")
            # Each batch of a dictionary column carries its own dictionary, so the stream may replace it.
            options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)
            self._streams[table] = (file, pa.ipc.new_stream(file, TABLES[table], options=options))
        return self._streams[table][1]

    def flush(self) -> None:
        """Hand what was appended to the kernel: it outlives this process from here on."""
        for file, _ in self._streams.values():
            file.flush()

    def update(self, **meta: Any) -> None:
        """Change `run.json`, atomically."""
        self.meta.update(meta)
        write_atomically(self.directory / RUN_JSON, json.dumps(self.meta, indent=1))

    def close(self, status: str) -> None:
        """Turn the streams into Parquet and write the final status. Safe to call twice."""
        for file, stream in self._streams.values():
            stream.close()
            file.close()
        names = list(self._streams)
        self._streams = {}
        for name in names:
            _to_parquet(self.directory, name)
        self.update(status=status)


def new_directory(name: str, parent: Path = RUNS) -> Path:
    """`runs/<name>-<time>`, with a number behind it where two runs start in one second. Not made yet."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (f"{stem}-{number}" if number > 1 else stem for number in range(1, 1000))
    return next(parent / each for each in candidates if not (parent / each).exists())


def part_of(directory: Path, rank: int) -> Path:
    """Where the rank `rank` of a job of several writes its own run, below the job's directory."""
    return directory / f"rank-{rank}"


def attempt_of(directory: Path, restart: int) -> Path:
    """Where all ranks of a job write whose launcher has begun again `restart` times."""
    return directory / f"restart-{restart}" if restart else directory


def attempts(directory: Path) -> list[Path]:
    """Where the later attempts of the job in `directory` lie, in order; those that hold parts."""
    found = {path.name[8:]: path for path in directory.glob("restart-*") if parts(path)}
    return [found[number] for number in sorted(filter(str.isdecimal, found), key=int)]


def parts(directory: Path) -> dict[int, Path]:
    """The runs of the ranks of a job in `directory`, by rank; empty where it is no job's directory."""
    found = {path.parent.name[5:]: path.parent for path in directory.glob(f"rank-*/{RUN_JSON}")}
    return {int(rank): found[rank] for rank in sorted(filter(str.isdecimal, found), key=int)}


def write_atomically(path: Path, text: str) -> None:
    """Write a whole text file or nothing: a temporary neighbour, renamed over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _to_parquet(directory: Path, table: str) -> None:
    """Rewrite a stream as Parquet; the stream goes only after the Parquet file has its name."""
    stream, final = directory / f"{table}.arrows", directory / f"{table}.parquet"
    temporary = directory / f".{table}.parquet"
    narrow = [field.name for field in TABLES[table] if field.type == _I64]
    with pq.ParquetWriter(
        temporary,
        TABLES[table],
        compression="zstd",
        use_dictionary=[f.name for f in TABLES[table] if f.name not in narrow],
        column_encoding=dict.fromkeys(narrow, "DELTA_BINARY_PACKED"),
        write_statistics=False,
    ) as writer:
        for batch in _grouped(_read_stream(stream)):
            writer.write_table(batch)
    temporary.replace(final)
    stream.unlink()


def _grouped(batches: Iterator[pa.RecordBatch], rows: int = 65_536) -> Iterator[pa.Table]:
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


def _read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a stream up to its end or its tear."""
    with path.open("rb") as file:
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError, EOFError):
            return  # torn: the process died while it wrote this batch


class Run:
    """One run, read. Tables are read when first asked for and are empty where nothing was recorded."""

    def __init__(self, directory: Path, meta: dict[str, Any]) -> None:
        self.directory = directory
        self.meta = meta
        self._tables: dict[str, pa.Table] = {}

    @property
    def status(self) -> str:
        """One of `STATUSES`."""
        return str(self.meta["status"])

    def table(self, name: str) -> pa.Table:
        """The table `name` of `TABLES`, whole."""
        if name not in self._tables:
            self._tables[name] = self._read(name)
        return self._tables[name]

    def pieces(self, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of a table, piece by piece: for tables that are long and read once."""
        if name in self._tables:
            yield self._tables[name].select(columns)
            return
        schema = TABLES[name]
        wanted = pa.schema([schema.field(column) for column in columns])
        final, stream = self.directory / f"{name}.parquet", self.directory / f"{name}.arrows"
        try:
            if final.exists():
                with pq.ParquetFile(final) as file:
                    held = [column for column in columns if column in file.schema_arrow.names]
                    for batch in file.iter_batches(batch_size=1 << 18, columns=held):
                        yield _conform(pa.Table.from_batches([batch]), wanted)
            elif stream.exists():
                for group in _grouped(_read_stream(stream)):
                    yield _conform(group, wanted)
        except (pa.ArrowInvalid, OSError) as error:
            raise TraceError(f"{final} cannot be read: {error}", "the file is damaged; run again") from error

    def _read(self, name: str) -> pa.Table:
        schema = TABLES[name]
        final, stream = self.directory / f"{name}.parquet", self.directory / f"{name}.arrows"
        try:
            if final.exists():
                return _conform(pq.read_table(final), schema)
            if stream.exists() and (batches := list(_read_stream(stream))):
                return _conform(pa.Table.from_batches(batches).unify_dictionaries(), schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise TraceError(f"{final} cannot be read: {error}", "the file is damaged; run again") from error
        return schema.empty_table()


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of `schema`: an older run lacks some, which are null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def load(path: Path | str) -> Run:
    """Open a run directory. A run that says `running` is `partial` where its process is gone, or cannot be
    seen from here: one of another machine, or of this one before it was started anew.

    Raises `TraceError` where there is no run, or one of a newer schema.
    """
    directory = Path(path)
    try:
        # NaN and infinities, which JSON does not have and Python writes, are no observation.
        meta = json.loads((directory / RUN_JSON).read_text(), parse_constant=lambda _: None)
    except (FileNotFoundError, NotADirectoryError) as error:
        problem, remedy = f"is no run directory: it has no {RUN_JSON}", "give one that `pipeprof run` wrote"
        if found := parts(directory):
            problem = f"holds the runs of {len(found)} ranks, and is none itself"
            remedy = f"see them with `pipeprof report {directory}`, or give one of them"
        elif later := attempts(directory):
            problem = "holds no run of a job's first attempt, but of those that came after it"
            remedy = f"see the last with `pipeprof report {later[-1]}`"
        raise TraceError(f"{directory} {problem}", remedy) from error
    except (OSError, ValueError) as error:
        raise TraceError(f"{directory / RUN_JSON} cannot be read: {error}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("schema"), int):
        raise TraceError(f"{directory / RUN_JSON} is no run of pipeprof")
    if meta["schema"] > SCHEMA_VERSION:
        raise TraceError(
            f"{directory} was written by a newer pipeprof (schema {meta['schema']})",
            f"upgrade pipeprof: this one reads schema {SCHEMA_VERSION}",
        )
    if meta.get("status") == "running" and not _alive(meta):
        meta["status"] = "partial"
    return Run(directory, meta)


def boot_id() -> str | None:
    """Of this machine since it was started; None where the kernel does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _alive(meta: Mapping[str, Any]) -> bool:
    """Whether the process that writes a run is there. Of another machine its number says nothing here."""
    pid, here = meta.get("pid"), {"boot_id": boot_id(), "host": socket.gethostname()}
    if not isinstance(pid, int) or any(meta.get(key) not in (None, own) for key, own in here.items()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
