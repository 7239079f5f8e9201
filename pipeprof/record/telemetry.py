"""Typed reading of the `telemetry` table, piece by piece: it is the longest of a long run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeprof.record.columns import decimals, whole_numbers
from pipeprof.record.names.sensors import SensorName
from pipeprof.record.reader import Run


class Readings(NamedTuple):
    """Readings of one sensor, in order of time."""

    time_ns: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    """Values of the readings; NaN if the sensor gave none."""


def pieces(run: Run) -> Iterator[tuple[SensorName, Readings]]:
    """Yield each sensor's readings in each piece of the table."""
    for piece in run.pieces("telemetry", ("time_ns", "sensor", "value")):
        column = piece["sensor"].combine_chunks()
        if len(column) == 0:
            continue
        codes = whole_numbers(column.indices, -1)
        times, values = whole_numbers(piece["time_ns"], -1), decimals(piece["value"])
        for code, name in enumerate(column.dictionary.to_pylist()):
            mine = np.flatnonzero(codes == code)
            if len(mine):
                yield SensorName(str(name)), Readings(times[mine], values[mine])


def sensors_of(run: Run) -> list[SensorName]:
    """List the sensors that a run has readings of."""
    names: set[str] = set()
    for piece in run.pieces("telemetry", ("sensor",)):
        names.update(name for name in piece["sensor"].unique().to_pylist() if name is not None)
    return [SensorName(name) for name in sorted(names)]


def read_sensors(run: Run, *names: SensorName) -> dict[SensorName, Readings]:
    """Read the sensors with these names, or all; those without a reading are left out."""
    readings_of: dict[SensorName, list[Readings]] = {}
    for name, readings in pieces(run):
        if not names or name in names:
            readings_of.setdefault(name, []).append(readings)
    return {
        name: Readings(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        for name, parts in sorted(readings_of.items())
    }
