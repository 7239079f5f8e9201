"""Time and memory of `pipeprof history` over many runs, and whether it finds a planted drop:
`python -m tests.benchmarks.history --runs 5000`.

The runs are made: `run.json` and what each came to, of five scripts on four hosts, one of which becomes 8 %
slower. The history is read in a process of its own, first without kept summaries, then with them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.made_history import Series, make

MOST_S, MOST_BYTES = 5.0, 1 << 30
"""For 5,000 runs."""
SCRIPTS, HOSTS = 5, 4


def plan(runs: int) -> list[Series]:
    """The series: one of them drops, at three fifths of its runs."""
    each = runs // (SCRIPTS * HOSTS)
    return [
        Series(
            f"train{script}.py",
            f"gpu-{host}",
            each,
            rate=500.0 * (1 + script),
            drop_at=each * 3 // 5 if (script, host) == (2, 1) else None,
            seed=script * HOSTS + host,
        )
        for script in range(SCRIPTS)
        for host in range(HOSTS)
    ]


def read(directory: Path) -> None:
    """In the child: the history, and what it took."""
    begun = time.monotonic()
    from pipeprof.analyse.history.history import history
    from pipeprof.analyse.history.summaries import summarise

    found = history(summarise(directory))
    seconds = time.monotonic() - begun
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    changes = [(change.first.directory, round(change.change, 4)) for change in found.changes]
    print(
        json.dumps(
            {
                "runs": len(found.runs),
                "seconds": seconds,
                "cpu_s": time.process_time(),
                "peak_bytes": peak_bytes,
                "changes": changes,
            }
        )
    )


def main() -> None:
    """Make the runs, read them twice, compare with the limits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        series = plan(options.runs)
        make(Path(directory), *series)
        dropped = next(one for one in series if one.drop_at is not None)
        planted = f"{dropped.script}-{dropped.host}-{dropped.drop_at:04}"
        for kept in ("without", "with"):
            command = [sys.executable, "-m", "tests.benchmarks.history", "--read", directory]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            exact = [run for run, _ in told["changes"]] == [planted]
            print(
                f"{told['runs']} runs {kept} kept summaries: {told['seconds']:.2f} s "
                f"({told['cpu_s']:.2f} s of CPU with the start), "
                f"peak {told['peak_bytes'] / 2**20:.0f} MiB, changes: {told['changes']}, "
                f"planted at {planted}: {'found' if exact else 'NOT FOUND ALONE'}"
            )
            failed |= told["seconds"] > MOST_S or told["peak_bytes"] > MOST_BYTES or not exact
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
