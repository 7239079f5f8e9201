"""Parts of one read of a remote place: its requests, their first bytes, refusals and retries.

fsspec's clients of object stores and web servers (s3fs, gcsfs, adlfs, http) send their requests through
aiohttp, in a thread of fsspec's own. aiohttp's tracing reports when a request was sent and when its answer
began; a context variable, which follows the call into that thread and its tasks, says for which read. A
client that is refused sleeps and asks again in the same task, so that the time until its next request is the
time that it backed off.

A read becomes up to five stages, none inside another: `read` (the bytes came), `read:client` (the client's
own work until it asked), `read:first-byte` (from the sending of each request, its connection included, to the
first byte of its answer), `read:throttled` (answers 503 and 429, and waiting to ask again) and `read:retry`
(the same after other failures). `count` is the number of reads, of those seen to ask, of answers, of refusals
and of failures. If many answers share a line that is full, some of their first bytes' time is the line's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.probe.batch import BatchRecorder
from pipeprof.measure.probe.spans import READ, NoSpan, Sink, Span, active, storage_read

CLIENT: Final = "read:client"
FIRST_BYTE: Final = "read:first-byte"
THROTTLED: Final = "read:throttled"
RETRY: Final = "read:retry"

_REFUSALS: Final = (429, 503)
"""Too Many Requests (RFC 6585); S3 says SlowDown with 503 Service Unavailable."""
_FAILURE: Final = 500
"""Clients ask again after this status and those above it."""


class Tally:
    """The requests of one read. Written in the client's thread while the reader's own waits for it."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self.took: dict[str, list[int]] = {}
        """Time in ns and count of each part."""
        self._failed: dict[Any, tuple[str, int]] = {}
        """Tasks whose last request failed: how, and when they knew."""

    def sent(self, task: Any, now_ns: int) -> None:
        """Note that a request goes out; the task's last one may have failed."""
        if not self.took:
            self._add(CLIENT, now_ns - self._start_ns, 1)
        kind, since_ns = self._failed.pop(task, ("", 0))
        if kind:
            self._add(kind, now_ns - since_ns, 0)

    def answered(self, task: Any, sent_ns: int, now_ns: int, status: int | None) -> None:
        """Note that an answer began, with `status`; None if there was none."""
        kind = FIRST_BYTE
        if status is None or status >= _FAILURE or status in _REFUSALS:
            kind = THROTTLED if status in _REFUSALS else RETRY
            self._failed[task] = kind, now_ns
        self._add(kind, now_ns - sent_ns, 1)

    def _add(self, kind: str, ns: int, count: int) -> None:
        total = self.took.setdefault(kind, [0, 0])
        total[0] += ns
        total[1] += count

    def charge(self, sink: Sink, whole_ns: int) -> None:
        """Take the parts out of the span that is open in `sink` and has lasted `whole_ns` by now."""
        shrink = min(1.0, whole_ns / max(1, sum(ns for ns, _ in self.took.values())))  # several at once
        for kind, (ns, count) in self.took.items():
            totals, own_ns = sink.total(kind), int(ns * shrink)
            totals.wall_ns += own_ns
            totals.count += count
            sink.inner_ns += own_ns


_reading: Final[ContextVar[Tally | None]] = ContextVar("pipeprof_reading", default=None)


@contextmanager
def remote_read() -> Iterator[Span | NoSpan]:
    """Time one read of a remote place; set `bytes` on what it yields. Costs nothing if no one listens."""
    sink = active()
    if sink is None:
        yield NoSpan()
        return
    if isinstance(sink, BatchRecorder):
        sink.storage_unseen = True  # the kernel's count of blocks says nothing of these bytes
    start_ns = monotonic_ns()
    tally = Tally(start_ns)
    token = _reading.set(tally)
    try:
        with storage_read() as record:
            try:
                yield record
            finally:
                tally.charge(sink, monotonic_ns() - start_ns)
    finally:
        _reading.reset(token)


def traced_session(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap aiohttp's `ClientSession.__init__`, so that sessions report their requests."""

    def __init__(self: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807
        own = options.pop("trace_configs", None) or []
        original(self, *arguments, **options, trace_configs=[*own, _trace_config()])

    return __init__


def _trace_config() -> Any:
    config = sys.modules["aiohttp"].TraceConfig()  # a session of it is being made
    config.on_request_start.append(_sent)
    config.on_request_end.append(_answered)
    config.on_request_exception.append(_broke)
    return config


async def _sent(_session: Any, context: Any, _params: Any) -> None:
    context.tally, context.sent_ns = _reading.get(), monotonic_ns()
    if context.tally is not None:
        context.tally.sent(asyncio.current_task(), context.sent_ns)


async def _answered(_session: Any, context: Any, params: Any) -> None:
    if context.tally is not None:
        task, status = asyncio.current_task(), int(params.response.status)
        context.tally.answered(task, context.sent_ns, monotonic_ns(), status)


async def _broke(_session: Any, context: Any, _params: Any) -> None:
    if context.tally is not None:
        context.tally.answered(asyncio.current_task(), context.sent_ns, monotonic_ns(), None)


def _file_of(arguments: tuple[Any, ...]) -> str | None:
    """Return what a call of fsspec's reads: a path, an open file, or s3fs, bucket and key comes first."""
    match arguments:
        case (str(name), *_):
            return name
        case (_, str(bucket), str(key), *_):
            return f"{bucket}/{key}"
        case (file, *_):
            path = getattr(file, "path", None)
            return path if isinstance(path, str) else None
    return None


def _came_from(file: str | None, sink: BatchRecorder, function: Any, size_bytes: int) -> None:
    """Note that `size_bytes` came from `file`. Its opening was not seen: a turn to another file counts as
    one."""
    if file is not None and file != sink.file:
        sink.file = file
        sink.files += 1
        sink.opened_files.fetched(lambda: _url_of(function, file), size_bytes)


def _url_of(function: Any, file: str) -> str:
    """Return the URL of a file that a method of its file system, or of an open file, has read."""
    owner = function.__self__
    return str(getattr(owner, "fs", owner).unstrip_protocol(file))


def timed_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap fsspec's `sync`, through which all of its blocking calls go: each is one read."""

    def sync(loop: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        sink = active()
        if not isinstance(sink, BatchRecorder) or sink.current.name == READ:
            return original(loop, function, *arguments, **options)
        with remote_read() as record:
            result = original(loop, function, *arguments, **options)
            if isinstance(result, bytes | bytearray):
                record.bytes = len(result)
                _came_from(_file_of(arguments), sink, function, len(result))
        return result

    return sync
