"""Keeps some of the files that batches are made from, so that a probe can read like the run did.

Workers report files that Python's `open` opened, in records of their ring; files that are mapped or held open
are found from outside. Paths are those of this machine, and go through the writer's redaction.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from pipeprof.measure.host.block_devices import place_of
from pipeprof.measure.host.open_files import data_files
from pipeprof.measure.probe.layout import FILE, FILE_TEXT_BYTES, Kind
from pipeprof.record.meta import ReadFileMeta, ReadingMeta, SlowFileMeta

MOST_FILES: Final = 32
MOST_SLOW: Final = 20
MOST_OF_WORKER: Final = 12
EVERY: Final = 16
"""Interval, in files that a worker opens, at which it reports one: those of one directory come together."""
_LOOKS_AT_FIRST: Final = 3
_LOOK_EVERY: Final = 16


class OpenedFiles:
    """Files that one worker opened, until they are sent."""

    def __init__(self) -> None:
        self.unsent: list[tuple[bytes, int]] = []
        self._opened = self.kept = 0

    def opened(self, path: Any, size_bytes: int) -> None:
        """Keep every `EVERY`th file, up to `MOST_OF_WORKER` of them."""
        self._keep(lambda: os.fsencode(os.path.abspath(os.fspath(path))), size_bytes)  # noqa: PTH100

    def fetched(self, url: Callable[[], str], size_bytes: int) -> None:
        """Keep objects from a URL, as `opened` keeps files; `url` is called only then."""
        self._keep(lambda: url().encode(), size_bytes)

    def _keep(self, name: Callable[[], bytes], size_bytes: int) -> None:
        self._opened += 1
        if self._opened % EVERY != 1 or self.kept >= MOST_OF_WORKER:
            return
        with suppress(Exception):  # a path of the user's own kind may raise anything
            self.unsent.append((name(), size_bytes))
            self.kept += 1

    def send(self, slot: Any) -> None:
        """Write what has not been sent to the worker's slot of the ring, in pieces."""
        for number, (path, size_bytes) in enumerate(self.unsent, self.kept - len(self.unsent)):
            for piece, start in enumerate(range(0, len(path), FILE_TEXT_BYTES)):
                part = path[start : start + FILE_TEXT_BYTES]
                slot.put_file(0, number, piece, size_bytes=size_bytes, text=part)
        self.unsent.clear()


def files_in(records: npt.NDArray[Any]) -> list[ReadFileMeta]:
    """Return the files among a slot's records."""
    lists: dict[int, tuple[bytes, int]] = {}
    for row in records[records["kind"] == Kind.FILE].view(FILE.dtype):
        before, _ = lists.get(int(row["epoch"]), (b"", 0))
        lists[int(row["epoch"])] = before + bytes(row["text"]).rstrip(b"\0"), int(row["size_bytes"])
    names = [(os.fsdecode(path), size) for path, size in lists.values()]
    return [ReadFileMeta(name, size, "url" if "://" in name else "read") for name, size in names]


class FilesRead:
    """Files of a run that are kept: a bounded number of each kind."""

    def __init__(self) -> None:
        self._files: dict[str, ReadFileMeta] = {}
        self._slowest: dict[tuple[int, int], SlowFileMeta] = {}
        self._looks = 0

    def is_slow(self, took_ns: int) -> bool:
        """Return True for a sample that took long enough to be among the slowest by now."""
        return len(self._slowest) < MOST_SLOW or took_ns > min(x.took_ns or 0 for x in self._slowest.values())

    def add_slow(self, sample: SlowFileMeta) -> None:
        """Keep the file of a slow sample; the fastest of those beyond `MOST_SLOW` is left out."""
        key = (sample.loader, sample.sample)
        before = self._slowest.get(key)
        if before is None or (before.took_ns or 0) < (sample.took_ns or 0):
            self._slowest[key] = sample
        if len(self._slowest) > MOST_SLOW:
            del self._slowest[min(self._slowest, key=lambda each: self._slowest[each].took_ns or 0)]

    def add(self, files: Iterable[ReadFileMeta]) -> None:
        """Add files; those beyond `MOST_FILES` of a kind are left out."""
        for each in files:
            alike = sum(known.how == each.how for known in self._files.values())
            if each.path not in self._files and alike < MOST_FILES:
                self._files[each.path] = each

    def look(self, threads: Iterable[int], without: Path) -> None:
        """Look for files that processes have mapped or hold, at first and then now and then.

        Those below the directory `without` are the run's own.
        """
        looks, self._looks = self._looks, self._looks + 1
        if looks >= _LOOKS_AT_FIRST and looks % _LOOK_EVERY:
            return
        for thread in list(threads)[:2]:
            self.add(each for each in data_files(thread) if not each.path.startswith(f"{without}/"))

    def entered(self, reading: ReadingMeta) -> ReadingMeta:
        """Return `reading` with the files, and the place of the first of them."""
        slowest = sorted(self._slowest.values(), key=lambda each: -(each.took_ns or 0))
        reading = replace(reading, slowest=tuple(slowest))
        if not self._files:
            return reading
        files = tuple(self._files.values())
        here = next((each for each in files if each.how != "url"), None)
        place = reading.place if here is None else place_of(Path(here.path)).as_meta()
        return replace(reading, files=files, place=place)
