"""CPU time and memory of the attribution of a long run: `python -m tests.benchmarks.attribution`.

A run of a million batches of five stages is made once for each shape of loop, written to a temporary
directory, and analysed in a process of its own, whose CPU time and largest resident size are printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.factory import MS, ORIGIN_NS, begin

STAGES = ("read", "decode", "transform:RandomResizedCrop", "transform:Normalize", "collate")
CHUNK = 50_000


def make(directory: Path, batches: int, workers: int) -> None:
    """A worker-bound run (or one without workers), in chunks."""
    width = max(1, workers)
    meta = {
        "loaders": [{"id": 0, "workers": workers, "prefetch": 2, "in_order": True, "batch_size": 32}],
        "accelerator": {"kind": "emulated", "emulated": True, "queue_depth": 2},
        "storage": {"tier": "ssd", "emulated": True},
        "machine": {"usable_cores": 8},
    }
    writer = begin(directory, meta)
    rng = np.random.default_rng(0)
    for first in range(0, batches, CHUNK):
        k = np.arange(first, min(first + CHUNK, batches))
        count = len(k)
        key = {"loader": np.zeros(count, int), "epoch": np.zeros(count, int), "seq": k}
        finish = ORIGIN_NS + (k // width + 1) * 20 * MS + (k % width) * 20 * MS // width
        start = finish - 20 * MS + 1000
        take = finish + 100_000
        compute = take + 2 * MS
        made = {"worker": k % width if workers else np.full(count, -1), "samples": np.full(count, 32)}
        writer.append(
            "batches",
            {
                **key,
                **made,
                "dispatch_ns": start - 40 * MS if workers else start - 500,
                "start_ns": start,
                "finish_ns": finish,
                "cpu_ns": np.full(count, 12 * MS),
                "runq_ns": np.full(count, MS),
                "device_bytes": np.zeros(count, int),
            },
        )
        request = compute - 20 * MS // width
        writer.append(
            "steps",
            {
                **key,
                "step": k,
                "warmup": k < 5,
                "samples": made["samples"],
                "request_ns": request if workers else np.minimum(request, start - 600),
                "arrival_ns": take,
                "take_ns": take,
                "launch_ns": take + 200_000,
                "copy_start_ns": take,
                "copy_end_ns": take + 200_000,
                "compute_start_ns": take + 200_000,
                "compute_end_ns": compute,
            },
        )
        for name in STAGES:
            stage = {**key, "scope": np.zeros(count, int), "stage": [name] * count}
            walls = rng.integers(3 * MS, 4 * MS, count)
            writer.append("stages", {**stage, "wall_ns": walls, "count": np.full(count, 32)})
    writer.close("complete")


def analyse(directory: Path) -> None:
    """What `pipeprof report --json` does, timed from the inside."""
    before = time.process_time()
    from pipeprof.analyse.analysis import load

    answer = load(directory)
    told = answer.verdict.as_dict()
    assert sum(told["ledger_ns"].values()) == told["wall_ns"] == sum(told["path_ns"].values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.process_time() - before:.1f} s of CPU, {peak:.2f} GiB at most, {told['verdict']['cause']}")


def main() -> None:
    """Make, analyse in a fresh process, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--analyse", type=Path)
    arguments = parser.parse_args()
    if arguments.analyse:
        analyse(arguments.analyse)
        return
    for workers in (0, 1, 8):
        with tempfile.TemporaryDirectory() as directory:
            run = Path(directory) / "run"
            make(run, arguments.batches, workers)
            size = sum(os.path.getsize(path) for path in run.iterdir()) / arguments.batches  # noqa: PTH202
            about = f"{arguments.batches} batches, {workers} workers ({size:.0f} B a batch)"
            print(about, end=": ", flush=True)
            subprocess.run([sys.executable, "-m", __spec__.name, "--analyse", str(run)], check=True)


if __name__ == "__main__":
    main()
