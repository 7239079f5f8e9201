"""Measures the rate of a run's storage with 1, 2, 4, 8 and 16 readers, by reading the run's own files cold.

It only reads, the way the run did: files whole, pieces of large files, through a memory map, or objects of a
remote place through fsspec. Local files are dropped from the page cache before they are read; access times
stay as they are if that is permitted. At most `MOST_S` seconds and `MOST_BYTES` bytes. Readers are threads: a
read lets go of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np

from pipeprof.errors import MeasureError
from pipeprof.measure.host.page_cache import evict_open
from pipeprof.record.added.storage_probe import ProbePoint, StorageProbe, write_probe
from pipeprof.record.meta import ReadFileMeta, RunMeta
from pipeprof.record.reader import Run, load
from pipeprof.redact import redact

READERS: Final = (1, 2, 4, 8, 16)
MOST_S: Final = 5.0
MOST_BYTES: Final = 2 * 10**9
POINT_S: Final = 0.7
WARM_UP_S: Final = 0.15
"""Part of each point that is not counted: what a limit had saved up is used by then."""
FEWEST: Final = 10
"""Requests of each reader below which those of the warm-up are counted too."""
_LISTED: Final = 20_000
_LIST_S: Final = 0.3
_LARGE_BYTES: Final = 16 * 2**20
"""Size from which a file holds many samples, and is read in pieces."""
_LEAST_BYTES: Final = 4096
_MOST_REQUEST: Final = 4 * 2**20
_DEFAULT_REQUEST: Final = 128 * 1024
_OBJECTS: Final = 256
_HERE: Final = ("file", "local", "memory")
"""Schemes of fsspec for what is on this machine, or in this process."""
_BLOCK_BYTES: Final = 512
"""Unit of `ru_inblock`."""

Read = Callable[[], int]
"""Makes one request; returns its bytes."""


@dataclass(frozen=True)
class Plan:
    """The files to read, and how the run read them."""

    how: str
    files: tuple[Path, ...]
    request_bytes: int
    first_bytes: int | None = None
    """Size of the first request of a file, if that is another: the kernel chooses its read-ahead by it."""
    urls: tuple[str, ...] = ()
    """What is read instead of files, if the run read from a remote place."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of that place's client."""


def probe_storage(run: Path | str) -> StorageProbe:
    """Probe the storage of a run directory, and keep the curve in it; takes at most 6 s.

    Raises `TraceError` if there is no run, `MeasureError` if none of its files can be read here.
    """
    opened = load(run)
    probe = probe_files(plan_of(opened))
    try:
        write_probe(opened.directory, probe)
    except OSError as error:
        raise MeasureError(
            f"{opened.directory} cannot be written: {error.strerror}", "copy the run to where it can"
        ) from error
    return probe


# -- what to read ------------------------------------------------------------------------------------------


def plan_of(run: Run) -> Plan:
    """Return how to read like the run. Raises `MeasureError` if its files are not known, or not here."""
    meta = run.meta
    recorded = _recorded(meta)
    remote = [each.path for each in recorded if each.how == "url"]
    if meta.storage.remote or len(remote) > len(recorded) / 2:  # a list of them may lie here
        return _objects(run, remote)
    known = [each for each in recorded if _is_readable(Path(each.path))]
    if not known:
        raise MeasureError(
            f"{run.directory} names no file of its data that can be read here",
            "record it with `pipeprof trace`, and probe it on the machine where the data lie",
        )
    opened = [each for each in known if each.how == "read"]
    sizes = [each.size_bytes or 0 for each in opened]
    if opened and median(sizes) < _LARGE_BYTES:
        return _whole_files([Path(each.path) for each in opened], median(sizes), _request_bytes(run))
    if opened:
        return Plan("random", tuple(Path(each.path) for each in opened), _request_bytes(run))
    largest = max(known, key=lambda each: each.size_bytes or 0)
    files = tuple(Path(each.path) for each in known if each.how == largest.how)
    return Plan("mapped" if largest.how == "mapped" else "random", files, _sample_bytes(run))


