"""The page cache: what the measured reads found in memory, and what the next epochs will find there.

An epoch that reads a set for the first time waits for the device; if the set fits in the memory that the
kernel may use for it, later ones do not. If it does not fit, at most the part that fits is found again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeprof import units
from pipeprof.analyse.ledger.attribution import Attribution
from pipeprof.analyse.resources.device import StorageState
from pipeprof.analyse.why.totals import CounterTotals
from pipeprof.record.meta import RunMeta
from pipeprof.record.names import counters

USABLE: Final = 0.8
"""Share of the memory, or of the control group's limit, that the kernel can fill with files."""
MOSTLY: Final = 0.5
WORTH_TELLING: Final = 0.2
"""Difference of the share from memory, between what was measured and later epochs, that is worth a word."""
OPENED_AGAIN: Final = 0.5
"""Share of the opened files that had been opened before, from which samples share files: the bytes that they
read are no longer bytes of the set, which one file may be read for again and again."""


@dataclass(frozen=True, slots=True)
class PageCache:
    """State of the page cache. Shares are of bytes, 0 to 1; None if not known."""

    memory_share: float
    """Share of what the measured batches read that memory served."""
    set_bytes: float
    """Size of the data set, by its samples and what a sample reads."""
    memory_bytes: float
    """Memory that files can fill: the machine's, or the control group's limit."""
    epochs: int
    """Passes over the data set that were observed."""

    @property
    def later_share(self) -> float:
        """Return the share that memory serves at the most in later epochs."""
        return min(1.0, self.memory_bytes / self.set_bytes)

    @property
    def changes(self) -> bool:
        """Return True if later epochs find much more, or much less, in memory than was measured."""
        return self.epochs <= 1 and abs(self.later_share - self.memory_share) > WORTH_TELLING

    @property
    def problem(self) -> str:
        """Return in words how the epochs to come differ."""
        size, memory = units.size(self.set_bytes), units.size(self.memory_bytes)
        if self.later_share > self.memory_share:
            fits = "fits" if self.later_share == 1 else f"fits to {units.percent(self.later_share)}"
            return (
                f"only a first epoch was measured, with {units.percent(self.memory_share)} of the bytes from "
                f"memory; the data set of {size} {fits} in {memory}, where later epochs find it"
            )
        return (
            f"memory served {units.percent(self.memory_share)} of the bytes, and holds {memory} of a set of "
            f"{size}: a whole epoch waits for the storage"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "memory_share": self.memory_share,
            "set_bytes": self.set_bytes,
            "memory_bytes": self.memory_bytes,
            "epochs": self.epochs,
            "later_share": self.later_share,
        }


def page_cache_of(
    meta: RunMeta,
    attribution: Attribution,
    device: StorageState | None,
    read_bytes: int | None,
    samples: int,
    counts: CounterTotals,
) -> PageCache | None:
    """Return what is known of the page cache; None for emulated or remote storage, or without sizes.

    `read_bytes` are those of the measured batches, which had that many `samples`.
    """
    known = device is not None and device.counts_device and not meta.storage.emulated
    memory = meta.machine.memory_bytes
    loader = attribution.main_loader
    t = attribution.timeline
    whole = meta.loader(loader).samples
    if not known or device is None or device.memory_share is None or not memory:
        return None
    if not (read_bytes and samples and whole):
        return None
    epochs = sum(t.kind_of(loop_pass.loader) == loader for loop_pass in t.passes)
    if _share_files(counts, epochs):
        return None
    return PageCache(device.memory_share, whole * read_bytes / samples, USABLE * memory, epochs)


def _share_files(counts: CounterTotals, epochs: int) -> bool:
    """Return True if samples open the same files, as rows of one table or slices of one volume do."""
    opened = sum(side[counters.OPENED] for side in (counts.of_workers, counts.of_main))
    again = sum(side[counters.REOPENED] for side in (counts.of_workers, counts.of_main))
    # a folder's files are opened once in each epoch, by workers that may live for all of them
    in_one_epoch = again - opened * (epochs - 1) / epochs if epochs else 0.0
    return in_one_epoch >= OPENED_AGAIN * opened / max(1, epochs) > 0
