"""Does `pipeprof check` fail when it should, and only then? Run by hand on a quiet machine.

`python tests/benchmarks/check_gate.py --out DIR` measures one short scenario again and again:

- A/A: twenty-one equal runs, each checked against the one before: `--max-regression 5%` may fail once;
- planted: ten pairs of a run and one whose storage serves 10 % fewer requests, so that a tenth of the
  throughput is lost: the gate fails at least nine times.

It goes on where it was stopped: a run that is complete in DIR is not measured again. The table tells, for
each comparison, what was lost and within which interval; the last lines sum up. Exits with 1 where a promise
is broken. `--repeats 2 --pairs 2` is enough to see that it works, and says nothing of the promises.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from pipeprof.analyse.analysis import load as analysis_of
from pipeprof.analyse.differences import compare
from pipeprof.cli import cli
from pipeprof.errors import TraceError
from pipeprof.measure.bench.run import run
from pipeprof.record.reader import load
from pipeprof.scenario import Scenario

LIMIT = "5%"
PLANTED = 0.10
REQUESTS_PER_S = 240.0
REPEATS, PAIRS = 20, 10
MOST_FALSE_ALARMS, LEAST_FOUND = 1, 9


def scenario(requests_per_s: float) -> Scenario:
    """Storage-bound by a rate limit, with next to no work for the CPU; some ten seconds."""
    return Scenario.model_validate(
        {
            "name": "gate",
            "data": {"format": "tensor_files", "samples": 2048, "sample_bytes": 4000},
            "storage": {
                "tier": "network",
                "device": "rate-limit",
                "figures": {"requests_per_s": requests_per_s},
            },
            "loader": {"batch_size": 16, "workers": 2, "persistent_workers": True},
            "accelerator": {"kind": "emulated", "step_ms": 50.0},
            "run": {"steps": 140, "warmup_steps": 12},
        }
    )


def measured(directory: Path, requests_per_s: float) -> Path:
    """The run in `directory`, made now unless it is there and complete."""
    try:
        if load(directory).status == "complete":
            return directory
    except TraceError:
        pass
    shutil.rmtree(directory, ignore_errors=True)
    run(scenario(requests_per_s), directory)
    return directory


@dataclass(frozen=True)
class Tried:
    """One run checked against another."""

    name: str
    code: int
    """The exit code of `pipeprof check`."""
    lost: float
    low: float
    high: float

    def row(self) -> str:
        word = {0: "passed", 1: "failed", 3: "inconclusive"}.get(self.code, f"exit {self.code}")
        return f"| {self.name} | {self.lost:+.1%} | {self.low:+.1%} to {self.high:+.1%} | {word} |"


def tried(name: str, base: Path, other: Path) -> Tried:
    """Ask the verb itself; the numbers beside its answer are those that it weighs."""
    arguments = ["check", str(other), "--baseline", str(base), "--max-regression", LIMIT]
    code = CliRunner().invoke(cli, arguments).exit_code
    rate = compare([analysis_of(base), analysis_of(other)])[0].differences[0]
    assert rate.relative is not None and rate.low is not None and rate.high is not None
    scale = rate.base.value
    assert scale is not None
    return Tried(name, code, -rate.relative, -rate.high / scale, -rate.low / scale)


def main() -> int:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="Where the runs are kept.")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    print("| comparison | lost | interval | the gate |\n| --- | --- | --- | --- |", flush=True)
    alike, planted = [], []
    before = measured(given.out / "aa-00", REQUESTS_PER_S)
    for number in range(1, given.repeats + 1):
        after = measured(given.out / f"aa-{number:02}", REQUESTS_PER_S)
        alike.append(tried(f"A/A {number}", before, after))
        print(alike[-1].row(), flush=True)
        before = after
    for number in range(1, given.pairs + 1):
        base = measured(given.out / f"pair-{number:02}-base", REQUESTS_PER_S)
        slow = measured(given.out / f"pair-{number:02}-slow", REQUESTS_PER_S * (1 - PLANTED))
        planted.append(tried(f"planted {number}", base, slow))
        print(planted[-1].row(), flush=True)
    false_alarms, found = (sum(one.code == 1 for one in each) for each in (alike, planted))
    print(f"\nA/A: failed {false_alarms} of {len(alike)} times ({MOST_FALSE_ALARMS} of {REPEATS} allowed).")
    print(f"Planted {PLANTED:.0%}: found {found} of {len(planted)} times ({LEAST_FOUND} of {PAIRS} needed).")
    if (given.repeats, given.pairs) != (REPEATS, PAIRS):
        print(f"Too few to tell: the promise is about {REPEATS} repetitions and {PAIRS} pairs.")
        return 0
    return 0 if false_alarms <= MOST_FALSE_ALARMS and found >= LEAST_FOUND else 1


if __name__ == "__main__":
    sys.exit(main())
