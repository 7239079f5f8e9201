"""Does `pipeprof predict --ranks` say what several ranks do? Run `python -m tests.benchmarks.ranks`.

For each case one rank is measured alone. From that run alone the throughput of 2 and of 4 ranks is predicted;
then 2 and 4 real ranks are measured, which meet over gloo after each step and queue at one emulated device.
Exit code 1 where a prediction is further from its measurement than the limit. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipeprof.analyse.job.merge import merge
from pipeprof.record import reader
from pipeprof.simulate.demands.other_programs import open_run
from pipeprof.simulate.predict import predict
from tests.forked import Program, verb
from tests.measure.bench.test_ranks_together import free_port

LIMIT = 0.05
RANKS = (2, 4)


class Case(NamedTuple):
    """A device that one rank does not fill, and several do."""

    name: str
    storage: str
    sample_bytes: int
    batch_size: int
    step_ms: float
    steps: int


CASES = (
    # one arm, 12.7 ms a read: 25 ms a batch beside 40 ms of computing
    Case("hdd, random reads", "{tier: hdd}", 4_000, 2, 40.0, 120),
    # 5 ms of bandwidth a sample: 20 ms a batch beside 30 ms of computing
    Case(
        "ssd, bandwidth",
        "{tier: ssd, figures: {bandwidth_bytes_per_s: 4.0e+7}}",
        200_000,
        4,
        30.0,
        160,
    ),
    # nothing is short: as many times as fast as there are ranks
    Case("nvme, computing", "{tier: nvme}", 4_000, 4, 40.0, 120),
)


def scenario(case: Case) -> str:
    """The case as a file; the loop waits for each step, as it does where ranks meet."""
    return f"""
data: {{format: tensor_files, samples: 1024, sample_bytes: {case.sample_bytes}}}
storage: {case.storage}
loader: {{batch_size: {case.batch_size}, workers: 1}}
accelerator: {{kind: emulated, step_ms: {case.step_ms}, sync: true}}
run: {{steps: {case.steps}, warmup_steps: 10}}
"""


def measure(case: Case, ranks: int, directory: Path, cache: Path) -> Path:
    """Run `ranks` real ranks; returns the job's directory, or for one rank its run."""
    directory.mkdir(parents=True)
    (directory / "case.yaml").write_text(scenario(case))
    port = free_port()
    started = [Program(rank_of(rank, ranks, port, cache), directory) for rank in range(ranks)]
    for program in started:
        done = program.finished(600)
        assert done.returncode == 0, done.stderr
    return directory / "run"


def rank_of(rank: int, ranks: int, port: int, cache: Path) -> Callable[[], None]:
    """One rank's process."""
    run = verb("run", "case.yaml", "--no-report", "--out", "run")
    job = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PIPEPROF_CACHE": cache}

    def main() -> None:
        os.environ.update({name: str(value) for name, value in {**job, **address}.items()})
        run()

    return main


def main() -> None:
    """Measure, predict, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="The start of a case's name.")
    options = parser.parse_args()
    worst = 0.0
    print(f"{'case':<20}{'ranks':>6}{'predicted':>12}{'measured':>12}{'off by':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if options.only and not case.name.startswith(options.only):
                continue
            place = Path(scratch) / case.name
            demands = open_run(reader.load(measure(case, 1, place / "1", Path(scratch) / "cache")))
            for ranks in RANKS:
                knobs = replace(demands.measured, ranks=ranks)
                predicted = predict(demands, knobs).throughput.value
                found = merge([measure(case, ranks, place / str(ranks), Path(scratch) / "cache")]).throughput
                assert found is not None
                off = predicted / found - 1
                worst = max(worst, abs(off))
                print(f"{case.name:<20}{ranks:>6}{predicted:>12.1f}{found:>12.1f}{off:>+9.1%}", flush=True)
    sys.exit(int(worst > LIMIT))


if __name__ == "__main__":
    main()
