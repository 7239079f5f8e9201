"""An array of integers that the processes of a run share; another process's may take its place."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from pipeprof.measure.probe.shared_memory import SharedBlock


class SharedCells:
    """`count` signed 64-bit integers, 0 at first. Fork or pickle it to share it."""

    def __init__(self, count: int, name: str) -> None:
        self.block = SharedBlock(8 * count, name)
        """The memory that holds the integers: what another process needs to `join`."""
        self._map()

    def __getstate__(self) -> dict[str, Any]:
        return {"block": self.block}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.block = state["block"]
        self._map()

    def _map(self) -> None:
        self.cells = memoryview(self.block.buffer).cast("q")

    def join(self, block: SharedBlock) -> None:
        """Share from now on the integers in `block` in place of these.

        Raises `OSError` if the process that made them is gone; these are then as before.
        """
        cells = memoryview(block.buffer).cast("q")
        self.close()
        self.block, self.cells = block, cells

    def locked(self) -> AbstractContextManager[object]:
        """Keep every other process and thread out while the block lasts."""
        return self.block.locked()

    def close(self) -> None:
        """Release the shared memory of this process."""
        self.cells.release()
        self.block.close()
