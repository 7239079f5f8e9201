"""Does an emulated device serve what its model says? Achieved over modelled throughput, as a table.

Run by hand on a quiet machine: `python tests/benchmarks/emulation.py [--seconds 2] [--devices hdd-7200 ...]`.
A real DataLoader with real workers reads a warm file through `EmulatedStorage`, each worker as fast as it
can; the rate is taken from the completions between the first and the last moment at which all workers were
reading. A reader is a closed loop: between the end of a read and its next request it takes some microseconds
of its own, during which no device could serve it. They are measured, and the model's rate for N readers is
at most N requests per (service of one alone + reader's own time). Exit code 1 where a figure leaves the bound
of its tier. Where the model asks for more than 10,000 requests a second, Python itself is the limit: the row
says so and is not judged.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeprof.devices import StorageModel, storage_preset, with_figures
from pipeprof.measure.storage.emulated_files import EmulatedFile, EmulatedStorage

BOUNDS = {"hdd": 0.02, "ssd": 0.03, "nvme": 0.05, "network": 0.05}
REQUESTS_PER_S = 10_000
MODELLED = (
    "Modelled: what the model gives N closed readers, each of which takes the own µs of its row between two "
    "reads. The bare model gives few readers more than that."
)
WORKERS = (0, 1, 2, 4, 8)
SIZES = (64 * 1024, 1024 * 1024)
FILE_BYTES = 512 * 2**20


class Case(NamedTuple):
    """One row of the table."""

    model: StorageModel
    size_bytes: int
    sequential: bool
    workers: int

    def modelled_bytes_per_s(self, own_ns: float) -> float:
        """What the device gives readers that take `own_ns` between two reads."""
        readers = max(1, self.workers)
        alone, together = (
            self.model.throughput_bytes_per_s(self.size_bytes, count, self.sequential)
            for count in (1, readers)
        )
        cycle_s = self.size_bytes / alone + own_ns / 1e9
        return min(together, readers * self.size_bytes / cycle_s)


class Reads(IterableDataset[torch.Tensor]):
    """Reads for `seconds`. Its one item is [worker, own_ns, end_ns, end_ns, ...]: when each read had ended,
    and the reader's own time between them."""

    def __init__(self, storage: EmulatedStorage, path: Path, case: Case, seconds: float) -> None:
        self.storage, self.path, self.case, self.seconds = storage, path, case, seconds

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        buffer = bytearray(self.case.size_bytes)
        own_ns, ends = 0, []
        # Without Python's buffer on top: what is measured is the device, not the copying of its bytes.
        with EmulatedFile(self.path, self.storage.device) as file:
            now = time.monotonic_ns()
            last = now + int(self.seconds * 1e9)
            for offset in self._offsets(worker, workers):
                file.seek(offset)
                asked = time.monotonic_ns()
                own_ns += asked - now
                file.readinto(buffer)
                now = time.monotonic_ns()
                ends.append(now)
                if now > last:
                    break
        yield torch.tensor([worker, own_ns, *ends])

    def _offsets(self, worker: int, workers: int) -> Iterator[int]:
        slots = FILE_BYTES // self.case.size_bytes
        if self.case.sequential:
            own = range(worker * slots // workers, (worker + 1) * slots // workers)
            yield from (slot * self.case.size_bytes for slot in own)
            return
        order = torch.randperm(slots - 1, generator=torch.Generator().manual_seed(worker)).tolist()
        while True:
            yield from ((slot + 1) * self.case.size_bytes for slot in order)


def achieved(path: Path, case: Case, seconds: float) -> tuple[float, float]:
    """Bytes/s of the completions while all workers were reading, and a reader's own ns between two reads."""
    storage = EmulatedStorage(case.model)
    loader = DataLoader(Reads(storage, path, case, seconds), batch_size=None, num_workers=case.workers)
    ends: dict[int, list[int]] = {}
    own_ns = reads = 0
    for told in loader:
        worker, own, *ends[worker] = told.tolist()
        own_ns, reads = own_ns + own, reads + len(ends[worker])
    storage.close()
    first = max(times[0] for times in ends.values())
    last = min(times[-1] for times in ends.values())
    counted = sum(first < time_ns <= last for times in ends.values() for time_ns in times)
    return counted * case.size_bytes * 1e9 / (last - first), own_ns / reads


def judge(case: Case, rate: float, own_ns: float) -> tuple[str, bool]:
    """A row of the table, and whether it is within its bound."""
    modelled = case.modelled_bytes_per_s(own_ns)
    requests = modelled / case.size_bytes
    error = rate / modelled - 1
    bound = BOUNDS[case.model.tier]
    if requests > REQUESTS_PER_S:
        says, fine = "limited by the emulator", True
    else:
        fine = abs(error) <= bound
        says = "ok" if fine else f"outside {bound:.0%}"
    pattern = "sequential" if case.sequential else "random"
    reads = f"{case.model.name} | {case.size_bytes // 1024} KiB {pattern}"
    row = f"{reads} | {case.workers} | {requests:,.0f} | {own_ns / 1e3:.0f}"
    return f"| {row} | {rate / modelled:.3f} | {error:+.1%} | {says} |", fine


def measure(directory: Path, names: list[str], seconds: float) -> bool:
    """Print the table; True where every row is within its bound."""
    path = directory / "reads.bin"
    chunk = os.urandom(2**20)
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // len(chunk)):
            file.write(chunk)
    all_fine = True
    print(f"{MODELLED}\n")
    print("| device | reads | workers | requests/s asked | own µs | achieved / modelled | error | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        # Without read-ahead each read is one request, also of a sequential reader.
        model = with_figures(storage_preset(name), {"readahead_bytes": 1})
        for size in SIZES:
            for sequential in (False, True):
                for workers in WORKERS:
                    path.read_bytes()  # warm
                    case = Case(model, size, sequential, workers)
                    row, fine = judge(case, *achieved(path, case, seconds))
                    print(row, flush=True)
                    all_fine &= fine
    return all_fine


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each row reads")
    parser.add_argument("--devices", nargs="+", default=["hdd-7200", "sata-ssd", "nvme-gen3"])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with tempfile.TemporaryDirectory(prefix="pipeprof-emulation-") as directory:
        return 0 if measure(Path(directory), arguments.devices, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
