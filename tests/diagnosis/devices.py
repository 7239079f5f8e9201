"""Cases of the device that the data come from: full, or with room for more readers.

Full ones are plain jobs (`tests/benchmarks/user_job.py`) on a disk that the kernel limits. The disk with room
is emulated: a limit is no latency, which is what more readers hide.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.user_prediction import Case as Job
from tests.benchmarks.user_prediction import Exam
from tests.diagnosis.cases import SMALL, bench, case
from tests.diagnosis.reports.exam import no_disk_limit_here

READING = {"storage-latency", "storage-bandwidth"}
NEARER = {"ram", "faster-storage", "shards", "no-read-ahead"}
"""Fixes that ask less of a device that gives no more."""


FILES = Job("files", "raw-files", 10, reads_per_s=120)
MAPPED = Job("mapped", "mapped", 10, bytes_per_s=60 << 20, seconds=10, rows=1 << 17)
"""A page that is touched brings 128 KiB: of a smaller file all would be in memory after some batches.
In 4 s it gave 18 batches once, too few to judge."""


def limited(job: Job, workers: int) -> Callable[[Path], None]:
    """Trace a plain job on its limited disk."""

    def measured(out: Path) -> None:
        data = out.parent / "limited-data"
        data.mkdir(exist_ok=True)
        exam = Exam(job, data, out.parent)
        exam.prepare()
        exam.trace(workers, out)

    return measured


def needs_limit() -> str:
    """Return why no disk can be limited here; empty where one can."""
    return no_disk_limit_here() if os.geteuid() == 0 else "needs root"


CASES = [
    case("device: full, 1 worker", READING, NEARER, limited(FILES, 1), needs=needs_limit),
    case("device: full, 4 workers", READING, NEARER, limited(FILES, 4), needs=needs_limit),
    case("device: full, mapped file", READING, NEARER, limited(MAPPED, 2), needs=needs_limit),
    case(
        "device: room",
        READING,
        "more-workers",
        bench(20, 1, SMALL, storage={"tier": "ssd", "figures": {"latency_ns": 8e6}}),
    ),
]
