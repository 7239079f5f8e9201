"""The curve of a storage probe, kept beside a run: bytes a second by the number of readers.

`measure.host.storage_probe` takes it from the run's own files; analysis and simulation read it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pipeprof.record.added.json_record import read_record, write_record
from pipeprof.record.decode import Between
from pipeprof.record.meta import Amount, Count

PROBE_JSON: Final = "storage_probe.json"
MOST_READERS: Final = 1_024
_SCHEMA: Final = 1
CREDIT_KEPT: Final = 0.8
"""Share of its rate that a single reader keeps although it pauses for as long as it reads, from which the
device keeps what was not asked for in the pauses, as a limit on the rate does and a busy arm does not."""

NEAR: Final = 0.85
"""Share of the best point's rate from which another is as good; less if the best was of few reads."""


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """Result of reading with `readers` readers at once, each with one request outstanding."""

    readers: Annotated[int, Between(1, MOST_READERS)] = 1
    reads: Count = 0
    bytes_per_s: Amount = 0.0
    """Bytes that the readers got."""
    device_bytes_per_s: Amount | None = None
    """Bytes that came from block devices, read-ahead included; None if that is not counted."""
    paused: bool = False
    """True if each reader paused after each request for as long as it had taken."""


@dataclass(frozen=True, slots=True)
class StorageProbe:
    """Curve of a probe: its points in the order in which they were taken."""

    how: str = ""
    """`whole`: files from their start to their end; `random`: pieces of large files; `mapped`: through a
    memory map; `url`: objects of a remote place."""
    request_bytes: Count = 0
    files: Count = 0
    points: tuple[ProbePoint, ...] = ()
    took_s: Amount = 0.0
    read_bytes: Count = 0
    cold: str = ""
    """Way past the page cache: `direct`, `evicted`, or `remote` if there is none."""

    @property
    def counts_device(self) -> bool:
        """Return True if the bytes from block devices were counted at every point."""
        return all(point.device_bytes_per_s for point in self.points)

    def curve(self, of_device: bool) -> dict[int, float]:
        """Return bytes a second by readers, without pauses: as the readers got them, or the device gave."""
        points = [point for point in self.points if not point.paused]
        return {
            point.readers: (point.device_bytes_per_s or 0.0) if of_device else point.bytes_per_s
            for point in sorted(points, key=lambda point: point.readers)
        }

    def most(self, of_device: bool) -> float:
        """Return the most bytes a second: the mean of the points that come near the best of them.

        A limit works in slices, and a short point may catch one more or one fewer.
        """
        rates = self.curve(of_device)
        reads = {point.readers: point.reads for point in self.points if not point.paused}
        best = max(rates, key=rates.__getitem__)
        near = [rate for rate in rates.values() if rate >= (NEAR - 1 / max(2, reads[best])) * rates[best]]
        return sum(near) / len(near)

    @property
    def keeps_credit(self) -> bool:
        """Return True if the device makes up for pauses between requests, as a limit on the rate does."""
        alone = next((point for point in self.points if point.readers == 1 and not point.paused), None)
        paused = next((point for point in self.points if point.paused), None)
        if alone is None or paused is None or not alone.bytes_per_s:
            return False
        return paused.bytes_per_s >= CREDIT_KEPT * alone.bytes_per_s


def read_probe(directory: Path) -> StorageProbe | None:
    """Read the probe of a run directory; None if there is none that can be read."""
    probe = read_record(directory / PROBE_JSON, StorageProbe, _SCHEMA)
    return probe if probe is not None and probe.curve(of_device=False) else None


def write_probe(directory: Path, probe: StorageProbe) -> None:
    """Keep a probe in a run directory. Raises `OSError` if it cannot be written."""
    write_record(directory / PROBE_JSON, probe, _SCHEMA)
