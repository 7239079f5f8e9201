"""Kill programs at random moments: `python -m tests.crash --kills 200 --seed 1`.

`--writes 20` lets the disk fail instead, at twenty random writes of each door, one in a program.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from math import inf
from pathlib import Path

from tests.crash.failing import DOORS, failing_writes
from tests.crash.harness import Harness, random_kills, table


def main() -> int:
    """Kill, print the table and what was wrong; return 1 where anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writes", type=int, help="fail so many writes of each door, and kill nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-s", type=float, default=inf, help="begin no kill after so many seconds")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pipeprof-crash-") as root:
        if given.writes is not None:
            return _failing(Path(root), given.writes, given.seed)
        harness = Harness(Path(root))
        random_kills(harness, given.kills, given.seed, given.most_s)
    print(f"{len(harness.kills)} kills, seed {given.seed}, {time.monotonic() - began:.0f} s\n")
    print(table(harness.kills))
    for kill in harness.kills:
        if kill.faults or (kill.lost_s or 0) > 1.0:
            print(kill)
    left = harness.names_left()
    print(f"\nnames in /dev/shm without an owner, torch's unfinished blocks among them: {len(left)} {left}")
    return int(any(kill.faults for kill in harness.kills))


def _failing(root: Path, each: int, seed: int) -> int:
    failures = failing_writes(root, each, seed)
    for name in DOORS:
        of_door = [failure for failure in failures if failure.program == name]
        bad = sum(bool(failure.faults) for failure in of_door)
        print(f"{name}: {len(of_door)} writes failed, {bad} with a fault")
    return int(any(failure.faults for failure in failures))


if __name__ == "__main__":
    sys.exit(main())
