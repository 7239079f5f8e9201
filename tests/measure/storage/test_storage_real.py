"""Real storage: what lies behind a path, cold that is cold, warm that is warm, and no more than a limit."""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeprof.errors import MeasureError
from pipeprof.measure.host import page_cache as residency_room
from pipeprof.measure.host.block_devices import place_of
from pipeprof.measure.host.mounts import Mount, counts_device_reads, mount_of, mounts
from pipeprof.measure.host.page_cache import evict, residency, resident_bytes, warm
from pipeprof.measure.probe import files as recorded_files
from pipeprof.measure.probe.spans import Sink, activate
from pipeprof.measure.storage import real as real_storage
from pipeprof.measure.storage.cache_limit import CacheLimit
from pipeprof.measure.storage.real import RealStorage

SIZE = 64 * 1024


def block(sys: Path, number: str, path: str, **files: object) -> Path:
    """A block device of a made-up /sys: `major:minor`, its place below /sys/devices, its files."""
    device = sys / "devices" / path
    device.mkdir(parents=True, exist_ok=True)
    (device / "dev").write_text(f"{number}\n")
    for name, content in files.items():
        file = device / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    link = sys / "dev/block" / number
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(device)
    return device


def slave(below: Path, above: Path) -> None:
    (above / "slaves").mkdir(exist_ok=True)
    (above / "slaves" / below.name).symlink_to(below)


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """A disk with a partition, an NVMe, a virtual disk; a RAID over two disks under dm-crypt; a loop."""
    root = tmp_path / "sys"
    block(
        root,
        "8:0",
        "pci/sda",
        device__model="ST2000",
        queue__rotational=1,
        queue__read_ahead_kb=128,
        size=2048,
    )
    block(root, "8:1", "pci/sda/sda1", partition=1)
    block(root, "259:0", "pci/nvme0n1", queue__rotational=0, queue__scheduler="[none] mq-deadline")
    block(root, "254:0", "virtio/vda", queue__rotational=1)
    raid = block(root, "9:0", "virtual/md0", queue__rotational=1)
    for number, name in (("8:16", "sdb"), ("8:32", "sdc")):
        slave(block(root, number, f"pci/{name}", queue__rotational=1), raid)
    slave(raid, block(root, "253:0", "virtual/dm-0"))
    block(root, "7:3", "virtual/loop3", loop__backing_file="/images/disk.img")
    return root


MOUNTS = [
    Mount("8:1", "/", "ext4", "/dev/sda1", "rw"),
    Mount("259:0", "/fast", "xfs", "/dev/nvme0n1", "rw"),
    Mount("254:0", "/cloud", "ext4", "/dev/vda", "rw"),
    Mount("253:0", "/safe", "ext4", "/dev/mapper/safe", "rw"),
    Mount("7:3", "/looped", "ext4", "/dev/loop3", "rw"),
    Mount(
        "0:40",
        "/container",
        "overlay",
        "overlay",
        "rw,lowerdir=/fast/l1:/fast/l2,upperdir=/fast/u,workdir=/w",
    ),
    Mount("0:41", "/net", "nfs4", "server:/export", "rw"),
    Mount("0:42", "/dev/shm", "tmpfs", "tmpfs", "rw"),
    Mount("0:43", "/strange", "zfs", "pool/data", "rw"),
]


@pytest.mark.parametrize(
    ("path", "tier", "disks", "through"),
    [
        ("/home", "hdd", ["sda"], ()),
        ("/fast/set", "nvme", ["nvme0n1"], ()),
        ("/cloud", None, ["vda"], ()),  # what a hypervisor says of rotation is no fact
        ("/safe", "hdd", ["sdb", "sdc"], ("dm-0", "md0")),
        ("/looped", "hdd", ["sda"], ("loop3",)),
        ("/container/tmp", "nvme", ["nvme0n1"], ("overlay",)),
        ("/net/set", "network", [], ()),
        ("/dev/shm/set", "ram", [], ()),
        ("/strange", None, [], ()),
    ],
)
def test_the_device_behind_a_path(
    sys: Path, path: str, tier: str | None, disks: list[str], through: tuple[str, ...]
) -> None:
    place = place_of(Path(path), sys, MOUNTS)
    assert place.tier == tier
    assert [disk.name for disk in place.disks] == disks
    assert all(disk.through == through for disk in place.disks)


