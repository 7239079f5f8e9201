"""Names of counters and levels: the column `counter` of the table `counters`.

A counter is added up where things happen; a level is a value that stands.
"""

from __future__ import annotations

from typing import Final, NewType

CounterName = NewType("CounterName", str)
COUNTERS: Final[dict[CounterName, str]] = {}
"""Each counter's meaning."""
LEVELS: Final[dict[CounterName, str]] = {}
"""Each level's meaning. All their names begin with `LEVEL`."""
LEVEL: Final = "level."


def part_of(counter: CounterName, part: object) -> CounterName:
    """Return the name of a part of what `counter` counts: one generation, class or library."""
    return CounterName(f"{counter}.{part}")


def _counter(name: str, meaning: str) -> CounterName:
    COUNTERS[CounterName(name)] = meaning
    return CounterName(name)


def _level(name: str, meaning: str) -> CounterName:
    LEVELS[CounterName(LEVEL + name)] = meaning
    return CounterName(LEVEL + name)


GC_NS: Final = _counter("gc.ns", "time in Python's garbage collector, by generation")
GC_COUNT: Final = _counter("gc.count", "collections, by generation")
OPENED: Final = _counter("open.count", "files opened while batches were made")
REOPENED: Final = _counter("open.repeated", "of those, files that the process had opened before")
PARSE_NS: Final = _counter(
    "open.parse_ns", "time in constructors of archives, tables and containers, which parse a header"
)
REPEATED_PARSE_NS: Final = _counter(
    "open.repeated_parse_ns", "time in them, and in `open`, for files that the process had opened before"
)
ROWS: Final = _counter("decode.rows", "rows that readers of tables have decoded")
ROWS_NS: Final = _counter("decode.rows_ns", "time in which they did")
MEMBER_BYTES: Final = _counter(
    "decode.member_bytes", "bytes of arrays unpacked whole from archives of arrays (npz)"
)
MEMBERS_NS: Final = _counter("decode.members_ns", "time in which they were")
SKIPPED_BYTES: Final = _counter(
    "skip.bytes", "bytes decompressed to be skipped, by seeks in compressed files and in chunks of HDF5"
)
SKIPPED_NS: Final = _counter("skip.ns", "time in those")
FRAMES: Final = _counter(
    "decode.frames", "frames of moving pictures decoded, those before the one that was asked for included"
)
PICTURES: Final = _counter("decode.pictures", "pictures decoded")
PIXELS: Final = _counter("decode.pixels", "pixels decoded")
SHRUNK_PICTURES: Final = _counter(
    "shrink.pictures", "of those, pictures of which crops and resizes were seen"
)
PIXELS_LEFT: Final = _counter("shrink.pixels", "pixels left of those pictures after their crops and resizes")
CONNECTIONS: Final = _counter("connect.count", "connections made to internet addresses")
CONNECT_NS: Final = _counter("connect.ns", "time in making them")
FIRST_ANSWERS: Final = _counter("connect.first_answers", "connections made of which the first bytes came")
FIRST_ANSWER_NS: Final = _counter(
    "connect.first_answer_ns", "time of waiting for them: a greeting, or the first answer"
)
LATER_ANSWERS: Final = _counter("socket.later_answers", "further answers on connections that were kept")
LATER_ANSWER_NS: Final = _counter("socket.later_answer_ns", "time of waiting for the first bytes of those")
HANDSHAKES: Final = _counter("tls.count", "TLS handshakes")
HANDSHAKE_NS: Final = _counter("tls.ns", "time in them")
SOCKET_WAIT_NS: Final = _counter("socket.wait_ns", "time in reading from internet sockets")
SAMPLER_NS: Final = _counter("sampler.ns", "time in the sampler, by its class")
STARTUP_PROCESS_NS: Final = _counter(
    "startup.process_ns", "from the making of the iterator to the worker's first call of ours"
)
STARTUP_IMPORTS_NS: Final = _counter(
    "startup.imports_ns", "part of it since the worker's process was started: imports, unpickling"
)
STARTUP_INIT_FN_NS: Final = _counter("startup.init_fn_ns", "time in the user's worker_init_fn")
STARTUP_MAKE_NS: Final = _counter(
    "startup.make_ns", "time in which torch made the iterator and started its workers"
)
STARTUP_WRITTEN_BYTES: Final = _counter(
    "startup.written_bytes", "bytes that the main process wrote meanwhile: the pickled data sets"
)
STREAM_ITEM: Final = _counter(
    "stream.item", "one of the first items of a worker's stream: a digest of its content, not added up"
)
GIL: Final = CounterName("gil.")
"""Begins the names of the next two."""
GIL_WAIT_NS: Final = _counter(
    "gil.wait_ns",
    "least time in which a thread of the main process waited for its GIL, by the stage that it was in",
)
GIL_HELD_NS: Final = _counter(
    "gil.held_ns", "the same, by the stage, and by the thread that ran meanwhile and its stack"
)
HELD_BY: Final = "\n"
"""Stands in the name of that counter behind the stage, behind the thread, and between the stack's lines."""
PIN_STAGE: Final = "pin"
"""Stage of the thread that pins batches."""
OWN_LINES_CPU_NS: Final = _counter(
    "own.lines_cpu_ns", "CPU time of sampling lines, in the sampling thread and in the sampled one"
)

THREADS: Final = _level("threads", "threads of the process")
THREADS_RUNNABLE: Final = _level("threads_runnable", "threads that ran or could run")
AFFINITY_CORES: Final = _level("affinity_cores", "cores that the process may run on")
PRIVATE_BYTES: Final = _level("private_bytes", "memory of the process that it does not share")
OWN_BYTES: Final = _level(
    "own_bytes", "memory of the process that no other one shares: not what it inherited and left alone"
)
ALLOCATED_BYTES: Final = _level(
    "allocated_bytes", "memory that a worker has allocated and kept, between two batches"
)
MEMORY_LEFT_BYTES: Final = _level(
    "memory_left_bytes", "memory that the machine, or the container, can still give to any process"
)
SHARED_MEMORY_USED_BYTES: Final = _level("shared_memory_used_bytes", "bytes in /dev/shm, of all programs")
SHARED_MEMORY_BYTES: Final = _level("shared_memory_bytes", "size of /dev/shm")
READ_CALL_BYTES: Final = _level("read_call_bytes", "bytes read by calls since the process began (rchar)")
POOL: Final = _level("pool", "size of a pool of threads, by library")
