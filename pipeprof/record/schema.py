"""The schema of a run directory: its tables, their columns, and the version of the whole.

A run directory holds `run.json` and one Parquet file a table. While the run lasts each table is an Arrow IPC
stream (`<table>.arrows`) that grows by one record batch a flush; closing the run turns each stream into
Parquet. Every table is append-only from one source; tables are joined on (`loader`, `epoch`, `seq`) when they
are read.

Times are `CLOCK_MONOTONIC` in nanoseconds, which all processes of one machine share. A null is "not
observed"; a zero was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION: Final = 1
RUN_JSON: Final = "run.json"
JOB_JSON: Final = "job.json"
"""What the ranks of one job share, in the directory that holds their parts."""
REPORT_HTML: Final = "report.html"
"""The page of a run, in its directory."""
STREAM_SUFFIX: Final = ".arrows"
"""Ends the name of a table's file while its run lasts."""
MAIN_PROCESS: Final = -1
"""Value of `worker` for a batch that was made in the main process."""
MISSING: Final = -1
"""Value that stands for a null in integers, which cannot be null: no time, count or size of ours is
negative."""

UNPROBED_FIRST: Final = 512
"""Batches of a loader after which some are made unprobed: `unprobed` in `batches` and `steps`."""
UNPROBED_PERIOD: Final = 64
"""Batches of one process in which one block is unprobed."""
UNPROBED_BLOCK: Final = 4
"""Batches of a block, and of what it is compared with before and after it."""
PROBED_OF: Final = 8
"""Number of batches of one process of which one is probed, if probing all of them would cost too much."""

_I16, _I32, _I64 = "int16", "int32", "int64"
_NAME: Final = "name"
"""A text with few values: a dictionary."""
_KEY: Final = (("loader", _I16), ("epoch", _I32), ("seq", _I64))

_COLUMNS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    # One row for each batch that was made. Key: loader, epoch, seq (the order in which it was asked for).
    # A column that is added to `batches`, `stages` or `spans` is a figure of the workers' records too: see
    # `measure.probe.layout`.
    "batches": [
        *_KEY,
        ("worker", _I16),  # MAIN_PROCESS if there are no workers
        ("samples", _I32),
        ("dispatch_ns", _I64),  # the main process put the batch's indices into the worker's queue
        ("start_ns", _I64),  # the worker turned to it
        ("finish_ns", _I64),  # collate returned; null if it raised
        ("gc_ns", _I64),  # in Python's garbage collector, between start and finish
        ("cpu_ns", _I64),  # thread CPU time in [start, finish]
        # CPU time of the thread between the batch before and this one; no column in older runs
        ("handover_cpu_ns", _I64),
        ("runq_ns", _I64),  # runnable and without a core; blocked is the rest
        ("device_bytes", _I64),  # bytes that came from a block device
        ("helper_cpu_ns", _I64),  # CPU of the process's other threads
        ("major_faults", _I64),
        # Of a large batch, by the thread that made it; no columns in older runs.
        ("touched_bytes", _I64),  # memory that it was the first to touch in [start, finish]
        (
            "system_ns",
            _I64,
        ),  # its time in the kernel at the finish, since it began: counted in the clock's ticks
        ("bytes", _I64),  # size of the batch's tensors
        ("slowest_index", _I64),  # data set index of the slowest sample
        ("slowest_ns", _I64),
        ("shard", _NAME),  # the file read from last, if it holds many samples; no column in older runs
        # True if the proxies did next to nothing, to measure what they cost: its inside is not observed
        ("unprobed", "bool"),
        ("thread_cpu_ns", _I64),  # CPU clock of the worker's thread as it turned to it, around unprobed ones
        (
            "own_ns",
            _I64,
        ),  # what the proxies still did in an unprobed one, by the clock; no column in older runs
    ],
    # One row for each batch that the loop took.
    "steps": [
        ("step", _I64),  # counts up over the whole run
        *_KEY,
        ("warmup", "bool"),
        ("samples", _I32),
        ("request_ns", _I64),  # next(iterator) was called
        ("pickled_ns", _I64),  # the worker's queue thread began to pickle the batch
        ("sent_ns", _I64),  # and had written it to the pipe
        ("sent_bytes", _I64),  # size of its pickle; tensors travel outside it, in shared memory
        ("state_bytes", _I64),  # of it the data set's state that travels along; no column in older runs
        ("receive_start_ns", _I64),  # the main process or its pin thread began to unpickle the batch
        ("received_ns", _I64),  # and had unpickled it
        ("arrival_ns", _I64),  # the batch was in the main process, ready to be taken
        ("take_ns", _I64),  # next(iterator) returned
        ("next_cpu_ns", _I64),  # CPU time of that, if workers make the batch; no column in older runs
        ("launch_ns", _I64),  # the host had submitted the step (or finished it, if it synchronises)
        ("copy_start_ns", _I64),  # host to device, on the device's clock
        ("copy_end_ns", _I64),
        ("compute_start_ns", _I64),
        ("compute_end_ns", _I64),
        ("device_wait_ns", _I64),  # unmasked wait, measured on the device itself
        ("ready_batches", _I32),  # finished by workers and not taken, at request
        ("unprobed", "bool"),  # True if the loop's side did next to nothing, as in `batches`
        ("thread_cpu_ns", _I64),  # CPU clock of the loop's thread at the request, around unprobed ones
        ("own_ns", _I64),  # what was still done around an unprobed one, as in `batches`
    ],
    # Per batch and stage. scope 0: while the batch was made; 1: in the loop, after it was taken.
    "stages": [
        *_KEY,
        ("scope", "int8"),
        ("stage", _NAME),
        ("wall_ns", _I64),  # of this stage alone: inner stages are taken out
        ("cpu_ns", _I64),
        ("runq_ns", _I64),
        ("queue_ns", _I64),  # storage stages: waiting for other requests on the device
        ("bytes", _I64),
        ("count", _I32),
    ],
    # Single spans, kept for some batches (for all with detail="sample").
    "spans": [
        *_KEY,
        ("worker", _I16),
        ("stage", _NAME),
        ("sample", _I64),  # data set index; null if the span is of the whole batch
        ("start_ns", _I64),
        ("wall_ns", _I64),
        ("cpu_ns", _I64),
        ("bytes", _I64),
    ],
    # Samples of Python stacks: one row for each stack and stage that was seen since the flush before.
    "lines": [
        ("time_ns", _I64),  # of the flush
        ("loader", _I16),  # null for the training thread
        ("worker", _I16),  # MAIN_PROCESS for the training thread
        ("stage", _NAME),  # as in `stages`; `wait` and `main` for the training thread
        ("stack", _NAME),  # its lines, outermost first: file, line, function, a generator's mark; tabs
        ("samples", _I32),
        ("wall_ns", _I64),  # that the samples stand for
        ("cpu_ns", _I64),  # that the thread was on a core meanwhile
    ],
    # What was counted in a process since the flush before: see `names.counters`.
    "counters": [
        ("time_ns", _I64),
        ("loader", _I16),
        ("epoch", _I32),
        ("worker", _I16),
        ("counter", _NAME),
        ("value", _I64),
    ],
    # One row for each collective in which this rank met the others, after the step that it ends.
    "collectives": [("step", _I64), ("start_ns", _I64), ("end_ns", _I64)],
    # What a step is made of on its device: forward, backward, optimizer, collectives. Absent in older runs.
    "parts": [("step", _I64), ("part", _NAME), ("start_ns", _I64), ("end_ns", _I64)],
    # Kernels of a few steps, as torch.profiler traced them; operators if no device computed.
    "kernels": [
        ("kernel", _NAME),
        ("start_ns", _I64),
        ("wall_ns", _I64),
        ("device", _I16),  # null for an operator on the CPU
        ("stream", _I64),
    ],
    "telemetry": [("time_ns", _I64), ("sensor", _NAME), ("value", "float64")],
    # What happened once: see EVENTS.
    "events": [
        ("time_ns", _I64),
        ("kind", _NAME),
        ("loader", _I16),
        ("epoch", _I32),
        ("worker", _I16),
        ("detail", "string"),
    ],
}
"""Names and types of the columns of each table."""