def test_a_disk_is_described(sys: Path) -> None:
    (disk,) = place_of(Path("/home"), sys, MOUNTS).disks
    assert (disk.model, disk.number, disk.rotational, disk.read_ahead_kb) == ("ST2000", "8:0", True, 128)
    assert disk.size_bytes == 2048 * 512
    assert place_of(Path("/fast"), sys, MOUNTS).disks[0].scheduler == "none"
    assert place_of(Path("/fast"), sys, MOUNTS).as_meta().disks[0].name == "nvme0n1"


def test_a_loop_on_itself_ends(sys: Path) -> None:
    looped = [Mount("7:3", "/", "ext4", "/dev/loop3", "rw")]
    assert place_of(Path("/images"), sys, looped).disks == ()


def test_without_proc_nothing_is_claimed(tmp_path: Path) -> None:
    assert mounts(tmp_path / "none") == []
    place = place_of(tmp_path, tmp_path, [])
    assert (place.tier, place.filesystem, place.disks) == (None, None, ())


def test_mountinfo_is_read_with_its_spaces(tmp_path: Path) -> None:
    line = "36 35 98:0 /root /mnt/my\\040data rw,noatime shared:1 - ext3 /dev/sdb1 rw,errors=continue"
    (tmp_path / "mountinfo").write_text(f"{line}\nnonsense\n")
    assert mounts(tmp_path / "mountinfo") == [
        Mount("98:0", "/mnt/my data", "ext3", "/dev/sdb1", "rw,errors=continue")
    ]


def test_the_last_of_two_mounts_at_one_place_counts() -> None:
    twice = [Mount("8:1", "/data", "ext4", "a", ""), Mount("8:2", "/data", "xfs", "b", "")]
    found = mount_of(Path("/data/set"), twice)
    assert found is not None
    assert found.filesystem == "xfs"
    assert mount_of(Path("/database"), twice) is None


