"""Does our AU agree with DLIO's on the same step time, batch and loader? Run by hand; results in README.md.

DLIO (argonne-lcf/dlio_benchmark, `dlio_benchmark/utils/statscounter.py`, `compute_metrics_train`) takes for a
block of steps

    AU = sum of compute times / (end - start - time of the excluded first and last steps)

where the compute time of a step is measured around an emulated computation that sleeps in the loop
(`computation_time`), and a step lasts from the request of its batch to the end of its computation. MLPerf
Storage's AU is that figure.

Two comparisons, for step times of 2 to 200 ms and for loaders that keep up and that do not:
- `formula`: DLIO's formula over the very run that pipeprof measured: is our AU DLIO's?
- `loop`: a loop written as DLIO's, beside a pipeprof run with `sync: true`, in turn and several times: does
  our loop also do as DLIO's does? That takes a quiet machine.

Each has the bound of 1 percentage point; exits with 1 where one that was asked for lies outside.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeprof.analyse.analysis import analyse
from pipeprof.devices import AcceleratorModel, LinkModel
from pipeprof.measure.accelerator.emulated import EmulatedAccelerator, sleep_until
from pipeprof.measure.bench.run_display import Progress
from pipeprof.measure.bench.signals import StopRequest
from pipeprof.measure.bench.training import Loop
from pipeprof.measure.session.session import Session
from pipeprof.record import reader
from pipeprof.record.meta import RunMeta
from pipeprof.scenario import RunPart

BOUND_POINTS: Final = 1.0
WARMUP = 5
STEP_MS = (2.0, 5.0, 20.0, 50.0, 200.0)
LOAD_SHARES = (0.5, 1.5)
"""Time to make a batch, as a share of the step: one worker that keeps up, and one that does not."""
NO_LINK = LinkModel("none", 1e15, 1e15, 0)
"""DLIO copies nothing to a device."""


class Slow(Dataset[torch.Tensor]):
    """Batches of one sample that take `sample_ns` to come, without using a core."""

    def __init__(self, sample_ns: int) -> None:
        self.sample_ns = sample_ns

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        sleep_until(time.monotonic_ns() + self.sample_ns)
        return torch.zeros(8)


@dataclass(frozen=True)
class Case:
    """One step time and one loader."""

    step_ms: float
    load_share: float
    steps: int

    def loader_arguments(self) -> dict[str, Any]:
        return {"batch_size": 1, "num_workers": 1, "prefetch_factor": 2}

    def dataset(self) -> Slow:
        return Slow(round(self.step_ms * self.load_share * 1e6))


def dlio_formula(compute_ns: Any, processed_ns: Any, start_ns: int, end_ns: int, skip: int) -> float:
    """`compute_metrics_train` of DLIO's StatsCounter, with `skip` steps excluded at both ends."""
    last = len(compute_ns) - 1 - skip
    total_compute = np.sum(compute_ns[skip : last + 1])
    total = end_ns - start_ns - np.sum(processed_ns[:skip]) - np.sum(processed_ns[last + 1 :])
    return float(total_compute / total)


def dlio_loop(case: Case) -> float:
    """DLIO's training loop (`_train` of main.py) over a plain DataLoader."""
    loader: DataLoader[Any] = DataLoader(case.dataset(), **case.loader_arguments())
    compute, processed = [], []
    start = loading = time.monotonic_ns()
    for step, _ in enumerate(loader):
        began = time.monotonic_ns()
        time.sleep(case.step_ms / 1e3)
        ended = time.monotonic_ns()
        compute.append(ended - began)
        processed.append(ended - loading)
        if step + 1 == case.steps:
            break
        loading = time.monotonic_ns()
    return dlio_formula(compute, processed, start, time.monotonic_ns(), WARMUP)