class _Schemas(Mapping[str, "pa.Schema"]):
    """Arrow's schemas of the tables, made when the first one is asked for.

    Arrow takes 0.1 s of CPU to import, and what reads no table, such as a list of runs, does without it.
    """

    def __getitem__(self, name: str) -> pa.Schema:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COLUMNS)

    def __len__(self) -> int:
        return len(_COLUMNS)

    @cached_property
    def _made(self) -> dict[str, pa.Schema]:
        import pyarrow as pa

        names = pa.dictionary(pa.int32(), pa.string())
        return {
            table: pa.schema(
                [(name, names if kind == _NAME else pa.type_for_alias(kind)) for name, kind in columns]
            )
            for table, columns in _COLUMNS.items()
        }


TABLES: Final = _Schemas()

EVENTS: Final = (
    "epoch_start",  # iter(loader) was called; once for each epoch of which a batch was asked for
    "workers_ready",  # the iterator exists: its workers have been started; none if it started none
    "last_request",  # next(iterator) was called and no batch was left: the last step had ended
    "epoch_end",  # the loop left the loader, as `detail` says; none if that was not observed
    "worker_lost",
    "batch_lost",  # `worker` could not make or hand over a batch, its first such; `detail` says all of it
    "hang",  # the loop waited very long for a batch, which `worker` holds; `detail` says it in a line
    "worker_killed",  # by SIGKILL, as the kernel does for memory; `detail` gives its memory before
    "suspended",  # the process, or `worker`, stood still until now, as after SIGSTOP; `detail`: how many ns
    "clock_set",  # the machine's clock was set, by `detail` ns
    "slept",  # the machine slept, for `detail` ns, which the tables' clock does not count
    "consumer_thread",  # the loop takes its batches in another thread than the main one; `detail` names it
    "trainer_thread",  # an optimiser has stepped in another thread than takes the batches; `detail` names it
    "kernels_traced",  # torch.profiler has traced kernels; `detail` gives the first step and the last
    "bound",  # the process was bound to fewer cores than it began with; `detail` says since when
    "run_end",  # the last step has ended on the device
)

EpochEnd = Literal["exhausted", "dropped"]
"""Value of `detail` of `epoch_end`.

Exhausted: next(iterator) raised StopIteration, after it had shut its workers down. Dropped: the iterator was
let go before its end, as by a `break`; the last step had ended. An iterator that its loader keeps (persistent
workers, a StatefulDataLoader) is not let go: its end is not observed. Older runs only have the exhausted
ones.
"""

Status = Literal["running", "complete", "interrupted", "failed", "partial"]
"""Status of a run. `partial` is never written: a reader assigns it to a run that says `running` and no longer
runs."""
