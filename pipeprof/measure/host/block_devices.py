"""The block devices under a path: partition to disk, device mapper, md, loop and overlay to what is below."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeprof.devices import Tier
from pipeprof.measure.host.mounts import MEMORY, NETWORK, Mount, mount_of, mounts
from pipeprof.record.meta import DiskMeta, PlaceMeta

SYS: Final = Path("/sys")
_LAYERS: Final = 8
"""Largest depth to which devices are followed downwards; a loop on a file on a loop ends somewhere."""
_VIRTUAL: Final = ("vd", "xvd")
_VIRTUAL_MODELS: Final = ("QEMU", "VMware", "Virtual", "VBOX", "PersistentDisk", "Amazon Elastic Block Store")


@dataclass(frozen=True)
class Disk:
    """A whole device, as the kernel describes it; None is not observed."""

    name: str
    number: str
    """`major:minor` of the whole disk, which is what I/O limits name."""
    model: str | None = None
    rotational: bool | None = None
    virtual: bool = False
    """A hypervisor's disk, of which `rotational` says nothing."""
    scheduler: str | None = None
    queue_requests: int | None = None
    read_ahead_kb: int | None = None
    size_bytes: int | None = None
    through: tuple[str, ...] = ()
    """Devices between the file system and this disk, such as `dm-0` or `loop3`."""

    @property
    def tier(self) -> Tier | None:
        """Return the tier: hdd, ssd or nvme; None if that is not known."""
        if self.virtual or self.rotational is None:
            return None
        if self.rotational:
            return "hdd"
        return "nvme" if self.name.startswith("nvme") else "ssd"

    def as_meta(self) -> DiskMeta:
        """Return the same for `run.json`."""
        return DiskMeta(
            name=self.name,
            number=self.number,
            model=self.model,
            rotational=self.rotational,
            virtual=self.virtual,
            scheduler=self.scheduler,
            queue_requests=self.queue_requests,
            read_ahead_kb=self.read_ahead_kb,
            size_bytes=self.size_bytes,
            through=self.through,
        )


@dataclass(frozen=True)
class MountedPlace:
    """The mount and the disks under a directory."""

    path: str
    mount: str | None = None
    filesystem: str | None = None
    source: str | None = None
    network: bool = False
    memory: bool = False
    disks: tuple[Disk, ...] = field(default=())

    @property
    def tier(self) -> Tier | None:
        """Return the tier of this place; None if that is not known."""
        if self.network:
            return "network"
        if self.memory:
            return "ram"
        tiers = {disk.tier for disk in self.disks}
        return tiers.pop() if len(tiers) == 1 else None

    def as_meta(self) -> PlaceMeta:
        """Return the same for `run.json`."""
        return PlaceMeta(
            path=self.path,
            mount=self.mount,
            filesystem=self.filesystem,
            source=self.source,
            network=self.network,
            memory=self.memory,
            disks=tuple(disk.as_meta() for disk in self.disks),
            tier=self.tier,
        )


def place_of(path: Path, sys: Path = SYS, among: Sequence[Mount] | None = None) -> MountedPlace:
    """Return where `path`, which need not exist yet, is stored; None for what is not observed."""
    known = mounts() if among is None else among
    mount = mount_of(path, known)
    if mount is None:
        return MountedPlace(str(path))
    return MountedPlace(
        str(path),
        mount.point,
        mount.filesystem,
        mount.source,
        mount.filesystem.startswith(NETWORK),
        mount.filesystem in MEMORY,
        tuple({disk.name: disk for disk in _disks_under(mount, sys, known, ())}.values()),
    )


def _disks_under(mount: Mount, sys: Path, known: Sequence[Mount], through: tuple[str, ...]) -> Iterator[Disk]:
    if len(through) > _LAYERS:
        return
    if mount.filesystem == "overlay":
        for layer in _overlay_layers(mount.options):
            below = mount_of(layer, known)
            if below is not None and below != mount:
                yield from _disks_under(below, sys, known, (*through, "overlay"))
        return
    for number in (mount.device, _number_of(mount.source)):
        block = sys / "dev/block" / number if number else None
        if block is not None and block.exists():
            yield from _follow(block.resolve(), sys, known, through)
            return


def _overlay_layers(options: str) -> list[Path]:
    layers = []
    for option in options.split(","):
        key, _, value = option.partition("=")
        if key in ("upperdir", "lowerdir"):
            layers += [Path(layer) for layer in value.split(":") if layer.startswith("/")]
    return layers


def _number_of(source: str) -> str | None:
    """Return the number of a device file: btrfs and others number their mounts otherwise."""
    with suppress(OSError, ValueError):
        number = Path(source).stat().st_rdev if source.startswith("/dev/") else 0
        return f"{os.major(number)}:{os.minor(number)}" if number else None
    return None


def _follow(block: Path, sys: Path, known: Sequence[Mount], through: tuple[str, ...]) -> Iterator[Disk]:
    if (block / "partition").exists():
        block = block.parent
    below = sorted((block / "slaves").iterdir()) if (block / "slaves").is_dir() else []
    backing = _text(block / "loop/backing_file")
    if len(through) > _LAYERS:
        return
    if below:
        for slave in below:
            yield from _follow(slave.resolve(), sys, known, (*through, block.name))
    elif backing is not None and (mount := mount_of(Path(backing), known)) is not None:
        yield from _disks_under(mount, sys, known, (*through, block.name))
    else:
        yield _disk(block, through)


def _disk(block: Path, through: tuple[str, ...]) -> Disk:
    model = _text(block / "device/model")
    rotational = _number(block / "queue/rotational")
    blocks = _number(block / "size")
    scheduler = _text(block / "queue/scheduler") or ""
    chosen = [name.strip("[]") for name in scheduler.split() if name.startswith("[")]
    return Disk(
        name=block.name,
        number=_text(block / "dev") or "",
        model=model,
        rotational=None if rotational is None else rotational == 1,
        virtual=block.name.startswith(_VIRTUAL) or (model or "").startswith(_VIRTUAL_MODELS),
        scheduler=chosen[0] if chosen else scheduler or None,
        queue_requests=_number(block / "queue/nr_requests"),
        read_ahead_kb=_number(block / "queue/read_ahead_kb"),
        size_bytes=None if blocks is None else blocks * 512,
        through=through,
    )


def _text(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text().strip() or None
    return None


def _number(path: Path) -> int | None:
    with suppress(TypeError, ValueError):
        return int(_text(path))  # type: ignore[arg-type]
    return None
