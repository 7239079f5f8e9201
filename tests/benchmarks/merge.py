"""What merging a job of many ranks costs in time and memory: `python -m tests.benchmarks.merge --ranks 1024`.

Every rank is a whole run with four workers and six stages; one of them comes last to every meeting. The parts
share their big tables on disk (hard links), which changes nothing for the reader. The merge runs in a process
of its own, whose peak of resident memory is told.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeprof.trace import RUN_JSON, TraceWriter, load, part_of
from tests.factory import MS, Plan, make_run

LIMIT_BYTES = 4 << 30
"""For 1,024 ranks and 10,000 steps."""
LATE = 3


def make(directory: Path, ranks: int, steps: int) -> None:
    """The parts of the job."""
    stages = {"read": 4 * MS, "decode": 10 * MS, "collate": MS}
    stages |= {f"transform:{name}": MS for name in ("Crop", "Flip", "Normalize")}
    plan = Plan(
        batches=steps, workers=4, stages=stages, main=12 * MS, synchronises=True, spans_every=0, jitter=0.1
    )
    template = make_run(directory / "template", plan)
    ended = load(template).table("steps")["compute_end_ns"].to_numpy()
    meta = json.loads((template / RUN_JSON).read_text())
    for rank in range(ranks):
        place = {"rank": rank, "world_size": ranks, "local_rank": rank % 8, "local_world_size": 8}
        host = {"node": rank // 8, "host": f"node{rank // 8}", "boot_id": f"boot{rank // 8}"}
        part = part_of(directory / "job", rank)
        writer = TraceWriter(part, {**meta, **place, **host})
        came = ended + (10 * MS if rank == LATE else MS)
        writer.append("collectives", {"step": range(steps), "start_ns": came, "end_ns": ended + 11 * MS})
        writer.close("complete")
        for table in template.glob("*.parquet"):
            os.link(table, part / table.name)


def merge(directory: Path) -> None:
    """In the child: merge, and tell what it took."""
    from pipeprof.analyse.merge import merge as merged

    begun = time.monotonic()
    found = merged([directory])
    seconds = time.monotonic() - begun
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert all(sum(row.ledger_ns.values()) == row.wall_ns for row in found.ranks)
    print(json.dumps({"rank": found.verdict.rank, "seconds": seconds, "peak_bytes": peak_bytes}))


def main() -> None:
    """Make a job, merge it, compare with the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge(options.merge)
        return
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory), options.ranks, options.steps)
        command = [sys.executable, "-m", "tests.benchmarks.merge", "--merge", f"{directory}/job"]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{options.ranks} ranks x {options.steps} steps: {told['seconds']:.1f} s "
        f"({told['seconds'] / options.ranks * 1e3:.0f} ms a rank), "
        f"peak {told['peak_bytes'] / 2**20:.0f} MiB, late rank found: {told['rank'] == LATE}"
    )
    if told["peak_bytes"] > LIMIT_BYTES:
        sys.exit("more than 4 GiB")


if __name__ == "__main__":
    main()
