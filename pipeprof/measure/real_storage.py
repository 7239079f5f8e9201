"""Real storage: files read where they lie, each physical read recorded; and memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from pipeprof.errors import MeasureError
from pipeprof.measure.recorder import storage_read


class RecordedFile(io.FileIO):
    """A real file whose reads are recorded.

    Its buffer is as large as Python's own, so that a run reads as the user's code would.
    """

    def readinto(self, buffer: Any, /) -> int:
        """One read call of the kernel."""
        with storage_read() as record:
            count = super().readinto(buffer) or 0
            record.bytes = count
        return count

    def readall(self) -> bytes:
        """The rest of the file."""
        with storage_read() as record:
            data = super().readall()
            record.bytes = len(data)
        return data


class RealStorage:
    """Files of a real directory."""

    emulated = False

    def __init__(self, path: Path, tier: str) -> None:
        if not path.exists():
            raise MeasureError(
                f"storage.path: {path} does not exist", "make the directory or correct the path"
            )
        if not path.is_dir():
            raise MeasureError(
                f"storage.path: {path} is no directory", "give the directory to keep the data in"
            )
        self.path = path
        self.tier = tier

    def open(self, path: Path) -> BinaryIO:
        """A buffered file, as `open(path, "rb")` gives."""
        return io.BufferedReader(RecordedFile(path))

    def read_bytes(self, path: Path) -> bytes:
        """The whole file."""
        with RecordedFile(path) as file:
            return file.readall()

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`."""
        return {"tier": self.tier, "name": str(self.path), "emulated": False, "path": str(self.path)}


class MemoryStorage:
    """The data set is held in memory: files are read once, to fill it, and not charged to a device."""

    emulated = False

    def __init__(self, tier: str) -> None:
        self.tier = tier

    def open(self, path: Path) -> BinaryIO:
        """A plain file."""
        return path.open("rb")

    def read_bytes(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()

    def describe(self) -> dict[str, Any]:
        """Facts for `run.json`."""
        return {"tier": self.tier, "name": self.tier, "emulated": False}