def _objects(run: Run, known: Sequence[str]) -> Plan:
    """Read objects of a remote place, in requests of the run's size."""
    storage = run.meta.storage
    urls = tuple(known) or tuple(_objects_below(storage.path or "", storage.options or {}))
    if not urls:
        raise MeasureError(f"{run.directory} names no object that can be listed", "see that they are there")
    whole = _clipped(_request_bytes(run) + _LEAST_BYTES)
    return Plan("url", (), whole, urls=urls, options=storage.options or {})


def _objects_below(url: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of some objects of a scenario's place."""
    client, root = _client(url, options)
    try:
        names = (f"{folder}/{name}" for folder, _, names in client.walk(root) for name in names)
        yield from (str(client.unstrip_protocol(name)) for name in islice(names, _OBJECTS))
    except Exception as error:  # clients raise what they like
        raise MeasureError(f"{url} cannot be listed: {error}", "see that it can be read from here") from error


def _client(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return fsspec's client for a URL, and the URL's path in it. Raises `MeasureError` for none."""
    scheme = url.partition("://")[0].lower()
    if "::" in url or scheme in _HERE:
        raise MeasureError(
            f"{redact(url)} is not a remote location", "name files of this machine by their paths"
        )
    try:
        import fsspec

        client = fsspec.filesystem(scheme, **options)
        return client, str(client._strip_protocol(url))
    except Exception as error:  # no such client, or not its package
        raise MeasureError(f"{redact(url)} cannot be read: {error}", "install its client") from error


def _whole_files(seen: Sequence[Path], size_bytes: float, request_bytes: int) -> Plan:
    """Read files in as many requests as the run: if there are several, the first fills Python's buffer, as a
    decoder does that looks at the head of a file."""
    requests = round(size_bytes / request_bytes)
    if requests < 2:
        return Plan("whole", _alike(seen), _clipped(size_bytes + _LEAST_BYTES))
    rest = _clipped((size_bytes - _LEAST_BYTES) / (requests - 1))
    return Plan("whole", _alike(seen), rest, _LEAST_BYTES)


def _recorded(meta: RunMeta) -> Sequence[ReadFileMeta]:
    """Return the files that the run recorded, or some of the real directory that its scenario names."""
    if meta.reading.files or meta.storage.emulated or not meta.storage.path:
        return meta.reading.files
    paths = islice(_files_below(Path(meta.storage.path)), 32)
    return [ReadFileMeta(str(path), path.stat().st_size, "read") for path in paths]


def _files_below(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))


def _is_readable(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_file() and path.stat().st_size > 0 and os.access(path, os.R_OK)
    return False


def _alike(seen: Sequence[Path]) -> tuple[Path, ...]:
    """Return files in the directories of those that were seen, or in neighbouring ones, with the same
    endings."""
    endings = {path.suffix for path in seen}
    until = time.monotonic() + _LIST_S
    paths: dict[str, None] = dict.fromkeys(map(str, seen))
    for folder in _folders(seen):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if Path(entry.name).suffix in endings and entry.is_file():
                    paths[entry.path] = None
                if len(paths) >= _LISTED or time.monotonic() > until:
                    break
    return tuple(map(Path, paths))


def _folders(seen: Sequence[Path]) -> list[Path]:
    """Return the directories of the files, then those beside them: a class has a directory of its own."""
    near = dict.fromkeys(path.parent for path in seen)
    with suppress(OSError):
        for above in dict.fromkeys(folder.parent for folder in list(near)[:4]):
            near |= dict.fromkeys(islice((each for each in above.iterdir() if each.is_dir()), 1000))
    return list(near)


def _request_bytes(run: Run) -> int:
    """Return the mean size of a read that was seen."""
    count = total = 0
    for piece in run.pieces("stages", ("stage", "bytes", "count")):
        columns = (piece[name].to_pylist() for name in ("stage", "bytes", "count"))
        for stage, size, number in zip(*columns, strict=True):
            if stage == "read" and size and number:
                total, count = total + size, count + number
        if count > 10_000:
            break
    return _clipped(total / count) if count else _DEFAULT_REQUEST


def _sample_bytes(run: Run) -> int:
    """Return the size of a sample as it is in a batch, if no read was seen."""
    for piece in run.pieces("batches", ("bytes", "samples")):
        sizes, samples = (np.asarray(piece[name].to_numpy(), dtype=np.float64) for name in piece.column_names)
        known = np.isfinite(sizes) & np.isfinite(samples) & (samples > 0)
        if known.any():
            return _clipped(float(np.median(sizes[known] / samples[known])))
    return _DEFAULT_REQUEST


def _clipped(size: float) -> int:
    pages = max(1, round(size / _LEAST_BYTES))
    return min(_MOST_REQUEST, pages * _LEAST_BYTES)


# -- reading -----------------------------------------------------------------------------------------------


def probe_files(plan: Plan, point_s: float | None = None) -> StorageProbe:
    """Read by the plan with each number of readers, and once with pauses; returns the curve.

    `point_s` is how long each is read, `POINT_S` by default.
    """
    seconds = POINT_S if point_s is None else point_s
    began = time.monotonic()
    files = _Files(plan)
    points: list[ProbePoint] = []
    read_bytes = 0
    slowest_s = 0.0
    try:
        for readers, paused in ((1, False), (1, True), *((n, False) for n in READERS[1:])):
            # a read cannot be broken off, and on a full device takes longer with each reader
            left = MOST_S - (time.monotonic() - began) - slowest_s * readers
            if left < WARM_UP_S * 2 or read_bytes >= MOST_BYTES:
                break
            most_bytes = min(MOST_BYTES - read_bytes, MOST_BYTES // len(READERS))
            asked = _Asked(files, readers, paused, min(seconds, left), most_bytes)
            points.append(asked.point())
            read_bytes += asked.read_bytes
            slowest_s = max(slowest_s, asked.slowest_s / readers)
    finally:
        files.close()
    if not points or not any(point.bytes_per_s for point in points):
        raise MeasureError("nothing could be read of the run's files", "see that they are still there")
    took_s = time.monotonic() - began
    return StorageProbe(
        how=plan.how,
        request_bytes=plan.request_bytes,
        files=len(plan.files) or len(plan.urls),
        points=tuple(points),
        took_s=took_s,
        read_bytes=read_bytes,
        cold="remote" if plan.urls else "evicted",
    )


class _Asked:
    """Requests of that many threads, made when it is created."""

    def __init__(self, files: _Files, readers: int, paused: bool, seconds: float, most_bytes: int) -> None:
        self._readers, self._paused = readers, paused
        files.make_cold()
        done: list[list[_Request]] = [[] for _ in range(readers)]
        self._begun = _Moment.now()
        end = self._begun.time_s + seconds
        threads = [
            threading.Thread(
                target=_read_until,
                args=(files.reader(number), end, most_bytes // readers, paused, mine),
                daemon=True,
            )
            for number, mine in enumerate(done)
        ]
        for thread in threads:
            thread.start()
        time.sleep(min(WARM_UP_S, seconds / 3))
        self._warm = _Moment.now()
        for thread in threads:
            thread.join()
        self._ended = _Moment.now()
        self._requests = [each for mine in done for each in mine]
        self.slowest_s = max(each.took_s for each in self._requests)
        device_bytes = self._ended.device_bytes - self._begun.device_bytes
        self.read_bytes = max(device_bytes, sum(each.size_bytes for each in self._requests))

    def point(self) -> ProbePoint:
        """Return the rates after the warm-up, or of all if few requests ended after it."""
        counted = [each for each in self._requests if each.end_s > self._warm.time_s]
        since = self._warm
        if len(counted) < FEWEST * self._readers:
            counted, since = self._requests, self._begun
        took_s = max(1e-9, self._ended.time_s - since.time_s)
        device_bytes = self._ended.device_bytes - since.device_bytes
        return ProbePoint(
            readers=self._readers,
            reads=len(counted),
            bytes_per_s=sum(each.size_bytes for each in counted) / took_s,
            device_bytes_per_s=device_bytes / took_s if device_bytes else None,
            paused=self._paused,
        )


class _Moment(NamedTuple):
    """A time, and the bytes that this process had got from block devices."""

    time_s: float
    device_bytes: int

    @classmethod
    def now(cls) -> _Moment:
        blocks = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
        return cls(time.monotonic(), blocks * _BLOCK_BYTES)


class _Request(NamedTuple):
    """A request that was made."""

    end_s: float
    took_s: float
    size_bytes: int


def _read_until(read: Read, end: float, most_bytes: int, paused: bool, done: list[_Request]) -> None:
    """Make requests until `end`, or until that many bytes came; at least one."""
    total, now = 0, time.monotonic()
    while not done or (now < end and total < most_bytes):
        began = now
        try:
            size = read()
        except OSError:  # a file that is gone, or can no longer be read: the next one
            size = 0
        now = time.monotonic()
        total += size
        done.append(_Request(now, now - began, size))
        if paused:
            time.sleep(min(now - began, max(0.0, end - now)))
            now = time.monotonic()


class _Files:
    """The files of a plan, read in a random order, no part twice while there are others."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._order = random.Random(0)
        self._whole: list[Path] = []
        self._lock = threading.Lock()
        self._large: list[_Large] = []
        if plan.how in ("random", "mapped"):
            for path in plan.files[:64]:
                with suppress(OSError, ValueError):
                    self._large.append(_Large(path, plan.how == "mapped"))

    def make_cold(self) -> None:
        """Drop the large files from memory; small ones are dropped one by one before they are read."""
        for each in self._large:
            each.make_cold()

    def reader(self, number: int) -> Read:
        """Return what makes one request of a reader."""
        if self._plan.urls:
            return self._fetch(random.Random(number + 1))
        if self._plan.how == "whole":
            buffer, first = bytearray(self._plan.request_bytes), bytearray(self._plan.first_bytes or 0)
            return lambda: _read_whole(self._next(), buffer, first)
        if not self._large:
            raise MeasureError("none of the run's files can be opened", "see that they are still there")
        places = random.Random(number + 1)
        memory = np.empty(self._plan.request_bytes, np.uint8)
        return lambda: places.choice(self._large).read(places, memory)

    def _fetch(self, places: random.Random) -> Read:
        """Return a function that gets an object, or as much of it as one request of the run."""
        client, _ = _client(self._plan.urls[0], self._plan.options)
        names = [str(client._strip_protocol(url)) for url in self._plan.urls]
        size = self._plan.request_bytes

        def fetch() -> int:
            try:
                return len(client.cat_file(places.choice(names), start=0, end=size))
            except Exception as error:  # clients raise what they like
                raise OSError(str(error)) from error

        return fetch

    def _next(self) -> Path:
        with self._lock:
            if not self._whole:
                self._whole = list(self._plan.files)
                self._order.shuffle(self._whole)
            return self._whole.pop()

    def close(self) -> None:
        """Close the large files."""
        for each in self._large:
            each.close()


def _read_whole(path: Path, buffer: bytearray, first: bytearray) -> int:
    """Read a file from start to end, `first` and then `buffer` full, after it was dropped from memory."""
    fd = _open(path)
    try:
        evict_open(fd)
        total = os.readv(fd, [first]) if first else 0
        while count := os.readv(fd, [buffer]):
            total += count
        return total
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """Open a file to read; its access time stays if that is permitted, so that no page becomes dirty."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # it is someone else's
        return os.open(path, flags)


class _Large:
    """A large file, read in pieces or through a map of it."""

    def __init__(self, path: Path, mapped: bool) -> None:
        self._fd, self._mapped = _open(path), mapped
        self._size = os.fstat(self._fd).st_size
        self._map: Any = None
        self._view: Any = None

    def make_cold(self) -> None:
        """Drop it from memory and map it again, since pages that are mapped stay."""
        self._unmap()
        evict_open(self._fd)
        if self._mapped:
            self._map = mmap.mmap(self._fd, self._size, access=mmap.ACCESS_READ)
            self._view = np.frombuffer(self._map, np.uint8)

    def read(self, places: random.Random, memory: Any) -> int:
        """Read one piece at a random place."""
        size = min(len(memory), self._size)
        offset = places.randrange(max(1, self._size // size)) * size
        if self._view is None:
            return os.preadv(self._fd, [memory[:size]], offset)
        # a call of ctypes lets go of the interpreter's lock, a copy of numpy would keep it while it waits
        ctypes.memmove(memory.ctypes.data, self._view.ctypes.data + offset, size)
        return size

    def _unmap(self) -> None:
        if self._map is not None:
            self._view = None
            self._map.close()
            self._map = None

    def close(self) -> None:
        """Give the file back."""
        self._unmap()
        os.close(self._fd)
