"""Measures the copy rates of memory and of the link to the accelerator."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeprof.devices.survey import LinkRate, MemoryRate
from pipeprof.units import NS_PER_S

if TYPE_CHECKING:
    from pipeprof.measure.device.contract import Device

_COPY_BYTES: Final = 256 * 2**20
_LINK_BYTES: Final = (2**20, 16 * 2**20, 256 * 2**20)
_ROUNDS: Final = 5


def memory_rate() -> MemoryRate:
    """Measure how fast one core copies memory: bytes copied a second, each read once and written once."""
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    return {"copy_bytes_per_s": _COPY_BYTES * NS_PER_S / median_ns(lambda: np.copyto(target, source))}


def link_rates(device: Device | None = None) -> list[LinkRate] | None:
    """Measure copies to the device by size, from pageable and pinned memory; None without a device.

    `device` is by default the one that torch sees.
    """
    from pipeprof.measure.device.here import available_device

    there = device or available_device()
    return None if there is None else [_link(there, size) for size in _LINK_BYTES]


def _link(device: Device, size: int) -> LinkRate:
    """Measure one size. Copies go to memory that the device already has, as a loop's copies mostly do."""
    import torch

    pageable = torch.ones(size, dtype=torch.uint8)

    def rate(source: Any, non_blocking: bool) -> float:
        def copy() -> None:
            device.move(source, non_blocking)
            device.synchronize()

        return size * NS_PER_S / median_ns(copy)

    pinned = device.pin(pageable)
    return {
        "size_bytes": size,
        "pageable_bytes_per_s": rate(pageable, False),
        "pinned_bytes_per_s": None if pinned is None else rate(pinned, True),
    }


def median_ns(work: Callable[[], Any]) -> float:
    """Return the median wall time of `work` in ns, over a few calls after one that warms up."""
    work()  # the first time brings pages and code in
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return median(times)
