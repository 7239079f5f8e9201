"""A cost model of the user's own storage, with the figures that the run or a probe of its storage showed.

A limit on the rate makes up afterwards for what was not requested in a pause; anything else serves requests
side by side up to its bandwidth. Both are `devices.StorageModel`, whose demands are bytes as the device gave
them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pipeprof.analyse.resources.device import StorageState
from pipeprof.devices import StorageModel, Tier
from pipeprof.simulate.knobs import LEARNED
from pipeprof.units import NS_PER_S

REQUEST_BYTES: Final = 128 * 1024
"""Size of a request if none was observed: Linux's window of read-ahead."""
CREDIT_S: Final = 0.1
"""Time for which a limit on the rate makes up for what was not asked: the kernel's slice."""
SATURATED: Final = 0.9
"""Share of a device's rate from which a single reader uses all of it: its waiting is due to the limit."""
MOSTLY: Final = 0.5
"""Share of the making of batches that waits for a full device: workers pile up there."""
_MOST_CHANNELS: Final = 4096


def learned_model(device: StorageState, tier: Tier | None) -> StorageModel | None:
    """Return the model of a device whose capacity is known; None if it is not."""
    capacity = device.capacity_bytes_per_s
    if device.basis == "model" or capacity is None or capacity <= 0:
        return None
    request_bytes = request_bytes_of(device)
    return StorageModel(
        LEARNED,
        tier or "ssd",
        "rate-limit" if device.keeps_credit else "parallel",
        bandwidth_bytes_per_s=capacity,
        latency_ns=round(_alone_ns_per_byte(device, capacity) * request_bytes),
        channels=_MOST_CHANNELS,
        burst_s=CREDIT_S if device.keeps_credit else 0.0,
        source=f"learned from the run ({device.basis})",
    )


def request_bytes_of(device: StorageState) -> float:
    """Return the size of a request of the model."""
    return device.request_bytes or REQUEST_BYTES


def if_full(device: StorageState) -> StorageState:
    """Return what a device whose state is not known is, in the worst case: full, as far as its readers
    waited.

    If most of the making did not wait for reads, a full device would have shown; it then gives that much
    more.
    """
    spare = max(1.0, MOSTLY / device.waited_share) if device.waited_share else 1.0
    return replace(
        device,
        basis="assumed",
        capacity_bytes_per_s=(device.bytes_per_s or 0.0) * spare,
        keeps_credit=True,
    )


def _alone_ns_per_byte(device: StorageState, capacity: float) -> float:
    """Return the time of a byte for a single reader, beyond its share of the bandwidth or a limit's delay."""
    alone = device.alone_bytes_per_s
    own = device.device_in_flight, device.bytes_per_s
    service = own[0] / own[1] * NS_PER_S if own[0] is not None and own[1] else 0.0
    waited = NS_PER_S / alone if alone else service
    if not device.keeps_credit:
        return max(0.0, waited - NS_PER_S / capacity)
    held = device.state == "full" or device.basis == "assumed" or (alone or 0.0) >= SATURATED * capacity
    return min(service, waited) if held else waited
