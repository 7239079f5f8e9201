"""What `pipeprof live` costs beside a long run: `python -m tests.benchmarks.live`.

A run of a million batches is made as it would lie on the disk while it is written (a flush a second, 100
batches of five stages in each, lines and counters), and goes on growing. `pipeprof live` is started on it, in
a process of its own, piped and on a terminal. Printed are the time to its first output, and its share of a
core after that.
"""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from pipeprof.record.writer import TraceWriter
from tests.benchmarks.attribution import STAGES
from tests.factory import MS, ORIGIN_NS, S, begin

BATCHES_A_FLUSH = 100
WORKERS = 4
STEP_NS = 10 * MS


def opened(directory: Path) -> TraceWriter:
    """The writer of a run that goes on in this process."""
    loader = {"id": 0, "workers": WORKERS, "prefetch": 2, "in_order": True, "batch_size": 32}
    return begin(directory, {"loaders": [loader], "pid": os.getpid(), "machine": {"usable_cores": 8}})


def flush(writer: TraceWriter, number: int) -> None:
    """What the flush thread writes once a second."""
    count = BATCHES_A_FLUSH
    k = np.arange(number * count, (number + 1) * count)
    key = {"loader": np.zeros(count, int), "epoch": np.zeros(count, int), "seq": k}
    take = ORIGIN_NS + (k + 1) * STEP_NS
    finish = take - MS // 2
    start = finish - WORKERS * STEP_NS + MS
    worker = k % WORKERS
    samples = np.full(count, 32)
    made = {
        "worker": worker,
        "samples": samples,
        "dispatch_ns": start - MS,
        "start_ns": start,
        "finish_ns": finish,
        "cpu_ns": np.full(count, 30 * MS),
        "runq_ns": np.full(count, MS),
        "device_bytes": np.zeros(count, int),
        "bytes": np.full(count, 19_000_000),
    }
    writer.append("batches", {**key, **made})
    times = {"request_ns": take - 6 * MS, "take_ns": take, "ready_batches": np.zeros(count, int)}
    steps = {"step": k, "warmup": k < 5, "samples": samples}
    writer.append("steps", {**key, **steps, **times})
    rows = count * len(STAGES)
    of = {name: np.tile(column, len(STAGES)) for name, column in key.items()}
    figures = {"wall_ns": np.full(rows, 7 * MS), "cpu_ns": np.full(rows, 6 * MS), "count": np.full(rows, 32)}
    names = [name for name in STAGES for _ in range(count)]
    writer.append("stages", {**of, "scope": np.zeros(rows, int), "stage": names, **figures})
    now = int(take[-1])
    each = list(range(WORKERS))
    writer.append(
        "lines",
        {
            "time_ns": [now] * WORKERS,
            "loader": [0] * WORKERS,
            "worker": each,
            "stage": ["decode"] * WORKERS,
            "stack": [f"train.py\t{10 + n}\t__getitem__\nlibrary.py\t{n}\tdecode" for n in each],
            "samples": [40] * WORKERS,
            "wall_ns": [S] * WORKERS,
            "cpu_ns": [S] * WORKERS,
        },
    )
    for name in ("level.private_bytes", "startup.make_ns", "gc.collections"):
        values = {"counter": [name] * WORKERS, "value": [300_000_000] * WORKERS}
        where = {"time_ns": [now] * WORKERS, "loader": [0] * WORKERS, "epoch": [0] * WORKERS, "worker": each}
        writer.append("counters", {**where, **values})
    writer.append("telemetry", {"time_ns": [now] * 4, "sensor": list("abcd"), "value": [0.5] * 4})
    writer.flush()


def followed(run: Path, seconds: float, on_terminal: bool) -> tuple[float, float]:
    """Run `pipeprof live` for so long; return the seconds to its first output, and its CPU share after it.

    Beside programs that take the cores from it its CPU time until then is the better figure: that is printed.
    """
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    began_s = time.monotonic()
    command = [sys.executable, "-m", "pipeprof", "live", "--for", str(seconds), str(run)]
    shown = subprocess.Popen(command, stdout=theirs, stdin=theirs if on_terminal else subprocess.DEVNULL)
    os.close(theirs)
    os.read(ours, 1)
    first_s, spent_s = time.monotonic() - began_s, cpu_s(shown.pid)
    print(f"{spent_s:.2f} s of CPU until its first output", end="; ")
    drain = threading.Thread(target=drained, args=(ours,), daemon=True)
    drain.start()
    time.sleep(seconds - 2)
    share = (cpu_s(shown.pid) - spent_s) / (seconds - 2)
    assert shown.wait(60) == 0
    return first_s, share


def cpu_s(pid: int) -> float:
    """CPU time of a process until now."""
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / S


def drained(file: int) -> None:
    """Read until nobody writes any more."""
    try:
        while os.read(file, 1 << 16):
            pass
    except OSError:  # a terminal's way to say so
        return


def main() -> None:
    """Make, follow, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        writer = opened(run)
        flushes = arguments.batches // BATCHES_A_FLUSH
        for number in range(flushes):
            flush(writer, number)
        stop = threading.Event()

        def go_on() -> None:
            number = flushes
            while not stop.wait(1.0):
                flush(writer, number)
                number += 1

        growing = threading.Thread(target=go_on)
        growing.start()
        try:
            size = sum(path.stat().st_size for path in run.iterdir())
            print(f"{arguments.batches} batches, {size / 1e6:.0f} MB of streams")
            for on_terminal in (False, True):
                first_s, share = followed(run, arguments.seconds, on_terminal)
                where = "on a terminal" if on_terminal else "piped"
                print(f"{where}: first output after {first_s:.2f} s, then {share:.2%} of a core", flush=True)
        finally:
            stop.set()
            growing.join()


if __name__ == "__main__":
    main()
