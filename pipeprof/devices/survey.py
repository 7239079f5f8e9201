"""Types of the data that `pipeprof devices` prints and saves: a machine, its places for data and, if
measured, rates.

A survey is JSON: measuring writes it, the command line shows it, and it is read back as a device profile.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from pipeprof.devices.models import Tier


class SequentialRead(TypedDict):
    """One sequential read in large blocks."""

    bytes_per_s: float
    bytes: int
    block_bytes: int
    direct: bool
    """True past the page cache (`O_DIRECT`)."""


class ReadPoint(TypedDict):
    """Random reads of one size, with `queue_depth` of them outstanding."""

    size_bytes: int
    queue_depth: int
    reads: int
    reads_per_s: float
    latency_p50_ns: int
    latency_p99_ns: int
    limited_by_python: bool
    """True if the threads of one Python process, and not the device, may have set the pace."""
    direct: bool
    """True past the page cache (`O_DIRECT`)."""


class SurveyedPlace(TypedDict):
    """A directory and the device below it; with its rates if they were measured."""

    path: str
    tier: Tier | None
    place: dict[str, Any]
    """The encoded `record.meta.PlaceMeta`."""
    sequential: NotRequired[SequentialRead]
    random: NotRequired[list[ReadPoint]]
    own_file_bytes: NotRequired[int]
    """Size of the test file that was made for it; 0 if an existing file was read."""
    io_limits: NotRequired[list[dict[str, Any]]]
    model: NotRequired[dict[str, Any]]
    """Figures of the cost model that fits best; its `tier` is None if it was not observed."""
    fit_error: NotRequired[float | None]
    """Median relative error of that model; None for memory."""


class MemoryRate(TypedDict):
    """Copying from memory to memory with one core."""

    copy_bytes_per_s: float


class DecodeRate(TypedDict):
    """Decoding JPEGs with one core."""

    images_per_s_per_core: float
    ns_per_image: float
    mean_bytes: float


class LinkRate(TypedDict):
    """Copies of one size from the host to the device."""

    size_bytes: int
    pageable_bytes_per_s: float
    pinned_bytes_per_s: float | None
    """None if the device has no pinned memory."""


class Survey(TypedDict):
    """A machine and its places for data; with the rates of its memory, cores and link if measured."""

    created_at: str
    machine: dict[str, Any]
    """The encoded `record.meta.MachineMeta`."""
    tiers: list[SurveyedPlace]
    io_limits: list[dict[str, Any]]
    memory: NotRequired[MemoryRate]
    decode: NotRequired[DecodeRate]
    link: NotRequired[list[LinkRate] | None]
    """None if torch sees no device."""
    not_observed: NotRequired[list[str]]
