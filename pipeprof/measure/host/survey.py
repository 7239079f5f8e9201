"""Lists this machine's hardware on the way from disk to device, without measuring anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeprof.devices.survey import Survey
from pipeprof.errors import MeasureError
from pipeprof.measure.host.block_devices import MountedPlace, place_of
from pipeprof.measure.host.cgroups import read_limits
from pipeprof.measure.host.machine import machine_facts
from pipeprof.measure.host.mounts import MEMORY, NETWORK, mounts
from pipeprof.record.decode import encode


def survey_places(paths: Sequence[Path]) -> Survey:
    """Describe the machine and the devices under `paths`, or else under every mounted file system.

    Raises `MeasureError` if a path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise MeasureError(f"{path} does not exist", "give directories that exist")
    places = [place_of(path) for path in paths] if paths else _all_places()
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": encode(machine_facts()),
        "tiers": [
            {"path": place.path, "tier": place.tier, "place": encode(place.as_meta())} for place in places
        ],
        "io_limits": [encode(limit) for limit in read_limits()],
    }


def _all_places() -> list[MountedPlace]:
    """Return a place for each mounted device and network file system, and for the memory of /dev/shm."""
    places: dict[tuple[object, ...], MountedPlace] = {}
    for mount in mounts():
        place = place_of(Path(mount.point))
        names = tuple(disk.name for disk in place.disks)
        network = mount.filesystem.startswith(NETWORK)
        memory = mount.filesystem in MEMORY and mount.point == "/dev/shm"
        if names or network or memory:
            places.setdefault(names or (place.source, mount.filesystem), place)
    return list(places.values())
