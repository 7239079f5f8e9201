"""Real storage: files read where they lie, each physical read recorded; and memory.

Cold means cold: before the run the files are evicted from the page cache and that is checked, and while it
lasts no more than `cache_bytes` of them (nothing, by default) may stay. Warm means that all of them are in
memory, checked too. What the checks found goes into the run; what it is worth is the verdict's business.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from pipeprof import units
from pipeprof.errors import MeasureError
from pipeprof.measure.host.block_devices import MountedPlace, place_of
from pipeprof.measure.host.cgroups import read_limits
from pipeprof.measure.host.page_cache import evict, residency, resident_bytes, warm
from pipeprof.measure.probe.files import RecordedFile
from pipeprof.measure.storage.cache_limit import CacheLimit
from pipeprof.measure.storage.contract import Storage
from pipeprof.record.meta import StorageMeta

_COLD_SHARE: Final = 0.01
_WARM_SHARE: Final = 0.99
"""Resident shares up to which a set is cold, and from which it is warm: a few pages always come back."""


class LimitedFile(RecordedFile):
    """A real file that may have to leave the page cache, or to push another out, when it is closed."""

    def __init__(self, file: Any, limiter: CacheLimit) -> None:
        super().__init__(file)
        self._limiter = limiter
        self._size = self.status.st_size
        self._from_device = limiter.limit_bytes == 0 or resident_bytes(self.fileno(), self._size) == 0

    def close(self) -> None:
        """Close the file, and keep the limit."""
        if not self.closed and self._from_device:
            self._limiter.read(os.fsdecode(self.name), self.fileno(), self._size)
        super().close()


class RealStorage:
    """Files of a real directory, on the device that lies behind it.

    Raises `MeasureError` if `path` is not a readable directory.
    """

    emulated = False

    def __init__(
        self,
        path: Path,
        tier: str,
        cache: Literal["cold", "warm"] = "cold",
        cache_bytes: int | None = None,
    ) -> None:
        _check(path)
        self.path = path
        self.tier = tier
        self.cache = cache
        self.place = place_of(path)
        limit = cache_bytes if cache == "warm" or cache_bytes is not None else 0
        self._limiter = None if limit is None else CacheLimit(limit)
        self._before = StorageMeta()
        self.warnings = _doubts(self.place, tier)

    def open(self, path: Path) -> BinaryIO:
        """Open a buffered file, as `open(path, "rb")` does."""
        return io.BufferedReader(self._file(path))

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file."""
        with self._file(path) as file:
            return file.readall()

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        return path.stat().st_size

    def _file(self, path: Path) -> RecordedFile:
        return RecordedFile(path) if self._limiter is None else LimitedFile(path, self._limiter)

    def before(self, files: Sequence[Path]) -> None:
        """Bring the run's own files into the state that `cache` says, and note what was reached.

        Raises `MeasureError` if one of them cannot be read.
        """
        if files and not files[0].is_relative_to(self.path):  # the user's own, which lie elsewhere
            self.place = place_of(files[0].parent)
            self.warnings = _doubts(self.place, self.tier)
        try:
            (evict if self.cache == "cold" else warm)(files)
            resident = residency(files)
        except OSError as error:
            raise MeasureError(
                f"{error.filename}: {error.strerror}", "give the run files that it can read"
            ) from error
        self._before = StorageMeta(
            files=len(files),
            bytes_expected=resident.total_bytes,
            resident_before=None if resident.share is None else resident.resident_bytes,
            resident_share_before=resident.share,
        )
        self.warnings += _residency_doubts(self.cache, resident.share, self.place)

    def describe(self) -> StorageMeta:
        """Return facts for `run.json`; after `before`, with what was resident."""
        return replace(
            self._before,
            tier=self.tier,
            name=str(self.path),
            emulated=False,
            path=str(self.path),
            cache=self.cache,
            cache_bytes=None if self._limiter is None else self._limiter.limit_bytes,
            device=self.place.as_meta(),
            io_limits=tuple(read_limits()),
            warnings=tuple(self.warnings),
        )

    def close(self) -> None:
        """Release the shared memory of this process."""
        if self._limiter is not None:
            self._limiter.close()


def _check(path: Path) -> None:
    try:
        with os.scandir(path):
            return
    except OSError as error:
        remedy = "give a directory that exists and can be read"
        raise MeasureError(f"storage.path: {path}: {error.strerror}", remedy) from error


def _doubts(place: MountedPlace, tier: str) -> list[str]:
    """List how the path differs from what the scenario states."""
    doubts = []
    if place.tier is not None and place.tier != tier:
        what = f"{place.filesystem} from {place.source}" if place.network or place.memory else _names(place)
        doubts.append(f"storage.tier is {tier}, but {place.path} lies on {place.tier} ({what})")
    if any(disk.virtual for disk in place.disks):
        doubts.append(
            f"{place.path} lies on a virtual disk ({_names(place)}): what is below it is not observed"
        )
    numbers = {disk.number for disk in place.disks}
    for limit in read_limits():
        if limit.device in numbers:
            bytes_per_s, requests = limit.read_bytes_per_s, limit.read_requests_per_s
            most = (
                f"{units.count(requests)} requests a second"
                if bytes_per_s is None
                else units.byte_rate(bytes_per_s)
            )
            doubts.append(f"a control group limits {place.path} to {most}")
    return doubts


def _names(place: MountedPlace) -> str:
    return ", ".join(disk.name for disk in place.disks)


def _residency_doubts(cache: str, share: float | None, place: MountedPlace) -> list[str]:
    if share is None:
        return [f"storage.cache is {cache}; how much was in memory before the run was not observed"]
    if cache == "cold" and share > _COLD_SHARE:
        why = (
            f"{place.filesystem} keeps its files in memory" if place.memory else "another process keeps them"
        )
        return [
            f"storage.cache is cold, but {units.percent(share)} of the files were in memory before: {why}"
        ]
    if cache == "warm" and share < _WARM_SHARE:
        return [f"storage.cache is warm, but only {units.percent(share)} of the files were in memory before"]
    return []


class MemoryStorage:
    """The data set is held in memory: files are read once, to fill it, and not charged to a device.

    `remote` is the place that they are read from, if it is not this machine.
    """

    emulated = False

    def __init__(self, tier: str, remote: Storage | None = None) -> None:
        self.tier, self.remote = tier, remote

    def open(self, path: Path) -> BinaryIO:
        """Open a file without recording its reads."""
        return path.open("rb") if self.remote is None else self.remote.open(path)

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file."""
        return path.read_bytes() if self.remote is None else self.remote.read_bytes(path)

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        return path.stat().st_size if self.remote is None else self.remote.size(path)

    def before(self, files: Sequence[Path]) -> None:
        """Do nothing: the files have been loaded."""

    def describe(self) -> StorageMeta:
        """Return facts for `run.json`."""
        return StorageMeta(tier=self.tier, name=self.tier, emulated=False)

    def close(self) -> None:
        """Do nothing."""
