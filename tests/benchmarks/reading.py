"""CPU time and simulations of the verbs that read a run, each in a process of its own, on a made run.

python -m tests.benchmarks.reading [--batches 2000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.factory import MS, Plan, make_run

COUNTED = """
import sys
from pipeprof.simulate.clock import VirtualClock
played, run = [], VirtualClock.run
VirtualClock.run = lambda clock: (played.append(0), run(clock))[1]
from pipeprof.cli import main
try:
    main()
finally:
    print(len(played), file=sys.stderr)
"""
VERBS = (
    "list ROOT",
    "check RUN --max-stall 50%",
    "export RUN --to csv --out OUT/csv",
    "compare RUN RUN",
    "report RUN --json",
    "report RUN",
)


def main() -> None:
    """Print one row a verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        stages = {"read": 10 * MS, "decode": 60 * MS, "transform:Crop": 9 * MS, "collate": 4 * MS}
        plan = Plan(batches=arguments.batches, workers=2, stages=stages, jitter=0.2, spans_every=1)
        run = make_run(Path(scratch) / "run", plan)
        words = {"ROOT": scratch, "RUN": str(run)}
        print("| verb | CPU s | simulations |\n| --- | --- | --- |")
        for verb in VERBS:
            asked = [words.get(word, word.replace("OUT", f"{scratch}/out")) for word in verb.split()]
            cpu_s = _cpu_s([sys.executable, "-m", "pipeprof", *asked])
            again = [word.replace("/out/", "/again/") for word in asked]
            done = subprocess.run(
                [sys.executable, "-c", COUNTED, *again], capture_output=True, text=True, check=False
            )
            print(f"| `{verb}` | {cpu_s:.2f} | {done.stderr.split()[-1]} |", flush=True)


def _cpu_s(command: list[str]) -> float:
    """Return the CPU seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
