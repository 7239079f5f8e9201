"""Measures the device behind a directory, past the cache: sequential, and random by size and queue depth.

It only reads, from a test file of its own that takes at most a tenth of the free space and is deleted
afterwards; if the directory cannot be written, from the largest file in it.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeprof.devices import fit_error, storage_from_profile
from pipeprof.devices.survey import ReadPoint, SequentialRead, SurveyedPlace
from pipeprof.errors import MeasureError
from pipeprof.measure.host.block_devices import place_of
from pipeprof.measure.host.cgroups import read_limits
from pipeprof.measure.host.page_cache import evict_open
from pipeprof.record.decode import encode
from pipeprof.units import NS_PER_S

SIZES: Final = (4096, 128 * 1024, 2**20)
DEPTHS: Final = (1, 2, 4, 8, 16, 32)
FILE_BYTES: Final = 2**30
FREE_SHARE: Final = 0.10
_LEAST_BYTES: Final = 32 * 2**20
_BLOCK_BYTES: Final = 4 * 2**20
_PYTHON_READS_PER_S: Final = 10_000
"""Above this rate the threads of one Python process, and not the device, may set the pace."""
_SCANNED: Final = 10_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class SurveyFile:
    """An open file to read from."""

    fd: int
    size_bytes: int
    direct: bool
    """Past the page cache (`O_DIRECT`). Otherwise what was read is dropped from it between the points."""
    own: bool


def measure_place(path: Path, seconds: float, say: Say) -> SurveyedPlace:
    """Measure the device under `path`; return an entry of a profile's `tiers`.

    `seconds` is how long each point is read. Raises `MeasureError` if there is nothing to read.
    """
    place = place_of(path)
    entry: SurveyedPlace = {"path": str(path), "tier": place.tier, "place": encode(place.as_meta())}
    with _test_file(path, say) as file:
        say(f"{path}: sequential")
        entry["sequential"] = _sequential(file, seconds)
        entry["random"] = []
        for size in SIZES:
            for depth in DEPTHS:
                say(f"{path}: random {size // 1024} KiB, {depth} outstanding")
                entry["random"].append(_random(file, size, depth, seconds))
        entry["own_file_bytes"] = file.size_bytes if file.own else 0
    entry["io_limits"] = [encode(limit) for limit in read_limits()]
    model = storage_from_profile({"tiers": [entry]})
    entry["model"] = {**model.figures(), "tier": place.tier}  # the fit had to take one if none is observed
    entry["fit_error"] = fit_error(model, entry["random"]) if model.kind != "memory" else None
    return entry


@contextmanager
def _test_file(path: Path, say: Say) -> Iterator[SurveyFile]:
    if not path.is_dir():
        problem = "is not a directory" if path.exists() else "does not exist"
        raise MeasureError(f"{path} {problem}", "give a directory on the device to measure")
    if not os.access(path, os.R_OK | os.X_OK):
        raise MeasureError(f"{path} cannot be read: permission denied", "give a directory that can be read")
    free = os.statvfs(path)
    size = min(FILE_BYTES, int(FREE_SHARE * free.f_bavail * free.f_frsize)) // _BLOCK_BYTES * _BLOCK_BYTES
    if not os.access(path, os.W_OK) or size < _LEAST_BYTES:
        with _opened(_largest_file(path), own=False) as file:
            yield file
        return
    try:
        with tempfile.TemporaryFile(dir=path) as made:  # without a name: gone with us, even by SIGKILL
            say(f"{path}: writing a test file of {size // 2**20} MiB")
            _fill(made.fileno(), size)
            with _opened(Path(f"/proc/self/fd/{made.fileno()}"), own=True) as file:
                yield file
    except OSError as error:
        raise MeasureError(
            f"{path}: {error.strerror}", "free some space, or choose another directory"
        ) from error


def _fill(fd: int, size: int) -> None:
    block = os.urandom(_BLOCK_BYTES)  # no zeros: some devices and file systems do not store those
    for number in range(size // _BLOCK_BYTES):
        os.write(fd, number.to_bytes(8, "little") + block[8:])
    os.fsync(fd)


def _largest_file(path: Path) -> Path:
    largest, size = None, _LEAST_BYTES
    with suppress(OSError):
        for number, each in enumerate(path.rglob("*")):
            if number > _SCANNED:
                break
            if each.is_file() and not each.is_symlink() and each.stat().st_size >= size:
                largest, size = each, each.stat().st_size
    if largest is None:
        raise MeasureError(
            f"{path}: no room for a test file within a tenth of the free space, and no large file to read",
            f"give a directory that can be written, or that holds a file of {_LEAST_BYTES // 2**20} MiB",
        )
    return largest


@contextmanager
def _opened(path: Path, own: bool) -> Iterator[SurveyFile]:
    fd, direct = _open(path)
    try:
        size = os.fstat(fd).st_size // _BLOCK_BYTES * _BLOCK_BYTES
        yield SurveyFile(fd, size, direct, own)
    finally:
        os.close(fd)


def _open(path: Path) -> tuple[int, bool]:
    """Open the file, past the page cache where possible; return its descriptor and whether it was."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    if hasattr(os, "O_DIRECT"):
        try:
            fd = os.open(path, flags | os.O_DIRECT)
            with mmap.mmap(-1, SIZES[0]) as buffer:
                os.preadv(fd, [buffer], 0)
            return fd, True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags), False


def _sequential(file: SurveyFile, seconds: float) -> SequentialRead:
    """Read from the start, in large blocks, one after the other."""
    evict_open(file.fd)
    done, started = 0, time.monotonic_ns()
    end = started + int(max(seconds, 0.1) * 3e9)
    with mmap.mmap(-1, _BLOCK_BYTES) as buffer:
        while done < file.size_bytes and time.monotonic_ns() < end:
            done += os.preadv(file.fd, [buffer], done)
    took = time.monotonic_ns() - started
    return {
        "bytes_per_s": done * NS_PER_S / took,
        "bytes": done,
        "block_bytes": _BLOCK_BYTES,
        "direct": file.direct,
    }


def _random(file: SurveyFile, size: int, depth: int, seconds: float) -> ReadPoint:
    """Read at random places with `depth` threads, each with one read outstanding."""
    evict_open(file.fd)
    latencies: list[list[int]] = [[] for _ in range(depth)]
    end = time.monotonic_ns() + int(seconds * NS_PER_S)
    threads = [
        threading.Thread(target=_read_until, args=(file, size, end, mine, number), daemon=True)
        for number, mine in enumerate(latencies)
    ]
    started = time.monotonic_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic_ns() - started
    seen = sorted(latency for mine in latencies for latency in mine)
    rate = len(seen) * NS_PER_S / took
    return {
        "size_bytes": size,
        "queue_depth": depth,
        "reads": len(seen),
        "reads_per_s": rate,
        "latency_p50_ns": seen[len(seen) // 2],
        "latency_p99_ns": seen[min(len(seen) - 1, len(seen) * 99 // 100)],
        "limited_by_python": rate > _PYTHON_READS_PER_S,
        "direct": file.direct,
    }


def _read_until(file: SurveyFile, size: int, end_ns: int, latencies: list[int], seed: int) -> None:
    """Read at random places until `end_ns`, and at least once."""
    places = random.Random(seed)
    with mmap.mmap(-1, size) as buffer:
        while True:
            offset = places.randrange(file.size_bytes // size) * size
            start = time.monotonic_ns()
            os.preadv(file.fd, [buffer], offset)
            now = time.monotonic_ns()
            latencies.append(now - start)
            if now >= end_ns:
                return
