"""The sensor of the machine's memory."""

from __future__ import annotations

import psutil

from pipeprof.record.names.sensors import MEMORY_AVAILABLE, MEMORY_USED, SensorName


def memory() -> dict[SensorName, float]:
    """Return the bytes in use and those that a new program could get."""
    now = psutil.virtual_memory()
    return {MEMORY_USED: now.used, MEMORY_AVAILABLE: now.available}
