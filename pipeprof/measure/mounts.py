"""Whether the kernel counts what is read from a file as read from a block device."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

_ELSEWHERE: Final = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "9p",
    "ceph",
    "lustre",
    "afs",
    "gluster",
    "virtiofs",
    "vboxsf",
)
"""File systems whose data come over a network or from another process; `ru_inblock` stays 0 for them."""


def counts_device_reads(fd: int) -> bool:
    """Whether `ru_inblock` tells of reads from this file. True where that cannot be found out."""
    return _counted(os.fstat(fd).st_dev)


@functools.cache
def _counted(device: int) -> bool:
    kind = _mounted().get(f"{os.major(device)}:{os.minor(device)}", "")
    return not kind.startswith(_ELSEWHERE)


def _mounted() -> dict[str, str]:
    """Device number to type of file system, from `/proc/self/mountinfo`."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return {}
    kinds = {}
    for line in lines:
        mount, _, rest = line.partition(" - ")
        kinds[mount.split()[2]] = rest.split()[0] if rest else ""
    return kinds
