"""What a run tells of its own cost, beside the paired benchmark of the same loader in the same minutes.

    python -m tests.benchmarks.told_cost [--only jpeg|tiny0|tiny2|text] [--lines] [--calls] [--scale 1]

A plain and an observed loader take turns as in `overhead.py`, once with each of them made first. Compared are
two figures of one quantity, the CPU time in all processes that observing adds to a batch:

- paired: CPU time of the loop's thread and of the workers' processes, observed less plain, and that of
  pipeprof's threads in the main process, all read from the kernel;
- told: what the observed runs themselves say, as the page and JSON's `own_cost` have it: cost of the loop's
  thread and of the workers (unprobed batches beside their neighbours, and what these bear still), of the
  calls into the proxies, by a model, of the threads that write and sample, and of the times in a batch's
  pickle.

Both are given in points: hundredths of the plain loop's CPU time for a batch. The exit status is 1 where they
are more than half a point apart and their 95 % intervals do not overlap. Where an interval is wider than half
a point either way, the line says that half a point could not be seen. Pictures are resized and not cropped at
random, so that all batches cost the same. Lines are sampled with `--lines`; without workers the plain
loader's turns bear that too.

With `--calls` every batch is unprobed, and what such a batch costs is set beside what the proxies' own clocks
see of it: their ratio, less one, is what `own_cost.CALLS` and its like model.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import transforms

import pipeprof
from pipeprof.measure.probe.unprobed import Blocks
from pipeprof.record.reader import load
from pipeprof.record.schema import MAIN_PROCESS, UNPROBED_PERIOD
from pipeprof.timeline import read_ints
from tests.benchmarks import user_job
from tests.benchmarks.overhead import Rows, Side, images, interval, take_turns

BOUND_POINTS: Final = 0.5
ROUNDS: Final = 12
TURN_BATCHES: Final = UNPROBED_PERIOD // 4
"""Batches of a turn, so that an unprobed block and its neighbours lie in one. Else the run would count the
plain loader's turn, in the same thread, as its own."""
MODELLED: Final = ("calls", "worker_calls")
"""Parts of what a run tells that are by one model."""
Make = Callable[[], DataLoader[Any]]


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __add__(self, other: Estimate) -> Estimate:
        """Return the sum of two figures that do not depend on each other."""
        value = self.value + other.value
        below = np.hypot(self.value - self.low, other.value - other.low)
        above = np.hypot(self.high - self.value, other.high - other.value)
        return Estimate(value, float(value - below), float(value + above))

    def with_same_error(self, other: Estimate) -> Estimate:
        """Return the sum of two figures that are wrong by the same: their errors add up."""
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def overlaps(self, other: Estimate) -> bool:
        return self.low <= other.high and other.low <= self.high

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Case:
    """A loop: its loader's maker in a folder, and the turns of a round."""

    make: Callable[[Path], Make]
    turns: int


def _jpeg(folder: Path) -> Make:
    pictures = images(folder, 256)
    pictures.transform = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    data = ConcatDataset([pictures] * 200)
    return lambda: DataLoader(data, 4, num_workers=2)


def _tiny(workers: int) -> Callable[[Path], Make]:
    return lambda _: lambda: DataLoader(Rows(64 * 100_000), 64, num_workers=workers)


def _text(folder: Path) -> Make:
    data, collate = user_job.dataset("text", folder, "")
    return lambda: DataLoader(data, 4, num_workers=2, collate_fn=collate)


CASES: Final = {
    "jpeg": Case(_jpeg, 12),
    "tiny0": Case(_tiny(0), 100),
    "tiny2": Case(_tiny(2), 50),
    "text": Case(_text, 36),
}


@dataclass(frozen=True)
class Compared:
    """Both figures of one loop, in points."""

    told: Estimate
    paired: Estimate
    parts: str

    @property
    def is_held(self) -> bool:
        return abs(self.told.value - self.paired.value) <= BOUND_POINTS or self.told.overlaps(self.paired)

    @property
    def is_seen(self) -> bool:
        """True where half a point would be seen."""
        return max(self.told.half_width, self.paired.half_width) <= BOUND_POINTS


def told_ns(run: Path) -> dict[str, Estimate]:
    """Return what a run tells of its own cost, by thread, in nanoseconds a batch."""
    own = pipeprof.load(run).verdict.as_dict()["own_cost"]
    told = {}
    for thread in ("main", "workers"):
        cost = own[thread]
        if cost is not None:
            if cost["low_ns"] is None:
                raise SystemExit(
                    f"the run tells nothing of {thread}: {cost['state']}, {cost['blocks']} blocks"
                )
            middle = (cost["low_ns"] + cost["high_ns"]) / 2
            told[thread] = Estimate(cost["cost_ns"] or middle, cost["low_ns"], cost["high_ns"])
    for part in MODELLED:
        calls = own[part]
        told[part] = Estimate(*[calls[f"{end}_ns"] if calls else 0.0 for end in ("cost", "low", "high")])
    for part in ("threads", "handover"):
        told[part] = Estimate(*[own[f"{part}_ns"] or 0.0] * 3)
    return told


@contextmanager
def _sides(make: Make, run: Path, lines: bool, observed_first: bool) -> Iterator[tuple[Side, Side]]:
    """Give the plain and the observed side; the run ends with the block."""
    gc.collect()
    plain = None if observed_first else Side(make())
    loader = make()
    with pipeprof.profile(loader, out=run, lines=lines):
        observed = Side(loader)
        yield plain or Side(make()), observed


