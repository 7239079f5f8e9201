"""Opening of files while batches are made: by a stand-in for their device, or recorded as they are read.

`open` is replaced under all its names, once, for both. A file is offered to the openers that were added, as
those of emulated devices; one that none of them takes is recorded where a batch is being made. Reading is
timed in a real `io.BufferedReader` over a timed `FileIO`, so that the device sees the same requests as
without us: reading a file whole and decoding it then would halve the time that is to be measured, because
PIL's chunked reads cost two device requests a file.
"""

from __future__ import annotations

import builtins
import io
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Final

from pipeprof.measure.host.mounts import counts_device_reads
from pipeprof.measure.probe.batch import BatchRecorder, active_batch
from pipeprof.measure.probe.counting import tally
from pipeprof.measure.probe.counting.opens import note_opened_by_user
from pipeprof.measure.probe.patches import patch, release
from pipeprof.measure.probe.spans import READ, active, opened, reading, storage_read
from pipeprof.record.names.counters import REPEATED_PARSE_NS

Opener = Callable[[Any, int], Any]
"""Opens a file for binary reading, given its path and `buffering`; None for a file that it does not take."""

_NAMES: Final = (
    (builtins, "open"),  # ImageFolder's loader, PIL's Image.open(path), numpy.load
    (io, "open"),  # pathlib
    (tarfile, "bltn_open"),  # took it by another name
)
_OPENERS: Final = "openers"
_openers: Final[list[Opener]] = []


class RecordedFile(io.FileIO):
    """A real file whose reads are recorded.

    Its buffer is as large as Python's own, so that a run reads as the user's code would.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(os.fspath(file), "rb")  # its name is then text, as that of an opened file
        self.status = os.fstat(self.fileno())
        opened(counted=counts_device_reads(self.status.st_dev))
        batch = active_batch()
        if batch is not None:
            batch.opened_files.opened(file, self.status.st_size)

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` with one read call of the kernel, as far as it goes."""
        sink = active()
        if sink is not None and sink.plain:  # most reads: what the span below would record, without one
            sink.file = self.name
            start_ns = monotonic_ns()
            count = super().readinto(buffer) or 0
            sink.add_read(monotonic_ns() - start_ns, count)
            return count
        reading(self.name)
        with storage_read() as record:
            count = super().readinto(buffer) or 0
            record.bytes = count
        return count

    def readall(self) -> bytes:
        """Read the rest of the file."""
        reading(self.name)
        with storage_read() as record:
            data = super().readall()
            record.bytes = len(data)
        return data


def add_opener(opener: Opener) -> None:
    """Offer each file that is opened for binary reading to `opener`, before those that were added earlier."""
    _openers.append(opener)
    patch_open(_OPENERS)


def remove_opener(opener: Opener) -> None:
    """Stop offering files to `opener`."""
    if opener in _openers:
        _openers.remove(opener)
    if not _openers:
        release(_OPENERS)


def patch_open(holder: str) -> None:
    """Replace `open` for `holder`, until it releases its patches."""
    for module, name in _NAMES:
        patch(holder, module, name, _opening)


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    def open(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        batch = active_batch()
        if batch is None and not _openers:
            return original(file, mode, buffering, *rest, **options)
        plain = (
            mode in ("rb", "br")
            and not any(rest)  # pathlib hands over encoding, errors and newline, all None
            and not any(options.values())
            and isinstance(file, (str, bytes, os.PathLike))
        )
        if plain:
            for opener in reversed(_openers):
                stand_in = opener(file, buffering)
                if stand_in is not None:
                    return stand_in
        if batch is None or batch.current.name == READ:
            return original(file, mode, buffering, *rest, **options)
        again = note_opened_by_user(file)
        began_ns = monotonic_ns() if again else 0
        other = _recorded(file, buffering) if plain else original(file, mode, buffering, *rest, **options)
        if again:
            tally.add(REPEATED_PARSE_NS, monotonic_ns() - began_ns)
        if plain:
            return other
        if "r" in mode or "+" in mode:
            note_device(batch, lambda: os.fstat(other.fileno()))
        return other

    return open


def _recorded(file: Any, buffering: int) -> Any:
    raw = RecordedFile(file)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else getattr(raw.status, "st_blksize", 0)
    return io.BufferedReader(raw, size if size > 1 else io.DEFAULT_BUFFER_SIZE)


def note_device(batch: BatchRecorder, status: Callable[[], os.stat_result]) -> None:
    """Note whether the kernel counts a file's reads for no block device."""
    if batch.storage_unseen:
        return
    with suppress(Exception):  # what stands for a file need not have a descriptor
        batch.storage_unseen = not counts_device_reads(status().st_dev)
