"""The JSON files that the lesson keeps beside its runs, read and written as records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pipeprof.errors import TraceError
from pipeprof.record.decode import Dataclass, MisfitError, decode, encode
from pipeprof.record.files import write_atomically
from pipeprof.record.plain_files import read_text

LESSON_JSON: Final = "lesson.json"
NETWORKS_JSON: Final = "7_networks.json"
TWO_LAYER_JSON: Final = "8_two_layer.json"
TUNED_JSON: Final = "10_tune.json"

Kept = TypeVar("Kept", bound=Dataclass)


@dataclass(frozen=True, slots=True)
class LessonMeta:
    """`lesson.json`: which course this is, what did not go as expected, and what failed."""

    schema: int = 1
    quick: bool = False
    created_at: str | None = None
    missed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The expectations that a run did not meet, by its name."""
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """The time of one network on one device; `step_ns` is None, and `why` says why, if it failed."""

    network: str
    device: str
    cudnn: bool | None = None
    step_ns: float | None = None
    repeats: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """`7_networks.json`: forward and backward of the lecture's networks."""

    batch: int | None = None
    side: int | None = None
    times: tuple[NetworkTime, ...] = ()
    threads: int | None = None
    """Threads that torch computed with."""
    cuda: str | None = None
    """Name of the GPU, None if there was none."""
    torch: str | None = None


@dataclass(frozen=True, slots=True)
class WayTrained:
    """The two-layer net trained in one way; `losses` is None, and `why` says why, if it failed."""

    d_in: int
    way: str
    device: str
    losses: tuple[float, ...] | None = None
    first_iteration_ns: int | None = None
    iteration_ns: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class WaysTrained:
    """`8_two_layer.json`: the two-layer net in every way."""

    outcomes: tuple[WayTrained, ...] = ()
    threads: int | None = None
    """Threads that torch computed with."""
    cuda: str | None = None
    """Name of the GPU, None if there was none."""
    torch: str | None = None


@dataclass(frozen=True, slots=True)
class TunedPlace:
    """A place for the data: the best loader predicted for it and, if it was tuned, the one confirmed."""

    tier: str
    keep: str | None = None
    workers: int | None = None
    prefetch: int | None = None
    predicted_stall: float | None = None
    stall: float | None = None
    """Measured by the run that confirmed the setting; None if none did."""
    trials: int | None = None
    agreed: bool | None = None
    why: str | None = None
    """Reason why tuning came to no end here."""


@dataclass(frozen=True, slots=True)
class TunedPlaces:
    """`10_tune.json`: the places that were tried, from the cheapest on."""

    target: float | None = None
    places: tuple[TunedPlace, ...] = ()
    ended: bool = False


def read_kept(kind: type[Kept], path: Path) -> Kept | None:
    """Read a record; None if there is no file, or none that can be read."""
    with suppress(OSError, ValueError, TraceError, MisfitError):
        raw = json.loads(read_text(path))
        return decode(kind, raw) if raw else None
    return None


def save_kept(path: Path, record: Dataclass) -> None:
    """Write a record whole or not at all. Raises `TraceError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(encode(record), indent=1))
    except OSError as error:
        raise TraceError(
            f"cannot write {path}: {error.strerror}", "choose another place with --out"
        ) from error
