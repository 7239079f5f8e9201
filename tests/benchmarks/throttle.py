"""Does an emulated rate limit pace a loader as the kernel's own throttle does?

Run by hand, as root: `python tests/benchmarks/throttle.py [--seconds 5]`. A real DataLoader reads cold files
while a control group (v1 `blkio` or v2 `io`) allows its processes N reads a second of the disk; then it reads
the same files, warm, through an emulated device of `kind: rate-limit` with the same figure. Exit code 1 where
the two differ by more than 5 %. Says why and exits 0 where the kernel's throttle cannot be used.

The kernel counts in slices of a tenth of a second and cuts off the remainder, so N is a multiple of ten. What
was not used of a slice may be used later in it, which is the credit of a tenth of a second of the preset.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.devices import storage_preset, with_figures
from pipeprof.measure.host.block_devices import place_of
from pipeprof.measure.host.page_cache import warm
from pipeprof.measure.storage.contract import Storage
from pipeprof.measure.storage.emulated_files import EmulatedStorage
from pipeprof.measure.storage.real import RealStorage

BOUND = 0.05
LIMITS = (50, 100, 200)
WORKERS = (0, 1, 4)
SIZE = 64 * 1024
CGROUPS = Path("/sys/fs/cgroup")
GROUP = f"pipeprof-throttle-{os.getpid()}"


class UnusableError(Exception):
    """The kernel's throttle cannot be used here; says why."""


class Reads(Dataset[torch.Tensor]):
    """Reads one file a sample; a sample is when that had ended."""

    def __init__(self, storage: Storage, paths: list[Path]) -> None:
        self.storage, self.paths = storage, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        assert len(self.storage.read_bytes(self.paths[index])) == SIZE
        return torch.tensor(time.monotonic_ns())


@contextmanager
def throttled(device: str, reads_per_s: int) -> Iterator[None]:
    """This process and its children to come may read so often from the device `major:minor`."""
    v1 = (CGROUPS / "blkio" / "blkio.throttle.read_iops_device").exists()
    root = CGROUPS / "blkio" if v1 else CGROUPS
    group = root / GROUP
    try:
        group.mkdir()
        if v1:
            (group / "blkio.throttle.read_iops_device").write_text(f"{device} {reads_per_s}")
        else:
            (group / "io.max").write_text(f"{device} riops={reads_per_s}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        raise UnusableError(
            f"{error.filename}: {error.strerror} (it needs root and a blkio or io control group)"
        ) from error
    try:
        yield
    finally:
        (root / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def reads_per_s(storage: Storage, paths: list[Path], workers: int) -> float:
    """The rate of completions, without the first fifth, in which the workers start."""
    loader = DataLoader(Reads(storage, paths), batch_size=None, num_workers=workers)
    ends = sorted(int(end) for end in loader)
    first = len(ends) // 5
    return (len(ends) - 1 - first) * 1e9 / (ends[-1] - ends[first])


def compare(directory: Path, seconds: float) -> bool:
    """Print the table; True where every row is within the bound."""
    place = place_of(directory)
    if len(place.disks) != 1:
        raise UnusableError(f"{directory} lies on {place.filesystem}, with {len(place.disks)} disks below it")
    device = place.disks[0].number
    paths = [directory / f"{number}.bin" for number in range(int(max(LIMITS) * seconds))]
    for path in paths:
        path.write_bytes(os.urandom(SIZE))
    all_fine = True
    print("| reads/s allowed | workers | kernel's throttle | emulated | emulated / kernel | |")
    print("| --- | --- | --- | --- | --- | --- |")
    for limit in LIMITS:
        some = paths[: int(limit * seconds)]
        bucket = with_figures(
            storage_preset("rate-limit"), {"requests_per_s": limit, "bandwidth_bytes_per_s": 1e12}
        )
        for workers in WORKERS:
            real = RealStorage(directory, "ssd")
            real.before(some)
            with throttled(device, limit):
                kernel = reads_per_s(real, some, workers)
            real.close()
            warm(some)
            emulated = EmulatedStorage(bucket)
            ours = reads_per_s(emulated, some, workers)
            emulated.close()
            fine = abs(ours / kernel - 1) <= BOUND
            all_fine &= fine
            says = "ok" if fine else f"outside {BOUND:.0%}"
            print(
                f"| {limit} | {workers} | {kernel:.1f} | {ours:.1f} | {ours / kernel:.3f} | {says} |",
                flush=True,
            )
    return all_fine


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each row reads, about")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with tempfile.TemporaryDirectory(prefix="pipeprof-throttle-", dir=arguments.directory) as directory:
        try:
            return 0 if compare(Path(directory), arguments.seconds) else 1
        except UnusableError as reason:
            print(f"skipped: {reason}")
            return 0


if __name__ == "__main__":
    sys.exit(main())
