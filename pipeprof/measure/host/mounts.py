"""Mounts: the file system that a path is on, and whether its reads reach a local device."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

NETWORK: Final = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "lustre",
    "afs",
    "gluster",
    "beegfs",
    "fuse.s3",
    "fuse.ssh",
)
"""File systems whose data come over a network."""
MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
"""File systems whose data are in memory and cannot be evicted."""
_ELSEWHERE: Final = (*NETWORK, "fuse", "virtiofs", "vboxsf")
"""File systems whose data come from another machine or process; `ru_inblock` stays 0 for them."""
SHARED_MEMORY: Final = Path("/dev/shm")
"""File system in which workers put the batches that they hand over."""
_MOUNTINFO: Final = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """A line of mountinfo."""

    device: str
    """`major:minor`."""
    point: str
    filesystem: str
    source: str
    """The mounted device: `/dev/sda1`, `server:/export`, a name without meaning."""
    options: str
    """Options of the file system itself; the layers of an overlay stand here."""


def mounts(mountinfo: Path = _MOUNTINFO) -> list[Mount]:
    """List all mounts in the order in which they were made; empty if the kernel does not list them."""
    try:
        # not by `open`, which is replaced while batches are made: it would ask here for this file's device
        with io.FileIO(mountinfo) as file:
            lines = os.fsdecode(file.readall()).splitlines()
    except OSError:
        return []
    return [mount for line in lines if (mount := _parsed(line)) is not None]


def _parsed(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    where, what = before.split(), after.split()
    if len(where) < 5 or len(what) < 2:
        return None
    return Mount(where[2], _plain(where[4]), what[0], _plain(what[1]), what[-1])


def _plain(text: str) -> str:
    """Decode the octal numbers that mountinfo writes for space, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def mount_of(path: Path, among: Sequence[Mount] | None = None) -> Mount | None:
    """Return the mount that `path` is on: the last of the longest mount points."""
    real = Path(os.path.realpath(path))
    best = None
    for mount in mounts() if among is None else among:
        covers = real.is_relative_to(mount.point)
        if covers and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


@functools.cache
def counts_device_reads(device: int) -> bool:
    """Return whether `ru_inblock` counts reads from files of `device`, an `st_dev`; True if unknown."""
    if not hasattr(os, "major"):  # Windows, which has no `ru_inblock` either
        return True
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [mount.filesystem for mount in mounts() if mount.device == number]
    return not any(kind.startswith(_ELSEWHERE) for kind in kinds)


def shared_memory_bytes() -> tuple[int, int] | None:
    """Return the free space and the size of /dev/shm, in bytes; None if there is no /dev/shm."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
