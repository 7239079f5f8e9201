"""What this machine has on the way from disk to device: found without measuring, or measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeprof.errors import MeasureError
from pipeprof.measure.block_devices import Place, place_of
from pipeprof.measure.io_limits import read_limits
from pipeprof.measure.machine import machine_facts
from pipeprof.measure.mounts import MEMORY, NETWORK, mounts


def find(paths: Sequence[Path]) -> dict[str, Any]:
    """The machine and where `paths`, or else all file systems that could hold data, lie. Measures nothing.

    Raises `MeasureError` where a path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise MeasureError(f"{path} does not exist", "give directories that exist")
    places = [place_of(path) for path in paths] if paths else _all_places()
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "tiers": [{"path": place.path, "tier": place.tier, "place": place.as_dict()} for place in places],
        "io_limits": read_limits(),
    }


def measure(paths: Sequence[Path], seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """`find`, and what each part gives: the body of a device profile.

    `seconds` is how long each of a path's 18 points is read; `say` hears what is being done.
    Raises `MeasureError` where a path cannot be measured.
    """
    from pipeprof.measure import probe_machine
    from pipeprof.measure.probe_storage import probe_place

    found = find(paths)
    found["tiers"] = [probe_place(path, seconds, say) for path in paths]
    say("memory")
    found["memory"] = probe_machine.memory_rate()
    say("decode")
    found["decode"] = probe_machine.decode_rate()
    say("host to device")
    found["link"] = probe_machine.link_rates()
    found["not_observed"] = [] if found["link"] else ["link: there is no CUDA device"]
    return found


def _all_places() -> list[Place]:
    """One for each device and network file system that is mounted, and the memory of /dev/shm."""
    found: dict[tuple[object, ...], Place] = {}
    for mount in mounts():
        place = place_of(Path(mount.point))
        names = tuple(disk.name for disk in place.disks)
        network = mount.filesystem.startswith(NETWORK)
        memory = mount.filesystem in MEMORY and mount.point == "/dev/shm"
        if names or network or memory:
            found.setdefault(names or (place.source, mount.filesystem), place)
    return list(found.values())
