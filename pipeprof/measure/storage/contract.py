"""The Storage contract: how a data set gets its bytes, from files, remote places, emulated devices.

Data sets open files through a `Storage` and never know which. An emulated device is shared by all processes
of a run: each read reserves its service time on the device's one timeline (`devices.StorageModel` over shared
memory) and sleeps until its turn has ended, while the real bytes are read from a warm file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeprof.record.meta import StorageMeta


class Storage(Protocol):
    """The place of a data set's bytes. Picklable, and shared by the workers that it is sent to.

    Each physical read is recorded as stage `read`, with its bytes and, if the device reports them, the
    nanoseconds that it queued behind other requests.
    """

    emulated: bool

    def open(self, path: Path) -> BinaryIO:
        """Open a file for buffered, seekable binary reading. Raises `OSError` as `open` does."""
        ...

    def read_bytes(self, path: Path) -> bytes:
        """Read the whole file, in as few device requests as the device allows."""
        ...

    def size(self, path: Path) -> int:
        """Return the size of the file in bytes."""
        ...

    def before(self, files: Sequence[Path]) -> None:
        """Bring the run's files into the cache state that the scenario names. Called once, before the run."""
        ...

    def describe(self) -> StorageMeta:
        """Return facts for `run.json`: tier, name, emulated, model figures and source, real device, warnings.

        Called before the run and again at its end, for what was counted.
        """
        ...

    def close(self) -> None:
        """Release the shared memory of this process."""
        ...