def _paired(
    case: Case, rounds: int, lines: bool, read: Callable[[Path], dict[str, Estimate]]
) -> tuple[list[dict[str, float]], dict[str, Estimate]]:
    """Let a plain and an observed loader take turns, in both orders of their making.

    Return what each round measured, and the mean of what `read` finds in the two runs.
    """
    paired: list[list[dict[str, float]]] = []
    found = []
    with tempfile.TemporaryDirectory() as name:
        make = case.make(Path(name))
        for observed_first in (False, True):
            run = Path(name) / f"run-{observed_first}"
            with _sides(make, run, lines, observed_first) as (plain, observed):
                paired.append([take_turns(plain, observed, case.turns, TURN_BATCHES) for _ in range(rounds)])
            del plain, observed
            found.append(read(run))
    by_round = [{part: (one[part] + two[part]) / 2 for part in one} for one, two in zip(*paired, strict=True)]
    return by_round, {part: _mean(part, *(each[part] for each in found)) for part in found[0]}


def _mean(part: str, one: Estimate, other: Estimate) -> Estimate:
    """Return the mean of what two runs tell; a model's error is the same in both."""
    return (one.with_same_error(other) if part in MODELLED else one + other).times(0.5)


def compare(case: Case, rounds: int, lines: bool) -> Compared:
    """Set what the runs tell beside what their pairs cost."""
    by_round, told = _paired(case, rounds, lines, told_ns)
    point = 100 / float(np.median([each["plain"] for each in by_round]))
    parts = {part: value.times(point) for part, value in told.items()}
    seen = Estimate(*interval([(each["main"] + each["workers"]) * point for each in by_round]))
    of_kernel = {
        "main": [each["main"] - each["flush"] for each in by_round],
        "workers": [each["workers"] for each in by_round],
        "threads": [each["flush"] for each in by_round],
    }
    beside = "; ".join(
        f"{part} {value} beside {Estimate(*interval(of_kernel[part])).times(point)}"
        if part in of_kernel
        else f"{part} {value}"
        for part, value in parts.items()
    )
    calls = parts["calls"].with_same_error(parts["worker_calls"])
    others = (value for part, value in parts.items() if part not in MODELLED)
    return Compared(sum(others, calls), seen, f"{beside}; a point is {1 / point / 1e3:.2f} us a batch")


def _clocked_ns(path: Path) -> dict[str, Estimate]:
    """Return what the proxies' clocks see of an unprobed batch, by thread, and the times in its pickle.

    In nanoseconds; the median of all batches.
    """
    run = load(path)
    batches = read_ints(run, "batches", ("own_ns", "worker", "unprobed"))
    steps = read_ints(run, "steps", ("own_ns", "unprobed"))
    if not (batches["unprobed"] == 1).all() or not (steps["unprobed"] == 1).all():
        raise SystemExit("not every batch was unprobed")
    step_ns, making_ns = (float(np.median(rows["own_ns"])) for rows in (steps, batches))
    in_workers = bool((batches["worker"] != MAIN_PROCESS).any())
    seen = {"main": step_ns, "workers": making_ns} if in_workers else {"main": step_ns + making_ns}
    seen["handover"] = run.meta.overhead.handover_ns or 0.0 if in_workers else 0.0
    return {part: Estimate(ns, ns, ns) for part, ns in seen.items()}


def calls_line(case: Case, rounds: int) -> str:
    """Return what unprobed batches cost each thread, beside what the clocks see of them.

    Each of a batch's two sides bears half of the times in its pickle, which are no calls.
    """
    with (
        mock.patch.object(Blocks, "begin", lambda blocks: True),
        mock.patch.object(Blocks, "probes_next", False),
    ):
        by_round, clocked = _paired(case, rounds, False, _clocked_ns)
    handover_ns = clocked.pop("handover").value
    parts = []
    for thread, seen in clocked.items():
        own_ns = handover_ns / 2
        cost_ns = [each[thread] - own_ns - (each["flush"] if thread == "main" else 0.0) for each in by_round]
        cost = Estimate(*interval(cost_ns))
        multiple = Estimate(*(each / seen.value - 1 for each in (cost.value, cost.low, cost.high)))
        told = f"{thread} {cost.times(1e-3)} us a batch, {seen.value / 1e3:.1f} by its clocks"
        parts.append(f"{told}: calls x {multiple}")
    return "; ".join(parts)


def main(arguments: Sequence[str] | None = None) -> bool:
    """Print both figures of each loop; return whether they agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(CASES))
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rounds")
    options = parser.parse_args(arguments)
    if options.calls and options.lines:
        parser.error("--calls is measured without lines: leave --lines away")
    torch.set_num_threads(1)
    held = True
    for name in options.only or CASES:
        rounds = max(1, round(ROUNDS * options.scale))
        if options.calls:
            print(f"{name}: {calls_line(CASES[name], rounds)}", flush=True)
            continue
        found = compare(CASES[name], rounds, options.lines)
        held &= found.is_held
        word = "held" if found.is_held else "NOT held"
        unseen = "" if found.is_seen else ", half a point could not be seen"
        apart = found.told.value - found.paired.value
        print(f"{name}: told {found.told}, paired {found.paired} points, apart {apart:+.2f}: {word}{unseen}")
        print(f"  {found.parts}", flush=True)
    return held


if __name__ == "__main__":
    sys.exit(not main())
