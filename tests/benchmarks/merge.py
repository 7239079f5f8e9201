"""What merging a job of many ranks costs in time and memory: `python -m tests.benchmarks.merge --ranks 1024`.

Every rank is a whole run with four workers and six stages; one of them comes last to every meeting. The parts
share their big tables on disk (hard links), which changes nothing for the reader. The merge runs in a process
of its own; the peak of memory is that of it and its copies, sampled, with shared pages counted once.
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
from contextlib import suppress
from pathlib import Path

from pipeprof.record.directories import part_of
from pipeprof.record.reader import load
from pipeprof.record.schema import RUN_JSON
from tests.factory import MS, Plan, begin, make_run

LIMIT_BYTES, LIMIT_S = 1 << 30, 60.0
"""For 1,024 ranks and 10,000 steps, on two cores; larger jobs have no limit."""
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
        writer = begin(part, {**meta, **place, **host})
        came = ended + (10 * MS if rank == LATE else MS)
        writer.append("collectives", {"step": range(steps), "start_ns": came, "end_ns": ended + 11 * MS})
        writer.close("complete")
        for table in template.glob("*.parquet"):
            os.link(table, part / table.name)


def merge(directory: Path) -> None:
    """In the child: merge, and tell what it took."""
    from pipeprof.analyse.job.merge import merge as merged

    begun = time.monotonic()
    found = merged([directory])
    seconds = time.monotonic() - begun
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(each.ru_utime + each.ru_stime for each in used)
    assert all(sum(row.ledger_ns.values()) == row.wall_ns for row in found.ranks)
    print(json.dumps({"rank": found.verdict.rank, "seconds": seconds, "cpu_s": cpu_s}))


def peak_of(child: subprocess.Popen[str]) -> int:
    """Wait for the merge to end; return the most memory that it and its copies had, shared pages once."""
    peak = 0
    while child.poll() is None:
        peak = max(peak, sum(map(_own_part, [child.pid, *_children(child.pid)])))
        time.sleep(0.2)
    return peak


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _own_part(pid: int) -> int:
    """Return the proportional set size of a process in bytes."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


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
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak_bytes = peak_of(child)
        answer, _ = child.communicate()
        told = json.loads(answer)
    print(
        f"{options.ranks} ranks x {options.steps} steps: {told['seconds']:.1f} s "
        f"({told['seconds'] / options.ranks * 1e3:.0f} ms a rank), "
        f"{told['cpu_s']:.1f} s of CPU, peak {peak_bytes / 2**20:.0f} MiB, "
        f"late rank found: {told['rank'] == LATE}"
    )
    limited = options.ranks * options.steps <= 1024 * 10_000
    if limited and (peak_bytes > LIMIT_BYTES or told["seconds"] > LIMIT_S):
        sys.exit("more than 1 GiB, or than 60 s")


if __name__ == "__main__":
    main()
