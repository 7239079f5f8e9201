"""The cost of making batches in 1, 2 and 4 processes at once, kept beside a run.

`measure.session.processes.scaling` takes it from the script's own loader; the simulator reads it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log2
from pathlib import Path
from typing import Final

import numpy as np

from pipeprof.record.added.json_record import read_record, write_record

SCALING_JSON: Final = "scaling_probe.json"
_SCHEMA: Final = 1
_MOST_GROWTH: Final = 16.0
"""Growth beyond which a probe is not believed."""


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """Result of making batches in `processes` processes at once, with nothing else to do."""

    processes: int = 1
    batches: int = 0
    cpu_ns_per_sample: float = 0.0
    samples_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ScalingProbe:
    """Points by the number of processes."""

    loader: str = ""
    points: tuple[ScalingPoint, ...] = ()
    took_s: float = 0.0

    @property
    def growth(self) -> dict[int, float]:
        """Return the CPU time of a sample by the number of processes, over that in the fewest."""
        known = [point for point in self.points if 0 < point.cpu_ns_per_sample < float("inf")]
        known = sorted(known, key=lambda point: point.processes)
        return {point.processes: point.cpu_ns_per_sample / known[0].cpu_ns_per_sample for point in known}

    def growth_at(self, processes: int) -> float:
        """Return the growth for any number of processes: between the points along the logarithm, and beyond
        them as at the last."""
        growth = self.growth
        if not growth or not all(isfinite(each) for each in growth.values()):
            return 1.0
        at = np.interp(log2(max(1, processes)), [log2(n) for n in growth], list(growth.values()))
        return float(np.clip(at, 1 / _MOST_GROWTH, _MOST_GROWTH))


def read_scaling(directory: Path) -> ScalingProbe | None:
    """Read the probe of a run directory; None if there is none that can be read."""
    probe = read_record(directory / SCALING_JSON, ScalingProbe, _SCHEMA)
    usable = probe is not None and probe.points and all(point.processes >= 1 for point in probe.points)
    return probe if usable else None


def write_scaling(directory: Path, probe: ScalingProbe) -> None:
    """Keep a probe in a run directory. Raises `OSError` if it cannot be written."""
    write_record(directory / SCALING_JSON, probe, _SCHEMA)