def test_this_machine_is_read_without_complaint(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    assert place.filesystem
    assert counts_device_reads(tmp_path.stat().st_dev) in (True, False)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.bin" for number in range(8)]
    for path in paths:
        path.write_bytes(os.urandom(SIZE))
    evict(paths)
    if residency(paths).resident_bytes:
        pytest.skip("the temporary directory lies in memory: nothing can be evicted there")
    return paths


@pytest.mark.parametrize("way", ["cachestat", "mincore"])
def test_residency_is_seen_and_changed(files: list[Path], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "mincore":
        monkeypatch.setattr(residency_room, "_cachestat", lambda fd: None)
    else:
        with files[0].open("rb") as file:
            if residency_room._cachestat(file.fileno()) is None:
                pytest.skip("this kernel has no cachestat, or does not permit it")
    assert residency(files) == (8 * SIZE, 0, 0)
    warm(files[:2])
    assert residency(files) == (8 * SIZE, 2 * SIZE, 0)
    assert residency(files).share == 0.25
    evict(files)
    assert residency(files).share == 0


def test_what_cannot_be_observed_is_not_called_resident(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency_room, "_cachestat", lambda fd: None)
    monkeypatch.setattr(residency_room.os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(residency_room.os, "access", lambda path, mode: False)
    found = residency(files)
    assert (found.unobserved_files, found.share) == (8, None)


def test_an_empty_file_is_resident_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert residency([tmp_path / "empty"]) == (0, 0, 0)
    assert residency([]).share is None


def from_device(storage: RealStorage, files: list[Path]) -> float:
    """The share of the bytes read that came from the device."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
    for path in files:
        with storage.open(path) as file:
            assert len(file.read()) == SIZE
    return (resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before) * 512 / (len(files) * SIZE)


@pytest.fixture
def closing() -> Iterator[list[RealStorage]]:
    made: list[RealStorage] = []
    yield made
    for each in made:
        each.close()


def test_cold_is_cold_in_every_epoch(files: list[Path], closing: list[RealStorage]) -> None:
    storage = RealStorage(files[0].parent, "ssd")
    closing.append(storage)
    warm(files)
    storage.before(files)
    facts = storage.describe()
    assert (facts.resident_before, facts.bytes_expected, facts.files) == (0, 8 * SIZE, 8)
    assert from_device(storage, files) >= 0.95
    assert from_device(storage, files) >= 0.95
    assert not any("in memory" in warning for warning in facts.warnings)


def test_warm_is_warm(files: list[Path], closing: list[RealStorage]) -> None:
    storage = RealStorage(files[0].parent, "ssd", cache="warm")
    closing.append(storage)
    storage.before(files)
    assert storage.describe().resident_share_before == 1
    assert from_device(storage, files) < 0.05


def test_a_set_that_another_keeps_warm_is_not_called_cold(
    files: list[Path], closing: list[RealStorage]
) -> None:
    storage = RealStorage(files[0].parent, "ssd")
    closing.append(storage)
    with files[0].open("rb") as file, mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ) as held:
        assert sum(held[:: mmap.PAGESIZE]) >= 0  # every page is touched: a mapped page cannot be evicted
        storage.before(files)
    facts = storage.describe()
    assert facts.resident_share_before == pytest.approx(1 / 8)
    assert any("another process keeps them" in warning for warning in facts.warnings)


def test_no_more_than_the_limit_stays(files: list[Path], closing: list[RealStorage]) -> None:
    storage = RealStorage(files[0].parent, "ssd", cache_bytes=3 * SIZE)
    closing.append(storage)
    storage.before(files)
    assert from_device(storage, files) >= 0.95
    assert residency(files).resident_bytes == 3 * SIZE
    assert residency(files[-3:]).share == 1, "the oldest went first"
    assert from_device(storage, files) >= 0.95, "thrashing: the set is larger than the limit"
    assert from_device(storage, files[-3:]) < 0.05, "what fits stays"


def test_the_limit_is_one_for_all_processes(files: list[Path]) -> None:
    one = CacheLimit(2 * SIZE)
    other: CacheLimit = pickle.loads(pickle.dumps(one))
    warm(files)
    for path, limiter in zip(files, [one, other] * 4, strict=True):
        fd = os.open(path, os.O_RDONLY)
        limiter.read(str(path), fd, SIZE)
        os.close(fd)
    assert [residency([path]).share for path in files] == [0] * 6 + [1, 1]
    other.close()
    one.close()


def test_the_ring_of_the_limit_is_not_overrun(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeprof.measure.storage.cache_limit._SLOTS", 4)
    limiter = CacheLimit(10**9)
    warm(files)
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        limiter.read(str(path), fd, SIZE)
        os.close(fd)
    assert residency(files).resident_bytes == 3 * SIZE
    limiter.close()


def test_tier_and_device_may_disagree_and_the_run_goes_on() -> None:
    if place_of(Path("/dev/shm")).tier != "ram":
        pytest.skip("there is no tmpfs at /dev/shm")
    storage = RealStorage(Path("/dev/shm"), "ssd")
    assert any("storage.tier is ssd" in warning and "ram" in warning for warning in storage.warnings)
    storage.close()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/home", "storage.tier is ssd, but /home lies on hdd (sda)"),
        ("/safe", "storage.tier is ssd, but /safe lies on hdd (sdb, sdc)"),
        ("/net/set", "storage.tier is ssd, but /net/set lies on network (nfs4 from server:/export)"),
        ("/cloud", "/cloud lies on a virtual disk (vda): what is below it is not observed"),
        ("/strange", None),
    ],
)
def test_a_warning_says_where_a_path_really_lies(sys: Path, path: str, says: str | None) -> None:
    found = real_storage._doubts(place_of(Path(path), sys, MOUNTS), "ssd")
    assert found == ([] if says is None else [says])


@pytest.mark.parametrize("counts", [True, False])
def test_reads_that_the_kernel_does_not_count_are_not_observed(
    tmp_path: Path, closing: list[RealStorage], counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_files, "counts_device_reads", lambda device: counts)
    storage = RealStorage(tmp_path, "network")
    closing.append(storage)
    (tmp_path / "file").write_bytes(b"far away")
    before = activate(sink := Sink())
    try:
        assert storage.read_bytes(tmp_path / "file") == b"far away"
    finally:
        activate(before)
    assert sink.storage_unseen is not counts


def test_what_is_no_readable_directory_gets_one_error(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="No such file"):
        RealStorage(tmp_path / "none", "ssd")
    (tmp_path / "file").touch()
    with pytest.raises(MeasureError, match="Not a directory"):
        RealStorage(tmp_path / "file", "ssd")


def test_an_unreadable_directory_gets_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("pipeprof.measure.storage.real.os.scandir", refuse)
    with pytest.raises(MeasureError, match="Permission denied"):
        RealStorage(tmp_path, "ssd")


def test_a_file_of_the_run_that_is_gone_gets_one_error(tmp_path: Path, closing: list[RealStorage]) -> None:
    storage = RealStorage(tmp_path, "ssd")
    closing.append(storage)
    with pytest.raises(MeasureError, match=r"gone\.jpg"):
        storage.before([tmp_path / "gone.jpg"])


def test_resident_bytes_of_a_file_that_ends_inside_a_page(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(bytes(5000))
    fd = os.open(path, os.O_RDONLY)
    assert resident_bytes(fd, 5000) in (5000, None)
    os.close(fd)