def measure(case: Case, directory: Path, sync: bool) -> reader.Run:
    """The same loader and step time under pipeprof."""
    model = AcceleratorModel("au", round(case.step_ms * 1e6), link=NO_LINK)
    accelerator = EmulatedAccelerator(model, pinned=True, sync=sync)
    meta = RunMeta(accelerator=accelerator.describe(), emulated=("accelerator: au",))
    limits = RunPart(steps=case.steps, warmup_steps=WARMUP)
    with Session(directory, "bench", "au", meta, warmup_steps=WARMUP, device=True) as session:
        loader = session.loader(case.dataset(), **case.loader_arguments())
        Loop(session, accelerator, Progress("au", case.steps, None), limits, StopRequest()).train(loader)
    return reader.load(directory)


def formula_over(run: reader.Run) -> float:
    """DLIO's formula over the rows of a run: steps from request to the end of their computation."""
    rows = {name: np.array(run.table("steps")[name]) for name in _COLUMNS}
    ends = rows["compute_end_ns"]
    compute = ends - rows["compute_start_ns"]
    processed = np.diff(ends, prepend=rows["request_ns"][0])
    # pipeprof leaves out the first steps only, as its own window does
    total = ends[-1] - rows["request_ns"][0] - processed[:WARMUP].sum()
    return float(compute[WARMUP:].sum() / total)


_COLUMNS = ("request_ns", "compute_start_ns", "compute_end_ns")


def formula(case: Case, place: Path) -> tuple[float, float]:
    """AU of pipeprof, and DLIO's formula over the same run."""
    run = measure(case, place / "free", sync=False)
    return au_of(run), formula_over(run)


def loop(case: Case, place: Path) -> tuple[float, float]:
    """AU of pipeprof with `sync`, and of DLIO's own loop."""
    return au_of(measure(case, place / "sync", sync=True)), dlio_loop(case)


def au_of(run: reader.Run) -> float:
    """pipeprof's AU."""
    return float(analyse(run).verdict.measured.utilization)


COMPARISONS: Final[dict[str, Callable[[Case, Path], tuple[float, float]]]] = {
    "formula": formula,
    "loop": loop,
}


@dataclass(frozen=True)
class Compared:
    """Medians of pipeprof's AU and of DLIO's, as shares."""

    ours: float
    theirs: float

    @property
    def points(self) -> float:
        """Difference in percentage points."""
        return (self.ours - self.theirs) * 100

    @property
    def held(self) -> bool:
        """Whether they agree within the bound."""
        return abs(self.points) <= BOUND_POINTS


def compare(name: str, case: Case, repeats: int) -> Compared:
    """Both AUs of one comparison, `repeats` times in turn."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            found.append(COMPARISONS[name](case, Path(place)))
    ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
    return Compared(ours, theirs)


def judge(name: str, found: Iterable[Compared]) -> bool:
    """Say how far apart a comparison's AUs are at the most, and whether that is within the bound."""
    worst = max(found, key=lambda one: abs(one.points))
    says = "within" if worst.held else "OUTSIDE"
    print(f"{name}: at most {worst.points:+.2f} points apart, {says} the bound of {BOUND_POINTS:g} point")
    return worst.held


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where a comparison is outside its bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="device time of each run")
    parser.add_argument("--only", choices=COMPARISONS, nargs="+", default=list(COMPARISONS))
    options = parser.parse_args(arguments)
    found: dict[str, list[Compared]] = {name: [] for name in options.only}
    print("| step ms | load / step | comparison | AU of pipeprof | AU of DLIO | difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for step_ms in STEP_MS:
        for share in LOAD_SHARES:
            case = Case(step_ms, share, WARMUP * 2 + max(20, round(options.seconds * 1e3 / step_ms)))
            for name, rows in found.items():
                rows.append(one := compare(name, case, options.repeats))
                figures = f"{one.ours:.2%} | {one.theirs:.2%} | {one.points:+.2f} points"
                print(f"| {step_ms:g} | {share:g} | {name} | {figures} |", flush=True)
    print()
    held = [judge(name, rows) for name, rows in found.items()]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
